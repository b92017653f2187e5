"""Mending of the `dis` flow: wrong motion, mostly along the outlines of objects, is replaced by that of similar pixels.

Dense inverse search matches square patches, so the motion of an object spreads over its outline. Each pixel gets a
confidence from forward-backward consistency and colour; where it is low, the flow becomes a mean over confident pixels
of similar colour (a joint bilateral filter). docs/occlusion.md describes the steps.

All constants were chosen on the scenes of `benchmarks/occlusion.py`. None of them comes from a paper, so they are free
to choose; but each of them changes the masks, so a change makes a new version of the masks, and a test fails.
"""

from typing import NamedTuple

import cv2
import numpy as np

from maskgen.extraction.consistency import consistency_error
from maskgen.extraction.frames import grey, half_size
from maskgen.extraction.large_motion import search_again


class Pass(NamedTuple):
    """One pass of the filter. It reaches grid * step * rings half-size px to each side."""

    grid: int  # half-size px between the points at which the mean is taken
    step: int  # grid points between a point and its next neighbour
    rings: int  # neighbours to each side


PASSES = (Pass(4, 4, 3), Pass(2, 3, 3), Pass(1, 3, 2))  # from far-reaching and coarse to near and fine
SHIFT = 6  # half-size px, distance of the neighbours whose flow a pixel may take over before the mending
MARGIN = 3  # grey levels by which that flow has to be better
SHIFT_WINDOW = 3  # half-size px, side of the square over which grey levels are compared for that
COLOUR_RANGE = 12  # grey levels, sum of the differences in R, G and B at which a neighbour's weight falls to 1/e
MIN_WEIGHT = 1e-3  # of a neighbour of any other colour, so that a pixel without similar neighbours gets a mean too
COLOUR_WEIGHT = (np.exp(-np.arange(256) / COLOUR_RANGE) + MIN_WEIGHT).astype(np.float32)  # (256,), by that sum
SLOPE = 0.01  # of the consistency check, as in Sundaram et al. (ECCV 2010)
OFFSET = 0.5 / 4  # half-size px^2: the 0.5 px^2 of that check
MISMATCH_SCALE = 15  # grey levels, colour difference along the flow at which the confidence falls to 1/e
MISMATCH = 15  # grey levels, colour difference along the flow above which two pixels do not show the same thing


def mended_dis(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The flow `dis` from first to second and back, each mended with the help of the other.

    first, second: uint8 (H, W, 3), RGB. Returns two flows, float32 (H, W, 2). Search and mending work on frames at half
    the size, which is where the preset "medium" ends too.
    """
    halves = [half_size(frame) for frame in (first, second)]
    equalized = [half_size(frame) for frame in _equalized_grey(first, second)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    flows = search.calc(*equalized, None), search.calc(*equalized[::-1], None)
    there, back = search_again(equalized, flows)
    there, back = _best_of_neighbours(*equalized, there), _best_of_neighbours(*equalized[::-1], back)
    mended = mend(*halves, there, back)
    frames = first, second
    return (
        _better_by_colour(frames, halves, mended[0], there),
        _better_by_colour(frames[::-1], halves[::-1], mended[1], back),
    )


def mend(
    first: np.ndarray, second: np.ndarray, forward: np.ndarray, backward: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Replace the flow of pixels of low confidence by that of confident pixels of similar colour around them.

    first, second: uint8 (H, W, 3), RGB, at half the size. forward, backward: float32 (H, W, 2), in half-size px.
    Returns both flows, mended.
    """
    # Half way to a flat histogram: dark colours become easier to tell apart, and bright ones stay so.
    curve = np.rint((_equalization_curve(first, second) + np.arange(256)) / 2).astype(np.uint8)
    enhanced = [cv2.LUT(frame, curve) for frame in (first, second)]
    for one_pass in PASSES:
        forward, backward = (
            _filtered(enhanced[0], forward, _confidence(first, second, forward, backward), one_pass),
            _filtered(enhanced[1], backward, _confidence(second, first, backward, forward), one_pass),
        )
    return forward, backward


def _equalized_grey(first, second):
    """Both frames in grey, with one curve that makes their joint histogram flat: dark scenes get contrast too."""
    first, second = grey(first), grey(second)
    curve = np.rint(_equalization_curve(first, second)).astype(np.uint8)
    return cv2.LUT(first, curve), cv2.LUT(second, curve)


def _equalization_curve(first, second):
    """New values of the 256 grey levels that make the joint histogram of all channels flat. float64 (256,)."""
    planes = [frame.reshape(len(frame), -1) for frame in (first, second)]
    counts = sum(cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel() for plane in planes)
    below = np.cumsum(counts, dtype=np.float64) - counts / 2
    return 255 * below / counts.sum(dtype=np.float64)


def _best_of_neighbours(first, second, flow):
    """For each pixel its own flow, or that of a pixel SHIFT away if it leads to more similar grey levels.

    first, second: uint8 (H, W), grey. Patches blur the flow over outlines; beyond the blur it is right.
    """
    best, error = flow.copy(), _grey_difference(first, second, flow)
    padded = cv2.copyMakeBorder(flow, SHIFT, SHIFT, SHIFT, SHIFT, cv2.BORDER_REPLICATE)
    height, width = first.shape
    for y, x in ((SHIFT, 0), (SHIFT, 2 * SHIFT), (0, SHIFT), (2 * SHIFT, SHIFT)):
        other = np.ascontiguousarray(padded[y : y + height, x : x + width])
        other_error = cv2.add(_grey_difference(first, second, other), MARGIN)
        better = cv2.compare(other_error, error, cv2.CMP_LT)
        cv2.copyTo(other, better, best)
        cv2.copyTo(other_error, better, error)
    return best


def _grey_difference(first, second, flow):
    """Difference of grey levels along the flow, mean around each pixel. uint8 (H, W)."""
    warped = cv2.remap(second, *_end_points(*cv2.split(flow)), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.blur(cv2.absdiff(first, warped), (SHIFT_WINDOW, SHIFT_WINDOW))


def _confidence(first, second, flow, back):
    """exp(-consistency error - (colour difference / MISMATCH_SCALE)^2), 0 where the flow leaves. float32 (H, W)."""
    planes = cv2.split(flow)
    doubt, leaves = consistency_error(planes, cv2.split(back), slope=SLOPE, offset=OFFSET)
    mismatch = _colour_difference(first, second, *planes) * np.float32(1 / MISMATCH_SCALE)
    mismatch *= mismatch
    doubt += mismatch
    doubt *= np.float32(-1)
    confidence = cv2.exp(doubt, dst=doubt)
    confidence[leaves] = 0
    return confidence


def _filtered(frame, flow, confidence, one_pass):
    """confidence * flow + (1 - confidence) * weighted mean of the flow around. float32 (H, W, 2)."""
    mean = _bilateral_mean(frame, flow, confidence, one_pass)
    means = [cv2.resize(plane, confidence.shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in mean]
    return cv2.merge([m + confidence * (own - m) for m, own in zip(means, cv2.split(flow), strict=True)])


def _bilateral_mean(frame, flow, confidence, one_pass):
    """Mean dx and dy around each point of a grid, neighbours weighted by confidence and similarity of colour."""
    grid, step, rings = one_pass
    points = np.s_[grid // 2 :: grid, grid // 2 :: grid]
    confidence, flow = confidence[points], flow[points]
    height, width = confidence.shape
    pad = rings * step
    colours = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    planes = cv2.split(cv2.copyMakeBorder(colours, pad, pad, pad, pad, cv2.BORDER_REPLICATE))
    centre = np.s_[pad : pad + height, pad : pad + width]
    # Three sums: of the weighted dx, of the weighted dy, and of the weights.
    terms = [
        cv2.copyMakeBorder(term, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
        for term in (flow[..., 0] * confidence, flow[..., 1] * confidence, confidence)
    ]
    sums = [np.full((height, width), tiny, np.float32) for tiny in (0, 0, 1e-12)]  # no division by 0
    for i in range(-rings, rings + 1):
        for j in range(-rings, rings + 1):
            if i * i + j * j > rings * rings + 1:  # a disc
                continue
            shifted = np.s_[pad + i * step : pad + i * step + height, pad + j * step : pad + j * step + width]
            red, green, blue = (cv2.absdiff(plane[centre], plane[shifted]) for plane in planes)
            similarity = cv2.LUT(cv2.add(cv2.add(red, green), blue), COLOUR_WEIGHT)
            for term, total in zip(terms, sums, strict=True):
                cv2.accumulateProduct(term[shifted], similarity, total)
    return sums[0] / sums[2], sums[1] / sums[2]


def _better_by_colour(frames, halves, mended, original):
    """The mended flow, doubled; the original one where only that leads to a similar colour, or to a more similar one.

    frames: first and second, uint8 (H, W, 3), and halves: both at half the size, where the original flow is judged.
    mended, original: float32 (h, w, 2), in half-size px.
    """
    size = frames[0].shape[1::-1]
    mended = cv2.resize(mended * np.float32(2), size, interpolation=cv2.INTER_LINEAR)
    error = _colour_difference(*frames, *cv2.split(mended))
    original_error = _colour_difference(*halves, *cv2.split(original), window=1)
    original_error = cv2.resize(original_error, size, interpolation=cv2.INTER_LINEAR)
    original = cv2.resize(original * np.float32(2), size, interpolation=cv2.INTER_NEAREST)
    return cv2.copyTo(original, ((error > MISMATCH) & (original_error < error)).astype(np.uint8), mended)


def _colour_difference(first, second, u, v, window=3):
    """Largest difference among R, G and B along the displacement (u, v), mean over window x window pixels. uint8."""
    warped = cv2.remap(second, *_end_points(u, v), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    red, green, blue = cv2.split(cv2.blur(cv2.absdiff(first, warped), (window, window)))
    return cv2.max(cv2.max(red, green), blue)


def _end_points(u, v):
    """The positions, x and y, to which the displacement (u, v) leads. float32 (H, W) each."""
    return u + np.arange(u.shape[1], dtype=np.float32), v + np.arange(u.shape[0], dtype=np.float32)[:, None]
