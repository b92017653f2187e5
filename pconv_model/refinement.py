"""A small head that refines the network's result at full size. It is not part of the paper."""

import torch
import torch.nn.functional as F
from torch import nn

SLOPE = 0.2  # of the leaky ReLU, as in the decoder


class RefinementHead(nn.Module):
    """Three 3x3 convolutions at full size that correct the result near the edge of the hole.

    The last layer of Table 2 is linear, and a partial convolution does not know which pixels of its window are valid.
    So the outermost pixels of a hole are less accurate than by plain interpolation. This head sees the known pixels,
    the result and the mask. Its last layer starts at zero: added to a trained network, it changes nothing at first.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(7, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def initialise(self):
        """He initialisation; the last layer is zero."""
        for conv in (self.first, self.second):
            nn.init.kaiming_normal_(conv.weight, a=SLOPE, nonlinearity="leaky_relu")
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, result: torch.Tensor, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The correction to add to the result, (B, 3, H, W).

        result, image: (B, 3, H, W), both normalised. valid: (B, 1, H, W) of 0. and 1.
        """
        comp = torch.where(valid > 0, image.to(result.dtype), result)
        x = torch.cat([comp, result, valid.to(result.dtype)], 1)
        x = F.leaky_relu(self.first(x), SLOPE, inplace=True)
        x = F.leaky_relu(self.second(x), SLOPE, inplace=True)
        return self.last(x)
