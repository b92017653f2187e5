"""One mask of the test set out of raw masks: which draws are tried, and when raw masks are joined or cut for it."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskgen.augment import MANY, Wanted, compose, compose_of_many
from maskgen.categories import CATEGORIES, clipped
from maskgen.errors import BadInput
from maskgen.maskset import INDEX, Masks, describe, read_index
from maskgen.runtime import parallel
from maskgen.runtime.files import sha256_of_files
from maskgen.settings import BORDER, EDGES, PRESETS, FillConfig

FIRST = 10  # draws that begin with the raw mask that was planned
DRAWS = 4  # times the preset's attempts: draws by which a mask is made of raw masks of about one size
MORE = 20  # draws beyond, which join many raw masks or take parts of large ones
VAIN = 4  # of these, draws in which all raw masks that may be joined were too small together


@dataclass(frozen=True)
class Task:
    """One mask to be made."""

    category: int  # place in CATEGORIES
    number: int  # within the class
    ratio: float  # hole pixels / all pixels
    rank: int  # the raw mask to begin with, its place in the order of hole size
    attempt: int = 0  # how often this mask had come out too much like another

    @property
    def file_name(self) -> str:
        return f"{CATEGORIES[self.category]}/{self.number:05d}.png"


def raw_masks(folder: Path) -> tuple[list[str], str]:
    """Names of the raw masks, and a hash of their names and bytes and of their index."""
    names = _raw_table(folder)["file_name"].tolist()
    _places(Masks(folder), names)
    return names, sha256_of_files(folder, [INDEX, *names])


def _raw_table(folder):
    table = read_index(folder)
    if "hole_ratio" not in table or table.empty:
        raise BadInput(
            f"{folder}/{INDEX} has {'no masks' if table.empty else 'no column hole_ratio'}: expected raw masks, "
            f"made by `maskgen extract videos/` or indexed by `maskgen bin FOLDER --out OTHER`"
        )
    if not table["hole_ratio"].any():
        raise BadInput(f"{folder}/{INDEX} lists masks without any hole: expected raw masks with holes")
    return table


def _places(raw, names):
    """The place of each name among the raw masks."""
    place = {name: i for i, name in enumerate(raw.names)}
    missing = next((name for name in names if name not in place), None)
    if missing:
        raise BadInput(f"{raw.path}/{INDEX} lists {missing}, which is not there: make the raw masks anew")
    return [place[name] for name in names]


@functools.lru_cache(maxsize=1)
def _opened(folder: str, digest: str):
    """What draws need of the raw masks in a folder with that hash."""
    raw, table = Masks(Path(folder), keep=True), _raw_table(Path(folder))
    by_size = np.argsort(table["hole_ratio"].to_numpy(), kind="stable")
    return raw, table, _places(raw, table["file_name"]), by_size


def are_few(tasks: Iterable[Task], source: tuple[str, str], config: FillConfig) -> bool:
    """Whether the raw masks are so few or so small that the usual draws cannot make the largest interior hole.

    It takes seconds to find that out for one mask, but would take hours for each of a large test set.
    """
    hardest = max((task for task in tasks if task.category < len(EDGES) - 1), key=lambda task: task.ratio)
    return _is_hopeless(replace(hardest, attempt=0), source, config)


@functools.lru_cache(maxsize=1)
def _is_hopeless(task, source, config):
    job = functools.partial(_first_made, source=source, config=config, draws=range(_usual(config)))
    return next(parallel.run(job, [task], workers=1)) is None


def make_one(task: Task, source: tuple[str, str], config: FillConfig, *, few: bool = False):
    """Make the mask of one task. Returns the hole, bool (size, size), and what its row tells beside the measures.

    source: folder of the raw masks and their hash, as `raw_masks` gives it. few: as `are_few` has found. None if no
    draw succeeds.
    """
    usual = _usual(config)
    return _first_made(task, source, config, [*range(FIRST if few else usual), *range(usual, usual + MORE)])


def _usual(config):
    return DRAWS * PRESETS[config.preset].attempts


def _first_made(task, source, config, draws):
    """What the first draw that succeeds makes, or None."""
    in_vain = 0
    for draw in draws:
        used = {}
        made = _draw(task, draw, source, config, used)
        if made is not None:
            return made
        in_vain += len(used) >= MANY * config.layers
        if in_vain == VAIN:
            break
    return None


def _draw(task, draw, source, config, used):
    """The mask of one draw, or None. used: is filled with the raw masks that were taken, layer by layer."""
    raw, table, places, by_size = _opened(*source)
    preset = PRESETS[config.preset]
    border = BORDER if task.category < len(EDGES) - 1 else 0
    wanted = Wanted(round(task.ratio * config.size**2), config.size, border, config.layers, config.shrink)
    rng = np.random.default_rng([config.seed, task.category, task.number, task.attempt, draw])
    beyond = draw - _usual(config)  # 0 or more: a draw of many raw masks, or of parts of them

    def pick(layer):
        rank = task.rank
        if layer >= config.layers or (draw >= preset.attempts and (layer or beyond not in (0, 1))):
            rank = rng.integers(len(places))
        elif layer > 0 or FIRST <= draw < preset.attempts:  # others of about the same size
            rank = _reflect(round(task.rank + rng.normal(0, 0.15) * len(places)), len(places))
        used[layer] = int(by_size[rank])
        return raw[places[used[layer]]]

    if beyond < 0:
        made = compose(pick, wanted, preset, rng)
    else:
        made = compose_of_many(pick, wanted, preset, rng, parts=beyond % 2 == 1)
    if made is None:
        return None
    hole, told = made
    if describe(hole, "", b"")["category"] != CATEGORIES[task.category]:
        return None  # a free mask that keeps away from the border by chance would count as interior
    return hole, _row(task, table, [(used[layer], pose) for layer, pose in told["layers"]], told, hole, config)


def _reflect(place: int, length: int) -> int:
    """Fold a place beyond either end back, so that the ends are not drawn more often than the rest."""
    place = abs(place) % (2 * length)
    return place if place < length else 2 * length - 1 - place


def _row(task, table, layers, told, hole, config):
    first = table.iloc[layers[0][0]]
    sources = sorted({str(table.iloc[i]["source"]) for i, _ in layers}) if "source" in table else [""]
    return {
        "source": ";".join(sources),
        "frame": str(first.get("frame", "")),
        "kind": str(first.get("kind", "")),
        "raw": ";".join(str(table.iloc[i]["file_name"]) for i, _ in layers),
        "layers": len(layers),
        "dilation": told["dilation"],
        "rotation": ";".join(f"{pose.angle:.1f}" for _, pose in layers),
        "zoom": ";".join(f"{pose.zoom:.3f}" for _, pose in layers),
        "clipped": f"{clipped(hole):.4f}",
        "seed": f"{config.seed} {task.category} {task.number}",
        "attempt": task.attempt,
    }
