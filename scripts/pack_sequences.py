"""Choose sequences, and pack them into the file that comes with the package: maskgen/data/v1/sequences.zip.

    python scripts/pack_sequences.py masks/pool-moving masks/pool-filmed maskgen/data/v1

The first arguments are sets of test sequences, as `maskgen sequences` makes them. Of each class, 50 are chosen, in
equal numbers of each mode as far as there are any, and so that all videos have about the same share. The file is a zip
(LZMA) of NumPy arrays with their index, sequences.csv, and recipe.json. docs/sequences.md describes it. The same sets
give the same bytes with the same version of liblzma. The videos are added to CREDITS.md in the folder of the result.
"""

import argparse
import csv
import hashlib
import io
import json
import re
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskgen.archive_writers import EPOCH
from maskgen.errors import BadInput
from maskgen.maskset import credit_lines, decode, pixels_sha256, read_recipe
from maskgen.runtime.files import sha256, write_whole
from maskgen.runtime.recipe import RECIPE
from maskgen.sequences.index import COLUMNS, INDEX, PIXELS, frame_name, read_index
from maskgen.sequences.measure import CATEGORIES
from maskgen.sequences.reader import ENDING, Sequences, pack

LICENCE = "CC-BY-4.0"  # of the masks
EACH = 50  # sequences of a class
MAX_SHARE = 0.15  # of a video, or a group of videos, in all sequences
ADDED = ("licence", "original", PIXELS)  # columns in addition to those of a set
LEFT_OUT = ("split", "passed_over", "sha256")  # columns of a set that the file does not have


def videos_of(row):
    """The video whose motion a sequence has, or those of its raw masks if it has none: weights by name, in all 1."""
    names = [row["source"]] if row["source"] else [name.partition("/")[0] for name in row["raw"].split(";")]
    return {name: number / len(names) for name, number in Counter(names).items()}


def choose(rows, group_of, each):
    """`each` rows of every class, or BadInput. rows: dicts of the index. group_of: of a video's name."""
    by_class, total, chosen = defaultdict(lambda: defaultdict(list)), Counter(), []
    for row in rows:
        by_class[row["category"]][row["mode"]].append(row)
    for category in CATEGORIES:
        in_class = Counter()
        for mode, number in shares(by_class[category], each, category).items():
            rest = list(by_class[category][mode])
            for _ in range(number):
                # The sequence whose videos have been used least, first in this class, then in all; else the earliest.
                best = min(rest, key=lambda row: (_use(row, in_class, group_of), _use(row, total, group_of)))
                rest.remove(best)
                chosen.append(best)
                for name, weight in videos_of(best).items():
                    in_class[group_of(name)] += weight
                    total[group_of(name)] += weight
    for name, number in total.most_common(1):
        if number > MAX_SHARE * len(chosen):
            raise BadInput(f"{name} has {number / len(chosen):.1%} of the sequences, more than {MAX_SHARE:.0%}")
    return chosen, total


def _use(row, used, group_of):
    return round(sum(weight * used[group_of(name)] for name, weight in videos_of(row).items()), 9)


def shares(by_mode, each, category):
    """How many sequences of each mode a class gets: equal numbers, as far as there are so many."""
    counts = dict.fromkeys(sorted(by_mode), 0)
    if sum(map(len, by_mode.values())) < each:
        raise BadInput(f"only {sum(map(len, by_mode.values()))} sequences of the class {category}: expected {each}")
    while sum(counts.values()) < each:
        free = [mode for mode in counts if counts[mode] < len(by_mode[mode])]
        counts[min(free, key=lambda mode: counts[mode])] += 1
    return counts


def read_frames(folder, row):
    """The holes of a sequence in a set, bool (T, H, W). Raises BadInput if its files differ from the index."""
    names = [folder / row["sequence"] / frame_name(t) for t in range(int(row["frames"]))]
    pictures = [name.read_bytes() for name in names]
    if hashlib.sha256(b"".join(pictures)).hexdigest() != row["sha256"]:
        raise BadInput(f"{folder / row['sequence']} differs from the index: run `maskgen verify` on the set")
    return np.stack([decode(data, name) for data, name in zip(pictures, names, strict=True)])


def licences_of(row, sources):
    """The licences of all videos that a sequence is made from."""
    names = {row["source"], *(name.partition("/")[0] for name in row["raw"].split(";"))} - {""}
    return {name: sources[name]["licence"] for name in sorted(names)}


def packed_zip(arrays, index, recipe):
    """The bytes of the file. arrays: of `pack`, by name."""
    table, data = io.StringIO(), io.BytesIO()
    writer = csv.DictWriter(table, [*(c for c in COLUMNS if c not in LEFT_OUT), *ADDED], lineterminator="\n")
    writer.writeheader()
    writer.writerows(index)
    text = json.dumps(recipe, indent=2, ensure_ascii=False) + "\n"
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in {**arrays, INDEX: table.getvalue().encode(), RECIPE: text.encode()}.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr, entry.create_system = 0o100644 << 16, 3  # Unix, whatever system packs
            entry.compress_type = zipfile.ZIP_LZMA if name.endswith(ENDING) else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, compresslevel=9)
    return data.getvalue()


def check(path, index):
    """Raise BadInput unless the file is read as it is listed, by the package and by NumPy alone."""
    sequences, arrays = Sequences(path), np.load(path)
    for row in index:
        holes, name = sequences[row["sequence"]], row["sequence"]
        alone = np.unpackbits(arrays[name], axis=1, count=int(row["height"]))
        if pixels_sha256(holes) != row[PIXELS] or not np.array_equal(alone, holes):
            raise BadInput(f"{path}: {name} is not read as it was written")


def write_credits(path, sources):
    """Add the section of the sequences to CREDITS.md, in place of an earlier one."""
    title = "\n## The test set of sequences, sequences.zip\n"
    text = path.read_text() if path.exists() else f"# Credits\n\nThe masks are licensed under {LICENCE}.\n"
    text = re.sub(re.escape(title) + ".*?(?=\n## |\\Z)", "", text, flags=re.DOTALL)
    write_whole(path, f"{text.rstrip()}\n{title}\n{credit_lines(sources)}\n".encode())


def main(arguments=None):
    """Choose and pack. arguments: of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pools", type=Path, nargs="+", help="sets of test sequences, of maskgen sequences")
    parser.add_argument("out", type=Path, help="folder of sequences.zip")
    parser.add_argument("--each", type=int, default=EACH, help="number of sequences of a class")
    options = parser.parse_args(arguments)
    recipes = [read_recipe(pool) for pool in options.pools]
    sources = {source["name"]: source for recipe in recipes for source in recipe["sources"]}
    rows = [row | {"pool": pool} for pool in options.pools for row in read_index(pool)]
    rows = [row for row in rows if row["split"] == "test" and row["category"]]
    chosen, total = choose(rows, lambda name: sources[name].get("group") or name, options.each)
    arrays, index, used, places = {}, [], set(), Counter()
    for row in tqdm(chosen, unit="sequence", desc="pack"):
        holes, licences = read_frames(row["pool"], row), licences_of(row, sources)
        name = f"{row['category']}_{places[row['category']]:02d}"
        places[row["category"]] += 1
        used.update(licences)
        kept = {key: value for key, value in row.items() if key in COLUMNS and key not in LEFT_OUT}
        licence = " | ".join(dict.fromkeys(licences.values()))
        added = {"licence": licence, "original": row["sequence"], PIXELS: pixels_sha256(holes)}
        index.append({**kept, "sequence": name, **added})
        arrays[name + ENDING] = pack(holes)
    keys = ("version", "made_by", "settings", "raw_masks", "libraries")
    modes = {category: dict(Counter(r["mode"] for r in index if r["category"] == category)) for category in CATEGORIES}
    recipe = {
        "made_by": "scripts/pack_sequences.py",
        "pools": [{key: one[key] for key in keys if key in one} for one in recipes],
        "chosen": {"of": len(rows), "of each class": options.each, "largest share of a video": MAX_SHARE},
        "counts": {"test": len(index), "modes": modes},
        "sources": [source for name, source in sources.items() if name in used],
        "licence": LICENCE,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "sequences.zip"
    write_whole(path, packed_zip(arrays, index, recipe))
    check(path, index)
    write_credits(options.out / "CREDITS.md", recipe["sources"])
    size = path.stat().st_size
    print(f"{path}: {len(index)} sequences, {size:,} bytes, {size / len(index):.0f} a sequence")
    print(f"  largest shares: {', '.join(f'{name} {n / len(index):.1%}' for name, n in total.most_common(3))}")
    print(f"  sha256 {sha256(path)}")


if __name__ == "__main__":
    main()
