"""Random training masks as files: what the sampler draws, written as a mask set."""

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from maskgen.checks import expect, whole
from maskgen.making import finish, is_there, is_whole, journal_of, sources_of
from maskgen.maskset import describe, encode
from maskgen.runtime import parallel
from maskgen.runtime.files import sha256, sha256_of_files, write_whole
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.sampler import MaskSampler

BATCH = 50  # masks that one worker makes at a time
IN_A_FOLDER = 1000


def augment_folder(
    sampler: MaskSampler,
    out: Path,
    count: int,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Write the sampler's masks 0 to count - 1 to `out/train`, with index, recipe and checksums. Returns count.

    Masks that are there already stay, so an interrupted run goes on, and a larger count adds to a smaller one. say: is
    called with lines for the user. Raises BadInput if `out` holds anything else.
    """
    expect("count", count, whole(1))
    raw = sampler.raw
    recipe = {
        "made_by": "maskgen augment",
        "settings": {
            **asdict(sampler.config),
            "size": sampler.size,
            "seed": sampler.seed,
            "uniform": sampler.uniform,
            "polarity": raw.polarity,
            "threshold": raw.threshold,
        },
        "raw_masks": {"number": len(raw), "sha256": _digest(raw)},
        "count": count,
        "libraries": library_versions("opencv", "numpy"),
    }
    sources = _sources(raw.path)
    with OutputFolder(out, recipe, rises=("count",), ignored=(PROGRESS,)) as folder:
        if is_whole(folder, "train"):
            say(folder.complete_message)
            return count
        names = {_file_name(i): i for i in range(count)}
        with journal_of(folder, "train", _is_row) as made:
            rows = made.rows
            missing = [i for name, i in names.items() if name not in rows or not is_there(out / "train", rows[name])]
            batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
            job = functools.partial(_write_batch, sampler=sampler, folder=(out / "train").absolute())
            shared_files = (raw.a_file, folder.recipe_file)
            with tqdm(total=len(missing), unit="mask", desc="augment") as bar:
                for batch in parallel.run(job, batches, workers=workers, cluster=cluster, shared_files=shared_files):
                    for row in batch:
                        made.add(row)
                    bar.update(len(batch))
        finish(folder, "train", [rows[name] for name in names], sources=sources, counts={"train": count})
    return count


def _digest(raw):
    """A hash of the raw masks' names and bytes, or of the archive that has them."""
    return sha256_of_files(raw.path, raw.names) if raw.path.is_dir() else sha256(raw.path)


def _file_name(i):
    return f"{i // IN_A_FOLDER:04d}/{i:06d}.png"


def _is_row(row):
    """Whether a line of the journal or the index is a row as we write it."""
    texts = ("file_name", "category", "hole_ratio", "sha256", "raw", "seed")
    return all(isinstance(row.get(key), str) for key in texts)


def _sources(raw):
    """The videos of the raw masks, where their recipe tells; else the name of the folder or archive."""
    sources = sources_of(raw)
    if sources is None:
        return [{"name": raw.name}]
    return [source for source in sources if source.get("split", "train") == "train"]


def _write_batch(numbers, sampler, folder):
    rows = []
    for i in numbers:
        hole, told = sampler.sample(i)
        data, name = encode(hole), _file_name(i)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        rows.append({**describe(hole, name, data), **told, "seed": f"{sampler.seed} {i}"})
    return rows
