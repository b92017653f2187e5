"""Random training masks as files: what the sampler draws, written as a mask set."""

import functools
import json
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from maskgen.errors import BadInput
from maskgen.maskset import RECIPE, describe, encode, read_recipe, write_index, write_recipe
from maskgen.runtime import parallel
from maskgen.runtime.files import remove_parts, write_checksums, write_whole
from maskgen.runtime.output import alone, occupied
from maskgen.sampler import MaskSampler

BATCH = 50  # masks that one worker makes at a time
IN_A_FOLDER = 1000


@alone("out")
def augment_folder(
    sampler: MaskSampler, out: Path, count: int, *, workers: int | None = None, cluster: str | None = None
) -> int:
    """Write the sampler's masks 0 to count - 1 to `out/train`, with index, recipe and checksums. Returns count.

    Masks that are there already stay, so an interrupted run goes on, and a larger count adds to a smaller one.
    Raises BadInput if `out` holds something else.
    """
    settings = {**asdict(sampler.config), "size": sampler.size, "seed": sampler.seed, "uniform": sampler.uniform}
    settings |= {"polarity": sampler.raw.polarity, "threshold": sampler.raw.threshold, "raw_masks": len(sampler)}
    _check_earlier(out, settings, count)
    write_recipe(out, {"settings": settings, "sources": _sources(sampler.raw.path), "counts": {"train": count}})
    batches = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]
    job = functools.partial(_write_batch, sampler=sampler, folder=(out / "train").absolute())
    sees = (sampler.raw.a_file, out / RECIPE)
    rows = []
    with tqdm(total=count, unit="mask", desc="augment") as bar:
        for made in parallel.run(job, batches, workers=workers, cluster=cluster, sees=sees):
            rows += made
            bar.update(len(made))
    write_index(out / "train", rows)
    write_checksums(out)
    return count


def _check_earlier(out, settings, count):
    """BadInput unless `out` is empty or was begun with the same settings for as many masks or fewer."""
    if (out / RECIPE).exists():
        recipe = read_recipe(out)
        if json.loads(json.dumps(settings)) != recipe.get("settings"):
            raise BadInput(f"{out} holds masks made with other settings: remove it, or name another folder")
        before = recipe.get("counts", {}).get("train")
        if not isinstance(before, int):
            raise BadInput(f"{out / RECIPE} counts no training masks: remove {out}, or name another folder")
        if before > count:
            raise BadInput(f"{out} holds {before} masks already: expected as many or more")
    elif occupied(out):
        raise BadInput(f"{out} is not empty and holds no masks of this command: name another folder")
    (out / "train").mkdir(parents=True, exist_ok=True)
    remove_parts(out)


def _sources(raw):
    """The videos of the raw masks, where their recipe tells; else the name of the folder or archive."""
    for folder in (raw, raw.parent):
        if folder.is_dir() and (folder / RECIPE).exists():
            sources = read_recipe(folder).get("sources", [])
            return [source for source in sources if source.get("split", "train") == "train"]
    return [{"name": raw.name}]


def _write_batch(numbers, sampler, folder):
    rows = []
    for i in numbers:
        hole, told = sampler.sample(i)
        data = encode(hole)
        name = f"{i // IN_A_FOLDER:04d}/{i:06d}.png"
        path = folder / name
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        rows.append({**describe(hole, name, data), **told, "seed": f"{sampler.seed} {i}"})
    return rows
