"""Small films that the tests make: a textured square slides over a textured ground."""

from pathlib import Path

import cv2
import numpy as np


def texture(height, width, seed):
    """Smooth random colours with structure enough for optical flow. uint8 (H, W, 3)."""
    rough = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 1.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def frame(index, *, height=96, width=128, step=4, seed=0):
    """Frame `index` of the film: the square of 32 px moves right by `step` px a frame, and round again."""
    picture = texture(height, width, seed)
    x = 8 + index * step % (width - 48)
    y = (height - 32) // 2
    picture[y : y + 32, x : x + 32] = texture(32, 32, seed + 1)
    return picture


def write_frames(folder: Path, count=12, *, first=0, **look) -> Path:
    """A folder of PNG frames named 1.png, 2.png, ... 10.png, which only a natural sort puts in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = frame(first + index, **look)
        cv2.imwrite(str(folder / f"{index + 1}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return folder


def write_video(path: Path, count=12, **look) -> Path:
    """The same film as a video file, whose codec its ending decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frame(0, **look).shape[:2]
    codec = cv2.VideoWriter.fourcc(*{".avi": "MJPG", ".mp4": "mp4v", ".mkv": "mp4v"}[path.suffix])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25, (width, height))
    for index in range(count):
        writer.write(cv2.cvtColor(frame(index, **look), cv2.COLOR_RGB2BGR))
    writer.release()
    return path
