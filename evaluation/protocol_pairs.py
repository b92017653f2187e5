"""The pairs of a protocol on the images of a user: found by name, counted, and named in every result."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from evaluation import listed, pairing, protocols
from evaluation.masks import find_masks
from evaluation.pairs import Pair, PairSet, Sources
from evaluation.protocols import VERSION
from evaluation.settings import REFERENCE, Size
from maskgen import canonical
from maskgen.errors import BadInput, warn
from maskgen.maskset import read_recipe
from maskgen.runtime import files
from maskgen.runtime import images as pictures
from maskgen.runtime.recipe import RECIPE

FIT = "largest centred square"  # how images are cut to the size
SAMPLE = 100  # images whose size is looked at
NAMED = 5  # missing images that a warning names


def check_options(protocol: str, size: Size | None, images: object, **others: object) -> tuple[int, int]:
    """The size of a run by a protocol. others: options that a protocol has no use for, by name; None where not given.

    Raises BadInput for an unknown protocol, without a folder of images, for a size that is none of the protocol's, and
    for an option among the others.
    """
    chosen = protocols.find(protocol)
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise BadInput(f"--protocol says which mask lies over which image: leave out --{given[0]}")
    if not isinstance(images, str | Path) and not (chosen.ships and images is None):
        raise BadInput(f"--protocol {protocol} needs --images: the folder of {chosen.data}, with {chosen.expected}")
    sizes = [(side, side) for side in chosen.sizes]
    if size is not None and size not in sizes:
        expected = " or ".join(str(side) for side in chosen.sizes)
        got = size if isinstance(size, str) else "{}x{}".format(*size)
        raise BadInput(f"--protocol {protocol} is defined at {expected} px, got --size {got}")
    return size or sizes[0]


def protocol_pairs(
    name: str, images: Path | None, size: tuple[int, int] | None = None, per_class: int = 0, *, out: Path
) -> PairSet:
    """The pairs of a protocol whose images are below a folder, at any depth and with any ending.

    images: None takes those that come with the package, if the protocol's images do. size: one of the protocol's; None
    takes the first. per_class: takes the first masks of each class; 0 takes all. out: the folder of results, which is
    skipped. Missing images are counted in a warning, and in `experiment["protocol"]`. Raises BadInput where no image is
    found, one is found twice or cannot be read, or all are reduced copies.
    """
    protocol = protocols.find(name)
    size = size or (protocol.sizes[0], protocol.sizes[0])
    masks, images = canonical.path_of(VERSION), pairing.image_folder(images or Path(REFERENCE))
    rows = _asked(protocol, per_class)
    wanted = {image: _number(protocol, image) for _, (image, _) in rows}
    found = _find(protocol, images, set(wanted.values()), outside=[out])
    missing = [image for image, number in wanted.items() if number not in found]
    if missing:
        first = ", ".join(missing[:NAMED]) + ", ..." * (len(missing) > NAMED)
        warn(f"{len(missing):,} of {len(wanted):,} images of {name} are not in {images}: {first}")
    rows = [row for row in rows if wanted[row[1][0]] in found]
    paths = {image: found[number] for image, number in wanted.items() if number in found}
    _check_sizes(protocol, images, list(paths.values()), size)
    pairs = _read(rows, paths, images, masks)
    record = _record(protocol, [i for i, _ in rows], per_class, size, [pair.image_sha256 for pair in pairs])
    text, names = f"{len(pairs):,} of {VERSION}", (pairing.image_name(images), VERSION)
    return PairSet(pairs, Sources(images, masks), names, text, experiment=_experiment(record))


def recognised(pair_set: PairSet, path: Path) -> PairSet:
    """Listed pairs with the protocol that the recipe beside them names; without one, the pairs as they are.

    path: the `pairs.csv` or its folder. Raises BadInput where a pair is not the protocol's, or the size is another one.
    """
    file = path / listed.PAIRS_CSV if path.is_dir() else path
    settings = read_recipe(file.parent).get("settings", {}) if (file.parent / RECIPE).is_file() else {}
    recorded = settings.get("protocol")
    if recorded is None:
        return pair_set
    protocol = protocols.find(str(recorded["name"]) if isinstance(recorded, dict) and "name" in recorded else "")
    if recorded.get("sha256") != protocol.sha256:
        raise BadInput(
            f"{file.parent / RECIPE} names another version of the protocol {protocol.name}: write the pairs again"
        )
    size = pair_set.size
    if not isinstance(size, tuple) or list(size) != recorded.get("size"):
        raise BadInput(
            f"{file.parent / RECIPE} says that the pairs of {protocol.name} have another size: leave out --size"
        )
    rows, indices, hashes = protocols.read(protocol), [], []
    for row in files.read_rows(file):
        names = [row.get(f"source_{key}") or row[key] for key in ("image", "mask", "image_sha256")]
        i = int(row["pair"]) if row["pair"].isdecimal() else len(rows)
        image, mask = rows[i] if i < len(rows) else ("", "")
        if not mask or _number(protocol, names[0]) != _number(protocol, image) or _mask_name(names[1]) != mask:
            raise BadInput(
                f"{file}: the pair {row['pair']}, {names[0]} and {names[1]}, is not of the protocol {protocol.name}: "
                "write the pairs again"
            )
        indices.append(i)
        hashes.append(names[2])
    per_class = recorded.get("per_class", 0)
    record = _record(protocol, indices, per_class if type(per_class) is int else 0, size, hashes)
    return replace(pair_set, experiment=_experiment(record))


def _experiment(record):
    return {"made_by": "evaluate", "protocol": record}


def _asked(protocol, per_class):
    """The rows of a protocol of which `per_class` masks of each class are asked for, by their place."""
    rows, each = enumerate(protocols.read(protocol)), protocol.per_class
    return [(i, row) for i, row in rows if not 0 < per_class < each or i % each < per_class]


def _number(protocol, path):
    """The number of an image by its file name, None for another file."""
    stem = Path(path).stem
    match = re.fullmatch(protocol.stem, stem, re.IGNORECASE)
    return int(match[1]) if match else None


def _find(protocol, folder, wanted, *, outside):
    """The images that a protocol uses, by number, as paths below the folder. wanted: their numbers."""
    try:
        paths = pictures.find(folder, exclude=outside)
    except BadInput:
        paths = []
    numbered: dict[int, str] = {}
    for path in paths:
        number, name = _number(protocol, path), path.relative_to(folder).as_posix()
        if number in numbered and number in wanted:
            raise BadInput(
                f"{folder} has the image {number} of {protocol.name} twice, {numbered[number]} and {name}: "
                "give the folder of one of them"
            )
        if number is not None:
            numbered[number] = name
    if protocol.numbers[-1] + 1 in numbered and protocol.numbers[0] == 0:
        raise BadInput(
            f"{folder} has {numbered[protocol.numbers[-1] + 1]}: --protocol {protocol.name} counts from 0, so "
            "these files count from 1; rename each to its number less 1"
        )
    found = {number: name for number, name in numbered.items() if number in wanted}
    if not found:
        other = f"{paths[0].name} and {len(paths) - 1:,} others" if paths[1:] else "".join(path.name for path in paths)
        other += ", which the protocol does not use" if numbered else ""
        raise BadInput(
            f"no image of --protocol {protocol.name} in {folder}: expected {protocol.expected}, at any depth and with "
            f"any ending, found {other or 'no picture'}"
        )
    return found


def _check_sizes(protocol, folder, names, size):
    """Raise BadInput if all images are smaller than those of the data set, as those of its small versions are."""
    step = -(-len(names) // SAMPLE)
    sizes = [pictures.read_size(folder / name) for name in names[::step]]
    least = size[0] if protocol.smallest is None else protocol.smallest
    longest = max(sizes, key=max)
    if max(longest) < least:
        raise BadInput(
            f"the images in {folder} are {longest[0]} x {longest[1]} px at most, a reduced copy: --protocol "
            f"{protocol.name} takes {protocol.data}; to score these, use --masks {VERSION} instead of --protocol"
        )


def _read(rows, paths, images, masks):
    """The pairs of the rows, with the hashes of their files. Raises BadInput that counts all damaged images."""
    table = {_mask_name(row["mask"]): row for row in find_masks(masks).to_dict("records")}
    lacking = next((mask for _, (_, mask) in rows if mask not in table), None)
    if lacking:
        raise BadInput(f"{masks} has no mask {lacking}, which the protocol names: install irregular-masks again")
    image_hashes, mask_hashes, damaged, pairs = pairing.Hashes(images), pairing.Hashes(masks), {}, []
    for i, (image, mask) in tqdm(rows, desc="reading pairs", unit="pair", disable=None, leave=False):
        path, row = paths[image], table[mask]
        try:
            image_sha256 = image_hashes[path]
        except BadInput as error:
            damaged.setdefault(path, error)
            continue
        measures = round(float(row["hole_ratio"]), 6), int(row["border_distance"])
        hashes = image_sha256, mask_hashes[row["mask"]]
        pairs.append(Pair(f"{i:05d}", path, row["mask"], row["category"], *measures, *hashes))
    if damaged:
        start = f"{len(damaged):,} images cannot be read; the first: " if len(damaged) > 1 else ""
        raise BadInput(f"{start}{next(iter(damaged.values()))}")
    return pairs


def _mask_name(path):
    """The name of a mask in a protocol, `<category>/<number>`, from its path in a mask set."""
    return "/".join(Path(path).with_suffix("").parts[-2:])


def _record(protocol, indices, per_class, size, hashes):
    """What recipe.json says of a protocol and of the part of it that was scored.

    indices: the places of the pairs in the protocol. hashes: SHA-256 of the image of every pair; runs with the same
    `images_sha256` scored the same files.
    """
    rows = protocols.read(protocol)
    asked = {image for _, (image, _) in _asked(protocol, per_class)}
    used = {rows[i][0] for i in indices}
    return {
        "name": protocol.name,
        "version": VERSION,
        "sha256": protocol.sha256,
        "size": list(size),
        "fit": FIT,
        **({"per_class": per_class} if 0 < per_class < protocol.per_class else {}),
        "pairs": len(indices),
        "of": len(rows),
        "images": len(used),
        "missing_images": len(asked - used),
        "images_sha256": hashlib.sha256("".join(hashes).encode()).hexdigest(),
    }
