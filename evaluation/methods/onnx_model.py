"""Networks in ONNX files: their inputs, their output, and what identifies them."""

import contextlib
import re
from pathlib import Path

import numpy as np

from evaluation.methods.model_file import Input
from maskgen.errors import BadInput, install_hint
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

TYPES = {"float": np.float32, "float16": np.float16, "double": np.float64, "uint8": np.uint8, "bool": np.bool_}
LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])")  # an entry of external_data in onnx.proto


class OnnxNetwork:
    """The network of an ONNX file. Raises BadInput where the file is not one that can be loaded."""

    def __init__(self, path: Path, threads: int):
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
            raise BadInput(f"{path} is not an ONNX model that can be loaded: {self.line(error)}") from None
        self.inputs = [_input(asked) for asked in self.session.get_inputs()]

    def run(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The first output. Raises an error of ONNX Runtime where the network fails."""
        names = (asked.name for asked in self.inputs)
        return np.asarray(self.session.run(None, dict(zip(names, arrays, strict=True)))[0])

    def line(self, error: Exception) -> str:
        """The first line of an error of ONNX Runtime, without its source file and line."""
        line = (str(error).splitlines() or ["no reason given"])[0]
        return re.sub(r"^/\S+:\d+ .*?\) ", "", line.rpartition("Status Message: ")[2])[:200]


def _input(asked):
    kind = asked.type.removeprefix("tensor(").removesuffix(")")
    sides = tuple(side if isinstance(side, int) else None for side in asked.shape)
    return Input(asked.name, TYPES.get(kind), kind, sides, " x ".join(map(str, asked.shape)))


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
