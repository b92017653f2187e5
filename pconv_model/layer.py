"""Partial convolution (Liu et al., ECCV 2018, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import nn

from maskgen.checks import expect, one_of

SCALINGS = ("v2", "v1")


class PartialConv2d(nn.Conv2d):
    """Convolution over valid pixels only, equations 1 and 2 of the paper.

    x' = W^T (x * M) * sum(1) / sum(M) + b if the window holds a valid pixel, else 0. sum(1) counts the whole window,
    including what lies outside the image; pixels outside the image are not valid.

    in_channels ... bias: as in nn.Conv2d. branches: number of channels of each part of a concatenated input, such as
    (512, 512). Each part has one mask plane, so that sum(M) = C1 * box(m1) + C2 * box(m2) exactly. scaling: "v2" as
    above, or "v1" for 1 / sum(M), as in the first version of the paper. Raises ValueError if the branches do not add up
    to in_channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        *,
        branches: tuple[int, ...] | None = None,
        scaling: str = "v2",
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)
        self.branches = tuple(branches or (in_channels,))
        if sum(self.branches) != in_channels:
            raise ValueError(f"branches {self.branches} must add up to the {in_channels} input channels")
        expect("scaling", scaling, one_of(SCALINGS))
        self.scaling = scaling

    def forward(  # type: ignore[override]  # a convolution of one input has no mask
        self, x: torch.Tensor, valid: torch.Tensor, *, masked: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns x' (B, C', H', W') and the updated mask (B, 1, H', W') of 0. and 1.

        x: (B, C, H, W), with any values in the holes, NaN included. valid: (B, branches, H, W) of 0. and 1. masked:
        True if x is zero in the holes already, which saves one pass over memory.
        """
        if not masked:
            x = self._mask(x, valid)
        return self.renormalise(F.conv2d(x, self.weight, None, self.stride, self.padding, self.dilation), valid)

    def renormalise(self, y: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x' and the updated mask from y = W^T (x * M), which is overwritten."""
        count = self.count_valid(valid)
        is_valid = count > 0.5  # counts are whole numbers; 0.5 allows for the rounding of fast convolutions
        window = self.weight[0].numel() if self.scaling == "v2" else 1
        gain = torch.where(is_valid, window / count.clamp(min=1), 0).to(y.dtype)
        y = y.mul_(gain)  # in place: the backward pass of a convolution does not need its result
        new_valid = is_valid.to(valid.dtype)
        if self.bias is not None:
            y = torch.addcmul(y, self.bias.to(y.dtype).view(1, -1, 1, 1), new_valid.to(y.dtype))
        return y, new_valid

    def count_valid(self, valid: torch.Tensor) -> torch.Tensor:
        """sum(M): the number of valid inputs in each window, over all channels. float32 (B, 1, H', W').

        Computed in float32, since float16 cannot count beyond 2048 and bfloat16 not beyond 256.
        """
        valid = valid.to(torch.promote_types(valid.dtype, torch.float32))
        window = torch.cat([valid.new_full((1, 1, *self.kernel_size), float(c)) for c in self.branches], 1)
        with torch.autocast(valid.device.type, enabled=False):
            return F.conv2d(valid, window, None, self.stride, self.padding, self.dilation)

    def _mask(self, x, valid):
        """x with zeros in the holes of each branch."""
        parts = zip(x.split(self.branches, 1), valid.split(1, 1), strict=True)
        return torch.cat([torch.where(plane > 0, part, 0) for part, plane in parts], 1)

    def extra_repr(self) -> str:
        branches = f", branches={self.branches}" if len(self.branches) > 1 else ""
        return f"{super().extra_repr()}{branches}, scaling={self.scaling}"
