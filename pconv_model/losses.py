"""The loss terms of Liu et al., ECCV 2018, section 3.3, averaged as in the second version of the paper.

In all functions, out, comp, truth: (B, C, H, W) and valid: (B, 1, H, W) of 0. and 1.; each returns a scalar. `out` is
the network's result, `comp` the result in the holes and the truth elsewhere.
"""

import torch
import torch.nn.functional as F


def composite(out: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Icomp: the network's result in the holes, the truth elsewhere."""
    return torch.where(valid > 0, truth, out)


def valid_loss(out: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean over all C*H*W of abs(M * (out - truth))."""
    return ((out - truth).abs() * valid).mean()


def hole_loss(out: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean over all C*H*W, not only the hole, of abs((1 - M) * (out - truth))."""
    return ((out - truth).abs() * (1 - valid)).mean()


def perceptual_loss(
    features: list[torch.Tensor], truth_features: list[torch.Tensor], weights: torch.Tensor | float = 1
) -> torch.Tensor:
    """Sum over the layers of the mean absolute difference. features: one (B, C, H, W) per layer.

    weights: of the images, (B, 1, 1, 1), as `pconv_model.extra_losses.balance_weights` returns them; 1 in the paper.
    """
    pairs = zip(features, truth_features, strict=True)
    losses = (((a.float() - b.float()).abs() * weights).mean() for a, b in pairs)
    return sum(losses)  # type: ignore[return-value]  # it would be 0 for no layers


def gram(feature: torch.Tensor) -> torch.Tensor:
    """Gram matrix of (B, C, H, W) over its pixels, divided by C*H*W: float32 (B, C, C).

    Computed in float32 and divided before the product, since sums of squares overflow half precision.
    """
    flat = feature.flatten(2).float() / feature[0].numel() ** 0.5
    with torch.autocast(flat.device.type, enabled=False):
        return flat @ flat.transpose(1, 2)


def style_loss(
    features: list[torch.Tensor], truth_features: list[torch.Tensor], weights: torch.Tensor | float = 1
) -> torch.Tensor:
    """Sum over the layers of the mean absolute difference of the Gram matrices. weights: as in `perceptual_loss`."""
    pairs = zip(features, truth_features, strict=True)
    losses = (((gram(a) - gram(b)).abs().unsqueeze(1) * weights).mean() for a, b in pairs)
    return sum(losses)  # type: ignore[return-value]


def tv_loss(comp: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Total variation in the hole dilated by one pixel.

    Sum of the absolute differences of neighbours that both lie in this region, divided by C*H*W of the whole image.
    """
    region = dilate(1 - valid)
    across = (comp[..., 1:] - comp[..., :-1]).abs() * (region[..., 1:] * region[..., :-1])
    down = (comp[..., 1:, :] - comp[..., :-1, :]).abs() * (region[..., 1:, :] * region[..., :-1, :])
    return (across.sum() + down.sum()) / comp.numel()


def dilate(plane: torch.Tensor) -> torch.Tensor:
    """Maximum of each pixel and its eight neighbours: (B, C, H, W), 0 or more. Faster than max pooling on a CPU."""
    x = F.pad(plane, (1, 1, 1, 1))
    x = torch.maximum(torch.maximum(x[..., :-2], x[..., 1:-1]), x[..., 2:])
    return torch.maximum(torch.maximum(x[..., :-2, :], x[..., 1:-1, :]), x[..., 2:, :])
