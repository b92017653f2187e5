"""Which pairs of frames are looked at: every split, every source and every stretch of a source gets its share."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from maskgen.extraction import video
from maskgen.settings import ExtractConfig

SPLITS = ("train", "test")
SPARE = 4  # pairs offered for each that may be needed: where nothing moves a worker goes on to the next
HOPE = 1.2  # times what a source gave until now, it may give from the pairs that are left


@dataclass
class Part:
    """The stretch of a source that serves one split, and what has come of it so far."""

    source: video.Source
    split: str
    start: int  # first frame
    stop: int  # after the last frame
    config: ExtractConfig
    squares: list[tuple[int, int, int]] = field(init=False)  # x, y, side in px of the source
    gone: np.ndarray = field(init=False)  # int64, ascending: codes of the pairs that are not offered any more
    looked_at: int = 0  # pairs
    accepted: int = 0  # masks
    seen: dict = field(default_factory=dict)  # per square: time, kind and cells of the masks accepted so far

    def __post_init__(self):
        self.squares = video.squares(self.source.width, self.source.height, self.config.crops)
        gaps = np.array(self.config.gaps)
        # A pair's code is (frame * gaps + gap number) * squares + square number. Those that are gone are kept, and not
        # those that are left: first the pairs that lead beyond the end, later what was looked at.
        frame_and_gap = np.arange(max(self.start, self.stop - max(gaps)) * gaps.size, self.stop * gaps.size)
        beyond = frame_and_gap // gaps.size + gaps[frame_and_gap % gaps.size] >= self.stop
        self.gone = (frame_and_gap[beyond, None] * len(self.squares) + np.arange(len(self.squares))).ravel()

    @property
    def left(self) -> int:
        """Pairs that may still be offered."""
        return (self.stop - self.start) * len(self.config.gaps) * len(self.squares) - self.gone.size

    @property
    def per_pair(self) -> float:
        """Masks that a pair of this part gives, from those looked at; 1 before there are any."""
        return min(2, (self.accepted + 1) / (self.looked_at + 1))

    def offer(self, wanted: int, rng: np.random.Generator) -> np.ndarray:
        """Codes of pairs not looked at yet for `wanted` masks to be chosen from, with some to spare: int64, ascending.

        Spread evenly; `pairs` tells what they mean.
        """
        places = spread(min(self.left, ceil(SPARE * wanted / min(1, self.per_pair))), self.left, rng)
        first = self.start * len(self.config.gaps) * len(self.squares)
        left_before = self.gone - first - np.arange(self.gone.size)  # of each that is gone
        return first + places + np.searchsorted(left_before, places, side="right")

    def pairs(self, codes: np.ndarray) -> tuple[tuple[int, int, int], ...]:
        """The pairs of these codes: (frame, gap, square number)."""
        rest, square = np.divmod(codes, len(self.squares))
        frame, gap = np.divmod(rest, len(self.config.gaps))
        return tuple((int(f), self.config.gaps[g], int(s)) for f, g, s in zip(frame, gap, square, strict=True))

    def look_at(self, pairs: Iterable[tuple[int, int, int]]) -> None:
        """Count these pairs as looked at: none of them is offered again."""
        number = {gap: i for i, gap in enumerate(self.config.gaps)}
        codes = [(f * len(number) + number[gap]) * len(self.squares) + square for f, gap, square in pairs]
        self.gone = np.sort(np.concatenate([self.gone, np.array(codes, np.int64)]))
        self.looked_at += len(codes)


def divide(sources: list[video.Source], config: ExtractConfig, say=print) -> list[Part]:
    """Give every source to one split, so that each split has its share of the pairs. A lone source is cut in two.

    say: called with a line for the user where that happens.
    """
    wanted = {split: getattr(config, split) for split in SPLITS if getattr(config, split)}
    if len(wanted) == 1:
        return [Part(source, split, 0, source.frames, config) for source in sources for split in wanted]
    if len(sources) == 1:
        return _cut_in_two(sources[0], config, say)
    # Long sources first, so that the shares come out right; the draw decides among those of like length.
    length = [source.frames * len(video.squares(source.width, source.height, config.crops)) for source in sources]
    order = np.argsort(-np.array(length) * np.random.default_rng([config.seed]).uniform(0.5, 1, len(sources)))
    split_of, given = {}, dict.fromkeys(wanted, 0)
    for i in order:
        split_of[i] = min(wanted, key=lambda split: given[split] / wanted[split])
        given[split_of[i]] += length[i]
    return [Part(source, split_of[i], 0, source.frames, config) for i, source in enumerate(sources)]


def _cut_in_two(source, config, say):
    share = config.train / (config.train + config.test)
    gap = min(max(config.gaps) + 24, source.frames // 4)  # frames; about a second, so that the halves differ
    end = round((source.frames - gap) * share)
    say(
        f"only one source: its frames 0 to {end - 1} are for training, {end + gap} to {source.frames - 1} for testing; "
        "test masks from other videos would be more independent"
    )
    return [Part(source, "train", 0, end, config), Part(source, "test", end + gap, source.frames, config)]


def ask(parts: list[Part], missing: dict[str, int], number: int) -> list[tuple[Part, int, np.ndarray]]:
    """Who is asked for what in round `number`: (part, masks wanted of it, codes of the pairs to choose from).

    missing: masks still wanted, by split. Who has given least is asked first, for as much as can be expected of it:
    sources end up with like numbers of masks, whatever their lengths.
    """
    asked = []
    for split in SPLITS:
        mine = [part for part in parts if part.split == split]
        hope = [min(2, HOPE * part.per_pair) if part.looked_at else 1 for part in mine]
        room = [ceil(part.left * masks) for part, masks in zip(mine, hope, strict=True)]
        counts = share(missing[split], [part.accepted for part in mine], room)
        for part, count in zip(mine, counts, strict=True):
            if count:
                seed = [part.config.seed, number, int(part.source.sha256[:12], 16), part.start]
                asked.append((part, count, part.offer(count, np.random.default_rng(seed))))
    return asked


def share(total: int, given: list[int], room: list[int]) -> list[int]:
    """How many masks to ask of each source: one after another of whoever has given least, while it has room.

    total: masks wanted; given: masks that each source gave already; room: masks that each may still give.
    """
    shares = [0] * len(given)
    queue = [(masks, i) for i, masks in enumerate(given) if room[i]]
    heapq.heapify(queue)
    for _ in range(total):
        if not queue:
            break
        masks, i = heapq.heappop(queue)
        shares[i] += 1
        if shares[i] < room[i]:
            heapq.heappush(queue, (masks + 1, i))
    return shares


def spread(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different indices below `size`, ascending, one drawn from each of `count` equal stretches."""
    edges = np.arange(count + 1) * size // count
    return edges[:-1] + (rng.random(count) * np.diff(edges)).astype(np.int64)
