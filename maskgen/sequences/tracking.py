"""A mask that sticks to what a video shows: for each pixel of a frame, where it was in the first frame.

The displacement to the first frame is composed from the flows of consecutive frames and keeps fractions of pixels, so a
mask is sampled once, however many frames it is carried over, and does not blur. docs/sequences.md describes the steps.
The constants are free to choose, but each of them changes the masks.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from maskgen.extraction.consistency import consistency_error, sample_flow

SLOPE, OFFSET = 0.01, 0.5  # of the consistency check (px^2), as in Sundaram et al. (ECCV 2010)
EDGE = 1.0  # px, difference of displacements above which two neighbouring pixels belong to different things
REACH = 32  # px, how far the motion of a torn pixel is looked for
RINGS = (1, 2, 3, 5, 8, 12, 18, 25, REACH)  # px, distances at which it is looked for
DIRECTIONS = 16  # in each of which it is looked for
COLOUR = 20.0  # grey levels, difference that counts as much as 1 px of flow


class Origin(NamedTuple):
    """Where the pixels of a frame were in the first frame."""

    dx: np.ndarray  # float32 (H, W), px; the pixel (x, y) was at (x + dx, y + dy)
    dy: np.ndarray
    known: np.ndarray  # bool (H, W); False where the flow failed and nothing around it helps
    torn: float = 0.0  # share of pixels that the frame before does not show, or where the flow failed


def origins(steps: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], shape: tuple[int, int]) -> Iterator[Origin]:
    """Yield the origin of the first frame, which is the identity, and of each next one.

    steps: for each next frame, uint8 (H, W, 3), the frame, the flow from it to the frame before, and the flow back,
    float32 (H, W, 2).
    """
    origin = Origin(*np.zeros((2, *shape), np.float32), np.ones(shape, bool))
    yield origin
    for frame, back, forward in steps:
        origin = carried(origin, frame, back, forward)
        yield origin


def carried(origin: Origin, frame: np.ndarray, back: np.ndarray, forward: np.ndarray) -> Origin:
    """The origin of the next frame. frame: uint8 (H, W, 3). back, forward: flows from it and to it, as in `origins`."""
    u, v = cv2.split(back)
    torn = _torn_pixels(back, forward)
    dx, dy, _ = sample_flow((origin.dx, origin.dy), u, v)
    # At the outline of a thing, interpolation mixes two motions; the nearest pixel has one of them.
    x, y = u + np.arange(u.shape[1], dtype=np.float32), v + np.arange(u.shape[0], dtype=np.float32)[:, None]
    nearest = [cv2.remap(plane, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) for plane in origin[:2]]
    mixed = (cv2.absdiff(dx, nearest[0]) > EDGE / 2) | (cv2.absdiff(dy, nearest[1]) > EDGE / 2)
    np.copyto(dx, nearest[0], where=mixed)
    np.copyto(dy, nearest[1], where=mixed)
    known = cv2.remap(origin.known.view(np.uint8), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE).view(bool)
    dx += u
    dy += v
    return _regrown(Origin(dx, dy, known, float(torn.mean())), torn | ~known, frame, (u, v))


def _torn_pixels(back: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Pixels that the frame before does not show, or where the flow failed. bool (H, W).

    What enters at the edge of the frame is not torn: it moves like the pixels beside it.
    """
    return consistency_error(cv2.split(back), cv2.split(forward), slope=SLOPE, offset=OFFSET)[0] > 1


def _regrown(origin, torn, frame, flow):
    """Let torn pixels move like the pixel around them that is most like them in flow and colour, or else drop them.

    What comes out from behind a thing is then carried on by the ground beside it, not by the thing.
    """
    height, width = torn.shape
    smooth = cv2.blur(frame, (3, 3)).astype(np.float32) / np.float32(COLOUR)
    features = np.dstack([smooth, *flow])  # float32 (H, W, 5)
    rows, columns = np.nonzero(torn)
    own, best = features[rows, columns], np.full(len(rows), np.inf, np.float32)
    chosen = np.full(len(rows), -1)
    for ring in RINGS:
        for angle in np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS):
            y, x = rows + round(ring * np.sin(angle)), columns + round(ring * np.cos(angle))
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            place = np.where(inside, y * width + x, 0)
            difference = features.reshape(-1, 5)[place] - own
            cost = np.einsum("ij,ij->i", difference, difference) + np.float32((ring / REACH) ** 2)
            better = inside & ~torn.ravel()[place] & (cost < best)
            best[better], chosen[better] = cost[better], place[better]
    found = chosen >= 0
    for plane in origin[:2]:
        plane[rows[found], columns[found]] = plane.ravel()[chosen[found]]
    origin.known[rows, columns] = found
    return origin
