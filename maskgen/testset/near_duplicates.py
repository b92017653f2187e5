"""Near-duplicates among masks: pairs whose thumbnails correlate."""

from pathlib import Path

import cv2
import numpy as np

from maskgen.maskset import read_hole
from maskgen.settings import BORDER, SIZE

THUMBNAIL = 32  # px, side of the thumbnails that are compared
BLOCK = 1000  # rows of the correlation table at a time, to save memory


def near_duplicates(paths: list[Path], limit: float) -> tuple[list[int], float]:
    """Masks that correlate by `limit` or more with an earlier one: their places in `paths`, in order.

    Also returns the highest correlation below the limit, 0 or more. Compared are thumbnails of 32 x 32 px, each pixel
    the share of hole in its part of the mask. Masks in a folder `interior...` are compared with each other only, and
    without the rim, which is valid in all of them.
    """
    duplicates, highest = [], 0.0
    is_interior = np.array([path.parent.name.startswith("interior") for path in paths], bool)
    rim = THUMBNAIL * BORDER // SIZE
    for group, inner in (
        (np.flatnonzero(is_interior), slice(rim, THUMBNAIL - rim)),
        (np.flatnonzero(~is_interior), slice(None)),
    ):
        if len(group):
            thumbnails = np.stack([_thumbnail(paths[i])[inner, inner].ravel() for i in group])
            found, highest_of_group = _correlated(thumbnails, limit)
            duplicates += group[found].tolist()
            highest = max(highest, highest_of_group)
    return sorted(duplicates), highest


def _correlated(rows, limit):
    """Rows that correlate with an earlier one by `limit` or more, and the highest correlation below it."""
    rows = rows - rows.mean(1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    found, highest = [], 0.0
    for begin in range(0, len(rows), BLOCK):
        table = np.tril(rows[begin : begin + BLOCK] @ rows[: begin + BLOCK].T, begin - 1)  # with earlier rows only
        found += (begin + np.flatnonzero((table >= limit).any(1))).tolist()
        highest = max(highest, float(table[table < limit].max(initial=0)))
    return found, highest


def _thumbnail(path):
    return cv2.resize(read_hole(path).astype(np.float32), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
