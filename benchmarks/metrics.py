"""Time of the metrics on one 512 x 512 pair, and what a run costs beyond its methods and metrics.

Run `python benchmarks/metrics.py [--pairs 96] [--images FOLDER]`, by default on scikit-image's photos. Holes are
free-form strokes of all classes; one process, one thread. It prints the two tables of docs/benchmark.md.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from evaluation import benchmark, experiments, metrics
from evaluation.benchmark import Sources
from evaluation.methods import METHODS, parse_all
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
        metrics.settle()
        try:
            metric.function(result, truth, hole)
        except ValueError as error:
            print(f"{name:12} {error}")
            continue
        metrics.settle()
        # A copy of the result each time, as in a run: nothing of it may be remembered.
        taken = 1000 * timed(lambda metric=metric: metric.function(result.copy(), truth, hole))
        print(f"{name:12} {taken:9.1f}")
        total += taken if not metric.needs else 0
    print(f"without networks, in total {total:.1f} ms")


def cpu() -> float:
    """CPU seconds of this process and of its ended children: unlike wall time it does not mind a busy machine."""
    return sum(os.times()[:4])


def overhead(pairs, sources, config, names):
    """CPU time of runs of one process against the time that their methods and metrics take by themselves."""
    print("\nmethods       run, CPU s   methods   metrics   overhead")
    for chosen in names:
        functions, filling, scoring = [METHODS[name] for name in chosen], 0.0, 0.0
        for pair in pairs:
            truth, image, hole = benchmark.load_pair(pair, sources, config)
            for function in functions:
                start = cpu()
                result = function(image, hole)
                middle = cpu()
                metrics.score(config.metrics, np.where(hole[..., None], result, truth), truth, hole)
                filling, scoring = filling + middle - start, scoring + cpu() - middle
        benchmark._truth.cache_clear()  # the run reads every image anew
        with tempfile.TemporaryDirectory() as folder:
            start = cpu()
            benchmark.run(parse_all(chosen), pairs, sources, Path(folder) / "out", config, workers=1)
            total = cpu() - start
        share = (total - filling - scoring) / total
        print(f"{'+'.join(chosen):12} {total:11.2f} {filling:9.2f} {scoring:9.2f} {share:10.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--images", type=Path)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    config = BenchmarkConfig(per_class=-(-asked.pairs // 12))
    with tempfile.TemporaryDirectory() as folder:
        pairs = experiments.drawn(asked.images, Path(folder), "free-form", config)
        sources = Sources(benchmark.image_folder(asked.images), Path(folder))
        truth, image, hole = benchmark.load_pair(pairs[len(pairs) // 2], sources, config)
        metric_times(METHODS["telea"](image, hole), truth, hole)
        overhead(pairs, sources, config, (["telea"], ["telea", "ns"]))


if __name__ == "__main__":
    main()
