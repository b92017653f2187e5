"""The index of a mask set, `metadata.csv`: a row for each mask, written and read row by row."""

import io
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from maskgen.archives import read_file
from maskgen.errors import BadInput
from maskgen.runtime.files import leads_inside
from maskgen.runtime.rows import Rows, write_rows

if TYPE_CHECKING:
    import pandas as pd

INDEX = "metadata.csv"
COLUMNS = ("file_name", "category", "hole_ratio", "border_distance", "components")  # the first of every index


def write_index(folder: Path | str, rows: Iterable[dict]) -> None:
    """Write `metadata.csv` in a folder. rows: are taken one by one, and need not fit into memory."""
    write_table(Path(folder) / INDEX, rows)


def write_table(path: Path, rows: Iterable[dict]) -> None:
    """Write an index file: the measured columns, all other columns of the first row, then `sha256`."""
    rows = iter(rows)
    first = next(rows, None)
    others = [key for key in first or {} if key not in (*COLUMNS, "sha256")]
    write_rows(path, chain(() if first is None else (first,), rows), [*COLUMNS, *others, "sha256"])


def open_index(folder: Path) -> Rows:
    """The rows of the `metadata.csv` of a folder, read as they are needed: for an index that may be very long.

    Raises BadInput as `read_index`.
    """
    path = folder / INDEX
    if not path.is_file():
        raise _no_index(folder)
    rows = Rows(path)
    if "file_name" not in rows.columns:
        raise BadInput(f"{path} has no column file_name: expected the index of a mask set")
    measured = [column for column in ("hole_ratio", "border_distance", "components") if column in rows.columns]
    for row in rows:
        _check_name(row["file_name"], path)
        for column in measured:
            if not _is_measure(row[column], column):
                raise _not_measured(path, column, row)
    return rows


def read_index(folder: Path | str) -> "pd.DataFrame":
    """Read the `metadata.csv` of a folder, or of a zip or tar, as a DataFrame.

    Raises BadInput if it is missing, has no column `file_name`, lists a name that leads out of the folder, or has a
    measured value that is not a number.
    """
    folder = Path(folder)
    path = folder / INDEX
    try:
        data = read_file(folder, INDEX) if folder.is_file() else path.read_bytes()
    except FileNotFoundError:
        raise _no_index(folder) from None
    except OSError as error:
        raise BadInput(f"{path} is not a table that can be read: {error}") from None
    return parse_index(data, path)


def parse_index(data: bytes, path: Path | str) -> "pd.DataFrame":
    """The table in the bytes of a `metadata.csv`, with the checks of `read_index`. path: its name in messages."""
    import pandas as pd

    try:
        table = pd.read_csv(
            io.BytesIO(data), keep_default_na=False, dtype={"file_name": str, "category": str, "sha256": str}
        )
    except ValueError as error:
        raise BadInput(f"{path} is not a table that can be read: {error}") from None
    if "file_name" not in table:
        raise BadInput(f"{path} has no column file_name: expected the index of a mask set")
    for name in table["file_name"]:
        _check_name(name, path)
    for column in {"hole_ratio", "border_distance", "components"} & set(table):
        numbers = pd.to_numeric(table[column], errors="coerce")
        if len(table) and not numbers.between(0, 1 if column == "hole_ratio" else 2**31).all():
            wrong = table[~numbers.between(0, 1 if column == "hole_ratio" else 2**31)].iloc[0]
            raise _not_measured(path, column, wrong)
        table[column] = numbers
    return table


def _no_index(folder):
    if not folder.exists():
        return BadInput(f"no such folder: {folder} (expected a mask set, as maskgen writes it)")
    parts = ", ".join(sorted(str(index.parent) for index in folder.glob(f"*/{INDEX}")))
    other = f"read one of its parts, {parts}" if parts else f"`maskgen bin {folder}` measures any folder"
    return BadInput(f"no {INDEX} in {folder}: expected a mask set; {other}")


def _check_name(name, path):
    if not leads_inside(name):
        raise BadInput(f"{path} lists {name[:80]!r}, which leads out of the mask set: do not trust the set")


def _is_measure(text, column):
    try:
        return 0 <= float(text) <= (1 if column == "hole_ratio" else 2**31)
    except ValueError:
        return False


def _not_measured(path, column, row):
    return BadInput(f"{path}: {column} of {row['file_name']} is {str(row[column])[:40]!r}: make the index again")
