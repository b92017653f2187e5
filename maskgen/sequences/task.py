"""Which sequences a run makes, and how one of them is made. Each depends on its own seed only, not on the others."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskgen.extraction.video import SPLITS
from maskgen.maskset import encode
from maskgen.runtime.files import write_whole
from maskgen.sequences.film import Footage, random_crop, read_window
from maskgen.sequences.filmed import NO_RATIO, occlusion_holes, tracked_holes
from maskgen.sequences.index import frame_name
from maskgen.sequences.measure import describe, measure
from maskgen.sequences.moving import moving_holes
from maskgen.sequences.raw import RawMasks
from maskgen.sequences.settings import FROM_VIDEO, MODES, SequenceConfig

WINDOWS = 12  # of video that are tried for one sequence
OWN_WINDOWS = 4  # of these, windows of the video that the sequence is meant to come from


@dataclass(frozen=True)
class Task:
    """One sequence to be made."""

    split: str
    mode: str
    number: int  # within its split and mode
    source: int = 0  # place of the video to start with in the footage of the split
    part: tuple[int, int] = (0, 1)  # (i, n): the window starts in the i-th of n equal parts of that video

    @property
    def name(self) -> str:
        """The sequence's folder, relative to the set."""
        return f"{self.split}/{self.mode}_{self.number:05d}"


@dataclass(frozen=True)
class Material:
    """What sequences are made from, and where they go."""

    config: SequenceConfig
    raw: dict[str, RawMasks]  # by split
    footage: dict[str, list[Footage]]  # by split
    folder: Path  # absolute, of the set


def tasks_of(config: SequenceConfig, groups: dict[str, list[list[int]]]) -> list[Task]:
    """One task for each sequence: modes in equal shares, groups of videos in equal shares, windows spread evenly.

    groups: by split, the places of the videos of each group in the footage of the split.
    """
    tasks = []
    for split in SPLITS:
        for m, mode in enumerate(config.modes):
            count = getattr(config, split) * (m + 1) // len(config.modes) - getattr(config, split) * m // len(
                config.modes
            )
            sources = _sources(config, split, mode, count, groups.get(split, [])) if mode in FROM_VIDEO else [0] * count
            parts = _parts(sources)
            tasks += [Task(split, mode, i, sources[i], parts[i]) for i in range(count)]
    return tasks


def _sources(config, split, mode, count, groups):
    """The video of each sequence of a mode: one group after the other, and within a group one video after the other."""
    rng = np.random.default_rng([config.seed, SPLITS.index(split), MODES.index(mode)])
    groups = [groups[g] for g in rng.permutation(len(groups))]
    return [groups[i % len(groups)][i // len(groups) % len(groups[i % len(groups)])] for i in range(count)]


def _parts(sources):
    """For each place in a list: how often its value came before, and how often it comes in all."""
    before, parts = defaultdict(int), []
    for source in sources:
        parts.append(before[source])
        before[source] += 1
    return [(i, before[source]) for i, source in zip(parts, sources, strict=True)]


def make_batch(tasks: list[Task], material: Material) -> list[dict]:
    """Make sequences and write their frames. Returns the index row of each; `sha256` is "" if it cannot be made."""
    return [_make(task, material) for task in tasks]


def _make(task, material):
    config = material.config
    seed = [config.seed, SPLITS.index(task.split), MODES.index(task.mode), task.number]
    rng, passed_over = np.random.default_rng(seed), []
    row = {"sequence": task.name, "split": task.split, "mode": task.mode}
    if task.mode in FROM_VIDEO:
        made = _from_video(task, material, rng, passed_over)
    else:
        draw, shape = _draw(task, material, rng), config.size[::-1]
        made = moving_holes(draw, task.mode, config.frames, shape, config.ratio, config.speed, rng, uniform=True)
    if made is None:
        return row | {"passed_over": ";".join(passed_over), "sha256": ""}
    holes, columns = made
    columns = {"seed": " ".join(map(str, seed)), "passed_over": ";".join(passed_over), **columns}
    pictures = [encode(hole) for hole in holes]
    folder = material.folder / task.name
    folder.mkdir(parents=True, exist_ok=True)
    for t, picture in enumerate(pictures):
        write_whole(folder / frame_name(t), picture)
    return row | describe(holes, pictures) | {key: str(value) for key, value in columns.items()}


def _draw(task, material, rng):
    raw = material.raw[task.split]
    return lambda: raw.draw(rng)


def _from_video(task, material, rng, passed_over):
    """Holes and columns from the first window that serves, or None. Reasons are added to `passed_over`."""
    config, footage = material.config, material.footage[task.split]
    ratio = rng.uniform(*config.ratio)  # drawn once: ratios that are hard to reach must not become rare
    for attempt in range(WINDOWS):
        source = footage[task.source if attempt < OWN_WINDOWS else int(rng.integers(len(footage)))]
        place = (task.part[0] + rng.random()) / task.part[1] if attempt == 0 else rng.random()
        start = source.start + int(place * source.windows(config.frames))
        crop = random_crop(source.shape, config.size, rng)
        frames = read_window(source, start, config.frames, crop, config.size)
        if isinstance(frames, str):
            passed_over.append(frames)
            continue
        if task.mode == "tracked":
            made = tracked_holes(frames, _draw(task, material, rng), ratio, config.flow, rng)
        else:
            made = occlusion_holes(frames, ratio, config.flow)
        if isinstance(made, str):
            passed_over.append(made)
            continue
        holes, columns = made
        if config.ratio[0] <= measure(holes).ratio <= config.ratio[1]:
            return holes, {"source": source.name, "start": start, **crop.columns(), **columns}
        passed_over.append(NO_RATIO)
    return None
