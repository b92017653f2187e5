"""The masks of a mask set with their rows of the index, for a data loader. Imports neither torch nor pandas."""

import operator
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from maskgen.canonical import masks_path
from maskgen.checks import expect, one_of, optional, pair
from maskgen.errors import BadInput
from maskgen.index import INDEX
from maskgen.maskset import Masks
from maskgen.runtime.files import parse_rows
from maskgen.runtime.names import Names
from maskgen.runtime.rows import Rows
from maskgen.settings import BORDER

NUMBERS = {"hole_ratio": float, "border_distance": int, "components": int}  # columns of the index; others are texts
PARTS = ("test", "", "train")  # folders of a set in which an index is looked for, in this order


class MaskDataset:
    """The masks of a mask set: dataset[i] is (hole, row), with hole bool (H, W) and row a dict of the index's columns.

    masks: a mask set as a folder, zip or tar; "v1" is the test set that comes with the package. Of a set with a `test`
    part, that part is used. ratio: (lowest, highest), only masks with lowest < hole ratio <= highest, as in the paper's
    classes. border: "interior", only masks whose holes are 50 px or more from the image edge, "free", only the others,
    or None. In a row, `hole_ratio` is a float, `border_distance` (px) and `components` are int, all others are str.

    It works in a torch `DataLoader` with any number of workers. The default collation gives a bool tensor (B, H, W) and
    a dict of lists and tensors:

        masks = MaskDataset("v1", ratio=(0.2, 0.4), border="interior")
        for hole, row in DataLoader(masks, batch_size=8, shuffle=True, num_workers=2):
            print(hole.shape, row["category"], row["hole_ratio"])

    Raises BadInput for masks without an index, and if no mask has the ratio and the border.
    """

    def __init__(self, masks: Path | str = "v1", ratio: tuple[float, float] | None = None, border: str | None = None):
        expect("ratio", ratio, optional(pair(0, 1)))
        expect("border", border, optional(one_of(("interior", "free"))))
        self.path = masks_path(masks)
        self.masks, names, rows = _open(self.path)
        numbers, places = array("q"), array("q")  # of the masks that are wanted: their rows, and their places in masks
        for i, (row, name, place) in enumerate(zip(rows, names, self.masks.names.places(names), strict=True)):
            if place < 0:
                raise BadInput(f"{self.path} lists the mask {name!r:.80}, which is missing: get the set again")
            row = _with_numbers(row, self.path)
            if _has_ratio(row, ratio) and _has_border(row, border):
                numbers.append(i)
                places.append(place)
        if not numbers:
            wanted = [f"a hole ratio in ({ratio[0]:g}, {ratio[1]:g}]"] if ratio else []
            wanted += [f"the border {border!r}"] if border else []
            raise BadInput(f"none of the {len(rows)} masks in {self.path} has {' and '.join(wanted) or 'a row'}")
        self.rows, self._places = _Chosen(rows, numbers, self.path), places

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[np.ndarray, dict]:
        """Mask i, bool (H, W), and its row; a negative i counts from the end."""
        i = operator.index(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {i}")
        return self.masks[self._places[i]], self.rows[i]

    def __iter__(self) -> Iterator[tuple[np.ndarray, dict]]:
        """All masks in the order of the index."""
        return (self[i] for i in range(len(self)))


class _Chosen(Sequence):
    """Some rows of an index, each made when it is asked for."""

    def __init__(self, rows, numbers, path):
        self.all, self.numbers, self.path = rows, numbers, path

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(len(self))[i]]
        return _with_numbers(self.all[self.numbers[i]], self.path)


def _open(path):
    """The masks of a set, and of each row of its index the name of its mask and the row."""
    if path.is_dir():
        part = next((path / part for part in PARTS if (path / part / INDEX).is_file()), None)
        if part is None:
            raise _no_index(path)
        masks, folder, rows = Masks(part), "", Rows(part.absolute() / INDEX)
    else:
        masks = Masks(path)
        found = [name for name in masks.archive.names() if name.rpartition("/")[2] == INDEX]
        if not found:
            raise _no_index(path)
        index = min(found, key=lambda name: (Path(name).parent.name == "train", name.count("/"), name))
        folder, rows = index.removesuffix(INDEX), parse_rows(masks.archive.read(index), f"{path}: {index}")
    if len(rows) and not set(NUMBERS) | {"file_name"} <= set(rows[0]):
        raise BadInput(f"the index of {path} lacks one of the columns file_name, {', '.join(NUMBERS)}: make it again")
    return masks, Names(folder + row["file_name"] for row in rows), rows


def _no_index(path):
    return BadInput(
        f"no {INDEX} in {path}: expected a mask set; `maskgen bin {path} --out masks/mine` makes one of any masks"
    )


def _with_numbers(row, path):
    try:
        return {**row, **{key: kind(row[key]) for key, kind in NUMBERS.items()}}
    except ValueError:
        raise BadInput(f"the index of {path} has a row whose values are not numbers: {row!r:.200}") from None


def _has_ratio(row, ratio):
    return ratio is None or ratio[0] < row["hole_ratio"] <= ratio[1]


def _has_border(row, border):
    return border is None or (row["border_distance"] >= BORDER) == (border == "interior")
