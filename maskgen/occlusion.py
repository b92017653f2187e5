"""What the other frame cannot see: the forward-backward check of Sundaram, Brox & Keutzer (ECCV 2010)."""

import cv2
import numpy as np

from maskgen.flow import both, contradiction
from maskgen.settings import ExtractConfig

NOISE = 1  # grey levels, deviation: rounding and compression leave at least this much
SAME = 3  # grey levels, light taken off: frames that differ by no more show the same thing in the same place
LIGHT = 31  # px, side of the square over which a change of light is a mean
RIM = 8  # px, the edge of the frame, where flow has nothing beyond to hold on to
PATCH = 9  # px at half the size, side of the square over which a change is a mean
CLEARLY = 2.0  # times the noise: a change that is more than chance
REALLY = 0.2  # of the check's bound: where the way back misses by less, the two sides of a contour move alike


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
    frame, and at least NOISE.
    """
    return _variance(*_at_half(*_halves(first, second, flow), flow)[1:])


def still_camera(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> bool:
    """Whether no motion explains the best textured quarter of the frame about as well as the flow does.

    Shapes and errors as in `flow_variance`. On plain walls under changing light the flow drifts; texture tells that
    the camera stood. About as well: the median difference, light taken off, is at most 1.5 times as large + 0.3.
    """
    return _is_still(*_at_half(*_halves(first, second, flow), flow))


def holes_of_pair(first: np.ndarray, second: np.ndarray, config: ExtractConfig) -> tuple[np.ndarray, np.ndarray]:
    """The holes of frame 1 against frame 2 (occluded) and of frame 2 against frame 1 (disoccluded), each bool (H, W).

    first, second: uint8 (H, W, 3), RGB; ValueError where they differ in shape. One pair of flows serves both. The
    published bounds are raised by config.noise times `flow_variance`, and what only noise or light made is left out;
    config.noise = 0 keeps the published rules.
    """
    forward, backward = both(config.flow, first, second)
    halves = _halves(first, second, forward) if config.noise else (None, None)
    return (
        _hole(first, second, forward, backward, halves, config),
        _hole(second, first, backward, forward, halves[::-1], config),
    )


def _hole(first, second, forward, backward, halves, config):
    noise, still = 0, False
    if config.noise:
        differences = _at_half(*halves, forward)
        noise, still = config.noise * _variance(*differences[1:]), _is_still(*differences)
    missed = contradiction(forward, backward, slope=config.slope, offset=config.offset + noise)
    hole = missed > 1
    if config.noise:
        # A camera that stands shows the same at the edge of the frame; one that turns shows something else.
        hole &= _moves(*differences) | ~(_rim(hole.shape) | np.isinf(missed))
        hole = cv2.medianBlur(hole.view(np.uint8), 5).view(bool)  # the majority of 5x5 pixels
    if config.motion_boundaries:
        contour = motion_boundaries(forward, slope=config.boundary_slope, offset=config.boundary_offset + noise)
        if config.noise:
            apart = missed > REALLY
            if still:  # what changed is proof too, so a contour of a slow object may lie 2 px beside
                apart = cv2.dilate(apart.view(np.uint8), np.ones((5, 5), np.uint8)).view(bool)
            contour &= apart
        hole |= contour
    if still:
        hole &= _changed(first, second)
    return remove_specks(hole, config.min_area)


def _halves(first, second, flow):
    """Both frames grey at half the size: enough here, four times cheaper, without the noise of single pixels."""
    if not first.shape == second.shape == (*flow.shape[:2], 3):
        raise ValueError(f"frames and flow must have one shape, got {first.shape}, {second.shape} and {flow.shape}")
    return [_half(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in (first, second)]


def _at_half(small, other, flow):
    """What differs in place and along the flow, mean squared gradient: at half the size; last the full (H, W)."""
    u, v = (cv2.resize(plane, small.shape[::-1], interpolation=cv2.INTER_AREA) / 2 for plane in cv2.split(flow))
    u += np.arange(small.shape[1], dtype=np.float32)
    v += np.arange(small.shape[0], dtype=np.float32)[:, None]
    along = cv2.remap(other, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) - small
    slopes = [cv2.Sobel(small, cv2.CV_32F, *axis, scale=1 / 16) for axis in ((1, 0), (0, 1))]  # per full pixel
    texture = cv2.blur(slopes[0] ** 2 + slopes[1] ** 2, (7, 7))
    return other - small, along, texture, flow.shape[:2]


def _variance(along, texture, shape):
    variance = np.float32(max(_deviation(along), NOISE) ** 2) / (texture + np.float32(1e-6))
    return cv2.resize(variance, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _is_still(in_place, along, texture, _):
    some = texture[::2, ::2]
    best = some >= np.percentile(some, 75)
    stayed, followed = (
        np.median(np.abs(left - cv2.blur(left, (LIGHT // 2, LIGHT // 2)))[::2, ::2][best]) for left in (in_place, along)
    )
    return bool(stayed <= 1.5 * followed + 0.3)


def _rim(shape):
    """The pixels within RIM of the edge of the frame. bool (H, W)."""
    rim = np.ones(shape, bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    return rim


def _moves(in_place, along, _, shape):
    """Where a pixel's surroundings changed by more than noise, as where the camera turns. bool (H, W).

    On a plain wall the flow drifts with whatever moves beside it, and may seem to leave the frame.
    """
    light = cv2.blur(in_place, (LIGHT // 2, LIGHT // 2))
    change = cv2.blur((in_place - light) ** 2, (PATCH, PATCH))
    moves = change > (CLEARLY * max(_deviation(along), NOISE / 2)) ** 2
    return cv2.resize(moves.view(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST).view(bool)


def _deviation(along):
    """Standard deviation of the noise, robustly: the factor is that of a normal law."""
    return 1.4826 * np.median(np.abs(along[::2, ::2]))


def _changed(first, second):
    """Where the frames differ by more than SAME in one channel, mean over 5x5 pixels, light taken off. bool (H, W)."""
    apart = cv2.subtract(first, second, dtype=cv2.CV_32F)
    apart = cv2.absdiff(cv2.blur(apart, (5, 5)), cv2.blur(apart, (LIGHT, LIGHT)))
    red, green, blue = cv2.split(apart)
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
