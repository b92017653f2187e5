"""How much alike masks look."""

from pathlib import Path

import cv2
import numpy as np

from maskgen.maskset import read_hole
from maskgen.settings import BORDER, SIZE

THUMB = 32  # px, side of the thumbnails by which masks are compared


def alike(paths: list[Path], limit: float) -> tuple[list[int], float]:
    """Which masks are too much like an earlier one, and the highest likeness of two that are not.

    Likeness is the correlation of two thumbnails of 32x32 px, each the share of hole in its part of the mask; of
    interior masks, whose rim is always valid, only what lies inside it is compared.
    """
    later, closest = [], 0.0
    inside = np.array([path.parent.name.startswith("interior") for path in paths], bool)
    rim = THUMB * BORDER // SIZE
    for part, cut in ((np.flatnonzero(inside), slice(rim, THUMB - rim)), (np.flatnonzero(~inside), slice(None))):
        if len(part):
            found, highest = _correlated(np.stack([_thumb(paths[i])[cut, cut].ravel() for i in part]), limit)
            later += part[found].tolist()
            closest = max(closest, highest)
    return sorted(later), closest


def _correlated(flat, limit):
    """Rows that correlate with an earlier one by `limit` or more, and the highest correlation below it."""
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    later, closest = [], 0.0
    for begin in range(0, len(flat), 1000):  # a thousand rows at a time, or the table would fill the memory
        block = np.tril(flat[begin : begin + 1000] @ flat[: begin + 1000].T, begin - 1)
        later += (begin + np.flatnonzero((block >= limit).any(1))).tolist()
        closest = max(closest, float(block[block < limit].max(initial=0)))
    return later, closest


def _thumb(path):
    grey = read_hole(path).astype(np.float32)
    return cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
