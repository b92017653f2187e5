"""What the other frame cannot see: the forward-backward check of Sundaram, Brox & Keutzer (ECCV 2010)."""

import cv2
import numpy as np

from maskgen.flow import both, contradiction
from maskgen.settings import ExtractConfig


def occlusion(forward: np.ndarray, backward: np.ndarray, *, slope: float = 0.01, offset: float = 0.5) -> np.ndarray:
    """Find the pixels of frame 1 that frame 2 cannot see. Returns hole: bool (H, W).

    forward, backward: float32 (H, W, 2), displacement (dx, dy) in pixels. One shape, or ValueError. A pixel x with
    the flow w is occluded if |w + v|^2 > slope * (|w|^2 + |v|^2) + offset, v being the backward flow at x + w
    (bilinear), or if x + w leaves the frame.
    Source: forward-backward check of Sundaram, Brox & Keutzer, ECCV 2010, with their constants.
    """
    if forward.shape != backward.shape:
        raise ValueError(f"flows must have one shape, got {forward.shape} and {backward.shape}")
    return contradiction(forward, backward, slope=slope, offset=offset) > 1


def motion_boundaries(flow: np.ndarray, *, slope: float = 0.01, offset: float = 0.002) -> np.ndarray:
    """Find where the flow jumps: |grad u|^2 + |grad v|^2 > slope * |w|^2 + offset. Returns hole: bool (H, W).

    flow: float32 (H, W, 2), w = (u, v) in pixels. Central differences, one-sided at the edge of the frame.
    Source: Sundaram, Brox & Keutzer, ECCV 2010, with their constants.
    """
    beside = cv2.copyMakeBorder(flow, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    steep = _squared(beside[1:-1, 2:] - beside[1:-1, :-2])
    steep += _squared(beside[2:, 1:-1] - beside[:-2, 1:-1])
    steep *= 0.25
    bound = _squared(flow)
    bound *= slope
    bound += offset
    return steep > bound


def remove_specks(hole: np.ndarray, min_area: int) -> np.ndarray:
    """Drop 8-connected pieces of fewer than min_area pixels; shapes stay. bool (H, W) -> bool (H, W)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(hole.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = False  # the background
    return keep[labels]


def holes_of_pair(first: np.ndarray, second: np.ndarray, config: ExtractConfig) -> tuple[np.ndarray, np.ndarray]:
    """The holes of frame 1 against frame 2 (occluded) and of frame 2 against frame 1 (disoccluded), each bool (H, W).

    first, second: uint8 (H, W, 3), RGB. One pair of flows serves both.
    """
    forward, backward = both(config.flow, first, second)
    return _hole(forward, backward, config), _hole(backward, forward, config)


def _hole(forward, backward, config):
    hole = occlusion(forward, backward, slope=config.slope, offset=config.offset)
    if config.motion_boundaries:
        hole |= motion_boundaries(forward, slope=config.boundary_slope, offset=config.boundary_offset)
    return remove_specks(hole, config.min_area)


def _squared(vectors):
    """Squared length of every vector. float32 (H, W, 2) -> float32 (H, W)."""
    u, v = cv2.split(vectors)
    u *= u
    v *= v
    u += v
    return u
