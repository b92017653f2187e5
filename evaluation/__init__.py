"""The benchmark: inpainting methods, metrics, and the tables that compare them.

The public names are listed in `__init__.pyi`. Each is imported on first use.
"""

import lazy_loader

import maskgen  # noqa: F401 - configures OpenCV before it is imported

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
