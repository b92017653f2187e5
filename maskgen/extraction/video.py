"""Films and folders of frames: which there are, what they are like, and squares cut out of their frames."""

import hashlib
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.extraction.reader import FolderReader, open_reader
from maskgen.runtime import files, images

VIDEOS = (
    *(
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".dv",
        ".f4v",
        ".flv",
        ".gif",
        ".h264",
        ".hevc",
        ".m2ts",
        ".m2v",
        ".m4v",
        ".mjpeg",
        ".mjpg",
    ),
    *(
        ".mkv",
        ".mov",
        ".mp4",
        ".mpe",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogg",
        ".ogv",
        ".rm",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".y4m",
    ),
)
CREDITS = "SOURCES.csv"  # beside the videos: who made them
CREDIT = ("source", "licence", "url")  # what it tells of each
SMALLEST = 64  # px, the shorter side below which optical flow has nothing to hold on to
NEIGHBOURS = cv2.GaussianBlur(np.eye(8), (7, 1), 0.7, borderType=cv2.BORDER_REPLICATE)  # weights of 8 shades
ONE_COLOUR = 16  # grey levels by which noise lets a picture of one colour vary


@dataclass(frozen=True)
class Source:
    """A readable video: a file, or a folder of frames."""

    path: Path
    name: str  # unique in its mask set, safe as a folder's name
    frames: int  # that can be decoded, counted from the first
    width: int  # px
    height: int  # px
    sha256: str  # of the file, or of all names and bytes of the folder
    announced: int  # frames by the file's own header; more than `frames` in a truncated file
    stamps: bytes = b""  # by which a reader of the file finds its frames
    content: str = ""  # SHA-256 of the bytes alone: the same for the same frames under other names
    remarks: tuple[str, ...] = ()  # what the user should know, with the path as their subject


def find(paths: list[Path], *, outside: Path | None = None) -> list[tuple[Path, str]]:
    """Every video file and folder of frames below the paths, each with a unique name. Natural order.

    A folder that holds pictures and no video file is a folder of frames. Files named directly are taken whatever
    their ending. outside: a folder that is not searched, since the masks go there. Raises BadInput for a path
    that does not exist, or if nothing is found.
    """
    found = {}
    for path in paths:
        if not path.exists():
            raise BadInput(
                f"no such file or folder: {path} (expected a video, a folder of frames, or a folder of those)"
            )
        if path.is_dir():
            found |= {inner: _label(inner, path) for inner in _search(path, outside)}
        else:
            found[path] = path.stem
    if not found:
        raise BadInput(
            f"no video in {', '.join(map(str, paths))}: expected files such as .mp4, .mkv or .avi, "
            f"or folders of frames that end in {', '.join(images.ENDINGS)}"
        )
    ordered = sorted(found, key=files.natural)
    return list(zip(ordered, files.safe_names(found[path] for path in ordered), strict=True))


def _search(top, outside):
    skipped = []
    for folder, names, litter in files.walk(top, exclude=outside):
        videos = [name for name in names if name.lower().endswith(VIDEOS)]
        yield from (folder / name for name in videos)
        # Pictures beside videos are posters and thumbnails, and a mask set is no film.
        if not videos and "metadata.csv" not in names and any(n.lower().endswith(images.ENDINGS) for n in names):
            yield folder
        inside = folder.relative_to(top)
        skipped += [(inside / n).as_posix() for n in litter if n.lower().endswith((*VIDEOS, *images.ENDINGS))]
    files.without_litter(skipped, top)


def _label(path, top):
    inside = path.relative_to(top)
    return (inside.with_suffix("") if path.is_file() else inside).as_posix() if inside.parts else path.resolve().name


def probe(path: Path, name: str) -> Source:
    """Look at a video without decoding all of it. Raises BadInput with the reason if no pair can come of it."""
    reader = open_reader(path)
    try:
        frames = reader.count()
        first = next((frame for frame in map(reader.read, range(frames)) if frame is not None), None)
        if first is None:
            raise BadInput(f"{path}: not one frame can be decoded: expected a video of two frames or more")
        height, width = first.shape[:2]
        if min(width, height) < SMALLEST:
            raise BadInput(f"{path}: frames are {width}x{height}, expected {SMALLEST} px or more on each side")
        if frames < 2:
            raise BadInput(f"{path}: only one frame, expected two or more, since a mask comes from a pair")
    finally:
        reader.close()
    if isinstance(reader, FolderReader):
        digest, content = _sha256_of_pictures(reader.files)
        return Source(path, name, frames, width, height, digest, frames, content=content)
    digest, announced = files.sha256(path), max(frames, reader.promised, len(reader.stamps.frames))
    stamps, remarks = reader.stamps.pack(), _remarks(reader)
    return Source(path, name, frames, width, height, digest, announced, stamps, digest, remarks)


def _remarks(reader):
    remarks = []
    if reader.interlaced:
        remarks.append("is interlaced: of the two fields of each frame one is used")
    if reader.bits > 8 or reader.transfer:
        kind = f"{reader.bits}-bit" + f" HDR ({reader.transfer})" * bool(reader.transfer)
        remarks.append(f"is {kind} video: it is read as 8-bit SDR")
    return tuple(f"{remark}; docs/extract.md tells how to convert it" for remark in remarks)


def _sha256_of_pictures(pictures):
    """SHA-256 of the names and bytes of the files, and of the bytes alone."""
    named, plain = hashlib.sha256(), hashlib.sha256()
    for picture in pictures:
        named.update(os.fsencode(picture.name))
        data = images.read_bytes(picture)
        named.update(data)
        plain.update(data)
    return named.hexdigest(), plain.hexdigest()


def squares(width: int, height: int, crops: int) -> list[tuple[int, int, int]]:
    """Up to `crops` squares (x, y, side) spread along a frame's long side; one lies in the centre.

    Squares that would share more than three quarters of their width say nothing new, so a frame that is not wide
    enough gives fewer.
    """
    side, spare = min(width, height), abs(width - height)
    crops = min(crops, 1 + 4 * spare // side)
    starts = [spare // 2] if crops == 1 else [round(i * spare / (crops - 1)) for i in range(crops)]
    return [(start, 0, side) if width >= height else (0, start, side) for start in starts]


def cut_out(frame: np.ndarray, square: tuple[int, int, int], size: int) -> np.ndarray:
    """The square of a frame at size x size px, so that the frame's short side becomes `size`. uint8 (H, W, 3)."""
    x, y, side = square
    shrinks = size < side
    return cv2.resize(
        frame[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def is_of_one_colour(frame: np.ndarray) -> bool:
    """Whether nothing is to be seen in a frame, uint8 (H, W, 3), as in the black before a film."""
    few = frame[::8, ::8]  # nearly always enough to tell
    return all(np.ptp(part.reshape(-1, 3), 0).max() <= ONE_COLOUR for part in (few, frame))


def colours(frame: np.ndarray) -> np.ndarray:
    """Which colours a frame shows where: float64 (9, 8, 8, 8), for each of 3x3 fields the shares of 8x8x8 colours.

    frame: uint8 (H, W, 3). Blurred over neighbouring colours, so that a slight change of light changes little.
    """
    small = cv2.resize(frame, (96, 96), interpolation=cv2.INTER_NEAREST)  # counts need no smooth pixels
    fields = [small[y : y + 32, x : x + 32] for y in (0, 32, 64) for x in (0, 32, 64)]
    counts = np.stack([cv2.calcHist([field], [0, 1, 2], None, [8] * 3, [0, 256] * 3) for field in fields])
    for _ in "RGB":  # along the last axis, which then becomes the first of the three
        counts = np.moveaxis(counts @ NEIGHBOURS, -1, 1)
    return counts / counts.sum((1, 2, 3), keepdims=True)


def is_cut(one: np.ndarray, following: np.ndarray) -> bool:
    """Whether two frames that follow each other show different scenes, from their `colours`.

    From one frame to the next, motion leaves most colours in their field; a cut takes 30 % of them away or more.
    """
    return np.minimum(one, following).sum() / len(one) < 0.7


def credits(paths: list[Path]) -> dict[Path, dict[str, str]]:
    """Who made the videos: what the `SOURCES.csv` files that lie beside them say, by path."""
    found = {}
    for folder in {path.parent for path in paths}:
        if (folder / CREDITS).is_file():
            rows = {_plain(file): row for file, row in read_credits(folder / CREDITS).items()}
            found |= {path: rows.get(_plain(path.name), {}) for path in paths if path.parent == folder}
    return found


def _plain(name):
    """A file name as systems compare it: macOS may store an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def read_credits(path: Path) -> dict[str, dict[str, str]]:
    """A table of the makers of videos: file name -> what is known of "source", "licence" and "url".

    path: a CSV file with the column `file`. Headers in any case, spaces around them and the spelling `license` are
    understood. An empty cell means unknown, and its key is missing. Raises BadInput for anything else.
    """
    found = {}
    for row in files.read_rows(path):
        cells = {key.strip().lower(): value.strip() for key, value in row.items()}
        if "file" not in cells:
            raise BadInput(f"{path} has no column `file`, but {', '.join(row)}: expected file,source,licence,url")
        known = {key: cells.get(key) for key in CREDIT}
        known["licence"] = known["licence"] or cells.get("license")
        if cells["file"]:
            found.setdefault(cells["file"], {}).update({key: value for key, value in known.items() if value})
    if not found:
        raise BadInput(f"{path} names no file: expected the columns file,source,licence,url and a row for each video")
    return found
