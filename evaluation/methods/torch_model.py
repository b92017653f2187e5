"""Networks in files of PyTorch that hold their own code: TorchScript, and programs of `torch.export`.

Both kinds of file are programs: load only files whose origin you trust.
"""

import warnings
from pathlib import Path

import numpy as np
import torch

from evaluation.methods.model_file import Input
from evaluation.methods.networks import device
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

TYPES = {  # half-precision floats are made from these by `run`
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), np.float32),
    torch.float64: np.float64,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


class TorchNetwork:
    """A network in a file. Raises BadInput where the file is not one that can be loaded."""

    def __init__(self, path: Path, threads: int):
        torch.set_num_threads(threads)
        self.path = path
        try:
            with warnings.catch_warnings(action="ignore"):
                self.module, self.types, self.inputs = self._load(str(path))
        except Exception as error:  # of a damaged file any
            raise BadInput(f"{path} is not a file that {self.maker} has written: {self.line(error)}") from None

    @torch.no_grad()
    def run(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The first output. Raises an error of PyTorch where the network fails."""
        planes = [torch.from_numpy(a).to(device(), kind) for a, kind in zip(arrays, self.types, strict=True)]
        out = self.module(*planes)
        while not isinstance(out, torch.Tensor):
            out = next(iter(out.values() if isinstance(out, dict) else out))
        return (out.float() if out.dtype in (torch.float16, torch.bfloat16) else out).cpu().numpy()


class TorchScript(TorchNetwork):
    """A network that `torch.jit` has saved. It takes floats of the type of its parameters."""

    maker = "torch.jit.save"

    def _load(self, path):
        module = torch.jit.load(path, map_location=device()).eval()
        floats = (weight.dtype for weight in module.parameters() if weight.is_floating_point())
        kind = next(floats, torch.float32)
        asked = [each for each in module.forward.schema.arguments[1:] if not each.has_default_value()]
        inputs = [
            Input(each.name, TYPES[kind] if each.type.kind() == "TensorType" else None, str(each.type), None)
            for each in asked
        ]
        return module, [kind] * len(inputs), inputs

    def line(self, error: Exception) -> str:
        """The last line of an error, which follows a traceback of the network's code."""
        lines = [line for line in str(error).splitlines() if line.strip()]
        return (lines or ["no reason given"])[-1].strip().partition(". ")[0][:200]


class ExportedProgram(TorchNetwork):
    """A network that `torch.export` has saved."""

    maker = "torch.export.save"

    def _load(self, path):
        program = torch.export.load(path)
        if device() != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device())
        names = program.graph_signature.user_inputs
        values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
        tensors = [values[name] for name in names]
        inputs = [_input(name, tensor) for name, tensor in zip(names, tensors, strict=True)]
        return program.module(), [getattr(tensor, "dtype", None) for tensor in tensors], inputs

    def line(self, error: Exception) -> str:
        """The first line of an error."""
        return (str(error).splitlines() or [type(error).__name__])[0].strip().partition(". ")[0][:200]


def _input(name, tensor):
    if not isinstance(tensor, torch.Tensor):
        return Input(str(name), None, type(tensor).__name__, None)
    sides = tuple(side if isinstance(side, int) else None for side in tensor.shape)
    text = " x ".join(map(str, tensor.shape))
    return Input(name, TYPES.get(tensor.dtype), str(tensor.dtype).removeprefix("torch."), sides, text)


NETWORKS = {"torchscript": TorchScript, "exported": ExportedProgram}


def identity(kind: str, path: Path) -> dict:
    """The hash of a file, PyTorch's version and the device, for recipe.json."""
    return {"method": kind, "model": files.sha256(path), **library_versions("torch"), "device": device()}
