"""Partial convolution (Liu et al., ECCV 2018, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import nn

from maskgen.checks import expect, one_of

SCALINGS = ("v2", "v1")


class PartialConv2d(nn.Conv2d):
    """Convolution over valid pixels only, equations 1 and 2 of the paper.

    x' = W^T (x * M) * sum(1) / sum(M) + b where the window sees a valid pixel, else 0. sum(1) counts the whole
    window, also where it hangs over the image edge; what lies outside the image is a hole.

    in_channels ... bias: as in nn.Conv2d. branches: channels of each part of a concatenated input, such as
    (512, 512); each part has one mask plane, so that sum(M) = C1 * box(m1) + C2 * box(m2) exactly. scaling: "v2" as
    above, or "v1", the paper's first text, which has 1 / sum(M).
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        bias=True,
        *,
        branches=None,
        scaling="v2",
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)
        self.branches = tuple(branches or (in_channels,))
        if sum(self.branches) != in_channels:
            raise ValueError(f"branches {self.branches} must add up to the {in_channels} input channels")
        expect("scaling", scaling, one_of(SCALINGS))
        self.scaling = scaling

    def forward(self, x, valid, *, clean=False):
        """Returns x' (B, C', H', W') and its plane (B, 1, H', W') of 0. and 1.

        x: (B, C, H, W). valid: (B, branches, H, W) of 0. and 1. clean: x is zero in its holes already, which saves a
        pass; otherwise anything may be stored there, NaN too.
        """
        if not clean:
            x = self._without_holes(x, valid)
        return self.weighed(F.conv2d(x, self.weight, None, self.stride, self.padding, self.dilation), valid)

    def weighed(self, y, valid):
        """x' and its plane from y = W^T (x * M), which is overwritten."""
        seen = self.seen(valid)
        reached = seen > 0.5  # whole numbers; a half is safe against the rounding of fast convolutions
        window = self.weight[0].numel() if self.scaling == "v2" else 1
        gain = torch.where(reached, window / seen.clamp(min=1), 0).to(y.dtype)
        y = y.mul_(gain)  # in place: convolution does not need its result to go backward
        reached = reached.to(valid.dtype)
        if self.bias is not None:
            y = torch.addcmul(y, self.bias.to(y.dtype).view(1, -1, 1, 1), reached.to(y.dtype))
        return y, reached

    def seen(self, valid):
        """sum(M): how many valid inputs each window sees, over all channels. float32 (B, 1, H', W').

        Never in half precision, which cannot count beyond 2048 (float16) or 256 (bfloat16).
        """
        valid = valid.to(torch.promote_types(valid.dtype, torch.float32))
        window = torch.cat([valid.new_full((1, 1, *self.kernel_size), float(c)) for c in self.branches], 1)
        with torch.autocast(valid.device.type, enabled=False):
            return F.conv2d(valid, window, None, self.stride, self.padding, self.dilation)

    def _without_holes(self, x, valid):
        parts = zip(x.split(self.branches, 1), valid.split(1, 1), strict=True)
        return torch.cat([torch.where(plane > 0, part, 0) for part, plane in parts], 1)

    def extra_repr(self):
        parts = f", branches={self.branches}" if len(self.branches) > 1 else ""
        return f"{super().extra_repr()}{parts}, scaling={self.scaling}"
