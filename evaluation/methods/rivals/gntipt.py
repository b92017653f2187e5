"""Generative Image Inpainting with Contextual Attention (Yu et al. 2018): both stages of the generator.

Weights exist for two implementations, which differ (`dialect`): "mmagic", and "tensorflow", by the authors. Both take
BGR in [-1, 1].

| | tensorflow | mmagic |
|---|---|---|
| padding | zeros, at stride 2 only at the bottom and right | mirrored |
| end of the attention's encoder | ReLU | ELU |
| nearest pixel at a smaller size | corners aligned | the first of each block |
| patches that touch the hole | score 0, weight set to 0 after the softmax | excluded from the softmax |
| sum of overlapping patches | divided by 4 | divided by their number |
| output as 8 bits | truncated | rounded |
"""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from evaluation.methods.errors import Failed

MULTIPLE = 8  # px, of both sides
LEAST = 72  # px: the widest mirrored padding is 16 px at a quarter of the size, and needs more than 16 px
SHARPNESS = 10  # of the softmax
SMALL = 1e-4  # smallest norm of a patch
EXCLUDED = -1e9  # score of patches that are excluded from the softmax
MOST = 2**14  # patches; all are compared with each other, which takes 5 GB of memory


class Layer(nn.Module):
    """A padded convolution and its activation."""

    def __init__(self, inner, outer, kernel=3, stride=1, dilation=1, *, dialect, activation=F.elu):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, stride, dilation=dilation)
        reach = kernel // 2 * dilation
        before = 0 if dialect == "tensorflow" and stride == 2 else reach  # "SAME" of even sides
        self.pads, self.mode = (before, reach) * 2, "constant" if dialect == "tensorflow" else "reflect"
        self.activation = activation

    def forward(self, x):
        x = self.conv(F.pad(x, self.pads, self.mode))
        return self.activation(x) if self.activation else x


class Attention(nn.Module):
    """Contextual attention followed by two convolutions, on features and a hole."""

    def __init__(self, dialect):
        super().__init__()
        self.conv1, self.conv2 = (Layer(128, 128, dialect=dialect) for _ in range(2))
        self.dialect = dialect

    def forward(self, x, hole):
        return self.conv2(self.conv1(contextual_attention(x, hole, self.dialect)))


class GntIpt(nn.Module):
    """The generator: `net(image, hole)`. Layers are named as in mmagic's files.

    image: float (B, 3, H, W), BGR in [-1, 1], 0 in the hole. hole: float (B, 1, H, W), 1 in the hole. The output is
    (B, 3, H, W), BGR in [-1, 1]. Sides are multiples of 8, of 72 px or more in the dialect "mmagic".
    """

    def __init__(self, dialect: str = "mmagic"):
        super().__init__()
        self.dialect, self.multiple = dialect, MULTIPLE
        self.least = LEAST if dialect == "mmagic" else MULTIPLE
        stage1 = OrderedDict(
            encoder=_encoder((32, 64, 64, 128, 128, 128), dialect),
            dilation_neck=_dilated(dialect),
            decoder=_decoder(128, dialect),
        )
        self.stage1 = nn.Sequential(stage1)
        last = F.relu if dialect == "tensorflow" else F.elu
        self.stage2 = nn.ModuleDict(
            {
                "encoder_conv": _encoder((32, 32, 64, 64, 128, 128), dialect),
                "dilation_neck": _dilated(dialect),
                "encoder_attention": _encoder((32, 32, 64, 128, 128, 128), dialect, last),
                "contextual_attention_neck": Attention(dialect),
                "decoder": _decoder(256, dialect),
            }
        )

    def forward(self, image, hole):
        planes = torch.ones_like(hole), hole
        coarse = self.stage1(torch.cat([image, *planes], 1))
        x, parts = torch.cat([coarse * hole + image * (1 - hole), *planes], 1), self.stage2
        drawn = parts["dilation_neck"](parts["encoder_conv"](x))
        features = parts["encoder_attention"](x)
        small = nearest(hole, features.shape[2:], self.dialect)
        return parts["decoder"](torch.cat([drawn, parts["contextual_attention_neck"](features, small)], 1))

    def answer(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """RGB in 0..255 from RGB in 0..255. image: float (B, 3, H, W), hole: float (B, 1, H, W), 1 in the hole.

        Raises Failed for an image that is too large to compare all patches with each other.
        """
        height, width = hole.shape[2:]
        if height * width > 64 * MOST:
            raise Failed(f"contextual attention takes images of up to {64 * MOST:,} px, got {height}x{width}")
        found = (self((image.flip(1) / 127.5 - 1) * (1 - hole), hole).flip(1) + 1) * 127.5
        return found.floor() if self.dialect == "tensorflow" else found


def _encoder(channels, dialect, last=F.elu):
    """Six layers, named enc1 to enc6, to a quarter of the size. channels: of their outputs; last: an activation."""
    layers = OrderedDict()
    for i, (inner, outer) in enumerate(pairwise((5, *channels)), 1):
        form = {
            "kernel": 5 if i == 1 else 3,
            "stride": 2 if i in (2, 4) else 1,
            "activation": last if i == 6 else F.elu,
        }
        layers[f"enc{i}"] = Layer(inner, outer, dialect=dialect, **form)
    return nn.Sequential(layers)


def _dilated(dialect):
    convs = (Layer(128, 128, dilation=d, dialect=dialect) for d in (2, 4, 8, 16))
    return nn.Sequential(OrderedDict(dilation_convs=nn.Sequential(*convs)))


def _decoder(inner, dialect):
    """Seven layers, named dec1 to dec7, to three planes in [-1, 1] at four times the size."""
    layers = OrderedDict()
    for i, (before, after) in enumerate(pairwise((inner, 128, 128, 64, 64, 32, 16, 3)), 1):
        if i in (3, 5):
            layers[f"up{i}"] = nn.UpsamplingNearest2d(scale_factor=2)
        layers[f"dec{i}"] = Layer(before, after, dialect=dialect, activation=None if i == 7 else F.elu)
    return nn.Sequential(OrderedDict(layers, end=nn.Hardtanh()))


def contextual_attention(x: torch.Tensor, hole: torch.Tensor, dialect: str) -> torch.Tensor:
    """Replace features by patches of features outside the hole (section 4 of the paper, figure 3).

    x: (B, C, H, W), hole: (B, 1, H, W) of 0 and 1; H and W are even. If every patch touches the
    hole, the result is 0, as in the authors' program.
    """
    height, width = (side // 2 for side in x.shape[2:])
    values = F.unfold(x, 4, stride=2, padding=1)  # (B, C*4*4, N), N = height * width
    half, missing = (nearest(plane, (height, width), dialect) for plane in (x, hole))
    patches = F.unfold(half, 3, padding=1)  # (B, C*3*3, N)
    keys = patches / torch.linalg.vector_norm(patches, dim=1, keepdim=True).clamp(min=SMALL)
    scores = _fused(patches.mT @ keys, height, width)  # (B, N, N): of each position with each patch
    clean = (F.max_pool2d(missing, 3, 1, 1) == 0).flatten(1)[:, None]
    scores = scores * clean if dialect == "tensorflow" else scores.masked_fill_(~clean, EXCLUDED)
    weights = torch.softmax(scores.mul_(SHARPNESS), 2).mul_(clean)
    laid = F.fold(values @ weights.mT, x.shape[2:], 4, stride=2, padding=1)
    if dialect == "tensorflow":
        return laid / 4
    return laid / F.fold(torch.ones_like(values[:1, :16]), x.shape[2:], 4, stride=2, padding=1)


def _fused(scores, height, width):
    """Add to each score those of neighbouring positions and patches in the same direction, by rows, then by columns."""
    by_rows = _diagonal(scores).unflatten(2, (height, width)).unflatten(1, (height, width))
    by_columns = _diagonal(by_rows.permute(0, 2, 1, 4, 3).reshape(scores.shape))
    turned = by_columns.unflatten(2, (width, height)).unflatten(1, (width, height))
    return turned.permute(0, 2, 1, 4, 3).reshape(scores.shape)


def _diagonal(scores):
    """Each score plus its two neighbours along the diagonal: a convolution with the 3x3 identity."""
    total = scores.clone()
    total[:, 1:, 1:] += scores[:, :-1, :-1]
    total[:, :-1, :-1] += scores[:, 1:, 1:]
    return total


def nearest(x: torch.Tensor, size, dialect: str) -> torch.Tensor:
    """Shrink planes by the nearest pixel, as the dialect defines it. (B, C, H, W) -> (B, C, *size)."""
    rows, columns = (_sources(long, short, dialect) for long, short in zip(x.shape[2:], size, strict=True))
    return x[:, :, rows][..., columns]


def _sources(long, short, dialect):
    places = np.arange(short, dtype=np.float32)
    if dialect == "tensorflow":  # corner on corner, in its own float32
        step = np.float32(long - 1) / np.float32(max(short - 1, 1))
        return np.floor(places * step + np.float32(0.5)).astype(np.int64) if short > 1 else np.zeros(1, np.int64)
    return np.arange(short) * long // short
