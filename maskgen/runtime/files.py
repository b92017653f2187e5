"""Files and folders: found in natural order, named safely for every file system, written whole or not at all."""

import contextlib
import csv
import hashlib
import heapq
import io
import os
import re
import unicodedata
import uuid
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO

from maskgen.errors import BadInput, warn
from maskgen.runtime.names import Names

CHECKSUMS = "checksums.sha256"
NUMBER = re.compile("[0-9]+")
LITTER = {  # files that operating systems and notebooks leave beside data, in lower case
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
    "__pycache__",
}
LONGEST = 120  # bytes of a file name that we choose: half of the usual limit, so that endings and counters fit
DEVICES = {"con", "prn", "aux", "nul", *(port + i for port in ("com", "lpt") for i in "0123456789¹²³")}  # of Windows
SPLITS = {  # words in a folder's name that Hugging Face's loaders take for the splits of a data set
    *("train", "training", "validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"),
}


def natural(path: Path | str) -> str:
    """Sort key that puts frame 9 before frame 10. Different names have different keys, also 1 and 01."""
    text = str(path)
    # NUL, which no file name has, is below all characters: it ends a text, and two of them end the whole name.
    return f"{NUMBER.sub(_number_key, text)}\0\0{text}"


def _number_key(match):
    digits = match[0].lstrip("0")
    return f"\0{chr(len(digits) + 1)}{digits}"  # compared by length, then digits: numbers of any length


def is_litter(name: str) -> bool:
    """True for hidden and system files such as `__MACOSX` or `Thumbs.db`. name: path below the folder or archive."""
    parts = name.replace("\\", "/").split("/")
    return any((part[:1] == "." and part not in (".", "..")) or part.lower() in LITTER for part in parts)


def without_litter(names: Iterable[str], where: Path | str) -> list[str]:
    """The names that are not litter. One `InputWarning` says how many were skipped. where: the folder or archive."""
    names = list(names)
    kept = [name for name in names if not is_litter(name)]
    if len(kept) < len(names):
        first = next(name for name in names if is_litter(name))
        warn(f"{where}: {len(names) - len(kept)} hidden or system files are skipped, such as {first}")
    return kept


def walk(folder: Path, *, exclude: Path | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield (folder, names of files, names of litter) for a folder and all folders below it, except hidden ones.

    Links to folders are followed unless they lead back to a folder above. exclude: a folder that is left out. Issues an
    `InputWarning` for each folder that cannot be read and for each broken link.
    """

    def enter(folder, above):
        try:
            real = folder.resolve()
            with os.scandir(folder) as scanned:
                entries = sorted((natural(entry.name), entry.name, _kind(entry)) for entry in scanned)
        except FileNotFoundError:
            return
        except OSError as error:
            warn(f"{folder} is skipped: {error.strerror}")
            return
        if real in above or real == exclude:
            return
        files, litter, inner = [], [], []
        for _, name, kind in entries:
            if kind == "folder" and is_litter(name):
                litter += _litter_in(folder / name, name)
            elif kind == "folder":
                inner.append(name)
            elif kind == "file":
                (litter if is_litter(name) else files).append(name)
            elif kind == "link" and not is_litter(name):
                warn(f"{folder / name} is skipped: the link is broken")
        yield folder, files, litter
        for name in inner:
            yield from enter(folder / name, {*above, real})

    exclude = exclude.resolve() if exclude is not None else None
    yield from enter(folder, set())


def _kind(entry):
    """ "folder", "file" or "device" after following links; "link" if it is broken or leads to itself."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "link" if entry.is_symlink() else "device"
    except OSError:
        return "link"


def _litter_in(folder, name):
    """Files in a folder of litter, for the warning; `__MACOSX` mirrors the whole tree."""
    if name.startswith(".") and name != ".ipynb_checkpoints":  # such as .git: not worth a warning
        return []
    return [f"{name}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()]


def find(folder: Path, endings: tuple[str, ...], *, exclude: Path | None = None) -> list[Path]:
    """Every file below a folder with one of the endings, in any case, in natural order. Litter is skipped."""
    names = (name for inner in names_by_folder(folder, endings, exclude=exclude) for name in inner)
    return sorted((folder / name for name in names), key=natural)


def find_names(folder: Path, endings: tuple[str, ...]) -> Names:
    """The names of the files that `find` finds, relative to the folder."""
    # Each folder has its own names in order, so mostly it is enough to put the folders in order.
    runs = [(natural(names[0]), natural(names[-1]), Names(names)) for names in names_by_folder(folder, endings)]
    runs.sort(key=lambda run: run[0])
    if all(last < first for (_, last, _), (first, _, _) in pairwise(runs)):
        return Names(chain.from_iterable(names for _, _, names in runs))
    return Names(heapq.merge(*(names for _, _, names in runs), key=natural))


def names_by_folder(folder: Path, endings: tuple[str, ...], *, exclude: Path | None = None) -> Iterator[list[str]]:
    """Yield the names of the files that `find` finds, relative to the folder: a list for each folder that has any.

    A list is in natural order. At the end, one `InputWarning` says how many hidden and system files were skipped.
    """
    skipped = []
    for inner, files, litter in walk(folder, exclude=exclude):
        above = "".join(f"{part}/" for part in inner.relative_to(folder).parts)
        skipped += (above + name for name in litter if name.lower().endswith(endings))
        if names := [above + name for name in files if name.lower().endswith(endings)]:
            yield names
    if skipped:
        without_litter(skipped, folder)


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name of at most `longest` bytes; a longer one is cut and ends in a hash of the whole name."""
    data = name.encode(errors="surrogatepass")
    if len(data) <= longest:
        return name
    digest = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[: longest - 9].decode(errors='ignore').rstrip(' ._-')}-{digest}"


def safe_name(label: str) -> str:
    """A folder name that every file system accepts: letters, digits, '.', '-' and '_', at most LONGEST bytes.

    Words that Hugging Face's loaders take for splits get an `x`, so that a video called `validation` is no split.
    """
    plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", label)).strip("._") or "video"
    plain = _no_split(plain)
    if len(plain.encode()) > LONGEST:
        plain = _no_split(shortened(plain, LONGEST - 1))  # the cut may turn `trainer` into `train`
    base, dot, rest = plain.partition(".")
    return f"{base}_{dot}{rest}" if base.lower() in DEVICES else plain


def _no_split(name):
    return re.sub(r"[^\W\d_]+", lambda word: word[0] + "x" * (word[0] in SPLITS), name)


def safe_names(labels: Iterable[str]) -> list[str]:
    """`safe_name` of each label, made unique also where upper and lower case are the same."""
    names, taken = [], set()
    for label in labels:
        plain = safe_name(label)
        name, number = plain, 2
        while name.casefold() in taken:
            name, number = f"{plain}-{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def is_text(name: str) -> bool:
    """True if a file name is valid Unicode. Python reads bytes that are not UTF-8 as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def leads_inside(name: str) -> bool:
    """True if a path from an index stays inside its folder on every operating system."""
    parts = name.replace("\\", "/").split("/")
    # Windows takes `.. ` and `...` for `..`.
    leads_up = any(len(part) > 1 and not part.strip(" .") for part in parts)
    return "\0" not in name and not leads_up and parts[0] != "" and ":" not in parts[0] and parts[-1] not in ("", ".")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that others see whole or not at all, also after a kill or on a full disk.

    Raises OSError if it cannot be written, after removing the temporary file.
    """
    with open_whole(path) as file:
        file.write(data)


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that is written while the block runs, as `write_whole` writes it: nobody sees it before the block ends."""
    # Not .png, so that nothing reads a half-written mask. Not the process id, which machines of a cluster may share.
    part = path.with_name(f"{shortened(path.name)}.{uuid.uuid4().hex[:12]}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(part)):
            error.filename, error.filename2 = str(path), None  # not the temporary name
        raise


def remove_parts(folder: Path) -> None:
    """Remove the temporary files that a killed run left below a folder. The caller must hold the folder's lock."""
    for part in folder.rglob(f"*.{'[0-9a-f]' * 12}.part"):  # as `write_whole` names them; no downloads of others
        part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file. Raises BadInput if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def sha256_of_files(folder: Path, names: Iterable[str]) -> str:
    """One SHA-256 of the names and bytes of files in a folder, in the given order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{sha256(folder / name)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def checksummed_files(folder: Path) -> Iterator[list[str]]:
    """Yield the names of the files that belong into a folder's `checksums.sha256`: all but itself and litter.

    One list for each folder, in no order, of names relative to the folder at the top. Links are followed.
    """
    for inner, names, _ in walk(folder):
        above = "".join(f"{part}/" for part in inner.relative_to(folder).parts)
        yield [above + name for name in names if name != CHECKSUMS]


def write_checksums(folder: Path) -> None:
    """Write `checksums.sha256` for every file below the folder but litter, in the format of `sha256sum`."""
    # In the order of the parts of their paths: each folder has its own names in order, and merging puts them together.
    runs = [Names(sorted(names)) for names in checksummed_files(folder) if names]
    with open_whole(folder / CHECKSUMS) as file:
        for name in heapq.merge(*runs, key=_parts):
            file.write(f"{sha256(folder / name)}  {name}\n".encode(errors="surrogateescape"))


def _parts(name):
    return name.split("/")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as texts; a missing cell is "". Raises BadInput if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} is not a table that can be read: {error}") from None
    return parse_rows(data, path)


def parse_rows(data: bytes, name: Path | str) -> list[dict[str, str]]:
    """The rows in the bytes of a CSV file, as `read_rows` returns them. name: for errors."""
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), restval=""))
    except (ValueError, csv.Error) as error:
        raise BadInput(f"{name} is not a table that can be read: {error}") from None
    return [{key: value for key, value in row.items() if key is not None} for row in rows]
