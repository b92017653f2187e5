"""Measures a set of test masks again with NumPy, SciPy and Pillow, independently of maskgen.

    python benchmarks/canonical.py [SET] [--sheets FOLDER]

SET: a zip or a folder of masks, white = hole, with the index `metadata.csv` or without; by default the test set in the
package. Prints the number of masks in each class, what differs from the index, statistics of each class, and how alike
the most similar masks are. Exit code 1 if anything differs from the index. 12,000 masks take a minute on one core.
"""

import argparse
import csv
import io
import itertools
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from tqdm import tqdm

SET = Path(__file__).parents[1] / "maskgen/data/v1/testset.zip"
SUFFIXES = (".png", ".tif", ".tiff")
EDGES = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
BORDER = 50  # px
TOUCHING_BY_CORNERS = np.ones((3, 3), bool)  # pixels that touch by a corner are one component
THUMBNAIL = 32  # px
BLOCK = 1000  # rows of the correlation table at a time
ROUNDING = 1e-6  # the index has six digits
GAP, DEPTH, LENGTH = 1 / 16, 1 / 4, 1 / 4  # of the image side, see `bars`
ELONGATION = 4  # see `bars`
SHOWN = 10  # faults of one kind, and pairs of masks, that are printed
SHEET = 50  # masks or pairs on a contact sheet


class Mask(NamedTuple):
    """One measured mask. Lengths are px, shares are of the hole pixels."""

    name: str
    category: str  # by its measured ratio and border distance
    ratio: float
    distance: int  # from the nearest hole pixel to the nearest image edge
    components: int
    outline: int  # hole pixels with a valid neighbour above, below, left or right
    near_edge: float  # share within BORDER of the image edge
    in_bars: float  # share in bars along the image edge
    packed: np.ndarray  # the hole, eight pixels to a byte
    thumbnail: np.ndarray  # float32, share of hole in each of 32 x 32 parts


def read_set(path):
    """(names, index, read): file names, the rows of metadata.csv by name or None, and a function from name to bytes."""
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        read = {name: file.read_bytes for name, file in files.items()}
    else:
        archive = zipfile.ZipFile(path)
        read = {name: lambda name=name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    names = sorted(name for name in read if name.lower().endswith(SUFFIXES))
    index = None
    for table in (name for name in read if Path(name).name == "metadata.csv"):
        rows = csv.DictReader(io.StringIO(read[table]().decode("utf-8")))
        folder = table.removesuffix("metadata.csv")
        index = (index or {}) | {folder + row["file_name"]: row for row in rows}
    return names, index, lambda name: read[name]()


def decode(data):
    """The hole of an image file, bool (H, W), and whether the file has black and white pixels only."""
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    hole = grey == 255
    return hole, bool((hole | (grey == 0)).all())


def measure(name, hole):
    """The `Mask` of a hole, bool (H, W)."""
    total, (height, width) = np.count_nonzero(hole), hole.shape
    box = ndimage.find_objects(hole.astype(np.uint8))
    distance = min(height, width)
    if box:
        rows, columns = box[0]
        distance = min(rows.start, columns.start, height - rows.stop, width - columns.stop)
    near = total - np.count_nonzero(hole[BORDER:-BORDER, BORDER:-BORDER])
    inner = hole.copy()
    inner[1:] &= hole[:-1]
    inner[:-1] &= hole[1:]
    inner[:, 1:] &= hole[:, :-1]
    inner[:, :-1] &= hole[:, 1:]
    small = Image.fromarray(hole.astype(np.float32)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Mask(
        name,
        category(total / hole.size, distance),
        total / hole.size,
        distance,
        ndimage.label(hole, TOUCHING_BY_CORNERS)[1],
        total - np.count_nonzero(inner),
        near / max(total, 1),
        np.count_nonzero(bars(hole)) / max(total, 1),
        np.packbits(hole),
        np.asarray(small),
    )


def category(ratio, distance):
    """The class of the paper, such as free_0.2-0.3, or "" outside. A ratio of 0.2 belongs to 0.1-0.2."""
    for low, high in itertools.pairwise(EDGES):
        if low < ratio <= high:
            return f"{'interior' if distance >= BORDER else 'free'}_{low:g}-{high:g}"
    return ""


def bars(hole):
    """The hole pixels that belong to bars along the image edge, as a moving camera leaves them. bool (H, W).

    A bar follows one edge of the image for at least LENGTH of it, is at most 1 / ELONGATION as thick as it is long (in
    nine tenths of its length), begins within GAP of the edge, and ends within DEPTH of it. Where something else joins
    it farther inside the image, the bar is interrupted; interruptions of up to GAP do not end it.
    """
    found = np.zeros_like(hole)
    for side in range(4):
        turned, marked = np.rot90(hole, side), np.rot90(found, side)  # views: the edge is the first row
        depth, width = int(DEPTH * turned.shape[0]), turned.shape[1]
        gap = int(GAP * width)
        band, row = turned[:depth], np.arange(depth)[:, None]
        begin = band.argmax(0)
        after = (row > begin) & ~band
        end = after.argmax(0)
        is_bar = band.any(0) & (begin <= gap) & after.any(0)
        # Interruptions of up to `gap` are filled; the ends of the row are no bar.
        padded = np.pad(is_bar, gap + 1)
        filled = ndimage.binary_closing(padded, np.ones(gap + 1, bool))[gap + 1 : -gap - 1]
        change = np.flatnonzero(np.diff(np.pad(filled, 1).astype(np.int8)))
        for first, last in change.reshape(-1, 2):
            columns = np.arange(first, last)[is_bar[first:last]]
            thickness = np.quantile(end[columns] - begin[columns], 0.9)
            if last - first >= max(LENGTH * width, ELONGATION * thickness):
                inside = (row >= begin[columns]) & (row < end[columns])
                marked[:depth, columns] |= inside
    return found


def faults_of(masks, index, names):
    """What differs from the index, a line of text for each fault, and the largest differences as text."""
    faults = [f"{name}: in the index, but not in the set" for name in sorted(set(index) - set(names))]
    largest = {"hole_ratio": 0.0, "border_distance": 0.0, "components": 0.0}
    for mask in masks:
        row = index.get(mask.name)
        if row is None:
            faults.append(f"{mask.name}: not in the index")
            continue
        if row["category"] != mask.category:
            stated, measured = (name or "no class" for name in (row["category"], mask.category))
            faults.append(f"{mask.name}: {stated} in the index, measured {measured}")
        values = {"hole_ratio": mask.ratio, "border_distance": mask.distance, "components": mask.components}
        for column, value in values.items():
            difference = abs(float(row[column]) - value)
            largest[column] = max(largest[column], difference)
            if difference > ROUNDING:
                faults.append(f"{mask.name}: {column} {row[column]} in the index, measured {value:g}")
    return faults, ", ".join(f"{column} {value:.2g}" for column, value in largest.items())


def standardized(rows):
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def nearest(masks):
    """For each mask the most alike one of all and of its own class: two pairs of arrays (place, correlation).

    Compared are the thumbnails. Two interior masks are compared without the rim, which is valid in all of them. The
    correlation with nothing, in a class of one mask, is -1.
    """
    codes = np.unique([mask.category for mask in masks], return_inverse=True)[1]
    interior = np.array([mask.category.startswith("interior") for mask in masks])
    thumbnails = np.stack([mask.thumbnail for mask in masks])
    rim = THUMBNAIL * BORDER // 512
    whole = standardized(thumbnails.reshape(len(masks), -1))
    inner = standardized(thumbnails[:, rim:-rim, rim:-rim].reshape(len(masks), -1))
    of_all, of_class = [], []
    for begin in range(0, len(masks), BLOCK):
        block = slice(begin, begin + BLOCK)
        both = interior[block, None] & interior
        table = np.where(both, inner[block] @ inner.T, whole[block] @ whole.T)
        own = np.arange(len(table))
        table[own, begin + own] = -1
        for found in (of_all, of_class):
            places = table.argmax(1)
            found.append((places, table[own, places]))
            table[codes[block, None] != codes] = -1
    return [tuple(np.concatenate(part) for part in zip(*found, strict=True)) for found in (of_all, of_class)]


def overlap(a, b):
    """Intersection over union of two packed holes."""
    union = np.bitwise_count(a | b).sum()
    return float(np.bitwise_count(a & b).sum() / union) if union else 0.0


def print_classes(masks, of_class):
    """A row of statistics for each class."""
    alike = np.array([overlap(mask.packed, masks[j].packed) for mask, j in zip(masks, of_class[0], strict=True)])
    titles = ("masks", "ratio", "sd", "parts", "outline", "near edge", "touch", "bars", "correlation", "IoU")
    print(f"\n{'class':<18}" + "".join(f"{title:>{max(8, len(title) + 2)}}" for title in titles))
    categories = np.array([mask.category for mask in masks])
    for name in sorted(set(categories)):
        places = np.flatnonzero(categories == name)
        rows = [masks[i] for i in places]
        ratio = np.array([mask.ratio for mask in rows])
        is_pair = len(rows) > 1
        print(
            f"{name or 'outside':<18}{len(rows):8}{ratio.mean():8.4f}{ratio.std():8.4f}"
            f"{np.mean([mask.components for mask in rows]):8.1f}{np.mean([mask.outline for mask in rows]):9.0f}"
            f"{np.mean([mask.near_edge for mask in rows]):11.1%}{np.mean([not mask.distance for mask in rows]):8.1%}"
            f"{np.mean([mask.in_bars > 0.5 for mask in rows]):8.1%}"
            + (f"{of_class[1][places].max():13.3f}{alike[places].max():8.3f}" if is_pair else f"{'-':>13}{'-':>8}")
        )
    print(
        "parts: components; outline: px; near edge: share of hole pixels within 50 px of the image edge; touch: masks"
        "\nwith a hole pixel on it; bars: masks whose hole is mostly bars along it; correlation of the two most alike"
        "\nmasks of the class; IoU: highest between a mask and its nearest one of the class"
    )


def print_pairs(masks, of_all):
    """How alike the most similar masks of the set are. Returns (i, j, correlation, IoU), most alike first."""
    pairs = {(min(i, int(j)), max(i, int(j))): float(r) for i, (j, r) in enumerate(zip(*of_all, strict=True))}
    rows = [(i, j, r, overlap(masks[i].packed, masks[j].packed)) for (i, j), r in pairs.items()]
    rows.sort(key=lambda row: -row[2])
    print(f"\n{len(rows)} pairs of a mask and the most alike one of all")
    for title, column in (("correlation", 2), ("IoU", 3)):
        values = np.array([row[column] for row in rows])
        above = ", ".join(f"{np.count_nonzero(values > limit)} above {limit}" for limit in (0.7, 0.8, 0.9, 0.95))
        print(f"{title}: median {np.median(values):.3f}, highest {values.max():.3f}; {above}")
    for i, j, r, share in rows[:SHOWN]:
        print(f"  correlation {r:.3f}, IoU {share:.3f}: {masks[i].name} and {masks[j].name}")
    return rows


def draw(cells, path, columns=10, side=128):
    """A contact sheet of (caption, holes), black = hole; the holes of one cell stand side by side."""
    across = max(len(holes) for _, holes in cells)
    columns = max(1, columns // across)
    width, height = across * side + 8, side + 18
    sheet = Image.new("L", (columns * width, -(-len(cells) // columns) * height), 160)
    for k, (caption, holes) in enumerate(cells):
        x, y = k % columns * width, k // columns * height
        for n, hole in enumerate(holes):
            picture = Image.fromarray(np.where(hole, 0, 255).astype(np.uint8)).resize((side - 2, side - 2))
            sheet.paste(picture, (x + n * side, y))
        ImageDraw.Draw(sheet).text((x + 2, y + side), caption[: 20 * across], fill=0)
    sheet.save(path)


def draw_sheets(folder, masks, pairs, of_all, hole_of):
    """bars.png, closest.png and neighbours.png: masks that are mostly bars, the most alike, and 50 by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    marked = sorted((mask for mask in masks if mask.in_bars > 0.5), key=lambda mask: mask.in_bars)
    step = max(1, len(marked) // (2 * SHEET))
    if marked:
        cells = [(f"{mask.in_bars:.0%} {Path(mask.name).stem}", [hole_of(mask.name)]) for mask in marked[::step]]
        draw(cells, folder / "bars.png")
    chosen = np.random.default_rng(0).permutation(len(masks))[:SHEET] if pairs else []
    some = [(i, of_all[0][i], of_all[1][i], overlap(masks[i].packed, masks[of_all[0][i]].packed)) for i in chosen]
    for name, rows in (("closest", pairs[:SHEET]), ("neighbours", some)):
        cells = [(f"IoU {share:.2f} r {r:.2f}", [hole_of(masks[k].name) for k in (i, j)]) for i, j, r, share in rows]
        if cells:
            draw(cells, folder / f"{name}.png")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path, nargs="?", default=SET, help="zip or folder of masks")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of bars and of pairs")
    options = parser.parse_args()
    began = time.perf_counter()
    names, index, read = read_set(options.set) if options.set.exists() else ([], None, None)
    if not names:
        sys.exit(f"no masks in {options.set}: expected a zip or folder of {', '.join(SUFFIXES)} files")
    masks, faults = [], []
    for name in tqdm(names, unit="mask"):
        hole, is_bilevel = decode(read(name))
        if not is_bilevel:
            faults.append(f"{name}: has grey pixels")
        masks.append(measure(name, hole))
    print(f"{len(masks)} masks in {options.set}, measured in {time.perf_counter() - began:.0f} s")
    if index is not None:
        found, differences = faults_of(masks, index, names)
        faults += found
        print(f"largest differences from the index: {differences}; {len(faults)} faults")
    for fault in faults[:SHOWN]:
        print(f"  {fault}")
    began = time.perf_counter()
    of_all, of_class = nearest(masks)
    print(f"nearest of {len(masks)} masks found in {time.perf_counter() - began:.0f} s")
    print_classes(masks, of_class)
    marked = np.mean([mask.in_bars > 0.5 for mask in masks])
    print(f"mostly bars along the image edge: {marked:.1%} of all masks")
    pairs = print_pairs(masks, of_all) if len(masks) > 1 else []
    if options.sheets:
        draw_sheets(options.sheets, masks, pairs, of_all, lambda name: decode(read(name))[0])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
