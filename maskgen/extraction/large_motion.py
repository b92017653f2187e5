"""A second search for the motion of fast objects, where the first one fails over a wide area.

Dense inverse search descends from coarse images to fine ones. What moves by more than its own size is lost in the
coarse ones, so the two flows are wrong there, and contradict each other. In such pairs, both frames are reduced to
cells, and each cell is compared with all cells around it in the other frame. Good matches become candidates of a second
dense search, which takes them where they explain the picture better. docs/occlusion.md describes the steps.

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
BETTER = 0.7  # a match counts if its difference is below this times that of the first flow
NOISE = 2  # grey levels, added to both differences
AGREE = 1.5  # cells by which a match and the match back may disagree along each axis
NEIGHBOURS = 16  # fewer matches side by side that move alike are chance
NO_MATCH = -(1 << 14)  # stands for a displacement


def search_again(
    search: cv2.DISOpticalFlow, frames: tuple[np.ndarray, np.ndarray], flows: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The flows of a second search if the first ones fail over a wide area, otherwise the first ones as they are.

    search: the dense search. frames: both in grey at half the size, uint8 (H, W). flows: of the first search, from
    the first frame to the second and back, float32 (H, W, 2), in half-size px.
    """
    planes = [_reduced_planes(flow) for flow in flows]
    reduced = [cv2.resize(frame, planes[0][0].shape[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
    errors = [_error_inside(*planes[::way]) for way in (1, -1)]
    torn = [_is_torn(reduced[::way], planes[::way][0], error) for way, error in zip((1, -1), errors, strict=True)]
    if not any(torn) or max(np.count_nonzero(error > 1) / error.size for error in errors) > FAILED:
        return flows
    cells = [_cells(frame) for frame in frames]
    matches = _matches(*cells), _matches(*cells[::-1])
    return tuple(
        _with_candidates(search, frames[::way], flows[::way][0], cells[::way], matches[::way]) for way in (1, -1)
    )


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
    """The displacement of each cell to the most similar one within REACH, float32 (h, w, 2), and their difference.

    Among equally similar cells the nearest one counts. Matches do not leave the frame.
    """
    height, width = first.shape
    padded = cv2.copyMakeBorder(second, *(REACH,) * 4, cv2.BORDER_REPLICATE)
    outside = cv2.copyMakeBorder(np.zeros_like(second), *(REACH,) * 4, cv2.BORDER_CONSTANT, value=np.inf)
    reach = range(-REACH, REACH + 1)
    shifts = sorted(((dx, dy) for dy in reach for dx in reach), key=lambda shift: (np.hypot(*shift), shift))
    least, match = np.full(first.shape, np.inf, np.float32), np.zeros((height, width, 2), np.float32)
    for dx, dy in shifts:
        there = np.s_[REACH + dy : REACH + dy + height, REACH + dx : REACH + dx + width]
        difference = cv2.blur(cv2.absdiff(first, padded[there]), (PATCH, PATCH))
        difference += outside[there]
        closer = difference < least
        least[closer] = difference[closer]
        match[closer] = dx, dy
    return match, least


def _with_candidates(search, frames, flow, cells, matches):
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
    return search.calc(*frames, cv2.resize(candidate, flow.shape[1::-1], interpolation=cv2.INTER_LINEAR))
