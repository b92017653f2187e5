"""Methods of other packages, found by their entry points, and plain Python functions given to `evaluate(...)`."""

import hashlib
import inspect
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.recipe import library_versions

GROUP = "irregular_masks.methods"  # group of the entry points
CODE = (".py", ".so", ".pyd")  # endings of files that hold code


def names() -> set[str]:
    """The names of all installed plug-ins."""
    return set(entry_points(group=GROUP).names)


def entry_point(name: str) -> EntryPoint:
    """The plug-in of a name. Raises BadInput where two packages have one."""
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if len(points) > 1:
        raise BadInput(f"two packages have a method {name}: {' and '.join(points)}: uninstall one")
    return next(iter(points.values()))


def identity(name: str) -> dict:
    """A plug-in's package and version, the hash of its code, the versions of its requirements, for recipe.json.

    The code is hashed because it can change while the version does not, as in an editable install.
    """
    point = entry_point(name)
    package = point.dist
    needed = [re.match(r"[\w.-]+", text)[0] for text in package.requires or () if "extra ==" not in text]
    found = {"package": f"{package.name} {package.version}", "requires": library_versions(*sorted(set(needed)))}
    code = code_hash(point.module)
    return {"method": name, **found, **({"code": code} if code else {})}


def code_hash(module: str) -> str:
    """The hash of the code of a module's whole package, or "" where it has no files."""
    spec = find_spec(module.partition(".")[0])
    folders = spec and spec.submodule_search_locations
    if folders:
        return files.sha256_of_files(Path(folders[0]), _code_files(Path(folders[0])))
    return files.sha256(Path(spec.origin)) if spec and spec.origin else ""


def function_identity(function: Callable) -> dict:
    """The name of a Python function, and the hash of its source where there is one, for recipe.json.

    They describe the function and do not identify it: it may use other functions and data. So its results are never
    taken over from an earlier run.
    """
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    try:
        code = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):  # typed at a prompt, or no function but an object that can be called
        code = ""
    return {"method": "function", "function": name, "code": code}


def _code_files(folder):
    return [
        (inner / name).relative_to(folder).as_posix()
        for inner, names, _ in files.walk(folder)
        for name in names
        if name.endswith(CODE)
    ]
