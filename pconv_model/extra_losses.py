"""Loss terms and weights that are not part of the paper. All are off by default, see `settings.LossConfig`.

Arguments as in `pconv_model.losses`.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from pconv_model.losses import dilate

TYPICAL_RATIO = 0.3  # hole ratio that has the weight 1, the middle of the paper's classes
SMALLEST_RATIO = 0.01  # lower edge of the first class; smaller holes have the weight of this ratio
C1, C2 = 0.01**2, 0.03**2  # constants of SSIM for images in [0, 1]
RINGS = 8  # px, depth of the part of a hole that `near_loss` measures
PERIOD = 8  # px, of the pattern that `checkerboard_loss` measures: three upsampling layers
FLAT, STEEP = 0.5 / 255, 8 / 255  # added to the mean step; largest step that counts, in `checkerboard_loss`
LEVEL = 1 / 255  # a grey level, the step below which `smooth_loss` takes a photo for smooth


def balance_weights(valid: torch.Tensor, exponent: float) -> torch.Tensor:
    """Weights of the images, (B, 1, 1, 1): (0.3 / hole ratio)^exponent, so that images with small holes count more."""
    ratio = (1 - valid).mean((1, 2, 3), keepdim=True)
    return (TYPICAL_RATIO / ratio.clamp(min=SMALLEST_RATIO)) ** exponent


def ssim_loss(comp: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - SSIM (Wang et al. 2004) of each image, (B,): the mean over pixels and channels.

    Its use beside an L1 term is studied by Zhao et al. 2017. Gaussian window of 11x11 px with sigma 1.5, data range 1,
    without the 5 px at the image's edge, as scikit-image computes it. Always in float32, since it takes differences of
    squares.
    """
    with torch.autocast(comp.device.type, enabled=False):
        x, y = comp.float(), truth.float()
        mean_x, mean_y = _window_mean(x), _window_mean(y)
        product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
        covariance, variances = _window_mean(x * y) - product, _window_mean(x * x + y * y) - squares
        ssim = (2 * product + C1) / (squares + C1) * (2 * covariance + C2) / (variances + C2)
    return 1 - ssim.mean((1, 2, 3))


def _window_mean(x):
    """Gaussian means over SSIM's window where it lies inside the image: (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    window = torch.exp(-0.5 * (torch.arange(-5, 6, device=x.device, dtype=x.dtype) / 1.5) ** 2)
    window = (window / window.sum()).expand(x.shape[1], 1, 1, -1)
    return F.conv2d(F.conv2d(x, window, groups=len(window)), window.transpose(2, 3), groups=len(window))


def near_loss(out: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean absolute error in the outer rings of each hole, each 1 px wide, with weights 1, 1/2, 1/4, ...

    A ring's weight does not depend on its number of pixels. Similar to the spatially discounted loss of Yu et al. 2018:
    pixels deep in a hole cannot be known, and their errors would outweigh those near its edge.
    """
    weight = torch.zeros_like(valid)
    for ring in range(RINGS):
        dilated = dilate(valid)
        pixels, valid = dilated - valid, dilated
        weight += pixels * (0.5**ring / pixels.sum((1, 2, 3), keepdim=True).clamp(min=1))
    total = sum(0.5**ring for ring in range(RINGS))
    return ((out - truth).abs() * weight).sum((1, 2, 3)).mean() / out.shape[1] / total


def checkerboard_loss(comp: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """How much the steps between neighbours in the hole depend on their position modulo 8 px.

    A decoder that upsamples may leave steps at every second, fourth or eighth pixel (Odena et al. 2016, "Deconvolution
    and checkerboard artifacts"). For each of the eight positions, take the mean of abs(next pixel - pixel), where steps
    above 8 grey levels count as 8. The loss is the mean absolute deviation of these from their common mean, divided by
    that mean plus half a grey level; averaged over images and both directions. 0: all positions have the same mean.
    """
    hole = 1 - valid
    return (_position_dependence(comp, hole) + _position_dependence(comp.mT, hole.mT)).mean() / 2


def _position_dependence(comp, hole):
    """`checkerboard_loss` of each image, (B,), for steps from column to column."""
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


def smooth_loss(comp: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Error of the steps between neighbours in the hole, in grey levels, where the photo is smooth.

    Each step has the weight (1 / (1 + a))^2, where a is the mean step of the photo, in this direction, in the 11x11 px
    around, in grey levels: an error of four levels is visible in a sky, and not in grass. Steps across the edge of the
    hole count too. Mean over the pixels of the hole, both directions and the channels.
    """
    error, hole = comp - truth, 1 - valid
    return (_step_error(error, truth, hole) + _step_error(error.mT, truth.mT, hole.mT)).mean() / 2


def _step_error(error, truth, hole):
    """`smooth_loss` of each image, (B,), for steps from column to column."""
    around = F.avg_pool2d(_steps(truth).mean(1, keepdim=True), 11, 1, 5, count_include_pad=False)
    region = torch.maximum(hole[..., 1:], hole[..., :-1])
    weighted = _steps(error).mean(1, keepdim=True) / LEVEL * (LEVEL / (LEVEL + around)) ** 2 * region
    return weighted.sum((1, 2, 3)) / hole.sum((1, 2, 3)).clamp(min=1)


def windowed(features: Callable, valid: torch.Tensor, side: int, rng: np.random.Generator) -> Callable:
    """`features` of a square window in each image, placed around a hole pixel drawn with rng.

    The cost of VGG is proportional to the area. valid: (B, 1, H, W). side: px. The function that is returned takes
    images (n B, 3, H, W) for any whole n, and uses the same windows for each B of them.
    """
    windows = [_window_around_hole(plane[0], side, rng) for plane in valid]
    return lambda images: features(
        torch.stack([image[window] for image, window in zip(images, itertools.cycle(windows), strict=False)])
    )


def _window_around_hole(valid, side, rng):
    """Index of a window in (..., H, W), around a hole pixel of valid (H, W), or around its middle if there is none."""
    height, width = valid.shape
    holes = (valid < 1).nonzero()
    centre = holes[rng.integers(len(holes))].tolist() if len(holes) else (height // 2, width // 2)
    top, left = (
        min(max(0, at - side // 2), max(0, length - side)) for at, length in zip(centre, valid.shape, strict=True)
    )
    return ..., slice(top, top + side), slice(left, left + side)
