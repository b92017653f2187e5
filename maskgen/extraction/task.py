"""The share of one worker process: the masks of some pairs of frames of one video, written to one file."""

import io
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import cv2
import numpy as np

from maskgen import maskset
from maskgen.extraction import video
from maskgen.extraction.change import changed_share
from maskgen.extraction.occlusion import holes_and_leaving
from maskgen.runtime import files
from maskgen.settings import ExtractConfig

KINDS = ("occluded", "disoccluded")
# Why a mask is passed over, in the words of the summary and of recipe.json.
UNREADABLE, OTHER_SIZE, SCENE_CUT = "in unreadable frames", "in frames of another size", "at scene cuts"
NEAR_EMPTY, NEAR_FULL, ONE_COLOUR = "near-empty", "near-full", "in frames of one colour"
CELLS = 64  # cells along each side of a mask, 8x8 px each at 512 px, by which masks are compared


@dataclass(frozen=True)
class Task:
    """Pairs of one source, of which as many are examined as it takes to get the wanted masks, spread over all pairs."""

    path: Path
    pairs: tuple[tuple[int, int, int], ...]  # frame, gap, square number; ascending
    wanted: int  # masks
    squares: tuple[tuple[int, int, int], ...]  # x, y, side in px of the source
    shape: tuple[int, int]  # height and width of the source's frames
    config: ExtractConfig
    result: Path  # the file to write
    stamps: bytes = b""  # packed time stamps of the source, by which its frames are found


@dataclass(frozen=True)
class Candidate:
    """One hole of an examined pair: its PNG, index row and occupied cells, or the reason why it is passed over."""

    frame: int
    gap: int
    square: int
    kind: str
    reason: str = ""
    row: dict | None = None
    png: bytes = b""
    cells: bytes = b""
    leaving: int = 0  # pixels of the hole that leave the frame, or did before they were removed


def extract_masks(task: Task) -> None:
    """Write the candidates of a task, those passed over included, to `task.result`, unless that file is complete."""
    if is_complete(task.result):
        return
    outcome, pngs, cells, selector = [], [], [], _PairSelector(task)
    for pair, first, second in _frames_of_pairs(task, selector.is_needed):
        before = len(pngs)
        for kind, (hole, leaving) in zip(KINDS, _holes_or_reasons(first, second, task.config), strict=True):
            if isinstance(hole, str):
                outcome.append([*pair, kind, hole, None, 0, 0])
                continue
            png = maskset.encode(hole)
            outcome.append([*pair, kind, "", maskset.describe(hole, "", png), len(png), leaving])
            pngs.append(png)
            cells.append(occupied_cells(hole))
        selector.add_result(len(pngs) - before)
    file = io.BytesIO()
    data = np.frombuffer(b"".join(pngs), np.uint8)
    np.savez(file, outcome=json.dumps(outcome), data=data, cells=np.array(cells, np.uint8))
    task.result.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(task.result, file.getvalue())


def read_candidates(path: Path) -> list[Candidate]:
    """The candidates in a file of `extract_masks`, in the order of the pairs."""
    with np.load(path) as saved:
        outcome, data, cells = json.loads(str(saved["outcome"])), saved["data"].tobytes(), iter(saved["cells"])
    candidates, begin = [], 0
    for frame, gap, square, kind, reason, row, length, leaving in outcome:
        png, begin = data[begin : begin + length], begin + length
        own_cells = b"" if reason else next(cells).tobytes()
        candidates.append(Candidate(frame, gap, square, kind, reason, row, png, own_cells, leaving))
    return candidates


def is_complete(path: Path) -> bool:
    """True if the file holds all that `extract_masks` writes."""
    try:
        with np.load(path) as saved:  # reading compares checksums
            return all(saved[name] is not None for name in ("outcome", "data", "cells"))
    except Exception:  # whatever NumPy raises for a damaged file, as after a power cut: it is made again
        return False


class _PairSelector:
    """Selects the pairs of a task to examine: the next one whenever there are too few masks for the pairs passed."""

    def __init__(self, task):
        self.wanted, self.pairs = task.wanted, len(task.pairs)
        self.passed = self.examined = self.masks = self.open = 0

    def is_needed(self):
        """Whether to examine the next pair. An open pair, whose second frame is still to come, counts as the mean."""
        self.passed += 1
        expected = self.masks + self.open * (self.masks + 2) / (self.examined + 1)
        if expected * self.pairs >= self.wanted * self.passed:
            return False
        self.open += 1
        return True

    def add_result(self, masks):
        """Record the number of masks that an open pair has given."""
        self.open -= 1
        self.examined += 1
        self.masks += masks


def _frames_of_pairs(task: Task, is_needed: Callable[[], bool]) -> Iterator[tuple]:
    """Yield each pair that is needed with its two crops, uint8 (size, size, 3).

    In place of a crop that cannot be used stands a str with the reason. is_needed() is called once for each pair of the
    task, in order. The video is read once, forwards, and a crop is kept only as long as a pair needs it.
    """
    waiting, open_pairs = deque(task.pairs), []  # open_pairs: a heap of (second frame's index, pair, first crop)
    reader, index, previous, last_cut = video.open_reader(task.path, task.stamps), -1, None, 0
    try:
        while waiting or open_pairs:
            starting = []
            if open_pairs:
                index += 1  # the frames between the two of a pair are read too: there may be a scene cut
            else:
                while waiting and not is_needed():
                    waiting.popleft()
                if not waiting:
                    return
                starting.append(waiting.popleft())
                index = starting[0][0]
            frame = reader.read(index)
            usable = frame is not None and frame.shape[:2] == task.shape
            histograms = video.colour_histograms(frame) if usable else None
            if previous and previous[0] == index - 1 and usable and video.is_cut(previous[1], histograms):
                last_cut = index
            previous = (index, histograms) if usable else None
            crops = _Crops(frame, task)
            while open_pairs and open_pairs[0][0] == index:
                _, pair, first = heappop(open_pairs)
                yield pair, SCENE_CUT if pair[0] < last_cut else first, crops[pair[2]]
            while waiting and waiting[0][0] == index:
                pair = waiting.popleft()
                if is_needed():
                    starting.append(pair)
            for pair in starting:
                heappush(open_pairs, (index + pair[1], pair, crops[pair[2]]))
    finally:
        reader.close()


class _Crops(dict):
    """The crops of one frame by the number of their square, each made when it is first used."""

    def __init__(self, frame, task):
        super().__init__()
        self.frame, self.task = frame, task

    def __missing__(self, square):
        self[square] = _crop_or_reason(self.frame, square, self.task)
        return self[square]


def _crop_or_reason(frame, square, task):
    if frame is None:
        return UNREADABLE
    if frame.shape[:2] != task.shape:
        return OTHER_SIZE
    return video.crop(frame, task.squares[square], task.config.size)


def _holes_or_reasons(first, second, config):
    """The occluded and the disoccluded hole of a pair, each with the number of its pixels that leave the frame.

    Holes are bool (H, W); in place of a hole stands a str with what is wrong.
    """
    for frame in (first, second):
        if isinstance(frame, str):
            return [(frame, 0)] * 2
    if video.is_one_colour(first) and video.is_one_colour(second):
        return [(ONE_COLOUR, 0)] * 2
    # What an object covers changes, and so does what it uncovers: a hole of some size changes twice as much.
    if changed_share(first, second) < 2 * config.min_ratio:
        return [(NEAR_EMPTY, 0)] * 2
    found = holes_and_leaving(first, second, config)
    return [(_hole_or_reason(hole, config), leaving) for hole, leaving in found]


def _hole_or_reason(hole, config):
    ratio = np.count_nonzero(hole) / hole.size
    if ratio < config.min_ratio:
        return NEAR_EMPTY
    return NEAR_FULL if ratio > config.max_ratio else hole


def occupied_cells(hole: np.ndarray) -> np.ndarray:
    """Which of 64x64 cells hold a hole pixel: uint8 (512,), one bit a cell, to compare masks. hole: bool (H, W)."""
    share = cv2.resize(hole.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.packbits(share > 0)
