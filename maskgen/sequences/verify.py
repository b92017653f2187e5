"""Measure a set of mask sequences again and list all that differs from its index and checksums."""

import functools
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen.archives import open_archive
from maskgen.errors import BadInput
from maskgen.maskset import decode_grey, pixels_sha256
from maskgen.runtime import parallel
from maskgen.runtime.output import PROGRESS
from maskgen.sequences.index import INDEX, MEASURED, PIXELS, frame_name, read_index
from maskgen.sequences.measure import describe
from maskgen.sequences.reader import ENDING, Sequences, packed_rows

BATCH = 8  # sequences per task of a worker


def find_faults(folder: Path, *, workers: int | None = None, cluster: str | None = None) -> tuple[int, list[str]]:
    """Check every frame of a set. Returns the number of sequences in its index, and its faults, one line each."""
    from maskgen.verify import check_checksums

    rows = read_index(folder)
    run = functools.partial(parallel.run, workers=workers, cluster=cluster, shared_files=[folder / INDEX])
    job = functools.partial(_check_batch, folder=folder.absolute())
    faults, listed = [], set()
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    with tqdm(total=len(rows), unit="sequence", desc="verify") as bar:
        for batch, faults_of_batch in zip(batches, run(job, batches), strict=True):
            faults += faults_of_batch
            bar.update(len(batch))
    for row in rows:
        if row["sequence"] in listed:
            faults.append(f"{row['sequence']}: listed twice")
        listed.add(row["sequence"])
    for split in ("train", "test"):
        found = sorted(f"{split}/{path.name}" for path in (folder / split).glob("*") if path.is_dir())
        faults += [f"{name}: there, but not listed" for name in found if name not in listed]
    if (folder / PROGRESS).is_dir():
        faults.append("the set is unfinished: the command that makes it was interrupted")
    return len(rows), faults + check_checksums(folder, run)


def find_faults_of_packed(
    path: Path, *, workers: int | None = None, cluster: str | None = None
) -> tuple[int, list[str]]:
    """Check every sequence of a packed file. Returns the number of sequences in its index, and its faults."""
    sequences = Sequences(path)
    names = [row["sequence"] for row in packed_rows(path)]
    faults = [f"{name}: listed twice" for name, number in Counter(names).items() if number > 1]
    found = (name.removesuffix(ENDING) for name in open_archive(path).names() if name.endswith(ENDING))
    faults += [f"{name}: there, but not listed" for name in found if name not in set(names)]
    job = functools.partial(_check_packed_batch, sequences=sequences)
    batches = [sequences.names[i : i + BATCH] for i in range(0, len(sequences), BATCH)]
    with tqdm(total=len(sequences), unit="sequence", desc=f"verify {path.name}") as bar:
        for faults_of_batch in parallel.run(job, batches, workers=workers, cluster=cluster, shared_files=[path]):
            faults += faults_of_batch
            bar.update(BATCH)
    return len(names), faults


def _check_packed_batch(names, sequences):
    faults = []
    for name in names:
        try:
            holes = sequences[name]
        except BadInput as error:
            faults.append(str(error))
            continue
        row, measured = sequences.row(name), {**describe(holes, []), PIXELS: pixels_sha256(holes)}
        columns = (*MEASURED, *[PIXELS] * (PIXELS in row))
        faults += _differences(name, row, measured, columns)
    return faults


def _check_batch(rows, folder):
    return [fault for row in rows for fault in _faults_of(row, folder)]


def _faults_of(row, folder):
    """Faults of one sequence, one line each."""
    name, place = row["sequence"], folder / row["sequence"]
    found = sorted(path.name for path in place.glob("*.png"))
    expected = [frame_name(t) for t in range(int(row["frames"]) if row["frames"].isdecimal() else 0)]
    if len(found) < 2 or found != expected:
        missing, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        what = f"{missing[0]} is missing" if missing else f"{more[0]} is there" if more else f"{len(found)} frames"
        return [f"{name}: {what}, the index says {row['frames']} frames"]
    pictures, faults, holes = [(place / file).read_bytes() for file in found], [], []
    for file, data in zip(found, pictures, strict=True):
        try:
            grey = decode_grey(data, file)
        except BadInput as error:
            return [f"{name}/{error}"]
        if others := np.count_nonzero((grey != 0) & (grey != 255)):
            faults.append(f"{name}/{file}: expected 0 and 255 only, {others} pixels have other values")
        holes.append(grey >= 128)
    if len({hole.shape for hole in holes}) > 1:
        return [*faults, f"{name}: frames have different sizes"]
    holes = np.stack(holes)
    measured = {**describe(holes, pictures), PIXELS: pixels_sha256(holes)}
    return faults + _differences(name, row, measured, (*MEASURED, *[PIXELS] * (PIXELS in row), "sha256"))


def _differences(name, row, measured, columns):
    """What differs between the row of an index and what was measured, one line each."""
    return [
        f"{name}: {column} is {measured[column]}, the index says {row[column]}"
        for column in columns
        if row[column] != measured[column]
    ]
