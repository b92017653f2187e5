"""Remember a value of the last images: several metrics, and several methods, share work on them in one process."""

import zlib
from collections.abc import Callable

import numpy as np

_last = {}  # by what was computed: (images, their checksums, value)


def reused(what: str, function: Callable, *images: np.ndarray):
    """function(*images), computed once as long as `what` is asked for the same array objects, unchanged."""
    checksums = [zlib.crc32(np.ascontiguousarray(image)) for image in images]
    kept, before, value = _last.get(what, ((), [], None))
    same = len(kept) == len(images) and all(a is b for a, b in zip(kept, images, strict=True))
    if not same or before != checksums:
        value = function(*images)
        _last[what] = (images, checksums, value)
    return value
