"""Irregular inpainting masks: extracted from video, augmented, sorted into classes, published."""

__version__ = "0.1.0"
