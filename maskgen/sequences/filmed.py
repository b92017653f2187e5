"""Sequences from video: a mask that sticks to what it shows, and the occlusions of consecutive frames."""

from itertools import pairwise

import cv2
import numpy as np

from maskgen.extraction.occlusion import holes_of_pair, remove_specks
from maskgen.sequences.plane import (
    CONFIG,
    Draw,
    brush_unit,
    compose,
    dilation_of,
    distance_levels,
    levels_per_px,
    nearest_level,
)
from maskgen.sequences.tracking import Origin, origins
from maskgen.settings import SIZE, ExtractConfig

FAILED = 0.35  # share of pixels at which the flows there and back contradict each other, above which they have failed
SMOOTH = 7  # px, side of the square whose majority decides whether a pixel of a tracked mask is a hole
MAX_EMPTY = 0.25  # share of the frames that may have no hole
# Why a window is passed over, in the words of the summary and of recipe.json.
FLOW_FAILED, NEAR_EMPTY = "in which the flow fails", "in which hardly anything moves"
NO_RATIO = "whose holes are too small or too large"


def tracked_holes(
    frames: list[np.ndarray], draw: Draw, ratio: float, flow: str, rng: np.random.Generator
) -> tuple[np.ndarray, dict] | str:
    """Carry an irregular mask along with what a video shows. Returns the holes, bool (T, H, W), and index columns.

    frames: uint8 (H, W, 3) each. The mask starts on the frame in the middle and is carried to both ends, so that errors
    of the flow add up over half the frames only. ratio: mean hole ratio that is aimed at. In place of the holes a str
    with what is wrong.
    """
    middle, shape = len(frames) // 2, frames[0].shape[:2]
    track = []
    for numbers in (range(middle, len(frames)), range(middle, -1, -1)):
        for origin in origins([frames[t] for t in numbers], flow):
            if origin.inconsistent > FAILED:
                return FLOW_FAILED
            track.append(origin)
    there, back = track[: len(frames) - middle], track[len(frames) - middle :]
    track = [*back[:0:-1], *there]
    made = compose(draw, np.stack([_camera(origin) for origin in track]), shape, ratio, rng)
    if made is None:
        return NO_RATIO
    plane, columns = made
    x, y = (grid.astype(np.float32) for grid in np.meshgrid(range(shape[1]), range(shape[0])))
    min_area = _min_area(shape)
    holes = np.empty((len(frames), *shape), bool)
    for hole, origin in zip(holes, track, strict=True):
        seen = plane.at(x + origin.dx, y + origin.dy) & origin.known
        seen = cv2.medianBlur(seen.view(np.uint8), SMOOTH).view(bool)
        hole[:] = ~remove_specks(~remove_specks(seen, min_area), min_area)
    if np.count_nonzero(~holes.any((1, 2))) > MAX_EMPTY * len(frames):
        return NO_RATIO
    return holes, {**columns, "anchor": middle}


def _camera(origin: Origin) -> np.ndarray:
    """The part of the first frame that a frame shows, roughly: the map by the median displacement. float64 (2, 3)."""
    return np.array([[1, 0, np.median(origin.dx)], [0, 1, np.median(origin.dy)]])


def occlusion_holes(frames: list[np.ndarray], ratio: float, flow: str) -> tuple[np.ndarray, dict] | str:
    """The pixels of each frame that the one before or the next does not show, dilated. Returns as `tracked_holes`.

    The dilation is the same for all frames: that of the brush, 9 to 49 px in a frame of 512x512, which gives the mean
    hole ratio, or the nearest to it.
    """
    shape = frames[0].shape[:2]
    config = ExtractConfig(flow=flow, min_area=_min_area(shape))
    holes, empty = np.zeros((len(frames), *shape), bool), 0
    for t, (first, second) in enumerate(pairwise(frames)):
        if not np.array_equal(first, second):  # films repeat frames
            pair = holes_of_pair(first, second, config)
            if max(hole.mean() for hole in pair) > config.max_ratio:
                return FLOW_FAILED
            holes[t] |= pair[0]
            holes[t + 1] |= pair[1]
        empty += not holes[t].any()
        if empty > MAX_EMPTY * len(frames):
            return NEAR_EMPTY
    return _dilated(holes, ratio)


def _dilated(holes, ratio):
    shape = holes.shape[1:]
    lowest, highest = (round(side / 2 * brush_unit(shape) * levels_per_px(shape)) for side in CONFIG.brush)
    levels = [distance_levels(hole.view(np.uint8), shape) for hole in holes]
    counts = sum(cv2.calcHist([one], [0], None, [256], [0, 256]).ravel() for one in levels)
    level = int(np.clip(nearest_level(counts, ratio * holes.size), lowest, highest))
    for hole, one in zip(holes, levels, strict=True):
        np.less_equal(one, level, out=hole)
    return holes, {"dilation": dilation_of(level, shape)}


def _min_area(shape):
    """Px of the smallest component that is kept, as many as in a mask of `maskgen extract` for its size."""
    return max(1, round(ExtractConfig.min_area * shape[0] * shape[1] / SIZE**2))
