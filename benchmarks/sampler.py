"""Time of a random training mask, compared with drawing random lines, discs and ellipses with OpenCV in the same run.

    python benchmarks/sampler.py                # the raw masks that come with the package
    python benchmarks/sampler.py masks/raw      # others

First on one core: "first" while the sampler reads each file for the first time, "cached" afterwards. Then in a torch
DataLoader of two workers, twice: the sampler, the test masks of MaskDataset, and the baseline. The baseline is what
training code without mask files usually draws.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np

from maskgen import MaskDataset, MaskSampler

BATCH = 32  # masks of a batch


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


class Drawn:
    """The baseline as a data set for a data loader."""

    def __init__(self, count, size):
        self.count, self.size = count, size

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return lines_and_ellipses_in_range(np.random.default_rng(i), self.size)


class First:
    """The first `count` items of a data set; one that ends begins again."""

    def __init__(self, data, count, ends=False):
        self.data, self.count, self.ends = data, count, ends

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return self.data[i % len(self.data) if self.ends else i]


def loading_seconds(data):
    """Time of two passes of a DataLoader with two workers, each without the start of the workers."""
    from torch.utils.data import DataLoader

    spent = []
    loader = DataLoader(data, batch_size=BATCH, num_workers=2, persistent_workers=True, prefetch_factor=4)
    next(iter(DataLoader(data, batch_size=1)))  # imports, and the index of an archive, are not counted
    for _ in range(2):
        begin = time.perf_counter()
        for _ in loader:
            pass
        spent.append(time.perf_counter() - begin)
    return spent


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("masks", type=Path, nargs="?", help="raw masks [default: those of the package]")
    parser.add_argument("--count", type=int, default=2000, help="masks of each kind")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--cpu", action="store_true", help="measure processor time, for a busy machine; one core only")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clock = time.process_time if options.cpu else time.perf_counter
    rng = np.random.default_rng(0)
    test = MaskDataset("v1")
    baseline = seconds(lambda i: lines_and_ellipses_in_range(rng, options.size), options.count, clock)
    rows = [("lines and ellipses", baseline)]
    for name, uniform in (("sampler", False), ("sampler, uniform ratios", True)):
        sampler = MaskSampler(options.masks, options.size, uniform=uniform)
        rows.append((f"{name}, first", seconds(sampler.__getitem__, options.count, clock)))
        rows.append((f"{name}, cached", seconds(sampler.__getitem__, options.count, clock)))
    rows.append(("MaskDataset, 512 px", seconds(lambda i: test[i % len(test)], options.count, clock)))
    print(f"{options.size} px, {options.count} masks, one core, {len(sampler)} raw masks")
    print_rows(rows, options.count, baseline)
    if options.cpu:
        return
    print(f"in a DataLoader of two workers, batches of {BATCH}")
    rows = []
    for name, data in (
        ("lines and ellipses", Drawn(options.count, options.size)),
        ("sampler", First(MaskSampler(options.masks, options.size), options.count)),
        ("MaskDataset, 512 px", First(test, options.count, ends=True)),
    ):
        first, again = loading_seconds(data)
        rows += [(f"{name}, first", first), (f"{name}, again", again)]
    print_rows(rows, options.count, rows[1][1])


def print_rows(rows, count, baseline):
    """Print a line for each (name, seconds)."""
    for name, spent in rows:
        print(
            f"{name:<32}{1e3 * spent / count:8.3f} ms{count / spent:8.0f} masks/s"
            f"{spent / baseline:8.2f} x lines and ellipses"
        )


if __name__ == "__main__":
    main()
