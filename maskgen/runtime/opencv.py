"""OpenCV's settings: its environment, its threads, and a helpful error if it cannot be imported."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder

NO_THREADS = 0  # for cv2.setNumThreads; with 1, it would wait in a fork for threads that were not copied


def use_one_opencv_thread() -> None:
    """Let OpenCV work in the calling thread only."""
    import cv2

    cv2.setNumThreads(NO_THREADS)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Let OpenCV work in the calling thread only, until the block ends."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(NO_THREADS)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def configure_opencv() -> None:
    """Set OpenCV's environment variables and improve the error of a failed import, without importing it."""
    # A damaged or hostile file may claim any size; 16384 x 16384 px take about 1 GB to decode.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
    # Keep messages of OpenCV and FFmpeg off the terminal; our errors say what matters.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    """Finds OpenCV as Python does, and lets its import name the system package that is missing."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "cv2" else None
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _with_advice(spec.loader.exec_module)
        return spec


def _with_advice(exec_module):
    def wrapper(module):
        try:
            exec_module(module)
        except ImportError as error:
            vars(sys).pop("OpenCV_LOADER", None)  # otherwise a second import would report a recursion
            if "shared object" not in str(error):
                raise
            raise ImportError(
                f"OpenCV needs a system library that is missing ({error}): on Debian or Ubuntu, apt install libgl1 "
                "libglib2.0-0; or use the build without windows: pip uninstall opencv-python, then pip install "
                "opencv-python-headless",
                name="cv2",
            ) from None

    return wrapper
