"""Output folders: locked, compared with their recipe, resumed, and intact after a kill."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from films import write_video

import cli
from maskgen.errors import BadInput
from maskgen.runtime import output
from maskgen.runtime.journal import Journal
from maskgen.runtime.lock import LOCK, locked
from maskgen.runtime.output import BEFORE, PROGRESS, OutputFolder, check_finished
from maskgen.runtime.recipe import RECIPE, differences, library_versions, shown, write_recipe

ROOT = Path(__file__).parents[1]
HOLD = "import sys, time, pathlib; from maskgen.runtime.lock import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def locked_by_other(tmp_path):
    """A folder that another process has locked, and that process."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], cwd=ROOT, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    yield tmp_path / "out", other
    other.kill()
    other.wait()
    other.stdout.close()


def test_a_second_run_is_refused_at_once(locked_by_other):
    folder, _ = locked_by_other
    with pytest.raises(BadInput, match=f"another run is using {folder}"), locked(folder):
        pass


def test_the_lock_file_of_a_killed_run_does_not_block(locked_by_other):
    folder, other = locked_by_other
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (folder / LOCK).exists()
    with locked(folder):
        assert (folder / LOCK).exists()
    assert not (folder / LOCK).exists()


def test_a_lock_leaves_no_file_and_no_empty_folder(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [LOCK]
    assert not list(tmp_path.iterdir())
    with locked(tmp_path / "a"):
        (tmp_path / "a" / "made.txt").write_text("kept")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["made.txt"]


def test_a_thread_may_lock_a_folder_twice_and_another_thread_may_not(tmp_path):
    refused = []

    def elsewhere():
        try:
            with locked(tmp_path):
                pass
        except BadInput as error:
            refused.append(str(error))

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        assert (tmp_path / LOCK).exists()  # the inner one did not free it
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(refused) == 1 and not list(tmp_path.iterdir())


def test_info_in_items_of_a_recipe_is_updated_and_not_compared(tmp_path):
    def recipe(licence, seed=0):
        return {"made_by": "a test", "seed": seed, "sources": [{"name": "film", "sha256": "1", "licence": licence}]}

    with OutputFolder(tmp_path, recipe("MIT"), item_info=("licence",)) as folder:
        folder.finish(count=1)
    with OutputFolder(tmp_path, recipe("CC0"), item_info=("licence",)) as folder:
        assert folder.complete and folder.finish(count=1)["sources"][0]["licence"] == "CC0"
    with (
        pytest.raises(BadInput, match="seed was 0, is 1"),
        OutputFolder(tmp_path, recipe("CC0", 1), item_info=("licence",)),
    ):
        pass
    with pytest.raises(BadInput, match="film: licence was CC0, is MIT"), OutputFolder(tmp_path, recipe("MIT")):
        pass


def test_a_discarded_run_leaves_the_folder_free_for_another_recipe(tmp_path):
    with OutputFolder(tmp_path / "out", {"made_by": "a test", "seed": 0}) as folder:
        (folder.progress / "tried.txt").write_text("nothing came of it")
        folder.discard()
    with OutputFolder(tmp_path / "out", {"made_by": "a test", "seed": 1}) as folder:
        assert not folder.complete
        folder.finish()
        assert folder.complete
        folder.discard()  # nothing is left of the run
    assert (tmp_path / "out" / RECIPE).exists()


class Stop(Exception):
    """Interrupts a run."""


def begin(path, seed=0, **recipe):
    """An output folder of the command `tool draw`."""
    how = {name: recipe.pop(name) for name in ("grows", "rises", "info", "ignored") if name in recipe}
    return OutputFolder(path, {"made_by": "tool draw", "settings": {"seed": seed}, **recipe}, **how)


def interrupted(folder, *results):
    """Do a run that writes some results and is interrupted."""
    with pytest.raises(Stop), folder:
        for name in results:
            (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / name).write_text(name)
        raise Stop


def finished(folder, *results, **outcome):
    """Do a run that completes."""
    with folder:
        for name in results:
            (folder.path / name).write_text(name)
        return folder.finish(**outcome)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


KILLED = """
import os, pathlib, signal, sys
from maskgen.runtime.output import OutputFolder
path, result, *method = sys.argv[1:]
recipe = {"made_by": "tool draw", "settings": {"seed": 0}}
more = {"methods": {method[0]: {"file": method[1]}}} if method else {}
with OutputFolder(pathlib.Path(path), recipe | more, grows=("methods",) * bool(method)) as folder:
    (folder.progress / "made.jsonl").touch()
    if result:
        (folder.path / result).write_text("made")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(path, result="", *method):
    """Do a run of `begin(path)` in another process, killed before or after it has a result."""
    done = subprocess.run([sys.executable, "-c", KILLED, path, result, *method], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and (path / PROGRESS / RECIPE).exists()


@pytest.mark.parametrize("end", [interrupted, finished])
def test_other_settings_are_refused_and_named(tmp_path, end):
    was = {"sources": [{"name": "b.mp4", "sha256": "b" * 64}, {"name": "a.mp4", "sha256": "a" * 64}]}
    now = {"sources": [{"name": "a.mp4", "sha256": "a" * 63 + "c"}, {"name": "c.mp4", "sha256": "b" * 64}]}
    more = {"libraries": {"opencv": "5.0.0"}, "weights": {"net": {"sha256": "1" * 64}}}
    end(begin(tmp_path / "out", **was, **more, title="old"), "0.png")
    more = {"libraries": {"opencv": "5.0.1"}, "weights": {"net": {"sha256": "2" * 64}}}
    with pytest.raises(BadInput) as refused, begin(tmp_path / "out", 1, **now, **more, title=""):
        pass
    why = str(refused.value)
    for words in (
        "was created with other settings (seed was 0, is 1; ",
        "sources: b.mp4 is gone; sources: a.mp4: sha256 differs; sources: c.mp4 is new",
        "libraries: opencv was 5.0.0, is 5.0.1",
        "; and 1 more): choose another folder, or delete it",
    ):
        assert words in why
    with begin(
        tmp_path / "out",
        **{**was, "sources": was["sources"][::-1]},
        libraries={"opencv": "5.0.0"},
        weights={"net": {"sha256": "1" * 64}},
        title="old",
    ) as folder:  # the order of sources decides nothing
        assert folder.complete == (end is finished)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a" * 64, "b" * 64, ["x was aaaaaaaaaaaa, is bbbbbbbbbbbb"]),
        ([1, 2], [1, 3], ["x was [1, 2], is [1, 3]"]),
        (1, True, ["x was 1, is true"]),
        ("1", 1, ["x differs"]),
        ("", "two\nlines", ['x was "", is "two\\nlines"']),
        ("long " * 30 + "a", "long " * 30 + "b", ["x differs"]),
        (float("nan"), float("nan"), []),
        ([], [{"name": "a"}], ["x: a is new"]),
        ([{"name": "a"}, {"name": "a"}], [{"name": "a"}], ['x was [{"name": "a"}, {"name": "a"}], is [{"name": "a"}]']),
        ([{"name": ["a"]}], [{"name": "a"}], ['x was [{"name": ["a"]}], is [{"name": "a"}]']),
        (None, {"a": 1}, ['x was null, is {"a": 1}']),
        ([{"b": 2, "a": 1}], [{"a": 1, "b": 2}], []),
        ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}], []),
        ({"a": {"b": 0, "c": 1}}, {"a": {"b": 0, "d": 1}}, ["x: a: c is gone", "x: a: d is new"]),
    ],
)
def test_a_difference_takes_one_line(old, new, words):
    assert list(differences(old, new, ("x",))) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["grün"], '["grün"]'),
        ("0123456789abcdef", "0123456789abcdef"),  # too short for a hash
        ("f" * 64, "f" * 12),
        ("X" * 64, "X" * 57 + "..."),  # too long for one line, and no hash
        ("-" * 60, "-" * 60),
        ("-" * 61, "-" * 57 + "..."),
    ],
)
def test_a_value_takes_one_short_line(value, text):
    assert shown(value) == text


def test_six_differences_are_shown_and_no_more(tmp_path):
    finished(begin(tmp_path, a=0, b=0, c=0, d=0, e=0, f=0))
    with pytest.raises(BadInput, match=r"\(a was 0, is 1; .*; f was 0, is 1\): choose another folder"):
        begin(tmp_path, a=1, b=1, c=1, d=1, e=1, f=1).__enter__()
    with pytest.raises(BadInput, match=r"\(seed was 0, is 1; .*; e was 0, is 1; and 1 more\): choose another"):
        begin(tmp_path, 1, a=1, b=1, c=1, d=1, e=1, f=1).__enter__()


def test_a_new_key_is_named(tmp_path):
    finished(begin(tmp_path))
    with pytest.raises(BadInput, match=r"\(title is new\)"), begin(tmp_path, title="new"):
        pass


def test_keys_after_a_number_that_can_rise_are_compared(tmp_path):
    finished(begin(tmp_path, count=1, inputs="0", rises=("count",)))
    with (
        pytest.raises(BadInput, match=r"\(inputs was 0, is 1\)"),
        begin(tmp_path, count=2, inputs="1", rises=("count",)),
    ):
        pass


def test_a_recipe_of_another_program_is_refused(tmp_path):
    (tmp_path / RECIPE).write_text('{"flour": "500 g"}')
    with pytest.raises(BadInput, match="it was made by another program, not by tool draw"), begin(tmp_path):
        pass


def test_a_recipe_is_readable_text(tmp_path):
    write_recipe(tmp_path / RECIPE, {"sources": ["grün.png"]})
    assert (tmp_path / RECIPE).read_bytes() == '{\n  "sources": [\n    "grün.png"\n  ]\n}\n'.encode()


def test_versions_of_libraries_are_those_that_they_tell_themselves():
    versions = library_versions("opencv", "numpy", "no-such-package")
    assert versions == {"opencv": cv2.__version__, "numpy": np.__version__, "no-such-package": "not installed"}


def test_another_version_of_the_package_or_another_command_is_refused(tmp_path, monkeypatch):
    finished(begin(tmp_path), "0.png")
    monkeypatch.setattr(output, "__version__", "99")
    with pytest.raises(BadInput, match=r"\(version was .*, is 99\)"), begin(tmp_path):
        pass
    other = OutputFolder(tmp_path, {"made_by": "tool paint"})
    with pytest.raises(BadInput, match="it was made by tool draw, not by tool paint"), other:
        pass


def test_a_finished_folder_is_complete_and_keeps_its_outcome_and_info(tmp_path):
    recipe = finished(begin(tmp_path, info={"folder": "here"}), "0.png", counts={"masks": 1})
    assert (recipe["folder"], recipe["counts"]) == ("here", {"masks": 1})
    with begin(tmp_path, info={"folder": "moved"}) as folder:
        assert (
            folder.complete
            and folder.finished == recipe
            and folder.complete_message == f"{tmp_path} is already complete"
        )
    assert names(tmp_path) == ["0.png", RECIPE]


def test_an_interrupted_run_is_resumed(tmp_path):
    killed(tmp_path / "out", "0.png")
    (tmp_path / "out" / "1.png.0123456789ab.part").write_text("half")
    with begin(tmp_path / "out") as folder:
        assert not folder.complete and (folder.progress / "made.jsonl").exists()
        assert folder.recipe_file == folder.progress / RECIPE
        folder.finish()
    assert names(tmp_path / "out") == ["0.png", RECIPE]


def test_the_recipe_of_an_unfinished_run_is_removed_last(tmp_path, monkeypatch):
    killed(tmp_path, "0.png")

    def stopped(path):
        raise OSError

    monkeypatch.setattr(output.shutil, "rmtree", stopped)  # as if a kill came just before the folder is removed
    with begin(tmp_path) as folder:
        folder.finish()
    assert names(tmp_path / PROGRESS) == [RECIPE]


@pytest.mark.parametrize("end", [interrupted, lambda folder: killed(folder.path)], ids=["exception", "kill -9"])
def test_a_run_without_a_result_leaves_the_folder_free_for_another_recipe(tmp_path, end):
    end(begin(tmp_path / "out"))
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "empty.csv").touch()
    finished(begin(tmp_path / "out", 1))
    assert names(tmp_path / "out") == ["empty.csv", RECIPE]


def test_an_interrupted_run_without_a_result_leaves_no_folder(tmp_path):
    interrupted(begin(tmp_path / "a" / "b"))
    assert not names(tmp_path)


def test_a_run_that_was_resumed_and_added_nothing_keeps_the_folder_for_its_recipe(tmp_path):
    interrupted(begin(tmp_path), "0.png")
    interrupted(begin(tmp_path))
    with pytest.raises(BadInput, match="seed was 0, is 1"), begin(tmp_path, 1):
        pass


def test_half_files_and_files_that_vanish_are_no_results(tmp_path, monkeypatch):
    killed(tmp_path)
    (tmp_path / "0.png.0123456789ab.part").write_text("half")
    walk = os.walk
    monkeypatch.setattr(output.os, "walk", lambda top: [(top, [], ["renamed.tmp"]), *walk(top)])
    with begin(tmp_path, 1) as folder:
        assert folder.is_new
        folder.finish()
    assert names(tmp_path) == [RECIPE]


def test_an_unfinished_recipe_holds_the_number_and_bytes_of_files_before_the_run(tmp_path):
    finished(methods(tmp_path, a="1"), "a.csv", "more.csv")
    (tmp_path / "empty.csv").touch()
    files = [tmp_path / name for name in ("a.csv", "more.csv", RECIPE)]
    with methods(tmp_path, b="1") as folder:
        recipe = json.loads((folder.progress / RECIPE).read_text())
        assert recipe[BEFORE] == [3, sum(path.stat().st_size for path in files)]


def test_folders_of_an_unfinished_run_are_removed_when_it_completes(tmp_path):
    with begin(tmp_path) as folder:
        (folder.progress / "journal").mkdir()
        (folder.progress / "journal" / "0.jsonl").write_text("{}")
        folder.finish()
    assert names(tmp_path) == [RECIPE]


def test_a_result_of_a_killed_run_keeps_the_folder_for_its_recipe(tmp_path):
    killed(tmp_path / "out", "0.png")
    with pytest.raises(BadInput, match="seed was 0, is 1"), begin(tmp_path / "out", 1):
        pass


def test_ignored_files_are_no_results(tmp_path):
    (tmp_path / "list.csv").write_text("a,b")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_text("photo")
    (tmp_path / ".DS_Store").write_text("of a Mac")
    interrupted(begin(tmp_path, ignored=("list.csv", "photos")))
    finished(begin(tmp_path, 1, ignored=("list.csv", "photos")))
    assert names(tmp_path) == [".DS_Store", "list.csv", "photos", "photos/0.png", RECIPE]


@pytest.mark.parametrize("name", ["notes.txt", "photos/0.png", f"{PROGRESS}/notes.txt", "link"])
def test_a_folder_with_other_files_is_refused_and_not_changed(tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere") if name == "link" else path.write_text("precious")
    before = names(tmp_path / "out")
    with (
        pytest.raises(BadInput, match="is not empty and was not made by `tool draw`: choose a new folder"),
        begin(tmp_path / "out"),
    ):
        pass
    assert names(tmp_path / "out") == before


def methods(path, **files):
    """A run of `tool draw` with methods, to which later runs may add."""
    return begin(path, methods={name: {"file": file} for name, file in files.items()}, grows=("methods",))


def test_entries_can_be_added_but_not_changed(tmp_path):
    finished(methods(tmp_path, a="1"), "a.csv")
    with methods(tmp_path, a="1") as folder:
        assert folder.complete
    with pytest.raises(BadInput, match=r"\(methods: a: file was 1, is 2\)"), methods(tmp_path, a="2", b="1"):
        pass
    with methods(tmp_path, b="1") as folder:
        assert not folder.complete and set(folder.recipe["methods"]) == {"a", "b"}
        folder.finish()
    for entries in ({"a": "1"}, {"b": "1"}, {"b": "1", "a": "1"}):
        with methods(tmp_path, **entries) as folder:
            assert folder.complete and list(folder.finished["methods"]) == ["a", "b"]


def counted(path, count):
    """A run of `tool draw` with a number of files that later runs may raise."""
    return begin(path, count=count, rises=("count",))


def test_a_number_can_rise_but_not_fall(tmp_path):
    finished(counted(tmp_path, 2), "0.png", "1.png")
    with counted(tmp_path, 2) as folder:
        assert folder.complete
    interrupted(counted(tmp_path, 4), "2.png")
    for less in (3, 2):  # also not back to what was finished once: a file more is there
        with pytest.raises(BadInput, match=rf"\(count was 4, is {less}\)"), counted(tmp_path, less):
            pass
    with counted(tmp_path, 5) as folder:
        assert not folder.complete
        folder.finish()
    assert names(tmp_path) == ["0.png", "1.png", "2.png", RECIPE]
    with pytest.raises(BadInput, match=r"\(count was 5, is 4\)"), counted(tmp_path, 4):
        pass


def killed_and_interrupted(folder):
    killed(folder.path, "", "b", "wrong")
    interrupted(folder)


@pytest.mark.parametrize(
    "end", [interrupted, lambda folder: killed(folder.path, "", "b", "wrong"), killed_and_interrupted]
)
def test_an_added_entry_without_a_result_can_be_replaced(tmp_path, end):
    finished(methods(tmp_path, a="1"), "a.csv")
    end(methods(tmp_path, b="wrong"))
    with methods(tmp_path, b="right") as folder:
        folder.finish()
    assert set(folder.finished["methods"]) == {"a", "b"}


def test_an_interrupted_run_that_added_nothing_leaves_a_finished_folder(tmp_path):
    finished(methods(tmp_path, a="1"), "a.csv")
    interrupted(methods(tmp_path, b="1"))
    assert names(tmp_path) == ["a.csv", RECIPE]


def test_entries_of_finished_and_interrupted_runs_are_known(tmp_path):
    with methods(tmp_path, a="1") as folder:
        assert folder.entries("methods") == {}
        folder.finish()
    interrupted(methods(tmp_path, b="2"), "b.csv")
    with methods(tmp_path, c="3") as folder:
        assert folder.entries("methods") == {"a": {"file": "1"}, "b": {"file": "2"}}


def test_an_interrupted_entry_stays_unfinished_when_another_run_completes(tmp_path):
    finished(methods(tmp_path, a="1"), "a.csv")
    interrupted(methods(tmp_path, a="1", b="1"), "half of b")
    with methods(tmp_path, a="1") as folder:
        assert folder.complete
    finished(methods(tmp_path, c="1"), "c.csv")
    with methods(tmp_path, a="1", c="1") as folder:
        assert folder.complete and set(folder.finished["methods"]) == {"a", "c"}
    with pytest.raises(BadInput, match="methods: b: file was 1, is 2"), methods(tmp_path, b="2"):
        pass
    with methods(tmp_path, b="1") as folder:
        assert not folder.complete
        folder.finish()
    assert set(folder.finished["methods"]) == {"a", "b", "c"} and names(tmp_path) == sorted(
        ["a.csv", "c.csv", "half of b", RECIPE]
    )


def scored(path, seed=0, **files):
    """A run with methods that have a result if their file `NAME.csv` is not "failed"."""

    def made(name):
        return (path / f"{name}.csv").is_file() and (path / f"{name}.csv").read_text() != "failed"

    recipe = {"made_by": "tool draw", "settings": {"seed": seed}, "methods": {n: {"file": f} for n, f in files.items()}}
    return OutputFolder(path, recipe, grows=("methods",), has_result=made)


def failing(folder, *names, end="finished"):
    """Do a run in which methods fail."""
    with folder:
        for name in names:
            (folder.path / f"{name}.csv").write_text("failed")
        if end == "finished":
            folder.finish()


@pytest.mark.parametrize("end", ["finished", "stopped"])
@pytest.mark.parametrize("change", [{"seed": 0, "a": "2"}, {"seed": 1, "a": "1"}])
def test_a_run_in_which_everything_failed_leaves_the_folder_free(tmp_path, end, change):
    failing(scored(tmp_path, a="1"), "a", end=end)
    with pytest.raises(Stop), scored(tmp_path, **change) as folder:
        assert folder.is_new or change["seed"] == 0
        raise Stop  # before it has a result of its own
    finished(scored(tmp_path, **change), "a.csv")
    with scored(tmp_path, **change) as folder:
        assert folder.complete and folder.finished["settings"]["seed"] == change["seed"]
    with pytest.raises(BadInput, match="seed was"), scored(tmp_path, 2, a="1"):
        pass


@pytest.mark.parametrize("end", ["finished", "stopped"])
def test_a_failed_entry_is_not_complete_and_can_be_replaced(tmp_path, end):
    finished(scored(tmp_path, a="1"), "a.csv")
    failing(scored(tmp_path, b="wrong"), "b", end=end)
    for file in ("wrong", "right"):
        with scored(tmp_path, b=file) as folder:
            assert not folder.complete and list(folder.entries("methods")) == ["a"]
    with pytest.raises(BadInput, match="methods: a: file was 1, is 2"), scored(tmp_path, a="2"):
        pass


def test_a_difference_between_hashes_is_explained(tmp_path):
    finished(begin(tmp_path, inputs="0" * 64), "0.png")
    recipe = {"made_by": "tool draw", "settings": {"seed": 0}, "inputs": "1" * 64}
    words = r"\(inputs was 0{12}, is 1{12}; photos: lake\.jpg is gone\)"
    with (
        pytest.raises(BadInput, match=words),
        OutputFolder(tmp_path, recipe, explain=lambda: ["photos: lake.jpg is gone"]),
    ):
        pass


def test_the_recipe_of_a_run_in_which_everything_failed_is_removed_by_the_next_one(tmp_path):
    failing(scored(tmp_path, a="1"), "a")
    with scored(tmp_path, seed=1, a="1"):
        assert not (tmp_path / RECIPE).exists()


def test_a_finished_folder_to_which_a_run_adds_is_a_valid_input(tmp_path):
    finished(methods(tmp_path, a="1"), "a.csv")
    interrupted(methods(tmp_path, b="1"), "b.csv")
    assert (tmp_path / PROGRESS).is_dir()
    check_finished(tmp_path)


def test_the_output_of_an_unfinished_run_is_refused_as_an_input(tmp_path):
    interrupted(begin(tmp_path / "set"), "test/0.png")
    for folder in (tmp_path / "set", tmp_path / "set" / "test"):
        with pytest.raises(BadInput, match="set is unfinished: finish it first with the same `tool draw` command"):
            check_finished(folder)
    finished(begin(tmp_path / "set"))
    check_finished(tmp_path / "set")


def test_an_unfinished_folder_without_a_recipe_is_refused_as_an_input(tmp_path):
    (tmp_path / PROGRESS).mkdir()
    with pytest.raises(BadInput, match="is unfinished: finish it first with the same `maskgen` command"):
        check_finished(tmp_path)


def test_a_kill_after_the_recipe_was_written_does_no_harm(tmp_path):
    killed(tmp_path / "out", "0.png")
    (tmp_path / "out" / RECIPE).write_bytes((tmp_path / "out" / PROGRESS / RECIPE).read_bytes())
    with begin(tmp_path / "out") as folder:
        assert folder.complete
    assert names(tmp_path / "out") == ["0.png", RECIPE]


@pytest.mark.parametrize("where", [RECIPE, f"{PROGRESS}/{RECIPE}"])
@pytest.mark.parametrize("data", [b"", b'{"made_by": "tool dr', b"\xff\x00\x8a", b"[1]", b"[" * 100_000, b'{"a"'])
def test_a_damaged_recipe_is_refused_and_named(tmp_path, where, data):
    interrupted(begin(tmp_path), "0.png")
    (tmp_path / where).write_bytes(data)
    with pytest.raises(BadInput, match=rf"{where}.*: delete the folder, or choose another one"), begin(tmp_path):
        pass


@pytest.mark.parametrize("change", [{"methods": None}, {"methods": [1]}, {"settings": 3}, {"made_by": ["x"]}])
@pytest.mark.parametrize("entries", [{}, {"a": "1"}])
def test_a_recipe_with_values_of_another_kind_is_refused(tmp_path, change, entries):
    recipe = finished(methods(tmp_path, a="1"))
    (tmp_path / RECIPE).write_text(json.dumps(recipe | change))
    with pytest.raises(BadInput, match="was created with other settings"), methods(tmp_path, **entries):
        pass


def test_a_name_that_is_not_valid_unicode_is_written_and_read_back(tmp_path):
    name = os.fsdecode(b"gr\xfcn.png")
    finished(begin(tmp_path, sources=[{"name": name}]), "0.png")
    with begin(tmp_path, sources=[{"name": name}]) as folder:
        assert folder.complete
    with Journal(tmp_path / "made.jsonl", "name") as journal:
        journal.add({"name": name})
    assert list(Journal(tmp_path / "made.jsonl", "name").rows) == [name]


@pytest.mark.parametrize(
    "tail", [b'{"name": "2", "cut o', b'{"name": "2"}', b"\xff\x00\n", b"[2]\n", b'{"name": 2}\n', b'{"name": "no"}\n']
)
def test_a_journal_ends_before_its_first_bad_line(tmp_path, tail):
    path = tmp_path / "made.jsonl"
    with Journal(path, "name") as journal:
        for name in ("0", "1", "1"):
            journal.add({"name": name, "note": "\u2028\x85 no end of a line"})
    valid = path.read_bytes()
    path.write_bytes(valid + tail + b'{"name": "3"}\n')
    with Journal(path, "name", lambda row: row["name"] != "no") as journal:
        assert list(journal.rows) == ["0", "1"] and path.read_bytes() == valid
        journal.add({"name": "2"})
        journal.keep(lambda row: row["name"] != "0")
        journal.add({"name": "4"})
    assert list(Journal(path, "name").rows) == ["1", "2", "4"]


def test_rows_are_added_after_the_last_valid_line(tmp_path):
    (tmp_path / "made.jsonl").write_text('{"name": "0"}\n{"name": "1"}')  # a row without its line end may be cut off
    with Journal(tmp_path / "made.jsonl", "name") as journal:
        journal.add({"name": "2"})
    assert list(Journal(tmp_path / "made.jsonl", "name").rows) == ["0", "2"]


def test_a_journal_is_readable_text_and_not_written_again_if_all_rows_are_kept(tmp_path):
    path = tmp_path / "made.jsonl"
    with Journal(path, "name") as journal:
        journal.add({"name": "grün.png"})
        before = path.stat().st_ino
        journal.keep(lambda row: True)
    assert path.stat().st_ino == before and path.read_bytes() == '{"name": "grün.png"}\n'.encode()


def test_a_journal_that_keeps_no_row_is_empty(tmp_path):
    with Journal(tmp_path / "made.jsonl", "name") as journal:
        journal.add({"name": "0"})
        journal.keep(lambda row: False)
    assert not Journal(tmp_path / "made.jsonl", "name").rows


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_row_on_a_full_disk_raises(tmp_path):
    (tmp_path / "made.jsonl").symlink_to("/dev/full")
    journal = Journal(tmp_path / "nothing.jsonl", "name")
    journal.path = tmp_path / "made.jsonl"
    with pytest.raises(OSError, match="No space left"), journal:
        journal.add({"name": "0"})
    assert not journal.rows


def test_a_row_that_is_written_in_parts_is_complete(tmp_path):
    class Slow(io.FileIO):
        def write(self, data):
            return super().write(data[:3])

    with Journal(tmp_path / "made.jsonl", "name") as journal:
        journal.file = Slow(journal.path, "ab")
        journal.add({"name": "0"})
    assert list(Journal(tmp_path / "made.jsonl", "name").rows) == ["0"]


def test_two_runs_at_once(locked_by_other):
    folder, other = locked_by_other
    with pytest.raises(BadInput, match="another run is using"), begin(folder):
        pass
    assert names(folder) == [LOCK]
    other.kill()
    other.wait()
    finished(begin(folder), "0.png")
    assert names(folder) == ["0.png", RECIPE]


READONLY = """
import os, pathlib, sys
from maskgen.runtime.output import OutputFolder
if os.geteuid() == 0:
    os.setuid(65534)  # root could write anywhere
try:
    with OutputFolder(pathlib.Path(sys.argv[1]), {"made_by": "tool draw"}):
        pass
except PermissionError as error:
    print("refused")
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a system with users")
def test_a_folder_without_write_permission_raises_permission_error(tmp_path):
    finished(begin(tmp_path / "out"), "0.png")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(0o755)
    (tmp_path / "out").chmod(0o555)
    done = subprocess.run([sys.executable, "-c", READONLY, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "") and names(tmp_path / "out") == ["0.png", RECIPE]


COMMANDS = {
    "extract": (cli.maskgen, "extract film.avi --out out --train 2 --test 2 --size 64"),
    "testset": (cli.maskgen, "testset raw out"),
    "augment": (cli.maskgen, "augment masks out --count 2"),
    "bin": (cli.maskgen, "bin masks --polarity hole-white --out out"),
    "publish": (cli.maskgen, "publish raw out"),
    "evaluate": (cli.evaluate, "--images photos --masks masks --size 64 --out out"),
    "pairs": (cli.evaluate, "pairs --images photos --masks masks --size 64 --out out"),
    "dilation": (cli.evaluate, "dilation --images photos --masks masks --size 64 --out out"),
    "holes": (cli.evaluate, "holes --images photos --size 512 --out out"),
    "superres": (cli.evaluate, "superres --images photos --size 64 --out out"),
    "train": (cli.pconv, "train photos --masks masks --out out --no-vgg --phase1-steps 1 --size 16 --batch 1"),
    "search": (cli.pconv, "search photos --masks masks --out out --no-vgg --steps 1 --size 16 --batch 1"),
    "inpaint": (cli.pconv, "inpaint photos masks out --weights tiny.safetensors"),
    "enlarge": (cli.pconv, "superres photos out --weights tiny.safetensors"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with inputs for all commands, and another process that has locked `out`."""
    from rawmasks import write_raw
    from small_run import folders

    from pconv_model import checkpoints
    from pconv_model.settings import NetConfig
    from pconv_model.unet import build

    root = tmp_path_factory.mktemp("workshop")
    images, masks = folders(root)
    images.rename(root / "photos")
    for photo, mask in zip(sorted((root / "photos").iterdir()), sorted(masks.iterdir()), strict=False):
        photo.rename(photo.with_name(mask.name))
    write_raw(root / "raw", 4)
    write_video(root / "film.avi", 12)
    checkpoints.save(root / "tiny.safetensors", build(NetConfig(width=0.05, depth=3)))
    other = subprocess.Popen([sys.executable, "-c", HOLD, root / "out"], cwd=ROOT, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    yield root
    other.kill()
    other.wait()
    other.stdout.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_locked_folder_ends_with_one_line(name, workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    tool, words = COMMANDS[name]
    done = CliRunner().invoke(tool, words.split())
    assert done.exit_code == 2 and "another run is using" in done.output
    assert len(done.stderr.splitlines()) == 1 and len(done.stdout.splitlines()) <= 1  # which masks and photos are used
    assert [path.name for path in (workshop / "out").iterdir()] == [LOCK]
