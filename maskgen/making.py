"""What the commands share that make a mask set one mask at a time: which masks are there already, and which are not."""

from collections.abc import Callable
from pathlib import Path

from maskgen.errors import BadInput
from maskgen.maskset import INDEX, read_recipe, write_index
from maskgen.runtime.files import CHECKSUMS, read_rows, sha256, write_checksums
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import RECIPE

JOURNAL = "made.jsonl"


def journal_of(folder: OutputFolder, part: str, is_row: Callable[[dict], bool]) -> Journal:
    """The rows of the masks that are made, to be added to: those of an interrupted run, or of a finished set's index.

    part: name of the folder with the index, such as "test". is_row: tells whether a row is one as the command writes
    it; the mask of any other is made again. A finished set becomes an unfinished one.
    """
    folder.reopen()
    journal = Journal(folder.progress / JOURNAL, "file_name", is_row)
    index, sums = f"{part}/{INDEX}", _sums(folder.path)
    if folder.finished and (index not in sums or _is_as_written(folder.path, index, sums[index])):
        for row in _index_rows(folder.path / index):
            if is_row(row) and row["file_name"] not in journal.rows:
                journal.add(row)
    return journal


def finish(folder: OutputFolder, part: str, rows: list[dict], **outcome) -> dict:
    """Write the index of all masks, recipe and checksums, which makes a set complete. Returns the recipe."""
    (folder.path / CHECKSUMS).unlink(missing_ok=True)  # none rather than outdated ones, should a kill come now
    write_index(folder.path / part, rows)
    recipe = folder.finish(**outcome)
    write_checksums(folder.path)
    return recipe


def _index_rows(path):
    try:
        return read_rows(path)
    except BadInput:
        return []


def is_there(part: Path, row: dict) -> bool:
    """Whether a mask lies in its folder with the bytes that its row tells."""
    return _is_as_written(part, row["file_name"], row["sha256"])


def is_whole(folder: OutputFolder, part: str) -> bool:
    """Whether a complete set has all its files as they were written: index, recipe, masks and what else there was."""
    sums = _sums(folder.path) if folder.complete else {}
    complete = {RECIPE, f"{part}/{INDEX}"} <= set(sums)
    return complete and all(_is_as_written(folder.path, *file) for file in sums.items())


def _sums(folder):
    """What `checksums.sha256` says of each file; empty without one."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _is_as_written(folder, name, digest):
    try:
        return sha256(folder / name) == digest
    except (BadInput, ValueError):  # not there, or no name that a file can have
        return False


def sources_of(raw: Path) -> list[dict] | None:
    """The videos of raw masks, from the recipe in their folder or the one above. None without a recipe."""
    for folder in (raw, raw.parent):
        if folder.is_dir() and (folder / RECIPE).exists():
            return read_recipe(folder).get("sources", [])
    return None
