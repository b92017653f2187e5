"""The masks of a run: which ones, their classes, and their files in a folder, a zip or a tar.

pandas is imported where it is needed: workers only read files.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from evaluation.settings import FIRST
from maskgen import canonical, maskset
from maskgen.archives import open_archive
from maskgen.categories import CATEGORIES, category, measure
from maskgen.errors import BadInput, warn
from maskgen.runtime import images
from maskgen.runtime.output import check_finished
from maskgen.runtime.recipe import RECIPE
from maskgen.settings import TESTSET

if TYPE_CHECKING:
    import pandas as pd

OTHER = "other"  # class of holes outside all classes of the paper
COLUMNS = {"file_name", "category", "hole_ratio", "border_distance"}  # of an index that need not be measured


def default_masks() -> Path:
    """The default masks: the test set in the working folder if there is one, else the canonical masks."""
    return Path(TESTSET) if Path(TESTSET).is_dir() else canonical.TESTSET


def default_per_class(masks: object) -> int:
    """How many masks of each class a run takes if nobody says how many: 10 where it takes v1 by default, else all, 0.

    masks: as the user named them, None for the default masks.
    """
    return FIRST if masks is None and default_masks() == canonical.TESTSET else 0


def mask_name(masks: Path) -> str:
    """What recipe.json calls the masks."""
    if str(masks) in canonical.VERSIONS:  # a folder in the working folder
        return f"./{masks}"
    return {canonical.path_of(version): version for version in canonical.VERSIONS}.get(masks, str(masks))


def check_masks(masks: Path, polarity: str = "hole-white", threshold: int | None = None) -> None:
    """Raise BadInput for masks that are missing or unfinished, or whose index contradicts the arguments."""
    if not masks.exists():
        ready = ", ".join(canonical.VERSIONS)
        raise BadInput(f"no such folder: {masks} (expected masks, which `maskgen testset` makes, or {ready})")
    if masks.is_dir():
        check_finished(masks)
        if (masks / "test" / "made.jsonl").exists() and not (masks / RECIPE).exists():  # as earlier versions left it
            raise BadInput(f"{masks} is unfinished: finish it first with the same `maskgen testset` command")
    shown = mask_name(masks)
    index = f"{shown}/{name}" if masks.is_file() and (name := index_name(masks)) else maskset.index_of(masks)
    if index and polarity == "hole-black":
        raise BadInput(
            f"{shown} has an index, {index}, and in a mask set with an index white is a hole: "
            "leave --polarity hole-black out"
        )
    if index and threshold is not None:
        raise BadInput(f"{shown} has an index, {index}: its masks have two values, leave out --threshold")


def find_masks(masks: Path, polarity: str = "hole-white", threshold: int | None = None) -> "pd.DataFrame":
    """Every mask of a folder, zip or tar: `mask` (its path there), `category`, `hole_ratio`, `border_distance`.

    For a mask set the values come from its index; all other masks are measured. Masks without a hole are left out with
    an `InputWarning`; holes outside the paper's classes are in the class `other`. Raises BadInput where no mask has a
    hole.
    """
    check_masks(masks, polarity, threshold)
    import pandas as pd

    if index := index_name(masks):
        table = read_index(masks, index)
    else:
        rows = []
        for name in tqdm(names(masks), desc="measuring masks", unit="mask", disable=None, leave=False):
            data = read(masks, name)
            size = measure(maskset.decode(data, masks / name, polarity=polarity, threshold=threshold))
            rows.append(
                {
                    "mask": name,
                    "category": category(size.hole_ratio, size.border_distance),
                    "hole_ratio": size.hole_ratio,
                    "border_distance": size.border_distance,
                }
            )
        table = pd.DataFrame(rows)
    empty = table.loc[table["hole_ratio"].astype(float) == 0, "mask"].tolist()
    table = table[table["hole_ratio"].astype(float) > 0][["mask", "category", "hole_ratio", "border_distance"]]
    if empty and len(table):
        warn(f"{len(empty)} of {len(empty) + len(table)} masks have no hole and are left out: {empty[0]}")
    if table.empty:
        raise without_holes(masks, polarity)
    table["category"] = table["category"].replace("", OTHER)
    return in_order(table)


def in_order(table: "pd.DataFrame") -> "pd.DataFrame":
    """Sort by class: those of the paper in its order, then all others. The order within a class is kept."""
    known = {name: i for i, name in enumerate(CATEGORIES)}
    first = dict.fromkeys(table["category"])
    rank = {name: known.get(name, len(known) + i) for i, name in enumerate(first)}
    return table.sort_values("category", key=lambda column: column.map(rank), kind="stable", ignore_index=True)


def read(masks: Path, name: str, sha256: str = "") -> bytes:
    """The bytes of a mask file. BadInput if it cannot be read, or if its SHA-256 is not the given one.

    masks: a folder, zip or tar. An archive stays open for the next mask, also after a fork.
    """
    if not masks.is_file():
        return images.read_bytes(masks / name, sha256)
    data = _archive(masks).read(name)
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(f"{masks / name} has changed, its SHA-256 is not the recorded one: restore the old file")
    return data


def exists(masks: Path, name: str) -> bool:
    """True if a folder, zip or tar holds a mask of that name."""
    try:
        return name in _names(*_key(masks)) if masks.is_file() else (masks / name).is_file()
    except OSError:  # not a valid file name
        return False


def names(masks: Path) -> list[str]:
    """The names of all masks in a folder, zip or tar, in natural order. BadInput if there is none."""
    if masks.is_file():
        return list(maskset.Masks(masks).names)
    return [path.relative_to(masks).as_posix() for path in images.find(masks, kind="mask")]


def index_name(masks: Path) -> str | None:
    """The name of the index of the test masks in a mask set, else of all or of the training masks; None without one."""
    for part in ("test", ".", "train"):
        name = Path(part, maskset.INDEX).as_posix()
        if exists(masks, name) and set(_first_line(read(masks, name)).split(",")) >= COLUMNS:
            return name
    return None


def read_index(masks: Path, name: str) -> "pd.DataFrame":
    """The index of that name, with the column `mask`: the names of the files below `masks`."""
    table = maskset.parse_index(read(masks, name), masks / name)
    table["mask"] = [(Path(name).parent / file).as_posix() for file in table["file_name"]]
    return table


def _first_line(data):
    return data.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()


def _archive(path: Path) -> Any:
    return _opened(*_key(path))


def _key(path: Path) -> tuple:
    """What tells an archive from an earlier one at its place, and this process from the one that forked it."""
    state = path.stat()
    return path.absolute(), os.getpid(), state.st_mtime_ns, state.st_size


@lru_cache(maxsize=4)
def _opened(path, process, changed, size):
    return open_archive(path)


@lru_cache(maxsize=4)
def _names(path, process, changed, size):
    return frozenset(_opened(path, process, changed, size).names())


def without_holes(masks: Path | str, polarity: str) -> BadInput:
    """The error for masks of which none has a hole. masks: where they are. polarity: as which they were read."""
    other = "hole-black" if polarity == "hole-white" else "hole-white"
    return BadInput(
        f"no mask in {masks} has a hole, read as {polarity}: expected masks with one, or --polarity {other}"
    )
