"""Frames of a video file or of a folder of pictures, one at a time."""

import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.runtime.files import natural, read_rows

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
PICTURES = (".png", ".jpg", ".jpeg")
CREDITS = "SOURCES.csv"  # beside the videos: who made them
SMALLEST = 64  # px, the shorter side below which optical flow has nothing to hold on to
NEIGHBOURS = cv2.GaussianBlur(np.eye(8), (7, 1), 0.7, borderType=cv2.BORDER_REPLICATE)  # weights of 8 shades
NEAR = 100  # frames; a frame no farther ahead is reached by decoding, a farther one by seeking


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
            "or folders of .png or .jpg frames"
        )
    ordered = sorted(found, key=natural)
    return list(zip(ordered, _unique([found[path] for path in ordered]), strict=True))


def _search(top, outside):
    for folder, inner, files in os.walk(top):
        folder = Path(folder)
        inner[:] = [n for n in inner if not n.startswith(".") and (outside is None or not _same(folder / n, outside))]
        files = [name for name in files if not name.startswith(".")]
        videos = [name for name in files if name.lower().endswith(VIDEOS)]
        yield from (folder / name for name in videos)
        # Pictures beside videos are posters and thumbnails, and a mask set is no film.
        if not videos and "metadata.csv" not in files and any(name.lower().endswith(PICTURES) for name in files):
            yield folder


def _same(one, other):
    return one.resolve() == other.resolve()


def _label(path, top):
    inside = path.relative_to(top)
    return (inside.with_suffix("") if path.is_file() else inside).as_posix() if inside.parts else path.resolve().name


def _unique(labels):
    """Folder names from labels: only letters, digits, '.', '-' and '_', and no two alike on any file system."""
    names, taken = [], set()
    for label in labels:
        plain = re.sub(r"[^\w.-]+", "_", label).strip("._") or "video"
        name, number = plain, 2
        while name.lower() in taken:
            name, number = f"{plain}-{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def open_reader(path: Path):
    """A reader with `read(index)`, `announced` frames and `close()`, for a file or a folder of frames."""
    return FolderReader(path) if path.is_dir() else FileReader(path)


class FileReader:
    """Frames of a video file by their number. Reading forwards decodes each frame once and holds only one."""

    def __init__(self, path: Path):
        # A "video" may be a playlist in disguise: only local files are followed. One thread, as workers are many.
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "protocol_whitelist;file"
        try:
            path.open("rb").close()
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None
        self._path = path
        self._open()
        self.announced = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def _open(self):
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        self._next = 0
        if not self._capture.isOpened():
            raise BadInput(f"{self._path} is not a video that OpenCV can open: expected for example .mp4, .mkv or .avi")

    def read(self, index: int) -> np.ndarray | None:
        """Frame `index` (0 is the first), uint8 (H, W, 3), RGB; None where it cannot be decoded."""
        if not self._next <= index <= self._next + NEAR:
            self._seek(index)
        while self._next < index:
            if not self._capture.grab():
                return None
            self._next += 1
        got, frame = self._capture.read()
        self._next += 1
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if got else None

    def _seek(self, index):
        # Seeking near the start is where containers without an index go wrong; decoding those frames costs little.
        if index > NEAR and self._capture.set(cv2.CAP_PROP_POS_FRAMES, index):
            self._next = int(self._capture.get(cv2.CAP_PROP_POS_FRAMES))
            if self._next <= index:
                return
        self._capture.release()
        self._open()

    def close(self):
        """Give the file back."""
        self._capture.release()


class FolderReader:
    """The pictures of a folder in natural order, as the frames of a film."""

    def __init__(self, path: Path):
        try:
            files = [file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.name[0] != "."]
        except OSError as error:
            raise BadInput(f"cannot read {path}: {error.strerror}") from None
        self.files = sorted(files, key=natural)
        self.announced = len(self.files)

    def read(self, index: int) -> np.ndarray | None:
        """Frame `index` (0 is the first), uint8 (H, W, 3), RGB; None where it cannot be decoded."""
        if index >= len(self.files):
            return None
        try:
            data = np.fromfile(self.files[index], np.uint8)
            frame = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        except (OSError, cv2.error):  # the latter where it claims an absurd size
            return None
        return None if frame is None else cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def close(self):
        """Nothing is held open."""


def probe(path: Path, name: str) -> Source:
    """Look at a video without decoding all of it. Raises BadInput with the reason if no pair can come of it.

    A header may promise more frames than there are; the last frame that can be read is found by halving.
    """
    reader = open_reader(path)
    try:
        first = reader.read(0)
        if first is None:
            raise BadInput(f"{path}: not one frame can be decoded: expected a video of two frames or more")
        if min(first.shape[:2]) < SMALLEST:
            height, width = first.shape[:2]
            raise BadInput(f"{path}: frames are {width}x{height}, expected {SMALLEST} px or more on each side")
        frames = _readable(reader)
        if frames < 2:
            raise BadInput(f"{path}: only one frame, expected two or more, since a mask comes from a pair")
    finally:
        reader.close()
    return Source(path, name, frames, first.shape[1], first.shape[0], _sha256(path), reader.announced)


def _readable(reader):
    """Frames from the first to the last one that can be decoded."""
    if isinstance(reader, FolderReader):
        return reader.announced
    if not reader.announced:  # a stream without a header: only decoding tells
        return _decode_to_the_end(reader, 1)
    low, high = 0, reader.announced  # frame `low` can be read; what begins at `high` can not, or is not promised
    if high > 2 and reader.read(high - 2) is not None:  # nearly always; the header's last frame is often missing
        return _decode_to_the_end(reader, high - 1)
    while high - low > NEAR:
        middle = (low + high) // 2
        low, high = (middle, high) if reader.read(middle) is not None else (low, middle)
    reader.read(low)
    return _decode_to_the_end(reader, low + 1)


def _decode_to_the_end(reader, index):
    while reader.read(index) is not None:
        index += 1
    return index


def _sha256(path):
    digest = hashlib.sha256()
    for file in FolderReader(path).files if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


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
    for row in read_rows(path):
        cells = {key.strip().lower(): value.strip() for key, value in row.items()}
        if "file" not in cells:
            raise BadInput(f"{path} has no column `file`, but {', '.join(row)}: expected file,source,licence,url")
        known = {key: cells.get(key) for key in ("source", "licence", "url")}
        known["licence"] = known["licence"] or cells.get("license")
        if cells["file"]:
            found.setdefault(cells["file"], {}).update({key: value for key, value in known.items() if value})
    if not found:
        raise BadInput(f"{path} names no file: expected the columns file,source,licence,url and a row for each video")
    return found
