"""Irregular inpainting masks: extract them from video, augment them, sort them into classes, publish them.

The public names are listed in `__init__.pyi`. Each is imported on first use, so that `import maskgen` is fast
and never loads torch or pandas.
"""

import lazy_loader

from maskgen.runtime import opencv

__version__ = "0.1.0"

opencv.configure_opencv()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
