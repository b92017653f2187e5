"""Hole ratio, border distance and the paper's 6x2 classes."""

from dataclasses import dataclass

import cv2
import numpy as np

from maskgen.settings import BORDER, EDGES


@dataclass(frozen=True)
class Measure:
    """What decides a mask's class, and how many pieces its hole has."""

    hole_ratio: float  # hole pixels / all pixels
    border_distance: int  # px between the hole pixel nearest to an image edge and that edge; 0 is on the edge
    components: int  # 8-connected pieces


def measure(hole: np.ndarray) -> Measure:
    """Measure one hole, bool (H, W). An empty hole has the ratio 0 and the distance min(H, W)."""
    pieces = cv2.connectedComponents(hole.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)[0] - 1
    return Measure(np.count_nonzero(hole) / hole.size, border_distance(hole), pieces)


def border_distance(hole: np.ndarray) -> int:
    """Pixels between the nearest hole pixel and the nearest image edge. bool (H, W); min(H, W) if empty."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    if not rows.size:
        return min(hole.shape)
    height, width = hole.shape
    return int(min(rows[0], columns[0], height - 1 - rows[-1], width - 1 - columns[-1]))


def interval_of(ratio: float, edges=EDGES) -> int | None:
    """Index i with edges[i] < ratio <= edges[i + 1], or None outside."""
    # right=True: the upper edge belongs to the interval, so 0.2 falls in (0.1, 0.2] as in the paper.
    i = int(np.digitize(ratio, edges, right=True)) - 1
    return i if 0 <= i < len(edges) - 1 else None


def name(side: str, interval: int, edges=EDGES) -> str:
    """The class's name in files and tables: `interior_0.01-0.1`."""
    return f"{side}_{edges[interval]:g}-{edges[interval + 1]:g}"


def category(ratio: float, distance: int, *, edges=EDGES, border: int = BORDER) -> str:
    """Class of a measured mask, such as `free_0.2-0.3`; empty if the ratio lies outside all intervals."""
    interval = interval_of(ratio, edges)
    return "" if interval is None else name("interior" if distance >= border else "free", interval, edges)


def names(edges=EDGES) -> list[str]:
    """All classes in the paper's order: the interior ones from small to large, then the free ones."""
    return [name(side, i, edges) for side in ("interior", "free") for i in range(len(edges) - 1)]


CATEGORIES = tuple(names())


def outline(hole: np.ndarray) -> np.ndarray:
    """Hole pixels with a valid one above, below, left or right of them. bool (H, W); the image edge is no neighbour."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return hole & (cv2.erode(hole.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=1) == 0)


def clipped(hole: np.ndarray, border: int = BORDER, *, run: int = 16, band: int = 16) -> float:
    """Share of a hole's outline that lies straight along the border line, as if cut off there. bool (H, W).

    Counts outline pixels in straight runs of `run` px or more, parallel to an image edge and facing it, that lie
    from `border` to `border + band` px from that edge. 0 for a hole without an outline.
    """
    total = np.count_nonzero(outline(hole))
    straight = 0
    for side in range(4):
        turned = np.rot90(hole, side)
        strip = turned[border - 1 : border + band].astype(np.int8) if border else turned[:band].astype(np.int8)
        facing = (np.diff(strip, axis=0, prepend=0) == 1) if not border else (np.diff(strip, axis=0) == 1)
        # Runs along each row of the strip: pad with False, and take the places where a run begins and ends.
        padded = np.pad(facing, ((0, 0), (1, 1))).astype(np.int8).ravel()
        change = np.diff(padded)
        lengths = np.flatnonzero(change == -1) - np.flatnonzero(change == 1)
        straight += int(lengths[lengths >= run].sum())
    return straight / total if total else 0.0
