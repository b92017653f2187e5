"""Zip and tar files of masks, read by name. Their contents are not trusted."""

import lzma
import tarfile
import zipfile
import zlib
from pathlib import Path

from maskgen.errors import BadInput

MAX_BYTES = 32 * 1024 * 1024  # of one unpacked file: a larger one is no mask, and may be meant to fill the memory
MAX_FILES = 1_000_000
MAX_TOTAL = 64 * MAX_BYTES  # of a compressed tar, which is unpacked into memory


def open_archive(path: Path):
    """Open a zip or a tar: an object with names() and read(name).

    Raises BadInput for any other file and for unsafe contents, OSError for a file that cannot be read.
    """
    if not path.exists():
        raise BadInput(f"no such file or folder: {path} (expected a folder, zip or tar of masks)")
    if zipfile.is_zipfile(path):
        return _Zip(path)
    if _is_tar(path):
        return _Tar(path)
    raise BadInput(f"{path} is neither a folder nor a zip or tar: expected a folder, zip or tar of masks")


def read_file(path: Path, name: str) -> bytes:
    """The bytes of one file in an archive. Raises FileNotFoundError if it has none of that name."""
    archive = open_archive(path)
    if name not in archive.names():
        raise FileNotFoundError(f"no {name} in {path}")
    return archive.read(name)


def _check_member(path, name, size, *, link):
    """Raise BadInput for a member that no harmless archive of masks has."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0]:
        raise BadInput(f"{path} holds the name {name!r}, which leads out of the archive: do not trust it")
    if link:
        raise BadInput(f"{path} holds {name!r}, a link or device: expected plain files, do not trust the archive")
    if size > MAX_BYTES:
        raise BadInput(f"{path} holds {name!r} of {size:,} bytes: expected masks, {MAX_BYTES:,} bytes at most")


class _Zip:
    def __init__(self, path):
        self.path = path
        try:
            self.file = zipfile.ZipFile(path)
        except PermissionError:
            raise
        except Exception as error:  # the reader raises many kinds for damaged bytes
            raise BadInput(f"{path} is a damaged zip ({error}): get it again") from None
        entries = self.file.infolist()
        if len(entries) > MAX_FILES:
            raise BadInput(f"{path} holds {len(entries):,} files: expected {MAX_FILES:,} at most")
        for entry in entries:
            kind = entry.external_attr >> 28  # the Unix file type, 0 if the zip has none
            _check_member(path, entry.filename, entry.file_size, link=kind not in (0, 4, 8))

    def names(self):
        return [entry.filename for entry in self.file.infolist() if entry.filename and not entry.is_dir()]

    def read(self, name):
        try:
            with self.file.open(name) as file:
                data = file.read(MAX_BYTES + 1)  # the size in the header may be false
        except Exception as error:  # damaged, encrypted, or an unknown compression
            raise BadInput(f"{self.path}: {name} cannot be unpacked ({error}): get the archive again") from None
        if len(data) > MAX_BYTES:
            raise BadInput(f"{self.path}: {name} unpacks to more than {MAX_BYTES:,} bytes: expected a mask")
        return data


def _is_tar(path):
    try:
        return tarfile.is_tarfile(path)
    except (EOFError, zlib.error, lzma.LZMAError):  # compressed and truncated
        return False


def _is_plain_tar(path):
    try:
        tarfile.open(path, "r:").close()
    except tarfile.ReadError:
        return False
    return True


class _Tar:
    """A tar. A compressed one is unpacked into memory, since it has no random access."""

    def __init__(self, path):
        self.path, self.offsets, self.unpacked, total = path, {}, {}, 0
        try:
            with tarfile.open(path) as archive:
                compressed = not _is_plain_tar(path)
                for entry in archive:
                    _check_member(path, entry.name, entry.size, link=not (entry.isreg() or entry.isdir()))
                    if len(self.offsets) + len(self.unpacked) >= MAX_FILES:
                        raise BadInput(f"{path} holds more than {MAX_FILES:,} files: expected masks")
                    if entry.isreg() and compressed:
                        total += entry.size
                        if total > MAX_TOTAL:
                            raise BadInput(f"{path} unpacks to more than {MAX_TOTAL:,} bytes: unpack it to a folder")
                        self.unpacked[entry.name] = archive.extractfile(entry).read()
                    elif entry.isreg():
                        self.offsets[entry.name] = entry.offset_data, entry.size
        except (BadInput, PermissionError):
            raise
        except Exception as error:  # the reader raises many kinds for damaged bytes
            raise BadInput(f"{path} is a damaged tar ({error}): get it again") from None

    def names(self):
        return [*self.offsets, *self.unpacked]

    def read(self, name):
        if name in self.unpacked:
            return self.unpacked[name]
        begin, size = self.offsets[name]
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(size)
