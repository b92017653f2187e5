"""What OpenCV is told before anything imports it, and what the user is told where that fails."""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder


def configure_opencv() -> None:
    """Set OpenCV's environment and watch over its import. Does not import it, which takes a while."""
    # A damaged or hostile file may claim any size: 16384 x 16384 px, about 1 GB to decode, is the most we try.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
    # OpenCV's and FFmpeg's own chatter stays off the user's terminal; our errors say what matters.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    """Finds OpenCV where Python does. Its import then says which system package is missing, wherever it stands."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "cv2" else None
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _advised(spec.loader.exec_module)
        return spec


def _advised(exec_module):
    def wrapper(module):
        try:
            exec_module(module)
        except ImportError as error:
            vars(sys).pop("OpenCV_LOADER", None)  # or a second try would tell of a recursion instead
            if "shared object" not in str(error):
                raise
            raise ImportError(
                f"OpenCV lacks a library of the system ({error}): on Debian or Ubuntu, apt install libgl1 "
                "libglib2.0-0; or take the build without windows: pip uninstall opencv-python, then pip install "
                "opencv-python-headless",
                name="cv2",
            ) from None

    return wrapper
