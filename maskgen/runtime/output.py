"""An output folder: one run at a time, all that decides the result in its recipe, resumed where a run stopped.

While a run is unfinished, its recipe lies in the folder `.progress`, with whatever the command needs to resume. The
last thing a run writes is `recipe.json`: a folder that has one is complete.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.files import is_litter, remove_parts
from maskgen.runtime.lock import LOCK, locked
from maskgen.runtime.recipe import RECIPE, differences, read_recipe, shown, write_recipe

PROGRESS = ".progress"  # folder of an unfinished run: its recipe, its journal and whatever else it needs to resume
BEFORE = "results_before"  # key in the recipe of an unfinished run: number of files and bytes when it started
MAX_SHOWN = 6  # differences listed in a message


class OutputFolder:
    """A command's output folder, locked and compared with the command's recipe while a `with` block runs.

    path: a new or empty folder, or one in which the same command was interrupted or finished.
    recipe: all that decides the result, as JSON values: `made_by` (the command's name), settings, hashes of the inputs,
        versions of libraries.
    grows: keys of the recipe whose value is a dict to which later runs may add entries, such as the methods of a
        benchmark; only entries with the same name are compared.
    rises: keys whose value is a number that later runs may raise, such as the number of masks.
    info: recorded in the recipe but not compared, such as names of folders.
    item_info: keys of the items in the recipe's lists that are recorded but not compared, such as a source's licence.
    ignored: files and folders that do not count as results.
    has_result: whether an entry of `grows`, given its name, has a result; a failed entry may be replaced by another.
    explain: called where recipes differ, for details on what the recipe holds only as a hash.

    Entering raises BadInput, naming the differences, if the folder holds results of another recipe, and if it holds
    other files. A run that ends without any result leaves the folder free for another recipe.
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
        self.info, self.item_info, self.ignored = info or {}, set(item_info), {LOCK, *ignored}
        self.has_result, self.explain = has_result, explain
        self.complete = False  # a finished run has all that this recipe asks for
        self.finished: dict = {}  # the recipe of the finished run, with its outcome
        self._new = json.loads(json.dumps({"version": __version__, **recipe}))  # as it will be read back
        self._unfinished: dict = {}  # the recipe of an unfinished run
        self._before = [0, 0]
        self._lock = None

    @property
    def progress(self) -> Path:
        """The folder for what an unfinished run needs; created on entering unless the run is already complete."""
        return self.path / PROGRESS

    @property
    def recipe(self) -> dict:
        """All that decides the result, including the entries of earlier runs."""
        return self._merged(self.finished, self._unfinished)

    @property
    def is_new(self) -> bool:
        """True if no earlier run has left a result in the folder."""
        return not self.finished and not self._unfinished

    def entries(self, key: str) -> dict:
        """The entries of earlier runs under a key of `grows`."""
        return {**self.finished.get(key, {}), **self._unfinished.get(key, {})}

    @property
    def recipe_file(self) -> Path:
        """A file that exists while the block runs, by which another machine can recognise the folder."""
        unfinished = self.progress / RECIPE
        return unfinished if unfinished.exists() else self.path / RECIPE

    @property
    def complete_message(self) -> str:
        """The line for the user if the folder is complete."""
        return f"{self.path} is already complete"

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
        finished = self._without_failed(read_recipe(self.path / RECIPE))
        unfinished = self._without_failed(read_recipe(self.progress / RECIPE))
        failed = False
        if unfinished is not None and self._differences(unfinished):
            if self._all_failed(unfinished, finished):
                unfinished, failed = None, True
            elif not self._has_results(unfinished.get(BEFORE)):
                unfinished = None  # an earlier run was stopped before it had a result
                self._remove_progress()
        if finished is not None and self._differences(finished) and self._all_failed(finished):
            finished, failed = None, True
        if finished is None and unfinished is None and not failed and self._has_results():
            raise BadInput(
                f"{self.path} is not empty and was not made by `{self._new['made_by']}`: "
                "choose a new folder, or empty this one"
            )
        for old in (finished, unfinished):
            if old is not None:
                self._refuse_other(old)
        remove_parts(self.path)
        self.finished, self._unfinished = finished or {}, unfinished or {}
        if finished is not None:
            self.complete = not self._has_more(self._new, finished)
            if unfinished is None or not self._has_more(unfinished, finished):
                self._remove_progress()  # the run was killed after it had written the recipe
                self._unfinished = {}
        if not self.complete:
            self.reopen()
            if finished is None:  # there is a recipe only if all entries of a finished run had failed
                (self.path / RECIPE).unlink(missing_ok=True)

    def reopen(self) -> None:
        """Mark the folder as unfinished again, for new entries or because a complete run is asked for more."""
        self.progress.mkdir(exist_ok=True)
        self._before = self._unfinished.get(BEFORE, [0, 0]) if self._unfinished else self._count_results()
        write_recipe(self.progress / RECIPE, {**self.recipe, **self.info, BEFORE: self._before})

    def finish(self, **outcome) -> dict:
        """Write `recipe.json`, which makes the folder complete. Returns the recipe. outcome: such as counts."""
        recipe = {**self._merged(self.finished), **self.info, **outcome}
        write_recipe(self.path / RECIPE, recipe)
        if not self._has_more(self._unfinished, recipe):  # otherwise entries of another run wait to be resumed
            self._remove_progress()
        self.complete, self.finished = True, recipe
        return recipe

    def discard(self) -> None:
        """Leave the folder free for another recipe, after a run without any result."""
        shutil.rmtree(self.progress, ignore_errors=True)

    def __exit__(self, kind, error, trace):
        try:
            known = self.finished or self._before == [0, 0]  # otherwise there are files of a run that had failed
            if kind and known and not self.complete and not self._unfinished and not self._has_results(self._before):
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

    def _merged(self, *recipes):
        """The new recipe with the entries of others."""
        merged = dict(self._new)
        for key in self.grows:
            merged[key] = {name: entry for old in (*recipes, self._new) for name, entry in old.get(key, {}).items()}
        return merged

    def _has_more(self, recipe, finished):
        """Whether a recipe has entries that the finished one lacks, or a larger number."""
        more = any(set(recipe.get(key, {})) - set(finished.get(key, {})) for key in self.grows)
        return more or any(recipe.get(key, 0) > finished.get(key, 0) for key in self.rises)

    def _count_results(self) -> list[int]:
        """[number of files that are not empty, their bytes]; ignored, system and temporary files do not count."""
        number = size = 0
        for folder, _, names in os.walk(self.path):
            inside = Path(folder).relative_to(self.path).parts
            for name in names:
                top = (*inside, name)[0]
                if top in self.ignored or (top != PROGRESS and is_litter(top)) or name.endswith(".part"):
                    continue
                path, length = Path(folder, name), 0
                with suppress(FileNotFoundError):  # a temporary file, renamed meanwhile by a thread or a worker
                    length = path.lstat().st_size
                if length and path != self.progress / RECIPE:
                    number, size = number + 1, size + length
        return [number, size]

    def _has_results(self, before=None):
        """Whether the results differ from those before a run. before: as `_count_results` returns it."""
        return self._count_results() != (before or [0, 0])

    def _knows_failed(self, recipe):
        """Whether `has_result` can judge the entries of a recipe."""
        same = self.has_result is not None and recipe.get("made_by") == self._new["made_by"]
        return same and all(isinstance(recipe.get(key), dict) for key in self.grows)

    def _without_failed(self, recipe):
        """A recipe without the entries that have no result."""
        if recipe is None or not self._knows_failed(recipe):
            return recipe
        entries = {key: {name: e for name, e in recipe[key].items() if self.has_result(name)} for key in self.grows}
        return {**recipe, **entries}

    def _all_failed(self, recipe, finished=None):
        """Whether no entry of a recipe has a result, apart from those of the finished run."""
        return self._knows_failed(recipe) and not self._has_more(recipe, finished or {})

    def _refuse_other(self, old):
        """Raise BadInput if an earlier recipe differs from this one."""
        if differ := self._differences(old):
            if old.get("made_by") == self._new["made_by"]:
                differ += self.explain()
            more = f"; and {len(differ) - MAX_SHOWN} more" if len(differ) > MAX_SHOWN else ""
            raise BadInput(
                f"{self.path} was created with other settings ({'; '.join(differ[:MAX_SHOWN])}{more}): "
                "choose another folder, or delete it"
            )

    def _differences(self, old):
        if old.get("made_by") != self._new["made_by"]:
            return [f"it was made by {shown(old.get('made_by', 'another program'))}, not by {self._new['made_by']}"]
        differ = []
        for key, new in self._new.items():
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


def _without(keys, value):
    """A list of dicts without some keys; any other value as it is."""
    if keys and isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return [{key: cell for key, cell in row.items() if key not in keys} for row in value]
    return value


def check_finished(folder: Path) -> None:
    """Raise BadInput if a folder, or the folder it lies in, is the output of an unfinished run."""
    for place in (folder, folder.absolute().parent):
        if (place / PROGRESS).is_dir() and not (place / RECIPE).exists():
            command = (read_recipe(place / PROGRESS / RECIPE) or {}).get("made_by", "maskgen")
            raise BadInput(f"{place} is unfinished: finish it first with the same `{command}` command")
