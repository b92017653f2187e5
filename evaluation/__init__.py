"""The benchmark: inpainting methods, metrics, and the tables that compare them."""

import maskgen  # noqa: F401 - settles how OpenCV is imported, before anything here does so
