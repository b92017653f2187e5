"""Methods outside this process: `dir:`, results that lie in a folder, and `cmd:`, programs in any language."""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluation.methods.errors import Failed
from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.runtime import files, images

FIELDS = ("{image}", "{mask}", "{output}")  # a command line must have all of them


class Folder:
    """Results of another program in a folder, as a method. Raises BadInput as `results_in`.

    names: the file of each pair; None takes the files that are called after the pairs.
    """

    def __init__(self, folder: Path, names: Mapping[str, str] | None = None):
        self.folder, self.names = folder, results_in(folder) if names is None else names
        self.missing = "no {}.png among the results" if names is None else "none of the results is called after {}"

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The result of a pair.

        Raises Failed where there is none or it has another size, BadInput for a file that is not an image.
        """
        if pair not in self.names:
            raise Failed(self.missing.format(pair))
        name = self.names[pair]
        result = images.decode_rgb(_read(self.folder / name), name)  # scores.csv is the same wherever the folder lies
        if result.shape != image.shape:
            sizes = ["{} x {}".format(*array.shape) for array in (result, image)]
            raise Failed(f"{name} is {sizes[0]} px, expected {sizes[1]} as the true image (height x width)")
        return result


def check_folder(folder: Path) -> None:
    """Raise BadInput where a folder of results is missing."""
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected results named after the pairs: 00000.png ...)")


def results_in(folder: Path) -> dict[str, str]:
    """The file names of results in a folder by pair. Raises BadInput if the folder is missing or a pair has two."""
    check_folder(folder)
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise BadInput(f"cannot read {folder}: {error.strerror}") from None
    found = {}
    for name in names:
        if not name.lower().endswith(images.ENDINGS) or files.is_litter(name):
            continue
        pair = unicodedata.normalize("NFC", Path(name).stem)
        if found.setdefault(pair, name) != name:
            raise BadInput(f"{folder} holds {found[pair]} and {name}, two results of one pair: remove one of them")
    return found


def folder_identity(folder: Path, chosen: Mapping[str, str] | None = None) -> dict:
    """The content of a folder of results, wherever it lies, for recipe.json. Raises BadInput as `results_in`.

    chosen: the file of each pair; None takes all results in the folder.
    """
    names = results_in(folder).values() if chosen is None else chosen.values()
    return {"method": "dir", "results": len(names), "pictures": files.sha256_of_files(folder, names)}


class Program:
    """A program as a method. It gets the paths of PNG files: the image, the mask (255 = hole), and its result."""

    def __init__(self, command: str):
        self.words = words_of(command)

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The image that the program writes. Raises Failed where it fails, BadInput where it writes no image."""
        with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
            paths = {name: Path(folder) / f"{name}.png" for name in ("image", "mask", "output")}
            images.write(paths["image"], image)
            paths["mask"].write_bytes(maskset.encode(hole))
            # Only these names are replaced: other braces, as in a JSON argument, stay as they are.
            line = list(self.words)
            for name, value in {**paths, "pair": pair}.items():
                line = [word.replace("{" + name + "}", str(value)) for word in line]
            parent = os.getpid()
            first = (lambda: die_with(parent)) if sys.platform == "linux" else None
            done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=first, check=False)
            lines = done.stderr.decode(errors="replace").replace(f"{folder}{os.sep}", "").strip().splitlines()
            last_line = f": {lines[-1]}" if lines else ""
            if done.returncode:
                raise Failed(f"{line[0]} ended with code {done.returncode}{last_line}")
            if not paths["output"].is_file():
                raise Failed(f"{line[0]} ended with code 0 but wrote no output{last_line}")
            return images.decode_rgb(_read(paths["output"]), f"the output of {line[0]}")


def words_of(command: str) -> list[str]:
    """The words of a command line. Raises BadInput where one of FIELDS or the program is missing."""
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


def program_identity(command: str, folder: Path) -> dict:
    """A command line, and the hash of every file that it names, also after `--weights=`, for recipe.json.

    folder: where the command is started.
    """
    words, found = words_of(command), {}
    for word in words:
        for name in (word, word.partition("=")[2]):
            if name and _is_file(folder / name):
                found[name] = files.sha256(folder / name)
    if words[0] not in found:
        found[words[0]] = files.sha256(Path(shutil.which(words[0])))
    return {"method": "cmd", "command": shlex.join(words), "files": found}


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when the process `parent`, which started it, ends, also by a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failed(f"cannot read {path.name}: {error.strerror}") from None


def _is_file(path):
    """True if a word is the name of a file; many words are not valid file names."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
