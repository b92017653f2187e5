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
