"""What a worker does with a pair: read it, let the methods fill it, score what comes back.

Nothing here imports pandas: a worker is ready in half the time without it.
"""

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from evaluation import metrics
from evaluation.methods import Method
from evaluation.methods.process import Hand, Here
from evaluation.pairs import Pair, Sources, jpeg, load_pair
from evaluation.settings import BenchmarkConfig
from maskgen.runtime import files
from maskgen.runtime.memory import keep_memory

TRUTH = "truth"  # stands among the methods where a metric compares sets of results with sets of true images


@dataclass(frozen=True)
class Job:
    """What a worker must know of a run, besides the pair."""

    methods: tuple[Method, ...]
    sources: Sources
    config: BenchmarkConfig
    timeout: float
    pictures: Path | None
    quality: int
    shared: Path | None = None  # folder for pixels on their way to other machines; without one tasks carry them


_hands = {}  # of this process: methods that are running, for each thread its own, since a Dask worker may have several


def hand(method: Method, job: Job, threads: int) -> Hand | Here:
    """This thread's process of a method; it is started by its first pair, and those of earlier runs end.

    A plain method works in this process.
    """
    # Super-resolution scores every pixel, but the small image's own stay as they are, as in the paper.
    raw = job.config.raw and not job.config.factor
    how = raw, job.timeout, job.config.size, threading.get_ident()
    if (method, *how) not in _hands:
        for other in [other for other in list(_hands) if other[-1] == how[-1]]:
            if other[0] not in job.methods or other[1:] != how:
                _hands.pop(other).close()  # of an earlier run
        if method.plain:
            _hands[method, *how] = Here(method, job.timeout)
        else:
            _hands[method, *how] = Hand(method, raw=raw, threads=threads, timeout=job.timeout, size=job.config.size)
    return _hands[method, *how]


def close_hands() -> None:
    """End every method that runs for this process."""
    for key in list(_hands):
        _hands.pop(key).close()


@dataclass(frozen=True)
class Call:
    """A function of a task that pickles together with the job."""

    function: Callable
    job: Job

    def __call__(self, task):
        keep_memory()
        return self.function(self.job, task)

    def close(self):
        """Leave no method running on a machine that others use as well, but those that another run has use of."""
        for key, running in list(_hands.items()):
            if running.turn.acquire(blocking=False):
                _hands.pop(key, None)
                running.close()
                running.turn.release()


def fill_and_score(job: Job, task: list[tuple[Pair, tuple[str, ...]]]) -> list[dict[str, dict]]:
    """Let the methods that still lack a pair fill it, one after the other: a journal row for each, pair by pair.

    While a method's process is busy, this one scores what the last has made.
    """
    rows, waiting = [], []  # waiting: at most one result
    for pair, lacking in task:
        truth, image, hole = load_pair(pair, job.sources, job.config)
        rows.append({TRUTH: _of_truth(job, pair, truth)} if TRUTH in lacking else {})
        for method in job.methods:
            if method.label in lacking:
                with hand(method, job, 1).filling([(pair.pair, image, hole)]) as results:
                    _score_all(job, waiting)
                waiting.append((rows[-1], pair, method.label, results[0], truth, hole))
    _score_all(job, waiting)
    return rows


def _score_all(job, waiting):
    while waiting:
        row, pair, label, *arrays = waiting.pop()
        row[label] = _score(job, pair, label, *arrays)


def _of_truth(job, pair, truth):
    return {"pair": pair.pair, "error": "", **metrics.vectors(job.config.metrics, truth)}


def lay_out(job: Job, pair: Pair, label: str, result: np.ndarray | str) -> tuple[Pair, str, np.ndarray | Path | str]:
    """The task of scoring what a network has made of a pair; its pixels go into the shared folder if there is one."""
    if job.shared is None or isinstance(result, str):
        return pair, label, result
    path, data = laid_out(job, pair.pair, label), io.BytesIO()
    np.save(data, result)
    files.write_whole(path, data.getvalue())
    return pair, label, path


def laid_out(job: Job, pair: str, label: str) -> Path:
    """Where a result lies on its way to another machine."""
    return job.shared / f"{label}-{pair}.npy"


def score_filled(job: Job, task: tuple[Pair, str, np.ndarray | Path | str]) -> dict[str, dict]:
    """Score what a network has already made of a pair. The task: as `lay_out` gives it."""
    pair, label, result = task
    if isinstance(result, Path):
        result = np.load(result)
    truth, _, hole = load_pair(pair, job.sources, job.config)
    return {label: _score(job, pair, label, result, truth, hole)}


def _score(job, pair, label, result, truth, hole):
    row = {"pair": pair.pair, "hole_ratio": round(np.count_nonzero(hole) / hole.size, 6)}
    if isinstance(result, str):
        return {**row, "error": result}
    if not job.config.raw:
        result = cv2.copyTo(result, hole.view(np.uint8), truth.copy())
    if job.pictures:
        _save_picture(picture_of(job, label, pair), result, job.quality)
    names = job.config.metrics
    return {**row, "error": "", **metrics.score(names, result, truth, hole), **metrics.vectors(names, result)}


def picture_of(job: Job, label: str, pair: Pair) -> Path:
    """Where the JPEG of a result is kept."""
    return job.pictures / label / pair.category / f"{pair.pair}.jpg"


def _save_picture(path, image, quality):
    data = jpeg(image, quality)
    try:
        files.write_whole(path, data)
    except FileNotFoundError:  # the first of its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, data)
