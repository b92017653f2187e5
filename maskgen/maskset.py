"""The mask set on disk: 8-bit PNG files with 255 for a hole, an index, a recipe."""

import hashlib
import json
import os
import zlib
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskgen.archives import open_archive, read_file
from maskgen.categories import category, measure
from maskgen.errors import BadInput, collected_warnings, warn
from maskgen.index import INDEX as INDEX
from maskgen.index import parse_index as parse_index
from maskgen.index import read_index as read_index
from maskgen.index import write_index as write_index
from maskgen.runtime import files
from maskgen.runtime.images import ENDINGS, decode_stored, read_bytes
from maskgen.runtime.names import Names
from maskgen.runtime.recipe import RECIPE
from maskgen.settings import BORDER, EDGES

POLARITIES = ("hole-white", "hole-black")
MAX_PIXELS = 64 * 1024 * 1024  # a larger image is no mask, and may be meant to fill the memory
RECIPE_KINDS = {"settings": dict, "counts": dict, "methods": dict, "clipped": dict}
SOURCE_TEXTS = ("name", "file", "sha256", "source", "licence")


def encode(hole: np.ndarray) -> bytes:
    """Encode a hole, bool (H, W), in the form of all masks here: 8-bit grey PNG, 255 for a hole, else 0."""
    # Without row filters a binary image is smaller, and is written and read in a fraction of the usual time.
    options = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 6]
    options += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    return cv2.imencode(".png", hole.astype(np.uint8) * 255, options)[1].tobytes()


def read_hole(path: Path | str, *, polarity: str = "hole-white", threshold: int | None = None) -> np.ndarray:
    """Read a mask file as bool (H, W), True where pixels are missing.

    polarity: what white means, "hole-white" or "hole-black". threshold: grey levels from it upwards are white, 1 to
    255; needed for masks with soft edges or stored as JPEG. Without a threshold, a file has to be of one of these
    kinds:

    * two values: the larger one is white; a single value is white unless it is 0;
    * a palette: index 0 is black and all others are white, as in DAVIS;
    * alpha: the alpha channel is the mask if the colours are constant.

    Raises BadInput for any other file, for one that is no image, and for one of more than MAX_PIXELS pixels.
    """
    path = Path(path)
    return decode(read_bytes(path), path, polarity=polarity, threshold=threshold)


def decode(data: bytes, name: Path | str, *, polarity: str = "hole-white", threshold: int | None = None) -> np.ndarray:
    """The hole in the bytes of a mask file, as `read_hole` returns it. name: for messages."""
    if polarity not in POLARITIES:
        raise BadInput(f"polarity is one of {', '.join(POLARITIES)}, got {polarity!r}")
    stored = decode_stored(data, name, max_pixels=MAX_PIXELS)
    white = _white(stored, name) if threshold is None else _grey(_one_plane(stored, name)) >= threshold
    hole = white if polarity == "hole-white" else ~white
    if hole.all():
        warn(f"{name} covers the whole image: no valid pixel is left (polarity {polarity})")
    return hole


def decode_grey(data: bytes, name: Path | str) -> np.ndarray:
    """The grey levels in the bytes of an image file, uint8 (H, W)."""
    stored = decode_stored(data, name, max_pixels=MAX_PIXELS)
    return _grey(stored.pixels if stored.palette is None else stored.palette[stored.pixels])


def _white(stored, name):
    """Where a mask file is white, judged by its values alone. bool (H, W)."""
    if stored.palette is not None:
        return _not_background(stored, name)
    plane = _one_plane(stored, name)
    if plane.ndim == 3:  # the brighter one of two colours is white
        levels = plane.astype(np.uint64) @ np.array([1 << 32, 1 << 16, 1], np.uint64)
        if len(found := np.unique(levels)) > 2:
            raise _not_binary(name, f"{len(found):,} colours")
        plane = _grey(plane)
        if len(found) == 2 and plane.min() == plane.max():
            raise _not_binary(name, "two colours of the same brightness")
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        raise _not_binary(name, "values that are not finite")
    low, high, _, _ = cv2.minMaxLoc(plane)
    white = plane == plane.dtype.type(high)
    if low == high:
        return white if high else ~white
    black = plane.size - cv2.countNonZero(plane) if low == 0 else np.count_nonzero(plane == plane.dtype.type(low))
    if cv2.countNonZero(white.view(np.uint8)) + black != plane.size:
        found = np.unique(plane)
        shown = [f"{value:g}" for value in (found if len(found) <= 6 else [*found[:4], *found[-2:]])]
        shown[4:4] = ["..."] * (len(found) > 6)
        raise _not_binary(name, f"{len(found):,} values ({', '.join(shown)})")
    return white


def _not_binary(name, content):
    return BadInput(
        f"{name} holds {content}, expected two values: convert it, or give the grey level from which on it is white, "
        "such as --threshold 128"
    )


def _not_background(stored, name):
    """Where a file with a palette is white: all indices but 0. bool (H, W)."""
    used = np.flatnonzero(np.bincount(stored.pixels.ravel(), minlength=256))
    shades = _grey(stored.palette[None])[0]
    if 0 in used and len(used) > 1 and shades[0] > shades[used[1:]].max():
        raise BadInput(
            f"{name} has a palette whose background, index 0, is brighter than the rest, so white is not clear: "
            "save it as grey, or give --threshold 128"
        )
    return stored.pixels != 0


def _one_plane(stored, name):
    """The part of a file that is the mask: grey or alpha, (H, W), or colours, (H, W, 3), if its channels differ."""
    pixels = stored.pixels if stored.palette is None else stored.palette[stored.pixels]
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        colours, alpha = pixels[..., :3], pixels[..., 3]
        if (alpha == alpha[0, 0]).all():
            pixels = colours
        elif (colours == colours[0, 0]).all():
            return np.ascontiguousarray(alpha)
        else:
            raise BadInput(
                f"{name} has colours and alpha that both vary, so the mask is not clear: save it without alpha"
            )
    if pixels.ndim == 3 and (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


def _grey(pixels):
    """Grey levels of a plane or of colours, uint8 (H, W), by the weights of ITU-R BT.601. Alpha is ignored."""
    if pixels.dtype != np.uint8:
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
        pixels = np.rint(pixels.astype(np.float32) * (255 / top)).clip(0, 255).astype(np.uint8)
    return pixels if pixels.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY)


def check_polarity(folder: Path, polarity: str) -> None:
    """Raise BadInput for "hole-black" if the folder is a mask set with an index, in which white is a hole."""
    if polarity == "hole-black" and (index := index_of(folder)):
        raise BadInput(
            f"{folder} has an index, {index}, and in a mask set with an index white is a hole: "
            "leave --polarity hole-black out"
        )


def index_of(folder: Path) -> Path | None:
    """The index of the mask set that a folder is, or is part of; None for masks without an index."""
    for place in (folder, folder / "test", folder / "train", folder.parent) if folder.is_dir() else ():
        try:
            with (place / INDEX).open(encoding="utf-8-sig") as file:
                if {"file_name", "hole_ratio"} <= set(file.readline().strip().split(",")):
                    return place / INDEX
        except (OSError, ValueError):
            continue
    return None


class Masks:
    """The masks of a folder, a zip or a tar, in natural order, read one at a time: masks[i] is bool (H, W).

    polarity, threshold: as in `read_hole`. cache: keep each hole that was read, packed into about 3 KB, so that reading
    it again takes a tenth of the time. May be used after a fork, and pickled; a pickle is small, and finds the names
    again when it is used. Raises BadInput for a folder or archive without masks, and for an archive with unsafe names,
    links, or more data than a mask set has.
    """

    def __init__(self, path: Path, *, polarity: str = "hole-white", threshold: int | None = None, cache: bool = False):
        self.path, self.polarity, self.threshold = Path(path), polarity, threshold
        self.packed: dict | None = {} if cache else None
        self.process: int | None = None
        self.archive: Any = None
        self.names_hash: str | None = None  # in a copy from a pickle: of the names that the original found
        if polarity not in POLARITIES:
            raise BadInput(f"polarity is one of {', '.join(POLARITIES)}, got {polarity!r}")
        check_polarity(self.path, polarity)
        if not self.names:
            expected = "files that end in {}" if self.path.is_dir() else "an archive of {} files"
            raise BadInput(f"no mask in {path}: expected {expected.format(', '.join(ENDINGS))}")

    @cached_property
    def names(self) -> Names:
        """Every mask file in natural order, relative to the folder."""
        with nullcontext() if self.names_hash is None else collected_warnings():  # the original has issued them
            names = self._find_names()
        odd = next((name for name in names if not files.is_text(name)), None)
        if odd is not None:
            raise BadInput(
                f"{self.path} has {odd!a}, a name that is not UTF-8 and cannot be written to an index: rename it"
            )
        if self.names_hash not in (None, _hash(names)):
            raise BadInput(
                f"the masks in {self.path} have changed during the run: run the command again, and do not change them"
            )
        return names

    def _find_names(self):
        if self.path.is_dir():
            return files.find_names(self.path, ENDINGS)
        names = (name for name in self._open() if name.lower().endswith(ENDINGS))
        return Names(sorted(files.without_litter(names, self.path), key=files.natural))

    def __len__(self):
        return len(self.names)

    @property
    def probe_file(self) -> Path:
        """A file that another machine must be able to read to use these masks: the archive, or the first mask."""
        return self.path / self.names[0] if self.path.is_dir() else self.path

    def __getstate__(self):
        # Not pickled: the open archive; the cache, which takes longer to send than to fill; the names, which are a
        # megabyte for NVIDIA's 55,116 masks. The path is made absolute, since a worker may be in another folder.
        state = {name: value for name, value in self.__dict__.items() if name != "names"}
        state |= {"process": None, "archive": None, "packed": None if self.packed is None else {}}
        return state | {"path": self.path.absolute(), "names_hash": _hash(self.names)}

    def data(self, i: int) -> bytes:
        """The bytes of file i."""
        name = self.names[i]
        if self.path.is_dir():
            return read_bytes(self.path / name)
        if self.archive is None or self.process != os.getpid():
            self._open()  # a fork shares file positions, so each process opens its own
        return self.archive.read(name)

    def __getitem__(self, i: int) -> np.ndarray:
        """The hole in file i, bool (H, W)."""
        if self.packed is not None and i in self.packed:
            shape, bits = self.packed[i]
            flat = np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=shape[0] * shape[1])
            return flat.view(bool).reshape(shape)
        hole = decode(self.data(i), f"{self.path}: {self.names[i]}", polarity=self.polarity, threshold=self.threshold)
        if self.packed is not None:
            self.packed[i] = hole.shape, zlib.compress(np.packbits(hole).data, 1)
        return hole

    def _open(self):
        try:
            self.archive = open_archive(self.path)
        except OSError as error:
            raise BadInput(f"cannot read {self.path}: {error.strerror or error}") from None
        self.process = os.getpid()
        return self.archive.names()


def _hash(names):
    digest = hashlib.sha256()
    for i, name in enumerate(names):
        digest.update((f"\n{name}" if i else name).encode())
    return digest.hexdigest()


def pixels_sha256(hole: np.ndarray) -> str:
    """SHA-256 of the pixels of a hole, bool (H, W), packed into bits: the same for every format of the file."""
    return hashlib.sha256(np.packbits(hole).tobytes()).hexdigest()


def split_of(folder: Path, split: str) -> Path:
    """The folder `split` of a mask set if it has one, else the set itself."""
    return folder / split if (folder / split).is_dir() else folder


def describe(
    hole: np.ndarray, file_name: str, data: bytes, *, edges: tuple[float, ...] = EDGES, border: int = BORDER
) -> dict:
    """The measured columns of an index row. hole: bool (H, W). data: the PNG's bytes, for `sha256`."""
    size = measure(hole)
    return {
        "file_name": file_name,
        "category": category(size.hole_ratio, size.border_distance, edges=edges, border=border),
        "hole_ratio": f"{size.hole_ratio:.6f}",
        "border_distance": size.border_distance,
        "components": size.components,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def credit_lines(sources: list[dict]) -> str:
    """A Markdown table of videos and their licences."""
    lines = ["| video | from | licence |", "|---|---|---|"]
    for source in sources:
        cells = (source.get("name", ""), source.get("source") or "not stated", source.get("licence") or "not stated")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def read_recipe(folder: Path | str) -> dict:
    """Read the `recipe.json` of a mask set, also in a zip or tar, or of a benchmark.

    Raises BadInput if it is missing or malformed.
    """
    folder = Path(folder)
    path = folder / RECIPE
    try:
        recipe = json.loads(read_file(folder, RECIPE) if folder.is_file() else path.read_text())
    except FileNotFoundError:
        raise BadInput(f"no {RECIPE} in {folder}: expected a finished mask set") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    if not isinstance(recipe, dict):
        raise BadInput(f"{path} is not a JSON object: expected a recipe as our commands write it")
    kinds = RECIPE_KINDS | {"sources": dict if "methods" in recipe else list}  # only a benchmark has methods
    for key, kind in kinds.items():
        if key in recipe and not isinstance(recipe[key], kind):
            raise BadInput(f"{path}: {key} is {str(recipe[key])[:40]!r}: expected a recipe as our commands write it")
    sources = recipe.get("sources", [])
    for source in sources if isinstance(sources, list) else ():
        named = isinstance(source, dict) and "name" in source
        if not named or not all(isinstance(source.get(key, ""), str) for key in SOURCE_TEXTS):
            raise BadInput(f"{path}: sources has {str(source)[:40]!r}: expected a recipe as our commands write it")
    return recipe
