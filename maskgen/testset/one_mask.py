"""One mask of the test set: which raw masks are drawn for it, and when more are joined or parts of them are used."""

import functools
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from maskgen.augment.composition import MANY, Target, compose, compose_from_many
from maskgen.categories import CATEGORIES, clipped_share
from maskgen.errors import BadInput
from maskgen.index import INDEX, open_index
from maskgen.maskset import Masks, describe
from maskgen.runtime import parallel
from maskgen.runtime.files import sha256_of_files
from maskgen.runtime.names import Names
from maskgen.runtime.rows import Rows
from maskgen.settings import BORDER, PRESETS, FillConfig
from maskgen.testset.tasks import MaskTask

FIRST_DRAWS = 10  # draws that start from the task's own raw mask
DRAWS_PER_ATTEMPT = 4  # usual draws per attempt of the preset
EXTRA_DRAWS = 20  # draws beyond the usual ones, which join many raw masks or use parts of large ones
FAILED_DRAWS = 4  # extra draws in which all raw masks together were too small, after which a task is given up
SIMILAR = 0.15  # standard deviation, as a share of all raw masks, of the ranks of raw masks of similar size


def list_raw_masks(folder: Path) -> tuple[Names, str]:
    """Names of the raw masks in a folder, and one hash of their names, their bytes and their index.

    Raises BadInput for a folder without a usable index, and for one whose index lists masks that are missing.
    """
    names = Names(row["file_name"] for row in _raw_index(folder)[0])
    _places(Masks(folder), names)
    return names, sha256_of_files(folder, chain([INDEX], names))


def _raw_index(folder):
    """The rows of the index of raw masks, and their hole ratios, float (N,)."""
    rows = open_index(folder)
    if "hole_ratio" not in rows.columns or not len(rows):
        raise BadInput(
            f"{folder}/{INDEX} has {'no column hole_ratio' if len(rows) else 'no masks'}: expected raw masks, "
            f"made by `maskgen extract videos/` or indexed by `maskgen bin FOLDER --out OTHER`"
        )
    ratios = np.fromiter((float(row["hole_ratio"]) for row in rows), float, len(rows))
    if not ratios.any():
        raise BadInput(f"{folder}/{INDEX} lists masks without any hole: expected raw masks with holes")
    return rows, ratios


def _places(raw, names):
    """The place of each name among the raw masks."""
    places = raw.names.places(names)
    if missing := next((name for name, place in zip(names, places, strict=True) if place < 0), ""):
        raise BadInput(f"{raw.path}/{INDEX} lists {missing}, which is missing: make the raw masks again")
    return places


@functools.lru_cache(maxsize=1)
def _load_raw(folder: str, digest: str) -> tuple[Masks, Rows, np.ndarray, np.ndarray]:
    """Masks, index, places and ranks by hole size of the raw masks in a folder with that hash."""
    raw, (rows, ratios) = Masks(Path(folder), cache=True), _raw_index(Path(folder))
    names = Names(row["file_name"] for row in rows)
    return raw, rows, _places(raw, names), np.argsort(ratios, kind="stable")


def are_scarce(tasks: Iterable[MaskTask], source: tuple[str, str], config: FillConfig) -> bool:
    """True if the raw masks are too few or too small for the usual draws to make the largest interior hole.

    This takes seconds to find out for one mask, but would take hours for each mask of a large test set. source: as in
    `make_mask`.
    """
    hardest = max((task for task in tasks if task.is_interior), key=lambda task: task.ratio)
    return _usual_draws_fail(replace(hardest, attempt=0), source, config)


@functools.lru_cache(maxsize=1)
def _usual_draws_fail(task, source, config):
    job = functools.partial(_first_success, source=source, config=config, draws=range(_usual_draws(config)))
    return next(parallel.run(job, [task], workers=1)) is None


def make_mask(
    task: MaskTask, source: tuple[str, str], config: FillConfig, *, scarce: bool = False
) -> tuple[np.ndarray, dict] | None:
    """Make the mask of one task. Returns the hole, bool (size, size), and how it was made: columns of its row.

    source: folder of the raw masks and their hash, as `list_raw_masks` returns it. scarce: as `are_scarce` returns it;
    then most of the usual draws are left out. None if no draw succeeds.
    """
    usual = _usual_draws(config)
    draws = [*range(FIRST_DRAWS if scarce else usual), *range(usual, usual + EXTRA_DRAWS)]
    return _first_success(task, source, config, draws)


def _usual_draws(config):
    return DRAWS_PER_ATTEMPT * PRESETS[config.preset].attempts


def _first_success(task, source, config, draws):
    """The mask of the first draw that succeeds, or None."""
    failed = 0
    for draw in draws:
        drawn = {}
        made = _make_from_draw(task, draw, source, config, drawn)
        if made is not None:
            return made
        failed += len(drawn) >= MANY * config.layers
        if failed == FAILED_DRAWS:
            break
    return None


def _make_from_draw(task, draw, source, config, drawn):
    """The mask of one draw, or None. drawn: is filled with the raw mask of each layer, by its row in the index."""
    raw, rows, places, by_size = _load_raw(*source)
    preset = PRESETS[config.preset]
    border = BORDER if task.is_interior else 0
    target = Target(round(task.ratio * config.size**2), config.size, border, config.layers, config.shrink)
    rng = np.random.default_rng([config.seed, task.category, task.number, task.attempt, draw])
    extra = draw - _usual_draws(config)  # 0 or more: an extra draw

    def draw_raw(layer):
        rank = task.rank
        if layer >= config.layers or (draw >= preset.attempts and (layer or extra not in (0, 1))):
            rank = rng.integers(len(places))
        elif layer > 0 or FIRST_DRAWS <= draw < preset.attempts:  # others of similar size
            rank = _reflect(round(task.rank + rng.normal(0, SIMILAR) * len(places)), len(places))
        drawn[layer] = int(by_size[rank])
        return raw[int(places[drawn[layer]])]

    if extra < 0:
        made = compose(draw_raw, target, preset, rng)
    else:
        made = compose_from_many(draw_raw, target, preset, rng, parts=extra % 2 == 1)
    if made is None:
        return None
    hole, composition = made
    if describe(hole, "", b"")["category"] != CATEGORIES[task.category]:
        return None  # a free mask that keeps the border distance by chance would count as interior
    layers = [(rows[drawn[layer]], placement) for layer, placement in composition["layers"]]
    return hole, _columns(task, layers, composition["dilation"], hole, config)


def _reflect(place: int, length: int) -> int:
    """Reflect a place beyond either end back inside, so that the ends are not drawn more often than the rest."""
    place = abs(place) % (2 * length)
    return place if place < length else 2 * length - 1 - place


def _columns(task, layers, dilation, hole, config):
    """How a mask was made, as columns of an index. layers: pairs of a raw mask's row and its placement."""
    first = layers[0][0]
    return {
        "source": ";".join(sorted({str(row.get("source", "")) for row, _ in layers})),
        "frame": str(first.get("frame", "")),
        "kind": str(first.get("kind", "")),
        "raw": ";".join(row["file_name"] for row, _ in layers),
        "layers": len(layers),
        "dilation": dilation,
        "rotation": ";".join(f"{placement.angle:.1f}" for _, placement in layers),
        "zoom": ";".join(f"{placement.zoom:.3f}" for _, placement in layers),
        "clipped": f"{clipped_share(hole):.4f}",
        "seed": f"{config.seed} {task.category} {task.number}",
        "attempt": task.attempt,
    }
