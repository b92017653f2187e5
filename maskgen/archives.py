"""Zip and tar files of masks, read by name and never trusted."""

import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path

from maskgen.errors import BadInput

MAX_BYTES = 32 * 1024 * 1024  # of one file, unpacked: a larger one is no mask, but may be an attack on memory
MAX_FILES = 1_000_000


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
