"""What one worker does: the masks of some pairs of frames of one video, left in one file."""

import io
import json
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import cv2
import numpy as np

from maskgen import maskset
from maskgen.extraction import video
from maskgen.extraction.occlusion import holes_of_pair
from maskgen.runtime import files
from maskgen.settings import ExtractConfig

KINDS = ("occluded", "disoccluded")
UNREADABLE, CHANGED, CUT = "in unreadable frames", "in frames of another size", "at scene cuts"
EMPTY, FULL, BLANK = "near-empty", "near-full", "in frames of one colour"
CELLS = 64  # cells along a mask's side by which masks are compared, 8x8 px each at 512


@dataclass(frozen=True)
class Task:
    """Some pairs of one source, to choose from until they have given the wanted masks, spread over all of them."""

    path: Path
    pairs: tuple[tuple[int, int, int], ...]  # frame, gap, square number; ascending
    wanted: int  # masks
    squares: tuple[tuple[int, int, int], ...]  # x, y, side in px of the source
    shape: tuple[int, int]  # height and width of the source's frames
    config: ExtractConfig
    result: Path  # where the masks go
    stamps: bytes = b""  # of the source, by which its frames are found


@dataclass(frozen=True)
class Mask:
    """What came of one hole of a pair: its PNG, its row and its cells, or the reason why it is passed over."""

    frame: int
    gap: int
    square: int
    kind: str
    reason: str = ""
    row: dict | None = None
    png: bytes = b""
    cells: bytes = b""


def make(task: Task) -> None:
    """Leave a task's masks, with what is passed over, in `task.result`. Nothing to do if they are there already."""
    if is_whole(task.result):
        return
    outcome, pngs, cells, quota = [], [], [], _Quota(task)
    for pair, first, second in _frames_of_pairs(task, quota.is_due):
        before = len(pngs)
        for kind, hole in zip(KINDS, _holes(first, second, task.config), strict=True):
            if isinstance(hole, str):
                outcome.append([*pair, kind, hole, None, 0])
                continue
            png = maskset.encode(hole)
            outcome.append([*pair, kind, "", maskset.describe(hole, "", png), len(png)])
            pngs.append(png)
            cells.append(occupied_cells(hole))
        quota.gave(len(pngs) - before)
    file = io.BytesIO()
    data = np.frombuffer(b"".join(pngs), np.uint8)
    np.savez(file, outcome=json.dumps(outcome), data=data, cells=np.array(cells, np.uint8))
    task.result.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(task.result, file.getvalue())


def results(path: Path) -> list[Mask]:
    """What `make` left in a file, in the order of the pairs."""
    with np.load(path) as saved:
        outcome, data, cells = json.loads(str(saved["outcome"])), saved["data"].tobytes(), iter(saved["cells"])
    masks, begin = [], 0
    for frame, gap, square, kind, reason, row, length in outcome:
        png, begin = data[begin : begin + length], begin + length
        masks.append(Mask(frame, gap, square, kind, reason, row, png, b"" if reason else next(cells).tobytes()))
    return masks


def is_whole(path: Path) -> bool:
    """Whether `make` has left its results there, all of them."""
    try:
        with np.load(path) as saved:  # looks at the bytes' checksums as it reads
            return all(saved[name] is not None for name in ("outcome", "data", "cells"))
    except Exception:  # whatever numpy raises for what a power cut left there: it is made again
        return False


class _Quota:
    """Which of a task's pairs are looked at: the next one whenever the masks lag behind the share of pairs passed."""

    def __init__(self, task):
        self.wanted, self.pairs = task.wanted, len(task.pairs)
        self.passed = self.looked_at = self.masks = self.begun = 0

    def is_due(self):
        """Whether to look at the next pair. One that is begun, its second frame to come, counts as pairs usually do."""
        self.passed += 1
        expected = self.masks + self.begun * (self.masks + 2) / (self.looked_at + 1)
        if expected * self.pairs >= self.wanted * self.passed:
            return False
        self.begun += 1
        return True

    def gave(self, masks):
        """A pair that was begun gave so many masks."""
        self.begun -= 1
        self.looked_at += 1
        self.masks += masks


def _frames_of_pairs(task, is_due):
    """Yield every pair that is due with its two frames cut out, uint8 (size, size, 3).

    For one that cannot be used a str says why. is_due() is asked once for each pair of the task, in their order. The
    video is read once, forwards, and a frame is kept no longer than a pair needs it; those between pairs are passed.
    """
    coming, begun = deque(task.pairs), []  # begun: a heap of (last frame, pair, its first frame cut out)
    reader, index, before, last_cut = video.open_reader(task.path, task.stamps), -1, None, 0
    try:
        while coming or begun:
            starting = []
            if begun:
                index += 1  # also the frames between those of a pair: there may be a cut
            else:
                while coming and not is_due():
                    coming.popleft()
                if not coming:
                    return
                starting.append(coming.popleft())
                index = starting[0][0]
            whole = reader.read(index)
            usable = whole is not None and whole.shape[:2] == task.shape
            colours = video.colours(whole) if usable else None
            if before and before[0] == index - 1 and usable and video.is_cut(before[1], colours):
                last_cut = index
            before = (index, colours) if usable else None
            squares = _Squares(whole, task)
            while begun and begun[0][0] == index:
                _, pair, first = heappop(begun)
                yield pair, CUT if pair[0] < last_cut else first, squares[pair[2]]
            while coming and coming[0][0] == index:
                pair = coming.popleft()
                if is_due():
                    starting.append(pair)
            for pair in starting:
                heappush(begun, (index + pair[1], pair, squares[pair[2]]))
    finally:
        reader.close()


class _Squares(dict):
    """The squares of a frame by their number, cut out when they are asked for."""

    def __init__(self, whole, task):
        super().__init__()
        self.whole, self.task = whole, task

    def __missing__(self, number):
        self[number] = _cut_out(self.whole, number, self.task)
        return self[number]


def _cut_out(whole, square, task):
    if whole is None:
        return UNREADABLE
    if whole.shape[:2] != task.shape:
        return CHANGED
    return video.cut_out(whole, task.squares[square], task.config.size)


def _holes(first, second, config):
    """The occluded and the disoccluded hole of a pair, bool (H, W); in a hole's place a str that says what is wrong."""
    for frame in (first, second):
        if isinstance(frame, str):
            return frame, frame
    if video.is_of_one_colour(first) and video.is_of_one_colour(second):
        return BLANK, BLANK
    if np.array_equal(first, second):  # films repeat frames, and where nothing moved nothing is hidden
        return EMPTY, EMPTY
    return [_unless_extreme(hole, config) for hole in holes_of_pair(first, second, config)]


def _unless_extreme(hole, config):
    ratio = np.count_nonzero(hole) / hole.size
    if ratio < config.min_ratio:
        return EMPTY
    return FULL if ratio > config.max_ratio else hole


def occupied_cells(hole: np.ndarray) -> np.ndarray:
    """A mask in 512 bytes, to tell whether two are alike: which of 64x64 cells hold a hole pixel. bool (H, W)."""
    share = cv2.resize(hole.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.packbits(share > 0)
