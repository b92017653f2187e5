"""Sort any masks into classes by measuring them: folders, zips and tars, either polarity, any size."""

import functools
import hashlib
import itertools
import posixpath
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from maskgen.categories import names
from maskgen.errors import BadInput, collected_warnings, warn
from maskgen.maskset import (
    INDEX,
    POLARITIES,
    Masks,
    check_polarity,
    decode,
    describe,
    encode,
    index_of,
    write_index,
)
from maskgen.runtime import parallel
from maskgen.runtime.files import CHECKSUMS, leads_inside, read_rows, write_checksums, write_whole
from maskgen.runtime.journal import Journal
from maskgen.runtime.lock import locked
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.settings import BORDER, EDGES

NVIDIA = {"test": 12_000, "train": 55_116}  # files in their archives
NVIDIA_THRESHOLD = 153  # "threshold 0.6 to binarize the masks", of 255
LAYOUTS = ("any", "nvidia")
EVIDENCE = 64  # masks that are looked at to find out what white means
SAME_RATIO = 0.01  # two hole ratios that differ by less belong to the same mask
BATCH = 50  # masks that one worker measures at a time
JOURNAL = "masks.jsonl"  # rows of the masks that are sorted already, in `.progress`
UNSORTED = "unsorted"  # folder in `.progress`: masks that are written, but have no number in their class yet


@dataclass(frozen=True)
class Rules:
    """How masks are read, and by which classes they are sorted. Raises BadInput for values that make no sense."""

    polarity: str = "hole-white"  # or "hole-black", or "auto": found by evidence
    threshold: int | None = None  # grey levels from it upwards are white; None: a file has two values, as it stands
    resize: int | None = None  # px, side of the square they are brought to first, by nearest neighbour
    edges: tuple[float, ...] = EDGES
    border: int = BORDER  # px

    def __post_init__(self):
        if self.polarity not in (*POLARITIES, "auto"):
            raise BadInput(f"polarity is one of {', '.join(POLARITIES)}, auto; got {self.polarity!r}")
        if self.threshold is not None and not 1 <= self.threshold <= 255:
            raise BadInput(f"threshold is a grey level from 1 to 255, got {self.threshold}")
        if self.resize is not None and self.resize < 1:
            raise BadInput(f"resize is a side in px, 1 or more, got {self.resize}")
        if self.border < 1:
            raise BadInput(f"border is a distance in px, 1 or more, got {self.border}")
        _check_edges(self.edges, self.edges)


def find_polarity(masks: Masks) -> tuple[str, str]:
    """What white means in these masks, and why: ("hole-white" or "hole-black", a sentence). Decides by evidence.

    A mask set with an index has white holes, as long as the hole ratios of the index are those of the masks. An index
    of other masks is not used, and an `InputWarning` says so. Else: holes of the paper's masks fill 0.6 of the image
    at most, so a mask that is less than 0.4 white has white holes, and one that is more than 0.6 white has black ones;
    masks between say nothing. Raises BadInput where the masks disagree or say nothing, and for an index by which the
    black is the hole.
    """
    index = index_of(masks.path)
    if index is not None and _fits(masks, index):
        return "hole-white", f"hole-white, as in every mask set with a {INDEX}"
    white = _white_shares(masks, _spread(len(masks)))
    few, many = int((white < 0.4).sum()), int((white > 0.6).sum())
    seen = f"of {len(white)} masks {few} are less than 40 % white and {many} more than 60 %"
    if _outweigh(few, many, len(white)) or _outweigh(many, few, len(white)):
        polarity = "hole-white" if few > many else "hole-black"
        return polarity, f"{polarity}, for {seen}, and holes fill 60 % at most"
    raise BadInput(f"{masks.path}: cannot tell what white means: {seen}; say --polarity hole-white or hole-black")


def _outweigh(some, others, number):
    """Whether `some` of a number of masks say the same, nearly all that say anything."""
    return some + others >= max(1, number / 4) and some >= 0.95 * (some + others)


def _spread(number):
    return np.unique(np.linspace(0, number - 1, EVIDENCE).astype(int))


def _white_shares(masks, chosen):
    """Share of each mask that is white, as the reader of masks decides that. float (N,)."""
    with collected_warnings():  # of masks that are white all over: told later, if white is the hole
        shares = np.array([masks[i].mean() for i in chosen])
    return shares if masks.polarity == "hole-white" else 1 - shares


def _fits(masks, index):
    """Whether an index lists the masks with the hole ratios that they have. BadInput where their black has them."""
    said = {row["file_name"]: row["hole_ratio"] for row in read_rows(index)}
    top, place = masks.path.absolute(), index.parent.absolute()
    if place.is_relative_to(top):  # the index of all masks, or of a part
        part = place.relative_to(top).as_posix()
        said = {posixpath.normpath(f"{part}/{name}"): ratio for name, ratio in said.items()}
    else:  # of the folder above
        said = {name.removeprefix(f"{top.name}/"): ratio for name, ratio in said.items()}
    listed = {i: said[name] for i, name in enumerate(masks.names) if name in said}
    if not listed:
        warn(f"{index} lists none of the masks in {masks.path}: it is not used")
        return False
    chosen = [list(listed)[k] for k in _spread(len(listed))]
    ratios, shares = np.array([_number(listed[i]) for i in chosen]), _white_shares(masks, chosen)
    white = np.abs(shares - ratios) < SAME_RATIO
    black = ~white & (np.abs(1 - shares - ratios) < SAME_RATIO)
    if _outweigh(black.sum(), white.sum(), len(chosen)):
        raise BadInput(
            f"{index} measures the black of these masks, and in a mask set white is the hole: "
            "remove it, then `maskgen bin --out` makes a mask set of them"
        )
    if not white.all():
        wrong = int(np.argmin(white))
        fits = _outweigh(white.sum(), black.sum(), len(chosen))
        warn(
            f"{index} does not fit {(~white).sum()} of {len(chosen)} masks, such as {masks.names[chosen[wrong]]} "
            f"(hole ratio {shares[wrong]:.3f}, it says {ratios[wrong]:.3f}): "
            f"{'`maskgen verify` lists them' if fits else 'it is not used'}"
        )
        return fits
    return True


def _number(text):
    try:
        return float(text)
    except ValueError:
        return np.nan


def open_masks(path: Path, rules: Rules, layout: str = "any") -> tuple[Masks, Rules, str]:
    """The masks at `path`, the rules with their polarity decided, and why it was decided so ("" if it was given).

    layout "nvidia" expects one of NVIDIA's two archives, packed or not: 12,000 or 55,116 files of one folder; they are
    read with their threshold unless the rules have one. Raises BadInput for an unknown layout, for other masks than
    NVIDIA's, and for the polarity "hole-black" of a mask set with an index.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"no layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if layout == "nvidia" and rules.threshold is None:
        rules = replace(rules, threshold=NVIDIA_THRESHOLD)
    if rules.polarity != "auto":
        check_polarity(path, rules.polarity)
    masks = Masks(path, threshold=rules.threshold)
    if layout == "nvidia":
        stems = [Path(name).stem for name in masks.names]
        if len(stems) not in NVIDIA.values() or not all(stem.isdecimal() for stem in stems):
            raise BadInput(
                f"{path} holds {len(stems):,} masks such as {masks.names[0]}: expected NVIDIA's 12,000 test masks "
                f"(00000.png ... 11999.png) or 55,116 train masks; leave --layout nvidia out for other masks"
            )
    masks.polarity, why = find_polarity(masks) if rules.polarity == "auto" else (rules.polarity, "")
    return masks, replace(rules, polarity=masks.polarity), why


def measure_masks(
    masks: Masks,
    rules: Rules,
    out: Path | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Measure every mask by the rules; one index row each, in the order of masks.names, with its width and height.

    out: a mask set is written there as well: `test/<category>/NNNNN.png` in our one form, index, recipe and
    checksums; masks outside all classes go to `test/outside`. Each row then has the new name, and `source`, the old
    one. An interrupted run goes on where it was stopped; of a complete one the rows are read. say: is told what is in
    `out`. An `InputWarning` tells of masks that are holes all over, and where none has a hole. Raises BadInput where
    `out` holds anything else, or masks sorted by other rules, and for a file that is no mask.
    """
    if rules.polarity == "auto":
        raise BadInput("the polarity has to be decided first: by open_masks, or hole-white or hole-black")
    how = {"workers": workers, "cluster": cluster}
    if out is None:
        rows = list(_measure(masks, rules, 0, None, [masks.a_file], how))
    else:
        if masks.path.is_dir() and out.resolve().is_relative_to(masks.path.resolve()):
            raise BadInput(f"{out} lies in {masks.path}, whose masks are sorted: name a folder outside")
        with locked(out):  # before all masks are read for the recipe
            rows = _sort(masks, rules, out, how, say)
    _warn_of_odd(masks, rules, rows)
    return rows


def _sort(masks, rules, out, how, say):
    """Measure masks and write them to `out`. Returns the rows."""
    recipe = {
        "made_by": "maskgen bin",
        "settings": {**asdict(rules), "any_size": rules.resize is None},
        "masks": _content(masks),
        "libraries": library_versions("opencv", "numpy"),
    }
    about = {"sources": [{"name": masks.path.resolve().name}]}
    with OutputFolder(out, recipe, info=about) as folder:
        if folder.complete:
            rows = read_rows(out / "test" / INDEX)
            if len(rows) != len(masks) or not all(_is_row(row, rules.edges) for row in rows):
                raise BadInput(f"{out / 'test' / INDEX} was changed since: see `maskgen verify {out}`")
            say(folder.complete_message)
        else:
            rows = _sort_new(masks, rules, folder, how)
            counts = dict.fromkeys([*names(rules.edges), "outside"], 0)
            for row in rows:
                counts[row["category"] or "outside"] += 1
            write_index(out / "test", rows)
            folder.finish(counts=counts)
            say(f"{len(rows)} masks in {out}")
        if not (out / CHECKSUMS).exists():  # they include the recipe, which a finished run writes last
            write_checksums(out)
    return rows


def _sort_new(masks, rules, folder, how):
    """Write all masks that an earlier run has not. Returns the rows of all."""
    test, unsorted, numbers = folder.path / "test", (folder.progress / UNSORTED).absolute(), {}
    unsorted.mkdir(exist_ok=True)
    is_row = functools.partial(_is_row, edges=rules.edges)
    with Journal(folder.progress / JOURNAL, "file_name", is_row) as journal:
        rows = []
        for row, name in zip(journal.rows.values(), masks.names, strict=False):
            if row["source"] != name or not (test / row["file_name"]).is_file():
                break
            rows.append(row)
        kept = {row["file_name"] for row in rows}
        journal.keep(lambda row: row["file_name"] in kept)
        for row in rows:
            group = row["category"] or "outside"
            numbers[group] = numbers.get(group, -1) + 1
        for row in _measure(masks, rules, len(rows), unsorted, [masks.a_file, folder.recipe_file], how):
            row["source"], group = row["file_name"], row["category"] or "outside"
            number = numbers[group] = numbers.get(group, -1) + 1
            row["file_name"] = f"{group}/{number:05d}.png"
            (test / group).mkdir(parents=True, exist_ok=True)
            _unsorted(unsorted, len(rows)).replace(test / row["file_name"])
            journal.add(row)
            rows.append(row)
    return rows


def _is_row(row, edges):
    """Whether a row is as `measure_masks` makes it, as far as anything depends on it."""
    try:
        measured = 0 <= float(row["hole_ratio"]) <= 1 and int(row["components"]) >= 0
        return measured and row["category"] in {"", *names(edges)} and row["source"] and leads_inside(row["file_name"])
    except (KeyError, TypeError, ValueError):
        return False


def prepare_index(path: Path, out: Path | None, rules: Rules) -> None:
    """Make the folder for the CSV file of an index, before the work begins.

    Raises BadInput for a place in `out`, which has an index of its own, and for one that would make a mask set of masks
    that are not as masks of a set are: two values, white is the hole, measured as they stand.
    """
    if out is not None and path.resolve().is_relative_to(out.resolve()):
        raise BadInput(f"{path} lies in {out}, which gets an index of its own, test/{INDEX}: name another place")
    odd = [rules.polarity] * (rules.polarity == "hole-black")
    odd += [f"{name} {value}" for name in ("threshold", "resize") if (value := getattr(rules, name)) is not None]
    if path.name == INDEX and odd:
        raise BadInput(
            f"{path} would make a mask set of masks that are read with {' and '.join(odd)}: "
            "choose another name for the index, or let --out make a mask set"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"{path.parent} is no folder: name another place for the index") from None


def _content(masks):
    """SHA-256 of the names and bytes of all masks."""
    digest = hashlib.sha256()
    for i, name in enumerate(masks.names):
        digest.update(f"{name}\0{hashlib.sha256(masks.data(i)).hexdigest()}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _warn_of_odd(masks, rules, rows):
    """Tell of masks that are holes all over, and of a set without any hole."""
    full = [row.get("source", row["file_name"]) for row in rows if float(row["hole_ratio"]) == 1]
    if full:
        many = f"{len(full)} of {len(rows)} masks cover the whole image, such as {full[0]}"
        warn(f"{masks.path}: {many} (polarity {rules.polarity})")
    if not any(int(row["components"]) for row in rows):
        warn(f"{masks.path}: no mask has a hole (polarity {rules.polarity})")


def _measure(masks, rules, begin, unsorted, shared_files, how):
    """Yield the rows of the masks from number `begin` on."""
    batches = [range(i, min(i + BATCH, len(masks))) for i in range(begin, len(masks), BATCH)]
    job = functools.partial(_measure_batch, masks=masks, rules=rules, unsorted=unsorted)
    with tqdm(total=len(masks), initial=begin, unit="mask", desc="bin") as bar:
        for measured in parallel.run(job, batches, shared_files=shared_files, **how):
            yield from measured
            bar.update(len(measured))


def _unsorted(folder, i):
    return folder / f"{i // 1000:04d}" / f"{i:06d}.png"


def _measure_batch(places, masks, rules, unsorted):
    with collected_warnings():  # what is odd is told once, of all masks together
        return [_measure_one(i, masks, rules, unsorted) for i in places]


def _measure_one(i, masks, rules, unsorted):
    data, name = masks.data(i), f"{masks.path}: {masks.names[i]}"
    hole = decode(data, name, polarity=rules.polarity, threshold=rules.threshold)
    if rules.resize:
        side = (rules.resize, rules.resize)
        hole = cv2.resize(hole.view(np.uint8), side, interpolation=cv2.INTER_NEAREST_EXACT).view(bool)
    if unsorted or rules.resize:
        data = encode(hole)
    row = describe(hole, masks.names[i], data, edges=rules.edges, border=rules.border)
    if unsorted:  # its number depends on all masks before it
        path = _unsorted(unsorted, i)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, data)
    return {**row, "width": hole.shape[1], "height": hole.shape[0]}


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
    _check_edges(edges, text)
    return edges


def _check_edges(edges, came):
    if len(edges) < 2 or not all(a < b for a, b in itertools.pairwise(edges)) or edges[0] < 0 or edges[-1] > 1:
        raise BadInput(f"--ratios is a rising list such as 0.1,0.3,0.5 between 0 and 1, got {came!r}")
