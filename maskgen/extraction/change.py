"""What changes from one frame to the next: where nothing does, nothing is occluded, and no flow is needed.

All constants were chosen on real clips. They are free to choose, but each of them changes the masks.
"""

import cv2
import numpy as np

from maskgen.extraction.frames import grey, half_size

WINDOW = 5  # half-size px, side of the square over which grey levels are averaged
CHANGE = 5  # grey levels of that average, more than the noise of a film
AROUND = 16  # half-size px, side of a square
LEAST = 8  # changed pixels in that square, fewer are noise
MARGIN = 8  # half-size px, added around all that changes
SMALLEST = 64  # half-size px, side of a box, which a flow needs
MOST = 0.95  # share of the frame above which leaving out the rest saves too little
CORNER = 3e-4  # smaller eigenvalue of the structure tensor at a corner, for grey levels from 0 to 1
CORNERS = 50  # quarter-size px at corners, fewer do not show whether the camera stands still
STILL = 0.1  # quarter-size px by which they may move, to judge by the change of their grey levels
WHOLE = slice(None), slice(None)


def changed_share(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the pixels whose grey level changes by more than CHANGE, after smoothing. uint8 (H, W, 3) each.

    Of 436 pairs of 49 films, 39 have a share below 0.004. The flow of one of these gives a hole of more than 0.002 of
    the image.
    """
    if np.array_equal(first, second):  # films repeat frames
        return 0
    change = _change(*(half_size(grey(frame)) for frame in (first, second)))
    return np.count_nonzero(change) / change.size


def changing_part(first: np.ndarray, second: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a box around all that changes, if the camera stands still; otherwise all of them.

    first, second: uint8 (H, W, 3), RGB. The camera stands still if the corners outside the box do. Plain walls and
    straight edges do not tell. The box begins at even numbers, so that it has the same pixels at half the size.
    """
    small, other = (half_size(grey(frame)) for frame in (first, second))
    change = _change(small, other).astype(np.float32)
    dense = cv2.blur(change, (AROUND, AROUND)) >= (LEAST - 0.5) / AROUND**2  # the mean of floats is not exact
    x, y, width, height = cv2.boundingRect(dense.view(np.uint8))
    top, bottom = _with_margin(y, y + height, small.shape[0])
    left, right = _with_margin(x, x + width, small.shape[1])
    if not width or (bottom - top) * (right - left) > MOST * small.size:
        return WHOLE
    quarter, other = map(half_size, (small, other))
    corner = cv2.cornerMinEigenVal(quarter, blockSize=3, ksize=3) > CORNER
    corner[top // 2 : bottom // 2, left // 2 : right // 2] = False
    slopes = [cv2.Sobel(quarter, cv2.CV_32F, *axis, scale=1 / 8)[corner] for axis in ((1, 0), (0, 1))]  # per px
    if len(slopes[0]) < CORNERS or cv2.absdiff(quarter, other)[corner].sum() > STILL * np.hypot(*slopes).sum():
        return WHOLE
    return _doubled(top, bottom, small.shape[0]), _doubled(left, right, small.shape[1])


def _change(small, other):
    """Which pixels of two frames in grey at half the size differ. bool (h, w)."""
    return cv2.absdiff(*(cv2.blur(one, (WINDOW, WINDOW)) for one in (small, other))) > CHANGE


def _with_margin(start, stop, size):
    """The range with MARGIN to both sides, and no shorter than SMALLEST, as far as the frame goes."""
    return max(0, min(start - MARGIN, size - SMALLEST)), min(max(stop + MARGIN, SMALLEST), size)


def _doubled(start, stop, size):
    """The same range at twice the size; one that ends at the edge of the frame does so there too."""
    return slice(2 * start, 2 * stop if stop < size else None)
