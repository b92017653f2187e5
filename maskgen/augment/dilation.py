"""Dilate holes: by a brush of a given width, or until they have exactly a given number of pixels."""

import cv2
import numpy as np

from maskgen.augment.placement import Placement, base_scale, crop_to_hole, place
from maskgen.checks import expect, one_of
from maskgen.settings import SHAPES, SIZE

LEVELS_PER_PX = 2  # distances are kept as uint8 in half pixels
UNREACHED = 255  # level of a pixel that no brush reaches


def dilate(hole: np.ndarray, side: int, shape: str = "square") -> np.ndarray:
    """Dilate a hole with a brush `side` px wide. uint8 or bool (H, W) of 0 and 1 -> uint8 (H, W) of 0 and 1.

    shape: "square" or "disc"; BadInput for any other.
    """
    expect("shape", shape, one_of(SHAPES))
    part = hole.view(np.uint8)
    if side <= 1:
        return part
    if shape == "square":
        return cv2.dilate(part, np.ones((side, side), np.uint8))
    return (_distance(part, shape) <= side / 2).view(np.uint8)  # much faster than a large round kernel


def _distance(part, shape):
    """Px from each pixel to the nearest hole pixel, float32: Chebyshev for a square brush, Euclidean for a disc."""
    metric, window = (cv2.DIST_C, 3) if shape == "square" else (cv2.DIST_L2, cv2.DIST_MASK_5)
    return cv2.distanceTransform(1 - part, metric, window)


def distance_levels(
    hole: np.ndarray, placement: Placement, size: int, shape: str, reach: float, margins: np.ndarray | None = None
) -> np.ndarray:
    """Distance of each pixel of the new mask from a raw hole placed in it. uint8 (size, size), in half px.

    0 is a hole pixel, UNREACHED is out of reach. hole: bool (H, W). shape: of the brush, "square" or "disc". reach: px,
    the largest distance that will be used. margins: px, float (4,), distances from the new mask's left, upper, right
    and lower edge; what lies outside them is cut off the raw hole, so that dilation up to `reach` stays inside.
    """
    expect("shape", shape, one_of(SHAPES))
    scale = placement.zoom * base_scale(hole.shape) * size / SIZE
    if margins is not None:
        hole = hole & _window(hole.shape, placement.matrix(size, scale), size, margins)
    if not hole.any():
        return np.full((size, size), UNREACHED, np.uint8)
    part, left, top = crop_to_hole(hole, int(reach / scale) + 2)
    levels = cv2.convertScaleAbs(_distance(part, shape), alpha=scale * LEVELS_PER_PX)
    return place(levels, left, top, placement, size, scale, UNREACHED)


def _window(shape, matrix, size, margins):
    """Pixels of the raw mask that lie inside the margins of the new one. bool, of the raw shape."""
    left, top = margins[:2]
    right, bottom = size - 1 - margins[2:]
    corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    window = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(window, np.round(corners @ matrix.T).astype(np.int32), 1)
    return window.view(bool)


def radius_for(levels: np.ndarray, area: int) -> float:
    """Radius in px of the dilation that gives a hole of `area` pixels; inf if none does. levels: uint8 (H, W)."""
    level = int(np.searchsorted(_areas(levels), area))
    return level / LEVELS_PER_PX if level < UNREACHED else np.inf


def dilate_to(levels: np.ndarray, area: int, rng: np.random.Generator) -> np.ndarray:
    """The `area` pixels nearest to a hole. levels: of `distance_levels`, uint8 (H, W) -> bool (H, W).

    Of the outermost ring, half a pixel wide, only a part is needed: it is filled from a random side, as if the brush
    were slightly longer there. Raises ValueError if fewer than `area` pixels are within reach.
    """
    areas = _areas(levels).astype(int)
    level = int(np.searchsorted(areas, area))
    if level >= UNREACHED:
        raise ValueError(f"expected {area} pixels within reach, got {areas[UNREACHED - 1]}")
    hole = levels < level
    ring = np.flatnonzero(levels == level)
    missing = area - np.count_nonzero(hole)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.divmod(ring, levels.shape[1])
    # Rounded and stably sorted, so that pixels at one distance along the direction have the same order everywhere.
    order = np.argsort(np.round(np.cos(angle) * columns + np.sin(angle) * rows, 6), kind="stable")
    hole.ravel()[ring[order[:missing]]] = True
    return hole


def _areas(levels):
    """Number of pixels up to each level. float32 (256,)."""
    return np.cumsum(cv2.calcHist([levels], [0], None, [256], [0, 256]))
