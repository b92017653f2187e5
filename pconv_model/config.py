"""Reader of TOML files with training settings: files of the user, and the recipes that ship."""

import difflib
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

from maskgen.errors import BadInput
from pconv_model.settings import Settings

RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that ship, such as "leg01"."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def find_config(name: str) -> Path:
    """Path of a settings file, given by its path or by the name of a recipe that ships. BadInput if there is none."""
    if Path(name).is_file():
        return Path(name)
    if name in recipe_names():
        return RECIPES / f"{name}.toml"
    recipes = recipe_names()
    expected = f"a TOML file or one of {', '.join(recipes)}"
    raise BadInput(f"--config: no settings file {name!r}{_suggestion(name, recipes)}; expected {expected}")


def read_config(path: Path) -> Settings:
    """Read a TOML file with the tables [net], [loss] and [train].

    The keys are the fields of NetConfig, LossConfig and TrainConfig; those left out keep their defaults. Raises
    BadInput, which names the file and the key, for an unknown key, a wrong type or a value that is not allowed.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # tomllib's and the decoder's errors are ValueErrors
        raise BadInput(f"{path} is not a TOML file that can be read: {error}") from None
    settings = Settings()
    for name, values in tables.items():
        settings = replace(settings, **{name: _read_table(path, name, values)})
    return settings


def _read_table(path, table, values):
    """NetConfig, LossConfig or TrainConfig with the values of one table."""
    known = {name: list(group) for name, group in asdict(Settings()).items()}
    if table not in known:
        raise BadInput(
            f"{path}: unknown table or key {table!r}{_suggestion(table, known, known)}; expected the tables "
            f"{', '.join(f'[{name}]' for name in known)}"
        )
    if not isinstance(values, dict):
        raise BadInput(f"{path}: {table} is a table of settings, got {values!r}; write [{table}] above its keys")
    for key in values:
        if key not in known[table]:
            allowed = f"expected one of {', '.join(known[table])}"
            raise BadInput(f"{path}: [{table}] has no key {key!r}{_suggestion(key, known[table], known)}; {allowed}")
    defaults = getattr(Settings(), table)
    try:
        return replace(defaults, **{key: _converted(value, getattr(defaults, key)) for key, value in values.items()})
    except BadInput as error:
        raise BadInput(f"{path}: [{table}] {error}") from None


def _converted(value, default):
    """A TOML value with tuples for lists, and floats for whole numbers where the default is a float."""
    if isinstance(value, list):
        first = default[0] if isinstance(default, tuple) and default else None
        return tuple(_converted(part, first) for part in value)
    return float(value) if isinstance(default, float) and type(value) is int else value


def _suggestion(key, names, known=()):
    """A hint in brackets: the table that has the key, or the nearest name; "" if there is neither."""
    for table in known:
        if key in known[table]:
            return f" (it belongs in [{table}])"
    near = difflib.get_close_matches(key, names, 1)
    return f" (did you mean {near[0]}?)" if near else ""
