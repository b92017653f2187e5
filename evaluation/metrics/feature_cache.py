"""A folder of image features, shared between runs: an image is not sent through a network twice.

The environment variable `INCEPTION_CACHE` names the folder; without it nothing is kept. A file has the features of one
image, 8 KB, under a name made of all that decides them. Files are written whole, so any number of runs and machines can
share a folder, and any file can be deleted at any time.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from maskgen.errors import BadInput, warn
from maskgen.runtime import files

VARIABLE = "INCEPTION_CACHE"


def folder() -> Path | None:
    """The folder that the environment variable names, or None. Raises BadInput if it cannot be made."""
    if not os.environ.get(VARIABLE):
        return None
    path = Path(os.environ[VARIABLE])
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{VARIABLE} is {path}, which cannot be a folder ({error.strerror}): name another") from None
    return path


def cached(function: Callable[[np.ndarray], np.ndarray], image: np.ndarray, identity: Callable[[], str]) -> np.ndarray:
    """function(image), float32 (D,), read from the folder where an earlier call has left it.

    identity: returns all that decides the features besides the image: weights, preprocessing, versions.
    """
    root = folder()
    if not root:
        return function(image)
    key = hashlib.sha256(f"{identity()} {image.shape} ".encode() + np.ascontiguousarray(image).data).hexdigest()
    path = root / key[:2] / f"{key[2:]}.safetensors"  # 256 folders
    features = _read(path)
    if features is None:
        features = np.asarray(function(image), np.float32)
        _write(path, features)
    return features


def _read(path):
    """The features in a file; None if there is none, or if it is damaged."""
    try:
        found = safetensors.numpy.load(path.read_bytes())["features"]
    except (OSError, KeyError, safetensors.SafetensorError):
        return None
    return found if found.dtype == np.float32 and found.ndim == 1 and np.isfinite(found).all() else None


def _write(path, features):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, safetensors.numpy.save({"features": features}))
    except OSError as error:  # the disk is full, or the folder is another user's: the run does not depend on it
        warn(f"features are not kept in {path.parents[1]} ({error.strerror})")
