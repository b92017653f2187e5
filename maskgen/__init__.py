"""Irregular inpainting masks: extracted from video, augmented, sorted into classes, published."""

from maskgen.runtime.opencv import configure_opencv

__version__ = "0.1.0"

configure_opencv()
