"""Tables as CSV files of any length: written and read one row at a time, and sorted with few rows in memory."""

import csv
import heapq
import io
import json
import re
import tempfile
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from maskgen.errors import BadInput
from maskgen.runtime.files import open_whole

STEP = 16  # rows from one known position in the file to the next
SORTED_AT_ONCE = 20_000  # rows in memory while a table is sorted, about 20 MB
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class Rows(Sequence[dict[str, Any]]):
    """The rows of a CSV file as dicts of texts, read from the file when they are asked for: rows[i], or in turn.

    In memory are the positions of every sixteenth row only. A missing cell is "". types: functions that make another
    value of the texts in some columns, such as {"frame": int}. Raises BadInput, also for a value that they refuse, if
    the file cannot be read; the whole file is read once for this. It must not change afterwards.
    """

    def __init__(self, path: Path | str, types: Mapping[str, Callable[[str], Any]] | None = None):
        self.path, self.types = Path(path), dict(types or {})
        self.columns: list[str] = []
        self._starts, self._length = array("q"), 0
        for start, _ in self._read(0):
            if self._length % STEP == 0:
                self._starts.append(start)
            self._length += 1

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (row for _, row in self._read(0))

    def __getitem__(self, i):
        """Row i, or a list of the rows in a slice."""
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        k = range(len(self))[i]
        return next(row for _, row in islice(self._read(self._starts[k // STEP]), k % STEP, None))

    def _read(self, start):
        """Yield (position, row) from a position on, where a row starts; 0 is the start of the table."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                lines = _Lines(file, start)
                cells = csv.reader(lines)
                if not start:
                    self.columns = next(cells, [])
                position = lines.position
                for row in cells:
                    if row:
                        row += [""] * (len(self.columns) - len(row))
                        yield position, self._typed(dict(zip(self.columns, row, strict=False)))
                    position = lines.position
        except (OSError, ValueError, csv.Error) as error:
            raise BadInput(f"{self.path} is not a table that can be read: {error}") from None

    def _typed(self, row):
        for column, kind in self.types.items():
            if column in row:
                row[column] = kind(row[column])
        return row


class _Lines:
    """The lines of a file, ended by LF, CR LF or CR, as text; `position` is where the next one starts."""

    def __init__(self, file, position):
        self.file, self.position = file, position

    def __iter__(self):
        for data in self.file:
            if not self.position and data.startswith(BOM_UTF8):
                self.position, data = len(BOM_UTF8), data[len(BOM_UTF8) :]
            if b"\r" not in data:
                self.position += len(data)
                yield data.decode()
                continue
            for line in LINE.findall(data.decode()):
                self.position += len(line.encode())
                yield line


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> int:
    """Write a CSV file, whole or not at all; a missing value is an empty cell. Returns the number of rows."""
    number = 0
    with open_whole(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([row.get(column, "") for column in columns])
            number += 1
    return number


class RowSorter:
    """Sorts any number of rows: they are added one by one, then read in the order of a key, as often as wanted.

    Rows that memory does not hold lie in temporary files in a folder, as JSON, until a `with` block ends. Rows of equal
    keys stay in their order.
    """

    def __init__(self, key: Callable[[dict], Any], folder: Path, at_once: int = SORTED_AT_ONCE):
        self.key, self.folder, self.at_once = key, folder, at_once
        self._rows: list[dict] = []
        self._runs: list = []
        self._length = 0

    def __enter__(self) -> "RowSorter":
        return self

    def __exit__(self, *error) -> None:
        for run in self._runs:
            run.close()

    def __len__(self) -> int:
        return self._length

    def add(self, row: dict) -> None:
        """Add a row of JSON values."""
        self._rows.append(row)
        self._length += 1
        if len(self._rows) == self.at_once:
            run = tempfile.TemporaryFile("w+", encoding="utf-8", dir=self.folder)  # noqa: SIM115 - closed on leaving
            run.writelines(json.dumps(row) + "\n" for row in sorted(self._rows, key=self.key))
            self._runs.append(run)
            self._rows = []

    def __iter__(self) -> Iterator[dict]:
        for run in self._runs:
            run.seek(0)
        runs = [map(json.loads, run) for run in self._runs]
        return heapq.merge(*runs, sorted(self._rows, key=self.key), key=self.key)
