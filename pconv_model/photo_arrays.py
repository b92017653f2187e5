"""Photos in one array file, for training: a .npy file of uint8 (N, H, W, 3), which is memory-mapped.

Photo i of `photos.npy` has the path `photos.npy/i`, so that it can stand in a list of photos beside files.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from maskgen.errors import BadInput

SUFFIX = ".npy"


def is_array(path: Path) -> bool:
    """Whether a path is that of an array of photos, rather than of a folder."""
    return path.suffix.lower() == SUFFIX and path.is_file()


def is_in_array(path: Path) -> bool:
    """Whether a path is that of a photo in an array."""
    return is_array(path.parent)


def find(path: Path) -> list[Path]:
    """The paths of all photos in an array. Raises BadInput for a file that is not such an array."""
    return [path / str(i) for i in range(len(_open(path, path.stat().st_mtime_ns)))]


def read(path: Path) -> np.ndarray:
    """A photo of an array, uint8 (H, W, 3): a view of the file, of which only the parts that are used are read."""
    array = path.parent
    return np.asarray(_open(array, array.stat().st_mtime_ns)[int(path.name)])


@lru_cache(maxsize=8)
def _open(path, modified):
    """The array in a file. modified: when the file was last changed; a file that changes is opened again."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path} cannot be read as an array of photos ({error}): write it with numpy.save") from None
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.size:
        raise BadInput(f"{path} holds {array.dtype} {array.shape}: expected photos, uint8 (N, H, W, 3) with N > 0")
    return array
