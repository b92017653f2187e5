"""Sources of frames, which are video files and folders of pictures: finding, probing and cropping them; scene cuts."""

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

VIDEOS = tuple(  # file name endings that are looked for in folders
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .h264 .hevc .m2ts .m2v .m4v .mjpeg .mjpg "
    ".mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogg .ogv .rm .ts .vob .webm .wmv .y4m".split()
)
SPLITS = ("train", "test")
SOURCES = "SOURCES.csv"  # beside the videos: who made them, and how they are split
CREDIT = ("source", "licence", "url")  # its columns
SPLITTING = ("split", "group")  # more columns
SMALLEST = 64  # px, shorter side; optical flow needs no less
LARGEST_OVERLAP = 3 / 4  # of the width, shared by neighbouring squares; free to choose
ONE_COLOUR = 16  # grey levels by which a frame of one colour may vary, because of noise
CUT = 0.3  # share of the frame whose colours change at a scene cut; motion from one frame to the next changes fewer
BINS = 8  # of a colour histogram, for each of R, G and B
# (8, 8), how much a bin counts for the others, so that a slight change of light changes little. The deviation of 0.7
# bins is free to choose.
BIN_WEIGHTS = cv2.GaussianBlur(np.eye(BINS), (7, 1), 0.7, borderType=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Source:
    """A readable video: a file, or a folder of frames."""

    path: Path
    name: str  # unique in its mask set, safe as a folder name
    frames: int  # that can be decoded, counted from the first
    width: int  # px
    height: int  # px
    sha256: str  # of the file, or of the names and bytes of all pictures
    announced: int  # frames according to the header; more than `frames` in a truncated file
    stamps: bytes = b""  # packed time stamps, by which a reader finds the frames of a file
    content: str = ""  # SHA-256 of the bytes without names: the same for a copy
    remarks: tuple[str, ...] = ()  # for the user, to be read after the path: "is interlaced: ..."
    split: str = ""  # the part of the mask set that it is for; empty: either
    group: str = ""  # sources of one group go to the same split, and count as one source; empty: a group of its own


def find(paths: list[Path], *, outside: Path | None = None) -> list[tuple[Path, str]]:
    """Find every video file and folder of frames below the paths, each with a unique name, in natural order.

    A folder with pictures and without video files is a folder of frames. A file that is named directly may have any
    ending. outside: a folder that is not searched, as the masks are written there. Raises BadInput for a path that does
    not exist, or if nothing is found.
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
        # Pictures beside videos are posters and thumbnails, and a mask set is no video.
        if not videos and "metadata.csv" not in names and any(n.lower().endswith(images.ENDINGS) for n in names):
            yield folder
        inside = folder.relative_to(top)
        skipped += [(inside / n).as_posix() for n in litter if n.lower().endswith((*VIDEOS, *images.ENDINGS))]
    files.without_litter(skipped, top)


def _label(path, top):
    inside = path.relative_to(top)
    return (inside.with_suffix("") if path.is_file() else inside).as_posix() if inside.parts else path.resolve().name


def probe(path: Path, name: str) -> Source:
    """Describe a video without decoding all of it. Raises BadInput with the reason if it has no pair of frames."""
    reader = open_reader(path)
    try:
        frames = reader.count()
        first = next((frame for frame in map(reader.read, range(frames)) if frame is not None), None)
        if first is None:
            raise BadInput(f"{path}: no frame can be decoded, expected a video of two frames or more")
        height, width = first.shape[:2]
        if min(width, height) < SMALLEST:
            raise BadInput(f"{path}: frames are {width}x{height}, expected {SMALLEST} px or more on each side")
        if frames < 2:
            raise BadInput(f"{path}: only one frame, expected two or more, as a mask is made from a pair of frames")
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
        remarks.append("is interlaced: one of the two fields of each frame is used")
    if reader.bits > 8 or reader.transfer:
        kind = f"{reader.bits}-bit" + f" HDR ({reader.transfer})" * bool(reader.transfer)
        remarks.append(f"is {kind} video: it is read as 8-bit SDR")
    return tuple(f"{remark}; see docs/extract.md for how to convert it" for remark in remarks)


def _sha256_of_pictures(pictures):
    """SHA-256 of the names and bytes of the files, and of the bytes without names."""
    named, plain = hashlib.sha256(), hashlib.sha256()
    for picture in pictures:
        named.update(os.fsencode(picture.name))
        data = images.read_bytes(picture)
        named.update(data)
        plain.update(data)
    return named.hexdigest(), plain.hexdigest()


def crop_squares(width: int, height: int, crops: int) -> list[tuple[int, int, int]]:
    """Up to `crops` squares (x, y, side) in px, spread along a frame's long side; a single one is in the centre.

    There are fewer in a frame that is not wide enough: neighbours share at most LARGEST_OVERLAP of their width.
    """
    side, spare = min(width, height), abs(width - height)
    crops = min(crops, 1 + int(spare / (1 - LARGEST_OVERLAP)) // side)
    starts = [spare // 2] if crops == 1 else [round(i * spare / (crops - 1)) for i in range(crops)]
    return [(start, 0, side) if width >= height else (0, start, side) for start in starts]


def crop(frame: np.ndarray, square: tuple[int, int, int], size: int) -> np.ndarray:
    """The square (x, y, side) of a frame, resized to `size` px. uint8 (H, W, 3) -> uint8 (size, size, 3)."""
    x, y, side = square
    interpolation = cv2.INTER_AREA if size < side else cv2.INTER_LINEAR
    return cv2.resize(frame[y : y + side, x : x + side], (size, size), interpolation=interpolation)


def is_one_colour(frame: np.ndarray) -> bool:
    """True if a frame shows one colour only, as the black before a film does. frame: uint8 (H, W, 3)."""
    sample = frame[::8, ::8]  # fast, and nearly always enough
    return all(np.ptp(part.reshape(-1, 3), 0).max() <= ONE_COLOUR for part in (sample, frame))


def colour_histograms(frame: np.ndarray) -> np.ndarray:
    """Colour histograms of the 3x3 fields of a frame: float64 (9, 8, 8, 8), the shares of 8x8x8 colours, smoothed.

    frame: uint8 (H, W, 3).
    """
    small = cv2.resize(frame, (96, 96), interpolation=cv2.INTER_NEAREST)  # no mixed colours are needed to count them
    fields = [small[y : y + 32, x : x + 32] for y in (0, 32, 64) for x in (0, 32, 64)]
    counts = np.stack([cv2.calcHist([field], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3) for field in fields])
    for _ in "RGB":  # smooths the last axis, then makes it the first of the three
        counts = np.moveaxis(counts @ BIN_WEIGHTS, -1, 1)
    return counts / counts.sum((1, 2, 3), keepdims=True)


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """True if there is a scene cut between two consecutive frames, given their `colour_histograms`.

    The measure is the intersection of the histograms, mean over the fields.
    """
    return np.minimum(before, after).sum() / len(before) < 1 - CUT


def described(paths: list[Path]) -> dict[Path, dict[str, str]]:
    """What the files `SOURCES.csv` in the folders of videos say about them, by path."""
    found = {}
    for folder in {path.parent for path in paths}:
        if (folder / SOURCES).is_file():
            rows = {_normalized(file): row for file, row in read_sources(folder / SOURCES).items()}
            found |= {path: rows.get(_normalized(path.name), {}) for path in paths if path.parent == folder}
    return found


def _normalized(name):
    """A file name in Unicode form C: macOS may store an accent as a character of its own."""
    return unicodedata.normalize("NFC", name)


def read_sources(path: Path) -> dict[str, dict[str, str]]:
    """Read a table of videos: file name -> its known values of "source", "licence", "url", "split" and "group".

    path: a CSV file with the column `file`. Case and surrounding spaces of the headers do not matter, and `license` is
    read as `licence`. An empty cell means unknown; its key is left out. Raises BadInput without such a column or file,
    and for a split other than train and test.
    """
    found = {}
    for row in files.read_rows(path):
        cells = {key.strip().lower(): value.strip() for key, value in row.items()}
        if "file" not in cells:
            raise BadInput(f"{path} has no column `file`, only {', '.join(row)}: expected file,source,licence,url")
        known = {key: cells.get(key) for key in (*CREDIT, *SPLITTING)}
        known["licence"] = known["licence"] or cells.get("license")
        if known["split"] and known["split"] not in SPLITS:
            raise BadInput(f"{path}, {cells['file']}: expected the split train, test or nothing, got {known['split']}")
        if cells["file"]:
            found.setdefault(cells["file"], {}).update({key: value for key, value in known.items() if value})
    if not found:
        raise BadInput(f"{path} names no file: expected the columns file,source,licence,url and a row for each video")
    return found
