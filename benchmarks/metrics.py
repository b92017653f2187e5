"""Time of the metrics on one 512 x 512 pair: a photo of scikit-image with a free-form hole, one process, one thread.

Run `python benchmarks/metrics.py`. It prints what docs/benchmark.md says of them.
"""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from evaluation import benchmark, experiments, metrics, pairing
from evaluation.methods import METHODS
from evaluation.pairs import Sources, load_pair
from evaluation.settings import BenchmarkConfig


def timed(function, *arguments, least=1.0):
    """Median seconds of a call, over at least `least` seconds of calls."""
    taken = []
    while sum(taken) < least or len(taken) < 5:
        start = time.perf_counter()
        function(*arguments)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def metric_times(result, truth, hole):
    """Milliseconds of each metric on one pair; of networks without what they keep of the true image."""
    print("metric        ms a pair")
    total = 0.0
    for name, metric in metrics.METRICS.items():
        metrics.use_one_thread()
        try:
            metric.function(result, truth, hole)
        except ValueError as error:
            print(f"{name:12} {error}")
            continue
        metrics.use_one_thread()
        # A copy of the result each time, as in a run: nothing of it may be remembered.
        taken = 1000 * timed(lambda metric=metric: metric.function(result.copy(), truth, hole))
        print(f"{name:12} {taken:9.1f}")
        total += taken if not metric.needs else 0
    print(f"without networks, in total {total:.1f} ms")


def main():
    cv2.setNumThreads(1)
    config = BenchmarkConfig()
    with tempfile.TemporaryDirectory() as folder:
        drawing = experiments.drawn_pairs(None, "free-form", config, out=Path(folder))
        pairs = drawing.pairs
        benchmark.write_inputs(Path(folder), pairs, drawing.files)
        sources = Sources(pairing.image_folder(None), Path(folder))
        truth, image, hole = load_pair(pairs[len(pairs) // 2], sources, config)
    metric_times(METHODS["telea"](image, hole), truth, hole)


if __name__ == "__main__":
    main()
