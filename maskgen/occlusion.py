"""What the other frame cannot see: the forward-backward check of Sundaram, Brox & Keutzer (ECCV 2010)."""

import cv2
import numpy as np

from maskgen.flow import both, contradiction
from maskgen.settings import ExtractConfig

SAME = 2  # grey levels: frames that differ by no more show the same thing in the same place


def occlusion(forward: np.ndarray, backward: np.ndarray, *, slope: float = 0.01, offset: float = 0.5) -> np.ndarray:
    """Find the pixels of frame 1 that frame 2 cannot see. Returns hole: bool (H, W).

    forward, backward: float32 (H, W, 2), displacement (dx, dy) in pixels. One shape, or ValueError. A pixel x with
    the flow w is occluded if |w + v|^2 > slope * (|w|^2 + |v|^2) + offset, v being the backward flow at x + w
    (bilinear), or if x + w leaves the frame.
    Source: forward-backward check of Sundaram, Brox & Keutzer, ECCV 2010, with their constants.
    """
    return contradiction(forward, backward, slope=slope, offset=offset) > 1


def motion_boundaries(flow: np.ndarray, *, slope: float = 0.01, offset: float | np.ndarray = 0.002) -> np.ndarray:
    """Find where the flow jumps: |grad u|^2 + |grad v|^2 > slope * |w|^2 + offset. Returns hole: bool (H, W).

    flow: float32 (H, W, 2), w = (u, v) in pixels. offset: one number or float32 (H, W). Central differences,
    one-sided and halved at the edge of the frame.
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
    _, labels = cv2.connectedComponents(hole.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    keep = np.bincount(labels.ravel()) >= min_area
    keep[0] = False  # the background
    return keep.take(labels)


def flow_variance(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """How uncertain noise makes the flow, in px^2: noise variance / mean squared gradient. Returns float32 (H, W).

    first, second: uint8 (H, W, 3), RGB; flow: float32 (H, W, 2) from first to second. ValueError where they differ
    in shape. The rule of least-squares matching (Lucas & Kanade, IJCAI 1981): on a plain wall any motion explains
    the frames as well as the true one. Noise is what differs along the flow, as a robust standard deviation over the
    frame; two frames without noise give 0.
    """
    if not first.shape == second.shape == (*flow.shape[:2], 3):
        raise ValueError(f"frames and flow must have one shape, got {first.shape}, {second.shape} and {flow.shape}")
    height, width = flow.shape[:2]
    # Half the size is enough, four times cheaper, and takes off the noise that only single pixels have.
    small, other = (_half(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in (first, second))
    u, v = (cv2.resize(plane, small.shape[::-1], interpolation=cv2.INTER_AREA) / 2 for plane in cv2.split(flow))
    u += np.arange(small.shape[1], dtype=np.float32)
    v += np.arange(small.shape[0], dtype=np.float32)[:, None]
    left = cv2.absdiff(cv2.remap(other, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), small)
    noise = np.float32(1.4826) * np.median(left[::2, ::2])  # the factor makes it the deviation of a normal law
    slopes = [cv2.Sobel(small, cv2.CV_32F, *axis, scale=1 / 16) for axis in ((1, 0), (0, 1))]  # per full pixel
    texture = cv2.blur(slopes[0] ** 2 + slopes[1] ** 2, (7, 7))
    return cv2.resize(noise**2 / (texture + np.float32(1e-6)), (width, height), interpolation=cv2.INTER_LINEAR)


def holes_of_pair(first: np.ndarray, second: np.ndarray, config: ExtractConfig) -> tuple[np.ndarray, np.ndarray]:
    """The holes of frame 1 against frame 2 (occluded) and of frame 2 against frame 1 (disoccluded), each bool (H, W).

    first, second: uint8 (H, W, 3), RGB; ValueError where they differ in shape. One pair of flows serves both. The
    published bounds are raised by config.noise times `flow_variance`: nothing where the frames have no noise.
    """
    forward, backward = both(config.flow, first, second)
    return _hole(first, second, forward, backward, config), _hole(second, first, backward, forward, config)


def _hole(first, second, forward, backward, config):
    noise = config.noise * flow_variance(first, second, forward) if config.noise else 0
    missed = contradiction(forward, backward, slope=config.slope, offset=config.offset + noise)
    hole = missed > 1
    if config.noise:
        # What seems to leave and is still there has stayed: a still camera has no ring of holes.
        hole &= np.isfinite(missed) | _changed(first, second)
    if config.motion_boundaries:
        hole |= motion_boundaries(forward, slope=config.boundary_slope, offset=config.boundary_offset + noise)
    return remove_specks(hole, config.min_area)


def _changed(first, second):
    """Where the frames differ by more than SAME in one channel, mean over 5x5 pixels. bool (H, W)."""
    red, green, blue = cv2.split(cv2.blur(cv2.absdiff(first, second), (5, 5)))
    return cv2.max(cv2.max(red, green), blue) > SAME


def _half(grey):
    half = cv2.resize(grey.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(half, (0, 0), 0.75)


def _squared(vectors):
    """Squared length of every vector. float32 (H, W, 2) -> float32 (H, W)."""
    u, v = cv2.split(vectors)
    u *= u
    v *= v
    u += v
    return u
