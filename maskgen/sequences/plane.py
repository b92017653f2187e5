"""The irregular hole that a sequence shows parts of: raw masks joined on a plane and dilated to a mean hole ratio."""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from maskgen.augment.composition import random_part
from maskgen.augment.dilation import UNREACHED, dilate
from maskgen.augment.placement import base_scale, crop_to_hole, random_placement
from maskgen.settings import PRESETS, SIZE, AugmentConfig

CONFIG: AugmentConfig = PRESETS["nvidia"]  # brush, rotation, shift and zoom, as of still masks
LAYERS = 16  # raw masks that may be joined
DRAWS = 24  # of raw masks for one sequence
WHOLE_DRAWS = 12  # of these, draws of whole raw masks; parts of raw masks are drawn if they are too large
VIEWS = 5  # frames on which the hole ratio is measured before it is chosen
OVERLAP = (
    1.5  # raw masks are joined until their holes, dilated by the widest brush, have so many times the pixels needed
)


class Plane(NamedTuple):
    """A hole that covers more than one frame shows."""

    hole: np.ndarray  # uint8 (h, w) of 0 and 1
    place: np.ndarray  # float64 (2, 3), from the positions (x, y, 1) of frame 0 to the pixels of `hole`

    def frame(self, matrix: np.ndarray, out: np.ndarray) -> None:
        """Draw what one frame shows into `out`, uint8 (H, W). matrix: from the frame to frame 0, float64 (2, 3)."""
        _warp(self.hole, _after(self.place, matrix), out, 0)

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The hole at positions of frame 0, float32 (H, W). Returns bool (H, W); beyond the plane it is mirrored."""
        place = self.place.astype(np.float32)
        x, y = (place[i, 0] * x + place[i, 1] * y + place[i, 2] for i in (0, 1))
        return cv2.remap(self.hole, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT).view(bool)


Draw = Callable[[], tuple[str, np.ndarray]]  # returns the name and the hole, bool (H, W), of a random raw mask


def augment(draw: Draw, matrices: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> tuple[Plane, dict]:
    """Dilate one raw mask by a random brush, and place it. Returns the plane and its index columns.

    matrices: what each frame shows, float64 (T, 2, 3), from its pixels to the plane. shape: (height, width) of the
    frames.
    """
    name, raw = draw()
    side = int(rng.integers(*CONFIG.brush, endpoint=True))
    scale, to_raw = _placed(raw, matrices, shape, rng)
    raw_side = max(1, round(side * brush_unit(shape) / scale))
    part, left, top = crop_to_hole(raw, raw_side // 2 + 1)
    place = to_raw - [[0, 0, left], [0, 0, top]]
    return Plane(dilate(part, raw_side, CONFIG.shape), place), {"raw": name, "dilation": side}


def compose(
    draw: Draw, matrices: np.ndarray, shape: tuple[int, int], ratio: float, rng: np.random.Generator
) -> tuple[Plane, dict] | None:
    """Join raw masks and dilate them until frames show the mean hole ratio. Returns the plane and its index columns.

    matrices: what each frame shows, float64 (T, 2, 3), from its pixels to the plane. shape: (height, width) of the
    frames. None if no draw succeeds.
    """
    for number in range(DRAWS):
        made = _composed(draw, matrices, shape, ratio, rng, parts=number >= WHOLE_DRAWS)
        if made:
            return made
    return None


def _composed(draw, matrices, shape, ratio, rng, parts):
    needed = ratio * shape[0] * shape[1]  # px of a frame
    left, top, right, bottom = _seen(matrices, shape)
    to_plane = np.array([[1.0, 0, -left], [0, 1, -top]])
    views = [_after(to_plane, matrices[i]) for i in evenly_spaced(len(matrices), VIEWS)]
    lowest, highest = (side / 2 * brush_unit(shape) for side in CONFIG.brush)
    # Larger holes get larger brushes on average; small ones are left to the raw mask.
    limit = rng.uniform(lowest + min(0.5, ratio / 2) * (highest - lowest), highest)
    hole, names, reachable = np.zeros((bottom - top, right - left), np.uint8), [], 0.0
    for layer in range(LAYERS):
        name, raw = draw()
        if parts:
            raw = random_part(raw, max(1, round(rng.uniform(0.5, 1.5) * np.sqrt(needed) / _scale(raw, shape))), rng)
        scale, to_raw = _placed(raw, matrices, shape, rng)
        placed = np.empty_like(hole)
        _warp(raw.view(np.uint8), _after(to_raw, [[1, 0, left], [0, 1, top]]), placed, 0)
        hole |= placed
        names.append(name)
        side = max(1, round(2 * limit / scale))
        reachable += cv2.countNonZero(cv2.dilate(raw.view(np.uint8), np.ones((side, side), np.uint8))) * scale**2
        if reachable < OVERLAP * needed and layer < LAYERS - 1:
            continue
        levels = distance_levels(hole, shape)
        level = _level(levels, views, shape, ratio)
        if level < lowest * levels_per_px(shape):
            return None
        if level <= limit * levels_per_px(shape):
            columns = {"raw": ";".join(names), "dilation": dilation_of(level, shape)}
            return Plane((levels <= level).view(np.uint8), to_plane), columns
    return None


def _placed(raw, matrices, shape, rng):
    """Place a raw mask at random where a random frame is. Returns px of the plane per px of it, and the map to it."""
    placement = random_placement(raw.shape, CONFIG, rng)
    scale = placement.zoom * _scale(raw, shape)
    place = placement.matrix(1, scale)  # with the placement's centre at 0, 0
    centre = matrices[rng.integers(len(matrices))] @ ((shape[1] - 1) / 2, (shape[0] - 1) / 2, 1)
    place[:, 2] -= place[:, :2] @ centre
    return scale, place


def _scale(raw, shape):
    """Px of the frame per px of a raw mask, without zoom: a raw mask covers the longer side of a frame."""
    return base_scale(raw.shape) * max(shape) / SIZE


def brush_unit(shape: tuple[int, int]) -> float:
    """Px of the frame per px of a brush, which is stated for masks of 512x512 px."""
    return np.sqrt(shape[0] * shape[1]) / SIZE


def levels_per_px(shape: tuple[int, int]) -> float:
    """Levels per px of distance from a hole: as many as fit in a byte, for the widest brush."""
    return 2 * (UNREACHED - 1) / (CONFIG.brush[1] * brush_unit(shape))


def distance_levels(hole: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel from a hole, uint8 (h, w) of 0 and 1, in levels up to UNREACHED. uint8 (h, w)."""
    if not hole.any():
        return np.full(hole.shape, UNREACHED, np.uint8)
    distance = cv2.distanceTransform(1 - hole, cv2.DIST_L2, cv2.DIST_MASK_5)
    return cv2.convertScaleAbs(distance, alpha=levels_per_px(shape))


def dilation_of(level: int, shape: tuple[int, int]) -> str:
    """The width of the brush that dilates a hole up to a level, in px of a 512 px mask, as text for an index."""
    return f"{2 * level / levels_per_px(shape) / brush_unit(shape):.1f}"


def _after(second, first):
    """The affine map `first`, then `second`. Both (2, 3)."""
    return np.asarray(second) @ np.vstack([first, (0, 0, 1)])


def evenly_spaced(length: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `length`, evenly spaced."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))


def _seen(matrices, shape):
    """The box of the plane that the frames show: left, top, right and bottom, in px."""
    height, width = shape
    corners = np.array([[-1, -1, 1], [width, -1, 1], [-1, height, 1], [width, height, 1]])
    places = np.einsum("tij,kj->tki", matrices, corners)
    low, high = np.floor(places.min((0, 1))).astype(int), np.ceil(places.max((0, 1))).astype(int) + 1
    return *low.tolist(), *high.tolist()


def _warp(source, matrix, out, outside):
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP  # nearest neighbour keeps a mask binary
    size = out.shape[::-1]
    cv2.warpAffine(source, matrix, size, dst=out, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)


def _level(levels, matrices, shape, ratio):
    """The level up to which the frames show the mean ratio most closely; UNREACHED if they cannot reach it."""
    seen, counts = np.empty(shape, np.uint8), np.zeros(256)
    for matrix in matrices:
        _warp(levels, matrix, seen, UNREACHED)
        counts += cv2.calcHist([seen], [0], None, [256], [0, 256]).ravel()
    return nearest_level(counts, ratio * len(matrices) * seen.size)


def nearest_level(counts: np.ndarray, area: float) -> int:
    """The level up to which the number of pixels is nearest to an area; UNREACHED if all are fewer. counts: (256,)."""
    areas = np.cumsum(counts)[:UNREACHED]
    level = int(np.searchsorted(areas, area))
    is_lower_nearer = 0 < level < UNREACHED and area - areas[level - 1] < areas[level] - area
    return level - is_lower_nearer
