"""The index of a set of mask sequences: one row for each folder of frames."""

import csv
import hashlib
import io
from pathlib import Path

from maskgen.errors import BadInput
from maskgen.runtime.files import leads_inside, read_rows, write_whole
from maskgen.sequences.settings import INDEX

MEASURED = (
    "category",
    "frames",
    "width",
    "height",
    "hole_ratio",
    "lowest_ratio",
    "highest_ratio",
    "speed",
    "never_seen",
)
MADE = ("source", "start", "crop", "flip", "anchor", "raw", "dilation", "path_speed", "passed_over", "seed")
COLUMNS = ("sequence", "split", "mode", *MEASURED, *MADE, "sha256")
PIXELS = "pixels_sha256"  # column of the canonical sequences: hash of all pixels, 8 in a byte


def frame_name(t: int) -> str:
    """The file name of frame t, as in DAVIS and YouTube-VOS."""
    return f"{t:05d}.png"


def write_index(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write the index of a set. rows: texts by column; a column that a row lacks stays empty."""
    write_whole(folder / INDEX, index_bytes(rows))


def index_bytes(rows: list[dict[str, str]]) -> bytes:
    """The index of a set as a CSV file. rows: as for `write_index`."""
    text, more = io.StringIO(), [column for column in rows[0] if column not in COLUMNS]
    writer = csv.DictWriter(text, [*COLUMNS[:-1], *more, COLUMNS[-1]], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_index(folder: Path) -> list[dict[str, str]]:
    """The rows of a set's index, as texts. Raises BadInput if it is missing, incomplete, or leads out of the folder."""
    if not (folder / INDEX).is_file():
        raise BadInput(f"no {INDEX} in {folder}: expected mask sequences, as `maskgen sequences` writes them")
    return checked_rows(read_rows(folder / INDEX), folder / INDEX, "sha256")


def checked_rows(rows: list[dict[str, str]], name: Path | str, *needed: str) -> list[dict[str, str]]:
    """The rows of an index, if it is complete and safe; otherwise BadInput. needed: further columns."""
    if not rows:
        raise BadInput(f"{name} lists no sequences")
    if missing := [column for column in ("sequence", "mode", *MEASURED, *needed) if column not in rows[0]]:
        raise BadInput(f"{name} has no column {missing[0]}: expected the index of mask sequences")
    for row in rows:
        if not leads_inside(row["sequence"]):
            raise BadInput(f"{name} lists {row['sequence'][:80]!r}, which leads out of the set: do not trust it")
    return rows


def frames_sha256(folder: Path, frames: int) -> str:
    """The SHA-256 of the frames of a sequence, one after the other; "" if one is missing."""
    digest = hashlib.sha256()
    try:
        for t in range(frames):
            digest.update((folder / frame_name(t)).read_bytes())
    except OSError:
        return ""
    return digest.hexdigest()


def is_row(row: dict) -> bool:
    """True for a row as `task.make_batch` returns it, of a sequence or of one that cannot be made."""
    needed = ("sequence", "split", "mode", "passed_over", "sha256")
    return all(isinstance(row.get(key), str) for key in (needed if not row.get("sha256") else (*needed, *MEASURED)))
