"""Networks in files as methods: how they take image and mask, the sizes that they support, their output.

`onnx_model` and `torch_model` read the files.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from evaluation.methods.conventions import Conventions
from evaluation.methods.errors import Failed
from maskgen.errors import BadInput

FORMS = "image (1, 3, H, W) and mask (1, 1, H, W), or one input of four channels"
MULTIPLES = (2, 4, 8, 14, 16, 32, 64, 128, 256, 512)  # px, strides of networks that are tried
SLACK, STRAY = 0.1, 0.05  # how far a float output may leave its range, in widths; the share of values that may do so


@dataclass(frozen=True)
class Input:
    """An input of a network."""

    name: str
    dtype: type[np.generic] | None  # None for a type that is not supported
    type: str  # as the file calls it
    shape: tuple[int | None, ...] | None  # None for a side of any length, and for a shape that the file does not tell
    shape_text: str = ""


class Network(Protocol):
    """A network in a file."""

    path: Path
    inputs: list[Input]

    def run(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The first output for one array for each input. Raises any error where the network fails."""

    def line(self, error: Exception) -> str:
        """An error of `run` in one line."""


def load(kind: str, path: Path, threads: int) -> Network:
    """The network of a file. kind: "onnx", "torchscript" or "exported". Raises BadInput where it cannot be loaded."""
    if kind == "onnx":
        from evaluation.methods import onnx_model

        return onnx_model.OnnxNetwork(path, threads)
    from evaluation.methods import torch_model

    return torch_model.NETWORKS[kind](path, threads)


def identity(kind: str, path: Path, conventions: Conventions) -> dict:
    """All that decides the results of a model file, for recipe.json. Raises BadInput where the file is missing."""
    if not path.is_file():
        raise BadInput(f"no file {path}: expected {kind}:FILE")
    if kind == "onnx":
        from evaluation.methods import onnx_model

        return {**onnx_model.identity(path), **conventions.recorded()}
    from evaluation.methods import torch_model

    return {**torch_model.identity(kind, path), **conventions.recorded()}


class Model:
    """A network as a method of two inputs, image and mask, or one input of four channels that takes both.

    image: (1, 3, H, W), floats or uint8. mask: (1, 1, H, W), 0 or 1 (255 for uint8). The first output is (1, 3, H, W),
    floats or uint8. `Conventions` say which range floats have, which channel comes first and what 1 means in the mask.

    size: px, height and width of all images, if they have one size. Raises BadInput where the network has other inputs,
    and where it does not work at that size, with a size at which it works.
    """

    def __init__(self, network: Network, conventions: Conventions, size: tuple[int, int] | None = None):
        self.network, self.path, self.inputs = network, network.path, network.inputs
        self.low, self.high = conventions.range
        self.order = slice(None, None, -1 if conventions.bgr else 1)  # of the channels
        self._check_inputs(conventions)
        valid = len(self.inputs) == 2 and "valid" in self.inputs[1].name
        self.white = conventions.white or ("valid" if valid else "hole")
        self.hints = {}  # by size, for pairs of sizes at which the network fails
        if size:
            self.check(size)

    def _check_inputs(self, conventions):
        channels = {1: (4,), 2: (3, 1)}.get(len(self.inputs))
        if channels is None:
            raise BadInput(f"{self.path} has {len(self.inputs)} inputs: expected {FORMS}")
        for asked, count in zip(self.inputs, channels, strict=True):
            if asked.dtype is None:
                raise BadInput(f"{self.path}: the input {asked.name} is {asked.type}: expected floats or uint8")
            known = asked.shape
            if known is None:
                continue
            if len(known) != 4 or known[0] not in (1, None) or known[1] not in (count, None):
                raise BadInput(f"{self.path}: the input {asked.name} is {asked.shape_text}: expected {FORMS}")
        if conventions.range != Conventions.range and self.inputs[0].dtype == np.uint8:
            raise BadInput(f"{self.path}: the input {self.inputs[0].name} is uint8: leave --range out, it is of floats")

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadInput where the network does not work at a size, with a size at which it works."""
        asked, only = _text(size), self._only_size(size)
        if only:
            raise BadInput(f"{self.path} takes images of {only} px only, not of {asked}: use --size {only}")
        why = self._trial(size)
        if not why:
            return
        sizes, one = self._working_sizes(size)
        if not one:
            raise BadInput(f"{self.path} does not work at {asked} px nor at the nearby sizes that were tried: {why}")
        raise BadInput(f"{self.path} does not work at {asked} px, but it works {sizes}: use --size {one}")

    def _only_size(self, size):
        """The size that the file prescribes, as a text, or "" if it is the given one or none."""
        fixed = (self.inputs[0].shape or (None,) * 4)[2:]
        sides = tuple(own if side is None else side for side, own in zip(fixed, size, strict=True))
        return _text(sides) if sides != tuple(size) else ""

    def _working_sizes(self, size):
        """Sizes near one at which the network fails, in words, and one of them. "" twice if none is found."""
        single = ""
        for multiple in (m for m in MULTIPLES if any(side % m for side in size)):
            # Two odd multiples: a network that works at both needs no larger multiple.
            counts = [-(-side // multiple) | 1 for side in size]
            other = tuple(multiple * count for count in counts)
            another = tuple(multiple * (count - 2 if count > 1 else 3) for count in counts)
            if not self._trial(other):
                if not self._trial(another):
                    fit = _text([max(1, round(side / multiple)) * multiple for side in size])
                    return f"if height and width are multiples of {multiple}", fit
                single = _text(other)
        return (f"at {single}", single) if single else ("", "")

    def _trial(self, size):
        """Why the network fails on an image of a size, or "" if it works."""
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        hole = np.zeros(size, bool)
        hole[size[0] // 4 : -(-size[0] // 2), size[1] // 4 : -(-size[1] // 2)] = True
        noise[hole] = 0
        try:
            shape = self._run(noise, hole).shape
        except Failed as error:
            return str(error)
        return "" if shape == (1, 3, *size) else _wrong_shape(shape, size)

    def _run(self, image, hole):
        image, white = image[..., self.order], ~hole if self.white == "valid" else hole
        arrays = [self._plane(image.transpose(2, 0, 1)[None]), _mask(white[None, None], self.inputs[-1].dtype)]
        if len(self.inputs) == 1:
            arrays = [np.concatenate(arrays, 1)]
        try:
            return self.network.run([np.ascontiguousarray(array) for array in arrays])
        except Exception as error:  # each library has error classes of its own
            line = self.network.line(error)
            raise Failed(f"the model fails at {hole.shape[0]} x {hole.shape[1]} px: {line}") from None

    def _plane(self, image):
        kind = self.inputs[0].dtype
        return image if kind == np.uint8 else (self.low + (self.high - self.low) * (image / 255)).astype(kind)

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The output, uint8 (H, W, 3). Raises Failed where the network fails or the output has another range."""
        try:
            out = self._run(image, hole)
            if out.shape != (1, 3, *hole.shape):
                raise Failed(_wrong_shape(out.shape, hole.shape))
        except Failed as error:
            raise Failed(f"{error}{self._hint(hole.shape)}") from None
        if out.dtype != np.uint8:
            out = self._as_bytes(out)
        return out[0].transpose(1, 2, 0)[..., self.order]

    def _hint(self, size):
        """At which sizes the network works, if it does not at this one, as the end of a message."""
        if size not in self.hints:
            only = self._only_size(size)
            sizes = f"at {only} only" if only else self._trial(size) and self._working_sizes(size)[0]
            self.hints[size] = f"; it works {sizes}" if sizes else ""
        return self.hints[size]

    def _as_bytes(self, out):
        """A float output as uint8. Raises Failed for another range than the network's."""
        expected = f"{self.low:g} to {self.high:g}"
        if out.dtype.kind != "f":
            raise Failed(f"the output is {out.dtype}, expected floats from {expected}, or uint8")
        if not np.isfinite(out).all():
            raise Failed("the result holds NaN or infinite values")
        unit = (out - self.low) / (self.high - self.low)
        if np.mean((unit < -SLACK) | (unit > 1 + SLACK)) > STRAY:
            raise Failed(
                f"the output is {out.dtype} from {out.min():.3g} to {out.max():.3g}, expected {expected} (or uint8): "
                "state its range with --range LOW,HIGH, or scale it inside the model's graph"
            )
        return (unit * 255).round().clip(0, 255).astype(np.uint8)


def _mask(white, kind):
    return white.astype(np.uint8) * np.uint8(255) if kind == np.uint8 else white.astype(kind)


def _text(size):
    return "x".join(map(str, size))


def _wrong_shape(shape, size):
    return f"the output is {' x '.join(map(str, shape)) or 'a number'}, expected 1 x 3 x {size[0]} x {size[1]}"
