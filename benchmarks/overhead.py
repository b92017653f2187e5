"""What a run costs beyond its methods and metrics: reading, talking to the methods' processes, pictures, journal.

Run `python benchmarks/overhead.py [--pairs 1200] [--images FOLDER] [--masks FOLDER] [--run telea:1 --run telea+ns:2]`,
by default on scikit-image's photos and drawn free-form holes of all classes. A run is named by its methods and its
workers. It prints a table of docs/benchmark.md.

Every call of a method and every scoring of a result is timed where it happens, inside the run: both sides of the
ratio have the same pairs, the same number of busy workers and the same neighbours on the machine. All else of
wall time x workers is overhead, the start of every process and all waiting included.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from evaluation import benchmark, experiments, scoring
from evaluation.methods import parse_all
from evaluation.pairs import Sources
from evaluation.settings import BenchmarkConfig

RUNS = ("telea:1", "ns:1", "telea+ns:1", "telea:2")
TIMES = "OVERHEAD_TIMES"  # environment variable: the folder in which every process notes its times
PACKAGE = """
import os
import time
from pathlib import Path

from evaluation import methods


def note(what, seconds):
    with Path(os.environ["OVERHEAD_TIMES"], f"{what}-{os.getpid()}").open("a") as file:
        file.write(f"{seconds}\\n")


def timed(name):
    function = methods.METHODS[name]

    def call(image, hole):
        start = time.perf_counter()
        result = function(image, hole)
        note("methods", time.perf_counter() - start)
        return result

    return call


"""


def noted(what) -> float:
    """All seconds that any process wrote down."""
    return sum(float(line) for path in Path(os.environ[TIMES]).glob(f"{what}-*") for line in path.open())


def timed_fill_and_score(job, task):
    """What a worker does, with its metrics timed."""
    from timed_methods import note

    from evaluation import metrics

    plain = metrics.score

    def timed(*arguments):
        start = time.perf_counter()
        found = plain(*arguments)
        note("metrics", time.perf_counter() - start)
        return found

    metrics.score = timed
    try:
        return scoring.fill_and_score(job, task)
    finally:
        metrics.score = plain


def plug_in(folder, names):
    """Make timed methods out of ours, as a package of somebody else would bring them."""
    told = folder / "timed_methods-1.0.dist-info"
    told.mkdir()
    (folder / "timed_methods.py").write_text(PACKAGE + "".join(f'{name} = timed("{name}")\n' for name in names))
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: timed-methods\nVersion: 1.0\n")
    points = "".join(f"timed_{name} = timed_methods:{name}\n" for name in names)
    (told / "entry_points.txt").write_text(f"[irregular_masks.methods]\n{points}")
    sys.path.insert(0, str(folder))


def overhead(names, workers, pairs, sources, config):
    """Print one row of the table."""
    methods = parse_all([f"{name}=timed_{name}" for name in names])
    with tempfile.TemporaryDirectory() as folder:
        os.environ[TIMES] = folder
        start = time.perf_counter()
        scored = benchmark.run(methods, pairs, sources, Path(folder) / "out", config, workers=workers)
        run = workers * (time.perf_counter() - start)
        filling, scores = noted("methods"), noted("metrics")
    if not filling:
        raise SystemExit(f"no method came through: {scored['error'].iloc[0]}")
    share = run / (filling + scores) - 1
    print(f"{'+'.join(names):12} {workers:7} {run:8.1f} {filling:10.1f} {scores:10.1f} {share:10.1%}", flush=True)


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
    with tempfile.TemporaryDirectory() as folder:
        plug_in(Path(folder), {name for names, _ in runs for name in names})
        if asked.masks:
            pairs = benchmark.make_pairs(asked.images, asked.masks, config)
        else:
            pairs = experiments.drawn(asked.images, Path(folder), "free-form", config)
        sources = Sources(benchmark.image_folder(asked.images), asked.masks or Path(folder))
        print(f"{len(pairs)} pairs\nmethods      workers   run, s methods, s metrics, s   overhead")
        for names, workers in runs:
            overhead(names, workers, pairs, sources, config)


if __name__ == "__main__":
    main()
