"""Networks in ONNX files as methods: their inputs, the sizes that they support, their output."""

import contextlib
import re
from pathlib import Path

import numpy as np

from evaluation.methods.errors import Failed
from maskgen.errors import BadInput, install_hint
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

TYPES = {"float": np.float32, "float16": np.float16, "double": np.float64, "uint8": np.uint8, "bool": np.bool_}
FORMS = "image (1, 3, H, W) and mask (1, 1, H, W), or one input of four channels"
MULTIPLES = (2, 4, 8, 14, 16, 32, 64, 128, 256, 512)  # px, strides of networks that are tried
SLACK, STRAY = 0.1, 0.05  # how far a float output may leave 0..1, and the share of values that may leave it further
LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])")  # an entry of external_data in onnx.proto


class Model:
    """A network with two inputs, image and mask, or one input of four channels that takes both.

    image: (1, 3, H, W) RGB, float in 0..1 or uint8. mask: (1, 1, H, W), 1 (255 for uint8) in the hole; an input called
    "valid", as `pconv export` writes it, gets 1 where pixels are known. The first output is (1, 3, H, W), float in 0..1
    or uint8.

    size: px, height and width of all images, if they have one size. Raises BadInput where the file is not such a model,
    and where it does not work at that size, with a size at which it works.
    """

    def __init__(self, path: Path, threads: int, size: tuple[int, int] | None = None):
        onnxruntime = runtime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # the exception says what fails
        self.path = path
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # onnxruntime has a dozen error classes of its own
            raise BadInput(f"{path} is not an ONNX model that can be loaded: {_line(error)}") from None
        self.inputs = self.session.get_inputs()
        self._check_inputs()
        if size:
            self.check(size)

    def _check_inputs(self):
        channels = {1: (4,), 2: (3, 1)}.get(len(self.inputs))
        if channels is None:
            raise BadInput(f"{self.path} has {len(self.inputs)} inputs: expected {FORMS}")
        for asked, count in zip(self.inputs, channels, strict=True):
            if _element(asked) not in TYPES:
                raise BadInput(f"{self.path}: the input {asked.name} is {asked.type}: expected floats or uint8")
            known = [side if isinstance(side, int) else None for side in asked.shape]
            if len(known) != 4 or known[0] not in (1, None) or known[1] not in (count, None):
                shape = " x ".join(map(str, asked.shape))
                raise BadInput(f"{self.path}: the input {asked.name} is {shape}: expected {FORMS}")

    def check(self, size: tuple[int, int]) -> None:
        """Raise BadInput where the model does not work at a size, with a size at which it works."""
        asked = f"{size[0]}x{size[1]}"
        fixed = self.inputs[0].shape[2:]
        sides = tuple(side if isinstance(side, int) else own for side, own in zip(fixed, size, strict=True))
        if sides != size:
            wanted = f"{sides[0]}x{sides[1]}"
            raise BadInput(f"{self.path} takes images of {wanted} px only, not of {asked}: use --size {wanted}")
        why = self._trial(size)
        if not why:
            return
        single = ""
        for multiple in (m for m in MULTIPLES if any(side % m for side in size)):
            # Two odd multiples: a model that works at both needs no larger multiple.
            counts = [-(-side // multiple) | 1 for side in size]
            other = tuple(multiple * count for count in counts)
            another = tuple(multiple * (count - 2 if count > 1 else 3) for count in counts)
            if not self._trial(other):
                if not self._trial(another):
                    fit = "x".join(str(max(1, round(side / multiple)) * multiple) for side in size)
                    raise BadInput(
                        f"{self.path} does not work at {asked} px, but it works if height and width are multiples of "
                        f"{multiple}: use --size {fit}"
                    )
                single = "x".join(map(str, other))
        if single:
            raise BadInput(f"{self.path} does not work at {asked} px, but it works at {single}: use --size {single}")
        raise BadInput(f"{self.path} does not work at {asked} px nor at the nearby sizes that were tried: {why}")

    def _trial(self, size):
        """Why the model fails on an image of a size, or "" if it works."""
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
        plane, marked = image.transpose(2, 0, 1)[None], hole[None, None]
        if len(self.inputs) == 2:
            arrays = [plane, ~marked if "valid" in self.inputs[1].name else marked]
        else:
            arrays = [np.concatenate([plane, marked * np.uint8(255)], 1)]
        feed = {}
        for asked, array in zip(self.inputs, arrays, strict=True):
            kind = TYPES[_element(asked)]
            if kind == np.uint8:
                feed[asked.name] = array.astype(np.uint8) * (255 if array.dtype == bool else 1)
            else:
                feed[asked.name] = (array if array.dtype == bool else array / 255).astype(kind)
        try:
            return np.asarray(self.session.run(None, feed)[0])
        except Exception as error:  # as above
            raise Failed(f"the model fails at {hole.shape[0]} x {hole.shape[1]} px: {_line(error)}") from None

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The output, uint8 (H, W, 3). Raises Failed where the model fails or the output has another range."""
        out = self._run(image, hole)
        if out.shape != (1, 3, *hole.shape):
            raise Failed(_wrong_shape(out.shape, hole.shape))
        if out.dtype != np.uint8:
            out = _as_bytes(out)
        return out[0].transpose(1, 2, 0)


def _as_bytes(out):
    """A float output in 0..1 as uint8. Raises Failed for other ranges, such as -1..1 or 0..255."""
    if out.dtype.kind != "f":
        raise Failed(f"the output is {out.dtype}, expected floats from 0 to 1, or uint8")
    if not np.isfinite(out).all():
        raise Failed("the result holds NaN or infinite values")
    if np.mean((out < -SLACK) | (out > 1 + SLACK)) > STRAY:
        raise Failed(
            f"the output is {out.dtype} from {out.min():.3g} to {out.max():.3g}, expected 0 to 1 (or uint8): "
            "scale it inside the model's graph"
        )
    return (out * 255).round().clip(0, 255).astype(np.uint8)


def _wrong_shape(shape, size):
    return f"the output is {' x '.join(map(str, shape)) or 'a number'}, expected 1 x 3 x {size[0]} x {size[1]}"


def _element(asked):
    return asked.type.removeprefix("tensor(").removesuffix(")")


def _line(error):
    """The first line of an error of ONNX Runtime, without its source file and line."""
    line = (str(error).splitlines() or ["no reason given"])[0]
    return re.sub(r"^/\S+:\d+ .*?\) ", "", line.rpartition("Status Message: ")[2])[:200]


def runtime():
    """The module onnxruntime. Raises BadInput where it is missing."""
    try:
        import onnxruntime
    except ImportError:
        raise BadInput(f"onnx: needs onnxruntime: {install_hint('onnx')}") from None
    return onnxruntime


def hashes(path: Path) -> dict[str, str]:
    """SHA-256 of a model, and of the files beside it with its weights (external data, as large models have)."""
    found = {"model": files.sha256(path)}
    data = path.read_bytes()
    for entry in LOCATION.finditer(data):
        length = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(entry[1]))  # a varint of Protocol Buffers
        name = data[entry.end() : entry.end() + length].decode(errors="replace")
        with contextlib.suppress(OSError):  # a damaged file: the name is too long
            if name not in found and files.leads_inside(name) and (path.parent / name).is_file():
                found[name] = files.sha256(path.parent / name)
    return found


def identity(path: Path) -> dict:
    """The hashes of a model and its weights, ONNX Runtime's version and the device, for recipe.json.

    Raises BadInput where the file or onnxruntime is missing.
    """
    return {"method": "onnx", **hashes(path), **library_versions("onnxruntime"), "device": device()}


def device() -> str:
    """The kind of device that ONNX Runtime prefers, such as "cuda"; else "cpu"."""
    kinds = [name.removesuffix("ExecutionProvider").lower() for name in runtime().get_available_providers()]
    return next((kind for kind in kinds if kind not in ("cpu", "azure")), "cpu")  # azure: only for models made for it
