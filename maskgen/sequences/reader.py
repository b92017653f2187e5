"""Read mask sequences from a set, from any folder of folders of frames, or from the packed file of the package."""

import io
import math
import operator
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from maskgen.archives import open_archive
from maskgen.canonical import sequences_path
from maskgen.errors import BadInput
from maskgen.maskset import Masks, split_of
from maskgen.runtime.files import natural, parse_rows
from maskgen.sequences.index import INDEX, checked_rows, read_index
from maskgen.sequences.measure import category, measure

ENDING = ".npy"  # of a sequence in a packed file


class Sequences:
    """Mask sequences, read one at a time: sequences[i] and sequences[name] are bool (T, H, W), True where a hole is.

    path: a set as `maskgen sequences` and `maskgen get sequences` write it; any folder, zip or tar of folders of frames
    in which white is the hole, such as annotations of DAVIS; or the packed file of the package, which is also meant by
    None and "v1". Of a set with a `test` part, that part is used.

    `names` are in natural order, `category(name)` is the class, such as "0.1-0.2_slow". It comes from the index, or is
    measured where there is none. May be pickled, and used in the workers of a `DataLoader`. Raises BadInput for a path
    without sequences, and for frames of a sequence that have different sizes or are no masks.
    """

    def __init__(self, path: Path | str | None = None):
        self.path = sequences_path(path)
        if not self.path.exists():
            raise BadInput(f"no such file or folder: {self.path} (expected mask sequences)")
        self._store = _Packed(self.path) if is_packed(self.path) else _Frames(self.path)
        self.names: list[str] = self._store.names
        self._places = {name: i for i, name in enumerate(self.names)}
        self._categories: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | str) -> np.ndarray:
        """The holes of a sequence by its name or place, bool (T, H, W); a negative place counts from the end."""
        if isinstance(key, str):
            return self._store.read(self._known(key))
        i = operator.index(key)
        if not -len(self) <= i < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {i}")
        return self._store.read(self.names[i])

    def __iter__(self) -> Iterator[np.ndarray]:
        """All sequences in the order of `names`."""
        return (self[name] for name in self.names)

    def row(self, name: str) -> dict[str, str]:
        """The row of a sequence in the index, as texts by column; empty for sequences without an index."""
        return dict(self._store.rows.get(self._known(name), {}))

    def category(self, name: str) -> str:
        """The class of a sequence, such as "0.1-0.2_slow"; "" if its hole ratio is outside (0.01, 0.6]."""
        if name not in self._categories:
            row = self.row(name)
            self._categories[name] = row["category"] if row else category_of(self[name])
        return self._categories[name]

    def _known(self, name):
        if name not in self._places:
            raise BadInput(f"no sequence {name!r} in {self.path}: expected one of {len(self)}, such as {self.names[0]}")
        return name


def category_of(holes: np.ndarray) -> str:
    """Measure the class of a sequence, bool (T, H, W)."""
    size = measure(holes)
    return category(size.ratio, size.speed, holes.shape[1:])


class _Frames:
    """The folders of frames in a folder or an archive."""

    def __init__(self, path):
        folder = split_of(path, "test")
        self.masks = Masks(folder)
        self.places = {}  # sequence -> places of its frames in self.masks
        for i, name in enumerate(self.masks.names):
            self.places.setdefault(PurePath(name).parent.as_posix(), []).append(i)
        if "." in self.places:  # frames that lie in the folder itself
            self.places = {path.resolve().name if name == "." else name: i for name, i in self.places.items()}
        self.names = sorted(self.places, key=natural)
        self.rows = _rows_of_part(folder)

    def read(self, name):
        holes = [self.masks[i] for i in self.places[name]]
        if len(shapes := {hole.shape for hole in holes}) > 1:
            sizes = " and ".join(f"{width}x{height}" for height, width in sorted(shapes)[:2])
            raise BadInput(f"{self.masks.path / name} has frames of {sizes} px: expected one size")
        return np.stack(holes)


def _rows_of_part(part):
    """Index rows by name in the part `train` or `test` of a set, or in a set without parts; {} without an index."""
    for folder, prefix in ((part, ""), (part.absolute().parent, f"{part.absolute().name}/")):
        if folder.is_dir() and (folder / INDEX).is_file():
            return {row["sequence"].removeprefix(prefix): row for row in read_index(folder)}
    return {}


class _Packed:
    """The packed file: a zip of NumPy arrays, each uint8 (T, rows, W), in which a byte holds 8 px of a column."""

    def __init__(self, path):
        self.path, self.archive, self.process = path.absolute(), None, None
        self.rows = {row["sequence"]: row for row in packed_rows(path)}
        self.names = sorted(self.rows, key=natural)

    def __getstate__(self):
        return {**self.__dict__, "archive": None, "process": None}

    def read(self, name):
        if self.process != os.getpid():  # a fork shares file positions, so each process opens its own
            self.archive, self.process = open_archive(self.path), os.getpid()
        row = self.rows[name]
        return unpack(self.archive.read(name + ENDING), int(row["height"]), f"{self.path}: {name}")


def is_packed(path: Path) -> bool:
    """True for a packed file of mask sequences: an archive whose index has the arrays beside it."""
    if not path.is_file():
        return False
    names = set(open_archive(path).names())
    return INDEX in names and any(name.endswith(ENDING) for name in names)


def holds_sequences(path: Path) -> bool:
    """True for a set of mask sequences, and for a packed file of them."""
    return (path / INDEX).is_file() if path.is_dir() else is_packed(path)


def packed_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the index of a packed file. BadInput if it is incomplete."""
    archive, name = open_archive(path), f"{path}: {INDEX}"
    rows = checked_rows(parse_rows(archive.read(INDEX), name), name)
    names = set(archive.names())
    for row in rows:
        if row["sequence"] + ENDING not in names:
            raise BadInput(f"{path} lists {row['sequence']!r:.80}, which is missing: get the file again")
        if not row["height"].isdecimal():
            raise BadInput(f"{name} has the height {row['height']!r:.40}: get the file again")
    return rows


def pack(holes: np.ndarray) -> bytes:
    """A sequence, bool (T, H, W), as a NumPy file of uint8 (T, rows, W): a byte holds 8 px of a column, 1 is a hole."""
    data = io.BytesIO()
    np.lib.format.write_array(data, np.packbits(holes, axis=1), version=(1, 0), allow_pickle=False)
    return data.getvalue()


def unpack(data: bytes, height: int, name: str) -> np.ndarray:
    """The inverse of `pack`: bool (T, height, W). BadInput for other bytes. name: for messages."""
    try:
        file = io.BytesIO(data)
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype != np.uint8 or fortran or len(shape) != 3 or shape[1] != -(-height // 8) or min(shape) < 1:
            raise ValueError(f"an array of {dtype} and shape {shape}")
        # Compared before the array is made: a damaged header may state any size.
        if math.prod(shape) != len(data) - file.tell():
            raise ValueError("fewer or more bytes than its shape")
        packed = np.frombuffer(data, np.uint8, offset=file.tell()).reshape(shape)
    except (ValueError, SyntaxError, OverflowError) as error:
        raise BadInput(f"{name} is damaged ({error}): get the file again") from None
    return np.unpackbits(packed, axis=1, count=height).view(bool)
