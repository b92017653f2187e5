"""What is measured of a mask sequence, and the classes: hole ratio x motion."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from maskgen.categories import interval_of
from maskgen.sequences.settings import MOTION_EDGES, MOTIONS, REFERENCE
from maskgen.settings import EDGES


class Measurement(NamedTuple):
    """Hole ratios and motion of a sequence."""

    ratios: np.ndarray  # float64 (T,), hole pixels / all pixels of each frame
    speed: float  # px a frame, of the outline
    never_seen: float  # share of the pixels that are holes in all frames

    @property
    def ratio(self) -> float:
        """Mean hole ratio."""
        return float(self.ratios.mean())


def measure(holes: np.ndarray) -> Measurement:
    """Measure a sequence of holes, bool (T, H, W)."""
    pixels = holes[0].size
    ratios = np.array([cv2.countNonZero(hole.view(np.uint8)) for hole in holes]) / pixels
    never_seen = np.count_nonzero(np.logical_and.reduce(holes)) / pixels
    return Measurement(ratios, outline_speed(holes), never_seen)


def outline_speed(holes: Iterable[np.ndarray]) -> float:
    """How fast the outline of a hole moves, in px a frame. 0 without any outline.

    holes: bool (T, H, W), or frames, bool (H, W) each, of which two are held at a time.

    2 * (pixels that change from one frame to the next) / (pairs of neighbouring pixels of which one is a hole), each
    summed over the sequence. If a hole with an outline in all directions moves by v px a frame, this is v: for each px
    of outline 2 / pi * v pixels change, and there are 4 / pi such pairs. It depends on the masks alone, so masks of any
    origin have it. It is smaller for holes that are narrower than the motion.
    """
    changed = outline = 0
    frames = iter(holes)
    before = next(frames)
    pairs_before = _cut_pairs(before)
    for hole in frames:
        pairs = _cut_pairs(hole)
        changed += _count(hole ^ before)
        outline += (pairs + pairs_before) / 2
        before, pairs_before = hole, pairs
    return 2 * changed / outline if outline else 0.0


def _cut_pairs(hole):
    """Pairs of horizontal or vertical neighbours of which exactly one is a hole pixel."""
    return _count(hole[1:] ^ hole[:-1]) + _count(hole[:, 1:] ^ hole[:, :-1])


def _count(plane):
    return cv2.countNonZero(plane.view(np.uint8))


def unit(height: int, width: int) -> float:
    """How much longer lengths are in a frame than in one of 432x240: the root of the ratio of the areas."""
    return (height * width / (REFERENCE[0] * REFERENCE[1])) ** 0.5


def motion_of(speed: float, shape: tuple[int, int]) -> str:
    """The class "still", "slow" or "fast" of a speed in px a frame. shape: (height, width) of the frames."""
    return MOTIONS[int(np.digitize(speed / unit(*shape), MOTION_EDGES, right=True))]


def category(ratio: float, speed: float, shape: tuple[int, int]) -> str:
    """Class of a sequence, such as `0.1-0.2_slow`; empty if its mean ratio lies outside all intervals."""
    interval = interval_of(ratio)
    return "" if interval is None else _name(interval, motion_of(speed, shape))


def _name(interval, motion):
    return f"{EDGES[interval]:g}-{EDGES[interval + 1]:g}_{motion}"


CATEGORIES = tuple(_name(i, motion) for motion in MOTIONS for i in range(len(EDGES) - 1))


def describe(holes: np.ndarray, pictures: list[bytes]) -> dict:
    """The measured columns of a sequence. holes: bool (T, H, W). pictures: their files, for `sha256`."""
    size = measure(holes)
    shape = holes.shape[1:]
    return {
        "category": category(size.ratio, size.speed, shape),
        "frames": str(len(holes)),
        "width": str(shape[1]),
        "height": str(shape[0]),
        "hole_ratio": f"{size.ratio:.6f}",
        "lowest_ratio": f"{size.ratios.min():.6f}",
        "highest_ratio": f"{size.ratios.max():.6f}",
        "speed": f"{size.speed:.3f}",
        "never_seen": f"{size.never_seen:.6f}",
        "sha256": hashlib.sha256(b"".join(pictures)).hexdigest(),
    }
