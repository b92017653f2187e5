"""The flow "raft:FILE": torchvision's RAFT (Teed & Deng, ECCV 2020) with weights that the user names.

torch and torchvision are imported when the first flow is computed or described, and not before.
"""

from functools import cache, partial
from pathlib import Path

import numpy as np

from maskgen.errors import BadInput
from maskgen.runtime import files

PREFIX = "raft:"
EXPECTED = "torchvision's raft_large or raft_small, .pth or .safetensors"
PACKAGES = ["torch", "torchvision", "safetensors"]
UPDATES = 12  # torchvision's default
STRIDE = 8  # px, of the features: both sides of a frame are extended to multiples of it
SMALLEST = 128  # px, each side; the correlation pyramid needs features of 16x16
LARGE = "mask_predictor.conv.weight"  # only raft_large has this tensor


def is_raft(name: str) -> bool:
    """Whether a flow of this name is computed by RAFT."""
    return name.startswith(PREFIX)


def raft(name: str):
    """The function of two frames that computes the flow "raft:FILE". Raises BadInput without a usable file."""
    path = weights_file(name)
    _network(path)
    return partial(_flow, path)


def weights_file(name: str) -> Path:
    """The absolute path of the weights of the flow "raft:FILE". Raises BadInput if there is no such file."""
    path = name[len(PREFIX) :]
    if not path:
        raise BadInput(f"the flow raft needs a weights file: expected raft:FILE with the weights of {EXPECTED}")
    if not Path(path).is_file():
        raise BadInput(f"no such file: {path} (expected the weights of {EXPECTED})")
    return Path(path).absolute()


def identity(name: str) -> str:
    """What decides the result of the flow "raft:FILE", for a recipe: name and checksum of the file, and the device."""
    path = weights_file(name)
    return f"{PREFIX}{path.name}, sha256 {files.sha256(path)}, on {_device()}"


def _flow(path, first, second):
    """The flow from first to second, uint8 (H, W, 3), RGB: float32 (H, W, 2)."""
    import torch

    network, device = _network(path)
    height, width = first.shape[:2]
    pad = [_padding(width), _padding(height)]
    pictures = []
    for frame in (first, second):
        padded = np.pad(frame, (pad[1], pad[0], (0, 0)), mode="edge")
        values = torch.from_numpy(padded).to(device, torch.float32).permute(2, 0, 1)[None]
        pictures.append(values / 127.5 - 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of floats may depend on the number of threads
    try:
        with torch.inference_mode():
            flow = network(*pictures, num_flow_updates=UPDATES)[-1][0]
    finally:
        torch.set_num_threads(threads)
    (left, _), (top, _) = pad
    flow = flow[:, top : top + height, left : left + width].permute(1, 2, 0)
    return np.ascontiguousarray(flow.float().cpu().numpy())


def _padding(side):
    """Pixels to add on both sides of an axis."""
    missing = max(SMALLEST, -(-side // STRIDE) * STRIDE) - side
    return missing // 2, missing - missing // 2


def _device():
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@cache
def _network(path):
    """The network with the weights of a file, and its device."""
    try:
        from torchvision.models import optical_flow
    except (ImportError, RuntimeError) as error:  # RuntimeError: it does not fit the installed torch
        raise BadInput(
            f"the flow raft needs torchvision, which cannot be imported ({error}): "
            "pip install torchvision, in the version for the installed torch"
        ) from None
    state = _read(path)
    network = (optical_flow.raft_large if LARGE in state else optical_flow.raft_small)(weights=None, progress=False)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError):
        raise BadInput(f"{path} does not hold the weights of {EXPECTED}") from None
    device = _device()
    return network.eval().requires_grad_(False).to(device), device


def _read(path):
    """The tensors of a weights file by name. No code of the file is run."""
    if path.suffix.lower() == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"cannot read {path} ({error}): expected the weights of {EXPECTED}") from None
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever torch raises for a file of another kind
        raise BadInput(f"cannot read {path}: expected the weights of {EXPECTED}") from None
    if not isinstance(state, dict):
        raise BadInput(f"{path} does not hold the weights of {EXPECTED}")
    return state
