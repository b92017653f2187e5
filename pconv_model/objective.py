"""The training objective: the weighted sum of the paper's loss terms and of those that are not in the paper."""

from collections.abc import Callable

import torch

from pconv_model.extra_losses import balance_weights, checkerboard_loss, near_loss, smooth_loss, ssim_loss
from pconv_model.losses import composite, hole_loss, perceptual_loss, style_loss, tv_loss, valid_loss
from pconv_model.settings import LossConfig

PAPER = LossConfig()


def total_loss(
    out: torch.Tensor,
    truth: torch.Tensor,
    valid: torch.Tensor,
    features: Callable[[torch.Tensor], list[torch.Tensor]] | None = None,
    config: LossConfig = PAPER,
) -> dict[str, torch.Tensor]:
    """The weighted sum, "total", and its terms before they are weighted, each by its name in LossConfig.

    out: the network's result, (B, 3, H, W). truth: (B, 3, H, W) in [0, 1]. valid: (B, 1, H, W) of 0. and 1. features:
    from images in [0, 1] to a list of feature maps, as `pconv_model.features.load_vgg` returns; None leaves out the
    perceptual and the style term. Terms that are not in the paper are left out if their weight is 0.
    """
    comp = composite(out, truth, valid)
    weights = balance_weights(valid, config.balance) if config.balance else 1
    terms = {
        "valid": valid_loss(out, truth, valid) * config.span,
        "hole": hole_loss(weights * out, weights * truth, valid) * config.span,
        "tv": tv_loss(comp, valid) * config.span,
    }
    terms |= _extra_terms(out, comp, truth, valid, weights, config)
    if features is not None and (config.perceptual or config.style):
        terms |= _feature_terms(out, comp, truth, valid, features, config)
    return {"total": sum(getattr(config, name) * term for name, term in terms.items()), **terms}


def _feature_terms(out, comp, truth, valid, features, config):
    """The perceptual and the style term, each of the result and of the composite."""
    with torch.no_grad():
        of_truth = features(truth)
    both = [layer.chunk(2) for layer in features(torch.cat([out, comp]))]
    of_out, of_comp = [pair[0] for pair in both], [pair[1] for pair in both]
    weights = balance_weights(valid, config.balance_vgg) if config.balance_vgg else 1
    return {
        "perceptual": perceptual_loss(of_out, of_truth) + perceptual_loss(of_comp, of_truth, weights),
        "style": style_loss(of_out, of_truth) + style_loss(of_comp, of_truth, weights),
    }


def _extra_terms(out, comp, truth, valid, weights, config):
    """The terms that are not in the paper, those whose weight is not 0."""
    terms = {}
    if config.near:
        terms["near"] = near_loss(out, truth, valid) * config.span
    if config.checkerboard:
        terms["checkerboard"] = checkerboard_loss(comp, valid)
    if config.smooth:
        terms["smooth"] = smooth_loss(comp, truth, valid)
    if config.ssim:
        terms["ssim"] = (ssim_loss(comp, truth) * (weights.flatten() if config.balance else 1)).mean()
    return terms
