"""Two more searches for the motion of fast objects, where the first one fails over a wide area.

Dense inverse search descends from coarse images to fine ones. What moves by more than its own size is lost in the
coarse ones, so the two flows are wrong there, and contradict each other. In such pairs, both frames are reduced to
cells, and each cell is compared with all cells around it in the other frame. Good matches become candidates of a second
dense search, which takes them where they explain the picture better. A third search starts from its result, and from
the motions that large parts of the frame have in common. docs/occlusion.md describes the steps.

All constants were chosen on the scenes of `benchmarks/occlusion.py`. They are free to choose, but each of them changes
the masks of fast motion.
"""

import cv2
import numpy as np

from maskgen.extraction.consistency import consistency_error

REDUCED = 2  # times smaller than half-size frames, on which the flows are checked: enough for wide areas
SLOPE = 0.01  # of the consistency check, as in Sundaram et al. (ECCV 2010)
OFFSET = 0.5 / (2 * REDUCED) ** 2  # px^2, the same, at that size
MISMATCH = 15  # equalized grey levels, mean over CORE x CORE px, above which a flow leads to another colour
CORE = 5  # px at that size, side of a square of which each pixel contradicts the flow back and has another colour
WIDE = 0.003  # share of the frame with such squares above which a second search is made
FAILED = 0.5  # share of the frame in which the flows contradict each other, above which matches are as doubtful
CELLS = 64  # along the short side of a frame
REACH = 12  # cells, largest displacement of a match along each axis
PATCH = 3  # cells, side of the square that is compared
RANKS = 1024  # more than the number of displacements, so that a difference and a rank make one number
BETTER = 0.7  # a match counts if its difference is below this times that of the first flow
NOISE = 2  # grey levels, added to both differences
AGREE = 1.5  # cells by which a match and the match back may disagree along each axis
NEIGHBOURS = 16  # fewer matches side by side that move alike are chance
GRID = 8  # half-size px between the pixels whose motions are grouped
MOTIONS = 8  # affine motions that are looked for
SAME = 1  # half-size px by which a pixel of a group may deviate from its affine motion
MEMBERS = 15  # a group of fewer pixels is chance
WINDOW = 5  # half-size px, side of the square over which grey levels are compared to choose a motion
FINE_PATCH = 5  # half-size px, side of the patches of the third search, which need not be large any more
FINE_STRIDE = 3  # half-size px between them
FINE_STEPS = 12  # of the descent at each scale
NO_MATCH = -(1 << 14)  # stands for a displacement


def search_again(
    frames: tuple[np.ndarray, np.ndarray], flows: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The flows of two more searches if the first ones fail over a wide area, otherwise the first ones as they are.

    frames: both in grey at half the size, uint8 (H, W). flows: of the first search, from the first frame to the second
    and back, float32 (H, W, 2), in half-size px.
    """
    planes = [_reduced_planes(flow) for flow in flows]
    reduced = [cv2.resize(frame, planes[0][0].shape[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
    errors = [_error_inside(*planes[::way]) for way in (1, -1)]
    torn = [_is_torn(reduced[::way], planes[::way][0], error) for way, error in zip((1, -1), errors, strict=True)]
    if not any(torn) or max(np.count_nonzero(error > 1) / error.size for error in errors) > FAILED:
        return flows
    cells = [_cells(frame) for frame in frames]
    matches = _matches(*cells)
    flows = [_with_candidates(frames[::way], flows[::way][0], cells[::way], matches[::way]) for way in (1, -1)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchSize(FINE_PATCH)
    search.setPatchStride(FINE_STRIDE)
    search.setGradientDescentIterations(FINE_STEPS)
    return tuple(search.calc(*frames[::way], _best_motions(*frames[::way], *flows[::way])) for way in (1, -1))


def _reduced_planes(flow):
    """dx and dy of every second pixel, in px of the reduced frames."""
    points = np.s_[REDUCED // 2 :: REDUCED, REDUCED // 2 :: REDUCED]
    return [flow[..., axis][points] * np.float32(1 / REDUCED) for axis in range(2)]


def _error_inside(planes, back):
    """Consistency error of a flow, float32 (h, w); 0 where it leaves the frame."""
    error, leaves = consistency_error(planes, back, slope=SLOPE, offset=OFFSET)
    error[leaves] = 0
    return error


def _is_torn(frames, planes, error):
    """Whether a flow contradicts the one back and leads to another colour, over a wide area."""
    contradicts = error > 1
    if np.count_nonzero(contradicts) <= WIDE * error.size:
        return False
    mismatch = cv2.blur(_difference(*frames, *planes), (CORE, CORE)) > MISMATCH
    torn = cv2.erode((contradicts & mismatch).view(np.uint8), np.ones((CORE, CORE), np.uint8))
    return np.count_nonzero(torn) > WIDE * torn.size


def _difference(first, second, u, v):
    """Absolute difference of two frames in grey along the displacement (u, v)."""
    x = u + np.arange(u.shape[1], dtype=np.float32)
    y = v + np.arange(u.shape[0], dtype=np.float32)[:, None]
    return cv2.absdiff(first, cv2.remap(second, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _cells(frame):
    """The frame with CELLS pixels along its short side, or a few more. float32."""
    height, width = frame.shape
    factor = max(1, round(min(height, width) / CELLS))
    return cv2.resize(frame, (width // factor, height // factor), interpolation=cv2.INTER_AREA).astype(np.float32)


def _matches(first, second):
    """For each cell the displacement to the most similar one within REACH, and their difference; the same back.

    first, second: float32 (h, w), integers from 0 to 255. Returns two of (float32 (h, w, 2), float32 (h, w)). Among
    equally similar cells the nearest one counts. Matches do not leave the frame.
    """
    height, width = first.shape
    rows, columns = (range(-min(REACH, side - 1), min(REACH, side - 1) + 1) for side in first.shape)
    shifts = sorted(((dx, dy) for dy in rows for dx in columns), key=lambda shift: (np.hypot(*shift), shift))
    ranks = {shift: rank for rank, shift in enumerate(shifts)}
    least, least_back = np.full((2, height, width), np.inf, np.float32)  # of PATCH^2 * RANKS * difference + rank
    first, second = first * np.float32(RANKS), second * np.float32(RANKS)
    for (dx, dy), rank in ranks.items():
        here = np.s_[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
        there = np.s_[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
        difference = cv2.boxFilter(cv2.absdiff(first[here], second[there]), -1, (PATCH, PATCH), normalize=False)
        np.minimum(least[here], difference + rank, out=least[here])
        np.minimum(least_back[there], difference + ranks[-dx, -dy], out=least_back[there])
    shifts = np.float32(shifts)
    return tuple(
        (shifts[(found % RANKS).astype(int)], np.floor(found / RANKS) / PATCH**2) for found in (least, least_back)
    )


def _with_candidates(frames, flow, cells, matches):
    """The flow of a second search with good matches as candidates; the flow itself if there are none."""
    (match, difference), (back, _) = matches
    height, width = match.shape[:2]
    scale = np.float32([flow.shape[1] / width, flow.shape[0] / height])  # px of a cell
    in_cells = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / scale
    before = cv2.blur(_difference(*cells, *cv2.split(in_cells)), (PATCH, PATCH))
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    returned = cv2.remap(back, match[..., 0] + x, match[..., 1] + y, cv2.INTER_NEAREST)
    good = (np.abs(match + returned) <= AGREE).all(-1) & (difference + NOISE < BETTER * (before + NOISE))
    for axis in range(2):
        alike = np.where(good, match[..., axis] * 16, NO_MATCH).astype(np.int16)  # of OpenCV's disparities, 1/16 px
        cv2.filterSpeckles(alike, NO_MATCH, NEIGHBOURS, 16)
        good &= alike > NO_MATCH
    if not good.any():
        return flow
    candidate = np.where(good[..., None], match, in_cells) * scale
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # ends at half the size of the frames
    return search.calc(*frames, cv2.resize(candidate, flow.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def _best_motions(first, second, flow, back):
    """For each pixel its own flow, or the motion of the frame's large groups that leads to the most similar grey."""
    x, y = np.arange(flow.shape[1], dtype=np.float32), np.arange(flow.shape[0], dtype=np.float32)[:, None]
    best = list(cv2.split(flow))
    least = cv2.blur(_difference(first, second, *best).astype(np.float32), (WINDOW, WINDOW))
    for (xx, xy, dx), (yx, yy, dy) in _affine_motions(flow, back):
        u, v = ((xx - 1) * x + xy * y + dx).astype(np.float32), (yx * x + (yy - 1) * y + dy).astype(np.float32)
        difference = cv2.blur(_difference(first, second, u, v).astype(np.float32), (WINDOW, WINDOW))
        closer = (difference < least).view(np.uint8)
        closer &= cv2.inRange(x + u, 0, flow.shape[1] - 1) & cv2.inRange(y + v, 0, flow.shape[0] - 1)
        for plane, found in zip((*best, least), (u, v, difference), strict=True):
            cv2.copyTo(found, closer, plane)
    return cv2.merge(best)


def _affine_motions(flow, back):
    """The affine motions of the largest groups of pixels whose flow and flow back agree, float64 (2, 3) each."""
    error, leaves = consistency_error(cv2.split(flow), cv2.split(back), slope=SLOPE, offset=OFFSET * REDUCED**2)
    grid = np.s_[GRID // 2 :: GRID, GRID // 2 :: GRID]
    agrees = ~leaves[grid] & (error[grid] <= 1)
    start = GRID * np.argwhere(agrees)[:, ::-1].astype(np.float32) + GRID // 2
    end = start + flow[grid][agrees]
    motions = []
    while len(start) >= MEMBERS and len(motions) < MOTIONS:
        motion, member = cv2.estimateAffine2D(start, end, ransacReprojThreshold=SAME)
        if np.count_nonzero(member) < MEMBERS:
            break
        motions.append(motion)
        others = member.ravel() == 0
        start, end = start[others], end[others]
    return motions
