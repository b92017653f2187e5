"""Lists of pairs: `pairs.csv`, as runs and `evaluate pairs` write it, or written by hand with two columns."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from evaluation import masks as mask_files
from evaluation.masks import OTHER, check_masks, default_masks, in_order, without_holes
from evaluation.names import key_of
from evaluation.pairing import Hashes, image_folder, pair_set
from evaluation.pairs import Pair, PairSet, Sources, fit_hole
from evaluation.settings import BUILT_IN, NATIVE, REFERENCE, Size
from maskgen import canonical, maskset
from maskgen.categories import category, measure
from maskgen.errors import BadInput, warn
from maskgen.runtime import files, images
from maskgen.runtime.output import check_finished
from maskgen.runtime.recipe import RECIPE, differences
from maskgen.settings import SIZE

PAIRS_CSV = "pairs.csv"
COLUMNS = [field.name for field in fields(Pair)]
BY_HAND = ["image", "mask"]  # the columns that a list needs; the others are measured


def pairs_csv(pairs: list[Pair]) -> bytes:
    """The bytes of `pairs.csv`."""
    return pd.DataFrame([vars(pair) for pair in pairs]).to_csv(index=False, lineterminator="\n").encode()


def pairs_sha256(pairs: list[Pair]) -> str:
    """One hash of all pairs: the images, the masks, and which belong together."""
    return hashlib.sha256(pairs_csv(pairs)).hexdigest()


def read_pairs(path: Path) -> list[Pair]:
    """Read a `pairs.csv` with all columns; others are ignored.

    Raises BadInput for any other file, and for a pair named twice.
    """
    return _as_pairs(_read_table(path, COLUMNS), path)


def _read_table(path, wanted):
    """The rows of a list as a DataFrame. Raises BadInput where a wanted column is missing, and for no row."""
    texts = {field.name: str for field in fields(Pair) if field.type is str or field.type == "str"}
    try:
        table = pd.read_csv(path, dtype=texts, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{path} is not a list of pairs that can be read: {reason}") from None
    table = table.rename(columns=lambda name: str(name).strip())
    missing = [name for name in wanted if name not in table]
    if missing or table.empty:
        expected = "a pairs.csv that evaluate wrote" if wanted == COLUMNS else "a first line `image,mask`, then pairs"
        raise BadInput(f"{path} has no {missing[0] if missing else 'row'}: expected {expected}")
    return table


def _as_pairs(table, path):
    """The pairs of a table that has all columns. Raises BadInput where a cell is not as evaluate writes it."""
    if table["pair"].duplicated().any():
        raise BadInput(f"{path} has the pair {table['pair'][table['pair'].duplicated()].iloc[0]} twice")
    for column in ("hole_ratio", "border_distance"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
        if not table[column].between(0, 2**31).all():
            raise BadInput(f"{path}: {column} is not a number in every row: make it again with evaluate pairs")
    for row in table.itertuples():  # pair and category become names of folders and files
        is_name = re.fullmatch(r"[\w.-]+", row.pair) and re.fullmatch(r"[\w.-]+", row.category)
        if not is_name or not all(files.leads_inside(name) for name in (row.pair, row.category, row.image)):
            raise BadInput(f"{path}: {row.pair!r:.40} of {row.image!r:.40} is not a pair as evaluate writes it")
        if row.mask and not files.leads_inside(row.mask):
            raise BadInput(f"{path}: the mask {row.mask!r:.40} leads out of the masks")
    return [Pair(**row) for row in table[COLUMNS].to_dict("records")]


def changes(path: Path, pairs: list[Pair]) -> Iterator[str]:
    """Lines that say which files differ from those in an earlier `pairs.csv`; none if there is no such file."""

    def contents(pairs):
        return {
            "photos": {pair.image: pair.image_sha256 for pair in pairs},
            "masks": {pair.mask: pair.mask_sha256 for pair in pairs},
        }

    try:
        before = read_pairs(path)
    except BadInput:
        return
    yield from differences(contents(before), contents(pairs))


def open_pairs(
    path: Path,
    *,
    images: Path | None = None,
    masks: Path | None = None,
    polarity: str | None = None,
    threshold: int | None = None,
    size: Size | None = None,
) -> PairSet:
    """Read listed pairs, find their files, and measure what a list written by hand leaves out.

    path: a `pairs.csv` or its folder. What is not given is taken from the files beside it, as `evaluate pairs` writes
    them, and from the recipe there: folders, size, polarity and the factor of super-resolution. A list needs the
    columns `image` and `mask` only; the classes are then measured and images keep their size. Raises BadInput where
    files are not found, and names the missing option.
    """
    file = path / PAIRS_CSV if path.is_dir() else path
    if not file.is_file():
        check_finished(file.parent)
        raise BadInput(f"no such file: {file} (expected a {PAIRS_CSV}, which `evaluate pairs` makes)")
    table, (recorded, folders) = _read_table(file, BY_HAND), _recorded(file.parent)
    by_hand = not set(COLUMNS) <= set(table)
    pairs = [] if by_hand else _as_pairs(table, file)
    size = size or recorded.get("size") or (NATIVE if by_hand else (SIZE, SIZE))
    factor = recorded.get("factor", 0) if not by_hand else 0
    if not factor and not all(table["mask"]):
        raise BadInput(f"{file} lists a pair without a mask, and no recipe.json beside it says that it enlarges images")
    given = {"polarity": polarity, "threshold": threshold}
    for name, value in given.items():
        if value is not None and value != recorded.get(name, value):
            raise BadInput(f"--{name} {value}: {file.parent / RECIPE} says {recorded[name]}, leave out the option")
    places = {}
    for kind, folder in {"images": images, "masks": masks}.items():
        column = table[kind[:-1]]
        if kind == "masks" and factor:
            places[kind] = file.parent
        elif by_hand and folder is None and not all(map(files.leads_inside, column)):
            places[kind], table[kind[:-1]] = _common_folder(column, file.parent)
        else:
            places[kind] = _place_of(kind, column, folder, folders.get(kind), file, by_hand)
    read = {name: recorded.get(name) if value is None else value for name, value in given.items()}
    sources = Sources(places["images"], places["masks"], read["polarity"] or "hole-white", read["threshold"])
    if not factor:
        check_masks(sources.masks, sources.polarity, sources.threshold)
    if by_hand:
        pairs = _completed(table, sources, size, file)
    called = {pair.pair: (key_of(pair.mask), key_of(pair.image)) for pair in pairs}
    found = pair_set(pairs, sources, size=size, factor=factor, called=called, by_name=by_hand)
    return replace(found, masks="none") if factor else found


def _place_of(kind, names, folder, named, file, by_hand):
    """The folder of listed images or masks: the given one, that of the list, the recorded one or the default."""
    if folder is not None:
        place = image_folder(folder) if kind == "images" else canonical.masks_path(folder)
    elif _is_there(file.parent / names.iloc[0]):
        place = file.parent
    elif named not in (None, BUILT_IN, REFERENCE, *canonical.VERSIONS) and Path(named).exists():
        place = Path(named)
    elif by_hand:
        place = Path()
    elif kind == "images":
        place = image_folder(Path(REFERENCE) if named == REFERENCE else None)
    else:
        place = canonical.path_of(named) if named in canonical.VERSIONS else default_masks()
    for name in names:
        if not mask_files.exists(place, name):
            where = f"in {place}" if place != Path() else f"beside it, nor in the working folder {Path.cwd()}"
            raise BadInput(f"{file} names {name}, which is not {where}: give its folder with --{kind}")
    return place


def _common_folder(names, start):
    """The folder of files that a list names by paths that lead out of its own, and their paths below it."""
    paths = [Path(os.path.normpath((start / name).absolute())) for name in names]
    try:
        place = Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # two drives
        raise BadInput(f"the list names files on several drives, as {names.iloc[0]}: copy them to one") from None
    for path in paths:
        if not _is_there(path):
            raise BadInput(f"no such file: {path} (named in a list of pairs)")
    return place, [path.relative_to(place).as_posix() for path in paths]


def _completed(table, sources, size, file):
    """The pairs of a list without all columns: those that it lacks are named and measured."""
    rows = list(zip(table["image"], table["mask"], strict=True))
    pair_names, classes = (table[name].tolist() if name in table else None for name in ("pair", "category"))
    pairs = measured_pairs(rows, sources, native=size == NATIVE, pair_names=pair_names, classes=classes)
    return _as_pairs(pd.DataFrame([vars(pair) for pair in pairs]), file)


def measured_pairs(
    rows: Sequence[tuple[str, str]],
    sources: Sources,
    *,
    native: bool,
    pair_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> list[Pair]:
    """Pairs of (image, mask), with measured classes and hashes, in the order of the classes.

    native: the images keep their size, so that masks are measured at that size; others are measured as they are.
    pair_names, classes: where they are given. Masks without a hole are left out, which an `InputWarning` says, as of
    masks of another size than their image. Raises BadInput where no mask has a hole, and for files that are no images.
    """
    pair_names = pair_names or names_of_pairs(rows)
    image_hashes, mask_hashes = Hashes(sources.images), Hashes(sources.masks)
    sizes: dict[str, tuple] = {}
    measures: dict[tuple, tuple] = {}
    found, empty, other_size = [], [], []
    for i, (image, mask) in enumerate(tqdm(rows, desc="measuring pairs", unit="pair", disable=None, leave=False)):
        if native and image not in sizes:
            sizes[image] = images.read_rgb(sources.images / image).shape[:2]
        size = sizes.get(image)
        if (mask, size) not in measures:
            data = mask_files.read(sources.masks, mask)
            name = sources.masks / mask
            hole = maskset.decode(data, name, polarity=sources.polarity, threshold=sources.threshold)
            measures[mask, size] = measure(fit_hole(hole, size) if size else hole), hole.shape
        measured, shape = measures[mask, size]
        if size and shape != size:
            other_size.append(f"{mask} {_px(shape)} of {image} {_px(size)}")
        if not measured.hole_ratio:
            empty.append(mask)
            continue
        class_ = category(measured.hole_ratio, measured.border_distance) or OTHER
        ratio = round(measured.hole_ratio, 6)
        row = pair_names[i], image, mask, classes[i] if classes else class_, ratio, measured.border_distance
        found.append(Pair(*row, image_hashes[image], mask_hashes[mask]))
    if not found:
        raise without_holes(sources.masks, sources.polarity)
    if empty:
        warn(f"{len(empty)} of {len(rows)} pairs are left out, as their masks have no hole: {empty[0]}")
    if other_size:
        warn(f"{len(other_size)} masks are resized by nearest neighbour to the size of their image, as {other_size[0]}")
    order = in_order(pd.DataFrame({"category": [pair.category for pair in found], "place": range(len(found))}))
    return [found[i] for i in order["place"]]


def _px(size):
    return f"({size[0]} x {size[1]} px)"


def names_of_pairs(rows: Iterable[tuple[str, str]]) -> list[str]:
    """A name for each pair of (image, mask) that can be part of a file name, made from those of its files."""
    rows = list(rows)
    stems = [PurePosixPath(image).stem for image, _ in rows]
    if len(set(stems)) < len({image for image, _ in rows}):  # one name in several folders
        stems = [str(PurePosixPath(image).with_suffix("")) for image, _ in rows]
    uses: dict[str, int] = {}
    for image, _ in rows:
        uses[image] = uses.get(image, 0) + 1
    labels = [
        stem if uses[image] == 1 else f"{stem}-{PurePosixPath(mask).stem}"
        for stem, (image, mask) in zip(stems, rows, strict=True)
    ]
    found, taken = [], set()
    for label in labels:
        plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", label)).strip(".") or "pair"
        plain, number = files.shortened(plain), 2
        name = plain
        while name.casefold() in taken:
            name, number = f"{plain}-{number}", number + 1
        taken.add(name.casefold())
        found.append(name)
    return found


def _is_there(path):
    try:
        return path.is_file()
    except OSError:  # not a valid file name
        return False


def _recorded(folder):
    """What the recipe beside a `pairs.csv` says of size, masks and factor, and the folders that it names."""
    if not (folder / RECIPE).is_file():
        return {}, {}
    recipe = maskset.read_recipe(folder)
    settings, folders = recipe.get("settings", {}), recipe.get("folders", {})
    found = {"polarity": settings["polarity"]} if settings.get("polarity") in maskset.POLARITIES else {}
    if type(settings.get("threshold")) is int:
        found["threshold"] = settings["threshold"]
    if "white" in settings:  # of `evaluate pairs`, which writes its own masks
        found = {"polarity": "hole-white" if settings["white"] == "hole" else "hole-black"}
    size = settings.get("size")
    if isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
        found["size"] = tuple(size)
    elif size == NATIVE:
        found["size"] = NATIVE
    if type(settings.get("factor")) is int and settings["factor"] > 1:
        found["factor"] = settings["factor"]
    return found, folders if isinstance(folders, dict) else {}
