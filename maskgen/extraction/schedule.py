"""Which pairs of frames are examined: each split, each source and each part of a source gets its share."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np

from maskgen.errors import BadInput
from maskgen.extraction import video
from maskgen.extraction.video import SPLITS
from maskgen.settings import ExtractConfig

# These decide which pairs are examined, not how masks are made. They are free to choose; a change draws other pairs.
OFFERED = 4  # pairs offered for each that is expected to be needed: where nothing moves, a task goes on to the next one
OPTIMISM = 1.2  # times the masks per pair so far, a source is expected to give from its remaining pairs
SEPARATION = 24  # frames, about a second, left out between the two segments of a single source, plus the largest gap
MASKS_PER_PAIR = 2  # occluded and disoccluded


@dataclass
class Segment:
    """The frames of a source that serve one split, and what they have given so far."""

    source: video.Source
    split: str
    start: int  # first frame
    stop: int  # after the last frame
    config: ExtractConfig
    squares: list[tuple[int, int, int]] = field(init=False)  # x, y, side in px of the source
    excluded: np.ndarray = field(init=False)  # int64, ascending: codes of the pairs that are not offered any more
    examined: int = 0  # pairs
    accepted: int = 0  # masks
    leaving_masks: int = 0  # masks with pixels that leave the frame
    leaving_pixels: int = 0  # of all masks, whether they are in the holes or have been removed
    hole_pixels: float = 0  # of all masks

    def __post_init__(self):
        self.squares = video.crop_squares(self.source.width, self.source.height, self.config.crops)
        gaps = np.array(self.config.gaps)
        # The code of a pair is (frame * gaps + gap number) * squares + square number. Excluded codes are listed, not
        # the remaining ones: at first those of pairs that lead beyond the end, later those of examined pairs too.
        frame_and_gap = np.arange(max(self.start, self.stop - max(gaps)) * gaps.size, self.stop * gaps.size)
        beyond = frame_and_gap // gaps.size + gaps[frame_and_gap % gaps.size] >= self.stop
        self.excluded = (frame_and_gap[beyond, None] * len(self.squares) + np.arange(len(self.squares))).ravel()

    @property
    def group(self) -> tuple[str, str]:
        """What identifies the segment's group; a source without a group is one of its own."""
        return ("group", self.source.group) if self.source.group else ("source", self.source.name)

    @property
    def most_of_group(self) -> int:
        """Largest number of masks that the segment's group may give."""
        return int(self.config.max_share * getattr(self.config, self.split))

    @property
    def remaining(self) -> int:
        """Number of pairs that may still be offered."""
        return (self.stop - self.start) * len(self.config.gaps) * len(self.squares) - self.excluded.size

    @property
    def masks_per_pair(self) -> float:
        """Masks that a pair of this segment has given on average; 1 before any pair was examined."""
        return min(MASKS_PER_PAIR, (self.accepted + 1) / (self.examined + 1))

    def accept(self, hole_ratio: float, leaving: int) -> None:
        """Count an accepted mask, with the number of its pixels that leave the frame."""
        self.accepted += 1
        self.leaving_masks += leaving > 0
        self.leaving_pixels += leaving
        self.hole_pixels += hole_ratio * self.config.size**2

    def offer(self, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """Codes of unexamined pairs, spread evenly, from which `wanted` masks can be chosen: int64, ascending.

        `pairs` turns codes into pairs.
        """
        count = min(self.remaining, ceil(OFFERED * wanted / min(1, self.masks_per_pair)))
        indices = stratified_sample(count, self.remaining, rng)  # among the remaining pairs
        first = self.start * len(self.config.gaps) * len(self.squares)
        remaining_before = self.excluded - first - np.arange(self.excluded.size)  # each excluded code
        return first + indices + np.searchsorted(remaining_before, indices, side="right")

    def pairs(self, codes: np.ndarray) -> tuple[tuple[int, int, int], ...]:
        """The pairs with these codes: (frame, gap, square number)."""
        rest, square = np.divmod(codes, len(self.squares))
        frame, gap = np.divmod(rest, len(self.config.gaps))
        return tuple((int(f), self.config.gaps[g], int(s)) for f, g, s in zip(frame, gap, square, strict=True))

    def mark_examined(self, pairs: Iterable[tuple[int, int, int]]) -> None:
        """Record that these pairs were examined: they are not offered again."""
        number = {gap: i for i, gap in enumerate(self.config.gaps)}
        codes = [(f * len(number) + number[gap]) * len(self.squares) + square for f, gap, square in pairs]
        self.excluded = np.sort(np.concatenate([self.excluded, np.array(codes, np.int64)]))
        self.examined += len(codes)


class Request(NamedTuple):
    """What one segment is asked for in one round."""

    segment: Segment
    wanted: int  # masks
    codes: np.ndarray  # of the pairs to choose from


def assign_splits(
    sources: list[video.Source], config: ExtractConfig, say: Callable[[str], None] = print
) -> list[Segment]:
    """Assign each group of sources to one split, so that each split gets its share of the pairs.

    A source that is for a split which is not wanted is left out. A single source without a split is cut in two. say:
    called with a line for the user if a source is cut in two. Raises BadInput if a group is for both splits, or if no
    source is for a wanted one.
    """
    wanted = {split: getattr(config, split) for split in SPLITS if getattr(config, split)}
    groups = {}
    for source in sources:
        groups.setdefault(source.group or ("ungrouped", source.name), []).append(source)
    split_of = {name: next(filter(None, (source.split for source in members)), "") for name, members in groups.items()}
    for name, members in groups.items():
        if other := next((one for one in members if one.split not in ("", split_of[name])), None):
            raise BadInput(
                f"{video.SOURCES}: {other.name} is for {other.split}, but others of its group {other.group} are for "
                f"{split_of[name]}: give a group one split"
            )
    for split in wanted:
        if set(split_of.values()).isdisjoint({split, ""}):
            raise BadInput(
                f"{video.SOURCES} assigns no video to {split}: assign one, or ask for no masks with --{split} 0"
            )
    if len(wanted) == 1:
        split_of = {name: split or next(iter(wanted)) for name, split in split_of.items()}
    elif len(sources) == 1:
        return _cut_in_two(sources[0], config, say)
    # Long groups first, so that the shares come out right; groups of similar length are in random order.
    length = {name: sum(_length(source, config) for source in members) for name, members in groups.items()}
    weights = np.array(list(length.values())) * np.random.default_rng([config.seed]).uniform(0.5, 1, len(groups))
    assigned = {split: sum(length[name] for name in groups if split_of[name] == split) for split in wanted}
    for i in np.argsort(-weights):
        name = list(groups)[i]
        if not split_of[name]:
            split_of[name] = min(wanted, key=lambda split: assigned[split] / wanted[split])
            assigned[split_of[name]] += length[name]
    of_source = {source.name: split_of[name] for name, members in groups.items() for source in members}
    return [
        Segment(source, of_source[source.name], 0, source.frames, config)
        for source in sources
        if of_source[source.name] in wanted
    ]


def _length(source, config):
    """Number of frames, counted once for each square."""
    return source.frames * len(video.crop_squares(source.width, source.height, config.crops))


def _cut_in_two(source, config, say):
    train_share = config.train / (config.train + config.test)
    gap = min(max(config.gaps) + SEPARATION, source.frames // 4)  # frames
    end = round((source.frames - gap) * train_share)
    say(
        f"only one source: its frames 0 to {end - 1} are for training, {end + gap} to {source.frames - 1} for testing; "
        "test masks from other videos would be more independent"
    )
    return [Segment(source, "train", 0, end, config), Segment(source, "test", end + gap, source.frames, config)]


def plan_round(segments: list[Segment], missing: dict[str, int], number: int) -> list[Request]:
    """What each segment is asked for in round `number`; segments that are asked for nothing are left out.

    missing: masks still wanted, by split. Groups that have given least are asked first, for as much as they are
    expected to give, so that they end up with similar numbers of masks whatever their lengths. Within a group, the
    same holds for its sources.
    """
    requests = []
    for split in SPLITS:
        groups = {}
        for segment in segments:
            if segment.split == split:
                groups.setdefault(segment.group, []).append(segment)
        members = list(groups.values())
        given = [[segment.accepted for segment in group] for group in members]
        capacities = [
            [ceil(segment.remaining * _expected_masks_per_pair(segment)) for segment in group] for group in members
        ]
        totals = [sum(one) for one in given]
        most = [group[0].most_of_group for group in members]
        limits = [min(sum(one), limit - total) for one, limit, total in zip(capacities, most, totals, strict=True)]
        shares = distribute(missing[split], totals, limits)
        for group, share, *rest in zip(members, shares, given, capacities, strict=True):
            for segment, count in zip(group, distribute(share, *rest), strict=True):
                if count:
                    seed = [segment.config.seed, number, int(segment.source.sha256[:12], 16), segment.start]
                    requests.append(Request(segment, count, segment.offer(count, np.random.default_rng(seed))))
    return requests


def _expected_masks_per_pair(segment):
    return min(MASKS_PER_PAIR, OPTIMISM * segment.masks_per_pair) if segment.examined else 1


def distribute(total: int, given: list[int], capacities: list[int]) -> list[int]:
    """How many masks to ask of each source: each mask is asked of the source with the fewest that can give more.

    total: masks wanted. given: masks that each source has given already. capacities: masks that each can still give.
    """
    shares = [0] * len(given)
    queue = [(masks, i) for i, masks in enumerate(given) if capacities[i]]
    heapq.heapify(queue)
    for _ in range(total):
        if not queue:
            break
        masks, i = heapq.heappop(queue)
        shares[i] += 1
        if shares[i] < capacities[i]:
            heapq.heappush(queue, (masks + 1, i))
    return shares


def stratified_sample(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different indices below `size`, ascending int64: one drawn from each of `count` equal intervals."""
    edges = np.arange(count + 1) * size // count
    return edges[:-1] + (rng.random(count) * np.diff(edges)).astype(np.int64)


def leaving_counts(segments: list[Segment]) -> dict:
    """How many masks have pixels that leave the frame, and the share of these among all hole pixels, for recipe.json.

    If they are dropped, they count as hole pixels here.
    """
    pixels, holes = (sum(getattr(one, name) for one in segments) for name in ("leaving_pixels", "hole_pixels"))
    if segments and segments[0].config.leaving == "drop":
        holes += pixels
    masks = sum(segment.leaving_masks for segment in segments)
    return {"masks": masks, "share": round(pixels / holes, 4) if holes else 0.0}


def leaving_line(recipe: dict) -> list[str]:
    """The line of the summary on the pixels that leave the frame; none if there are none. recipe: of a finished run."""
    leaving = recipe["counts"].get("leaving", {"masks": 0})
    if not leaving["masks"]:
        return []
    done = "were dropped" if recipe["settings"]["leaving"] == "drop" else "are kept; --leaving drop removes them"
    share = f"{leaving['share']:.1%} of the hole pixels, in {leaving['masks']} masks"
    return [f"where the view leaves the frame: {share}, {done}"]
