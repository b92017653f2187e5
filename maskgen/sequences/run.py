"""Mask sequences as files: videos and raw masks in, a set of folders of frames out."""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from maskgen.canonical import raw_path
from maskgen.errors import BadInput
from maskgen.extraction import flow, schedule, video
from maskgen.extraction.run import probe_sources, recipe_sources
from maskgen.extraction.video import SPLITS
from maskgen.generated_set import files_are_intact, open_journal, sources_of
from maskgen.maskset import Masks
from maskgen.runtime import parallel
from maskgen.runtime.files import CHECKSUMS, sha256, sha256_of_files, write_checksums
from maskgen.runtime.lock import locked
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.sequences.film import Footage
from maskgen.sequences.index import INDEX, frames_sha256, is_row, write_index
from maskgen.sequences.measure import CATEGORIES
from maskgen.sequences.raw import RawMasks, raw_masks_of
from maskgen.sequences.settings import FROM_RAW, FROM_VIDEO, SequenceConfig
from maskgen.sequences.task import Material, make_batch, tasks_of
from maskgen.settings import ExtractConfig

BATCH = {True: 1, False: 16}  # sequences per task of a worker, by whether they need video


def make_sequences(
    videos: Path | str | Iterable[Path | str],
    raw: Path | str | None,
    out: Path | str,
    config: SequenceConfig | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    strict: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Make mask sequences and write them as a set. Returns its recipe.

    videos: video files, folders of frames, or folders of those; used by the modes "tracked" and "occlusion". raw: a
    mask set, a folder or an archive of raw masks, used by all modes but "occlusion"; None: those that come with the
    package. out: a new folder, or the folder of an earlier run with the same arguments: an interrupted one is resumed,
    and missing or changed files of a finished one are made again. config: the settings. workers, cluster, strict, say:
    as in `maskgen.extract`. Raises BadInput for what the user can correct, and if no sequence can be made.
    """
    videos = [Path(path) for path in ([videos] if isinstance(videos, Path | str) else videos)]
    raw, out, config = raw_path(raw), Path(out), config or SequenceConfig()
    wanted = {split: getattr(config, split) for split in SPLITS if getattr(config, split)}
    flow.flow_named(config.flow)
    config = replace(config, flow=flow.absolute(config.flow))
    masks = raw_masks_of(raw, wanted) if set(config.modes) & set(FROM_RAW) else {}
    with locked(out):
        segments, unusable = [], []
        if set(config.modes) & set(FROM_VIDEO):
            segments, unusable = _segments(videos, out, config, workers, cluster, strict, say)
        recipe = _recipe(config, masks, segments)
        with OutputFolder(
            out, recipe, info={"unusable": unusable}, item_info=video.CREDIT, ignored=(PROGRESS,)
        ) as folder:
            if files_are_intact(folder, INDEX):
                say(folder.complete_message)
                return folder.finished
            return _fill(folder, config, masks, segments, sources_of(raw) if masks else None, workers, cluster)


def _segments(videos, out, config, workers, cluster, strict, say):
    """The parts of videos that serve each split and are long enough; and a row for each unusable video."""
    sources, unusable = probe_sources(videos, out, workers, cluster, strict, say)
    as_extract = ExtractConfig(train=config.train, test=config.test, gaps=(config.frames - 1,), seed=config.seed)
    segments = schedule.assign_splits(sources, as_extract, say)
    long = [segment for segment in segments if segment.stop - segment.start >= config.frames]
    for segment in segments:
        if segment not in long:
            number = segment.stop - segment.start
            say(f"{segment.source.path} is not used: {number} frames for {segment.split}, fewer than {config.frames}")
    for split in SPLITS:
        if getattr(config, split) and not any(segment.split == split for segment in long):
            raise BadInput(
                f"no video for {split} has {config.frames} frames or more: give longer videos, fewer --frames, or ask "
                f"for no such sequences with --{split} 0"
            )
    return long, unusable


def _recipe(config, masks, segments):
    """All that decides the result."""
    libraries = ["opencv", "numpy"]
    settings = {**asdict(config), "flow": flow.identity(config.flow)}
    recipe = {"made_by": "maskgen sequences", "settings": settings}
    if masks:
        recipe["raw_masks"] = _content(next(iter(masks.values())).masks, masks)
    if segments:
        libraries += ["av", "pillow", *flow.packages(config.flow)]
        recipe["videos"] = recipe_sources(segments)
    return {**recipe, "libraries": library_versions(*libraries)}


def _content(first: Masks, masks: dict[str, RawMasks]) -> dict:
    """The number of raw masks by split, and a hash of their names and bytes, or of the archive they are in."""
    digest = hashlib.sha256()
    for path in dict.fromkeys(raw.masks.path for raw in masks.values()):
        names = next(raw.masks.names for raw in masks.values() if raw.masks.path == path)
        digest.update((sha256_of_files(path, names) if path.is_dir() else sha256(path)).encode())
    return {"number": {split: len(raw) for split, raw in masks.items()}, "sha256": digest.hexdigest()}


def _fill(folder, config, masks, segments, raw_sources, workers, cluster):
    """Make the sequences that are not done, then write index, recipe and checksums. Returns the recipe."""
    by_split = {split: [one for one in segments if one.split == split] for split in SPLITS}
    groups = {split: _groups(of_split) for split, of_split in by_split.items()}
    footage = {split: [Footage.of(segment) for segment in of_split] for split, of_split in by_split.items()}
    material = Material(config, masks, footage, folder.path.absolute())
    tasks = tasks_of(config, groups)
    with open_journal(folder, "", is_row, index=INDEX, key="sequence") as made:
        missing = [task for task in tasks if not _is_done(task, made.rows, folder.path, config.frames)]
        job = functools.partial(make_batch, material=material)
        shared_files = [folder.recipe_file, *(one.masks.probe_file for one in masks.values())]
        shared_files += [segment.source.path for segment in segments[:1]]
        with tqdm(total=len(missing), unit="sequence", desc="sequences", smoothing=0.05) as bar:
            for rows in parallel.run(
                job, list(_batches(missing)), workers=workers, cluster=cluster, shared_files=shared_files
            ):
                for row in rows:
                    made.add(row)
                bar.update(len(rows))
        rows = [made.rows[task.name] for task in tasks]
    done = [row for row in rows if row["sha256"]]
    if not done:
        raise BadInput(f"no sequence could be made: windows of video were passed over {_reasons(rows)}")
    (folder.path / CHECKSUMS).unlink(missing_ok=True)  # if the run is killed now, none is better than outdated ones
    write_index(folder.path, done)
    used = {row.get("source") for row in done}
    videos = [one for one in recipe_sources(segments) if one["name"] in used] if segments else []
    recipe = folder.finish(counts=_counts(rows), sources=_sources(videos, raw_sources))
    write_checksums(folder.path)
    return recipe


def _groups(segments):
    """The places of the videos of each group in a list of segments."""
    groups = {}
    for i, segment in enumerate(segments):
        source = segment.source
        groups.setdefault(("group", source.group) if source.group else ("source", source.name), []).append(i)
    return list(groups.values())


def _batches(tasks):
    """Tasks in batches, those that take long first, so that all workers end at about the same time."""
    for needs_video in (True, False):
        of_kind = iter([task for task in tasks if (task.mode in FROM_VIDEO) == needs_video])
        while batch := list(islice(of_kind, BATCH[needs_video])):
            yield batch


def _is_done(task, rows, folder, frames):
    """True if the frames of a sequence are there as recorded, or if it is known to be impossible."""
    row = rows.get(task.name)
    if row is None or not row["sha256"]:
        return row is not None
    return frames_sha256(folder / task.name, frames) == row["sha256"]


def _sources(videos, raw_sources):
    """The videos that the sequences come from, directly or by raw masks, each once."""
    found = {source["name"]: source for source in [*videos, *(raw_sources or [])]}
    return list(found.values())


def _counts(rows):
    """Sequences by split, mode and class; the missing ones by mode; and why windows of video were passed over."""
    done = [row for row in rows if row["sha256"]]
    reasons = Counter(reason for row in rows for reason in row["passed_over"].split(";") if reason)
    categories = Counter(row["category"] for row in done)
    return {
        **{split: sum(row["split"] == split for row in done) for split in SPLITS},
        "modes": dict(Counter(row["mode"] for row in done)),
        "classes": {name: categories[name] for name in (*CATEGORIES, "") if categories[name]},
        "missing": dict(Counter(f"{row['split']}/{row['mode']}" for row in rows if not row["sha256"])),
        "passed_over": dict(reasons.most_common()),
    }


def _reasons(rows):
    return ", ".join(f"{number} {reason}" for reason, number in _counts(rows)["passed_over"].items())


def summary(recipe: dict) -> list[str]:
    """What a run made and what is missing, as lines for the user. recipe: of a finished run."""
    counts = recipe["counts"]
    lines = [
        f"{counts['train']} sequences for training, {counts['test']} for testing: "
        + ", ".join(f"{number} {mode}" for mode, number in counts["modes"].items())
    ]
    for name, number in counts["missing"].items():
        lines.append(
            f"{name}: {number} sequences could not be made: add videos in which more moves, without scene cuts"
        )
    if counts["passed_over"]:
        reasons = ", ".join(f"{number} {reason}" for reason, number in counts["passed_over"].items())
        lines.append(f"windows of video passed over: {reasons}")
    return [*lines, class_table(counts["classes"])]


def class_table(counts: dict[str, int]) -> str:
    """A table of the number of sequences by hole ratio and motion."""
    motions = list(dict.fromkeys(name.partition("_")[2] for name in CATEGORIES))
    lines = [f"{'hole ratio':<12}" + "".join(f"{motion:>8}" for motion in motions)]
    for interval in dict.fromkeys(name.partition("_")[0] for name in CATEGORIES):
        low, high = interval.split("-")
        cells = (counts.get(f"{interval}_{motion}", 0) for motion in motions)
        lines.append(f"{f'({low}, {high}]':<12}" + "".join(f"{cell:>8}" for cell in cells))
    if other := counts.get("", 0):
        lines.append(f"{other} outside all classes")
    return "\n".join(lines)
