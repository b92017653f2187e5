"""Candidates in, masks of the set out: those that are too much like another mask are passed over."""

import tempfile
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from maskgen.errors import BadInput
from maskgen.extraction.schedule import Segment
from maskgen.extraction.task import KINDS, OTHER_SIZE, UNREADABLE, Candidate
from maskgen.runtime import files

NEAR_DUPLICATE = "almost identical to another"
NEAR_DUPLICATE_IOU = 0.9  # intersection over union of occupied cells above which two masks count as the same
COMPARED = 2  # a mask is compared with so many accepted masks of the same crop before it, and as many after it
FOLDER_LIMIT = 10_000  # files in a folder; file systems and dataset hosts get slow or refuse beyond it
NUMBERS = 1 << 36  # more masks than a run has; a moment fits in the other 28 bits


class Accepted:
    """Tells which masks are almost identical to an accepted one. folder: for a temporary file with their cells."""

    def __init__(self, folder: Path):
        self.hashes: set[int] = set()  # the first 8 bytes of the SHA-256 of each mask
        self.moments: dict[tuple, array] = {}  # by segment and square, in order of time: moment * NUMBERS + number
        self.number = 0
        self.cells = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed on leaving
        self.length = 0  # bytes of the cells of a mask

    def __enter__(self) -> "Accepted":
        return self

    def __exit__(self, *error) -> None:
        self.cells.close()

    def has_alike(self, candidate: Candidate, segment: Segment) -> bool:
        """True for a mask with the bytes of any accepted one, or with about the same cells as one of its neighbours.

        Its neighbours are the nearest masks in time of the same crop, COMPARED before and after it.
        """
        if _hash(candidate) in self.hashes:
            return True
        moments = self.moments.get(_crop(candidate, segment), array("Q"))
        place = bisect_left(moments, _moment(candidate), key=_moment_of)
        cells = np.frombuffer(candidate.cells, np.uint8)
        for entry in moments[max(0, place - COMPARED) : place + COMPARED]:
            other = np.frombuffer(self._cells_of(entry), np.uint8)
            intersection, union = np.bitwise_count(cells & other).sum(), np.bitwise_count(cells | other).sum()
            if intersection > NEAR_DUPLICATE_IOU * union:
                return True
        return False

    def add(self, candidate: Candidate, segment: Segment) -> None:
        """Accept a mask."""
        self.hashes.add(_hash(candidate))
        self.length = len(candidate.cells)
        self.cells.seek(self.number * self.length)
        self.cells.write(candidate.cells)
        moments, moment = self.moments.setdefault(_crop(candidate, segment), array("Q")), _moment(candidate)
        place = bisect_left(moments, moment, key=_moment_of)
        while (  # several gaps: masks of one moment are in the order of their cells
            place < len(moments)
            and _moment_of(moments[place]) == moment
            and self._cells_of(moments[place]) <= candidate.cells
        ):
            place += 1
        moments.insert(place, moment * NUMBERS + self.number)
        self.number += 1

    def _cells_of(self, entry):
        self.cells.seek(entry % NUMBERS * self.length)
        return self.cells.read(self.length)


def _hash(candidate):
    return int(candidate.row["sha256"][:16], 16)


def _crop(candidate, segment):
    return id(segment), candidate.square


def _moment(candidate):
    """Frame and kind of a mask, as a number that ascends with both."""
    return 2 * candidate.frame + (candidate.kind == max(KINDS))


def _moment_of(entry):
    return entry // NUMBERS


def merge(
    candidates: Iterable[Candidate],
    segment: Segment,
    out: Path,
    room: int,
    passed_over: Counter,
    accepted: "Accepted",
    strict: bool,
) -> Iterator[dict]:
    """Write new masks into the set, at most `room` of them, and yield their index rows."""
    for candidate in candidates:
        reason = candidate.reason
        if strict and reason in (UNREADABLE, OTHER_SIZE):
            raise BadInput(
                f"{segment.source.path}: frame {candidate.frame} or the next one is {reason[3:]} "
                "(stopped because of --strict)"
            )
        if not reason and accepted.has_alike(candidate, segment):
            reason = NEAR_DUPLICATE
        if reason:
            passed_over[segment.source.name, reason] += 1
            continue
        if not room:
            return
        room -= 1
        segment.accept(float(candidate.row["hole_ratio"]), candidate.leaving)
        accepted.add(candidate, segment)
        file_name = file_name_of(candidate, segment)
        (out / segment.split / file_name).parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(out / segment.split / file_name, candidate.png)
        made = {
            "source": segment.source.name,
            "frame": candidate.frame,
            "gap": candidate.gap,
            "square": candidate.square,
        }
        yield candidate.row | {"file_name": file_name, **made, "kind": candidate.kind}


def file_name_of(candidate: Candidate, segment: Segment) -> str:
    """`<video>/<frame>_<kind>.png`; several gaps or squares add their numbers, and long films get subfolders."""
    several_gaps, several_squares = len(segment.config.gaps) > 1, len(segment.squares) > 1
    per_frame = len(KINDS) * len(segment.config.gaps) * len(segment.squares)
    folder = segment.source.name
    if segment.source.frames * per_frame > FOLDER_LIMIT:
        folder += f"/{candidate.frame // (FOLDER_LIMIT // per_frame):04d}"
    words = [
        f"{candidate.frame:06d}",
        f"gap{candidate.gap}" * several_gaps,
        f"square{candidate.square}" * several_squares,
        candidate.kind,
    ]
    return f"{folder}/{'_'.join(filter(None, words))}.png"
