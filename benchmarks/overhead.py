"""What a run costs beyond its methods and metrics: reading, talking to the methods' processes, pictures, journal.

Run `python benchmarks/overhead.py [--pairs 1200] [--images FOLDER] [--masks FOLDER] [--run telea --run telea+ns:2]`, by
default on scikit-image's photos and drawn free-form holes of all classes. A run is named by its methods and its
workers. Nothing else heavy may run meanwhile. It prints a table of docs/benchmark.md.

The methods and metrics alone are timed by as many busy processes as the run has workers, on the same pairs: one half of
them before the run and the other after it. Both sides are wall time times processes, and the start of every process
counts as the run's.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from evaluation import benchmark, experiments, metrics
from evaluation.methods import METHODS, parse_all
from evaluation.pairs import Sources, load_pair
from evaluation.settings import BenchmarkConfig
from maskgen import parallel

RUNS = ("telea:1", "ns:1", "telea+ns:1", "telea:2")


def alone(names, sources, config, pairs) -> tuple[float, float]:
    """Seconds of the methods and of the metrics on pairs that have been read already."""
    filling = scoring = 0.0
    for pair in pairs:
        truth, image, hole = load_pair(pair, sources, config)
        for name in names:
            start = time.perf_counter()
            result = METHODS[name](image, hole)
            filled = time.perf_counter()
            result = np.where(hole[..., None], result, truth)
            composited = time.perf_counter()
            metrics.score(config.metrics, result, truth, hole)
            filling, scoring = filling + filled - start, scoring + time.perf_counter() - composited
    return filling, scoring


def together(names, sources, config, pairs, workers) -> np.ndarray:
    """The same in several processes at once, summed over them."""
    shares = [pairs[i::workers] for i in range(workers)]
    return sum(map(np.array, parallel.run(partial(alone, names, sources, config), shares, workers=workers)))


def overhead(names, workers, pairs, sources, config):
    """Print one row of the table."""
    before = together(names, sources, config, pairs[::2], workers)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        benchmark.run(parse_all(names), pairs, sources, Path(folder) / "out", config, workers=workers)
        run = workers * (time.perf_counter() - start)
    filling, scoring = before + together(names, sources, config, pairs[1::2], workers)
    share = run / (filling + scoring) - 1
    print(f"{'+'.join(names):12} {workers:7} {run:8.1f} {filling:10.1f} {scoring:10.1f} {share:10.1%}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--run", action="append", metavar="METHODS:WORKERS")
    asked = parser.parse_args()
    config = BenchmarkConfig(per_class=-(-asked.pairs // 12))
    with tempfile.TemporaryDirectory() as folder:
        if asked.masks:
            pairs = benchmark.make_pairs(asked.images, asked.masks, config)
        else:
            pairs = experiments.drawn(asked.images, Path(folder), "free-form", config)
        sources = Sources(benchmark.image_folder(asked.images), asked.masks or Path(folder))
        print(f"{len(pairs)} pairs\nmethods      workers   run, s methods, s metrics, s   overhead")
        for run in asked.run or RUNS:
            names, _, workers = run.partition(":")
            overhead(names.split("+"), int(workers or 1), pairs, sources, config)


if __name__ == "__main__":
    main()
