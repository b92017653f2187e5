"""The work on one pair: read it, let the methods fill it, composite and score the results.

Nothing here imports pandas: workers start in half the time without it.
"""

import io
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from evaluation import metrics
from evaluation.methods import Method, registry
from evaluation.methods.process import ChildProcess, InProcess, WorkerProcess
from evaluation.methods.served import ServedProgram
from evaluation.pairs import Pair, Sources, jpeg, load_pair
from evaluation.settings import BATCH, BenchmarkConfig
from maskgen.runtime import files
from maskgen.runtime.memory import keep_memory
from maskgen.runtime.parallel import cores

TRUTH = "truth"  # label of the true images, for metrics that compare sets of results with sets of true images


@dataclass(frozen=True)
class Job:
    """All that a worker has to know about a run, besides the pairs."""

    methods: tuple[Method, ...]
    sources: Sources
    config: BenchmarkConfig
    timeout: float  # s that a method may take for one image
    pictures: Path | None  # folder for the results as JPEG; None keeps none
    quality: int  # of the JPEGs
    shared: Path | None = None  # folder for results on their way to other machines; without one, tasks carry them


@dataclass(frozen=True)
class Call:
    """A function of a task together with its job, as one object that can be pickled."""

    function: Callable
    job: Job

    def __call__(self, task):
        keep_memory()
        return self.function(self.job, task)

    def close(self):
        """End the processes of methods on this machine, except those that another run is using."""
        for key, process in list(_processes.items()):
            if process.lock.acquire(blocking=False):
                _processes.pop(key, None)
                process.close()
                process.lock.release()


Task = tuple[Pair, tuple[str, ...], dict[str, np.ndarray | Path | str]]  # see `fill_and_score`


def fill_and_score(job: Job, tasks: list[Task]) -> list[dict[str, dict]]:
    """Fill pairs by each method that has no result for them yet, and score the results.

    A task is a pair, the labels of the methods that fill it here, and the results of others by label, as `fill_batches`
    makes them. Returns one dict of journal rows by label for each pair. While the process of a method is busy, this one
    scores the previous result.
    """
    rows, previous = [], None  # previous: the arguments of `_score` for a result that has no score yet
    for pair, labels, results in tasks:
        truth, image, hole = load_pair(pair, job.sources, job.config)
        rows.append({TRUTH: _truth_row(job, pair, truth)} if TRUTH in labels else {})
        for label, result in results.items():
            result = np.load(result) if isinstance(result, Path) else result
            _score(job, rows[-1], pair, label, result, truth, hole)
        for method in job.methods:
            if method.label in labels:
                with process_of(method, job, 1).filling([(pair.pair, image, hole)]) as filled:
                    if previous:
                        _score(job, *previous)
                previous = rows[-1], pair, method.label, filled[0], truth, hole
    if previous:
        _score(job, *previous)
    return rows


def fill_batches(
    processes: dict[str, ChildProcess | InProcess], job: Job, pairs: list[Pair], done: dict[str, set[str]]
) -> Iterator[tuple[Pair, dict]]:
    """Fill the pairs by methods that take all pairs. Yields pairs with their results by label; each is read once.

    processes: of the methods, by label. done: names of pairs that have a result already, by label. Neighbours in a
    batch can change the last bit of a result, so a method's batches are those of a run that was never interrupted: one
    with a pair left to do is filled as a whole.
    """
    counts = {label: getattr(process, "batch", BATCH) for label, process in processes.items()}
    together = math.lcm(*counts.values())  # batches of all methods start and end here
    for first in range(0, len(pairs), together):
        block = pairs[first : first + together]
        if all(pair.pair in done[label] for label in processes for pair in block):
            continue
        inputs = [(pair.pair, *load_pair(pair, job.sources, job.config)[1:]) for pair in block]
        found = {pair.pair: {} for pair in block}
        for label, process in processes.items():
            for begin in range(0, len(block), counts[label]):
                batch = slice(begin, begin + counts[label])
                if all(pair.pair in done[label] for pair in block[batch]):
                    continue
                for pair, result in zip(block[batch], process.fill(inputs[batch]), strict=True):
                    if pair.pair not in done[label]:
                        found[pair.pair][label] = _shared(job, pair, label, result)
        yield from ((pair, found[pair.pair]) for pair in block if found[pair.pair])


def _score(job, rows, pair, label, result, truth, hole):
    """Add the journal row of a result to rows, and save its picture. result: an array, or an error message."""
    row = {"pair": pair.pair, "hole_ratio": round(np.count_nonzero(hole) / hole.size, 6)}
    if isinstance(result, str):
        rows[label] = {**row, "error": result}
        return
    if not job.config.raw:
        result = composite(result, truth, hole)
    if job.pictures:
        _save_picture(picture_file(job, label, pair), result, job.quality)
    names = job.config.metrics
    rows[label] = {**row, "error": "", **metrics.score(names, result, truth, hole), **metrics.vectors(names, result)}


def composite(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The result in the hole, the true pixels elsewhere. uint8 (H, W, 3) twice, bool (H, W) -> uint8 (H, W, 3)."""
    return cv2.copyTo(result, hole.view(np.uint8), truth.copy())


def _truth_row(job, pair, truth):
    return {"pair": pair.pair, "error": "", **metrics.vectors(job.config.metrics, truth)}


_processes = {}  # running methods of this process, separate for each thread, as a Dask worker has several


def process_of(method: Method, job: Job, threads: int) -> ChildProcess | InProcess:
    """This thread's process of a method, or the method itself if it needs none. Ends those of earlier runs."""
    # Super-resolution scores every pixel, but keeps those of the small image, as in the paper.
    raw = job.config.raw and not job.config.factor
    run = raw, job.timeout, job.config.common_size, threading.get_ident()
    if (method, *run) not in _processes:
        for other in list(_processes):
            if other[-1] == run[-1] and (other[0] not in job.methods or other[1:] != run):
                _processes.pop(other).close()
        if method.in_process:
            _processes[method, *run] = InProcess(registry.load(method), job.timeout)
        elif method.kind == "serve":
            _processes[method, *run] = ServedProgram(method, job.timeout)
        else:
            _processes[method, *run] = WorkerProcess(
                method, raw=raw, threads=threads, timeout=job.timeout, size=job.config.common_size
            )
    return _processes[method, *run]


def started_methods(job: Job, unfinished: set[str], *, many: bool) -> tuple[Method, ...]:
    """Start the methods that have work to do: one that cannot start raises before anything is written.

    unfinished: their labels. many: other processes will do the work of methods that are not serial. Returns the methods
    of the job with what is known now about functions of users.
    """
    methods = []
    for method in job.methods:
        if method.label in unfinished and not method.always_starts:
            process = process_of(method, job, cores() if method.serial or method.kind == "py" else 1)
            process.start()
            if method.kind == "py":
                method = replace(method, batched=process.batched)
            if not method.serial and (many or method.kind == "py"):
                process.close()  # a model in it would be a copy too many
                process.threads = 1  # should it be started again
        methods.append(method)
    return tuple(methods)


def close_processes() -> None:
    """End every method that runs for this process."""
    for key in list(_processes):
        _processes.pop(key).close()


def _shared(job, pair, label, result):
    """A result as its task carries it: on a cluster the file in the shared folder into which it is written."""
    if job.shared is None or isinstance(result, str):
        return result
    path, data = shared_file(job, pair.pair, label), io.BytesIO()
    np.save(data, result)
    files.write_whole(path, data.getvalue())
    return path


def shared_file(job: Job, pair: str, label: str) -> Path:
    """The file of a result on its way to another machine."""
    return job.shared / f"{label}-{pair}.npy"


def picture_file(job: Job, label: str, pair: Pair) -> Path:
    """The JPEG of a result."""
    return job.pictures / label / pair.category / f"{pair.pair}.jpg"


def _save_picture(path, image, quality):
    data = jpeg(image, quality)
    try:
        files.write_whole(path, data)
    except FileNotFoundError:  # the first picture of its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, data)
