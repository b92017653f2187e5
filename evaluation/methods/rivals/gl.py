"""Globally and Locally Consistent Image Completion (Iizuka, Simo-Serra & Ishikawa 2017): the completion network.

Written from Table 1 of the paper. Weights exist for two implementations, which differ (`dialect`): "mmagic" has no
biases before batch norm, clamps its output, and takes BGR in [-1, 1]; "torch7", by the authors, has biases, ends in a
sigmoid, and takes RGB in [0, 1] minus a mean colour that its file holds.
"""

from collections import OrderedDict

import cv2
import numpy as np
import torch
from torch import nn

MULTIPLE = 4  # px, of both sides
BLEND_RADIUS = 1  # px, of Telea's method below the blended result
THIN = 5  # px; OpenCV cannot clone into a narrower box, which is all border


class Layer(nn.Module):
    """A convolution, optionally followed by batch norm and ReLU."""

    def __init__(self, conv: nn.Module, *, norm: bool = True):
        super().__init__()
        self.conv = conv
        if norm:
            self.bn = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x):
        x = self.conv(x)
        return torch.relu_(self.bn(x)) if hasattr(self, "bn") else x


class GL(nn.Sequential):
    """The completion network: `net(torch.cat([image, hole], 1))`. Layers are named as in mmagic's files.

    The input is (B, 4, H, W): an image that is 0 in the hole, and a plane that is 1 there. The output is (B, 3, H, W).
    Sides are multiples of 4. dialect: "mmagic" or "torch7".
    """

    multiple, least = MULTIPLE, MULTIPLE

    def __init__(self, dialect: str = "mmagic"):
        bias = dialect == "torch7"

        def conv(inner, outer, kernel=3, stride=1, dilation=1):
            padding = kernel // 2 * dilation
            return Layer(nn.Conv2d(inner, outer, kernel, stride, padding, dilation, bias=bias))

        def up(inner, outer):
            return Layer(nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias))

        encoder = OrderedDict(
            enc1=conv(4, 64, 5),
            enc2=conv(64, 128, stride=2),
            enc3=conv(128, 128),
            enc4=conv(128, 256, stride=2),
            enc5=conv(256, 256),
            enc6=conv(256, 256),
        )
        dilated = nn.Sequential(*(conv(256, 256, dilation=d) for d in (2, 4, 8, 16)))
        decoder = OrderedDict(
            dec1=conv(256, 256),
            dec2=conv(256, 256),
            dec3=up(256, 128),
            dec4=conv(128, 128),
            dec5=up(128, 64),
            dec6=conv(64, 32),
            dec7=Layer(nn.Conv2d(32, 3, 3, padding=1), norm=False),
            end=nn.Sigmoid() if dialect == "torch7" else nn.Hardtanh(),
        )
        super().__init__(
            OrderedDict(
                encoder=nn.Sequential(encoder),
                dilation_neck=nn.Sequential(OrderedDict(dilation_convs=dilated)),
                decoder=nn.Sequential(decoder),
            )
        )
        self.dialect = dialect
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)  # RGB in [0, 1], only for "torch7"

    def answer(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """RGB in 0..255 from RGB in 0..255. image: float (B, 3, H, W), hole: float (B, 1, H, W), 1 in the hole."""
        if self.dialect == "torch7":
            return 255 * self(torch.cat([(image / 255 - self.mean) * (1 - hole), hole], 1))
        found = self(torch.cat([(image.flip(1) / 127.5 - 1) * (1 - hole), hole], 1))
        return (found.flip(1) + 1) * 127.5


def blend(result: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Blend a filled hole into its surroundings (section 4.3 of the paper): the result cloned into that of Telea.

    result: uint8 (H, W, 3), bool (H, W) -> uint8 (H, W, 3). The clone keeps the result's gradients (Perez, Gangnet &
    Blake 2003, "Poisson image editing") and takes its colours from Telea's pixels, which stay at the hole's border.
    """
    if not hole.any():
        return result
    mask = hole.astype(np.uint8) * 255
    below = cv2.inpaint(result, mask, BLEND_RADIUS, cv2.INPAINT_TELEA)
    inner = np.zeros_like(mask)  # OpenCV ignores hole pixels at the edge of the image
    inner[1:-1, 1:-1] = mask[1:-1, 1:-1]
    left, top, width, height = cv2.boundingRect(inner)
    if min(width, height) < THIN:
        return below
    # The centre of the box as OpenCV computes it, so that the box stays where it was.
    centre = left + width // 2, top + height // 2
    return cv2.seamlessClone(result, below, mask, centre, cv2.NORMAL_CLONE)
