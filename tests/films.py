"""Small films for the tests: a textured square slides over a textured background."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def texture(height, width, seed):
    """Smooth random colours with enough structure for optical flow. uint8 (H, W, 3)."""
    rough = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 1.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def frame(index, *, height=96, width=128, step=4, seed=0):
    """Frame `index` of the film: a square of 32 px moves right by `step` px a frame, and starts over at the edge."""
    picture = texture(height, width, seed)
    x = 8 + index * step % (width - 48)
    y = (height - 32) // 2
    picture[y : y + 32, x : x + 32] = texture(32, 32, seed + 1)
    return picture


def write_frames(folder: Path, count=12, *, first=0, **look) -> Path:
    """Write a folder of PNG frames 1.png, 2.png, ... 10.png, which only natural sorting puts in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = frame(first + index, **look)
        cv2.imwrite(str(folder / f"{index + 1}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return folder


def write_video(path: Path, count=12, **look) -> Path:
    """Write the same film as a video file; the ending decides on the codec."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frame(0, **look).shape[:2]
    codec = cv2.VideoWriter.fourcc(*{".avi": "MJPG", ".mp4": "mp4v", ".mkv": "mp4v"}[path.suffix])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25, (width, height))
    for index in range(count):
        writer.write(cv2.cvtColor(frame(index, **look), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def encode(
    path: Path, pictures, codec="libx264", *, pixels="yuv420p", stamps=None, options=None, to=None, **tags
) -> Path:
    """Encode pictures, uint8 (H, W, 3), by FFmpeg.

    pixels: the pixel format. stamps: display times in 1/600 s, for a film of variable rate. options: of the codec. to:
    options of the container. tags: attributes of the codec context, such as colorspace.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=to or {}) as film:
        stream = film.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 600)
        for index, picture in enumerate(pictures):
            one = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            one.pts = index if stamps is None else stamps[index]
            film.mux(stream.encode(one))
        film.mux(stream.encode())
    return path


def remux(path: Path, target: Path, *, skip=0, shift=0, to=None) -> Path:
    """Copy the packets of a film from number `skip` on to a new file, with `shift` added to their time stamps."""
    with av.open(str(path)) as film, av.open(str(target), "w", options=to or {}) as copy:
        stream = film.streams.video[0]
        into = copy.add_stream_from_template(stream)
        for packet in list(film.demux(stream))[skip:]:
            if packet.size:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = into
                copy.mux(packet)
    return target
