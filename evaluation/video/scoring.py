"""The work on one pair: its frames are read, filled and scored one after the other, by all methods together.

Two frames and two results of each method are held at a time, however long a video is. Nothing here imports pandas.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from evaluation import scoring
from evaluation.methods import Method
from evaluation.pairs import jpeg
from evaluation.scoring import composite, process_of
from evaluation.settings import BATCH
from evaluation.video import metrics
from evaluation.video.clips import Clip
from evaluation.video.masks import Masks, first, fitted
from evaluation.video.results import frame_id
from evaluation.video.settings import WARP_ERROR
from evaluation.video.warping import motion, warp_error
from maskgen.runtime import files

TRUTH = scoring.TRUTH  # label of the true frames, whose warping error is the reference


@dataclass(frozen=True)
class Job:
    """All that a worker has to know about a run, besides the pairs."""

    methods: tuple[Method, ...]
    masks: Masks
    names: tuple[str, ...]  # of the metrics
    stills: scoring.Job  # how methods run on single images
    faults: dict[str, dict[str, str]]  # label -> sequence -> why it has no results
    filled: Path  # folder for frames filled by methods that run in one process
    pictures: Path | None  # folder for the results as JPEG; None keeps none


@dataclass(frozen=True)
class Task:
    """A pair, and the methods that have no scores for it."""

    sequence: str
    clip: Clip
    start: int
    frames: int
    size: tuple[int, int]  # px, height and width
    labels: tuple[str, ...]
    errors: dict[str, str] = field(default_factory=dict)  # of methods that have failed already

    def read(self, masks: Masks) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield the name, the true frame, uint8 (H, W, 3), and the hole, bool (H, W), of each frame."""
        truths = self.clip.read(self.start, self.frames, self.size)
        holes = fitted(first(masks.holes(self.sequence), self.frames), self.size)
        for t, (truth, hole) in enumerate(zip(truths, holes, strict=True)):
            yield frame_id(self.sequence, t), truth, hole


class _Row:
    """The scores of one method on a pair, as they grow."""

    def __init__(self, label, names, error=""):
        self.label, self.error, self.before = label, error, None
        self.values = {name: [] for name in names}

    def fail(self, t, reason):
        self.error = f"frame {t}: {reason}"

    def as_dict(self, sequence, ratios):
        """The row of the journal."""
        row = {"sequence": sequence, "error": self.error}
        return row if self.error else {**row, "hole_ratios": ratios, "values": self.values}


def score_pair(job: Job, task: Task) -> dict[str, dict]:
    """Score a pair by the methods of the task: rows of the journals by label.

    A row has the values of every frame: nan in a frame without a hole, where nothing was filled. The warping error of a
    frame is that to the next one.
    """
    names, ratios = job.names, []
    true_before: np.ndarray | None = None
    errors = {label: job.faults.get(label, {}).get(task.sequence, "") for label in task.labels} | task.errors
    rows = [_Row(label, [WARP_ERROR] if label == TRUTH else names, errors[label]) for label in task.labels]
    methods = {method.label: method for method in job.methods}
    if all(row.error for row in rows):
        return {row.label: row.as_dict(task.sequence, []) for row in rows}
    for t, (name, truth, hole) in enumerate(task.read(job.masks)):
        ratios.append(round(np.count_nonzero(hole) / hole.size, 6))
        alive = [row for row in rows if not row.error]
        needs_motion = WARP_ERROR in names and alive
        moves = motion(true_before, truth) if needs_motion and true_before is not None else None
        true_before = truth
        for row in alive:
            is_true = row.label == TRUTH or not hole.any()
            result = truth if is_true else _filled(methods[row.label], job, name, truth, hole)
            if isinstance(result, str):
                row.fail(t, result)
                continue
            result = composite(result, truth, hole)
            if row.label != TRUTH:
                _add(row.values, metrics.score(names, result, truth, hole) if hole.any() else {}, names)
                if job.pictures:
                    _write(job.pictures / row.label / f"{name}.jpg", jpeg(result))
            if moves:
                row.values[WARP_ERROR].append(warp_error(row.before, result, moves))
            row.before = result
    return {row.label: row.as_dict(task.sequence, ratios) for row in rows}


def _add(values, found, names):
    for name in names:
        if name != WARP_ERROR:
            values[name].append(found.get(name, np.nan))


def _filled(method, job, name, truth, hole):
    """The result of a method for a frame, uint8 (H, W, 3), or a message."""
    if method.serial:
        return np.load(_file_of(job, method.label, name))
    return process_of(method, job.stills, 1).fill([(name, _blackened(truth, hole), hole)])[0]


def _blackened(truth, hole):
    return cv2.copyTo(truth, (~hole).view(np.uint8))


def fill_pair(job: Job, task: Task, method: Method, threads: int) -> str:
    """Fill all frames of a pair by a method that runs in one process, into files for `score_pair`.

    Returns "", or why a frame could not be filled. The frames are filled in the same batches in every run.
    """
    process = process_of(method, job.stills, threads)
    count = getattr(process, "batch", BATCH)
    batch: list[tuple] = []

    def fill():
        for (name, _, _), result in zip(batch, process.fill(batch), strict=True):
            if isinstance(result, str):
                return f"frame {int(name.rpartition('/')[2])}: {result}"
            data = io.BytesIO()
            np.save(data, result)
            _write(_file_of(job, method.label, name), data.getvalue())
        batch.clear()
        return ""

    for name, truth, hole in task.read(job.masks):
        if hole.any():
            batch.append((name, _blackened(truth, hole), hole))
        if len(batch) == count and (error := fill()):
            return error
    return fill() if batch else ""


def _file_of(job, label, name):
    return job.filled / label / f"{name}.npy"


def folder_of_filled(job: Job, label: str, sequence: str) -> Path:
    """Where `fill_pair` writes."""
    return job.filled / label / sequence


def _write(path, data):
    try:
        files.write_whole(path, data)
    except FileNotFoundError:  # the first file of its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, data)
