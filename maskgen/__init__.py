"""Irregular inpainting masks: extracted from video, augmented, sorted into classes, published."""

import os

# A damaged or hostile file may claim any size: 16384 x 16384 px, about 1 GB while it is decoded, is the most we try.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
# OpenCV's and FFmpeg's own chatter stays off the user's terminal; our errors say what matters.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

__version__ = "0.1.0"
