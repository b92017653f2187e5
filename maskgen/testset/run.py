"""Fill the 6x2 classes of the paper's test set from raw masks."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.generated_set import finish_set, mask_is_intact, open_journal, set_is_intact, sources_of
from maskgen.maskset import INDEX, credit_lines, describe, encode, split_of
from maskgen.runtime import parallel
from maskgen.runtime.files import write_whole
from maskgen.runtime.journal import Journal
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.settings import EDGES, PRESETS, FillConfig
from maskgen.testset.near_duplicates import near_duplicates
from maskgen.testset.one_mask import are_scarce, list_raw_masks, make_mask
from maskgen.testset.tasks import MaskTask, mask_tasks

ROUNDS = "rounds.jsonl"  # in the progress folder: the near-duplicates that were found, round by round
CREDITS = "CREDITS.md"
BATCH = 20  # masks per task of a worker
MAX_ROUNDS = 5  # times that near-duplicates are made again


def make_testset(
    raw: Path | str,
    out: Path | str,
    config: FillConfig | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = print,
) -> dict:
    """Make `out`, a mask set whose `test` part has config.per_category masks of each of the twelve classes.

    raw: a mask set, of which the `test` part is used, or a folder of masks with an index. Resumes an interrupted run,
    and makes missing or changed files of a finished set again. A class that the raw masks cannot fill has fewer masks.
    say: called with lines for the user. Returns the recipe; its `missing` has the number of missing masks by class and
    reason. Raises BadInput if no mask at all can be made, and if `out` holds anything else.
    """
    raw, out = Path(raw), Path(out)
    config = config or FillConfig()
    part, videos = split_of(raw, "test"), sources_of(raw)
    names, digest = list_raw_masks(part)
    recipe = {
        "made_by": "maskgen testset",
        "settings": {**asdict(config), "preset_values": asdict(PRESETS[config.preset])},
        "raw_masks": {"number": len(names), "sha256": digest},
        "libraries": library_versions("opencv", "numpy"),
    }
    with OutputFolder(out, recipe, ignored=(PROGRESS,)) as folder:
        if set_is_intact(folder, "test"):
            for line in (folder.complete_message, *shortfalls(folder.finished)):
                say(line)
            return folder.finished
        tasks = mask_tasks(config, len(names))
        with (
            open_journal(folder, "test", _is_row) as made,
            Journal(folder.progress / ROUNDS, "round", _is_round) as rounds,
        ):
            source = str(part.absolute()), digest
            make = functools.partial(_make_missing, made, folder, source, config, workers=workers, cluster=cluster)
            rows, dropped, closest = _make_distinct(tasks, rounds, make, out / "test", config.alike)
        if not rows:
            raise BadInput(
                f"none of the {len(names)} raw masks in {part} could be made into a mask of any class: expected holes "
                f"of {EDGES[0]:g} of the image or more after dilation; `maskgen show {part}` draws them"
            )
        recipe = _finish(folder, tasks, rows, dropped, closest, videos, len(names))
    for line in shortfalls(recipe):
        say(line)
    return recipe


def shortfalls(recipe: dict) -> list[str]:
    """One line for each class of a test set that lacks masks, with what would help."""
    lines, wanted = [], recipe["settings"]["per_category"]
    for name, missing in recipe["missing"].items():
        motion = "larger" if float(name.split("-")[1]) > 0.3 else "other"
        reasons = {
            "not_made": f"could not be made (add raw masks from videos with {motion} motion)",
            "like_others": "looked like others in every attempt (add more raw masks)",
        }
        reason = "; ".join(f"{number} {reasons[key]}" for key, number in missing.items())
        lines.append(f"{name} has {wanted - sum(missing.values())} of {wanted} masks: {reason}")
    return lines


def _is_row(row):
    """True for a row as `_make_batch` returns it, of a mask or of one that cannot be made."""
    try:
        texts = [row[key] for key in ("file_name", "sha256")]
        numbers = [int(row["attempt"])]
        if row["sha256"]:
            texts += [row[key] for key in ("category", "source", "raw")]
            numbers += [int(row["border_distance"]), float(row["clipped"]), float(row["hole_ratio"])]
        are_numbers = numbers[0] >= 0 and bool(np.isfinite(numbers).all())
        return are_numbers and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _is_round(row):
    return isinstance(row.get("alike"), list)


def _make_distinct(
    tasks: list[MaskTask],
    rounds: Journal,
    make: Callable[[list[MaskTask]], list[dict]],
    folder: Path,
    limit: float,
) -> tuple[list[dict], Counter, float]:
    """Make all masks, and near-duplicates of earlier ones again, up to MAX_ROUNDS times; then drop those left.

    Returns the rows of all masks, how many of each class were dropped, and the highest correlation left. rounds: with
    it an interrupted run repeats the same rounds. make: returns the rows of the masks that could be made, which it
    has written to `folder`.
    """
    attempts = Counter(name for row in rounds.rows.values() for name in row["alike"])
    tasks = [replace(task, attempt=attempts[task.file_name]) for task in tasks]
    while True:
        rows = make(tasks)
        duplicates, closest = near_duplicates([folder / row["file_name"] for row in rows], limit)
        names = {rows[i]["file_name"] for i in duplicates}
        if not duplicates or len(rounds.rows) == MAX_ROUNDS:
            break
        rounds.add({"round": str(len(rounds.rows)), "alike": sorted(names)})
        tasks = [replace(task, attempt=task.attempt + (task.file_name in names)) for task in tasks]
    if duplicates:
        rows = [row for row in rows if row["file_name"] not in names]
        closest = near_duplicates([folder / row["file_name"] for row in rows], limit)[1]
    return rows, Counter(name.split("/")[0] for name in names), closest


def _make_missing(made, folder, source, config, tasks, *, workers, cluster):
    """Make the masks that are not done yet. Returns the rows of all tasks that can be made, in their order."""
    part = folder.path / "test"
    missing = [task for task in tasks if not _is_done(task, made.rows.get(task.file_name), part)]
    if missing:
        scarce = are_scarce(tasks, source, config)
        batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
        job = functools.partial(_make_batch, source=source, folder=str(part.absolute()), config=config, scarce=scarce)
        shared_files = (Path(source[0]) / INDEX, folder.recipe_file)
        with tqdm(total=len(missing), unit="mask", desc="testset") as bar:
            for rows in parallel.run(job, batches, workers=workers, cluster=cluster, shared_files=shared_files):
                for row in rows:
                    made.add(row)
                bar.update(len(rows))
    rows = (made.rows[task.file_name] for task in tasks)
    return [row for row in rows if row["sha256"]]


def _is_done(task, row, part):
    """True if the mask of a task is in its folder, or is known to be impossible."""
    done = row is not None and int(row["attempt"]) == task.attempt
    return done and (not row["sha256"] or mask_is_intact(part, row))


def _make_batch(tasks, source, folder, config, scarce):
    rows = []
    for task in tasks:
        made = make_mask(task, source, config, scarce=scarce)
        if made is None:
            rows.append({"file_name": task.file_name, "attempt": task.attempt, "sha256": ""})
            continue
        hole, columns = made
        data = encode(hole)
        path = Path(folder) / task.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        rows.append({**describe(hole, task.file_name, data), **columns})
    return rows


def _finish(folder, tasks, rows, dropped, closest, videos, raw_masks):
    """Write index, credits, recipe and checksums for the masks in `rows`.

    dropped: number of near-duplicates by class. closest: the highest correlation left. videos: those of the raw masks,
    or None. raw_masks: their number.
    """
    part, kept = folder.path / "test", {row["file_name"] for row in rows}
    for task in tasks:
        if task.file_name not in kept:  # a near-duplicate, or a mask of an earlier attempt
            (part / task.file_name).unlink(missing_ok=True)
    counts, missing = summary(rows, raw_masks), {}
    for name, wanted in Counter(CATEGORIES[task.category] for task in tasks).items():
        number = {"not_made": wanted - counts["counts"][name] - dropped[name], "like_others": dropped[name]}
        if any(number.values()):
            missing[name] = {reason: n for reason, n in number.items() if n}
    used = {name for row in rows for name in row["source"].split(";") if name}
    sources = [{"name": name} for name in sorted(used)]
    if videos is not None:
        sources = [video for video in videos if video["name"] in used]
    credits = f"The masks come from these videos:\n\n{credit_lines(sources)}\n"
    write_whole(folder.path / CREDITS, credits.encode())
    return finish_set(folder, "test", rows, **counts, missing=missing, closest_pair=round(closest, 3), sources=sources)


def summary(rows: list[dict], raw_masks: int) -> dict:
    """Figures for the recipe: masks by class, free masks on the edge, use of raw masks, clipped outlines.

    raw_masks: their number.
    """
    first = Counter(row["raw"].split(";")[0] for row in rows)
    every = Counter(name for row in rows for name in row["raw"].split(";"))
    by_class = {name: [row for row in rows if row["category"] == name] for name in CATEGORIES}
    return {
        "counts": {name: len(members) for name, members in by_class.items()},
        "free_touching_the_edge": sum(
            row["category"].startswith("free") and int(row["border_distance"]) == 0 for row in rows
        ),
        "raw_masks_used": len(every),
        "masks_begun_by_one_raw_mask": [min(first.values()) if len(first) == raw_masks else 0, max(first.values())],
        "masks_that_use_one_raw_mask": [min(every.values()) if len(every) == raw_masks else 0, max(every.values())],
        "clipped": {
            name: {
                "mean": round(float(np.mean([float(row["clipped"]) for row in members])), 4),
                "max": round(float(max(float(row["clipped"]) for row in members)), 4),
            }
            for name, members in by_class.items()
            if members and name.startswith("interior")
        },
    }
