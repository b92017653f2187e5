"""Dense optical flow between two frames; `FLOWS` is the table of methods.

A flow is float32 (H, W, 2): for every pixel of the first frame its displacement (dx, dy) in pixels to the second.
Frames are uint8 (H, W, 3), RGB. The same frames give the same bytes, whatever number of threads OpenCV may use.
"""

from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import entry_points

import cv2
import numpy as np

from maskgen.errors import BadInput

GROUP = "maskgen.flows"  # the Python entry point group by which others add a method


def dis(first, second):
    """Dense inverse search (Kroeger et al., ECCV 2016) with the settings that found occlusions best."""
    return _dis(first, second, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def dis_medium(first, second):
    """Dense inverse search, OpenCV's preset "medium"."""
    return _dis(first, second, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def dis_fast(first, second):
    """Dense inverse search, OpenCV's preset "fast"."""
    return _dis(first, second, cv2.DISOPTICAL_FLOW_PRESET_FAST)


def farneback(first, second):
    """Polynomial expansion (Farneback, SCIA 2003)."""
    first, second = _grey(first), _grey(second)
    with one_thread():
        return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 5, 15, 3, 5, 1.2, 0)


def tvl1(first, second):
    """Total variation and an L1 data term (Zach et al., DAGM 2007) of scikit-image. Slow."""
    from skimage.registration import optical_flow_tvl1

    dy, dx = optical_flow_tvl1(_grey(first) / np.float32(255), _grey(second) / np.float32(255), dtype=np.float32)
    return np.ascontiguousarray(np.stack((dx, dy), axis=-1))


FLOWS = {"dis": dis, "dis-medium": dis_medium, "dis-fast": dis_fast, "farneback": farneback, "tvl1": tvl1}


def flow_named(name: str) -> Callable:
    """The method of that name: a row of `FLOWS`, or one that another package adds. BadInput where there is none."""
    if name in FLOWS:
        return FLOWS[name]
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        raise BadInput(f"no optical flow called {name!r}: expected one of {', '.join([*FLOWS, *sorted(others)])}")
    return others[name].load()


def both(name: str, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow of the named method from first to second, and back. ValueError where the frames differ in shape."""
    if first.shape != second.shape:
        raise ValueError(f"frames must have one shape, got {first.shape} and {second.shape}")
    flow = flow_named(name)
    return flow(first, second), flow(second, first)


def _dis(first, second, preset):
    first, second = _grey(first), _grey(second)
    with one_thread():
        return cv2.DISOpticalFlow.create(preset).calc(first, second, None)


def _grey(frame):
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


@contextmanager
def one_thread():
    """Hold OpenCV to one thread: it cuts some searches into one strip per thread, which changes their result."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
