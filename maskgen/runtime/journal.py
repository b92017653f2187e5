"""Rows of an unfinished run, so that the next run can resume it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

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
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not isinstance(row.get(key), str) or not is_row(row):
                break
            self.rows[row[key]] = row
            valid_bytes += len(line)
        if valid_bytes < len(data):
            os.truncate(path, valid_bytes)

    def add(self, row: dict) -> None:
        """Append a row; the operating system has it when this returns."""
        if self.file is None:
            self.file = self.path.open("ab", buffering=0)
        line = _line(row)
        while line:  # a disk that is nearly full takes a part, and refuses the rest
            line = line[self.file.write(line) :]
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


def _line(row):
    return (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
