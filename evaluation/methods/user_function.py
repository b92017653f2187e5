"""`py:`, a function in a Python file or module of the user's.

It is a function of (image, hole): uint8 (H, W, 3) RGB, black where pixels are missing, and bool (H, W), True where
pixels are missing. It returns uint8 (H, W, 3). One with the attribute `batched = True` gets lists of both and returns a
list.
"""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from evaluation.methods.errors import Failed
from evaluation.methods.plugins import code_hash
from maskgen.errors import BadInput
from maskgen.runtime import files

EXPECTED = "expected py:FILE.py:FUNCTION or py:PACKAGE.MODULE:FUNCTION"
LONGEST = 300  # characters of an error's text


def split(argument: str) -> tuple[str, str]:
    """The file or module, and the name of the function. Raises BadInput where one of them is not valid."""
    where, _, name = argument.rpartition(":")
    if not where or not all(part.isidentifier() for part in name.split(".")):
        example = f"py:{argument}:fill" if argument.endswith(".py") else "py:fill.py:fill"
        raise BadInput(f"py:{argument} names no function: {EXPECTED}, such as {example}")
    if _is_file(where) and not Path(where).is_file():
        raise BadInput(f"no file {where}: {EXPECTED}")
    if not _is_file(where) and not all(part.isidentifier() for part in where.split(".")):
        raise BadInput(f"{where} is neither a file that ends in .py nor the name of a module: {EXPECTED}")
    return where, name


def identity(argument: str, folder: Path) -> dict:
    """The name of the function and the hash of its file, or of its module's package, for recipe.json.

    folder: where relative names are looked up. Raises BadInput where the file or the module is missing.
    """
    where, name = split(argument)
    if _is_file(where):
        return {"method": "py", "name": name, "file": files.sha256(folder / where)}
    with _path_first(folder):
        try:
            code = code_hash(where)
        except Exception as error:  # of a package that is imported to find it
            raise BadInput(f"{where} cannot be imported: {_text(error)}") from None
    if not code:
        raise BadInput(f"no module {where} in this folder or among the installed packages: {EXPECTED}")
    return {"method": "py", "name": f"{where}:{name}", "code": code}


def load(argument: str, folder: Path) -> Callable:
    """The function as one of (pair id, image, hole), with `fill_all` if it takes several images together.

    folder: as for `identity`. Raises BadInput with the line of the user's code where the import fails, and where there
    is no such function.
    """
    where, name = split(argument)
    root = (folder / where).absolute().parent if _is_file(where) else _root_of(where, folder)
    sys.path.insert(0, str(root if _is_file(where) else folder.absolute()))  # its neighbours can be imported
    try:
        module = _module_of_file(folder / where) if _is_file(where) else importlib.import_module(where)
    except Exception as error:
        raise BadInput(f"{where} cannot be imported: {_text(error)}{_line_in(root, error)}") from None
    function = _function_of(module, where, name)
    return (Batched if getattr(function, "batched", False) else Single)(function, root)


class Single:
    """A function that takes one image."""

    def __init__(self, function: Callable, root: Path):
        self.function, self.root = function, root

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The result of a pair. Raises Failed with the line of the user's code where the function raises."""
        return self._call(image, hole)

    def _call(self, *arguments):
        try:
            return self.function(*arguments)
        except Exception as error:
            raise Failed(f"{_text(error)}{_line_in(self.root, error)}") from error


class Batched(Single):
    """A function that takes several images together."""

    def __call__(self, pair: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """As `Single`."""
        return self.fill_all([(pair, image, hole)])[0]

    def fill_all(self, pairs: list[tuple]) -> list[np.ndarray]:
        """The results for [(pair id, image, hole), ...]. Raises Failed where there are more or fewer."""
        _, images, holes = zip(*pairs, strict=True)
        results = self._call(list(images), list(holes))
        count = len(results) if hasattr(results, "__len__") else "no"
        if count != len(pairs):
            raise Failed(f"the function returned {count} images for {len(pairs)}: expected a list of as many")
        return list(results)


def _is_file(where):
    return where.endswith(".py") or "/" in where or os.sep in where


@contextmanager
def _path_first(folder):
    """Look up modules in a folder first while the block runs."""
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))


def _root_of(module, folder):
    """The folder of a module's package, or of the module itself, without importing it."""
    with _path_first(folder):
        spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return folder.absolute()
    return Path(next(iter(spec.submodule_search_locations or ()), None) or Path(spec.origin or folder).parent)


def _module_of_file(path) -> ModuleType:
    """Import a file. Its name in `sys.modules` is no other module's, whatever the file is called."""
    spec = importlib.util.spec_from_file_location(f"py_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _function_of(module, where, name):
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        functions = inspect.getmembers(module, inspect.isfunction)
        own = [key for key, value in functions if value.__module__ == module.__name__ and key[0] != "_"]
        raise BadInput(f"{where} has no function {name}, it has {', '.join(own) or 'none'}: {EXPECTED}")
    if not callable(found) or inspect.isclass(found):
        kind = "a class" if inspect.isclass(found) else f"of type {type(found).__name__}"
        raise BadInput(f"{name} in {where} is {kind}: expected a function of (image, hole)")
    return found


def _text(error):
    """The type and the text of an error, in one line."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}"[:LONGEST].rstrip(": ")


def _line_in(root, error):
    """Which line of the code below a folder an error came from, as " (fill.py, line 3)"; "" if from none of them."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    for name, line in reversed(places):
        path = Path(name)
        if path.is_relative_to(root) and "site-packages" not in path.relative_to(root).parts:
            return f" ({path.relative_to(root)}, line {line})"
    return ""
