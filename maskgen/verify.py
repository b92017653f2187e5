"""Measure a mask set again and list all that differs from its index, recipe and checksums."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path, PurePath

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
    leads_inside,
    names_by_folder,
    natural,
    parse_rows,
    sha256,
)
from maskgen.runtime.images import ENDINGS
from maskgen.runtime.names import Names
from maskgen.runtime.output import PROGRESS
from maskgen.runtime.recipe import RECIPE
from maskgen.runtime.rows import Rows
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
    listed: Counter[str | None] = Counter()
    run = functools.partial(
        parallel.run, workers=workers, cluster=cluster, shared_files=[part / INDEX for part in parts]
    )
    for part in parts:
        rows = Rows(part / INDEX)
        faults_of_index, left_out = _check_names(rows, part, folder)
        faults += faults_of_index
        number += len(rows) - len(left_out)
        job = functools.partial(_check_batch, part=part.absolute(), edges=edges, border=border)
        existing = (row for i, row in enumerate(rows) if i not in left_out)
        faults_of_masks, shapes = _check_masks(existing, len(rows) - len(left_out), job, run, part.name)
        label = part.relative_to(folder)
        faults += [f"{label / name}: {fault}" for name, fault in faults_of_masks]
        sizes |= shapes
        listed.update(row.get("category") for row in rows)
    if not settings.get("any_size"):
        faults += _check_sizes(sizes)
    if (folder / PROGRESS).is_dir():
        faults.append("the set is unfinished: the command that makes it was interrupted")
    faults += _check_counts(recipe, listed)
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
    existing = [row for row in rows if row["file_name"] in names]
    faults_of_masks, sizes = _check_masks(existing, len(existing), job, run, path.name)
    faults += [f"{name}: {fault}" for name, fault in faults_of_masks]
    in_classes = Counter(row.get("category") for row in rows)
    return len(rows), faults + _check_sizes(sizes) + _check_counts(recipe, in_classes)


def _check_masks(rows, number, job, run, label):
    """Faults of masks as (name, fault), and the set of their shapes. rows: `number` of them. job: `_check_batch`."""
    faults, sizes, rows = [], set(), iter(rows)
    batches = iter(lambda: list(islice(rows, BATCH)), [])
    with tqdm(total=number, unit="mask", desc=f"verify {label}") as bar:
        for faults_of_batch, shapes in run(job, batches):
            faults += faults_of_batch
            sizes |= shapes
            bar.update(min(BATCH, number - bar.n))
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


def _check_names(rows, part, folder):
    """Faults of an index: masks that are missing, listed twice or not listed; and the numbers of the rows of such."""
    if len(rows) and "file_name" not in rows.columns:
        raise BadInput(f"{part / INDEX} has no column file_name: expected the index of a mask set")
    label = part.relative_to(folder)
    faults, left_out = [], set()
    listed = Names(row["file_name"] for row in rows)
    for i, (name, first) in enumerate(zip(listed, listed.places(listed), strict=True)):
        if first < i:
            faults.append(f"{label / name}: listed twice")
        elif not leads_inside(name):
            faults.append(f"{name:.80}: leads out of the mask set")
        elif not _exists(part / name):
            faults.append(f"{label / name}: listed, but not there")
        else:
            continue
        left_out.add(i)
    if label.parts or not any((part / split).is_dir() for split in ("train", "test")):
        listed = Names(PurePath(name).as_posix() for name in listed)  # a//b.png is a/b.png
        more = listed.missing(names_by_folder(part, ENDINGS))
        faults += [f"{label / name}: there, but not listed" for name in sorted(more, key=natural)]
    return faults, left_out


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


def _check_counts(recipe, listed):
    """Classes whose number of masks differs between index and recipe; for recipes with counts by class."""
    counts = {name: count for name, count in recipe.get("counts", {}).items() if name.startswith(("interior", "free"))}
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
    job, faults = functools.partial(_check_files, folder=folder.absolute()), []
    with (folder / CHECKSUMS).open(encoding="utf-8", errors="replace") as file:
        lines = (line.rstrip("\n").partition("  ")[::2] for line in file)
        for faults_of_batch in run(job, iter(lambda: list(islice(lines, FILE_BATCH)), [])):
            faults += faults_of_batch
        file.seek(0)
        listed = Names(line.rstrip("\n").partition("  ")[2] for line in file)
    more = listed.missing(checksummed_files(folder))
    return faults + [f"{name}: there, but not in {CHECKSUMS}" for name in sorted(more, key=lambda n: n.split("/"))]


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
