"""Fill the 6x2 classes of the paper's test set out of raw masks."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.fill import Task, are_few, make_one, raw_masks
from maskgen.likeness import alike
from maskgen.making import finish, is_there, is_whole, journal_of, sources_of
from maskgen.maskset import INDEX, credit_lines, describe, encode, split_of
from maskgen.runtime import parallel
from maskgen.runtime.files import write_whole
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.settings import EDGES, PRESETS, FillConfig

ROUNDS = "rounds.jsonl"  # in the folder of an unfinished run: which masks were too much like others, round by round
CREDITS = "CREDITS.md"
BATCH = 20  # masks that one worker makes at a time
REMADE = 5  # rounds in which masks that are too much alike are made anew


def make_testset(
    raw: Path,
    out: Path,
    config: FillConfig | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Make `out`, a mask set whose `test` part has config.per_category masks of each of the twelve classes.

    raw: a mask set, of which the `test` part is used, or a folder of masks with an index. Goes on where an
    interrupted run stopped, and makes again what a finished set has lost. A class that the raw masks cannot fill is
    left short. say: is called with lines for the user. Returns the recipe, whose `missing` tells how many masks of
    a class are missing and why. Raises BadInput if no mask at all could be made, or if `out` holds anything else.
    """
    config = config or FillConfig()
    part, known = split_of(raw, "test"), sources_of(raw)
    names, digest = raw_masks(part)
    recipe = {
        "made_by": "maskgen testset",
        "settings": {**asdict(config), "preset_values": asdict(PRESETS[config.preset])},
        "raw_masks": {"number": len(names), "sha256": digest},
        "libraries": library_versions("opencv", "numpy"),
    }
    with OutputFolder(out, recipe, ignored=(PROGRESS,)) as folder:
        if is_whole(folder, "test"):
            for line in (folder.complete_message, *shortfalls(folder.finished)):
                say(line)
            return folder.finished
        tasks = plan(config, len(names))
        with (
            journal_of(folder, "test", _is_row) as made,
            Journal(folder.progress / ROUNDS, "round", _is_round) as rounds,
        ):
            source = str(part.absolute()), digest
            make = functools.partial(_make, made, folder, source, config, workers=workers, cluster=cluster)
            rows, dropped, closest = _tell_apart(tasks, rounds, make, out / "test", config)
        if not rows:
            raise BadInput(
                f"none of the {len(names)} raw masks in {part} could be made into a mask of any class: expected holes "
                f"of {EDGES[0]:g} of the image or more once they are widened; `maskgen show {part}` draws them"
            )
        recipe = _finish(folder, tasks, rows, dropped, closest, known, len(names))
    for line in shortfalls(recipe):
        say(line)
    return recipe


def shortfalls(recipe: dict) -> list[str]:
    """One line for each class of a test set that is short of masks, with what would help."""
    lines, wanted = [], recipe["settings"]["per_category"]
    for name, missing in recipe["missing"].items():
        motion = "larger" if float(name.split("-")[1]) > 0.3 else "other"
        reasons = {
            "not_made": f"could not be made, which raw masks from videos with {motion} motion would mend",
            "like_others": "looked like others however often they were drawn, which more raw masks would mend",
        }
        why = "; ".join(f"{number} {reasons[reason]}" for reason, number in missing.items())
        lines.append(f"{name} has {wanted - sum(missing.values())} of {wanted} masks: {why}")
    return lines


def plan(config: FillConfig, raws: int) -> list[Task]:
    """What every mask shall be: ratios evenly over each class, raw masks evenly over all masks.

    Each interval is cut into as many steps as there are masks and a ratio drawn from each. Masks and raw masks are
    then paired by size, with some disorder, so that every raw mask begins the same number of masks, give or take
    one, and small ones do not have to become large holes.
    """
    number = config.per_category
    size = config.size**2
    ratios = np.empty((len(CATEGORIES), number))
    for c in range(len(CATEGORIES)):
        rng = np.random.default_rng([config.seed, c])
        low, high = EDGES[c % 6], EDGES[c % 6 + 1]
        counts = np.floor((high - (high - low) * (np.arange(number) + rng.uniform(0, 1, number)) / number) * size)
        ratios[c] = rng.permutation(np.clip(counts, np.floor(low * size) + 1, np.floor(high * size)) / size)
    rng = np.random.default_rng([config.seed, len(CATEGORIES)])
    total = ratios.size
    places = np.concatenate([rng.permutation(raws) for _ in range(-(-total // raws))])[:total]
    noisy_places = np.sort(places)  # raw masks, by size, each as often as any other
    order = np.argsort(ratios.ravel() * np.exp(rng.normal(0, 0.5, total)), kind="stable")
    ranks = np.empty(total, int)
    ranks[order] = noisy_places
    return [
        Task(c, k, float(ratios[c, k]), int(ranks[c * number + k]))
        for c in range(len(CATEGORIES))
        for k in range(number)
    ]


def _is_row(row):
    """Whether a line of the journal or the index is a row as we write it, or tells of a mask that could not be made."""
    try:
        texts = [row[key] for key in ("file_name", "sha256")]
        if row["sha256"]:
            texts += [row[key] for key in ("category", "source", "raw")]
            numbers = int(row["border_distance"]), float(row["clipped"]), float(row["hole_ratio"])
            texts += [] if numbers == numbers else [None]  # NaN is no number
        return int(row["attempt"]) >= 0 and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, ValueError):
        return False


def _is_round(row):
    return isinstance(row.get("alike"), list)


def _tell_apart(tasks, rounds, make, folder, config):
    """Make all masks, and anew the later one of any two that are alike, for REMADE rounds; then drop it.

    Returns the rows of all masks that there are, how many of each class were dropped, and the closest pair. rounds: a
    Journal, so that an interrupted run goes through the same rounds. make: called with tasks, returns the rows of their
    masks, which it has written to `folder`.
    """
    attempts = Counter(name for row in rounds.rows.values() for name in row["alike"])
    tasks = [replace(task, attempt=attempts[task.file_name]) for task in tasks]
    while True:
        rows = make(tasks)
        later, closest = alike([folder / row["file_name"] for row in rows], config.alike)
        names = {rows[i]["file_name"] for i in later}
        if not later or len(rounds.rows) == REMADE:
            break
        rounds.add({"round": str(len(rounds.rows)), "alike": sorted(names)})
        tasks = [replace(task, attempt=task.attempt + (task.file_name in names)) for task in tasks]
    if later:
        rows = [row for row in rows if row["file_name"] not in names]
        closest = alike([folder / row["file_name"] for row in rows], config.alike)[1]
    return rows, Counter(name.split("/")[0] for name in names), closest


def _make(made, folder, source, config, tasks, *, workers, cluster):
    """The rows of all tasks that can be made, in their order; makes the masks that are not there."""
    part = folder.path / "test"
    missing = [task for task in tasks if not _is_made(task, made.rows.get(task.file_name), part)]
    if missing:
        few = are_few(tasks, source, config)
        batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
        job = functools.partial(_make_batch, source=source, folder=str(part.absolute()), config=config, few=few)
        shared_files = (Path(source[0]) / INDEX, folder.recipe_file)
        with tqdm(total=len(missing), unit="mask", desc="testset") as bar:
            for rows in parallel.run(job, batches, workers=workers, cluster=cluster, shared_files=shared_files):
                for row in rows:
                    made.add(row)
                bar.update(len(rows))
    rows = (made.rows[task.file_name] for task in tasks)
    return [row for row in rows if row["sha256"]]


def _is_made(task, row, part):
    """Whether a task is done: its mask is there, or it is known that none can be made."""
    done = row is not None and int(row["attempt"]) == task.attempt
    return done and (not row["sha256"] or is_there(part, row))


def _make_batch(tasks, source, folder, config, few):
    rows = []
    for task in tasks:
        made = make_one(task, source, config, few=few)
        if made is None:
            rows.append({"file_name": task.file_name, "attempt": task.attempt, "sha256": ""})
            continue
        hole, told = made
        data = encode(hole)
        path = Path(folder) / task.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        rows.append({**describe(hole, task.file_name, data), **told})
    return rows


def _finish(folder, tasks, rows, dropped, closest, known, raws):
    """Write index, credits, recipe and checksums for the masks in `rows`.

    dropped: how many masks of each class looked like others. known: the videos in the recipe of the raw masks.
    """
    part, kept = folder.path / "test", {row["file_name"] for row in rows}
    for task in tasks:
        if task.file_name not in kept:  # one that looks like another, or of an earlier attempt
            (part / task.file_name).unlink(missing_ok=True)
    counts, missing = summary(rows, raws), {}
    for name, wanted in Counter(CATEGORIES[task.category] for task in tasks).items():
        number = {"not_made": wanted - counts["counts"][name] - dropped[name], "like_others": dropped[name]}
        if any(number.values()):
            missing[name] = {reason: n for reason, n in number.items() if n}
    used = {name for row in rows for name in row["source"].split(";") if name}
    sources = [{"name": name} for name in sorted(used)]
    if known is not None:
        sources = [source for source in known if source["name"] in used]
    credits = f"The masks come from these videos:\n\n{credit_lines(sources)}\n"
    write_whole(folder.path / CREDITS, credits.encode())
    return finish(folder, "test", rows, **counts, missing=missing, closest_pair=round(closest, 3), sources=sources)


def summary(rows: list[dict], raws: int) -> dict:
    """Counts that a reader of the test set wants: masks a class, free ones on the edge, use of raw masks, clipping."""
    first = Counter(row["raw"].split(";")[0] for row in rows)
    every = Counter(name for row in rows for name in row["raw"].split(";"))
    by_class = {name: [row for row in rows if row["category"] == name] for name in CATEGORIES}
    return {
        "counts": {name: len(found) for name, found in by_class.items()},
        "free_touching_the_edge": sum(
            row["category"].startswith("free") and int(row["border_distance"]) == 0 for row in rows
        ),
        "raw_masks_used": len(every),
        "masks_begun_by_one_raw_mask": [min(first.values()) if len(first) == raws else 0, max(first.values())],
        "masks_that_use_one_raw_mask": [min(every.values()) if len(every) == raws else 0, max(every.values())],
        "clipped": {
            name: {
                "mean": round(float(np.mean([float(row["clipped"]) for row in found])), 4),
                "max": round(float(max(float(row["clipped"]) for row in found)), 4),
            }
            for name, found in by_class.items()
            if found and name.startswith("interior")
        },
    }
