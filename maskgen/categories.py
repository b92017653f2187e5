"""Hole ratio, border distance and the paper's 6x2 classes."""

from dataclasses import dataclass

import cv2
import numpy as np

from maskgen.settings import BORDER, EDGES

RUN = 16  # px, shortest straight piece of an outline that counts as clipped
BAND = 16  # px, width of the band inside the border line where it may lie


@dataclass(frozen=True)
class Measurement:
    """Hole ratio and border distance, which decide a mask's class, and the number of components."""

    hole_ratio: float  # hole pixels / all pixels
    border_distance: int  # px between the hole pixel nearest to an image edge and that edge; 0 is on the edge
    components: int  # 8-connected


def measure(hole: np.ndarray) -> Measurement:
    """Measure a hole, bool (H, W). An empty hole has the ratio 0 and the border distance min(H, W)."""
    labels = cv2.connectedComponents(hole.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)[0]
    return Measurement(np.count_nonzero(hole) / hole.size, border_distance(hole), labels - 1)  # one label is valid


def border_distance(hole: np.ndarray) -> int:
    """Pixels between the nearest hole pixel and the nearest image edge. bool (H, W); min(H, W) if empty."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    if not rows.size:
        return min(hole.shape)
    height, width = hole.shape
    return int(min(rows[0], columns[0], height - 1 - rows[-1], width - 1 - columns[-1]))


def interval_of(ratio: float, edges: tuple[float, ...] = EDGES) -> int | None:
    """Index i with edges[i] < ratio <= edges[i + 1], or None if the ratio lies outside."""
    # right=True: the upper edge belongs to the interval, so 0.2 falls in (0.1, 0.2] as in the paper.
    i = int(np.digitize(ratio, edges, right=True)) - 1
    return i if 0 <= i < len(edges) - 1 else None


def category_name(side: str, interval: int, edges: tuple[float, ...] = EDGES) -> str:
    """The name of a class in files and tables, such as `interior_0.01-0.1`. side: "interior" or "free"."""
    return f"{side}_{edges[interval]:g}-{edges[interval + 1]:g}"


def category(ratio: float, distance: int, *, edges: tuple[float, ...] = EDGES, border: int = BORDER) -> str:
    """Class of a measured mask, such as `free_0.2-0.3`; empty if the ratio lies outside all intervals."""
    interval = interval_of(ratio, edges)
    return "" if interval is None else category_name("interior" if distance >= border else "free", interval, edges)


def category_names(edges: tuple[float, ...] = EDGES) -> list[str]:
    """All classes in the paper's order: interior by ascending ratio, then free."""
    return [category_name(side, i, edges) for side in ("interior", "free") for i in range(len(edges) - 1)]


CATEGORIES = tuple(category_names())


def outline(hole: np.ndarray) -> np.ndarray:
    """Hole pixels with a valid 4-neighbour. bool (H, W) -> bool (H, W); beyond the image edge there is none."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return hole & (cv2.erode(hole.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=1) == 0)


def clipped_share(hole: np.ndarray) -> float:
    """Share of a hole's outline that lies straight along the border line, as if cut off there. bool (H, W).

    Counts outline pixels in straight runs of RUN px or more that are parallel to an image edge, face it, and lie less
    than BAND px inside the border line. 0 for a hole without an outline.
    """
    total = np.count_nonzero(outline(hole))
    straight = 0
    for side in range(4):
        strip = np.rot90(hole, side)[BORDER - 1 : BORDER + BAND]
        facing = np.diff(strip.astype(np.int8), axis=0) == 1
        # Runs along each row of the strip: pad with False, and find where a run starts and ends.
        change = np.diff(np.pad(facing, ((0, 0), (1, 1))).astype(np.int8).ravel())
        lengths = np.flatnonzero(change == -1) - np.flatnonzero(change == 1)
        straight += int(lengths[lengths >= RUN].sum())
    return straight / total if total else 0.0
