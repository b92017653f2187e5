"""An output folder: one run at a time, all that decides the result in its recipe, resumed where a run stopped.

While a run is unfinished its recipe lies in `.progress`, with whatever the command needs to resume. The last thing a
run writes is `recipe.json`: a folder with one is complete.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.files import is_litter, remove_parts, write_whole

RECIPE = "recipe.json"
PROGRESS = ".progress"  # folder of an unfinished run: its recipe, its journal and what else it needs to resume
LOCK = ".lock"  # in the folder while a run works in it; one that a kill leaves behind locks nobody out
BEFORE = "results_before"  # in the recipe of an unfinished run: files and bytes there were when it began
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
    raise, such as a number of masks. about: what is written down but not compared, such as the names of folders. notes:
    keys of entries in the recipe's lists that are written down but not compared, such as the licence of a source.
    prepared: files and folders that may be there before a run has any result. made: tells of an entry of `grows`, by
    its name, whether it has a result; one that has none, as it failed, may come back as another. detail: called where
    recipes differ, for words on what the recipe holds as a hash alone.

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
        info: dict | None = None,
        item_info: tuple = (),
        ignored: tuple = (),
        has_result: Callable[[str], bool] | None = None,
        explain: Callable[[], Iterable[str]] = tuple,
    ):
        self.path, self.grows, self.rises = path, grows, rises
        self.item_info, self.ignored = set(item_info), {LOCK, *ignored}
        self.has_result, self.explain = has_result, explain
        self.new = json.loads(json.dumps({"version": __version__, **recipe}))  # as it will be read back
        self.info = info or {}
        self.complete = False  # a finished run has all that this recipe asks for
        self.finished: dict = {}  # the recipe of the finished run, with its outcome
        self._begun: dict = {}  # the recipe of an unfinished run
        self._before = [0, 0]
        self._lock = None

    @property
    def progress(self) -> Path:
        """The folder for what an unfinished run needs; made on entering unless the run is complete already."""
        return self.path / PROGRESS

    @property
    def recipe(self) -> dict:
        """What decides the result, entries of earlier runs included."""
        return self._joined(self.finished, self._begun)

    @property
    def is_new(self) -> bool:
        """No earlier run has left a result in the folder."""
        return not self.finished and not self._begun

    def entries(self, key: str) -> dict:
        """The entries of earlier runs for a key that grows."""
        return {**self.finished.get(key, {}), **self._begun.get(key, {})}

    @property
    def recipe_file(self) -> Path:
        """A file of the folder that is there while the block runs, by which another machine knows the folder."""
        begun = self.progress / RECIPE
        return begun if begun.exists() else self.path / RECIPE

    @property
    def complete_message(self) -> str:
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
        done, begun = (self._without_failed(_read_own(folder / RECIPE)) for folder in (self.path, self.progress))
        failed = False
        if begun is not None and self._differences(begun):
            if self._has_failed(begun, done):
                begun, failed = None, True
            elif not self._has_results(begun.get(BEFORE)):
                begun = None  # an earlier run was stopped before it had a result
                self._remove_progress()
        if done is not None and self._differences(done) and self._has_failed(done):
            done, failed = None, True
        if done is None and begun is None and not failed and self._has_results():
            raise BadInput(
                f"{self.path} is not empty and was not made by `{self.new['made_by']}`: "
                "name a new folder, or empty this one"
            )
        for old in (done, begun):
            if old is not None:
                self._refuse(old)
        remove_parts(self.path)
        self.finished, self._begun = done or {}, begun or {}
        if done is not None:
            self.complete = not self._lacking(self.new, done)
            if begun is None or not self._lacking(begun, done):
                self._remove_progress()  # a kill came after the recipe was written
                self._begun = {}
        if not self.complete:
            self.reopen()
            if done is None:  # but for one of a run that had failed as a whole
                (self.path / RECIPE).unlink(missing_ok=True)

    def reopen(self) -> None:
        """Make the folder unfinished: for new entries, or for a complete run that is asked for more."""
        self.progress.mkdir(exist_ok=True)
        self._before = self._begun.get(BEFORE, [0, 0]) if self._begun else self._results()
        _write(self.progress / RECIPE, {**self.recipe, **self.info, BEFORE: self._before})

    def finish(self, **outcome) -> dict:
        """Write `recipe.json`, which makes the folder complete. Returns the recipe. outcome: counts and the like."""
        recipe = {**self._joined(self.finished), **self.info, **outcome}
        _write(self.path / RECIPE, recipe)
        if not self._lacking(self._begun, recipe):  # else entries of another run wait to be resumed
            self._remove_progress()
        self.complete, self.finished = True, recipe
        return recipe

    def discard(self) -> None:
        """Give up the claim on the folder after a run that came to nothing: the next one may have another recipe."""
        shutil.rmtree(self.progress, ignore_errors=True)

    def __exit__(self, kind, error, trace):
        try:
            known = self.finished or self._before == [0, 0]  # else there are files of a run that had failed
            if kind and known and not self.complete and not self._begun and not self._has_results(self._before):
                self._remove_progress()
        finally:
            self._lock.__exit__(kind, error, trace)

    def _remove_progress(self):
        """Remove the folder of an unfinished run, its recipe last: a kill must not leave a journal without one."""
        with suppress(OSError):
            for path in self.progress.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != RECIPE:
                    path.unlink()
            shutil.rmtree(self.progress)

    def _joined(self, *recipes):
        """The new recipe, with the entries of others."""
        joined = dict(self.new)
        for key in self.grows:
            joined[key] = {name: entry for old in (*recipes, self.new) for name, entry in old.get(key, {}).items()}
        return joined

    def _lacking(self, recipe, done):
        """Whether a recipe has entries that a finished one has not, or a larger number."""
        more = any(set(recipe.get(key, {})) - set(done.get(key, {})) for key in self.grows)
        return more or any(recipe.get(key, 0) > done.get(key, 0) for key in self.rises)

    def _results(self) -> list[int]:
        """How many files that are not empty the folder holds, and their bytes, beyond what is prepared, and litter."""
        number = size = 0
        for folder, _, names in os.walk(self.path):
            inside = Path(folder).relative_to(self.path).parts
            for name in names:
                top = (*inside, name)[0]
                if top in self.ignored or (top != PROGRESS and is_litter(top)) or name.endswith(".part"):
                    continue
                path, length = Path(folder, name), 0
                with suppress(FileNotFoundError):  # a part, renamed meanwhile by a thread or a worker
                    length = path.lstat().st_size
                if length and path != self.progress / RECIPE:
                    number, size = number + 1, size + length
        return [number, size]

    def _has_results(self, before=None):
        """Whether there is more, or other, than there was before a run. before: as `_results` gives it."""
        return self._results() != (before or [0, 0])

    def _tells_made(self, recipe):
        """Whether `made` speaks of a recipe's entries."""
        same = self.has_result is not None and recipe.get("made_by") == self.new["made_by"]
        return same and all(isinstance(recipe.get(key), dict) for key in self.grows)

    def _without_failed(self, recipe):
        """A recipe without the entries that have no result."""
        if recipe is None or not self._tells_made(recipe):
            return recipe
        made = {
            key: {name: entry for name, entry in recipe[key].items() if self.has_result(name)} for key in self.grows
        }
        return {**recipe, **made}

    def _has_failed(self, recipe, done=None):
        """Whether none of a recipe's entries has a result, but for those of the finished run."""
        return self._tells_made(recipe) and not self._lacking(recipe, done or {})

    def _refuse(self, old):
        if differ := self._differences(old):
            if old.get("made_by") == self.new["made_by"]:
                differ += self.explain()
            more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
            raise BadInput(
                f"{self.path} was begun with other settings ({'; '.join(differ[:SHOWN])}{more}): "
                "name another folder, or delete it"
            )

    def _differences(self, old):
        if old.get("made_by") != self.new["made_by"]:
            return [f"it was made by {_shown(old.get('made_by', 'another program'))}, not by {self.new['made_by']}"]
        differ = []
        for key, new in self.new.items():
            before = old.get(key)
            if key in self.rises and type(before) is type(new) and before <= new:
                continue
            if key in self.grows and isinstance(before, dict):
                new = {name: entry for name, entry in new.items() if name in before}
                before = {name: before[name] for name in new}
            before, new = (_without(self.item_info, value) for value in (before, new))
            where = () if key == "settings" and isinstance(before, dict) else (key,)
            differ += differences(before, new, where) if key in old else [f"{key} is new"]
        return differ


def check_finished(folder: Path) -> None:
    """Raise BadInput where a folder, or the one it lies in, is the output of a run that has not finished."""
    for place in (folder, folder.absolute().parent):
        if (place / PROGRESS).is_dir() and not (place / RECIPE).exists():
            command = (_read_own(place / PROGRESS / RECIPE) or {}).get("made_by", "maskgen")
            raise BadInput(f"{place} is unfinished: finish it first, by the same `{command}` command that began it")


def differences(old, new, where: tuple[str, ...] = ()) -> Iterator[str]:
    """What differs between two JSON values, in words: `seed was 0, is 1`. where: the names that lead to them.

    Lists of dicts with a `name` of their own, such as sources, are compared by that name and not by their order.
    """
    named = _by_name(old), _by_name(new)
    if all(isinstance(value, dict) for value in named):
        old, new = named
        for key in {**old, **new}:
            here = (*where, _shown(key))
            if key not in new:
                yield f"{': '.join(here)} is gone"
            elif key not in old:
                yield f"{': '.join(here)} is new"
            else:
                yield from differences(old[key], new[key], here)
    elif json.dumps(old, sort_keys=True) != json.dumps(new, sort_keys=True):  # as text: True is not 1, and NaN is NaN
        was, now = _shown(old), _shown(new)
        yield f"{': '.join(where)} {f'was {was}, is {now}' if was != now else 'differs'}"


def _without(keys, value):
    if keys and isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return [{key: cell for key, cell in row.items() if key not in keys} for row in value]
    return value


def _by_name(value):
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        return value
    names = [row.get("name") for row in value]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return value
    return {row["name"]: {key: cell for key, cell in row.items() if key != "name"} for row in value}


def _shown(value):
    """A JSON value as part of one line."""
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.isprintable() and value:
        text = value
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_hash else text if len(text) <= 60 else f"{text[:57]}..."


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


def _write(path, recipe):
    # A name that is no valid Unicode becomes \\udcff, which JSON reads back.
    write_whole(path, (json.dumps(recipe, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace"))


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
        line = _line(row)
        while line:  # a disk that is nearly full takes part of it, and refuses the rest
            line = line[self.file.write(line) :]
        self.rows[row[self.key]] = row

    def keep(self, wanted: Callable[[dict], bool]) -> None:
        """Drop all other rows."""
        kept = {name: row for name, row in self.rows.items() if wanted(row)}
        if len(kept) < len(self.rows):
            self.close()
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
    return (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
