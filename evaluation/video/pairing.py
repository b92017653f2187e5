"""Which video each mask sequence is laid over: by name, or drawn by the seed."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from evaluation import names
from evaluation.masks import without_holes
from evaluation.pairing import deal
from evaluation.video.clips import Clip, find_clips
from evaluation.video.masks import Masks, open_masks, rank
from evaluation.video.settings import VideoConfig
from maskgen.errors import BadInput, warn

PAIRS_CSV = "pairs.csv"
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Pair:
    """A mask sequence and the part of a video under it: a row of `pairs.csv`."""

    sequence: str
    video: str
    start: int  # first frame of the video
    frames: int
    width: int  # px, at which the pair is scored
    height: int
    category: str
    hole_ratio: float  # mean of the frames
    speed: float  # px a frame, of the outline of the hole
    video_sha256: str
    mask_sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.height, self.width


@dataclass(frozen=True)
class PairList:
    """The pairs of a run, in the order of their classes, and where their files are."""

    pairs: list[Pair]
    clips: dict[str, Clip]  # by name
    masks: Masks
    description: str  # one line about masks and videos
    folders: tuple[str, str]  # of videos and masks, as the user named them

    def csv(self) -> bytes:
        """The bytes of `pairs.csv`."""
        return pd.DataFrame(map(asdict, self.pairs)).to_csv(index=False, lineterminator="\n").encode()

    def sha256(self) -> str:
        """One hash of all pairs: the videos, the masks, and which belong together."""
        return hashlib.sha256(self.csv()).hexdigest()

    @property
    def common_size(self) -> tuple[int, int] | None:
        """Height and width of all pairs in px, None if they differ."""
        sizes = {pair.size for pair in self.pairs}
        return sizes.pop() if len(sizes) == 1 else None


def pair_videos(
    videos: Path,
    masks: Path,
    config: VideoConfig,
    *,
    polarity: str = "hole-white",
    threshold: int | None = None,
    out: Path | None = None,
) -> PairList:
    """The pairs of a folder of videos and a folder of mask sequences; those of the same name if there are any.

    out: folder of the results. Videos are not looked for there, nor in the folder of masks. Raises BadInput for folders
    without videos or masks, for files that cannot be read, for a number of frames that does not fit, and where no video
    is long enough.
    """
    clips = {clip.name: clip for clip in find_clips(videos, outside=[masks, *([out] if out else [])])}
    sequences = open_masks(masks, polarity, threshold)
    matched = _by_name(sequences, clips)
    if matched:
        _warn_of_unmatched(f"videos have no masks in {masks}", list(clips), matched.values())
        _warn_of_unmatched(f"mask sequences belong to no video in {videos}", sequences.names, matched)
        counts = {name: _named_count(name, clips[video], sequences, config) for name, video in matched.items()}
        how = "paired by name"
    else:
        clips = _long_enough(clips, max(map(sequences.count, sequences.names)), videos, config)
        shortest = min(clip.frames for clip in clips.values())
        counts = {name: _drawn_count(sequences.count(name), shortest, config) for name in sequences.names}
        how = f"drawn by seed {config.seed}"
    rows = _first_of_each_class(_measured(counts, sequences), config.per_class)
    windows = {name: (matched[name], 0) for name in rows} if matched else _draw(rows, counts, clips, config.seed)
    clips = {name: clip for name, clip in clips.items() if name in {video for video, _ in windows.values()}}
    hashes = {clip.name: clip.sha256() for clip in tqdm(clips.values(), "reading videos", disable=None, leave=False)}
    pairs = []
    for name, (sha256, size) in rows.items():
        video, start = windows[name]
        height, width = config.size or size.shape
        measures = size.category, round(size.hole_ratio, 6), round(size.speed, 3)
        pairs.append(Pair(name, video, start, counts[name], width, height, *measures, hashes[video], sha256))
    sizes = {f"{pair.width}x{pair.height} px" for pair in pairs}
    where = sizes.pop() if len(sizes) == 1 else f"{len(sizes)} sizes"
    text = f"masks: {len(pairs):,} sequences of {sequences.top}; videos: {len(clips):,} of {videos}, {how}; {where}"
    return PairList(pairs, clips, sequences, text, (str(videos), str(masks)))


def _by_name(sequences, clips):
    """The video of each mask sequence that has the same name; {} if no names agree.

    A word such as `_mask` at the end of a name does not count. A single video and a single mask sequence belong
    together if their numbers of frames agree.
    """
    for rule in (names.by_name, names.by_core):
        if found := rule(sequences.names, list(clips)):
            return found
    if len(sequences.names) == len(clips) == 1:
        (name,), (clip,) = sequences.names, clips.values()
        if sequences.count(name) in (1, clip.frames):
            return {name: clip.name}
    return {}


def _warn_of_unmatched(what, all_names, matched):
    without = [name for name in all_names if name not in set(matched)]
    if without:
        warn(f"{len(without)} of {len(all_names)} {what}: {some(without)}")


def some(found: Iterable[str]) -> str:
    """The first few of several names."""
    found = list(found)
    return ", ".join(found[:SHOWN]) + ", ..." * (len(found) > SHOWN)


def _named_count(name, clip, sequences, config):
    """The number of frames of a pair that belongs together by name."""
    masks = sequences.count(name)
    if masks not in (1, clip.frames):
        raise BadInput(
            f"{clip.name} has {clip.frames} frames and {masks} masks in {sequences.top / name}: expected one mask for "
            "each frame, or one for all"
        )
    return _at_least_two(min(config.frames or clip.frames, clip.frames), clip.path)


def _drawn_count(masks, shortest, config):
    """The number of frames of a pair with a drawn video. A single mask holds for all frames."""
    count = shortest if masks == 1 else masks
    return min(config.frames or count, count)


def _at_least_two(frames, path):
    if frames < 2:
        raise BadInput(f"{path} has one frame: expected two or more; `evaluate folders` scores single images")
    return frames


def _long_enough(clips, masks, videos, config):
    """The clips with as many frames as the longest pair. Issues an `InputWarning` for the others."""
    needed = max(2, min(config.frames or masks, masks) if masks > 1 else config.frames)
    kept = {name: clip for name, clip in clips.items() if clip.frames >= needed}
    longest = max(clip.frames for clip in clips.values())
    if not kept:
        advice = f", or --frames {longest}" if longest > 1 else ""
        raise BadInput(f"no video in {videos} has {needed} frames, as the masks: give longer ones{advice}")
    if short := [name for name in clips if name not in kept]:
        warn(f"{len(short)} of {len(clips)} videos have fewer than {needed} frames and are left out: {some(short)}")
    return kept


def _measured(counts, sequences):
    """(SHA-256, `Measured`) of each mask sequence that has a hole, by name, in the order of the classes."""
    found = {}
    for name, count in tqdm(counts.items(), "reading masks", disable=None, leave=False):
        sha256 = sequences.sha256(name)
        found[name] = sha256, sequences.measured(name, count, sha256)
    empty = [name for name, (_, size) in found.items() if not size.hole_ratio]
    if len(empty) == len(found):
        raise without_holes(sequences.top, sequences.polarity)
    if empty:
        warn(f"{len(empty)} of {len(found)} mask sequences have no hole and are left out: {some(empty)}")
    kept = [name for name in found if name not in set(empty)]
    return {name: found[name] for name in sorted(kept, key=lambda name: rank(found[name][1].category))}


def _first_of_each_class(rows, per_class):
    """The first mask sequences of each class; all if per_class is 0."""
    kept, found = Counter(), {}
    for name, row in rows.items():
        kept[row[1].category] += 1
        if not per_class or kept[row[1].category] <= per_class:
            found[name] = row
    return found


def _draw(rows, counts, clips, seed):
    """The video and its first frame for each sequence. Videos take turns, in random order."""
    found = {}
    for i, (name, video) in enumerate(zip(rows, deal(list(clips), len(rows), seed), strict=True)):
        spare = clips[video].frames - counts[name]
        found[name] = video, int(np.random.default_rng([seed, 2, i]).integers(spare + 1))
    return found
