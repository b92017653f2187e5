"""The U-Net of Table 2, with partial convolutions (PConvUNet) or plain ones (ConvUNet, the paper's baseline)."""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from maskgen.checks import expect, one_of
from pconv_model.interpolation import interpolate
from pconv_model.layer import PartialConv2d
from pconv_model.refinement import RefinementHead
from pconv_model.settings import FREEZES, IMAGENET_MEAN, NetConfig
from pconv_model.upsampling import conv_upsampled, upsample

CHANNELS = (64, 128, 256, 512)  # of the encoder, the last one for all deeper layers
KERNELS = (7, 5, 5, 3)
SLOPE = 0.2  # of the decoder's leaky ReLU
RESIDUAL_SCALE = 0.1  # times He's weights, at the start, in the second layer of a residual block


class Block(nn.Module):
    """A row of Table 2: a convolution, then batch norm and non-linearity if the row has them."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, slope: float | None = None):
        """slope: of the leaky ReLU; 0 for a ReLU, None for no non-linearity."""
        super().__init__()
        self.conv, self.norm, self.slope = conv, norm, slope

    def forward(self, x, valid=None):
        """With a plain convolution, returns the features. With a partial one, returns features and updated mask.

        x: features (B, C, H, W), zero in the holes; or a pair (low, skip) for a decoder layer, whose first part is half
        as large. valid: None for a plain convolution, or a mask (B, branches, H, W).
        """
        new_valid = None
        if isinstance(x, tuple):
            x = conv_upsampled(*x, self.conv.weight)
            if valid is not None:
                x, new_valid = self.conv.renormalise(x, valid)
            elif self.conv.bias is not None:
                x = x + self.conv.bias.to(x.dtype).view(1, -1, 1, 1)
        elif valid is None:
            x = self.conv(x)
        else:
            x, new_valid = self.conv(x, valid, masked=True)
        if self.norm is not None:
            x = self.norm(x)
            if new_valid is not None:  # batch norm changes zeros; the activation does not, so it can come after this
                x = x.mul_(new_valid.to(x.dtype))
        if self.slope is not None:
            x = F.leaky_relu(x, self.slope, inplace=True) if self.slope else F.relu(x, inplace=True)
        return x if valid is None else (x, new_valid)


class ResidualBlock(nn.Sequential):
    """Two blocks that keep the number of channels, whose result is added to their input."""

    def forward(self, x, valid=None):
        """Features, or with partial convolutions features and updated mask, as `Block`."""
        first, second = self
        if valid is None:
            return x + second(first(x))
        result, new_valid = second(*first(x, valid))
        return x + result, new_valid


class UNet(nn.Module, ABC):
    """Common parts of both networks: `depth` layers that halve the image, and as many that double it.

    Images are in [0, 1] at both ends.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: NetConfig):
        super().__init__()
        self.config = config
        self.stride = 2**config.depth  # px; the encoder halves sides that are multiples of it without a remainder
        channels = [max(1, round(config.width * CHANNELS[min(i, 3)])) for i in range(config.depth)]
        kernels = [KERNELS[min(i, 3)] for i in range(config.depth)]
        normed = config.factor == 1
        inputs = [3, *channels]  # of each encoder layer, and the skips of the decoder
        self.encoder = nn.ModuleList(
            self._block(inputs[i], channels[i], kernels[i], stride=2, norm=normed and i > 0, slope=0.0)
            for i in range(config.depth)
        )
        self.decoder = nn.ModuleList(
            self._block(
                inputs[i + 1] + inputs[i],
                inputs[i],
                3,
                branches=(inputs[i + 1], inputs[i]),
                norm=normed and i > 0,
                slope=SLOPE if i > 0 or config.head == "sigmoid" else None,
            )
            for i in reversed(range(config.depth))
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(
                *(self._block(channels[-1], channels[-1], 3, norm=False, slope=slope) for slope in (0.0, None))
            )
            for _ in range(config.blocks)
        )
        self.detail = RefinementHead(config.detail) if config.detail else None
        self.head = nn.Conv2d(3, 3, 1) if config.head == "sigmoid" else None
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self.frozen: list[Any] = []  # batch norms that stay in evaluation mode
        self.initialise()

    def _block(self, inputs, outputs, kernel, *, stride=1, branches=None, norm, slope):
        bias = self.config.bias == "all" or not norm
        geometry = {"stride": stride, "padding": kernel // 2, "bias": bias}
        if self.config.kind == "pconv":
            conv = PartialConv2d(inputs, outputs, kernel, branches=branches, **geometry)
        else:
            conv = nn.Conv2d(inputs, outputs, kernel, **geometry)
        return Block(conv, nn.BatchNorm2d(outputs, eps=self.config.eps) if norm else None, slope)

    def _inner_blocks(self):
        """The blocks of all residual blocks, in order."""
        return [block for pair in self.blocks for block in pair]

    def initialise(self) -> None:
        """He initialisation (reference 33 of the paper), with zero biases.

        A net that enlarges starts as its interpolation: its last layer is zero, and residual blocks start small.
        """
        for block in (*self.encoder, *self._inner_blocks(), *self.decoder):
            nn.init.kaiming_normal_(block.conv.weight, a=block.slope or 0.0, nonlinearity="leaky_relu")
            if block.conv.bias is not None:
                nn.init.zeros_(block.conv.bias)
        with torch.no_grad():
            for name, parameter in self.blocks.named_parameters():
                if name.endswith(".1.conv.weight"):
                    parameter.mul_(RESIDUAL_SCALE)
            if self.config.factor > 1:
                self.decoder[-1].get_parameter("conv.weight").zero_()
        if self.detail is not None:
            self.detail.initialise()

    def freeze(self, part: str = "encoder") -> Self:
        """Freeze the statistics and parameters of batch norms, for phase 2 of training. `.train()` leaves them frozen.

        part: "encoder", as in the paper, or "all". Raises BadInput for another value.
        """
        expect("freeze", part, one_of(FREEZES))
        blocks = [*self.encoder, *self.decoder] if part == "all" else self.encoder
        self.frozen = [block.norm for block in blocks if block.norm is not None]
        for norm in self.frozen:
            norm.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As in nn.Module, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for norm in self.frozen:
            norm.eval()
        return self

    @abstractmethod
    def output_valid(self, valid: torch.Tensor) -> torch.Tensor:
        """Where the receptive field of an output pixel holds a valid one: (B, 1, H, W) of 0. and 1., as `valid`."""

    def _finish(self, x):
        """From the last layer to an image in about [0, 1]."""
        if self.head is not None:
            x = torch.sigmoid(self.head(x))
        return x * self.std + self.mean


class PConvUNet(UNet):
    """The network of the paper. PConvUNet() is Table 2; `width` and `depth` make it narrower and shallower."""

    def __init__(self, width: float = 1.0, depth: int = 8, **config: Any):
        """width: times the paper's channels. depth: layers of the encoder. config: the other fields of NetConfig."""
        super().__init__(NetConfig(kind="pconv", width=width, depth=depth, **config))

    def forward(self, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The filled image (B, 3, H, W) in about [0, 1], not clipped.

        image: (B, 3, H, W), RGB in [0, 1], with any values in the holes. valid: (B, 1, H, W) of 0. and 1. The result is
        the mean colour where no valid pixel lies in the receptive field, see `output_valid`.
        """
        x = torch.where(valid > 0, (image - self.mean) / self.std, 0)
        skips = []
        for block in self.encoder:
            skips.append((x, valid))
            x, valid = block(x, valid)
        for block in self.blocks:
            x, valid = block(x, valid)
        for block in self.decoder:
            skip, skip_valid = skips.pop()
            x, valid = block((x, skip), torch.cat([upsample(valid, skip_valid), skip_valid], 1))
        if self.detail is not None:
            x = x + self.detail(x, skip, skip_valid) * valid.to(x.dtype)
        if self.config.factor > 1:
            x = x + interpolate(skip, skip_valid, self.config.factor)
        return self._finish(x)

    @torch.no_grad()
    def output_valid(self, valid: torch.Tensor) -> torch.Tensor:
        """The mask after the last layer, computed from masks alone. (B, 1, H, W) of 0. and 1., as `valid`."""
        skips = []
        for block in self.encoder:
            skips.append(valid)
            valid = (block.conv.count_valid(valid) > 0.5).to(valid.dtype)  # type: ignore[union-attr,operator]
        for block in self._inner_blocks():
            valid = (block.conv.count_valid(valid) > 0.5).to(valid.dtype)
        for block in self.decoder:
            skip = skips.pop()
            both = torch.cat([upsample(valid, skip), skip], 1)
            valid = (block.conv.count_valid(both) > 0.5).to(valid.dtype)  # type: ignore[union-attr,operator]
        return valid


class ConvUNet(UNet):
    """The paper's baseline "Conv": the same U-Net with plain convolutions, and holes filled with one colour."""

    colour: torch.Tensor

    def __init__(self, width: float = 1.0, depth: int = 8, **config: Any):
        """As for PConvUNet. The colour is 127.5 with fill="grey", or ImageNet's mean colour with fill="mean"."""
        super().__init__(NetConfig(kind="conv", width=width, depth=depth, **config))
        colour = (0.5, 0.5, 0.5) if self.config.fill == "grey" else IMAGENET_MEAN
        self.register_buffer("colour", torch.tensor(colour).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The filled image (B, 3, H, W) in about [0, 1], not clipped. Inputs as for PConvUNet."""
        x = (torch.where(valid > 0, image, self.colour) - self.mean) / self.std
        skips = []
        for block in self.encoder:
            skips.append(x)
            x = block(x)
        for block in self.blocks:
            x = block(x)
        for block in self.decoder:
            skip = skips.pop()
            x = block((x, skip))
        if self.detail is not None:
            x = x + self.detail(x, skip, valid)
        if self.config.factor > 1:
            x = x + interpolate(skip * valid, valid, self.config.factor)
        return self._finish(x)

    def output_valid(self, valid: torch.Tensor) -> torch.Tensor:
        """1 everywhere: the colour in the holes is a valid input of plain convolutions."""
        return torch.ones_like(valid)


def build(config: NetConfig) -> UNet:
    """A network with the given config and freshly initialised weights."""
    others = {name: value for name, value in vars(config).items() if name not in ("kind", "width", "depth")}
    return {"pconv": PConvUNet, "conv": ConvUNet}[config.kind](config.width, config.depth, **others)
