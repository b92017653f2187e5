"""Validation of a net during training: metrics on a fixed set of photos, and a grid of results."""

from pathlib import Path

import numpy as np
import torch

from maskgen.runtime import images
from pconv_model.data import ValidationSamples, batches
from pconv_model.losses import composite, perceptual_loss, style_loss
from pconv_model.settings import TrainConfig
from pconv_model.superres import spread_means

SHOWN = 8  # photos in the grid


class Validator:
    """Measures a net on the validation set and writes OUT/samples/<step>.jpg: masked, result, composite, truth."""

    def __init__(self, samples: ValidationSamples, out: Path, config: TrainConfig, features, device: str):
        """features: VGG's, for its two distances; None leaves them out."""
        self.samples, self.out, self.features, self.device = samples, out, features, device
        self.factor = config.factor
        self.size, self.batch = max(config.size), min(8, max(config.batch))

    @torch.no_grad()
    def __call__(self, net, step: int) -> dict[str, float]:
        """Means over the photos, of the composites: l1 (% of the whole image), PSNR (dB) and the distances of VGG."""
        rows, shown = [], []
        was_training = net.training
        net.eval()
        count = len(self.samples.photos)
        numbers = [range(i, min(i + self.batch, count)) for i in range(0, count, self.batch)]
        for image, valid in batches(self.samples, numbers, self.size, workers=1):
            image, valid = image.to(self.device), valid.to(self.device)
            known = spread_means(image, self.factor) if self.factor > 1 else image
            out = net(known, valid).float().clamp(0, 1)
            comp = composite(out, image, valid) if self.factor == 1 else out
            rows += [self._measure(*pair) for pair in zip(comp.split(1), image.split(1), strict=True)]
            if len(shown) < SHOWN:
                shown += [torch.cat(four, 1) for four in zip(known * valid, out, comp, image, strict=True)]
        net.train(was_training)
        self._draw(shown[:SHOWN], step)
        return {f"val_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _measure(self, comp, truth):
        error = comp - truth
        row = {
            "l1": 100 * error.abs().mean().item(),
            "psnr": -10 * error.square().mean().clamp(min=1e-10).log10().item(),
        }
        if self.features is not None:
            of_comp, of_truth = self.features(comp), self.features(truth)
            row |= {
                "perceptual": perceptual_loss(of_comp, of_truth).item(),
                "style": style_loss(of_comp, of_truth).item(),
            }
        return row

    def _draw(self, columns, step):
        grid = torch.cat(columns, 2).permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        images.write(self.out / "samples" / f"{step:07d}.jpg", np.ascontiguousarray(grid))
