"""Recipes: JSON files that record all that decides a result, and how two of them differ."""

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole

RECIPE = "recipe.json"


def write_recipe(path: Path, recipe: dict) -> None:
    """Write a recipe file. A name that is not valid Unicode is escaped, and JSON reads it back."""
    write_whole(path, (json.dumps(recipe, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))


def read_recipe(path: Path) -> dict | None:
    """Read a recipe file, None if there is none. Raises BadInput unless it holds a JSON object."""
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}): delete the folder, or choose another one") from None
    if not isinstance(recipe, dict):
        raise BadInput(f"{path} does not hold a JSON object: delete the folder, or choose another one")
    return recipe


def library_versions(*packages: str) -> dict[str, str]:
    """The versions of installed packages that compute a result, for a recipe.

    packages: names on PyPI; "opencv" stands for whichever of OpenCV's packages is installed.
    """
    return {package: _version_of(package) for package in packages}


def _version_of(package):
    if package == "opencv":
        import cv2

        return cv2.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def differences(old, new, where: tuple[str, ...] = ()) -> Iterator[str]:
    """Describe how two JSON values differ, one text per difference: `seed was 0, is 1`.

    Lists of dicts with unique `name`s, such as sources, are compared by name; their order does not matter. where: the
    keys that lead to the values.
    """
    named = _by_name(old), _by_name(new)
    if all(isinstance(value, dict) for value in named):
        old, new = named
        for key in {**old, **new}:
            here = (*where, shown(key))
            if key not in new:
                yield f"{': '.join(here)} is gone"
            elif key not in old:
                yield f"{': '.join(here)} is new"
            else:
                yield from differences(old[key], new[key], here)
    elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):  # as text: True is not 1, and NaN is NaN
        was, now = shown(old), shown(new)
        yield f"{': '.join(where)} {f'was {was}, is {now}' if was != now else 'differs'}"


def _by_name(value):
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        return value
    names = [row.get("name") for row in value]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return value
    return {row["name"]: row for row in value}


def shown(value) -> str:
    """A JSON value as part of one line; hashes and long values are shortened."""
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.isprintable() and value:
        text = value
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_hash else text if len(text) <= 60 else f"{text[:57]}..."
