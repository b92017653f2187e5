"""Dense optical flow between two frames; `FLOWS` is the table of methods.

A flow is float32 (H, W, 2): the displacement (dx, dy), in pixels, of each pixel of the first frame.
Frames are uint8 (H, W, 3), RGB. The same frames give the same bytes for any number of OpenCV threads.
"""

from collections.abc import Callable
from importlib.metadata import entry_points

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.extraction import raft
from maskgen.extraction.frames import grey
from maskgen.extraction.mending import mended_dis

GROUP = "maskgen.flows"  # entry point group in which another package can register a method


def dis(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Dense inverse search (Kroeger et al., ECCV 2016) on equalized frames, then mended: see `mending`."""
    return mended_dis(first, second)[0]


def dis_medium(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Dense inverse search, OpenCV's preset "medium"."""
    return _dense_inverse_search(first, second, cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def dis_fast(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Dense inverse search, OpenCV's preset "fast"."""
    return _dense_inverse_search(first, second, cv2.DISOPTICAL_FLOW_PRESET_FAST)


def farneback(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Polynomial expansion (Farneback, SCIA 2003)."""
    first, second = grey(first), grey(second)
    return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 5, 15, 3, 5, 1.2, 0)


def tvl1(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Total variation with an L1 data term (Zach et al., DAGM 2007), from scikit-image. Slow."""
    from skimage.registration import optical_flow_tvl1

    dy, dx = optical_flow_tvl1(grey(first) / np.float32(255), grey(second) / np.float32(255), dtype=np.float32)
    return np.ascontiguousarray(np.stack((dx, dy), axis=-1))


FLOWS = {"dis": dis, "dis-medium": dis_medium, "dis-fast": dis_fast, "farneback": farneback, "tvl1": tvl1}


def flow_named(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Look up a method by name, in `FLOWS` or among those of other packages; "raft:FILE" is RAFT with these weights.

    Raises BadInput for an unknown name, or a file without usable weights.
    """
    if name in FLOWS:
        return FLOWS[name]
    if raft.is_raft(name):
        return raft.raft(name)
    plugins = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in plugins:
        raise BadInput(
            f"no optical flow called {name!r}: expected one of {', '.join([*FLOWS, *sorted(plugins), 'raft:FILE'])}"
        )
    return plugins[name].load()


def packages(name: str) -> list[str]:
    """The installed packages, apart from OpenCV, that compute the flow of this name."""
    if name in FLOWS:
        return ["scikit-image", "scipy"] if FLOWS[name] is tvl1 else []
    if raft.is_raft(name):
        return raft.PACKAGES
    return [entry.dist.name for entry in entry_points(group=GROUP, name=name) if entry.dist]


def absolute(name: str) -> str:
    """The same name; in "raft:FILE" the path is absolute, as a worker may have another working folder."""
    return f"{raft.PREFIX}{raft.weights_file(name)}" if raft.is_raft(name) else name


def identity(name: str) -> str:
    """What decides the flow of this name, for a recipe: the name, and for "raft:FILE" the weights and the device."""
    return raft.identity(name) if raft.is_raft(name) else name


def both(name: str, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flow from first to second and the flow back, by the method of this name.

    first, second: uint8 (H, W, 3), RGB. Returns two flows, float32 (H, W, 2). Raises ValueError if the frames differ in
    shape, and BadInput for an unknown name.
    """
    if first.shape != second.shape:
        raise ValueError(f"frames must have one shape, got {first.shape} and {second.shape}")
    flow = flow_named(name)
    # `dis` needs both flows to mend either of them; the other methods share no work between the two directions.
    return mended_dis(first, second) if flow is dis else (flow(first, second), flow(second, first))


def _dense_inverse_search(first, second, preset):
    return cv2.DISOpticalFlow.create(preset).calc(grey(first), grey(second), None)
