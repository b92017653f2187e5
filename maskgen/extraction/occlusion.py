"""Holes from a pair of flows: the occlusions and motion boundaries of Sundaram, Brox & Keutzer (ECCV 2010).

docs/occlusion.md describes the steps. The constants below belong to the suppression of noise, which is not in the
paper: they were chosen on the scenes of `benchmarks/occlusion.py` and on real clips, and `noise=0` switches all of it
off. They are free to choose, but each of them changes the masks, and a test fails if one changes, except where a
comment says that it is not tested. Sizes with "half-size px" refer to frames at half the size.
"""

from typing import NamedTuple

import cv2
import numpy as np

from maskgen.extraction.change import WHOLE, changing_part
from maskgen.extraction.consistency import Planes, consistency_error
from maskgen.extraction.flow import both
from maskgen.extraction.frames import grey, half_size
from maskgen.settings import ExtractConfig

MIN_NOISE = 1  # grey levels, standard deviation: rounding and compression leave at least this much
NOISE_BLUR = 0.75  # half-size px, Gaussian deviation that smooths frames before they are compared; not tested
GRADIENT_WINDOW = 7  # half-size px, side of the square over which squared gradients are averaged
CHANGE_WINDOW = 9  # half-size px, side of the square over which change at the edge of the frame is averaged; not tested
SIGNIFICANT = 2.0  # times the noise: a larger change at the edge of the frame is not due to noise
EDGE = 8  # px, width of the edge of the frame, where the flow lacks support from outside
MAJORITY = 5  # px, side of the square whose majority decides whether a pixel is occluded
CONTOUR_ERROR = 0.2  # consistency error below which the two sides of a motion boundary move alike
CONTOUR_REACH = 5  # px, side of the brush that widens the error, so that a contour of a slow object may lie beside it
LIGHT_WINDOW = 15  # half-size px, side of the square whose mean change is taken for a change of light
UNCHANGED = 3  # grey levels, light removed: with a still camera, smaller differences make no hole
CHANGED_WINDOW = 3  # half-size px, side of the square over which that difference is averaged
TEXTURED = 75  # percentile of the squared gradients above which a pixel counts as textured
STILL_FACTOR = 1.5  # the camera stands still if the median difference in place is at most this factor times that along
STILL_MARGIN = 0.3  # the flow, plus this margin in grey levels


class FlowStatistics(NamedTuple):
    """Statistics of one flow direction."""

    variance: np.ndarray  # float32 (H, W), px^2, of the flow, caused by noise
    noise: float  # grey levels at half the size, standard deviation
    is_still: bool  # the camera stands still


def occlusion(forward: np.ndarray, backward: np.ndarray, *, slope: float = 0.01, offset: float = 0.5) -> np.ndarray:
    """Find the pixels of frame 1 that frame 2 does not show. Returns hole: bool (H, W).

    forward, backward: float32 (H, W, 2), displacement (dx, dy) in pixels. Raises ValueError if their shapes differ. A
    pixel x with the flow w is occluded if |w + v|^2 > slope * (|w|^2 + |v|^2) + offset, where v is the backward flow at
    x + w (bilinear), or if x + w is outside the frame.
    Source: forward-backward check of Sundaram, Brox & Keutzer, ECCV 2010, with their constants.
    """
    if forward.shape != backward.shape:
        raise ValueError(f"flows must have one shape, got {forward.shape} and {backward.shape}")
    error, leaves = consistency_error(cv2.split(forward), cv2.split(backward), slope=slope, offset=offset)
    return (error > 1) | leaves


def motion_boundaries(flow: Planes, *, slope: float = 0.01, offset: float | np.ndarray = 0.002) -> np.ndarray:
    """Find where the flow jumps: |grad u|^2 + |grad v|^2 > slope * |w|^2 + offset. Returns hole: bool (H, W).

    flow: w = (u, v) as planes, each float32 (H, W), in pixels. offset: one number or float32 (H, W). Gradients are
    central differences, one-sided and halved at the edge of the frame.
    Source: Sundaram, Brox & Keutzer, ECCV 2010, with their constants.
    """
    u, v = flow
    central = {"ddepth": cv2.CV_32F, "ksize": 1, "borderType": cv2.BORDER_REPLICATE}  # the kernel -1 0 1
    gradient = cv2.Sobel(u, dx=1, dy=0, **central)
    cv2.multiply(gradient, gradient, dst=gradient)
    for plane, axis in ((u, (0, 1)), (v, (1, 0)), (v, (0, 1))):
        cv2.accumulateSquare(cv2.Sobel(plane, dx=axis[0], dy=axis[1], **central), gradient)
    gradient *= np.float32(0.25)
    bound = cv2.multiply(u, u)
    cv2.accumulateSquare(v, bound)
    bound *= np.float32(slope)
    bound += offset
    return gradient > bound


def remove_specks(hole: np.ndarray, min_area: int) -> np.ndarray:
    """Remove 8-connected components of fewer than min_area pixels; the others keep their shape. bool (H, W)."""
    _, labels = cv2.connectedComponents(hole.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    pixels = np.flatnonzero(hole)  # few, so the rest is cheap
    labels = labels.ravel()[pixels]
    kept = np.zeros_like(hole)
    kept.ravel()[pixels[np.bincount(labels)[labels] >= min_area]] = True
    return kept


def holes_of_pair(first: np.ndarray, second: np.ndarray, config: ExtractConfig) -> tuple[np.ndarray, np.ndarray]:
    """The occluded hole of frame 1 and the disoccluded hole of frame 2, each bool (H, W).

    first, second: uint8 (H, W, 3), RGB. Raises ValueError if their shapes differ. Both holes come from one pair of
    flows. The published bounds are raised by config.noise times the variance that noise gives the flow, and holes that
    are due to noise or light alone are left out; config.noise = 0 gives the published rules.
    """
    (occluded, _), (disoccluded, _) = holes_and_leaving(first, second, config)
    return occluded, disoccluded


def holes_and_leaving(
    first: np.ndarray, second: np.ndarray, config: ExtractConfig
) -> tuple[tuple[np.ndarray, int], tuple[np.ndarray, int]]:
    """Both holes as in `holes_of_pair`, each with the number of its pixels that the flow leads out of the frame.

    With config.leaving = "drop" these pixels have been removed from the hole.
    """
    if first.shape != second.shape:
        raise ValueError(f"frames must have one shape, got {first.shape} and {second.shape}")
    if not config.noise:
        forward, backward = map(cv2.split, both(config.flow, first, second))
        return _hole_by_published_rules(forward, backward, config), _hole_by_published_rules(backward, forward, config)
    part = changing_part(first, second)
    flows = both(config.flow, *(np.ascontiguousarray(frame[part]) for frame in (first, second)))
    forward, backward = (_placed(flow, part, first.shape[:2]) for flow in flows)
    half1, half2 = _grey_at_half_size(first), _grey_at_half_size(second)
    difference = _difference_without_light(half1, half2)
    statistics = (
        _flow_statistics(half1, half2, difference, forward),
        _flow_statistics(half2, half1, difference, backward),
    )
    change = cv2.blur(cv2.multiply(difference, difference), (CHANGE_WINDOW, CHANGE_WINDOW))
    changed = _changed_pixels(first, second) if any(one.is_still for one in statistics) else None
    return (
        _hole_above_noise(forward, backward, statistics[0], change, changed, config, part),
        _hole_above_noise(backward, forward, statistics[1], change, changed, config, part),
    )


def _placed(flow, part, shape):
    """The planes of the flow of a part of a frame, 0 elsewhere."""
    planes = cv2.split(flow)
    if flow.shape[:2] == shape:
        return planes
    whole = [np.zeros(shape, np.float32) for _ in planes]
    for plane, found in zip(whole, planes, strict=True):
        plane[part] = found
    return whole


def _hole_by_published_rules(forward, backward, config):
    error, leaves = consistency_error(forward, backward, slope=config.slope, offset=config.offset)
    hole = (error > 1) | leaves
    if config.motion_boundaries:
        hole |= motion_boundaries(forward, slope=config.boundary_slope, offset=config.boundary_offset)
    return _finished(hole, leaves, config)


def _finished(hole, leaves, config):
    """The hole without specks, and the number of its pixels that leave, which are removed first if they are to be."""
    if config.leaving == "keep":
        hole = remove_specks(hole, config.min_area)
        return hole, int(np.count_nonzero(hole & leaves))
    return remove_specks(hole & ~leaves, config.min_area), int(np.count_nonzero(hole & leaves))


def _hole_above_noise(forward, backward, statistics, change, changed, config, part=WHOLE):
    """The hole without what is due to noise or light alone, and the number of its pixels that leave.

    change: mean squared difference of the frames at half the size. changed: bool (H, W), for a still camera. Both are
    the same for the two directions.
    """
    if statistics.is_still and np.count_nonzero(changed) < config.min_area:
        return np.zeros(changed.shape, bool), 0
    whole = np.zeros(forward[0].shape, bool)
    forward, backward = ([plane[part] for plane in flow] for flow in (forward, backward))
    noise = statistics.variance[part] * np.float32(config.noise)
    error, leaves = consistency_error(forward, backward, slope=config.slope, offset=config.offset + noise)
    # With a still camera the edge of the frame looks the same in both frames; with a moving one it changes. The flow of
    # a plain wall drifts with whatever moves beside it, and may seem to leave the frame.
    moves = (change > (SIGNIFICANT * max(statistics.noise, MIN_NOISE / 2)) ** 2).view(np.uint8)
    moves = cv2.resize(moves, whole.shape[::-1], interpolation=cv2.INTER_NEAREST).view(bool)[part]
    edge = np.ones(whole.shape, bool)
    edge[EDGE:-EDGE, EDGE:-EDGE] = False
    edge = edge[part] | leaves
    hole = error > 1
    hole |= leaves
    hole &= moves | ~edge
    hole = cv2.medianBlur(hole.view(np.uint8), MAJORITY).view(bool)
    if config.motion_boundaries:
        contour = motion_boundaries(forward, slope=config.boundary_slope, offset=config.boundary_offset + noise)
        contradicts = (error > CONTOUR_ERROR) | leaves
        if statistics.is_still:  # `changed` is evidence too, so the contour of a slow object may lie beside the error
            brush = np.ones((CONTOUR_REACH, CONTOUR_REACH), np.uint8)
            contradicts = cv2.dilate(contradicts.view(np.uint8), brush).view(bool)
        contour &= contradicts
        hole |= contour
    if statistics.is_still:
        hole &= changed[part]
    whole[part], leaving = _finished(hole, leaves, config)
    return whole, leaving


def _grey_at_half_size(frame):
    """A frame in grey at half the size, with less noise. float32 (h, w)."""
    return cv2.GaussianBlur(half_size(grey(frame).astype(np.float32)), (0, 0), NOISE_BLUR)


def _difference_without_light(small, other):
    """Absolute difference of two frames in place, without its local mean, which is light. float32, at half the size."""
    difference = other - small
    return cv2.absdiff(difference, cv2.blur(difference, (LIGHT_WINDOW, LIGHT_WINDOW)))


def _flow_statistics(small, other, difference, planes):
    """`FlowStatistics` of the flow `planes` from frame `small` to frame `other`, both in grey at half the size.

    The variance is noise variance / mean squared gradient, the rule of least-squares matching (Lucas & Kanade, IJCAI
    1981): on a plain wall any motion explains the frames as well as the true one. Noise is a robust standard deviation
    of what differs along the flow, and at least MIN_NOISE. difference: of `_difference_without_light`.
    """
    u, v = (cv2.resize(plane, small.shape[::-1], interpolation=cv2.INTER_AREA) for plane in planes)
    u *= np.float32(0.5)
    v *= np.float32(0.5)
    u += np.arange(small.shape[1], dtype=np.float32)
    v += np.arange(small.shape[0], dtype=np.float32)[:, None]
    residual = cv2.remap(other, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    residual -= small
    across, down = (cv2.Sobel(small, cv2.CV_32F, *axis, scale=1 / 16) for axis in ((1, 0), (0, 1)))  # per full pixel
    gradient = cv2.multiply(across, across)
    cv2.accumulateSquare(down, gradient)
    texture = cv2.blur(gradient, (GRADIENT_WINDOW, GRADIENT_WINDOW))
    noise = 1.4826 * float(np.median(np.abs(residual[::2, ::2])))  # the factor is that of a normal distribution
    variance = np.float32(max(noise, MIN_NOISE) ** 2) / (texture + np.float32(1e-6))
    variance = cv2.resize(variance, planes[0].shape[::-1], interpolation=cv2.INTER_LINEAR)
    return FlowStatistics(variance, noise, _is_still(difference, residual, texture))


def _is_still(difference, residual, texture):
    """True if, where there is texture, no motion explains the frames about as well as the flow does.

    On plain walls under changing light the flow drifts, so only the textured quarter of the frame counts.
    """
    sample = texture[::2, ::2]
    textured = sample >= np.percentile(sample, TEXTURED)
    residual = cv2.absdiff(residual, cv2.blur(residual, (LIGHT_WINDOW, LIGHT_WINDOW)))
    in_place, along_flow = (np.median(one[::2, ::2][textured]) for one in (difference, residual))
    return bool(in_place <= STILL_FACTOR * along_flow + STILL_MARGIN)


def _changed_pixels(first, second):
    """Where the frames differ by more than UNCHANGED in one channel, light removed. bool (H, W)."""
    small, other = half_size(first), half_size(second)
    difference = cv2.subtract(small, other, dtype=cv2.CV_32F)
    light = cv2.blur(difference, (LIGHT_WINDOW, LIGHT_WINDOW))
    red, green, blue = cv2.split(cv2.absdiff(cv2.blur(difference, (CHANGED_WINDOW, CHANGED_WINDOW)), light))
    largest = cv2.max(cv2.max(red, green), blue)
    return cv2.resize(largest, first.shape[1::-1], interpolation=cv2.INTER_LINEAR) > UNCHANGED
