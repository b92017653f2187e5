"""The network of Liu et al. 2018: partial convolution, U-Net, losses, training and inference.

The public names are listed in `__init__.pyi`. Each is imported on first use; torch loads with the first that needs it.
"""

import lazy_loader

import maskgen  # noqa: F401 - configures OpenCV before it is imported

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
