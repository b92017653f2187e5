"""Random training masks as files: what the sampler draws, written as a mask set."""

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from maskgen.checks import expect, whole
from maskgen.generated_set import finish_set, mask_is_intact, open_journal, set_is_intact, sources_of
from maskgen.maskset import describe, encode
from maskgen.runtime import parallel
from maskgen.runtime.files import sha256, sha256_of_files, write_whole
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.sampler import MaskSampler

BATCH = 50  # masks per task of a worker
FOLDER_SIZE = 1000  # masks per folder


def augment_folder(
    sampler: MaskSampler,
    out: Path | str,
    count: int,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Write the sampler's masks 0 to count - 1 to `out/train`, with index, recipe and checksums. Returns count.

    Resumes an interrupted run, and extends a set with a smaller count. say: called with lines for the user. Raises
    BadInput if `out` holds anything else.
    """
    out = Path(out)
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
        "raw_masks": {"number": len(raw), "sha256": _content_hash(raw)},
        "count": count,
        "libraries": library_versions("opencv", "numpy"),
    }
    sources = _sources(raw.path)
    with OutputFolder(out, recipe, rises=("count",), ignored=(PROGRESS,)) as folder:
        if set_is_intact(folder, "train"):
            say(folder.complete_message)
            return count
        part, names = out / "train", {_file_name(i): i for i in range(count)}
        with open_journal(folder, "train", _is_row) as made:
            rows = made.rows
            missing = [i for name, i in names.items() if name not in rows or not mask_is_intact(part, rows[name])]
            batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
            job = functools.partial(_make_batch, sampler=sampler, folder=part.absolute())
            shared_files = (raw.probe_file, folder.recipe_file)
            with tqdm(total=len(missing), unit="mask", desc="augment") as bar:
                for batch in parallel.run(job, batches, workers=workers, cluster=cluster, shared_files=shared_files):
                    for row in batch:
                        made.add(row)
                    bar.update(len(batch))
        finish_set(folder, "train", [rows[name] for name in names], sources=sources, counts={"train": count})
    return count


def _content_hash(raw):
    """A hash of the raw masks' names and bytes, or of the archive they are in."""
    return sha256_of_files(raw.path, raw.names) if raw.path.is_dir() else sha256(raw.path)


def _file_name(i):
    return f"{i // FOLDER_SIZE:04d}/{i:06d}.png"


def _is_row(row):
    """True for a row as `_make_batch` returns it."""
    texts = ("file_name", "category", "hole_ratio", "sha256", "raw", "seed")
    return all(isinstance(row.get(key), str) for key in texts)


def _sources(raw):
    """The training videos of the raw masks from their recipe; without one, the name of the folder or archive."""
    sources = sources_of(raw)
    if sources is None:
        return [{"name": raw.name}]
    return [source for source in sources if source.get("split", "train") == "train"]


def _make_batch(numbers, sampler, folder):
    rows = []
    for i in numbers:
        hole, columns = sampler.sample(i)
        data, name = encode(hole), _file_name(i)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        rows.append({**describe(hole, name, data), **columns, "seed": f"{sampler.seed} {i}"})
    return rows
