"""Random training and test masks out of raw ones: dilate, turn, shift, zoom, crop; grow a hole to a wanted ratio.

A raw hole is widened in its own frame and placed afterwards, the order of NVIDIA's page, so that a square brush
turns with the mask. What a turn or a shift brings in from outside the raw mask is valid, never a hole.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from maskgen.checks import expect, one_of
from maskgen.errors import BadInput
from maskgen.settings import SHAPES, SIZE, AugmentConfig

FAR = 255  # level of a pixel that no brush reaches
CROWDED = 0.7  # share of the allowed room from which a hole keeps islands of valid pixels
LOOSE = 100  # px, how much further inside than needed a raw mask may be cut, where the hole leaves room
STEP = 2  # levels per px: distances are kept as uint8 in half pixels
MANY = 8  # times as many raw masks are joined where the usual number does not suffice


@dataclass(frozen=True)
class Pose:
    """Where a raw mask lies in the new one."""

    flip: bool  # mirrored left to right, before it is turned
    angle: float  # degrees, counter-clockwise
    zoom: float  # 2 shows everything twice as large
    x: float  # px of the raw mask, the column that comes to the centre
    y: float  # px of the raw mask, the row that comes to the centre

    def matrix(self, size: int, scale: float) -> np.ndarray:
        """Affine map from the new mask's (x, y, 1) to the raw mask's (x, y). float64 (2, 3). scale: new px a raw px."""
        cos, sin = np.cos(np.deg2rad(self.angle)) / scale, np.sin(np.deg2rad(self.angle)) / scale
        turn = np.array([[cos, -sin], [sin, cos]])
        if self.flip:
            turn[0] *= -1
        middle = (size - 1) / 2
        return np.column_stack([turn, np.array([self.x, self.y]) - turn @ (middle, middle)])


def enlargement(shape: tuple[int, int]) -> float:
    """512 px per raw px: 1 for raw masks of 512 px or more, which are cropped; more for smaller ones."""
    return max(1.0, SIZE / min(shape))


def random_pose(shape: tuple[int, int], config: AugmentConfig, rng: np.random.Generator) -> Pose:
    """Draw a placement: flip, angle, zoom, and a crop, shifted as far as the raw mask and config.shift let it."""
    flip = config.flip and bool(rng.integers(2))
    angle, zoom = rng.uniform(-config.rotate, config.rotate), rng.uniform(*config.zoom)
    large = enlargement(shape)
    centre = [
        (length - 1) / 2 + rng.uniform(-1, 1) * (max(0, length * large - SIZE) / 2 + config.shift * SIZE) / large
        for length in (shape[1], shape[0])
    ]
    return Pose(flip, float(angle), float(zoom), *map(float, centre))


def _crop(hole: np.ndarray, margin: int) -> tuple[np.ndarray, int, int]:
    """The part of the raw mask that has holes and margin px around it, as uint8; the column and row of its corner."""
    x, y, width, height = cv2.boundingRect(hole.view(np.uint8))
    part = np.zeros((height + 2 * margin, width + 2 * margin), np.uint8)
    part[margin : margin + height, margin : margin + width] = hole[y : y + height, x : x + width]
    return part, x - margin, y - margin


def _warp(part: np.ndarray, left: int, top: int, pose: Pose, size: int, scale: float, outside: int) -> np.ndarray:
    matrix = pose.matrix(size, scale) - [[0, 0, left], [0, 0, top]]
    # Nearest neighbour: a mask stays binary, and no grey has to be cut at one threshold or another.
    how = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, (size, size), flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=outside)


def _distance(part: np.ndarray, shape: str) -> np.ndarray:
    """Px from each pixel to the nearest hole pixel, float32: as a square brush grows, or as a disc does."""
    kind, mask = (cv2.DIST_C, 3) if shape == "square" else (cv2.DIST_L2, cv2.DIST_MASK_5)
    return cv2.distanceTransform(1 - part, kind, mask)


def dilate(hole: np.ndarray, side: int, shape: str = "square") -> np.ndarray:
    """Widen a hole with a brush side px wide, "square" or "disc". uint8 or bool (H, W) of 0 and 1 -> uint8 (H, W)."""
    expect("shape", shape, one_of(SHAPES))
    part = hole.view(np.uint8)
    if side <= 1:
        return part
    if shape == "square":
        return cv2.dilate(part, np.ones((side, side), np.uint8))
    return (_distance(part, shape) <= side / 2).view(np.uint8)  # much quicker than a large round kernel


def augment(hole: np.ndarray, config: AugmentConfig, rng: np.random.Generator, size: int = SIZE):
    """Make one random mask out of a raw hole, bool (H, W). Returns the new hole, bool (size, size), and what was done.

    Draws anew until the hole ratio lies in [config.min_ratio, config.max_ratio]. Raises BadInput after
    config.attempts draws, or at once for a raw mask without a hole.
    """
    if not hole.any():
        raise BadInput("a raw mask has no hole: expected at least one hole pixel, remove the file")
    large = enlargement(hole.shape)
    for _ in range(config.attempts):
        pose = random_pose(hole.shape, config, rng)
        side = int(rng.integers(*config.brush, endpoint=True))
        # The brush is px of the result: what the zoom will magnify is made smaller first.
        raw_side = max(1, round(side / (pose.zoom * large)))
        part, left, top = _crop(hole, raw_side // 2 + 1)
        wide = dilate(part, raw_side, config.shape)
        placed = _warp(wide, left, top, pose, size, pose.zoom * large * size / SIZE, 0)
        if config.min_ratio <= cv2.countNonZero(placed) / placed.size <= config.max_ratio:
            return placed.view(bool), {"dilation": side, **_told(pose)}
    raise BadInput(
        f"no mask with a hole ratio from {config.min_ratio:g} to {config.max_ratio:g} came out of {config.attempts} "
        f"draws from a raw mask with the ratio {hole.mean():.4f}: widen the range, or the brush {config.brush}"
    )


def _told(pose: Pose) -> dict:
    """The columns of an index that say how a raw mask was placed."""
    return {
        "rotation": f"{pose.angle:.2f}",
        "zoom": f"{pose.zoom:.3f}",
        "flip": int(pose.flip),
        "centre": f"{pose.x:.1f} {pose.y:.1f}",
    }


def levels(hole: np.ndarray, pose: Pose, size: int, shape: str, reach: float, margins: np.ndarray | None = None):
    """How far each pixel of the new mask lies from the raw hole placed in it. uint8 (size, size), half px, FAR beyond.

    reach: px, the widest growth that will be asked for. margins: px, only the part of the raw hole that keeps these
    distances from the new mask's left, upper, right and lower edge counts, so that a growth up to `reach` stays
    inside without being cut.
    """
    expect("shape", shape, one_of(SHAPES))
    scale = pose.zoom * enlargement(hole.shape) * size / SIZE
    if margins is not None:
        hole = hole & _window(hole.shape, pose.matrix(size, scale), size, margins)
    if not hole.any():
        return np.full((size, size), FAR, np.uint8)
    part, left, top = _crop(hole, int(reach / scale) + 2)
    away = cv2.convertScaleAbs(_distance(part, shape), alpha=scale * STEP)
    return _warp(away, left, top, pose, size, scale, FAR)


def _window(shape, matrix, size, margins):
    """The pixels of the raw mask that come to lie inside the margins of the new one. bool, of the raw shape."""
    left, top = margins[:2]
    right, bottom = size - 1 - margins[2:]
    corners = np.array([[left, top, 1], [right, top, 1], [right, bottom, 1], [left, bottom, 1]])
    window = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(window, np.round(corners @ matrix.T).astype(np.int32), 1)
    return window.view(bool)


def reach_of(levels: np.ndarray, count: int) -> float:
    """The growth in px at which `count` pixels are holes; inf where no brush gets there. levels: uint8 (H, W)."""
    upto = np.cumsum(cv2.calcHist([levels], [0], None, [256], [0, 256]))
    level = int(np.searchsorted(upto, count))
    return level / STEP if level < FAR else np.inf


def grow(levels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The `count` pixels nearest to the hole, one selection and no search. uint8 (H, W) half px -> bool (H, W).

    Of the outermost ring, half a pixel wide, only a part is needed: it is filled from a random side, as if the
    brush had been a little longer there. Raises ValueError if fewer than `count` pixels are within reach.
    """
    upto = np.cumsum(cv2.calcHist([levels], [0], None, [256], [0, 256])).astype(int)
    level = int(np.searchsorted(upto, count))
    if level >= FAR:
        raise ValueError(f"only {upto[FAR - 1]} pixels are within reach, {count} are wanted")
    hole = levels < level
    ring = np.flatnonzero(levels == level)
    missing = count - np.count_nonzero(hole)
    turn = rng.uniform(0, 2 * np.pi)
    rows, columns = np.divmod(ring, levels.shape[1])
    # A stable sort, so that pixels on one line across the direction come in one order on every machine.
    order = np.argsort(np.round(np.cos(turn) * columns + np.sin(turn) * rows, 6), kind="stable")
    hole.ravel()[ring[order[:missing]]] = True
    return hole


def fitting_pose(hole: np.ndarray, room: float, shrink: float, config: AugmentConfig, rng) -> Pose:
    """Draw a placement that brings the whole raw hole into a centred square of `room` px of 512, if shrinking can.

    It shrinks down to the zoom `shrink` and no further; a hole that is larger even so is cut where it leaves.
    """
    x, y, width, height = cv2.boundingRect(hole.view(np.uint8))
    large = enlargement(hole.shape)
    flip = config.flip and bool(rng.integers(2))
    angle = float(rng.uniform(-config.rotate, config.rotate))
    cos, sin = abs(np.cos(np.deg2rad(angle))), abs(np.sin(np.deg2rad(angle)))
    wide, high = (width * cos + height * sin) * large, (width * sin + height * cos) * large
    wider = max(wide, high, 1e-9)  # of a raw mask without a hole, 0
    zoom = float(np.clip(room / wider * rng.uniform(0.8, 1), shrink, config.zoom[1]))
    # Shift the hole's box about in the room that is left, or the room about in the box; rather to a side than not,
    # or several masks joined would pile up in the middle.
    across = (rng.beta(0.5, 0.5) - 0.5) * (room / zoom - wide) / large
    down = (rng.beta(0.5, 0.5) - 0.5) * (room / zoom - high) / large
    pose = Pose(flip, angle, zoom, 0, 0)
    dx, dy = pose.matrix(1, 1.0)[:, :2] @ (across, down)
    return Pose(flip, angle, zoom, float(x + (width - 1) / 2 - dx), float(y + (height - 1) / 2 - dy))


def part_of(hole: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A part of a raw hole that is too large as a whole. bool (H, W) -> bool (H, W).

    The 8-connected pieces that lie whole in a square of `side` px about a random hole pixel, so that contours stay what
    they were; where none does, what the square cuts out.
    """
    pixels = np.flatnonzero(hole)
    if not pixels.size:
        return hole
    y, x = divmod(int(pixels[rng.integers(pixels.size)]), hole.shape[1])
    square = np.zeros_like(hole)
    square[max(0, y - side // 2) : y + side // 2 + 1, max(0, x - side // 2) : x + side // 2 + 1] = True
    inside = hole & square
    number, pieces = cv2.connectedComponents(hole.view(np.uint8), connectivity=8)
    is_cut = np.zeros(number, bool)
    is_cut[pieces[hole & ~square]] = True
    whole = inside & ~is_cut[pieces]
    return whole if whole.any() else inside


@dataclass(frozen=True)
class Wanted:
    """What a mask that is grown to a ratio must be."""

    count: int  # hole pixels
    size: int = SIZE  # px, side
    border: int = 0  # px, holes keep this distance from the edges; 0 leaves them free
    layers: int = 1  # raw masks that may be joined
    shrink: float = 1.0  # smallest zoom of a raw mask that has to fit inside the border


def compose(draw: Callable, wanted: Wanted, config: AugmentConfig, rng: np.random.Generator):
    """Grow a hole of exactly wanted.count pixels out of one raw mask, or out of several where one is too small.

    draw(layer): returns the raw hole for that layer, bool (H, W). Growth stays within config.brush. With a border,
    raw holes are shrunk to fit and cut at such a depth that the growth ends before the border line, so that the
    outlines stay those of the brush. Returns the hole, bool (size, size), and what was done; or None if this draw
    leads nowhere and another must be tried.
    """
    unit = wanted.size / SIZE
    lowest, highest = config.brush[0] / 2 * unit, config.brush[1] / 2 * unit
    share = wanted.count / (wanted.size - 2 * wanted.border) ** 2
    if wanted.border:
        highest = (lowest + highest) / 2  # a large brush needs a wide margin to end before the line
    # Larger holes get larger brushes on average, as they would by chance; small ones leave it to the raw mask.
    limit = rng.uniform(lowest + min(0.5, share / 2) * (highest - lowest), highest)
    inner = slice(wanted.border, wanted.size - wanted.border)
    kept = _kept(draw, wanted, config, rng) if share > CROWDED else None
    nearest = np.full((wanted.size, wanted.size), FAR, np.uint8)
    poses = []
    for layer in range(wanted.layers):
        raw = draw(layer)
        if wanted.border:
            room = (wanted.size - 2 * wanted.border - 2 * limit) / unit
            # Shrinking keeps contours whole, but makes all of them small; so every second one is cut instead.
            fits = bool(rng.integers(2))
            pose = fitting_pose(raw, room, wanted.shrink, config, rng) if fits else random_pose(raw.shape, config, rng)
            turn = np.deg2rad(pose.angle)
            corner = abs(np.cos(turn)) + abs(np.sin(turn)) if config.shape == "square" else 1
            # Where there is room, each is cut at lines of its own, or all would end along one square.
            spare = rng.uniform(0, LOOSE * unit * (1 - share), 4)
            margins = wanted.border + limit * corner + 1 + spare
        else:
            pose, margins = random_pose(raw.shape, config, rng), None
        joined = np.minimum(nearest, levels(raw, pose, wanted.size, config.shape, limit, margins))
        if kept is not None:
            joined[kept] = FAR
        grown = reach_of(joined[inner, inner], wanted.count)
        if grown < lowest:
            if layer == 0:
                return None  # too large by itself
            continue  # too much at once: go on without it
        nearest, reach = joined, grown
        poses.append((layer, pose))
        if reach <= limit:
            break
    # Raw masks that do not suffice may grow further, up to the whole brush, and are then cut at the border line.
    if not poses or reach > config.brush[1] / 2 * unit:
        return None
    nearest[~_room(wanted)] = FAR
    return grow(nearest, wanted.count, rng), {"dilation": f"{2 * reach / unit:.1f}", "layers": poses}


def compose_of_many(draw: Callable, wanted: Wanted, config: AugmentConfig, rng: np.random.Generator, *, parts: bool):
    """`compose` for raw masks that are few, too small or too large for it. Returns the same.

    It joins up to MANY times as many raw masks, each shifted by up to half the side and magnified up to twice as far.
    parts: takes parts of raw masks instead, of about the size of the hole that is wanted.
    """
    share = rng.uniform(0.5, 1.5)

    def drawn(layer):
        raw = draw(layer)
        if not parts:
            return raw
        side = share * np.sqrt(wanted.count) / (enlargement(raw.shape) * wanted.size / SIZE)
        return part_of(raw, max(1, round(side)), rng)

    zoom = config.zoom if parts else (config.zoom[0], 2 * config.zoom[1])
    return compose(drawn, replace(wanted, layers=MANY * wanted.layers), replace(config, shift=0.5, zoom=zoom), rng)


def _kept(draw, wanted, config, rng):
    """Pixels that stay valid in the midst of a hole that fills nearly all its room: a grown raw mask too, or None.

    Without them such a hole would be one blot, for growth closes the gaps inside before it reaches the rim.
    """
    room = _room(wanted)
    count = int((np.count_nonzero(room) - wanted.count) * rng.uniform(0.05, 0.35))
    widest = (config.brush[0] + config.brush[1]) / 4 * wanted.size / SIZE
    for _ in range(8):
        raw = draw(wanted.layers)
        near = levels(raw, random_pose(raw.shape, config, rng), wanted.size, config.shape, widest)
        near[~room] = FAR
        if 0 < reach_of(near, count) <= widest:
            return grow(near, count, rng)
    return None


def _room(wanted):
    """Where holes may lie. bool (size, size)."""
    room = np.zeros((wanted.size, wanted.size), bool)
    inner = slice(wanted.border, wanted.size - wanted.border)
    room[inner, inner] = True
    return room
