"""A mask that sticks to what a video shows: for each pixel of a frame, where it was in the first frame.

The displacement to the first frame is composed from the flows of consecutive frames and keeps fractions of pixels, so a
mask is sampled once, however many frames it is carried over, and does not blur. Each frame is then compared with the
first one, which removes most of the error that the flows add up to. docs/sequences.md describes the steps. The
constants are free to choose, but each of them changes the masks.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

from maskgen.extraction.consistency import consistency_error, sample_flow
from maskgen.extraction.flow import both, dis_medium

SLOPE, OFFSET = 0.01, 0.5  # of the consistency check (px^2), as in Sundaram et al. (ECCV 2010)
EDGE = 1.0  # px, difference of displacements above which two neighbouring pixels belong to different things
TORN = 0.3  # consistency error above which the frame before does not show a pixel, or the flow failed
AROUND = 7  # px, side of the square around such a pixel in which the flow is not trusted either
REACH = 32  # px, how far the motion of a torn pixel is looked for
RINGS = (2, 4, 8, 16, REACH)  # px, distances at which it is looked for
DIRECTIONS = 8  # in each of which it is looked for
CORRECTION = 4.0  # px, the largest correction by comparison with the first frame
UNCHANGED = 15  # grey levels, sum of the differences in R, G and B up to which a pixel looks the same in two frames
TEXTURED = 75  # percentile of the gradients above which a pixel counts as textured
STILL = 0.5  # the camera stands still if a smaller share of the textured pixels has changed
MISMATCH = 60  # grey levels, sum of the differences in R, G and B above which two pixels are not of the same thing
WINDOW = 5  # px, side of the square in which they are compared
COLOUR = 8.0  # grey levels, difference that counts as much as that distance


class Origin(NamedTuple):
    """Where the pixels of a frame were in the first frame."""

    dx: np.ndarray  # float32 (H, W), px; the pixel (x, y) was at (x + dx, y + dy)
    dy: np.ndarray
    known: np.ndarray  # bool (H, W); False where the flow failed, or where the first frame shows another thing
    seen: np.ndarray  # bool (H, W); True for what has been in view without a break since the first frame
    inconsistent: float = 0.0  # share of pixels at which the flows there and back contradict each other


def origins(frames: Sequence[np.ndarray], flow: str) -> Iterator[Origin]:
    """Yield the origin of each frame, uint8 (H, W, 3). That of the first is the identity. flow: a name in `FLOWS`."""
    shape = frames[0].shape[:2]
    origin = Origin(*np.zeros((2, *shape), np.float32), *np.ones((2, *shape), bool))
    yield origin
    for before, frame in pairwise(frames):
        forward, back = _held_still(before, frame, *both(flow, before, frame))
        origin = corrected(carried(origin, frame, back, forward), frame, frames[0])
        yield origin._replace(known=origin.known & ~_shows_another(origin, frame, frames[0]))


def _held_still(before, frame, forward, back):
    """The flows, 0 where a pixel looks the same in both frames, if the camera stands still.

    On plain walls under noise, flow drifts, and a mask on them would tremble.
    """
    changed = _difference(before, frame) > UNCHANGED
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    gradient = cv2.magnitude(*(cv2.Sobel(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))))
    if changed[gradient >= np.percentile(gradient, TEXTURED)].mean() < STILL:
        forward[~changed] = back[~changed] = 0
    return forward, back


def carried(origin: Origin, frame: np.ndarray, back: np.ndarray, forward: np.ndarray) -> Origin:
    """The origin of the next frame, uint8 (H, W, 3). back, forward: the flow from it and to it, float32 (H, W, 2)."""
    u, v = cv2.split(back)
    # What enters at the edge of the frame is not torn: it moves like the pixels beside it.
    error, enters = consistency_error((u, v), cv2.split(forward), slope=SLOPE, offset=OFFSET)
    torn = cv2.dilate((error > TORN).view(np.uint8), np.ones((AROUND, AROUND), np.uint8)).view(bool)
    dx, dy, _ = sample_flow((origin.dx, origin.dy), u, v)
    # At the outline of a thing, interpolation mixes two motions; the nearest pixel has one of them.
    x, y = _places(u, v)
    nearest = [cv2.remap(plane, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) for plane in origin[:2]]
    mixed = (cv2.absdiff(dx, nearest[0]) > EDGE / 2) | (cv2.absdiff(dy, nearest[1]) > EDGE / 2)
    np.copyto(dx, nearest[0], where=mixed)
    np.copyto(dy, nearest[1], where=mixed)
    known, seen = (
        cv2.remap(plane.view(np.uint8), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE).view(bool)
        for plane in (origin.known, origin.seen)
    )
    dx += u
    dy += v
    seen &= ~(torn | enters)
    return _regrown(Origin(dx, dy, known, seen, float(np.mean(error > 1))), torn | ~known, frame)


def corrected(origin: Origin, frame: np.ndarray, first: np.ndarray) -> Origin:
    """The origin after the frame was compared with the first one, moved to where the origin says. uint8 (H, W, 3).

    The flow between the two is what the origin lacks. It is added to what has been in view since the first frame and
    has moved, where it is small and makes the two more similar.
    """
    moved = _moved(first, origin.dx, origin.dy)
    u, v = cv2.split(dis_medium(frame, moved))
    dx, dy, _ = sample_flow((origin.dx, origin.dy), u, v)
    dx += u
    dy += v
    helps = _difference(frame, _moved(first, dx, dy)) < _difference(frame, moved)
    helps &= (u * u + v * v < CORRECTION**2) & origin.seen & ((origin.dx != 0) | (origin.dy != 0))
    return origin._replace(dx=np.where(helps, dx, origin.dx), dy=np.where(helps, dy, origin.dy))


def _shows_another(origin, frame, first):
    """Pixels whose place in the first frame has another colour: something was in front of them. bool (H, W).

    Otherwise a mask on a thing would be on the ground behind it too, and be left there when the thing moves on.
    """
    x, y = _places(origin.dx, origin.dy)
    inside = cv2.inRange(x, 0, x.shape[1] - 1).view(bool) & cv2.inRange(y, 0, y.shape[0] - 1).view(bool)
    return inside & ~origin.seen & (_difference(frame, _moved(first, origin.dx, origin.dy)) > MISMATCH)


def _places(dx, dy):
    """The positions of all pixels, displaced by (dx, dy)."""
    return dx + np.arange(dx.shape[1], dtype=np.float32), dy + np.arange(dx.shape[0], dtype=np.float32)[:, None]


def _moved(frame, dx, dy):
    """What a frame shows at positions displaced by (dx, dy)."""
    x, y = _places(dx, dy)
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _difference(first, second):
    """Sum of the differences in R, G and B, mean around each pixel. uint8 (H, W, 3) -> float32 (H, W)."""
    return cv2.blur(cv2.absdiff(first, second).sum(2, dtype=np.float32), (WINDOW, WINDOW))


def _regrown(origin, torn, frame):
    """Let torn pixels move like the pixel around them whose colour is most like theirs, or else drop them.

    What comes out from behind a thing is then carried on by the ground beside it, not by the thing.
    """
    height, width = torn.shape
    features = cv2.blur(frame, (3, 3)).reshape(-1, 3).astype(np.float32) / np.float32(COLOUR)
    rows, columns = np.nonzero(torn)
    own, best = features[rows * width + columns], np.full(len(rows), np.inf, np.float32)
    chosen = np.full(len(rows), -1)
    for ring in RINGS:
        for angle in np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS):
            y, x = rows + round(ring * np.sin(angle)), columns + round(ring * np.cos(angle))
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            place = np.where(inside, y * width + x, 0)
            difference = features[place] - own
            cost = np.einsum("ij,ij->i", difference, difference) + np.float32((ring / REACH) ** 2)
            better = inside & ~torn.ravel()[place] & (cost < best)
            best[better], chosen[better] = cost[better], place[better]
    found = chosen >= 0
    for plane in origin[:2]:
        plane[rows[found], columns[found]] = plane.ravel()[chosen[found]]
    origin.known[rows, columns] = found
    return origin
