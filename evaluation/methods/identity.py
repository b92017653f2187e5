"""What decides the results of a method: settings, files by content, packages by version, the kind of device.

For recipe.json, under words that a refusal can print. A change of any of it makes another method.
"""

import re
import shlex
import shutil
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from evaluation.methods import doors
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

PACKAGES = {"biharmonic": ("scikit-image", "scipy"), "patchmatch": ("pypatchmatch",)}  # behind a method; else OpenCV
CODE = (".py", ".so", ".pyd")  # endings of the files of a package that compute something


def of_name(name: str) -> dict:
    """A method of our own."""
    return {"method": name, **(library_versions(*PACKAGES[name]) if name in PACKAGES else library_versions("opencv"))}


def of_folder(folder: Path) -> dict:
    """Results in a folder, wherever that lies. Raises BadInput as `doors.results_in`."""
    names = doors.results_in(folder).values()
    return {"method": "dir", "results": len(names), "pictures": files.sha256_of_files(folder, names)}


def of_command(command: str, folder: Path) -> dict:
    """A program, and every file that its command line names: a script, weights, also those after `--weights=`.

    folder: where the command is started.
    """
    words, found = doors.words_of(command), {}
    for word in words:
        for name in (word, word.partition("=")[2]):
            if name and _is_file(folder / name):
                found[name] = files.sha256(folder / name)
    if words[0] not in found:
        found[words[0]] = files.sha256(Path(shutil.which(words[0])))
    return {"method": "cmd", "command": shlex.join(words), "files": found}


def _is_file(path):
    """Whether a word is the name of a file; many are no names at all."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def of_onnx(path: Path) -> dict:
    """A network in an ONNX file. Raises BadInput where it is missing."""
    from evaluation.methods import onnx_model

    return {
        "method": "onnx",
        **onnx_model.hashes(path),
        **library_versions("onnxruntime"),
        "device": onnx_model.device(),
    }


def of_net(net: str, weights: Path | None, how: dict) -> dict:
    """A network of pconv_model. weights: None takes those that ship. Raises BadInput where they are missing."""
    from pconv_model.inpaint import shipped_weights

    weights = weights or shipped_weights(net)
    return {"method": net, "weights": files.sha256(weights), **how, **library_versions("torch"), "device": device()}


def of_rival(net: str, weights: Path | None, how: dict) -> dict:
    """A network of evaluation.methods.nets. Raises BadInput where its weights are missing."""
    from evaluation.methods.nets import run

    found = {name: files.sha256(path) for name, path in run.files_of(net, weights).items()}
    return {"method": net, **found, **how, **library_versions("torch"), "device": device()}


def device() -> str:
    """Where nets run: "cuda" where PyTorch has a graphics card, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def of_plug_in(name: str, point: EntryPoint) -> dict:
    """A method of another package: its version, its code, the versions of what it requires.

    The code, since the files of a package that is installed for editing change and its version does not.
    """
    package = point.dist
    needed = [re.match(r"[\w.-]+", text)[0] for text in package.requires or () if "extra ==" not in text]
    told = {"package": f"{package.name} {package.version}", "requires": library_versions(*sorted(set(needed)))}
    spec = find_spec(point.module.partition(".")[0])
    folders = spec and spec.submodule_search_locations
    if folders:
        told["code"] = files.sha256_of_files(Path(folders[0]), _code_below(Path(folders[0])))
    elif spec and spec.origin:
        told["code"] = files.sha256(Path(spec.origin))
    return {"method": name, **told}


def _code_below(folder):
    return [
        (inner / name).relative_to(folder).as_posix()
        for inner, names, _ in files.walk(folder)
        for name in names
        if name.endswith(CODE)
    ]
