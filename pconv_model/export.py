"""Export networks to ONNX and torch.export."""

import logging
import tempfile
import warnings
from pathlib import Path

import torch

from maskgen.errors import BadInput, install_hint
from maskgen.runtime.files import write_whole
from pconv_model.unet import UNet


def export(net: UNet, path: Path) -> None:
    """Write a network as `.onnx` (needs the extra `onnx`) or as `.pt2` of torch.export.

    Inputs: `image` (1, 3, H, W) in [0, 1] and `valid` (1, 1, H, W) of 0. and 1. Output: `filled` (1, 3, H, W). H and W
    can be any multiples of the network's stride, up to 64 times it. The network is set to evaluation mode and its
    parameters are frozen. Raises BadInput for another suffix, and if onnx or onnxscript is missing.
    """
    form = path.suffix.lower()
    if form not in (".onnx", ".pt2"):
        raise BadInput(f"expected a file name with the suffix .onnx or .pt2, got {path}")
    net = net.eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    side = {
        2: net.stride * torch.export.Dim("rows", min=1, max=64),
        3: net.stride * torch.export.Dim("columns", min=1, max=64),
    }
    inputs = torch.rand(1, 3, 2 * net.stride, 3 * net.stride), torch.ones(1, 1, 2 * net.stride, 3 * net.stride)
    program = torch.export.export(net, inputs, dynamic_shapes=(side, side))
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, f"net{form}")  # the exporters check the suffix
        if form == ".pt2":
            with warnings.catch_warnings(action="ignore"):  # about weights on several devices; ours are on one
                torch.export.save(program, part)
        else:
            _onnx(program, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, part.read_bytes())


def _onnx(program, path):
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise BadInput(f"writing an ONNX file needs onnx and onnxscript: {install_hint('onnx')}") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about torchvision, which is not needed
    names = {"input_names": ["image", "valid"], "output_names": ["filled"]}
    torch.onnx.export(program, (), path, dynamo=True, external_data=False, verbose=False, **names)
