"""What the other frame cannot see: the forward-backward check of Sundaram, Brox & Keutzer (ECCV 2010)."""

from typing import NamedTuple

import cv2
import numpy as np

from maskgen.extraction.flow import both, contradiction, misses
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
    return _boundaries(cv2.split(flow), slope, offset)


def _boundaries(planes, slope, offset):
    u, v = planes
    central = {"ddepth": cv2.CV_32F, "ksize": 1, "borderType": cv2.BORDER_REPLICATE}  # the kernel -1 0 1
    steep = cv2.Sobel(u, dx=1, dy=0, **central)
    cv2.multiply(steep, steep, dst=steep)
    for plane, axis in ((u, (0, 1)), (v, (1, 0)), (v, (0, 1))):
        cv2.accumulateSquare(cv2.Sobel(plane, dx=axis[0], dy=axis[1], **central), steep)
    steep *= np.float32(0.25)
    bound = cv2.multiply(u, u)
    cv2.accumulateSquare(v, bound)
    bound *= np.float32(slope)
    bound += offset
    return steep > bound


def remove_specks(hole: np.ndarray, min_area: int) -> np.ndarray:
    """Drop 8-connected pieces of fewer than min_area pixels; shapes stay. bool (H, W) -> bool (H, W)."""
    _, labels = cv2.connectedComponents(hole.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    pixels = np.flatnonzero(hole)  # few: all that follows costs little
    labels = labels.ravel()[pixels]
    kept = np.zeros_like(hole)
    kept.ravel()[pixels[np.bincount(labels)[labels] >= min_area]] = True
    return kept


def flow_variance(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """How uncertain noise makes the flow, in px^2: noise variance / mean squared gradient. Returns float32 (H, W).

    first, second: uint8 (H, W, 3), RGB; flow: float32 (H, W, 2) from first to second. ValueError where they differ
    in shape. The rule of least-squares matching (Lucas & Kanade, IJCAI 1981): on a plain wall any motion explains
    the frames as well as the true one. Noise is what differs along the flow, as a robust standard deviation over the
    frame, and at least NOISE.
    """
    return _seen_along(first, second, flow).variance


def still_camera(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> bool:
    """Whether no motion explains the best textured quarter of the frame about as well as the flow does.

    Shapes and errors as in `flow_variance`. On plain walls under changing light the flow drifts; texture tells that
    the camera stood. About as well: the median difference, light taken off, is at most 1.5 times as large + 0.3.
    """
    return _seen_along(first, second, flow).still


def holes_of_pair(first: np.ndarray, second: np.ndarray, config: ExtractConfig) -> tuple[np.ndarray, np.ndarray]:
    """The holes of frame 1 against frame 2 (occluded) and of frame 2 against frame 1 (disoccluded), each bool (H, W).

    first, second: uint8 (H, W, 3), RGB; ValueError where they differ in shape. One pair of flows serves both. The
    published bounds are raised by config.noise times `flow_variance`, and what only noise or light made is left out;
    config.noise = 0 keeps the published rules.
    """
    flows = both(config.flow, first, second)
    there, back = map(cv2.split, flows)
    if not config.noise:
        return _published(there, back, config), _published(back, there, config)
    halves = _halves(first, second, flows[0])
    apart = _apart(*halves)
    sides = _side(*halves, apart, there), _side(*halves[::-1], apart, back)
    change = cv2.blur(cv2.multiply(apart, apart), (PATCH, PATCH))
    changed = _changed(first, second) if any(side.still for side in sides) else None
    return (
        _proven(there, back, sides[0], change, changed, config),
        _proven(back, there, sides[1], change, changed, config),
    )


def _published(there, back, config):
    """The hole by the published rules."""
    missed, leaves = misses(there, back, slope=config.slope, offset=config.offset)
    hole = (missed > 1) | leaves
    if config.motion_boundaries:
        hole |= _boundaries(there, config.boundary_slope, config.boundary_offset)
    return remove_specks(hole, config.min_area)


def _proven(there, back, side, change, changed, config):
    """The hole without what only noise or light made. change, changed: of `_apart` and `_changed`, both ways alike."""
    if side.still and np.count_nonzero(changed) < config.min_area:
        return np.zeros(changed.shape, bool)
    noise = side.variance * np.float32(config.noise)
    missed, leaves = misses(there, back, slope=config.slope, offset=config.offset + noise)
    # A camera that stands shows the same at the edge of the frame; one that turns shows something else. On a plain
    # wall the flow drifts with whatever moves beside it, and may seem to leave the frame.
    moves = (change > (CLEARLY * max(side.noise, NOISE / 2)) ** 2).view(np.uint8)
    moves = cv2.resize(moves, missed.shape[::-1], interpolation=cv2.INTER_NEAREST).view(bool)
    edge = leaves.copy()
    edge[:RIM], edge[-RIM:], edge[:, :RIM], edge[:, -RIM:] = True, True, True, True
    hole = missed > 1
    hole |= leaves
    hole &= moves | ~edge
    hole = cv2.medianBlur(hole.view(np.uint8), 5).view(bool)  # the majority of 5x5 pixels
    if config.motion_boundaries:
        contour = _boundaries(there, config.boundary_slope, config.boundary_offset + noise)
        apart = (missed > REALLY) | leaves
        if side.still:  # what changed is proof too, so a contour of a slow object may lie 2 px beside
            apart = cv2.dilate(apart.view(np.uint8), np.ones((5, 5), np.uint8)).view(bool)
        contour &= apart
        hole |= contour
    if side.still:
        hole &= changed
    return remove_specks(hole, config.min_area)


def _halves(first, second, flow):
    """Both frames grey at half the size: enough here, four times cheaper, without the noise of single pixels."""
    if not first.shape == second.shape == (*flow.shape[:2], 3):
        raise ValueError(f"frames and flow must have one shape, got {first.shape}, {second.shape} and {flow.shape}")
    return [_half(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in (first, second)]


def _apart(small, other):
    """How far the frames differ in place, light taken off. float32, at half the size."""
    difference = other - small
    return cv2.absdiff(difference, cv2.blur(difference, (LIGHT // 2, LIGHT // 2)))


class _Side(NamedTuple):
    """What is known of one direction of a pair."""

    variance: np.ndarray  # float32 (H, W), px^2, of the flow
    noise: float  # grey levels at half the size, standard deviation
    still: bool  # the camera stands


def _side(small, other, apart, planes):
    """small, other: the frames at half the size, apart: `_apart` of them, planes: the flow from small to other."""
    u, v = (cv2.resize(plane, small.shape[::-1], interpolation=cv2.INTER_AREA) for plane in planes)
    u *= np.float32(0.5)
    v *= np.float32(0.5)
    u += np.arange(small.shape[1], dtype=np.float32)
    v += np.arange(small.shape[0], dtype=np.float32)[:, None]
    along = cv2.remap(other, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    along -= small
    slope, down = (cv2.Sobel(small, cv2.CV_32F, *axis, scale=1 / 16) for axis in ((1, 0), (0, 1)))  # per full pixel
    steep = cv2.multiply(slope, slope)
    cv2.accumulateSquare(down, steep)
    texture = cv2.blur(steep, (7, 7))
    noise = 1.4826 * float(np.median(np.abs(along[::2, ::2])))  # robustly: the factor is that of a normal law
    variance = np.float32(max(noise, NOISE) ** 2) / (texture + np.float32(1e-6))
    variance = cv2.resize(variance, planes[0].shape[::-1], interpolation=cv2.INTER_LINEAR)
    return _Side(variance, noise, _is_still(apart, along, texture))


def _seen_along(first, second, flow):
    """`_side` of two frames alone, with the flow from the first to the second."""
    halves = _halves(first, second, flow)
    return _side(*halves, _apart(*halves), cv2.split(flow))


def _is_still(apart, along, texture):
    some = texture[::2, ::2]
    best = some >= np.percentile(some, 75)
    followed = cv2.absdiff(along, cv2.blur(along, (LIGHT // 2, LIGHT // 2)))
    return bool(np.median(apart[::2, ::2][best]) <= 1.5 * np.median(followed[::2, ::2][best]) + 0.3)


def _changed(first, second):
    """Where the frames differ by more than SAME in one channel, mean over 6x6 pixels, light taken off. bool (H, W)."""
    small, other = (cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for frame in (first, second))
    apart = cv2.subtract(small, other, dtype=cv2.CV_32F)
    apart = cv2.absdiff(cv2.blur(apart, (3, 3)), cv2.blur(apart, (LIGHT // 2, LIGHT // 2)))
    red, green, blue = cv2.split(apart)
    most = cv2.max(cv2.max(red, green), blue)
    return cv2.resize(most, first.shape[1::-1], interpolation=cv2.INTER_LINEAR) > SAME


def _half(grey):
    half = cv2.resize(grey.astype(np.float32), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(half, (0, 0), 0.75)
