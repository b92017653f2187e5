"""How good a net is while it trains: measures on a fixed set of photos, and a picture of some of them."""

import numpy as np
import torch

from maskgen.runtime import images
from pconv_model.data import batches
from pconv_model.losses import composite, perceptual_loss, style_loss

SHOWN = 8  # photos in the sample grid


class Judge:
    """Measures the net on the validation set and draws the sample grid."""

    def __init__(self, samples, out, config, features, device):
        self.samples, self.out, self.features, self.device = samples, out, features, device
        self.size, self.batch = max(config.size), min(8, max(config.batch))

    @torch.no_grad()
    def __call__(self, run) -> dict:
        """Mean over the photos of l1 (% of the whole image), PSNR (dB) and VGG's two distances, of the composites."""
        rows, shown, net = [], [], run.best
        was_training = net.training
        net.eval()
        count = len(self.samples.photos)
        numbers = [range(i, min(i + self.batch, count)) for i in range(0, count, self.batch)]
        for image, valid in batches(self.samples, numbers, self.size, workers=1):
            image, valid = image.to(self.device), valid.to(self.device)
            out = net(image, valid).float().clamp(0, 1)
            comp = composite(out, image, valid)
            rows += [self._measure(*pair) for pair in zip(comp.split(1), image.split(1), strict=True)]
            if len(shown) < SHOWN:
                shown += [torch.cat(four, 1) for four in zip(image * valid, out, comp, image, strict=True)]
        net.train(was_training)
        self._draw(shown[:SHOWN], run.step)
        return {f"val_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _measure(self, comp, truth):
        error = comp - truth
        row = {
            "l1": 100 * error.abs().mean().item(),
            "psnr": -10 * error.square().mean().clamp(min=1e-10).log10().item(),
        }
        if self.features is not None:
            found, wanted = self.features(comp), self.features(truth)
            row |= {"perceptual": perceptual_loss(found, wanted).item(), "style": style_loss(found, wanted).item()}
        return row

    def _draw(self, columns, step):
        grid = torch.cat(columns, 2).permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        images.write(self.out / "samples" / f"{step:07d}.jpg", np.ascontiguousarray(grid))
