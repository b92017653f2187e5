"""Mask sequences: those of a set, or of any folder of folders of masks."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from evaluation.masks import OTHER
from evaluation.pairs import fit_hole
from evaluation.settings import FIRST
from evaluation.video.clips import name_below
from maskgen import canonical, maskset
from maskgen.errors import BadInput, collected_warnings
from maskgen.runtime import files, images
from maskgen.runtime.output import check_finished
from maskgen.sequences.index import INDEX, read_index
from maskgen.sequences.measure import CATEGORIES, category, motion_of, outline_speed
from maskgen.sequences.settings import SEQUENCES

EXPECTED = "expected mask sequences, <sequence>/00000.png, as `maskgen sequences` writes them"


@dataclass(frozen=True)
class Measured:
    """What a table says of a mask sequence."""

    frames: int
    shape: tuple[int, int]  # px, height and width
    category: str  # such as `0.1-0.2_slow`; `other_slow` if the ratio is outside all intervals
    hole_ratio: float  # mean of the frames
    speed: float  # px a frame, of the outline


class FolderMasks:
    """The mask sequences in a folder: the folders below it that hold pictures, in natural order. May be pickled.

    top: a set that `maskgen sequences` made, of which the part `test` is taken, or any folder. polarity, threshold: how
    the files are read, see `maskgen.read_hole`. Raises BadInput where there is no sequence, for an unfinished set, for
    still masks, and for arguments that contradict an index.
    """

    def __init__(self, top: Path, polarity: str = "hole-white", threshold: int | None = None):
        check_finished(top)
        if index := maskset.index_of(top):
            raise BadInput(f"{top} holds still masks, as {index} says: {EXPECTED}")
        place = next((folder for folder in (top, top.parent) if (folder / INDEX).is_file()), None)
        if place and (polarity == "hole-black" or threshold is not None):
            option = "--threshold" if threshold is not None else "--polarity hole-black"
            raise BadInput(f"{place / INDEX} says that masks have two values and white is a hole: leave {option} out")
        self.top = top / "test" if place == top and (top / "test").is_dir() else top
        self.polarity, self.threshold = polarity, threshold
        self.folders = self._find()
        self.rows = _rows_of(place, self.top) if place else {}

    def _find(self):
        found = {}
        for folder, names, _ in files.walk(self.top):
            pictures = [name for name in names if name.lower().endswith(images.ENDINGS)]
            if pictures:
                name = name_below(folder, self.top)
                if name in found:
                    raise BadInput(f"{self.top} holds two folders called {name}: rename one")
                found[name] = folder.absolute(), sorted(pictures, key=files.natural)
        if not found:
            raise BadInput(f"no masks in {self.top}: {EXPECTED}")
        return dict(sorted(found.items(), key=lambda item: files.natural(item[0])))

    @property
    def names(self) -> list[str]:
        """The sequences, as paths below the folder."""
        return list(self.folders)

    @property
    def probe_file(self) -> Path:
        """A file that every machine must be able to read."""
        folder, pictures = next(iter(self.folders.values()))
        return folder / pictures[0]

    def count(self, name: str) -> int:
        """The number of masks of a sequence."""
        return len(self.folders[name][1])

    def sha256(self, name: str) -> str:
        """SHA-256 of the masks of a sequence, one after the other."""
        folder, pictures = self.folders[name]
        digest = hashlib.sha256()
        for picture in pictures:
            digest.update(images.read_bytes(folder / picture))
        return digest.hexdigest()

    def holes(self, name: str) -> Iterator[np.ndarray]:
        """Yield the holes of a sequence, bool (H, W), of one size. Raises BadInput for a file that is no mask."""
        folder, pictures = self.folders[name]
        shape = None
        for picture in pictures:
            with collected_warnings():  # a mask may cover a whole frame
                hole = maskset.read_hole(folder / picture, polarity=self.polarity, threshold=self.threshold)
            if shape and hole.shape != shape:
                sizes = ["{1}x{0}".format(*one) for one in (hole.shape, shape)]
                raise BadInput(f"{folder / picture} is {sizes[0]} px, expected {sizes[1]} as the first mask there")
            shape = hole.shape
            yield hole

    def measured(self, name: str, frames: int, sha256: str) -> Measured:
        """The measures of the first masks of a sequence, taken from the index if that has the sequence as it is."""
        count = self.count(name)
        row = self.rows.get(name)
        if row and row["sha256"] == sha256 and frames == count:
            return _recorded(row)
        return measure_holes(first(self.holes(name), frames))


class StoredMasks:
    """The mask sequences of an archive, or those that come with the package, "v1"; as `FolderMasks`."""

    polarity, threshold = "hole-white", None

    def __init__(self, path: Path, polarity: str = "hole-white", threshold: int | None = None):
        if polarity == "hole-black" or threshold is not None:
            option = "--threshold" if threshold is not None else "--polarity hole-black"
            raise BadInput(f"in {path} white is a hole, and masks have two values: leave {option} out")
        from maskgen.sequences.reader import Sequences

        self.top, self.sequences = path, Sequences(path)

    @property
    def names(self) -> list[str]:
        """The sequences, in natural order."""
        return self.sequences.names

    @property
    def probe_file(self) -> Path:
        """A file that every machine must be able to read."""
        return self.sequences.path

    def count(self, name: str) -> int:
        """The number of masks of a sequence."""
        row = self.sequences.row(name)
        return int(row["frames"]) if row else len(self.sequences[name])

    def sha256(self, name: str) -> str:
        """SHA-256 of the masks of a sequence as its index has it, otherwise of their pixels."""
        row = self.sequences.row(name)
        known = row.get("sha256") or row.get("pixels_sha256")
        return known or hashlib.sha256(np.packbits(self.sequences[name]).tobytes()).hexdigest()

    def holes(self, name: str) -> Iterator[np.ndarray]:
        """Yield the holes of a sequence, bool (H, W)."""
        yield from self.sequences[name]

    def measured(self, name: str, frames: int, sha256: str) -> Measured:
        """The measures of the first masks of a sequence, taken from the index where they are there."""
        row = self.sequences.row(name)
        return (
            _recorded(row) if row and row["frames"] == str(frames) else measure_holes(first(self.holes(name), frames))
        )


Masks = FolderMasks | StoredMasks


def default_masks() -> Path:
    """The default masks: the set in the working folder if there is one, else the sequences that ship, if they do."""
    ships = canonical.TESTSET.with_name("sequences.zip").is_file()
    return Path(SEQUENCES) if Path(SEQUENCES).is_dir() or not ships else Path(canonical.VERSIONS[0])


def default_per_class(masks: object) -> int:
    """How many sequences of each class a run takes if nobody says how many: 10 of those that ship, else all, 0.

    masks: as the user named them, None for the default masks.
    """
    return FIRST if masks is None and default_masks() == Path(canonical.VERSIONS[0]) else 0


def open_masks(path: Path, polarity: str = "hole-white", threshold: int | None = None) -> Masks:
    """The mask sequences at a path: a folder, an archive, or "v1". Raises BadInput where there is none."""
    if not path.exists() and str(path) not in canonical.VERSIONS:
        raise BadInput(f"{path} does not exist: {EXPECTED}")
    return (FolderMasks if path.is_dir() else StoredMasks)(path, polarity, threshold)


def _recorded(row):
    """The measures that a row of an index has."""
    shape, speed = (int(row["height"]), int(row["width"])), float(row["speed"])
    class_ = row["category"] or f"{OTHER}_{motion_of(speed, shape)}"
    return Measured(int(row["frames"]), shape, class_, float(row["hole_ratio"]), speed)


def _rows_of(place, top):
    """The rows of an index by the names of the sequences below a folder."""
    rows = {}
    for row in read_index(place):
        path = place / row["sequence"]
        if path.is_relative_to(top):
            rows[path.relative_to(top).as_posix()] = row
    return rows


def first(holes: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The first `count` holes; a single one is repeated, as it holds for all frames."""
    start = list(islice(holes, 2))
    yield from start[:1] * count if len(start) == 1 else islice(chain(start, holes), count)


def fitted(holes: Iterator[np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Holes resized by nearest neighbour to (height, width)."""
    return (fit_hole(hole, size) for hole in holes)


def measure_holes(holes: Iterator[np.ndarray]) -> Measured:
    """Measure holes, bool (H, W) each, one at a time."""
    ratios, shapes = [], set()

    def counted():
        for hole in holes:
            ratios.append(np.count_nonzero(hole) / hole.size)
            shapes.add(hole.shape)
            yield hole

    speed = outline_speed(counted())
    (shape,), ratio = shapes, float(np.mean(ratios))
    class_ = category(ratio, speed, shape) or f"{OTHER}_{motion_of(speed, shape)}"
    return Measured(len(ratios), shape, class_, ratio, speed)


def rank(class_: str) -> int:
    """The place of a class in the order of the tables."""
    return CATEGORIES.index(class_) if class_ in CATEGORIES else len(CATEGORIES)
