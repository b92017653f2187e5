"""Random masks of any width and height, whose hole ratio is kept in a range."""

import cv2
import numpy as np

from maskgen.augment.dilation import dilate
from maskgen.augment.placement import base_scale, crop_to_hole, random_placement
from maskgen.settings import SIZE, AugmentConfig


def augment_to_shape(
    hole: np.ndarray, shape: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """Make one random mask from a raw hole, bool (H, W). shape: height and width of the result, bool.

    A raw mask is dilated and placed in a square as `augment` does, of which the result is a random part with the whole
    long side. Brushes scale with the square root of the area, so that those of a panorama do not fill its height. The
    hole ratio is not restricted. The outline is interpolated, so that an enlarged mask has no steps.
    """
    height, width = shape
    side, relative_area = max(shape), min(shape) / max(shape)
    placement = random_placement(hole.shape, config, rng)
    brush = int(rng.integers(*config.brush, endpoint=True)) * np.sqrt(relative_area)
    raw_brush = max(1, round(brush / (placement.zoom * base_scale(hole.shape))))  # the zoom will magnify it
    part, left, top = crop_to_hole(hole, raw_brush // 2 + 1)
    matrix = placement.matrix(side, placement.zoom * base_scale(hole.shape) * side / SIZE)
    origin = rng.uniform(0, 1, 2) * (side - width, side - height)  # of the part of the square
    matrix[:, 2] += matrix[:, :2] @ origin - (left, top)
    levels = dilate(part, raw_brush, config.shape) * np.uint8(255)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(levels, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_CONSTANT) > 127


def with_area(hole: np.ndarray, area: int, rng: np.random.Generator) -> np.ndarray:
    """Widen or narrow a hole, bool (H, W), to exactly `area` pixels, 1 to all but one.

    The pixels are those nearest to the hole, or furthest inside it, by Euclidean distance; among equals the first ones.
    An empty or full hole becomes a round one around a random pixel.
    """
    if hole.all() or not hole.any():
        hole = np.zeros_like(hole)
        hole.ravel()[rng.integers(hole.size)] = True
    inside = hole.view(np.uint8)
    outwards, inwards = (cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_5) for part in (1 - inside, inside))
    distance = (outwards - inwards).ravel()
    limit = np.partition(distance, area - 1)[area - 1]
    result = distance < limit
    result[np.flatnonzero(distance == limit)[: area - np.count_nonzero(result)]] = True
    return result.reshape(hole.shape)
