"""How a process deals with the memory of its arrays."""

import contextlib
import ctypes
from functools import cache


@cache
def keep_memory() -> None:
    """Let this process keep the memory of arrays that it is done with, up to 256 MB, where it is glibc's to give away.

    A run makes arrays of the same few sizes thousands of times. As glibc starts out, it hands their pages back to the
    system each time and waits for new ones: almost half of the time that SSIM takes.
    """
    mmap_threshold, trim_threshold = -3, -1  # of malloc.h
    with contextlib.suppress(OSError, TypeError, AttributeError):  # another C library
        malloc = ctypes.CDLL(None).mallopt
        malloc(mmap_threshold, 32 << 20)  # the most that it admits
        malloc(trim_threshold, 256 << 20)
