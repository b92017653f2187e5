"""Which pairs of frames are examined: each split, each source and each part of a source gets its share."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np

from maskgen.extraction import video
from maskgen.settings import ExtractConfig

# These decide which pairs are examined, not how masks are made. They are free to choose; a change draws other pairs.
SPLITS = ("train", "test")
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
    fingerprints: dict = field(default_factory=dict)  # by square: frame, kind and cells of the accepted masks, in order

    def __post_init__(self):
        self.squares = video.crop_squares(self.source.width, self.source.height, self.config.crops)
        gaps = np.array(self.config.gaps)
        # The code of a pair is (frame * gaps + gap number) * squares + square number. Excluded codes are listed, not
        # the remaining ones: at first those of pairs that lead beyond the end, later those of examined pairs too.
        frame_and_gap = np.arange(max(self.start, self.stop - max(gaps)) * gaps.size, self.stop * gaps.size)
        beyond = frame_and_gap // gaps.size + gaps[frame_and_gap % gaps.size] >= self.stop
        self.excluded = (frame_and_gap[beyond, None] * len(self.squares) + np.arange(len(self.squares))).ravel()

    @property
    def remaining(self) -> int:
        """Number of pairs that may still be offered."""
        return (self.stop - self.start) * len(self.config.gaps) * len(self.squares) - self.excluded.size

    @property
    def masks_per_pair(self) -> float:
        """Masks that a pair of this segment has given on average; 1 before any pair was examined."""
        return min(MASKS_PER_PAIR, (self.accepted + 1) / (self.examined + 1))

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
    """Assign each source to one split, so that each split gets its share of the pairs. A single source is cut in two.

    say: called with a line for the user if a source is cut in two.
    """
    wanted = {split: getattr(config, split) for split in SPLITS if getattr(config, split)}
    if len(wanted) == 1:
        return [Segment(source, split, 0, source.frames, config) for source in sources for split in wanted]
    if len(sources) == 1:
        return _cut_in_two(sources[0], config, say)
    # Long sources first, so that the shares come out right; sources of similar length are in random order.
    length = [source.frames * len(video.crop_squares(source.width, source.height, config.crops)) for source in sources]
    order = np.argsort(-np.array(length) * np.random.default_rng([config.seed]).uniform(0.5, 1, len(sources)))
    split_of, assigned = {}, dict.fromkeys(wanted, 0)
    for i in order:
        split_of[i] = min(wanted, key=lambda split: assigned[split] / wanted[split])
        assigned[split_of[i]] += length[i]
    return [Segment(source, split_of[i], 0, source.frames, config) for i, source in enumerate(sources)]


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

    missing: masks still wanted, by split. Segments that have given least are asked first, for as much as they are
    expected to give, so that sources end up with similar numbers of masks whatever their lengths.
    """
    requests = []
    for split in SPLITS:
        of_split = [segment for segment in segments if segment.split == split]
        capacities = [ceil(segment.remaining * _expected_masks_per_pair(segment)) for segment in of_split]
        counts = distribute(missing[split], [segment.accepted for segment in of_split], capacities)
        for segment, count in zip(of_split, counts, strict=True):
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
