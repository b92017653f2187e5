"""The loss terms of Liu et al., ECCV 2018, section 3.3, averaged as in the paper's second text.

In every function out, comp, truth: (B, C, H, W) and valid: (B, 1, H, W) of 0. and 1.; each returns one number.
`out` is what the net gave, `comp` the same in the holes and the truth elsewhere.
"""

import itertools

import torch
import torch.nn.functional as F

from pconv_model.settings import LossConfig

PAPER = LossConfig()
TYPICAL = 0.3  # hole ratio, the middle of the paper's classes
SMALLEST = 0.01  # the lower edge of the first class; a hole in a crop may be smaller
RINGS = 8  # of a hole that `near_loss` looks at
PERIOD = 8  # px, of the pattern that `checkerboard_loss` is against: three doublings of the decoder
FLAT, STEEP = 0.5 / 255, 8 / 255  # steps between neighbours that are too small, or too large, to show a lattice
LEVEL = 1 / 255  # a step between neighbours that counts as smooth for `smooth_loss`
C1, C2 = 0.01**2, 0.03**2  # of SSIM for images in [0, 1]


def composite(out, truth, valid):
    """Icomp: the net's result in the holes, the truth elsewhere."""
    return torch.where(valid > 0, truth, out)


def valid_loss(out, truth, valid):
    """Mean over all C*H*W of abs(M * (out - truth))."""
    return ((out - truth).abs() * valid).mean()


def hole_loss(out, truth, valid):
    """Mean over all C*H*W, not over the hole alone, of abs((1 - M) * (out - truth))."""
    return ((out - truth).abs() * (1 - valid)).mean()


def evened(valid, exponent):
    """Factors (B, 1, 1, 1), (0.3 / hole ratio)^exponent: images whose holes are small count for more."""
    ratio = (1 - valid).mean((1, 2, 3), keepdim=True)
    return (TYPICAL / ratio.clamp(min=SMALLEST)) ** exponent


def perceptual_loss(features, truth_features, factor=1):
    """Sum over the layers of the mean absolute difference. Both: lists of (B, C, H, W), one per layer.

    factor: of each image, as `evened` gives them, here and in `style_loss`.
    """
    return sum(((a.float() - b.float()).abs() * factor).mean() for a, b in zip(features, truth_features, strict=True))


def gram(feature):
    """Gram matrix of (B, C, H, W) over its pixels, divided by C*H*W: float32 (B, C, C).

    Always in float32 and divided before the product, since sums of squares overflow half precision.
    """
    flat = feature.flatten(2).float() / feature[0].numel() ** 0.5
    with torch.autocast(flat.device.type, enabled=False):
        return flat @ flat.transpose(1, 2)


def style_loss(features, truth_features, factor=1):
    """Sum over the layers of the mean absolute difference of the Gram matrices."""
    pairs = zip(features, truth_features, strict=True)
    return sum(((gram(a) - gram(b)).abs().unsqueeze(1) * factor).mean() for a, b in pairs)


def tv_loss(comp, valid):
    """Absolute differences of neighbours, both inside the hole dilated by one pixel; their sum over C*H*W."""
    region = dilated(1 - valid)
    across = (comp[..., 1:] - comp[..., :-1]).abs() * (region[..., 1:] * region[..., :-1])
    down = (comp[..., 1:, :] - comp[..., :-1, :]).abs() * (region[..., 1:, :] * region[..., :-1, :])
    return (across.sum() + down.sum()) / comp.numel()


def dilated(plane):
    """The largest of each pixel and its eight neighbours: (B, C, H, W), not negative. Faster than pooling on a CPU."""
    x = F.pad(plane, (1, 1, 1, 1))
    x = torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return torch.maximum(torch.maximum(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])


def ssim_loss(comp, truth):
    """1 - SSIM of Wang et al. 2004 of each image, (B,), mean over pixels and channels; no term of the paper.

    Zhao et al. 2017 have shown what it does beside an L1 term. Gaussian window 11x11 with sigma 1.5, range 1, what
    hangs over the image edge left out, as scikit-image and our metric have it. Always in float32, which the
    differences of squares need.
    """
    with torch.autocast(comp.device.type, enabled=False):
        x, y = comp.float(), truth.float()
        mean_x, mean_y = _blur(x), _blur(y)
        product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
        covariance, variances = _blur(x * y) - product, _blur(x * x + y * y) - squares
        likeness = (2 * product + C1) / (squares + C1) * (2 * covariance + C2) / (variances + C2)
    return 1 - likeness.mean((1, 2, 3))


def near_loss(out, truth, valid):
    """Weighted mean of the absolute differences in the first rings of each hole, 1 px wide each; no term of the paper.

    A ring counts half as much as the one before it, whatever the number of its pixels. As in the spatially discounted
    loss of Yu et al. 2018: what is deep in a hole is a guess, and its errors drown those that can be mended.
    """
    weight = torch.zeros_like(valid)
    for ring in range(RINGS):
        grown = dilated(valid)
        here, valid = grown - valid, grown
        weight += here * (0.5**ring / here.sum((1, 2, 3), keepdim=True).clamp(min=1))
    return ((out - truth).abs() * weight).sum((1, 2, 3)).mean() / out.shape[1] / sum(0.5**ring for ring in range(RINGS))


def checkerboard_loss(comp, valid):
    """How unequal, by their place in a lattice of 8 px, neighbours in the hole differ; no term of the paper.

    A decoder that doubles its features may leave steps at every second, fourth or eighth pixel (Odena et al. 2016,
    "Deconvolution and checkerboard artifacts"); photos know no such lattice. 0: all eight places have the same mean of
    abs(next pixel - pixel), steps over 8 grey levels counting as 8; 1: they deviate from it by all of it, in the mean
    over the hole's pixels and both directions. Half a level is added to what is divided by.
    """
    hole = 1 - valid
    return (_unequal(comp, hole) + _unequal(comp.mT, hole.mT)).mean() / 2


def _unequal(comp, hole):
    """Of each image, (B,): mean deviation of eight columns' mean steps from the mean of all, divided by that."""
    steps = _steps(comp).clamp(max=STEEP).mean(1, keepdim=True)
    region = hole[..., 1:] * hole[..., :-1]
    pad = -steps.shape[-1] % PERIOD
    columns = ((steps * region).sum((1, 2)), region.sum((1, 2)))
    steps, pixels = (F.pad(each, (0, pad)).unflatten(1, (-1, PERIOD)).sum(1) for each in columns)
    count = pixels.sum(1).clamp(min=1)
    mean = steps.sum(1) / count
    deviation = (steps - mean[:, None] * pixels).abs().sum(1) / count
    return deviation / (mean + FLAT)


def _steps(x):
    """Absolute differences from column to column, (B, C, H, W) -> float32 (B, C, H, W - 1)."""
    return (x[..., 1:] - x[..., :-1]).abs().float()


def smooth_loss(comp, truth, valid):
    """Wrong steps between neighbours in the hole, in grey levels, where the photo is smooth; no term of the paper.

    Each step counts by (1 / (1 + a))^2, a being the photo's own mean step that way in the 11x11 pixels around, in grey
    levels: an error of four levels is seen in a sky and lost in grass. Steps across the hole's edge count too. Mean
    over the hole's pixels, both directions and the channels.
    """
    wrong, hole = comp - truth, 1 - valid
    return (_rough(wrong, truth, hole) + _rough(wrong.mT, truth.mT, hole.mT)).mean() / 2


def _rough(wrong, truth, hole):
    """Of each image, (B,): the weighted errors of the steps from column to column, over the hole's pixels."""
    around = F.avg_pool2d(_steps(truth).mean(1, keepdim=True), 11, 1, 5, count_include_pad=False)
    region = torch.maximum(hole[..., 1:], hole[..., :-1])
    weighted = _steps(wrong).mean(1, keepdim=True) / LEVEL * (LEVEL / (LEVEL + around)) ** 2 * region
    return weighted.sum((1, 2, 3)) / hole.sum((1, 2, 3)).clamp(min=1)


def _blur(x):
    """Weighted means over the window wherever it fits: (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    window = torch.exp(-0.5 * (torch.arange(-5, 6, device=x.device, dtype=x.dtype) / 1.5) ** 2)
    window = (window / window.sum()).expand(x.shape[1], 1, 1, -1)
    return F.conv2d(F.conv2d(x, window, groups=len(window)), window.transpose(2, 3), groups=len(window))


def windowed(features, valid, side, rng):
    """`features` of a square in each image, side x side px, that lies about a hole pixel drawn with rng, a Generator.

    VGG's cost falls with the area. valid: (B, 1, H, W); what is looked at may be several batches of B, one behind the
    other, each with the same squares.
    """
    squares = [_square(plane[0], side, rng) for plane in valid]
    return lambda image: features(torch.stack([x[s] for x, s in zip(image, itertools.cycle(squares), strict=False)]))


def _square(valid, side, rng):
    """Index of a square of (..., H, W) about a hole pixel of `valid`, (H, W), or about its middle."""
    height, width = valid.shape
    holes = (valid < 1).nonzero()
    place = holes[rng.integers(len(holes))].tolist() if len(holes) else (height // 2, width // 2)
    top, left = (
        min(max(0, at - side // 2), max(0, length - side)) for at, length in zip(place, valid.shape, strict=True)
    )
    return ..., slice(top, top + side), slice(left, left + side)


def total_loss(out, truth, valid, features=None, config: LossConfig = PAPER):
    """The weighted sum and its unweighted terms: a dict with "total" and one entry per term.

    out, truth: in [0, 1]. The hole term is `evened` where config.balance is not 0. features: turns (B, 3, H, W) in
    [0, 1] into a list of features, as pconv_model.features.load_vgg does; None leaves the perceptual and style terms
    out; what those see of the composite is `evened` where config.balance_vgg is not 0. The near, checkerboard,
    smooth and SSIM terms, the last `evened` as the hole term, are there where their weights are not 0.
    """
    comp = composite(out, truth, valid)
    factor = evened(valid, config.balance) if config.balance else 1
    terms = {
        "valid": valid_loss(out, truth, valid) * config.span,
        "hole": hole_loss(factor * out, factor * truth, valid) * config.span,
        "tv": tv_loss(comp, valid) * config.span,
    }
    if config.near:
        terms["near"] = near_loss(out, truth, valid) * config.span
    if config.checkerboard:
        terms["checkerboard"] = checkerboard_loss(comp, valid)
    if config.smooth:
        terms["smooth"] = smooth_loss(comp, truth, valid)
    if config.ssim:
        terms["ssim"] = (ssim_loss(comp, truth) * (factor.flatten() if config.balance else 1)).mean()
    if features is not None and (config.perceptual or config.style):
        with torch.no_grad():
            wanted = features(truth)
        both = [layer.chunk(2) for layer in features(torch.cat([out, comp]))]
        of_out, of_comp = [pair[0] for pair in both], [pair[1] for pair in both]
        seen = evened(valid, config.balance_vgg) if config.balance_vgg else 1
        terms["perceptual"] = perceptual_loss(of_out, wanted) + perceptual_loss(of_comp, wanted, seen)
        terms["style"] = style_loss(of_out, wanted) + style_loss(of_comp, wanted, seen)
    return {"total": sum(getattr(config, name) * term for name, term in terms.items()), **terms}
