"""Fill the holes of images of any size with a trained network."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from maskgen.checks import expect, expect_fields, flag, one_of, whole
from maskgen.errors import BadInput
from maskgen.runtime.recipe import library_versions
from pconv_model import checkpoints, multiscale, pixels
from pconv_model.device import usable
from pconv_model.settings import KINDS, PRECISIONS, TILE
from pconv_model.tiles import tile_weights
from pconv_model.unet import UNet

WEIGHTS = Path(__file__).parent / "weights"


def shipped_weights(kind: str = "pconv", factor: int = 1) -> Path:
    """The weights file that ships with the package for a kind of network, "pconv" or "conv".

    factor: above 1, the weights that enlarge by it. Raises BadInput if there are none.
    """
    expect("kind", kind, one_of(KINDS))
    path = WEIGHTS / (f"{kind}.safetensors" if factor == 1 else f"{kind}-x{factor}.safetensors")
    if not path.is_file() and factor > 1:
        others = ", ".join(sorted(other.name for other in WEIGHTS.glob("*-x*.safetensors"))) or "none"
        raise BadInput(
            f"no weights of {kind!r} for a factor of {factor} ship with this installation (those for enlarging: "
            f"{others}): train them with `pconv train --factor {factor}` and pass them with --weights FILE"
        )
    if not path.is_file():
        raise BadInput(
            f"no weights of {kind!r} ship with this installation: train them with `pconv train` "
            "and pass them with --weights FILE"
        )
    return path


@dataclass(frozen=True)
class Inpainter:
    """A trained network and the settings with which it fills images. Call it with an image and a hole.

    net: a UNet; None loads the weights that ship, a PConvUNet of half the paper's channels. It is moved to the device
    and set to evaluation mode.

    device: "cpu", "cuda", "cuda:1" or "mps"; None takes the best there is.

    precision: "fp32", or "bf16", which runs the convolutions in bfloat16. That is faster on processors that support it,
    and changes most filled pixels by at most one grey level.

    mirror: average the result with that of the mirrored image, at twice the time (one of the methods in Timofte et al.
    2016, "Seven ways to improve example-based single image super resolution").

    scales: take the low frequencies deep inside a hole from the image at half its size, filled in the same way; see
    `pconv_model.multiscale`. False gives the network's own result, as in the paper, except where it has none: a pixel
    whose receptive field holds no known pixel is always filled from the smaller image.

    tile: px, rounded down to a multiple of the network's stride. Larger images are filled in overlapping tiles.

    batch: the most images that go through the network together.

    Raises BadInput for settings that are not valid and for a device that is not available.

    >>> import numpy as np
    >>> from pconv_model.inpaint import Inpainter
    >>> image = np.full((64, 64, 3), 200, np.uint8)
    >>> hole = np.zeros((64, 64), bool)
    >>> hole[20:40, 20:40] = True  # True: missing, to be filled
    >>> inpainter = Inpainter(device="cpu")
    >>> filled = inpainter(image, hole)
    >>> filled.shape, filled.dtype, bool((filled[~hole] == image[~hole]).all())
    ((64, 64, 3), dtype('uint8'), True)
    """

    # None becomes a network in __post_init__. A network prints a page of layers, which repr leaves out.
    net: UNet = field(default=None, repr=False)  # type: ignore[assignment]
    _: KW_ONLY
    device: str | None = None
    precision: str = "fp32"
    mirror: bool = False
    scales: bool = True
    tile: int = TILE
    batch: int = 8

    def __post_init__(self):
        expect_fields(self, precision=one_of(PRECISIONS), mirror=flag(), scales=flag(), tile=whole(1), batch=whole(1))
        net = checkpoints.load(shipped_weights()) if self.net is None else self.net
        if not isinstance(net, UNet):
            raise BadInput(f"net is a PConvUNet or a ConvUNet, got {type(net).__name__}")
        object.__setattr__(self, "device", usable(self.device))
        object.__setattr__(self, "net", net.eval().to(self.device, memory_format=torch.channels_last))

    @classmethod
    def load(cls, weights: Path | None = None, kind: str = "pconv", *, factor: int = 1, **settings: Any) -> "Inpainter":
        """An inpainter with the weights of a file of `pconv train` or `pconv convert`.

        weights: None takes those that ship for this kind. kind: "pconv", partial convolutions, or "conv", the paper's
        baseline of plain convolutions. factor: above 1, weights for `pconv_model.superres.superres` by this factor.
        settings: fields of Inpainter. Raises BadInput for a file that is missing, or holds another kind of network or
        one that enlarges by another factor.
        """
        expect("kind", kind, one_of(KINDS))
        path = weights or shipped_weights(kind, factor)
        net = checkpoints.load(path)
        if net.config.kind != kind:
            raise BadInput(f"{path} holds a network of kind {net.config.kind!r}, expected {kind!r}")
        if net.config.factor not in (1, factor):
            task = f"a network that enlarges {factor} times" if factor > 1 else "one that fills holes"
            raise BadInput(f"{path} holds a network that enlarges images {net.config.factor} times, expected {task}")
        return cls(net, **settings)

    def __call__(self, image: np.ndarray, hole: np.ndarray, raw: bool = False) -> np.ndarray:
        """Fill the hole of one image. Returns an array of the image's shape and dtype.

        image: uint8 or uint16; grey (H, W) or (H, W, 1), RGB (H, W, 3), or with alpha (H, W, 4); any height and width.
        hole: bool (H, W), True where pixels are missing. raw: return the network's result everywhere; otherwise known
        pixels stay unchanged. Filled pixels are opaque, and grey if all known pixels are. Values stored in the hole do
        not matter. Raises BadInput for other arrays, and if image and hole differ in size.
        """
        return next(self.fill_all([image], [hole], raw))

    def fill_all(
        self, images: Iterable[np.ndarray], holes: Iterable[np.ndarray], raw: bool = False
    ) -> Iterator[np.ndarray]:
        """Yield the filled images in order. images, holes: of the same length, each as for a call.

        Up to `batch` consecutive images of one size go through the network together; those larger than a tile go one
        by one. Batching may change a filled pixel by rounding.
        """
        group: list[tuple[np.ndarray, np.ndarray]] = []
        for image, hole in zip(images, holes, strict=True):
            pixels.check(image, hole)
            if group and (len(group) == self.batch or hole.shape != group[0][1].shape):
                yield from self._fill(group, raw)
                group = []
            group.append((image, hole))
            if max(hole.shape) > self._tile_side:  # large images one at a time, to save memory
                yield from self._fill(group, raw)
                group = []
        if group:
            yield from self._fill(group, raw)

    def identity(self, **settings: Any) -> dict:
        """All that decides a result besides image and mask, for recipe.json: settings, weights, device, libraries.

        settings: others that belong to the recipe.
        """
        digest = hashlib.sha256(repr(self.net.config).encode())
        for name, value in self.net.state_dict().items():
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        own = {"precision": self.precision, "mirror": self.mirror, "scales": self.scales}
        return {
            "settings": {**own, **settings, "tile": self.tile},
            "net": {"kind": self.net.config.kind, "weights": digest.hexdigest()},
            "device": self.net.mean.device.type,
            "libraries": library_versions("torch", "numpy", "pillow", "opencv"),
        }

    @property
    def _tile_side(self):
        unit = math.lcm(self.net.stride, self.net.config.factor)
        return max(self.tile // unit, 1) * unit

    def _fill(self, group, raw):
        """Yield the filled images of one group. group: pairs of image and hole, all of one size."""
        holes = [hole for _, hole in group]
        results = [None] * len(group)
        if raw or any(hole.any() for hole in holes):
            results = self._fill_at_all_scales([pixels.to_rgb(image) for image, _ in group], holes, raw)
        for (image, hole), result in zip(group, results, strict=True):
            yield pixels.with_result(image, hole, result, np.ones_like(hole) if raw else hole)

    def _fill_at_all_scales(self, colours, holes, raw=False):
        """Results at full size, improved by those of the same images at half the size, recursively.

        colours, holes: (H, W, 3) and (H, W) each, all of one size. Returns float32 (H, W, 3) each, in about [0, 1].
        """
        height, width = holes[0].shape
        if max(height, width) <= self._tile_side:
            results = self._predict(colours, holes)
            blind = [(hole & ~self._sees_known(hole)).astype(np.float32) for hole in holes]
        else:
            tiled = [self._predict_in_tiles(colour, hole, raw) for colour, hole in zip(colours, holes, strict=True)]
            results, blind = zip(*tiled, strict=True)
        windows = [multiscale.hole_window(hole) for hole in holes]
        if self.scales and self.net.config.factor == 1 and max(height, width) >= 2 * multiscale.SMALLEST:
            depth = [multiscale.depth_weight(hole[window]) for hole, window in zip(holes, windows, strict=True)]
        else:
            depth = [np.zeros(hole[window].shape, np.float32) for hole, window in zip(holes, windows, strict=True)]
        chosen = [i for i, hole in enumerate(holes) if not hole.all() and (blind[i].any() or depth[i].any())]
        if chosen:
            halves = [multiscale.halve(colours[i], holes[i]) for i in chosen]
            coarse = self._fill_at_all_scales([colour for colour, _ in halves], [hole for _, hole in halves])
            for i, (colour, hole), small in zip(chosen, halves, coarse, strict=True):
                known = colour / np.float32(np.iinfo(colour.dtype).max)
                enlarged = multiscale.enlarge(np.where(hole[..., None], small, known), (height, width), windows[i])
                fine, hole_part, unseen = (array[windows[i]] for array in (results[i], holes[i], blind[i]))
                multiscale.merge(fine, enlarged, hole_part, unseen, depth[i])
        return results

    @torch.inference_mode()
    def _predict(self, colours, holes):
        """The network's result for images of one size. Returns float32 (H, W, 3) each, in about [0, 1].

        Sides are padded to a multiple of the network's stride; the padding is a hole.
        """
        device, stride = self.net.mean.device, self.net.stride
        height, width = holes[0].shape
        padding = (0, -width % stride, 0, -height % stride)
        image = torch.from_numpy(np.stack([c.astype(np.float32) / np.iinfo(c.dtype).max for c in colours]))
        image = F.pad(image.permute(0, 3, 1, 2), padding).to(device, memory_format=torch.channels_last)
        valid = F.pad(torch.from_numpy(~np.stack(holes)).float()[:, None], padding).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            result = self.net(image, valid)
            if self.mirror:
                # A known pixel is the mean of its block. If the factor is even, it lies half a pixel right of the
                # block's centre; in the mirrored image it has to as well.
                shift = 1 - self.net.config.factor % 2
                mirrored = (plane.flip(3).roll(shift, 3) for plane in (image, valid))
                result = (result + self.net(*mirrored).flip(3)) / 2
        result = result[..., :height, :width]
        return list(result.permute(0, 2, 3, 1).float().cpu().numpy())

    def _predict_in_tiles(self, colour, hole, raw):
        """The network's result for an image larger than a tile, from tiles that are blended where they overlap.

        Returns the result, float32 (H, W, 3), and float32 (H, W): the share, by weight, of the tiles in which
        a pixel's receptive field holds no known pixel. These tiles do not count. A pixel without any other tile gets
        the mean colour.
        """
        tile, (height, width) = self._tile_side, hole.shape
        total = np.zeros((height, width, 3), np.float32)
        weight, used = np.zeros((2, height, width), np.float32)
        for top, rows in tile_weights(height, tile, self.net.config.factor):
            for left, columns in tile_weights(width, tile, self.net.config.factor):
                part = np.s_[top : top + tile, left : left + tile]
                if not raw and not hole[part].any():
                    continue
                result = self._predict([colour[part]], [hole[part]])[0]
                share = rows[:, None] * columns
                weight[part] += share
                share = np.where(hole[part] & ~self._sees_known(hole[part]), 0, share)
                used[part] += share
                total[part] += result * share[..., None]
        np.divide(total, used[..., None], out=total, where=used[..., None] > 0)
        total[used == 0] = self.net.mean.cpu().numpy().reshape(3)
        return total, 1 - np.divide(used, weight, out=np.ones_like(used), where=weight > 0)

    def _sees_known(self, hole):
        """Bool (H, W), True where the network's receptive field holds a known pixel; with `mirror`, both ways."""
        down, right = (-side % self.net.stride for side in hole.shape)
        valid = np.pad(~hole, ((0, down), (0, right))).astype(np.float32)
        valid = torch.from_numpy(valid)[None, None].to(self.net.mean.device)
        plane = self.net.output_valid(valid)
        if self.mirror:
            plane = plane * self.net.output_valid(valid.flip(3)).flip(3)
        return plane[0, 0, : hole.shape[0], : hole.shape[1]].cpu().numpy() > 0
