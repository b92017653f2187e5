"""Measure a mask set again and list all that differs from its index, recipe and checksums."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen.archives import open_archive, read_file
from maskgen.canonical import masks_path
from maskgen.errors import BadInput
from maskgen.maskset import INDEX, decode_grey, describe, pixels_sha256, read_recipe
from maskgen.runtime import parallel
from maskgen.runtime.files import (
    CHECKSUMS,
    checksummed_files,
    find,
    leads_inside,
    natural,
    parse_rows,
    read_rows,
    sha256,
)
from maskgen.runtime.images import ENDINGS
from maskgen.runtime.output import PROGRESS
from maskgen.runtime.recipe import RECIPE
from maskgen.sequences import verify as sequences
from maskgen.sequences.reader import is_packed
from maskgen.sequences.settings import INDEX as SEQUENCES
from maskgen.settings import BORDER, EDGES

BATCH = 50  # masks per task of a worker
FILE_BATCH = 500  # files per task of a worker that compares checksums
MEASURED = ("hole_ratio", "border_distance", "components", "category", "pixels_sha256", "sha256")


def find_faults(folder: Path | str, *, workers: int | None = None, cluster: str | None = None) -> tuple[int, list[str]]:
    """Check every file of a mask set. Returns the number of masks in its index, and its faults, one line each.

    folder: a mask set as `maskgen` writes it (raw masks, a test set, a published set), one part of it, or a folder of
    archives as `maskgen get` writes it; "v1" is the test set that comes with the package, "v1-sequences" its sequences,
    and a zip or tar has its index at the top. Of mask sequences, it returns the number of sequences. Raises BadInput
    for masks without an index.
    """
    folder = masks_path(folder)
    if is_packed(folder):
        return sequences.find_faults_of_packed(folder, workers=workers, cluster=cluster)
    if folder.is_file():
        return _check_archive(folder, functools.partial(parallel.run, workers=workers, cluster=cluster))
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected a mask set)")
    if (folder / SEQUENCES).is_file():
        return sequences.find_faults(folder, workers=workers, cluster=cluster)
    parts = [part for part in (folder, folder / "train", folder / "test") if (part / INDEX).exists()]
    if not parts and (folder / CHECKSUMS).exists() and (folder / RECIPE).exists():
        number = read_recipe(folder).get("number")
        if isinstance(number, int):  # archives, which have no index beside them
            return number, check_checksums(folder, functools.partial(parallel.run, workers=workers, cluster=cluster))
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
        job = functools.partial(_check_batch, part=part.absolute(), edges=edges, border=border)
        faults_of_masks, shapes = _check_masks(rows, job, run, part.name)
        label = part.relative_to(folder)
        faults += [f"{label / name}: {fault}" for name, fault in faults_of_masks]
        sizes |= shapes
    if not settings.get("any_size"):
        faults += _check_sizes(sizes)
    if (folder / PROGRESS).is_dir():
        faults.append("the set is unfinished: the command that makes it was interrupted")
    faults += _check_counts(recipe, [row for part in parts for row in read_rows(part / INDEX)])
    faults += check_checksums(folder, run)
    return number, faults


def _check_archive(path, run):
    """The number of masks in a zip or tar with an index at the top, and its faults."""
    names = set(open_archive(path).names())
    if INDEX not in names:
        raise BadInput(f"no {INDEX} at the top of {path}: expected a packed mask set; unpack it, and verify the folder")
    rows = parse_rows(read_file(path, INDEX), f"{path}: {INDEX}")
    recipe = read_recipe(path) if RECIPE in names else {}
    edges, border = _class_settings(recipe.get("settings", {}), path)
    listed = Counter(row.get("file_name", "") for row in rows)
    faults = [f"{name}: listed twice" for name, count in listed.items() if count > 1]
    faults += [f"{name:.80}: listed, but not there" for name in listed if name not in names]
    masks = sorted((name for name in names if name.lower().endswith(ENDINGS)), key=natural)
    faults += [f"{name}: there, but not listed" for name in masks if name not in listed]
    job = functools.partial(_check_batch, part=path.absolute(), edges=edges, border=border)
    faults_of_masks, sizes = _check_masks([row for row in rows if row["file_name"] in names], job, run, path.name)
    faults += [f"{name}: {fault}" for name, fault in faults_of_masks]
    return len(rows), faults + _check_sizes(sizes) + _check_counts(recipe, rows)


def _check_masks(rows, job, run, label):
    """Faults of masks as (name, fault), and the set of their shapes. job: `_check_batch` of a part."""
    faults, sizes = [], set()
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    with tqdm(total=len(rows), unit="mask", desc=f"verify {label}") as bar:
        for batch, (faults_of_batch, shapes) in zip(batches, run(job, batches), strict=True):
            faults += faults_of_batch
            sizes |= shapes
            bar.update(len(batch))
    return faults, sizes


def _check_sizes(sizes):
    if len(sizes) < 2:
        return []
    return [f"masks have different sizes: {', '.join(f'{w}x{h}' for h, w in sorted(sizes))}"]


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


def _check_batch(rows, part, edges, border):
    """Faults of some masks as (name, fault), and the set of their shapes. part: a folder, or an archive."""
    faults, shapes = [], set()
    for row in rows:
        name = row["file_name"]
        try:
            data = _archive(part).read(name) if part.is_file() else (part / name).read_bytes()
            grey = decode_grey(data, name)
        except (BadInput, OSError) as error:
            faults.append((name, str(error)))
            continue
        shapes.add(grey.shape)
        if part.is_dir() and (data[:4] != b"\x89PNG" or data[24:26] != b"\x08\x00"):  # in the header of a PNG
            faults.append((name, "expected an 8-bit grey PNG"))
        if others := np.count_nonzero((grey != 0) & (grey != 255)):
            faults.append((name, f"expected 0 and 255 only, {others} pixels have other values"))
        measured = describe(grey >= 128, name, data, edges=edges, border=border)
        if "pixels_sha256" in row:
            measured["pixels_sha256"] = pixels_sha256(grey >= 128)
        for column in MEASURED:
            if column in row and row[column] != str(measured[column]) and not _same_ratio(column, row, measured):
                faults.append((name, f"{column} is {measured[column]}, the index says {row[column]}"))
        group = Path(name).parts[0]
        if group.startswith(("interior_", "free_")) and measured["category"] not in (group, row.get("category")):
            measures = measured["category"] or "outside all classes"
            faults.append((name, f"lies in {group}, but measures as {measures}"))
    return faults, shapes


@lru_cache(maxsize=1)
def _archive(path):
    return open_archive(path)


def _same_ratio(column, row, measured):
    """True if two hole ratios agree to six decimals, however many are written."""
    if column != "hole_ratio":
        return False
    try:
        return abs(float(row[column]) - float(measured[column])) < 1.5e-6
    except ValueError:
        return False


def _check_counts(recipe, rows):
    """Classes whose number of masks differs between index and recipe; for recipes with counts by class."""
    counts = {name: count for name, count in recipe.get("counts", {}).items() if name.startswith(("interior", "free"))}
    if not counts:
        return []
    listed = dict.fromkeys(counts, 0)
    for row in rows:
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
