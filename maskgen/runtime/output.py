"""An output folder: one run at a time, all that decides the result in its recipe, resumed where a run stopped.

While a run is unfinished its recipe lies in `.progress`, with whatever the command needs to resume. The last thing a
run writes is `recipe.json`: a folder with one is complete.
"""

import functools
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.files import remove_parts, write_whole

RECIPE = "recipe.json"
PROGRESS = ".progress"  # folder of an unfinished run: its recipe, its journal and what else it needs to resume
LOCK = ".lock"  # in the folder while a run works in it; one that a kill leaves behind locks nobody out
SHOWN = 6  # differences named in a message


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder until the block ends. Raises BadInput at once where another run, of any command, is at work in it.

    The system frees the lock with the process, also after a kill or on another machine of a shared disk. A folder that
    is missing is made, and removed again if the block leaves it empty. The same thread may hold a folder twice.
    """
    folder = folder.resolve()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"another run is at work in {folder}: wait for it, or stop it first") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # Windows keeps an open file, and removes it on release
                (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):  # not empty: the usual case
            for path in missing:
                path.rmdir()


class OutputFolder:
    """A command's output folder, locked and compared with the command's recipe for as long as a `with` block runs.

    path: a new or empty folder, or one in which the same command was interrupted or finished. recipe: all that decides
    the result, JSON values: `made_by`, the command's name, then settings, inputs by content, versions of libraries.
    grows: keys of the recipe whose value is a dict of entries that later runs may add to, as the methods of a
    benchmark; only entries of the same name are compared. rises: keys whose value is a number that later runs may
    raise, such as a number of masks. about: what is written down but not compared, such as the
    names of folders. prepared: files and folders that may be there before a run has any result.

    Entering raises BadInput, which names what differs, where the folder holds results of another recipe, and where it
    holds anything else. A run that ends without a result, for whatever reason, leaves no claim behind.
    """

    def __init__(
        self,
        path: Path,
        recipe: dict,
        *,
        grows: tuple = (),
        rises: tuple = (),
        about: dict | None = None,
        prepared: tuple = (),
    ):
        self.path, self.grows, self.rises, self.prepared = path, grows, rises, {LOCK, *prepared}
        self.new = json.loads(json.dumps({"version": __version__, **recipe}))  # as it will be read back
        self.about = about or {}
        self.complete = False  # a finished run has all that this recipe asks for
        self.finished: dict = {}  # the recipe of the finished run, with its outcome
        self._lock = None

    @property
    def progress(self) -> Path:
        """The folder for what an unfinished run needs; made on entering unless the run is complete already."""
        return self.path / PROGRESS

    @property
    def recipe(self) -> dict:
        """What decides the result, entries of earlier runs included."""
        before = self._before or {}
        return {
            key: {**before.get(key, {}), **value} if key in self.grows else value for key, value in self.new.items()
        }

    @property
    def recipe_file(self) -> Path:
        """A file of the folder that is there while the block runs, by which another machine knows the folder."""
        begun = self.progress / RECIPE
        return begun if begun.exists() else self.path / RECIPE

    @property
    def already(self) -> str:
        """What to tell the user of a complete folder."""
        return f"{self.path} is complete already"

    def __enter__(self) -> "OutputFolder":
        self._lock = locked(self.path)
        self._lock.__enter__()
        try:
            self._open()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def _open(self):
        self._before = None
        done, begun = (_read_own(folder / RECIPE) for folder in (self.path, self.progress))
        if begun is not None and self._differences(begun) and not self._has_results():
            begun = None  # an earlier run was stopped before it had a result
            shutil.rmtree(self.progress, ignore_errors=True)
        if done is None and begun is None and self._is_occupied():
            raise BadInput(
                f"{self.path} is not empty and was not made by `{self.new['made_by']}`: "
                "name a new folder, or empty this one"
            )
        for old in (done, begun):
            if old is not None:
                self._refuse(self._differences(old))
                self._before = old
        remove_parts(self.path)
        if done is not None:
            self.finished = done
            self.complete = not self._lacking(self.new, done)
            if begun is None or not self._lacking(begun, done):
                shutil.rmtree(self.progress, ignore_errors=True)  # a kill came after the recipe was written
        if not self.complete:
            self.reopen()

    def reopen(self) -> None:
        """Make the folder unfinished: for new entries, or for a complete run that is asked for more."""
        self.progress.mkdir(exist_ok=True)
        _write(self.progress / RECIPE, {**self.recipe, **self.about})

    def finish(self, **outcome) -> dict:
        """Write `recipe.json`, which makes the folder complete. Returns the recipe. outcome: counts and the like."""
        recipe = {**self.recipe, **self.about, **outcome}
        _write(self.path / RECIPE, recipe)
        shutil.rmtree(self.progress, ignore_errors=True)
        self.complete, self.finished = True, recipe
        return recipe

    def __exit__(self, kind, error, trace):
        if kind is not None and not self.complete and not self.finished and not self._has_results():
            shutil.rmtree(self.progress, ignore_errors=True)
        self._lock.__exit__(kind, error, trace)

    def _lacking(self, recipe, done):
        """Whether a recipe has entries that a finished one has not, or a larger number."""
        more = any(set(recipe.get(key, {})) - set(done.get(key, {})) for key in self.grows)
        return more or any(recipe.get(key) != done.get(key) for key in self.rises)

    def _is_occupied(self):
        return any(self._results(begun=False))

    def _has_results(self):
        return any(self._results(begun=True))

    def _results(self, *, begun):
        """Files beyond those that are prepared; of a run that has begun, not its recipe and no empty files."""
        for folder, _, names in os.walk(self.path):
            for name in names:
                path = Path(folder, name)
                inside = path.relative_to(self.path)
                if inside.parts[0] in self.prepared or name.endswith(".part"):
                    continue
                if begun and (inside == Path(PROGRESS, RECIPE) or not path.stat().st_size):
                    continue
                yield path

    def _refuse(self, differ):
        if differ:
            more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
            raise BadInput(
                f"{self.path} was begun with other settings ({'; '.join(differ[:SHOWN])}{more}): "
                "name another folder, or delete it"
            )

    def _differences(self, old):
        if old.get("made_by") != self.new["made_by"]:
            return [f"it was made by {old.get('made_by', 'another program')}, not by {self.new['made_by']}"]
        differ = []
        for key, new in self.new.items():
            before = old.get(key)
            if key in self.rises and type(before) is type(new) and before <= new:
                continue
            if key in self.grows and isinstance(before, dict):
                new = {name: entry for name, entry in new.items() if name in before}
                before = {name: before[name] for name in new}
            differ += list(differences(before, new, () if isinstance(new, dict | list) else (key,)))
        return differ


def differences(old, new, where: tuple[str, ...] = ()) -> Iterator[str]:
    """What differs between two JSON values, in words: `seed was 0, is 1`. where: the names that lead to them.

    Lists of dicts with a `name`, such as sources, are compared by that name and not by their order.
    """
    old, new = _by_name(old), _by_name(new)
    if isinstance(new, dict):
        old = old if isinstance(old, dict) else {}
        for key in {**old, **new}:
            here = (*where, str(key))
            if key not in new:
                yield f"{': '.join(here)} is gone"
            elif key not in old:
                yield f"{': '.join(here)} is new"
            else:
                yield from differences(old[key], new[key], here)
    elif old != new or type(old) is not type(new):
        yield f"{': '.join(where)} was {_shown(old)}, is {_shown(new)}"


def _by_name(value):
    if isinstance(value, list) and value and all(isinstance(row, dict) and "name" in row for row in value):
        return {row["name"]: {key: cell for key, cell in row.items() if key != "name"} for row in value}
    return value


def _shown(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_hash else text if len(text) <= 60 else f"{text[:57]}..."


def libraries(*names: str) -> dict[str, str]:
    """The versions of installed packages that compute a result, for a recipe."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def opencv() -> dict[str, str]:
    """The version of OpenCV, whichever of its packages is installed."""
    import cv2

    return {"opencv": cv2.__version__}


def _write(path, recipe):
    write_whole(path, (json.dumps(recipe, indent=2, ensure_ascii=False) + "\n").encode())


def _read_own(path):
    """The recipe in a file, None where there is none. Raises BadInput for one that makes no sense."""
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}): delete the folder, or name another one") from None
    if not isinstance(recipe, dict):
        raise BadInput(f"{path} holds no JSON object: delete the folder, or name another one")
    return recipe


class Journal:
    """Rows of a run, one JSON line each, appended as they come and read back by the run that resumes it.

    path: the file. key: the column by which rows are found again; a later row replaces an earlier one. is_row: tells
    whether a JSON value is a row; from the first line that is none, as a kill may leave it, all are dropped.
    """

    def __init__(self, path: Path, key: str, is_row: Callable[[dict], bool] = lambda row: True):
        self.path, self.rows, self.file = path, {}, None
        self.key, whole = key, 0
        data = path.read_bytes() if path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or not isinstance(row.get(key), str) or not is_row(row):
                break
            self.rows[row[key]] = row
            whole += len(line)
        if whole < len(data):
            os.truncate(path, whole)

    def add(self, row: dict) -> None:
        """Append a row; it is on its way to the disk when this returns."""
        if self.file is None:
            self.file = self.path.open("ab", buffering=0)
        self.file.write(_line(row))
        self.rows[row[self.key]] = row

    def keep(self, wanted: Callable[[dict], bool]) -> None:
        """Drop all other rows."""
        kept = {name: row for name, row in self.rows.items() if wanted(row)}
        if len(kept) < len(self.rows):
            self.rows = kept
            write_whole(self.path, b"".join(map(_line, kept.values())))

    def close(self) -> None:
        """End the writing, if there was any."""
        if self.file:
            self.file.close()
            self.file = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def _line(row):
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def alone(argument: str):
    """Decorate a function so that it holds the folder in one of its arguments, a Path or None, while it runs."""

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args, **named):
            folder = signature.bind(*args, **named).arguments.get(argument)
            if folder is None:
                return function(*args, **named)
            with locked(folder):
                return function(*args, **named)

        return wrapper

    return decorate


def occupied(folder: Path) -> bool:
    """Whether a folder is there and holds anything besides a lock."""
    return folder.exists() and any(path.name != LOCK for path in folder.iterdir())
