"""A mask set that is generated one mask at a time: which masks are done, how a run resumes, and how it ends."""

from collections.abc import Callable
from pathlib import Path, PurePath

from maskgen.archives import open_archive
from maskgen.errors import BadInput
from maskgen.maskset import INDEX, read_recipe, write_index
from maskgen.runtime.files import CHECKSUMS, read_rows, sha256, write_checksums
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import RECIPE

CREDITS = "CREDITS.md"  # in sets of `maskgen get`
JOURNAL = "made.jsonl"  # in the progress folder: the rows of the masks that are done


def open_journal(
    folder: OutputFolder, part: str, is_row: Callable[[dict], bool], *, index: str = INDEX, key: str = "file_name"
) -> Journal:
    """The journal of finished masks, with the rows of an interrupted run, or those of a finished set's index.

    part: name of the folder with the index, such as "test", or "". is_row: True for a row as the command writes it; the
    mask of any other row is made again. index: name of the index. key: the column that identifies a row. A finished
    set becomes an unfinished one.
    """
    folder.reopen()
    journal = Journal(folder.progress / JOURNAL, key, is_row)
    index, checksums = PurePath(part, index).as_posix(), read_checksums(folder.path)
    if folder.finished and (index not in checksums or has_checksum(folder.path, index, checksums[index])):
        for row in _index_rows(folder.path / index):
            if is_row(row) and row[key] not in journal.rows:
                journal.add(row)
    return journal


def finish_set(folder: OutputFolder, part: str, rows: list[dict], **outcome) -> dict:
    """Write index, recipe and checksums, which makes a set complete. Returns the recipe.

    rows: of all masks. outcome: what the recipe records of the result, such as counts.
    """
    (folder.path / CHECKSUMS).unlink(missing_ok=True)  # if the run is killed now, none is better than outdated ones
    write_index(folder.path / part, rows)
    recipe = folder.finish(**outcome)
    write_checksums(folder.path)
    return recipe


def _index_rows(path):
    try:
        return read_rows(path)
    except BadInput:
        return []


def mask_is_intact(part: Path, row: dict) -> bool:
    """True if the mask of a row is in its folder with the bytes that the row's `sha256` records."""
    return has_checksum(part, row["file_name"], row["sha256"])


def set_is_intact(folder: OutputFolder, part: str) -> bool:
    """True if a set is complete and every file matches `checksums.sha256`. part: as for `open_journal`."""
    return files_are_intact(folder, PurePath(part, INDEX).as_posix())


def files_are_intact(folder: OutputFolder, *names: str) -> bool:
    """True if a folder is complete and every file matches `checksums.sha256`, which lists the given names."""
    checksums = read_checksums(folder.path) if folder.complete else {}
    is_listed = {RECIPE, *names} <= set(checksums)
    return is_listed and all(has_checksum(folder.path, *file) for file in checksums.items())


def read_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, from `checksums.sha256`; empty if there is none."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def has_checksum(folder: Path, name: str, digest: str) -> bool:
    """True if a file is there and has the SHA-256."""
    try:
        return sha256(folder / name) == digest
    except (BadInput, ValueError):  # missing, or not a valid file name
        return False


def sources_of(raw: Path) -> list[dict] | None:
    """The videos of raw masks, from the recipe in their folder or the one above, or their archive. None without one."""
    if raw.is_file() and RECIPE in open_archive(raw).names():
        return read_recipe(raw).get("sources", [])
    for folder in (raw, raw.parent):
        if folder.is_dir() and (folder / RECIPE).exists():
            return read_recipe(folder).get("sources", [])
    return None
