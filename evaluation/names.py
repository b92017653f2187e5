"""Match files of several folders by their names, as programs for inpainting write them.

A file is known by its path below the folder, without the ending. Names are compared in Unicode's form NFC.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maskgen.errors import BadInput
from maskgen.runtime import images

COMMON = "{}"  # in a path: the part of the names that an image, its mask and its result share
SEPARATORS = "_-. "
WORDS = {  # before or after the common part of a name, what a file is
    "truth": "gt|truth|target|original|orig|raw|input|image|img|source|src|real",
    "mask": r"masks?\d*|holes?",
    "result": "output|out|result|res|prediction|pred|inpainted|inpainting|inpaint|completed|comp|filled|fake",
}
TRIED = 20  # files from which a rule is guessed, for a message


@dataclass(frozen=True)
class Files:
    """Picture files in a folder: key -> path below the folder. The key is that path without its ending, in NFC."""

    folder: Path
    names: dict[str, str]
    where: str  # as the user wrote it

    def without(self, others: Iterable["Files"]) -> "Files":
        """Those that are not among other files."""
        taken = {(other.folder / name).resolve() for other in others for name in other.names.values()}
        kept = {key: name for key, name in self.names.items() if (self.folder / name).resolve() not in taken}
        return Files(self.folder, kept, self.where)

    def only(self, *roles: str) -> "Files":
        """Those whose names say that they are of one of the roles, "" for names that say nothing."""
        return Files(self.folder, {key: name for key, name in self.names.items() if role_of(key) in roles}, self.where)


def list_files(path: Path, kind: str, *, exclude: Iterable[Path] = ()) -> Files:
    """The pictures at a path: a file, a folder, or a folder and a name with COMMON, such as `results/{}_out.png`.

    With COMMON, the key of a file is what stands in its place. exclude: folders below that are left out. kind: what a
    picture is called in messages. Raises BadInput where nothing is found, and where two files have one key.
    """
    if path.is_file():
        return Files(path.parent, {key_of(path.name): path.name}, str(path))
    folder, pattern = folder_of(path), None
    if folder != path:
        pattern = path.relative_to(folder).as_posix()
        if pattern.count(COMMON) != 1:
            raise BadInput(f"{path}: expected {COMMON} once, for the part of the names that is common to all folders")
    found: dict[str, str] = {}
    below = [other for other in exclude if other.resolve().is_relative_to(folder.resolve())]
    for file in images.find(folder, exclude=below, kind=kind):
        name = file.relative_to(folder).as_posix()
        key = key_of(name) if pattern is None else _filled_in(pattern, name)
        if key is None:
            continue
        other = found.setdefault(key, name)
        if other != name:
            ending = PurePosixPath(name).suffix
            raise BadInput(
                f"{folder} holds {other} and {name}, two files of one name: remove one, or choose by the ending, "
                f"'{folder / COMMON}{ending}'"
            )
    if not found:
        raise BadInput(f"no {kind} in {folder} is called {pattern}")
    return Files(folder, found, str(path))


def folder_of(path: Path) -> Path:
    """The folder of a path that may have COMMON in its later parts, else the path itself."""
    parts = [i for i, part in enumerate(path.parts) if COMMON in part]
    return Path(*path.parts[: parts[0]]) if parts else path


def key_of(name: str) -> str:
    """The path of a file without its ending, in NFC."""
    path = PurePosixPath(name)
    known = path.suffix.lower() in images.ENDINGS
    return unicodedata.normalize("NFC", str(path.with_suffix("") if known else path))


def _filled_in(pattern, name):
    """What stands for COMMON in a name, None if the name does not follow the pattern."""
    pattern, name = unicodedata.normalize("NFC", pattern), unicodedata.normalize("NFC", name)
    if PurePosixPath(pattern).suffix.lower() not in images.ENDINGS:
        name = key_of(name)
    before, _, after = pattern.partition(COMMON)
    fits = len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after)
    return name[len(before) : len(name) - len(after)] if fits else None


def role_of(key: str) -> str:
    """What a name says that its file is: "truth", "mask", "result", or "" if it says nothing."""
    return _split(key)[0]


def core_of(key: str) -> str:
    """A name without the word that says what its file is: `faces/0001_mask` -> `faces/0001`."""
    return _split(key)[1]


def _split(key):
    """(role, core) of a key; a word at the end of the name counts more than one at its beginning."""
    folder, slash, stem = key.rpartition("/")
    between = f"[{re.escape(SEPARATORS)}]+"
    for form in (f"(?P<core>.+?){between}(?:%s)", f"(?:%s){between}(?P<core>.+)"):
        for role, words in WORDS.items():
            if found := re.fullmatch(form % words, stem, re.IGNORECASE):
                return role, f"{folder}{slash}{found['core']}"
    return "", key


def by_name(keys: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """Target of each key that has one: the same path, or the same name in any folder if only one target has it."""
    return _equal(keys, targets, lambda key: key)


def by_core(keys: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """As `by_name`, without the words that say what a file is: `0001_out` belongs to `0001_input`."""
    return _equal(keys, targets, core_of)


def by_start(keys: Iterable[str], targets: Iterable[str]) -> dict[str, str]:
    """Target with which a key begins, followed by a separator, the longest: `0001_mat` belongs to `0001`."""
    targets, found = list(targets), {}
    lookup = {**_lookup(targets, core_of), **_lookup(targets, lambda key: key)}
    for key in keys:
        starts = [key[:i] for i, letter in enumerate(key) if letter in SEPARATORS and i > key.rfind("/") + 1]
        targets_of_starts = (lookup.get(start) or lookup.get(start.rpartition("/")[2]) for start in reversed(starts))
        if target := next(filter(None, targets_of_starts), None):
            found[key] = target
    return found


RULES: tuple[Callable, ...] = (by_name, by_core, by_start)


def _equal(keys, targets, form):
    lookup = _lookup(targets, form)
    found = {}
    for key in keys:
        path = form(key)
        target = lookup.get(path) or lookup.get(path.rpartition("/")[2])
        if target:
            found[key] = target
    return found


def _lookup(targets, form):
    """The target of a form of its path, and of its name alone; None where two targets share it."""
    paths, names = {}, {}
    for target in targets:
        path = form(target)
        for table, text in ((paths, path), (names, path.rpartition("/")[2])):
            table[text] = None if text in table and table[text] != target else target
    return {**names, **paths}


def best_match(keys: Iterable[str], choices: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Match files to pairs (or masks to images) by the rule that finds most: pair -> keys of its files.

    choices: for each kind of name that a pair has, target name -> pair. The first rule wins where several find as much.
    """
    keys, choices, best = list(keys), list(choices), {}
    for rule in RULES:
        for choice in choices:
            found: dict[str, list[str]] = {}
            for key, target in rule(keys, choice).items():
                found.setdefault(choice[target], []).append(key)
            if len(found) > len(best):
                best = found
    return best


def of_role(keys: list[str], role: str) -> list[str]:
    """The keys whose name says the role if there are any, else those that say nothing, else all."""
    for wanted in (role, ""):
        kept = [key for key in keys if role_of(key) == wanted]
        if kept:
            return kept
    return keys


def guessed_patterns(files: Files, targets: Iterable[str]) -> tuple[int, str, str]:
    """Forms of the names with COMMON by which most files would belong to a target.

    Returns how many would, the path for the files, and the form for the targets; (0, "", "") where none would.
    """
    targets, best = list(targets), (0, "", "")
    for key in list(files.names)[:TRIED]:
        for target in targets[:TRIED]:
            match = difflib.SequenceMatcher(None, key, target, autojunk=False).find_longest_match()
            text = key[match.a : match.a + match.size]
            if not any(letter.isalnum() for letter in text):
                continue
            own, other = pattern_of(key, text), pattern_of(target, text)
            wanted = {_filled_in(other, each) for each in targets} - {None}
            count = len({_filled_in(own, each) for each in files.names} & wanted)
            if count > best[0]:
                ending = PurePosixPath(files.names[key]).suffix
                known = COMMON in files.where
                best = count, files.where.replace(COMMON, own) if known else f"{files.folder / own}{ending}", other
    return best


def pattern_of(name: str, common: str) -> str:
    """A name with COMMON in the place of a part of it."""
    before, _, after = name.partition(common)
    return f"{before}{COMMON}{after}"
