"""The masks of a mask set with their rows of the index, for a data loader. Imports neither torch nor pandas."""

import operator
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maskgen.canonical import masks_path
from maskgen.checks import expect, one_of, optional, pair
from maskgen.errors import BadInput
from maskgen.maskset import INDEX, Masks
from maskgen.runtime.files import parse_rows, read_rows
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
        places = {name: i for i, name in enumerate(self.masks.names)}
        self.rows: list[dict] = []
        self._places: list[int] = []  # of the rows' masks in self.masks
        for name, row in zip(names, rows, strict=True):
            if name not in places:
                raise BadInput(f"{self.path} lists the mask {name!r:.80}, which is missing: get the set again")
            row = _with_numbers(row, self.path)
            if _has_ratio(row, ratio) and _has_border(row, border):
                self.rows.append(row)
                self._places.append(places[name])
        if not self.rows:
            wanted = [f"a hole ratio in ({ratio[0]:g}, {ratio[1]:g}]"] if ratio else []
            wanted += [f"the border {border!r}"] if border else []
            raise BadInput(f"none of the {len(rows)} masks in {self.path} has {' and '.join(wanted) or 'a row'}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[np.ndarray, dict]:
        """Mask i, bool (H, W), and its row; a negative i counts from the end."""
        i = operator.index(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {i}")
        return self.masks[self._places[i]], dict(self.rows[i])

    def __iter__(self) -> Iterator[tuple[np.ndarray, dict]]:
        """All masks in the order of the index."""
        return (self[i] for i in range(len(self)))


def _open(path):
    """The masks of a set, and of each row of its index the name of its mask and the row."""
    if path.is_dir():
        part = next((path / part for part in PARTS if (path / part / INDEX).is_file()), None)
        if part is None:
            raise _no_index(path)
        masks, folder, rows = Masks(part), "", read_rows(part / INDEX)
    else:
        masks = Masks(path)
        found = [name for name in masks.archive.names() if name.rpartition("/")[2] == INDEX]
        if not found:
            raise _no_index(path)
        index = min(found, key=lambda name: (Path(name).parent.name == "train", name.count("/"), name))
        folder, rows = index.removesuffix(INDEX), parse_rows(masks.archive.read(index), f"{path}: {index}")
    if rows and not set(NUMBERS) | {"file_name"} <= set(rows[0]):
        raise BadInput(f"the index of {path} lacks one of the columns file_name, {', '.join(NUMBERS)}: make it again")
    return masks, [folder + row["file_name"] for row in rows], rows


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
