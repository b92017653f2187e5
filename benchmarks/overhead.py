"""What a run costs beyond its methods and metrics: reading, talking to the methods' processes, pictures, journal.

Run `python benchmarks/overhead.py [--pairs 1200] [--images FOLDER] [--masks FOLDER] [--run telea:1 --run telea+ns:2]`,
by default on scikit-image's photos and drawn free-form holes of all classes. A run is named by its methods and its
workers. It prints a table of docs/benchmark.md.

What else does a run do? Every call of a method and every scoring of a result is timed where it happens, inside the run,
as processor time, since they go on beside each other. `beyond` is the rest of the processor time of all processes,
the start of each included, and `by the clock` what wall time x workers is above those calls: with one worker it can be
negative, as a result is scored while the next is made. What would the same calls take without a benchmark around
them? As many bare processes as there are workers, at once, since they share caches, memory and the clock, and with
malloc set as in a run, load their pairs and time nothing but the calls; `against bare` is wall time x workers over the
sum of those.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2

from evaluation import benchmark, experiments, metrics, pairing, scoring
from evaluation.methods import METHODS, parse_all
from evaluation.pairs import Sources, load_pair
from evaluation.settings import BenchmarkConfig
from maskgen.runtime import parallel
from maskgen.runtime.memory import keep_memory

RUNS = ("telea:1", "ns:1", "telea+ns:1", "telea:2")
TIMES = "OVERHEAD_TIMES"  # environment variable: the folder in which every process notes its times
TIMED = """
import os
import time
from functools import cache
from pathlib import Path

from evaluation import methods


@cache
def notes(what):
    return Path(os.environ["OVERHEAD_TIMES"], f"{what}-{os.getpid()}").open("a", buffering=1)


def note(what, seconds):
    notes(what).write(f"{seconds}\\n")


def timed(function):
    def call(image, hole):
        start = time.thread_time()
        result = function(image, hole)
        note("methods", time.thread_time() - start)
        note("all", time.process_time())
        return result

    return call


@cache
def time_all():
    for name, function in list(methods.METHODS.items()):
        methods.METHODS[name] = timed(function)
"""


def noted(what) -> float:
    """All seconds that any process wrote down."""
    return sum(float(line) for path in Path(os.environ[TIMES]).glob(f"{what}-*") for line in path.open())


def timed_fill_and_score(job, task):
    """What a worker does, with its metrics timed, and the methods that need no process of their own."""
    from timed import note, time_all

    from evaluation import metrics

    time_all()
    plain = metrics.score

    def timed(*arguments):
        start = time.thread_time()
        found = plain(*arguments)
        note("metrics", time.thread_time() - start)
        return found

    metrics.score = timed
    try:
        return scoring.fill_and_score(job, task)
    finally:
        metrics.score = plain
        note("all", time.process_time())


def plug_in(folder):
    """See to it that every Python process which starts with our path times our methods."""
    (folder / "timed.py").write_text(TIMED)
    (folder / "sitecustomize.py").write_text("import timed\n\ntimed.time_all()\n")
    sys.path.insert(0, str(folder))


def bare(names, sources, config, pairs) -> float:
    """Seconds that the methods and the metrics take on pairs in this process, which does nothing else but read them."""
    cv2.setNumThreads(1)
    keep_memory()
    seconds = 0.0
    for pair in pairs:
        truth, image, hole = load_pair(pair, sources, config)
        for name in names:
            start = time.perf_counter()
            result = METHODS[name](image, hole)
            seconds += time.perf_counter() - start
            result = cv2.copyTo(result, hole.astype("uint8"), truth.copy())
            start = time.perf_counter()
            metrics.score(config.metrics, result, truth, hole)
            seconds += time.perf_counter() - start
    return seconds


def overhead(names, workers, pairs, sources, config):
    """Print one row of the table."""
    shares = [pairs[first::workers] for first in range(workers)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        alone = sum(pool.map(partial(bare, names, sources, config), shares))
    methods = parse_all(names)
    before = noted("methods"), noted("metrics")
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), time.process_time() + of_others()
        scored = benchmark.run(methods, pairs, sources, Path(folder) / "out", config, workers=workers)
        run = workers * (time.perf_counter() - start)
        used = time.process_time() + of_others() - used
        parallel.end_workers()  # the next run starts its own
    filling, scores = noted("methods") - before[0], noted("metrics") - before[1]
    if not filling:
        raise SystemExit(f"no method came through: {scored['error'].iloc[0]}")
    inside = filling + scores
    seconds = "".join(f"{value:11.1f}" for value in (run, used, filling, scores, alone))
    shares = "".join(f"{value / base - 1:14.1%}" for value, base in ((used, inside), (run, inside), (run, alone)))
    print(f"{'+'.join(names):12} {workers:7}{seconds}{shares}", flush=True)


def of_others() -> float:
    """Seconds of all processes that a run has started, since their own start."""
    notes = [path for path in Path(os.environ[TIMES]).glob("all-*") if path.name != f"all-{os.getpid()}"]
    return sum(float(path.read_text().split()[-1]) for path in notes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--run", action="append", metavar="METHODS:WORKERS")
    asked = parser.parse_args()
    runs = [(text.split(":")[0].split("+"), int(text.split(":")[1])) for text in asked.run or RUNS]
    config = BenchmarkConfig(per_class=-(-asked.pairs // 12))
    benchmark.fill_and_score = timed_fill_and_score
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as times:
        os.environ[TIMES] = times
        plug_in(Path(folder))
        if asked.masks:
            pairs = pairing.make_pairs(asked.images, asked.masks, config)
        else:
            drawing = experiments.drawn_pairs(asked.images, "free-form", config, out=Path(folder))
            pairs = drawing.pairs
            benchmark.write_inputs(Path(folder), pairs, drawing.files)
        sources = Sources(pairing.image_folder(asked.images), asked.masks or Path(folder))
        print(f"{len(pairs)} pairs")
        heads = "".join(f"{head:>11}" for head in ("run, s", "used, s", "methods, s", "metrics, s", "bare, s"))
        print(f"methods      workers{heads}" + "".join(f"{h:>14}" for h in ("beyond", "by the clock", "against bare")))
        for names, workers in runs:
            overhead(names, workers, pairs, sources, config)


if __name__ == "__main__":
    main()
