"""Sort any masks into classes by measuring them: folders, zips and tars, either polarity, any size."""

import functools
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from maskgen.categories import names
from maskgen.errors import BadInput
from maskgen.maskset import INDEX, Masks, describe, encode, write_index, write_recipe
from maskgen.runtime import parallel
from maskgen.runtime.files import remove_parts, write_checksums, write_whole
from maskgen.runtime.output import alone, occupied
from maskgen.settings import BORDER, EDGES

NVIDIA = {"test": 12_000, "train": 55_116}  # files in their archives
NVIDIA_THRESHOLD = 153  # "threshold 0.6 to binarize the masks", of 255
EVIDENCE = 64  # masks that are looked at to find out what white means
BEGUN = ".begun"  # in the folder of a mask set that is being made
BATCH = 50  # masks that one worker measures at a time
UNSORTED = ".unsorted"  # folder of masks that are written, but have no number in their class yet


@dataclass(frozen=True)
class Rules:
    """How masks are read, and by which classes they are sorted."""

    polarity: str = "hole-white"
    threshold: int = 128  # grey levels from it upwards are white
    resize: int | None = None  # px, side of the square they are brought to first, by nearest neighbour
    edges: tuple[float, ...] = EDGES
    border: int = BORDER  # px


def find_polarity(masks: Masks) -> tuple[str, str]:
    """What white means in these masks, and why: ("hole-white" or "hole-black", a sentence). Decides by evidence.

    Holes of the paper's masks fill 0.6 of the image at most, so a mask that is less than 0.4 white has white holes,
    and one that is more than 0.6 white has black ones; masks between say nothing. Raises BadInput where the masks
    disagree or say nothing.
    """
    if any((folder / INDEX).exists() for folder in (masks.path, masks.path / "test", masks.path / "train")):
        return "hole-white", f"hole-white, as in every mask set with a {INDEX}"
    chosen = np.unique(np.linspace(0, len(masks) - 1, EVIDENCE).astype(int))
    white = np.array([np.mean(masks[i]) for i in chosen])
    few, many = int((white < 0.4).sum()), int((white > 0.6).sum())
    seen = f"of {len(white)} masks {few} are less than 40 % white and {many} more than 60 %"
    if few + many >= max(1, len(white) / 4) and max(few, many) >= 0.95 * (few + many):
        polarity = "hole-white" if few > many else "hole-black"
        return polarity, f"{polarity}, for {seen}, and holes fill 60 % at most"
    raise BadInput(f"{masks.path}: cannot tell what white means: {seen}; say --polarity hole-white or hole-black")


def open_masks(path: Path, rules: Rules, layout: str = "any") -> tuple[Masks, Rules, str]:
    """The masks at `path`, the rules with their polarity decided, and why it was decided so ("" if it was given).

    layout "nvidia" expects one of NVIDIA's two archives, packed or not: 12,000 or 55,116 files of one folder.
    """
    if layout == "nvidia":
        rules = Rules(rules.polarity, NVIDIA_THRESHOLD, rules.resize, rules.edges, rules.border)
    masks = Masks(path, threshold=rules.threshold)
    if layout == "nvidia":
        stems = [Path(name).stem for name in masks.names]
        if len(stems) not in NVIDIA.values() or not all(stem.isdecimal() for stem in stems):
            raise BadInput(
                f"{path} holds {len(stems):,} PNG files such as {masks.names[0]}: expected NVIDIA's 12,000 test masks "
                f"(00000.png ... 11999.png) or 55,116 train masks; leave --layout nvidia out for other masks"
            )
    polarity, why = find_polarity(masks) if rules.polarity == "auto" else (rules.polarity, "")
    masks.polarity = polarity
    return masks, Rules(polarity, rules.threshold, rules.resize, rules.edges, rules.border), why


@alone("out")
def measure_masks(
    masks: Masks,
    rules: Rules,
    out: Path | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
) -> list[dict]:
    """Measure every mask; one index row each, in the order of masks.names, with `size` and what it was called before.

    out: a mask set is written there as well: `test/<category>/NNNNN.png` in our one form, index, recipe and
    checksums; masks outside all classes go to `test/outside`. `out` must be empty or missing, or what the same call
    left there when it was interrupted.
    """
    told = {"polarity": rules.polarity, "threshold": rules.threshold, "resize": rules.resize}
    told |= {"edges": rules.edges, "border": rules.border, "any_size": rules.resize is None}
    if out is not None:
        _begin(out, json.dumps([told, masks.path.name, len(masks)]).encode())
    batches = [range(i, min(i + BATCH, len(masks))) for i in range(0, len(masks), BATCH)]
    unsorted = None if out is None else (out / UNSORTED).absolute()
    job = functools.partial(_measure_batch, masks=masks, rules=rules, unsorted=unsorted)
    rows, taken = [], {}
    if out is not None:
        unsorted.mkdir(exist_ok=True)
    sees = [masks.a_file, *([unsorted] if out is not None else [])]
    with tqdm(total=len(masks), unit="mask", desc="bin") as bar:
        for measured in parallel.run(job, batches, workers=workers, cluster=cluster, sees=sees):
            for row in measured:
                if out is not None:
                    row["source"], group = row["file_name"], row["category"] or "outside"
                    number = taken[group] = taken.get(group, -1) + 1
                    row["file_name"] = f"{group}/{number:05d}.png"
                    (out / "test" / group).mkdir(parents=True, exist_ok=True)
                    _unsorted(unsorted, len(rows)).replace(out / "test" / row["file_name"])
                rows.append(row)
            bar.update(len(measured))
    if out is not None:
        shutil.rmtree(unsorted)
        write_index(out / "test", rows)
        sources = [{"name": masks.path.name}]
        counts = {name: taken.get(name, -1) + 1 for name in [*names(rules.edges), "outside"]}
        write_recipe(out, {"settings": told, "sources": sources, "counts": counts})
        write_checksums(out)
        (out / BEGUN).unlink()
    return rows


def _begin(out, what):
    """Write down what a run is for; BadInput where the folder holds anything but what the same one had begun."""
    begun = out / BEGUN
    if occupied(out) and not (begun.is_file() and begun.read_bytes() == what):
        raise BadInput(f"{out} is not empty: expected a new folder for the mask set")
    out.mkdir(parents=True, exist_ok=True)
    remove_parts(out)
    write_whole(begun, what)


def _unsorted(folder, i):
    return folder / f"{i // 1000:04d}" / f"{i:06d}.png"


def _measure_batch(places, masks, rules, unsorted):
    rows = []
    for i in places:
        hole = masks[i]
        if rules.resize:
            side = (rules.resize, rules.resize)
            hole = cv2.resize(hole.view(np.uint8), side, interpolation=cv2.INTER_NEAREST_EXACT).view(bool)
        data = encode(hole) if unsorted or rules.resize else masks.data(i)
        row = describe(hole, masks.names[i], data, edges=rules.edges, border=rules.border)
        rows.append({**row, "width": hole.shape[1], "height": hole.shape[0]})
        if unsorted:  # its number depends on all masks before it
            path = _unsorted(unsorted, i)
            path.parent.mkdir(exist_ok=True)
            write_whole(path, data)
    return rows


def grid(rows: list[dict], edges=EDGES) -> str:
    """The table of counts: a line per ratio interval, the interior masks beside the free ones, then the rest."""
    counts = dict.fromkeys([*names(edges), ""], 0)
    for row in rows:
        counts[row["category"]] += 1
    lines = [f"{'hole ratio':<12}{'interior':>10}{'free':>10}"]
    for low, high in itertools.pairwise(edges):
        interior, free = (counts[f"{side}_{low:g}-{high:g}"] for side in ("interior", "free"))
        lines.append(f"{f'({low:g}, {high:g}]':<12}{interior:>10}{free:>10}")
    lines.append(f"{'other':<12}{counts['']:>20}")
    lines.append(f"{'all':<12}{len(rows):>20}")
    return "\n".join(lines)


def blocks(rows: list[dict], length: int = 1000) -> str:
    """What the order of a flat archive means, found by measuring: the commonest class of each `length` files."""
    lines = []
    for begin in range(0, len(rows), length):
        found = [row["category"] or "other" for row in rows[begin : begin + length]]
        top = max(sorted(set(found)), key=found.count)
        lines.append(f"{begin:05d} to {begin + len(found) - 1:05d}: {found.count(top)} of {len(found)} are {top}")
    return "\n".join(lines)


def parse_edges(text: str) -> tuple[float, ...]:
    """Ratio edges from the command line: "0.1,0.3,0.5". Raises BadInput unless they rise within 0 to 1."""
    try:
        edges = tuple(float(part) for part in text.split(","))
    except ValueError:
        edges = ()
    if len(edges) < 2 or any(a >= b for a, b in itertools.pairwise(edges)) or edges[0] < 0 or edges[-1] > 1:
        raise BadInput(f"--ratios is a rising list such as 0.1,0.3,0.5 between 0 and 1, got {text!r}")
    return edges
