"""Methods outside this process: `dir:`, results that lie in a folder, and `cmd:`, programs in any language.

`serve:`, programs that are started once, are in `served`.
"""

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
            paths = write_inputs(folder, image, hole)
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
            return read_output(paths["output"], line[0])


def write_inputs(folder: str, image: np.ndarray, hole: np.ndarray) -> dict[str, Path]:
    """Write image and mask as PNG files for a program. Returns the paths of "image", "mask" and "output"."""
    paths = {name: Path(folder, f"{name}.png") for name in ("image", "mask", "output")}
    images.write(paths["image"], image)
    paths["mask"].write_bytes(maskset.encode(hole))
    return paths


def read_output(path: Path, program: str) -> np.ndarray:
    """The image that a program has written. Raises Failed where there is none, BadInput where it is no image."""
    return images.decode_rgb(_read(path), f"the output of {program}")


def words_of(command: str, prefix: str = "cmd") -> list[str]:
    """The words of a command line. Raises BadInput where the program is missing, and for wrong FIELDS.

    prefix: "cmd", whose line has all FIELDS, or "serve", whose line has none.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadInput(f"{prefix}:{command} cannot be split into words: {error}") from None
    for field in FIELDS:
        given = any(field in word for word in words)
        if prefix == "cmd" and not given:
            raise BadInput(f"cmd:{command} has no {field}: expected cmd:'PROGRAM {{image}} {{mask}} {{output}}'")
        if prefix == "serve" and given:
            raise BadInput(
                f"serve:{command} has {field}, but a served program reads its files' names from stdin: use cmd:"
            )
    if not words or not shutil.which(words[0]):
        name = words[0] if words else "it"
        raise BadInput(f"cannot start {name}: no such program (expected its name on PATH, or its path)")
    return words


def program_identity(command: str, folder: Path, prefix: str = "cmd") -> dict:
    """A command line, and the hash of every file that it names, also after `--weights=`, for recipe.json.

    folder: where the command is started. prefix: as for `words_of`.
    """
    words, found = words_of(command, prefix), {}
    for word in words:
        for name in (word, word.partition("=")[2]):
            if name and is_file(folder / name):
                found[name] = files.sha256(folder / name)
    if words[0] not in found:
        found[words[0]] = files.sha256(Path(shutil.which(words[0])))
    return {"method": prefix, "command": shlex.join(words), "files": found}


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


def is_file(path: Path) -> bool:
    """True if a word is the name of a file; many words are not valid file names."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
