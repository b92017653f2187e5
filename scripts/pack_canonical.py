"""Pack masks into the two files that come with the package: maskgen/data/v1/testset.zip and raw.zip.

    python scripts/pack_canonical.py masks/testset masks/raw-test masks/raw-train maskgen/data/v1

Both are stored zips of bilevel TIFF files (CCITT Group 4, 255 is the hole), with their index, metadata.csv, and
recipe.json. raw.zip has 8,000 masks of masks/raw-train, evenly spread over the videos and within each. The same masks
give the same bytes with the same version of Pillow. CREDITS.md lists the videos and their licences.
"""

import argparse
import hashlib
import io
import json
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from maskgen.archive_writers import EPOCH
from maskgen.errors import BadInput
from maskgen.maskset import INDEX, Masks, credit_lines, decode, pixels_sha256, read_recipe, split_of
from maskgen.runtime.files import natural, read_rows, sha256, write_whole
from maskgen.runtime.recipe import RECIPE

LICENCE = "CC-BY-4.0"  # of the masks
RAW_MASKS = 8000
SEED = 0  # of the choice of raw masks
PIXELS = "pixels_sha256"  # column of the index


def encode_bilevel(hole):
    """A hole, bool (H, W), as a one-page TIFF with CCITT Group 4 compression, in which white is the hole."""
    data = io.BytesIO()
    Image.fromarray(hole).save(data, "TIFF", compression="group4")
    return data.getvalue()


def chosen_evenly(rows, number):
    """`number` of the rows: one drawn from each of as many equal shares of the rows, which are in natural order."""
    edges, rng = [len(rows) * i // number for i in range(number + 1)], np.random.default_rng(SEED)
    return [rows[rng.integers(low, high)] for low, high in pairwise(edges)]


def named_by_source(rows):
    """Pairs of a short name for the zip and a row: the folder of the mask, and its place in it."""
    places = Counter()
    for row in rows:
        folder = row["file_name"].rpartition("/")[0]
        yield f"{folder}/{places[folder]:04d}.tif", row
        places[folder] += 1


def pack(named_rows, folder, recipe, path):
    """Write the zip of a part. named_rows: pairs of a name in the zip and the row of a mask in `folder`."""
    tiffs, index, shares = {}, [], Counter()
    for name, row in tqdm(named_rows, unit="mask", desc=path.name):
        data = (folder / row["file_name"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise BadInput(f"{folder / row['file_name']} differs from the index: run `maskgen verify` on the set")
        hole = decode(data, row["file_name"])
        others = {key: value for key, value in row.items() if key not in ("file_name", "sha256")}
        index.append({"file_name": name, **others, PIXELS: pixels_sha256(hole)})
        tiffs[name] = encode_bilevel(hole)
        sources = row["source"].split(";")
        shares.update(dict.fromkeys(sources, 1 / len(sources)))
    recipe = {
        **recipe,
        "sources": [source for source in recipe["sources"] if source["name"] in shares],
        "licence": LICENCE,
    }
    write_whole(path, _zip_bytes(tiffs, index, recipe))
    _check(path, index)
    plain, size = sum(map(len, tiffs.values())), path.stat().st_size
    count = len(tiffs)
    print(f"{path}: {count} masks, {size:,} bytes, {size / count:.0f} a mask, of which {plain / count:.0f} TIFF")
    print(f"  largest shares: {', '.join(f'{name} {share / count:.1%}' for name, share in shares.most_common(3))}")
    print(f"  sha256 {sha256(path)}")
    return recipe["sources"]


def _zip_bytes(tiffs, index, recipe):
    import pandas as pd

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in sorted(tiffs, key=natural):
            archive.writestr(_entry(name, zipfile.ZIP_STORED), tiffs[name])
        table = pd.DataFrame(index).to_csv(index=False, lineterminator="\n")
        text = json.dumps(recipe, indent=2, ensure_ascii=False) + "\n"
        for name, content in ((INDEX, table), (RECIPE, text)):
            archive.writestr(_entry(name, zipfile.ZIP_DEFLATED), content.encode(), compresslevel=9)
    return data.getvalue()


def _entry(name, compression):
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.external_attr, entry.compress_type = 0o100644 << 16, compression
    entry.create_system = 3  # Unix, whatever system packs
    return entry


def _check(path, index):
    """Raise BadInput unless OpenCV, by way of Masks, and Pillow read every mask of a zip as it is listed."""
    listed, masks = {row["file_name"]: row[PIXELS] for row in index}, Masks(path)
    if set(masks.names) != set(listed):
        raise BadInput(f"{path} has other masks than its index")
    for i, name in enumerate(masks.names):
        levels = np.asarray(Image.open(io.BytesIO(masks.data(i))).convert("L"))
        if pixels_sha256(masks[i]) != listed[name] or not np.array_equal(levels, masks[i] * np.uint8(255)):
            raise BadInput(f"{path}: {name} is not read as it was written")


def main(arguments=None):
    """Pack both parts. arguments: of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("testset", type=Path, help="of maskgen testset")
    parser.add_argument("raw_test", type=Path, help="of maskgen extract, from which the test set was made")
    parser.add_argument("raw_train", type=Path, help="of maskgen extract")
    parser.add_argument("out", type=Path, help="folder of the two files")
    parser.add_argument("--raw-masks", type=int, default=RAW_MASKS, help="number of raw masks")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    extraction = read_recipe(options.raw_test)
    made = {key: extraction[key] for key in ("version", "settings", "libraries") if key in extraction}
    rows = read_rows(options.testset / "test" / INDEX)  # in the paper's order of classes
    named = [(Path(row["file_name"]).with_suffix(".tif").as_posix(), row) for row in rows]
    recipe = {**read_recipe(options.testset), "extraction": made}
    test_sources = pack(named, options.testset / "test", recipe, options.out / "testset.zip")
    part, extraction = split_of(options.raw_train, "train"), read_recipe(options.raw_train)
    rows = sorted(read_rows(part / INDEX), key=lambda row: natural(row["file_name"]))
    chosen = chosen_evenly(rows, min(options.raw_masks, len(rows)))
    recipe = {**extraction, "chosen": {"of": len(rows), "seed": SEED}, "counts": {"train": len(chosen)}}
    raw_sources = pack(list(named_by_source(chosen)), part, recipe, options.out / "raw.zip")
    credits = (
        f"# Credits\n\nThe masks are licensed under {LICENCE}. They are made from the videos below, whose makers are "
        "credited under their own licences.\n\n"
        f"## The test set, testset.zip\n\n{credit_lines(test_sources)}\n\n"
        f"## The raw training masks, raw.zip\n\n{credit_lines(raw_sources)}\n"
    )
    write_whole(options.out / "CREDITS.md", credits.encode())


if __name__ == "__main__":
    main()
