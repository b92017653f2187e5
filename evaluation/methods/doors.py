"""Methods that live elsewhere: results in a folder, and programs of any language."""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np

from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.runtime import images
from maskgen.runtime.files import is_litter

FIELDS = ("{image}", "{mask}", "{output}")  # what a command line must have


class Failed(Exception):
    """One pair that a method could not do. The benchmark writes it down and goes on."""


def results_in(folder: Path) -> dict[str, str]:
    """The file names of results in a folder by pair. Raises BadInput where it is missing, or a pair has two."""
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected results named after the pairs: 00000.png ...)")
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise BadInput(f"cannot read {folder}: {error.strerror}") from None
    found = {}
    for name in names:
        if not name.lower().endswith(images.ENDINGS) or is_litter(name):
            continue
        pair = unicodedata.normalize("NFC", Path(name).stem)
        if found.setdefault(pair, name) != name:
            raise BadInput(f"{folder} holds {found[pair]} and {name}, two results of one pair: remove one of them")
    return found


class Folder:
    """Results that another program has made already, as a method."""

    def __init__(self, folder: Path):
        self.folder, self.names = folder, results_in(folder)

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The result of a pair. Raises Failed where there is none, BadInput where it is no picture."""
        if pair not in self.names:
            raise Failed(f"no {pair}.png among the results")
        name = self.names[pair]
        return images.decode_rgb(_read(self.folder / name), name)  # scores.csv is the same wherever the folder lies


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failed(f"cannot read {path.name}: {error.strerror}") from None


def words_of(command: str) -> list[str]:
    """The words of a command line. Raises BadInput where one of FIELDS is missing, or the program."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadInput(f"cmd:{command} cannot be split into words: {error}") from None
    for needed in FIELDS:
        if not any(needed in word for word in words):
            raise BadInput(f"cmd:{command} has no {needed}: expected cmd:'PROGRAM {{image}} {{mask}} {{output}}'")
    if not shutil.which(words[0]):
        raise BadInput(f"cannot start {words[0]}: no such program (expected its name on PATH, or its path)")
    return words


class Program:
    """A program as a method. It gets PNG files: the image, the mask (255 = hole), the path of its result."""

    def __init__(self, command: str):
        self.words = words_of(command)

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """What the program writes for a pair. Raises Failed where it fails, BadInput where it writes no picture."""
        with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
            paths = {name: Path(folder) / f"{name}.png" for name in ("image", "mask", "output")}
            images.write(paths["image"], image)
            paths["mask"].write_bytes(maskset.encode(hole))
            # Only these names are filled in: other braces, as in a program's JSON argument, stay as they are.
            line = list(self.words)
            for name, value in {**paths, "pair": pair}.items():
                line = [word.replace("{" + name + "}", str(value)) for word in line]
            parent = os.getpid()
            first = (lambda: die_with(parent)) if sys.platform == "linux" else None
            done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=first, check=False)
            said = done.stderr.decode(errors="replace").replace(f"{folder}{os.sep}", "").strip().splitlines()
            last_word = f": {said[-1]}" if said else ""
            if done.returncode:
                raise Failed(f"{line[0]} ended with code {done.returncode}{last_word}")
            if not paths["output"].is_file():
                raise Failed(f"{line[0]} ended well but wrote no output{last_word}")
            return images.decode_rgb(_read(paths["output"]), f"what {line[0]} wrote")


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when the process `parent` that started it ends, also by a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before we asked
            os._exit(1)
