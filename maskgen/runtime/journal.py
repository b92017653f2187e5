"""Rows of an unfinished run, so that the next run can resume it."""

import json
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from maskgen.runtime.files import write_whole


class Journal:
    """Rows in a file, one JSON object per line, appended one by one and read back by the run that resumes.

    path: the file. key: the column that identifies a row; a later row replaces an earlier one with the same value.
    is_row: whether a JSON object is a valid row. The first invalid line, as a kill may leave it, and all lines after it
    are dropped.
    """

    def __init__(self, path: Path, key: str, is_row: Callable[[dict], bool] = lambda row: True):
        self.path, self.rows, self.file = path, {}, None
        self.key, valid_bytes = key, 0
        for row, end in _valid_rows(path, lambda row: isinstance(row.get(key), str) and is_row(row)):
            self.rows[row[key]] = row
            valid_bytes = end
        _truncate(path, valid_bytes)

    def add(self, row: dict) -> None:
        """Append a row; the operating system has it when this returns."""
        if self.file is None:
            self.file = self.path.open("ab", buffering=0)
        _append(self.file, row)
        self.rows[row[self.key]] = row

    def keep(self, wanted: Callable[[dict], bool]) -> None:
        """Drop all other rows."""
        kept = {name: row for name, row in self.rows.items() if wanted(row)}
        if len(kept) < len(self.rows):
            self.close()
            self.rows = kept
            write_whole(self.path, b"".join(map(_line, kept.values())))

    def close(self) -> None:
        """Close the file if it is open for writing."""
        if self.file:
            self.file.close()
            self.file = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class RowLog:
    """Rows as in a `Journal`, in the order in which they were added. They are read from the file, not kept in memory.

    path, is_row: as for a `Journal`. Iterating yields the rows; `len` is their number.
    """

    def __init__(self, path: Path, is_row: Callable[[dict], bool]):
        self.path, self.is_row, self.number = path, is_row, 0
        self.file: BinaryIO | None = None

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[dict]:
        return (row for row, _ in islice(_valid_rows(self.path, lambda row: True), self.number))

    def resume(self, wanted: Callable[[dict], bool]) -> Iterator[dict]:
        """Yield the valid rows of an earlier run up to the first that is not wanted, and drop all others."""
        end = self.number = 0
        for row, position in _valid_rows(self.path, self.is_row):
            if not wanted(row):
                break
            end, self.number = position, self.number + 1
            yield row
        _truncate(self.path, end)

    def add(self, row: dict) -> None:
        """Append a row; the operating system has it when this returns."""
        if self.file is None:
            self.file = self.path.open("ab", buffering=0)
        _append(self.file, row)
        self.number += 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.file:
            self.file.close()
            self.file = None


def _valid_rows(path, is_row):
    """Yield (row, position behind it) of a file up to the first line that is no valid row."""
    end = 0
    with path.open("rb") if path.exists() else BytesIO() as file:
        for line in file:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not is_row(row):
                return
            end += len(line)
            yield row, end


def _truncate(path, end):
    if path.exists() and path.stat().st_size > end:
        os.truncate(path, end)


def _append(file, row):
    line = _line(row)
    while line:  # a disk that is nearly full takes a part, and refuses the rest
        line = line[file.write(line) :]


def _line(row):
    return (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
