"""Combine the result at full size with that of the same image at half its size.

A hole that is half as wide is filled better. So pixels deep inside a hole take their low frequencies from the smaller
image, and keep the fine detail of the full size. This is not part of the paper.
"""

from functools import partial

import cv2
import numpy as np

SMALLEST = 128  # px, no image is made smaller than this for its low frequencies
SHALLOW, DEEP = 4, 20  # px from known pixels, between which the weight of the smaller image rises from 0 to 1
BLUR = 4  # px, standard deviation of the Gaussian that separates low frequencies from fine detail


def depth_weight(hole: np.ndarray) -> np.ndarray:
    """Weights of the smaller image's low frequencies, float32 (H, W), by the distance from known pixels.

    hole: bool (H, W). 0 up to SHALLOW px, 1 from DEEP px, linear in between. All are 0 if there are no known pixels.
    """
    if hole.all():
        return np.zeros(hole.shape, np.float32)
    distance = cv2.distanceTransform(hole.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return ((distance - SHALLOW) / (DEEP - SHALLOW)).clip(0, 1)


def halve(colour: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and hole (H, W) at half the size. Each pixel is the mean of the known pixels that it covers."""
    size = [max(1, side // 2) for side in hole.shape[::-1]]
    known = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    clean = np.where(hole[..., None], 0, colour).astype(np.float32)
    small = cv2.resize(clean, size, interpolation=cv2.INTER_AREA) / np.maximum(known, 1e-6)[..., None]
    return np.rint(small).astype(colour.dtype), known <= 0


def hole_window(hole: np.ndarray) -> tuple[slice, slice]:
    """Slices of the bounding box of the hole, one pixel wider on each side."""
    left, top, width, height = cv2.boundingRect(hole.view(np.uint8))
    return np.s_[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1]


def enlarge(coarse: np.ndarray, shape: tuple[int, int], window: tuple[slice, slice]) -> np.ndarray:
    """A window of the coarse result, resized bilinearly to an image of `shape`. float32 (h, w, 3) -> (H', W', 3)."""
    rows = np.arange(shape[0])[window[0]].astype(np.float32)
    columns = np.arange(shape[1])[window[1]].astype(np.float32)
    y = (rows + 0.5) * coarse.shape[0] / shape[0] - 0.5
    x = (columns + 0.5) * coarse.shape[1] / shape[1] - 0.5
    grid = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(coarse, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def merge(fine: np.ndarray, coarse: np.ndarray, hole: np.ndarray, blind: np.ndarray, depth: np.ndarray) -> None:
    """Improve the fine result in place: take pixels from the coarse one by `blind`, low frequencies by `depth`.

    fine, coarse: float32 (H, W, 3); the coarse one is overwritten. hole: bool (H, W). blind, depth: float32 (H, W) in
    [0, 1].
    """
    gap = np.subtract(coarse, fine, out=coarse)
    fine += blind[..., None] * gap
    if depth.any():
        gap *= 1 - blind[..., None]
        fine += depth[..., None] * _low_frequencies(gap, hole)


def _low_frequencies(values, hole):
    """Gaussian mean of (H, W, 3) around each pixel, over the pixels of the hole only."""
    blur = partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=BLUR, borderType=cv2.BORDER_CONSTANT)
    inside = hole.astype(np.float32)
    means = blur(values * inside[..., None])
    means /= blur(inside).clip(1e-6)[..., None]
    return means
