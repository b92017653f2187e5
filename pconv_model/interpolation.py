"""Cubic interpolation of a lattice of known pixels, as a partial convolution with a fixed kernel."""

import torch
import torch.nn.functional as F

A = -0.5  # of Keys' kernel; OpenCV takes -0.75


def interpolate(x: torch.Tensor, valid: torch.Tensor, factor: int) -> torch.Tensor:
    """The image between known pixels that are `factor` px apart: sum(w * x * M) / sum(w * M), w a cubic kernel.

    x: (B, C, H, W), zero in the holes. valid: (B, 1, H, W) of 0. and 1. Returns (B, C, H, W), in float32. A known pixel
    is the mean of its block of factor x factor px, and so belongs to the centre of the block, half a pixel up and left
    of the pixel (factor // 2, factor // 2) if the factor is even. The division makes it exact at the image's edge as
    well: a constant image stays constant. It is normalised convolution (Knutsson & Westin, CVPR 1993), a partial
    convolution that counts each valid pixel with its weight.
    """
    kernel = cubic_kernel(factor).to(x.device)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        both = torch.cat([x.float(), valid.float()], 1)
        sums = _along(_along(both, kernel, factor).mT, kernel, factor).mT
    return sums[:, :-1] / torch.where(sums[:, -1:].abs() > 1e-6, sums[:, -1:], 1)


def cubic_kernel(factor: int) -> torch.Tensor:
    """Keys' cubic kernel (IEEE Trans. ASSP 1981), stretched by the factor, at whole pixels: (4 * factor + 1,).

    Entry i is the weight of the known pixel that lies i - 2 * factor px right of an output pixel.
    """
    shift = factor // 2 - (factor - 1) / 2  # px, from the centre of a block to its known pixel
    t = (torch.arange(4 * factor + 1, dtype=torch.float64) - 2 * factor - shift).abs() / factor
    near = (A + 2) * t**3 - (A + 3) * t**2 + 1
    far = A * (t**3 - 5 * t**2 + 8 * t - 4)
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0)).float()


def _along(x, kernel, factor):
    """Each plane of x, convolved along its rows."""
    batch, channels, height, width = x.shape
    flat = x.reshape(batch * channels, 1, height, width)
    return F.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, 2 * factor)).view(batch, channels, height, width)
