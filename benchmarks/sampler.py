"""Time of a random training mask, compared with drawing random lines and ellipses with OpenCV in the same run.

    python benchmarks/sampler.py masks/raw

The sampler is timed on one core: "first" while it reads each file for the first time, "cached" afterwards. The baseline
is what training code without mask files usually draws.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from maskgen.sampler import MaskSampler


def lines_and_ellipses(rng, size):
    """Up to 20 random lines, discs and ellipses each, drawn in a colour image as is usual. uint8 (size, size, 3)."""
    hole = np.zeros((size, size, 3), np.uint8)
    thickest, white = max(4, int(0.06 * size)), (255, 255, 255)
    for _ in range(rng.integers(1, 21)):
        begin, end = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(hole, begin, end, white, int(rng.integers(3, thickest)))
    for _ in range(rng.integers(1, 21)):
        cv2.circle(hole, rng.integers(0, size, 2).tolist(), int(rng.integers(3, thickest)), white, -1)
    for _ in range(rng.integers(1, 21)):
        centre, axes = rng.integers(0, size, 2).tolist(), rng.integers(1, size, 2).tolist()
        turn, begin, end = rng.integers(0, 180, 3).tolist()
        cv2.ellipse(hole, centre, axes, turn, begin, end, white, int(rng.integers(3, thickest)))
    return hole


def lines_and_ellipses_in_range(rng, size):
    """The same, drawn again until the hole ratio is in the sampler's range. bool (size, size)."""
    while True:
        hole = lines_and_ellipses(rng, size)
        if 0.01 <= cv2.countNonZero(hole[..., 0]) / size**2 <= 0.6:
            return hole[..., 0] > 0


def seconds(make, count, clock):
    """Time of make(0) to make(count - 1)."""
    begin = clock()
    for i in range(count):
        make(i)
    return clock() - begin


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "masks", type=Path, nargs="?", default=Path("demo/masks/raw"), help="raw masks; make demo makes some"
    )
    parser.add_argument("--count", type=int, default=2000, help="masks of each kind")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--cpu", action="store_true", help="measure processor time, for a busy machine")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clock = time.process_time if options.cpu else time.perf_counter
    rng = np.random.default_rng(0)
    baseline = seconds(lambda i: lines_and_ellipses_in_range(rng, options.size), options.count, clock)
    rows = [("lines and ellipses", baseline)]
    for name, uniform in (("sampler", False), ("sampler, uniform ratios", True)):
        sampler = MaskSampler(options.masks, options.size, uniform=uniform)
        rows.append((f"{name}, first", seconds(sampler.__getitem__, options.count, clock)))
        rows.append((f"{name}, cached", seconds(sampler.__getitem__, options.count, clock)))
    print(f"{options.size} px, {options.count} masks, one core, {len(sampler)} raw masks")
    for name, spent in rows:
        per_mask = spent / options.count
        print(
            f"{name:<32}{1e3 * per_mask:8.3f} ms{1 / per_mask:8.0f} masks/s{spent / baseline:8.2f} x lines and ellipses"
        )


if __name__ == "__main__":
    main()
