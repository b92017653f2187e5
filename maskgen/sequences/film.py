"""Windows of consecutive frames of a video, cropped at random, and which windows a run takes."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskgen.extraction import video
from maskgen.extraction.schedule import Segment

MAX_ZOOM = 1.5  # the smallest crop has this fraction of the largest one's sides, unless frames would be enlarged
# Why a window is passed over, in the words of the summary and of recipe.json.
UNREADABLE, OTHER_SIZE, SCENE_CUT = "with unreadable frames", "with frames of another size", "with a scene cut"
ONE_COLOUR = "with a frame of one colour"


@dataclass(frozen=True)
class Footage:
    """The frames of a source that serve one split, as a worker needs them."""

    path: Path  # absolute
    name: str
    start: int  # first frame
    stop: int  # after the last frame
    shape: tuple[int, int]  # height and width of the frames
    stamps: bytes  # packed time stamps, by which frames are found

    @classmethod
    def of(cls, segment: Segment) -> "Footage":
        """The footage of a segment of `maskgen extract`."""
        source = segment.source
        path, shape = source.path.absolute(), (source.height, source.width)
        return cls(path, source.name, segment.start, segment.stop, shape, source.stamps)

    def windows(self, frames: int) -> int:
        """The number of windows of this many frames."""
        return max(0, self.stop - self.start - frames + 1)


@dataclass(frozen=True)
class Crop:
    """A part of the frame, px, mirrored or not."""

    x: int
    y: int
    width: int
    height: int
    flip: bool

    def columns(self) -> dict:
        """The crop as columns of an index."""
        return {"crop": f"{self.x} {self.y} {self.width} {self.height}", "flip": int(self.flip)}


def random_crop(shape: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> Crop:
    """Draw a crop with the aspect ratio of `size`, (width, height). shape: (height, width) of the frames."""
    height, width = shape
    largest = min(width / size[0], height / size[1])  # px of the source per px of the result
    scale = min(largest, max(1.0, largest / rng.uniform(1, MAX_ZOOM)))
    wide, high = min(width, round(scale * size[0])), min(height, round(scale * size[1]))
    x, y = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
    return Crop(x, y, wide, high, bool(rng.integers(2)))


def read_window(footage: Footage, start: int, frames: int, crop: Crop, size: tuple[int, int]) -> list[np.ndarray] | str:
    """Consecutive frames, each uint8 (H, W, 3), cropped and resized to `size`, (width, height); or why not."""
    reader, pictures, before = video.open_reader(footage.path, footage.stamps), [], None
    try:
        for index in range(start, start + frames):
            frame = reader.read(index)
            if frame is None:
                return UNREADABLE
            if frame.shape[:2] != footage.shape:
                return OTHER_SIZE
            histograms = video.colour_histograms(frame)
            if before is not None and video.is_cut(before, histograms):
                return SCENE_CUT
            before = histograms
            pictures.append(_cropped(frame, crop, size))
            if video.is_one_colour(pictures[-1]):
                return ONE_COLOUR
    finally:
        reader.close()
    return pictures


def _cropped(frame, crop, size):
    part = frame[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    part = cv2.resize(part, size, interpolation=cv2.INTER_AREA if size[0] < crop.width else cv2.INTER_LINEAR)
    return np.ascontiguousarray(part[:, ::-1]) if crop.flip else part
