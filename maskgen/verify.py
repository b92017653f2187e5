"""Measure a mask set again and list all that differs from its index, recipe and checksums."""

import functools
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen.errors import BadInput
from maskgen.maskset import INDEX, decode_grey, describe, read_recipe
from maskgen.runtime import parallel
from maskgen.runtime.files import CHECKSUMS, checksummed_files, find, leads_inside, read_rows, sha256
from maskgen.runtime.images import ENDINGS
from maskgen.runtime.output import PROGRESS
from maskgen.runtime.recipe import RECIPE
from maskgen.sequences import verify as sequences
from maskgen.sequences.index import INDEX as SEQUENCES
from maskgen.settings import BORDER, EDGES

BATCH = 50  # masks per task of a worker
FILE_BATCH = 500  # files per task of a worker that compares checksums
MEASURED = ("hole_ratio", "border_distance", "components", "category", "sha256")


def find_faults(folder: Path | str, *, workers: int | None = None, cluster: str | None = None) -> tuple[int, list[str]]:
    """Check every file of a mask set. Returns the number of masks in its index, and its faults, one line each.

    folder: a mask set as `maskgen` writes it (raw masks, a test set, a published set, mask sequences), or one part of
    it. Raises BadInput for a folder without an index.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected a mask set)")
    if (folder / SEQUENCES).is_file():
        return sequences.find_faults(folder, workers=workers, cluster=cluster)
    parts = [part for part in (folder, folder / "train", folder / "test") if (part / INDEX).exists()]
    if not parts:
        raise BadInput(f"no {INDEX} in {folder}, its train or its test: expected a mask set; `maskgen bin` makes one")
    recipe = read_recipe(folder) if (folder / RECIPE).exists() else {}
    settings = recipe.get("settings", {})
    edges, border = _class_settings(settings, folder)
    faults, sizes, number = [], set(), 0
    run = functools.partial(
        parallel.run, workers=workers, cluster=cluster, shared_files=[part / INDEX for part in parts]
    )
    for part in parts:
        rows, faults_of_index = _existing_rows(part, folder)
        faults += faults_of_index
        number += len(rows)
        batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        job = functools.partial(
            _check_batch, part=part.absolute(), folder=folder.absolute(), edges=edges, border=border
        )
        with tqdm(total=len(rows), unit="mask", desc=f"verify {part.name}") as bar:
            for batch, (faults_of_batch, shapes) in zip(batches, run(job, batches), strict=True):
                faults += faults_of_batch
                sizes |= shapes
                bar.update(len(batch))
    if len(sizes) > 1 and not settings.get("any_size"):
        faults.append(f"masks have different sizes: {', '.join(f'{w}x{h}' for h, w in sorted(sizes))}")
    if (folder / PROGRESS).is_dir():
        faults.append("the set is unfinished: the command that makes it was interrupted")
    faults += _check_counts(recipe, parts)
    return number, faults + check_checksums(folder, run)


def _class_settings(settings, folder):
    """Edges and border from the settings in a recipe, or those of the paper."""
    edges, border = settings.get("edges", list(EDGES)), settings.get("border", BORDER)
    valid = isinstance(edges, list) and len(edges) > 1
    valid = valid and all(isinstance(edge, int | float) and 0 <= edge <= 1 for edge in edges)
    if not valid or any(low >= high for low, high in pairwise(edges)) or not isinstance(border, int):
        raise BadInput(
            f"{folder / RECIPE}: expected ascending edges and a border in px, got {edges!r:.60}, {border!r:.20}"
        )
    return tuple(edges), border


def _exists(path):
    try:
        return path.is_file()
    except (OSError, ValueError):  # not a valid file name
        return False


def _existing_rows(part, folder):
    """The rows of an index whose files exist; and faults: files that are missing, listed twice or not listed."""
    rows = read_rows(part / INDEX)
    if rows and "file_name" not in rows[0]:
        raise BadInput(f"{part / INDEX} has no column file_name: expected the index of a mask set")
    label = part.relative_to(folder)
    seen, existing, faults = set(), [], []
    for row in rows:
        name = row["file_name"]
        if name in seen:
            faults.append(f"{label / name}: listed twice")
        elif not leads_inside(name):
            faults.append(f"{name:.80}: leads out of the mask set")
        elif not _exists(part / name):
            faults.append(f"{label / name}: listed, but not there")
        else:
            existing.append(row)
        seen.add(name)
    listed = {Path(name) for name in seen}
    if label.parts or not any((part / split).is_dir() for split in ("train", "test")):
        on_disk = (path.relative_to(part) for path in find(part, ENDINGS))
        faults += [f"{label / path}: there, but not listed" for path in on_disk if path not in listed]
    return existing, faults


def _check_batch(rows, part, folder, edges, border):
    """Faults of some masks, one line each, and the set of their shapes."""
    faults, shapes = [], set()
    for row in rows:
        name = (part / row["file_name"]).relative_to(folder)
        try:
            data = (part / row["file_name"]).read_bytes()
            grey = decode_grey(data, name)
        except (BadInput, OSError) as error:
            faults.append(f"{name}: {error}")
            continue
        shapes.add(grey.shape)
        if data[:4] != b"\x89PNG" or data[24:26] != b"\x08\x00":  # in the header of a PNG: 8 bits, grey
            faults.append(f"{name}: expected an 8-bit grey PNG")
        if others := np.count_nonzero((grey != 0) & (grey != 255)):
            faults.append(f"{name}: expected 0 and 255 only, {others} pixels have other values")
        measured = describe(grey >= 128, row["file_name"], data, edges=edges, border=border)
        for column in MEASURED:
            if column in row and row[column] != str(measured[column]) and not _same_ratio(column, row, measured):
                faults.append(f"{name}: {column} is {measured[column]}, the index says {row[column]}")
        group = Path(row["file_name"]).parts[0]
        if group.startswith(("interior_", "free_")) and measured["category"] not in (group, row.get("category")):
            faults.append(f"{name}: lies in {group}, but measures as {measured['category'] or 'outside all classes'}")
    return faults, shapes


def _same_ratio(column, row, measured):
    """True if two hole ratios agree to six decimals, however many are written."""
    if column != "hole_ratio":
        return False
    try:
        return abs(float(row[column]) - float(measured[column])) < 1.5e-6
    except ValueError:
        return False


def _check_counts(recipe, parts):
    """Classes whose number of masks differs between index and recipe; for recipes with counts by class."""
    counts = {name: count for name, count in recipe.get("counts", {}).items() if name.startswith(("interior", "free"))}
    if not counts:
        return []
    listed = dict.fromkeys(counts, 0)
    for part in parts:
        for row in read_rows(part / INDEX):
            if row.get("category") in listed:
                listed[row["category"]] += 1
    return [
        f"{RECIPE}: {name} has {listed[name]} masks in the index, the recipe says {count}"
        for name, count in counts.items()
        if listed[name] != count
    ]


def check_checksums(folder: Path, run: Callable[..., Iterable[list[str]]]) -> list[str]:
    """Differences from `checksums.sha256`, if there is one: files that are changed, missing or not listed.

    run: `parallel.run` with the workers to use.
    """
    if not (folder / CHECKSUMS).exists():
        return []
    text = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    lines = [line.partition("  ")[::2] for line in text.splitlines()]
    batches = [lines[i : i + FILE_BATCH] for i in range(0, len(lines), FILE_BATCH)]
    faults, listed = [], {name for _, name in lines}
    for faults_of_batch in run(functools.partial(_check_files, folder=folder.absolute()), batches):
        faults += faults_of_batch
    names = (path.relative_to(folder).as_posix() for path in checksummed_files(folder))
    return faults + [f"{name}: there, but not in {CHECKSUMS}" for name in names if name not in listed]


def _check_files(lines, folder):
    faults = []
    for digest, name in lines:
        if not leads_inside(name):
            faults.append(f"{CHECKSUMS}: {name:.80} leads out of the mask set")
        elif not _exists(folder / name):
            faults.append(f"{name}: in {CHECKSUMS}, but not there")
        else:
            try:
                if sha256(folder / name) != digest:
                    faults.append(f"{name}: differs from {CHECKSUMS}")
            except BadInput as error:
                faults.append(str(error))
    return faults
