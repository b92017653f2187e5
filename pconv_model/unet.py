"""The U-Net of Table 2, with partial convolutions (PConvUNet) or plain ones (ConvUNet, the paper's baseline)."""

import torch
import torch.nn.functional as F
from torch import nn

from maskgen.checks import expect, one_of
from maskgen.errors import BadInput
from pconv_model.layer import PartialConv2d
from pconv_model.settings import FREEZES, IMAGENET_MEAN, NetConfig
from pconv_model.upsampling import conv_joined, double

CHANNELS = (64, 128, 256, 512)  # of the encoder, the last one for all deeper layers
KERNELS = (7, 5, 5, 3)
SLOPE = 0.2  # of the decoder's leaky ReLU


class Block(nn.Module):
    """A row of Table 2: convolution, then batch norm and non-linearity where the row has them."""

    def __init__(self, conv, norm=None, slope=None):
        """slope: of the leaky ReLU, 0 for a ReLU, None for no non-linearity."""
        super().__init__()
        self.conv, self.norm, self.slope = conv, norm, slope

    def forward(self, x, valid=None):
        """Plain: x alone. Partial: x, zero in its holes, and its planes; returns such an x and its one plane.

        x may be a pair: features of half the size, and the skip with which they are concatenated.
        """
        reached = None
        if isinstance(x, tuple):
            x = conv_joined(*x, self.conv.weight)
            if valid is not None:
                x, reached = self.conv.weighed(x, valid)
            elif self.conv.bias is not None:
                x = x + self.conv.bias.to(x.dtype).view(1, -1, 1, 1)
        elif valid is None:
            x = self.conv(x)
        else:
            x, reached = self.conv(x, valid, clean=True)
        if self.norm is not None:
            x = self.norm(x)
            if reached is not None:  # batch norm moved the zeros; the activation keeps them, and so may come after
                x = x.mul_(reached.to(x.dtype))
        if self.slope is not None:
            x = F.leaky_relu(x, self.slope, inplace=True) if self.slope else F.relu(x, inplace=True)
        return x if valid is None else (x, reached)


class Detail(nn.Module):
    """Three convolutions at full size that mend the result where it meets the known pixels; not in the paper.

    The last layer of Table 2 is linear, and a partial convolution does not know where in its window the holes are, so
    the outer pixels of a hole come out worse than by plain interpolation. These see known pixels, result and mask side
    by side. The last of them begins as zero: a net that gets them begins as it was.
    """

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(7, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, result, image, valid):
        """What to add to the result. result, image: (B, 3, H, W), both normalised. valid: (B, 1, H, W)."""
        comp = torch.where(valid > 0, image.to(result.dtype), result)
        x = F.leaky_relu(self.first(torch.cat([comp, result, valid.to(result.dtype)], 1)), SLOPE, inplace=True)
        return self.last(F.leaky_relu(self.second(x), SLOPE, inplace=True))


class UNet(nn.Module):
    """What both nets share: `depth` halving layers, as many doubling ones, and images in [0, 1] at both ends."""

    def __init__(self, config: NetConfig):
        super().__init__()
        if config.width <= 0 or config.depth < 1:
            raise BadInput(f"width must be above 0 and depth at least 1, got {config.width} and {config.depth}")
        if config.detail < 0:
            raise BadInput(f"detail is a number of channels, or 0 for the paper's net, got {config.detail}")
        self.config = config
        self.stride = 2**config.depth  # px, sides that are multiples of it are halved evenly
        channels = [max(1, round(config.width * CHANNELS[min(i, 3)])) for i in range(config.depth)]
        kernels = [KERNELS[min(i, 3)] for i in range(config.depth)]
        inputs = [3, *channels]  # of each encoder layer, and the skips of the decoder
        self.encoder = nn.ModuleList(
            self._block(inputs[i], channels[i], kernels[i], stride=2, norm=i > 0, slope=0.0)
            for i in range(config.depth)
        )
        self.decoder = nn.ModuleList(
            self._block(
                inputs[i + 1] + inputs[i],
                inputs[i],
                3,
                parts=(inputs[i + 1], inputs[i]),
                norm=i > 0,
                slope=SLOPE if i > 0 or config.head == "sigmoid" else None,
            )
            for i in reversed(range(config.depth))
        )
        self.detail = Detail(config.detail) if config.detail else None
        self.head = nn.Conv2d(3, 3, 1) if config.head == "sigmoid" else None
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self.frozen = []  # batch norms that training leaves as they are
        self.initialise()

    def _block(self, inputs, outputs, kernel, *, stride=1, parts=None, norm, slope):
        bias = self.config.bias == "all" or not norm
        geometry = {"stride": stride, "padding": kernel // 2, "bias": bias}
        if self.config.kind == "pconv":
            conv = PartialConv2d(inputs, outputs, kernel, branches=parts, **geometry)
        else:
            conv = nn.Conv2d(inputs, outputs, kernel, **geometry)
        return Block(conv, nn.BatchNorm2d(outputs, eps=self.config.eps) if norm else None, slope)

    def initialise(self):
        """He initialisation [33 of the paper], biases zero."""
        for block in (*self.encoder, *self.decoder):
            nn.init.kaiming_normal_(block.conv.weight, a=block.slope or 0.0, nonlinearity="leaky_relu")
            if block.conv.bias is not None:
                nn.init.zeros_(block.conv.bias)
        if self.detail is not None:
            for conv in (self.detail.first, self.detail.second):
                nn.init.kaiming_normal_(conv.weight, a=SLOPE, nonlinearity="leaky_relu")
                nn.init.zeros_(conv.bias)
            nn.init.zeros_(self.detail.last.weight)
            nn.init.zeros_(self.detail.last.bias)

    def freeze(self, part="encoder"):
        """Phase 2 of training: batch norms keep their statistics and parameters, through .train() too.

        part: "encoder" for those of the encoder, as in the paper, or "all". Raises BadInput for another.
        """
        expect("freeze", part, one_of(FREEZES))
        blocks = [*self.encoder, *self.decoder] if part == "all" else self.encoder
        self.frozen = [block.norm for block in blocks if block.norm is not None]
        for norm in self.frozen:
            norm.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode=True):
        super().train(mode)
        for norm in self.frozen:
            norm.eval()
        return self

    def _finish(self, x):
        if self.head is not None:
            x = torch.sigmoid(self.head(x))
        return x * self.std + self.mean


class PConvUNet(UNet):
    """The network of the paper. PConvUNet() is Table 2; `width` and `depth` make it narrower and shallower."""

    def __init__(self, width=1.0, depth=8, **more):
        """more: the other fields of NetConfig."""
        super().__init__(NetConfig(kind="pconv", width=width, depth=depth, **more))

    def forward(self, image, valid):
        """The filled image (B, 3, H, W), about [0, 1] and not clipped; the mean colour where no valid pixel reaches.

        image: (B, 3, H, W) in [0, 1], RGB, anything in the holes. valid: (B, 1, H, W) of 0. and 1.
        """
        x = torch.where(valid > 0, (image - self.mean) / self.std, 0)
        skips = []
        for block in self.encoder:
            skips.append((x, valid))
            x, valid = block(x, valid)
        for block in self.decoder:
            skip, plane = skips.pop()
            x, valid = block((x, skip), torch.cat([double(valid, plane), plane], 1))
        if self.detail is not None:
            x = x + self.detail(x, skip, plane) * valid.to(x.dtype)
        return self._finish(x)

    @torch.no_grad()
    def output_valid(self, valid):
        """Where the net can say anything: (B, 1, H, W) of 0. and 1., from planes alone and so almost free."""
        planes = []
        for block in self.encoder:
            planes.append(valid)
            valid = (block.conv.seen(valid) > 0.5).to(valid.dtype)
        for block in self.decoder:
            plane = planes.pop()
            valid = (block.conv.seen(torch.cat([double(valid, plane), plane], 1)) > 0.5).to(valid.dtype)
        return valid


class ConvUNet(UNet):
    """The paper's baseline "Conv": the same U-Net of plain convolutions, the holes filled with one colour."""

    def __init__(self, width=1.0, depth=8, **more):
        """more: the other fields of NetConfig; fill="grey" is 127.5, fill="mean" ImageNet's mean colour."""
        super().__init__(NetConfig(kind="conv", width=width, depth=depth, **more))
        colour = (0.5, 0.5, 0.5) if self.config.fill == "grey" else IMAGENET_MEAN
        self.register_buffer("colour", torch.tensor(colour).view(1, 3, 1, 1), persistent=False)

    def forward(self, image, valid):
        """The filled image (B, 3, H, W), about [0, 1] and not clipped. Inputs as for PConvUNet."""
        x = (torch.where(valid > 0, image, self.colour) - self.mean) / self.std
        skips = []
        for block in self.encoder:
            skips.append(x)
            x = block(x)
        for block in self.decoder:
            skip = skips.pop()
            x = block((x, skip))
        if self.detail is not None:
            x = x + self.detail(x, skip, valid)
        return self._finish(x)

    def output_valid(self, valid):
        """Everywhere: plain convolutions have an answer for every pixel, were it only the filling."""
        return torch.ones_like(valid)


def build(config: NetConfig) -> UNet:
    """The net of a config, with fresh weights."""
    more = {name: value for name, value in vars(config).items() if name not in ("kind", "width", "depth")}
    return {"pconv": PConvUNet, "conv": ConvUNet}[config.kind](config.width, config.depth, **more)
