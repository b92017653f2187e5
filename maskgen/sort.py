"""Measure masks and sort them into classes: folders, zips and tars, of either polarity and any size."""

import functools
import hashlib
import itertools
import posixpath
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from maskgen.categories import category_name, category_names
from maskgen.errors import BadInput, collected_warnings, warn
from maskgen.index import INDEX, write_index
from maskgen.maskset import POLARITIES, Masks, check_polarity, decode, describe, encode, index_of
from maskgen.runtime import parallel
from maskgen.runtime.files import CHECKSUMS, leads_inside, write_checksums, write_whole
from maskgen.runtime.journal import RowLog
from maskgen.runtime.lock import locked
from maskgen.runtime.output import OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.runtime.rows import Rows
from maskgen.settings import BORDER, EDGES

NVIDIA = {"test": 12_000, "train": 55_116}  # files in their archives
NVIDIA_THRESHOLD = 153  # "threshold 0.6 to binarize the masks", of 255
LAYOUTS = ("any", "nvidia")
POLARITY_SAMPLE = 64  # masks that are measured to find the polarity
SAME_RATIO = 0.01  # hole ratios that differ by less count as equal
BATCH = 50  # masks per task of a worker
JOURNAL = "masks.jsonl"  # in the progress folder: rows of the masks that are sorted
UNSORTED = "unsorted"  # in the progress folder: masks that are written, but not yet numbered within their class
TYPES = {"border_distance": int, "components": int, "width": int, "height": int}  # columns that are no texts
OUTSIDE = "outside"  # folder for masks outside all classes


@dataclass(frozen=True)
class SortConfig:
    """How masks are read and classified. Raises BadInput for values that make no sense."""

    polarity: str = "hole-white"  # or "hole-black", or "auto": found by measuring
    threshold: int | None = None  # grey levels from it upwards are white; None: files must have two values
    resize: int | None = None  # px, side of the square that masks are resized to first, by nearest neighbour
    edges: tuple[float, ...] = EDGES  # of the hole ratio
    border: int = BORDER  # px, distance that interior masks keep from the image edges

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
    """Find the polarity of masks by measuring them. Returns "hole-white" or "hole-black", and the reason, a sentence.

    A mask set with an index has white holes, if the masks have the hole ratios of the index. Otherwise the index is not
    used, and an `InputWarning` says so. Without an index, masks that are less than 0.4 white count as hole-white, those
    that are more than 0.6 white as hole-black, and nearly all have to agree: holes of the paper's masks fill at most
    0.6 of the image. Raises BadInput if the masks disagree or are all in between, and for an index that measures black.
    """
    index = index_of(masks.path)
    if index is not None and _index_fits(masks, index):
        return "hole-white", f"hole-white, as in every mask set with a {INDEX}"
    shares = _white_shares(masks, _evenly_spaced(len(masks)))
    dark, bright = int((shares < 0.4).sum()), int((shares > 0.6).sum())
    evidence = f"of {len(shares)} masks {dark} are less than 40 % white and {bright} are more than 60 % white"
    if _prevails(dark, bright, len(shares)) or _prevails(bright, dark, len(shares)):
        polarity = "hole-white" if dark > bright else "hole-black"
        return polarity, f"{polarity}, since {evidence}, and holes fill at most 60 %"
    raise BadInput(f"{masks.path}: the polarity is not clear, {evidence}: give --polarity hole-white or hole-black")


def _prevails(votes, opposing, number):
    """True if at least 95 % of the masks that vote agree, and at least a quarter of all masks vote."""
    return votes + opposing >= max(1, number / 4) and votes >= 0.95 * (votes + opposing)


def _evenly_spaced(number):
    return np.unique(np.linspace(0, number - 1, POLARITY_SAMPLE).astype(int))


def _white_shares(masks, chosen):
    """Share of each mask that is white. float (N,)."""
    with collected_warnings():  # masks that are all white are reported later, if white is the hole
        shares = np.array([masks[i].mean() for i in chosen])
    return shares if masks.polarity == "hole-white" else 1 - shares


def _index_fits(masks, index):
    """True if masks have the hole ratios that an index lists. Raises BadInput if their black pixels have them."""
    rows = Rows(index)
    top, place = masks.path.absolute(), index.parent.absolute()
    if place.is_relative_to(top):  # the index of all masks or of a part of them
        part = place.relative_to(top).as_posix()
        listed = (posixpath.normpath(f"{part}/{row['file_name']}") for row in rows)
    else:  # the index of the folder above
        listed = (row["file_name"].removeprefix(f"{top.name}/") for row in rows)
    places = masks.names.places(listed)
    found = np.unique(places[places >= 0])
    if not found.size:
        warn(f"{index} lists none of the masks in {masks.path}: it is not used")
        return False
    chosen = found[_evenly_spaced(len(found))].tolist()
    row_of = {place: i for i, place in enumerate(places) if place in chosen}  # the last one, if listed twice
    ratios = np.array([_number(rows[row_of[place]]["hole_ratio"]) for place in chosen])
    shares = _white_shares(masks, chosen)
    white = np.abs(shares - ratios) < SAME_RATIO
    black = ~white & (np.abs(1 - shares - ratios) < SAME_RATIO)
    if _prevails(black.sum(), white.sum(), len(chosen)):
        raise BadInput(
            f"{index} measures the black pixels of these masks, but in a mask set white is the hole: "
            "delete the index, then make a mask set with `maskgen bin --out`"
        )
    if not white.all():
        wrong = int(np.argmin(white))
        fits = _prevails(white.sum(), black.sum(), len(chosen))
        warn(
            f"{index} does not fit {(~white).sum()} of {len(chosen)} masks, such as {masks.names[chosen[wrong]]} "
            f"(hole ratio {shares[wrong]:.3f}, in the index {ratios[wrong]:.3f}): "
            f"{'`maskgen verify` lists them' if fits else 'it is not used'}"
        )
        return fits
    return True


def _number(text):
    try:
        return float(text)
    except ValueError:
        return np.nan


def open_masks(path: Path, config: SortConfig, layout: str = "any") -> tuple[Masks, SortConfig, str]:
    """Open masks and find their polarity. Returns the masks, the config with that polarity, and the reason for it.

    The reason is "" if the config has a polarity. layout: "any", or "nvidia" for one of NVIDIA's two archives, packed
    or not, with 12,000 or 55,116 masks; they are read with NVIDIA's threshold unless the config has one. Raises
    BadInput for an unknown layout, for masks other than NVIDIA's, and for "hole-black" with a mask set that has an
    index.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"no layout {layout!r}: expected one of {', '.join(LAYOUTS)}")
    if layout == "nvidia" and config.threshold is None:
        config = replace(config, threshold=NVIDIA_THRESHOLD)
    if config.polarity != "auto":
        check_polarity(path, config.polarity)
    masks = Masks(path, threshold=config.threshold)
    are_numbers = len(masks) in NVIDIA.values() and all(Path(name).stem.isdecimal() for name in masks.names)
    if layout == "nvidia" and not are_numbers:
        raise BadInput(
            f"{path} holds {len(masks):,} masks such as {masks.names[0]}: expected NVIDIA's 12,000 test masks "
            f"(00000.png ... 11999.png) or 55,116 train masks; leave out --layout nvidia for other masks"
        )
    masks.polarity, reason = find_polarity(masks) if config.polarity == "auto" else (config.polarity, "")
    return masks, replace(config, polarity=masks.polarity), reason


def measure_masks(
    masks: Masks,
    config: SortConfig,
    out: Path | None = None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Rows:
    """Measure all masks. Returns one index row for each, in the order of masks.names, with `width` and `height`.

    The rows are a sequence of dicts that is read from a file as it is needed: from a temporary one without `out`.

    out: if given, write a mask set there: `test/<category>/NNNNN.png`, with `test/outside` for masks outside all
    classes, index, recipe and checksums. Rows then have the new names, and the old ones as `source`. Resumes an
    interrupted run, and reads the rows of a complete one. say: called with lines for the user. An `InputWarning`
    reports masks that are all hole, and a set in which no mask has a hole. Raises BadInput if `out` holds anything
    else, or masks sorted with another config, and for a file that is no mask.
    """
    if config.polarity == "auto":
        raise BadInput("expected polarity hole-white or hole-black, got auto: `open_masks` finds it")
    where = {"workers": workers, "cluster": cluster}
    if out is None:
        rows = _temporary(_measure(masks, config, 0, None, [masks.probe_file], where))
    else:
        if masks.path.is_dir() and out.resolve().is_relative_to(masks.path.resolve()):
            raise BadInput(f"{out} lies in {masks.path}, the folder of the masks: name a folder outside it")
        with locked(out):  # before all masks are read for the recipe
            rows = _sort(masks, config, out, where, say)
    _warn_of_extremes(masks, config, rows)
    return rows


def _sort(masks, config, out, where, say):
    """Measure masks and write them to `out`. Returns the rows."""
    recipe = {
        "made_by": "maskgen bin",
        "settings": {**asdict(config), "any_size": config.resize is None},
        "masks": _content_hash(masks),
        "libraries": library_versions("opencv", "numpy"),
    }
    about = {"sources": [{"name": masks.path.resolve().name}]}
    with OutputFolder(out, recipe, info=about) as folder:
        if folder.complete:
            rows = Rows(out / "test" / INDEX)
            if len(rows) != len(masks) or not all(_is_row(row, config.edges) for row in rows):
                raise BadInput(f"{out / 'test' / INDEX} was changed after the run: see `maskgen verify {out}`")
            say(folder.complete_message)
        else:
            counts = _sort_missing(masks, config, folder, where)
            folder.finish(counts=counts)
            say(f"{len(masks)} masks in {out}")
        if not (out / CHECKSUMS).exists():  # written after the recipe, which they include
            write_checksums(out)
    return Rows(out / "test" / INDEX, TYPES)


def _temporary(rows):
    """The rows in a temporary file, which is removed together with them."""
    folder = tempfile.mkdtemp(prefix="maskgen-bin-")
    try:
        write_index(folder, rows)
        found = Rows(Path(folder, INDEX), TYPES)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return found


def _sort_missing(masks, config, folder, where):
    """Write all masks that an earlier run has not written, and the index. Returns the number of masks by class."""
    test, unsorted = folder.path / "test", (folder.progress / UNSORTED).absolute()
    counts = dict.fromkeys([*category_names(config.edges), OUTSIDE], 0)
    unsorted.mkdir(exist_ok=True)
    is_row = functools.partial(_is_row, edges=config.edges)
    names = iter(masks.names)

    def is_there(row):
        return row["source"] == next(names, None) and (test / row["file_name"]).is_file()

    with RowLog(folder.progress / JOURNAL, is_row) as log:
        for row in log.resume(is_there):
            counts[row["category"] or OUTSIDE] += 1
        for row in _measure(masks, config, len(log), unsorted, [masks.probe_file, folder.recipe_file], where):
            row["source"], group = row["file_name"], row["category"] or OUTSIDE
            row["file_name"] = f"{group}/{counts[group]:05d}.png"
            counts[group] += 1
            (test / group).mkdir(parents=True, exist_ok=True)
            _unsorted_path(unsorted, len(log)).replace(test / row["file_name"])
            log.add(row)
        write_index(test, log)
    return counts


def _is_row(row, edges):
    """True if a row has the columns that are used here, as `measure_masks` writes them."""
    try:
        measured = 0 <= float(row["hole_ratio"]) <= 1 and int(row["components"]) >= 0
        return (
            measured
            and row["category"] in {"", *category_names(edges)}
            and row["source"]
            and leads_inside(row["file_name"])
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def prepare_index(path: Path, out: Path | None, config: SortConfig) -> None:
    """Check the path of an index, before any mask is measured, and create its folder.

    Raises BadInput for a path in `out`, which has its own index, and for a path that would make the folder a mask set
    although its masks are read with another polarity, a threshold or a resize.
    """
    if out is not None and path.resolve().is_relative_to(out.resolve()):
        raise BadInput(f"{path} lies in {out}, which gets its own index, test/{INDEX}: name another file")
    changed = [config.polarity] * (config.polarity == "hole-black")
    changed += [f"{name} {value}" for name in ("threshold", "resize") if (value := getattr(config, name)) is not None]
    if path.name == INDEX and changed:
        raise BadInput(
            f"{path} would make its folder a mask set, but the masks are read with {' and '.join(changed)}: "
            "name another file, or make a mask set with --out"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"{path.parent} is not a folder: name another file for the index") from None


def _content_hash(masks):
    """SHA-256 of the names and bytes of all masks."""
    digest = hashlib.sha256()
    for i, name in enumerate(masks.names):
        digest.update(f"{name}\0{hashlib.sha256(masks.data(i)).hexdigest()}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _warn_of_extremes(masks, config, rows):
    """Warn of masks that are all hole, and of a set without any hole."""
    full, first, holes = 0, "", False
    for row in rows:
        if float(row["hole_ratio"]) == 1:
            full, first = full + 1, first or row.get("source", row["file_name"])
        holes = holes or int(row["components"]) > 0
    if full:
        count = f"{full} of {len(rows)} masks cover the whole image, such as {first}"
        warn(f"{masks.path}: {count} (polarity {config.polarity})")
    if not holes:
        warn(f"{masks.path}: no mask has a hole (polarity {config.polarity})")


def _measure(masks, config, start, unsorted, shared_files, where):
    """Yield the rows of the masks from number `start` on. unsorted: folder to write them to, or None."""
    batches = (range(i, min(i + BATCH, len(masks))) for i in range(start, len(masks), BATCH))
    job = functools.partial(_measure_batch, masks=masks, config=config, unsorted=unsorted)
    with tqdm(total=len(masks), initial=start, unit="mask", desc="bin") as bar:
        for measured in parallel.run(job, batches, shared_files=shared_files, **where):
            yield from measured
            bar.update(len(measured))


def _unsorted_path(folder, i):
    return folder / f"{i // 1000:04d}" / f"{i:06d}.png"


def _measure_batch(numbers, masks, config, unsorted):
    with collected_warnings():  # `_warn_of_extremes` warns once for all masks
        return [_measure_one(i, masks, config, unsorted) for i in numbers]


def _measure_one(i, masks, config, unsorted):
    data, name = masks.data(i), f"{masks.path}: {masks.names[i]}"
    hole = decode(data, name, polarity=config.polarity, threshold=config.threshold)
    if config.resize:
        side = (config.resize, config.resize)
        hole = cv2.resize(hole.view(np.uint8), side, interpolation=cv2.INTER_NEAREST_EXACT).view(bool)
    if unsorted or config.resize:
        data = encode(hole)
    row = describe(hole, masks.names[i], data, edges=config.edges, border=config.border)
    if unsorted:  # the number in its class depends on all masks before it
        path = _unsorted_path(unsorted, i)
        path.parent.mkdir(exist_ok=True)
        write_whole(path, data)
    return {**row, "width": hole.shape[1], "height": hole.shape[0]}


def count_table(rows: Iterable[dict], edges: tuple[float, ...] = EDGES) -> str:
    """A table of counts: a line per ratio interval with the interior and the free masks, then the other masks."""
    counts = Counter(row["category"] for row in rows)
    number = counts.total()
    lines = [f"{'hole ratio':<12}{'interior':>10}{'free':>10}"]
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        interior, free = (counts[category_name(side, i, edges)] for side in ("interior", "free"))
        lines.append(f"{f'({low:g}, {high:g}]':<12}{interior:>10}{free:>10}")
    lines.append(f"{'other':<12}{counts['']:>20}")
    lines.append(f"{'all':<12}{number:>20}")
    return "\n".join(lines)


def classes_by_block(rows: Iterable[dict], length: int = 1000) -> str:
    """The most frequent class of each `length` files: one line per block. Shows how a flat archive is ordered."""
    lines, begin, rows = [], 0, iter(rows)
    while found := [row["category"] or "other" for row in itertools.islice(rows, length)]:
        top = max(sorted(set(found)), key=found.count)
        lines.append(f"{begin:05d} to {begin + len(found) - 1:05d}: {found.count(top)} of {len(found)} are {top}")
        begin += len(found)
    return "\n".join(lines)


def parse_edges(text: str) -> tuple[float, ...]:
    """Edges of the hole ratio from text such as "0.1,0.3,0.5". Raises BadInput unless they ascend from 0 to 1."""
    try:
        edges = tuple(float(part) for part in text.split(","))
    except ValueError:
        edges = ()
    _check_edges(edges, text)
    return edges


def _check_edges(edges, given):
    if len(edges) < 2 or not all(a < b for a, b in itertools.pairwise(edges)) or edges[0] < 0 or edges[-1] > 1:
        raise BadInput(f"--ratios is an ascending list between 0 and 1, such as 0.1,0.3,0.5, got {given!r}")
