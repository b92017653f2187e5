"""Videos to be inpainted: found, described, and read frame by frame."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.extraction import video
from maskgen.extraction.reader import FolderReader, open_reader
from maskgen.runtime import files, images


@dataclass(frozen=True)
class Clip:
    """A video: a folder of frames, or a file."""

    path: Path  # absolute
    name: str  # path below the folder of videos, without the ending of a file, in NFC
    frames: int
    shape: tuple[int, int]  # px, height and width
    stamps: bytes = b""  # packed time stamps, by which a reader finds the frames of a file

    def sha256(self) -> str:
        """SHA-256 of the file, or of the names and bytes of all frames. Raises BadInput for a damaged picture."""
        if self.path.is_file():
            return files.sha256(self.path)
        digest = hashlib.sha256()
        for path in FolderReader(self.path).files:
            data = images.read_bytes(path)
            if not images.looks_complete(data):
                images.decode(data, path)  # raises now and not in the middle of a long run
            digest.update(f"{path.name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        return digest.hexdigest()

    def read(self, start: int, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield frames, uint8 (H, W, 3), resized to `size`, (height, width). Raises BadInput for an unreadable one."""
        reader = open_reader(self.path, self.stamps)
        try:
            for t in range(start, start + count):
                frame = reader.read(t)
                if frame is None:
                    raise BadInput(f"{self.path}: frame {t} cannot be decoded: replace the video, or remove it")
                if frame.shape[:2] != self.shape:
                    sizes = ["{1}x{0}".format(*shape) for shape in (frame.shape, self.shape)]
                    raise BadInput(f"{self.path}: frame {t} is {sizes[0]} px, expected {sizes[1]} as the first one")
                yield resized(frame, size)
        finally:
            reader.close()


def find_clips(top: Path, *, outside: Iterable[Path] = ()) -> list[Clip]:
    """Every video file and folder of frames below a folder, in natural order; or the one that a path is.

    outside: folders below it that are left out, such as those of masks and results. Raises BadInput where there is no
    video, and for one that cannot be read.
    """
    others = [path.resolve() for path in outside if path.resolve() != top.resolve()]
    found = [path for path, _ in video.find([top])]
    found = [path for path in found if not any(path.resolve().is_relative_to(other) for other in others)]
    if not found:
        raise BadInput(f"no video in {top} outside {' and '.join(map(str, others))}")
    clips = [_described(path, name_below(path, top)) for path in found]
    names = [clip.name for clip in clips]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{top} holds two videos called {twice}: rename or remove one")
    return clips


def name_below(path: Path, top: Path) -> str:
    """The name of a video or a folder of masks: its path below the folder that was named, or the name of that folder.

    Raises BadInput for a name that is not valid Unicode.
    """
    inside = path.relative_to(top) if path != top else Path(path.resolve().name)
    name = (inside.with_suffix("") if path.is_file() else inside).as_posix()
    if not files.is_text(name):
        raise BadInput(f"{top} has {name!a}, a name that is not UTF-8 and cannot be written to a table: rename it")
    return unicodedata.normalize("NFC", name)


def _described(path, name):
    reader = open_reader(path)
    try:
        frames = reader.count()
        first = reader.read(0)
        if first is None:
            raise BadInput(f"{path}: the first frame cannot be decoded: replace the video, or remove it")
        stamps = b"" if path.is_dir() else reader.stamps.pack()
        return Clip(path.absolute(), name, frames, first.shape[:2], stamps)
    finally:
        reader.close()


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame, uint8 (H, W, 3), at `size`, (height, width), without cropping; one of that size is returned as it is.

    Pixel areas are averaged to shrink, cubic splines are used to enlarge.
    """
    if frame.shape[:2] == size:
        return frame
    shrinks = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    return cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
