"""The mask set on disk: 8-bit PNG files with 255 for a hole, an index, a recipe."""

import hashlib
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from maskgen import __version__
from maskgen.categories import category, measure
from maskgen.errors import BadInput
from maskgen.runtime.files import leads_inside, natural, write_whole
from maskgen.settings import BORDER, EDGES

INDEX = "metadata.csv"
RECIPE = "recipe.json"
POLARITIES = ("hole-white", "hole-black")
MAX_PIXELS = 64 * 1024 * 1024  # a larger image is no mask, but may be an attack on memory
MAX_BYTES = 32 * 1024 * 1024  # the same for one file of an archive, unpacked
MAX_FILES = 1_000_000
RECIPE_KINDS = {"settings": dict, "counts": dict, "methods": dict, "clipped": dict}
SOURCE_TEXTS = ("name", "file", "sha256", "source", "licence")
COLUMNS = (
    "file_name",
    "category",
    "hole_ratio",
    "border_distance",
    "components",
)  # what every index begins with


def encode(hole: np.ndarray) -> bytes:
    """The one form in which masks are written: 8-bit grey PNG, 255 for a hole, else 0. bool (H, W)."""
    # Without row filters a binary picture is smaller, and both written and read in a fraction of the usual time.
    how = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 6]
    how += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    return cv2.imencode(".png", hole.astype(np.uint8) * 255, how)[1].tobytes()


def read_hole(path: Path, *, polarity: str = "hole-white", threshold: int = 128) -> np.ndarray:
    """Read a mask file as bool (H, W), True where pixels are missing.

    polarity: what white means, "hole-white" or "hole-black". threshold: grey levels from it upwards count as
    white. Raises BadInput for a file that is no image, or a larger one than any mask.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    return decode(data, path, polarity=polarity, threshold=threshold)


def decode(data: bytes, name: Path | str, *, polarity: str = "hole-white", threshold: int = 128) -> np.ndarray:
    """The hole in the bytes of an image file, as `read_hole` does. name: for the message if they cannot be read."""
    if polarity not in POLARITIES:
        raise BadInput(f"polarity is one of {', '.join(POLARITIES)}, got {polarity!r}")
    grey = decode_grey(data, name)
    white = grey >= threshold
    return white if polarity == "hole-white" else ~white


def decode_grey(data: bytes, name: Path | str) -> np.ndarray:
    """The grey levels in the bytes of an image file, uint8 (H, W). Refuses a huge PNG before it takes memory."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 24:
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        if width * height > MAX_PIXELS:
            raise BadInput(
                f"{name} claims {width}x{height} px, expected a mask of {MAX_PIXELS:,} px at most: remove it"
            )
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    except cv2.error:  # the library's own limit, for other formats than PNG
        grey = None
    if grey is None:
        raise BadInput(f"{name} is not an image that can be read: expected a mask as PNG, remove it or make it anew")
    return grey


def find_masks(folder: Path) -> list[Path]:
    """Every PNG below a folder in natural order; BadInput where there is none."""
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected a folder of mask PNGs)")
    found = sorted((path for path in folder.rglob("*.png") if path.is_file()), key=natural)
    if not found:
        raise BadInput(f"no PNG in {folder}: expected masks, made for example by `maskgen extract videos/`")
    return found


class Masks:
    """The masks of a folder, a zip or a tar, in natural order, read one at a time and never trusted.

    Raises BadInput for an archive with names that lead out of it, with links, or with more than a mask set holds.
    polarity and threshold: as in `read_hole`. May be pickled and used after a fork; pickled it is small, and finds its
    names again where it is used. `keep` remembers each hole it has read, packed into about 3 KB, so that the next
    reading costs a tenth.
    """

    def __init__(self, path: Path, *, polarity: str = "hole-white", threshold: int = 128, keep: bool = False):
        self.path, self.polarity, self.threshold = Path(path), polarity, threshold
        self.packed: dict | None = {} if keep else None
        self.process, self.archive = None, None
        self.known: str | None = None  # of the names, where they were found before
        if polarity not in POLARITIES:
            raise BadInput(f"polarity is one of {', '.join(POLARITIES)}, got {polarity!r}")
        if not self.names:
            raise BadInput(f"no PNG in {path}: expected an archive of masks")

    @cached_property
    def names(self) -> list[str]:
        """Every PNG in natural order, relative to the folder."""
        if self.path.is_dir():
            names = [found.relative_to(self.path).as_posix() for found in find_masks(self.path)]
        else:
            names = sorted((name for name in self._open() if name.lower().endswith(".png")), key=natural)
        if self.known not in (None, _digest(names)):
            raise BadInput(
                f"the masks in {self.path} are not the same as a while ago: let nothing change them meanwhile"
            )
        return names

    def __len__(self):
        return len(self.names)

    @property
    def a_file(self) -> Path:
        """A file by which to tell whether another machine sees these masks: the archive, or the first mask."""
        return self.path / self.names[0] if self.path.is_dir() else self.path

    def __getstate__(self):
        # An open archive does not travel to another process, and what was kept would cost more than reading it.
        # Nor do the names: of NVIDIA's 55,116 masks they are a megabyte. A path has to mean the same in any folder.
        state = {name: value for name, value in self.__dict__.items() if name != "names"}
        state |= {"process": None, "archive": None, "packed": None if self.packed is None else {}}
        return state | {"path": self.path.absolute(), "known": _digest(self.names)}

    def data(self, i: int) -> bytes:
        """The bytes of file i."""
        name = self.names[i]
        if self.path.is_dir():
            try:
                return (self.path / name).read_bytes()
            except OSError as error:
                raise BadInput(f"cannot read {self.path / name}: {error.strerror}") from None
        if self.process != os.getpid():
            self._open()  # file positions are shared through a fork, so each process opens its own
        return self.archive.read(name)

    def grey(self, i: int) -> np.ndarray:
        """Grey levels of file i, uint8 (H, W)."""
        return decode_grey(self.data(i), f"{self.path}: {self.names[i]}")

    def __getitem__(self, i: int) -> np.ndarray:
        """The hole in file i, bool (H, W)."""
        if self.packed is not None and i in self.packed:
            shape, bits = self.packed[i]
            flat = np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=shape[0] * shape[1])
            return flat.view(bool).reshape(shape)
        hole = decode(self.data(i), f"{self.path}: {self.names[i]}", polarity=self.polarity, threshold=self.threshold)
        if self.packed is not None:
            self.packed[i] = hole.shape, zlib.compress(np.packbits(hole), 1)
        return hole

    def _open(self):
        try:
            self.archive = open_archive(self.path)
        except OSError as error:
            raise BadInput(f"cannot read {self.path}: {error.strerror or error}") from None
        self.process = os.getpid()
        return self.archive.names()


def _digest(names):
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def open_archive(path: Path):
    """Open a zip or a tar for reading by name: an object with names() and read(name). Raises BadInput, OSError."""
    if not path.exists():
        raise BadInput(f"no such file or folder: {path} (expected a folder of mask PNGs, a zip or a tar)")
    if zipfile.is_zipfile(path):
        return _Zip(path)
    if _is_tar(path):
        return _Tar(path)
    raise BadInput(f"{path} is neither a folder nor a zip or tar: expected masks")


def _check_member(path, name, size, *, link):
    """Refuse what no honest archive of masks holds."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]:
        raise BadInput(f"{path} holds the name {name!r}, which leads out of it: do not trust this archive")
    if link:
        raise BadInput(f"{path} holds {name!r}, a link or device: expected plain files, do not trust this archive")
    if size > MAX_BYTES:
        raise BadInput(f"{path} holds {name!r} of {size:,} bytes: expected masks, {MAX_BYTES:,} bytes at most")


class _Zip:
    def __init__(self, path):
        self.path = path
        try:
            self.file = zipfile.ZipFile(path)
        except PermissionError:
            raise
        except Exception as error:  # whatever its reader raises for bytes that make no sense
            raise BadInput(f"{path} is a damaged zip: {error}; get it anew") from None
        entries = self.file.infolist()
        if len(entries) > MAX_FILES:
            raise BadInput(f"{path} holds {len(entries):,} files: expected {MAX_FILES:,} at most")
        for entry in entries:
            kind = entry.external_attr >> 28  # the Unix file type, where the zip knows it
            _check_member(path, entry.filename, entry.file_size, link=kind not in (0, 4, 8))

    def names(self):
        return [entry.filename for entry in self.file.infolist() if entry.filename and not entry.is_dir()]

    def read(self, name):
        try:
            with self.file.open(name) as file:
                data = file.read(MAX_BYTES + 1)  # the size in the header may be a lie
        except Exception as error:  # damaged, encrypted, packed in a way we do not know
            raise BadInput(f"{self.path}: {name} cannot be unpacked ({error}); get the archive anew") from None
        if len(data) > MAX_BYTES:
            raise BadInput(f"{self.path}: {name} unpacks to more than {MAX_BYTES:,} bytes: expected a mask")
        return data


def _is_tar(path):
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, zlib.error, lzma.LZMAError):  # a compressed one that is cut short
        return False


def _is_plain_tar(path):
    try:
        tarfile.open(path, "r:").close()
    except tarfile.ReadError:
        return False
    return True


class _Tar:
    """A tar, also a compressed one, which is unpacked into memory since it cannot be read from the middle."""

    def __init__(self, path):
        self.path, self.places, self.held, total = path, {}, {}, 0
        try:
            with tarfile.open(path) as archive:
                packed = not _is_plain_tar(path)
                for entry in archive:
                    _check_member(path, entry.name, entry.size, link=not (entry.isreg() or entry.isdir()))
                    if len(self.places) + len(self.held) >= MAX_FILES:
                        raise BadInput(f"{path} holds more than {MAX_FILES:,} files: expected masks")
                    if entry.isreg() and packed:
                        total += entry.size
                        if total > 64 * MAX_BYTES:
                            raise BadInput(f"{path} unpacks to more than {64 * MAX_BYTES:,} bytes: unpack it yourself")
                        self.held[entry.name] = archive.extractfile(entry).read()
                    elif entry.isreg():
                        self.places[entry.name] = entry.offset_data, entry.size
        except (BadInput, PermissionError):
            raise
        except Exception as error:  # whatever its reader raises for bytes that make no sense
            raise BadInput(f"{path} is a damaged tar: {error}; get it anew") from None

    def names(self):
        return [*self.places, *self.held]

    def read(self, name):
        if name in self.held:
            return self.held[name]
        begin, size = self.places[name]
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(size)


def split_of(folder: Path, split: str) -> Path:
    """The part of a mask set that is meant: its folder `split` where there is one, else all of it."""
    return folder / split if (folder / split).is_dir() else folder


def describe(hole: np.ndarray, file_name: str, data: bytes, *, edges=EDGES, border: int = BORDER) -> dict:
    """The measured part of an index row. hole: bool (H, W); data: the PNG's bytes, of which the row keeps the hash."""
    size = measure(hole)
    return {
        "file_name": file_name,
        "category": category(size.hole_ratio, size.border_distance, edges=edges, border=border),
        "hole_ratio": f"{size.hole_ratio:.6f}",
        "border_distance": size.border_distance,
        "components": size.components,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def write_index(folder: Path, rows: list[dict]) -> None:
    """Write `metadata.csv` in a folder."""
    write_table(folder / INDEX, rows)


def write_table(path: Path, rows: list[dict]) -> None:
    """Write an index file: the measured columns first, `sha256` last, between them what the rows tell."""
    import pandas as pd

    told = [key for key in (rows[0] if rows else {}) if key not in (*COLUMNS, "sha256")]
    table = pd.DataFrame(rows, columns=[*COLUMNS, *told, "sha256"])
    write_whole(path, table.to_csv(index=False, lineterminator="\n").encode())


def read_index(folder: Path):
    """Read a `metadata.csv` as a DataFrame.

    Raises BadInput where it is missing or has no `file_name`, where a name leads out of the folder, and where a measure
    is no number.
    """
    import pandas as pd

    path = folder / INDEX
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype={"file_name": str, "category": str, "sha256": str})
    except FileNotFoundError:
        if not folder.is_dir():
            raise BadInput(f"no such folder: {folder} (expected a mask set, as maskgen writes it)") from None
        parts = ", ".join(sorted(str(index.parent) for index in folder.glob(f"*/{INDEX}")))
        other = f"read one of its parts, {parts}" if parts else f"`maskgen bin {folder}` measures any folder"
        raise BadInput(f"no {INDEX} in {folder}: expected a mask set; {other}") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a table that can be read: {error}") from None
    if "file_name" not in table:
        raise BadInput(f"{path} has no column file_name: expected the index of a mask set")
    for name in table["file_name"]:
        if not leads_inside(name):
            raise BadInput(f"{path} lists {name[:80]!r}, which leads out of the mask set: do not trust this set")
    for column in {"hole_ratio", "border_distance", "components"} & set(table):
        numbers = pd.to_numeric(table[column], errors="coerce")
        if len(table) and not numbers.between(0, 1 if column == "hole_ratio" else 2**31).all():
            wrong = table[~numbers.between(0, 1 if column == "hole_ratio" else 2**31)].iloc[0]
            raise BadInput(f"{path}: {column} of {wrong['file_name']} is {str(wrong[column])[:40]!r}: make it anew")
        table[column] = numbers
    return table


def credit_lines(sources: list[dict]) -> str:
    """A Markdown table of the videos and their licences."""
    lines = ["| video | from | licence |", "|---|---|---|"]
    for source in sources:
        cells = (source.get("name", ""), source.get("source") or "not stated", source.get("licence") or "not stated")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def write_recipe(folder: Path, recipe: dict) -> None:
    """Write `recipe.json`: the code's version, then what the caller tells of settings, sources and counts."""
    text = json.dumps({"version": __version__, **recipe}, indent=2, ensure_ascii=False)
    write_whole(folder / RECIPE, (text + "\n").encode())


def read_recipe(folder: Path) -> dict:
    """Read `recipe.json`. Raises BadInput where it is missing or no JSON object."""
    path = folder / RECIPE
    try:
        recipe = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"no {RECIPE} in {folder}: expected a finished mask set") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    if not isinstance(recipe, dict):
        raise BadInput(f"{path} holds no JSON object: expected what `maskgen` wrote")
    kinds = RECIPE_KINDS | {"sources": dict if "methods" in recipe else list}  # of a benchmark, else of a mask set
    for key, kind in kinds.items():
        if key in recipe and not isinstance(recipe[key], kind):
            raise BadInput(f"{path}: {key} is {str(recipe[key])[:40]!r}: expected what our commands write")
    sources = recipe.get("sources", [])
    for source in sources if isinstance(sources, list) else ():
        named = isinstance(source, dict) and "name" in source
        if not named or not all(isinstance(source.get(key, ""), str) for key in SOURCE_TEXTS):
            raise BadInput(f"{path}: sources has {str(source)[:40]!r}: expected what our commands write")
    return recipe
