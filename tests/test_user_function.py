"""`py:`: functions in files and modules of the user's, in batches, and what their errors say."""

import time
from pathlib import Path

import numpy as np
import pytest
from small_run import SIDE, folders, photo, score

from evaluation.api import evaluate
from evaluation.methods import parse
from evaluation.methods.process import WorkerProcess
from maskgen.errors import BadInput

IMAGE = photo(0)
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[20:34, 16:40] = True
CODE = """
import os
import numpy as np
from neighbour import level

with open("starts", "a") as file:
    print(os.getpid(), file=file)

def flat(image, hole):
    return np.full_like(image, level())

def many(images, holes):
    assert isinstance(images, list) and isinstance(holes, list)
    with open("calls", "a") as file:
        print(len(images), file=file)
    if max(hole.mean() for hole in holes) > 0.1:
        raise ValueError("too large")
    return [np.full_like(image, level()) for image in images]

many.batched = True

def few(images, holes):
    return images[1:]

few.batched = True

def broken(image, hole):
    return level(image)

def deep(image, hole):
    return image.reshape(7, 7)

class Filler:
    def __call__(self, image, hole):
        return image

filler = Filler()
number = 5
"""
NEIGHBOUR = """
def level(image=None):
    if image is not None:
        raise KeyError("no\\nlevel")
    return 100
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with the user's code in `code/fill.py`, beside a file called as a module of ours."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/fill.py").write_text(CODE)
    (tmp_path / "code/neighbour.py").write_text(NEIGHBOUR)
    (tmp_path / "code/pickle.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(spec, *pairs, **how):
    process = WorkerProcess(parse(spec).absolute(), **how)
    try:
        return process.fill(list(pairs) or [("0", IMAGE, HOLE)])
    finally:
        process.close()


def test_a_function_of_a_file_is_a_method_and_can_import_its_neighbours(here):
    assert parse("py:code/fill.py:flat").label == "flat"
    (result,) = ask("py:code/fill.py:flat")
    assert (result == 100).all()
    assert (ask("py:code/fill.py:filler")[0] == IMAGE).all()  # an object that can be called


def test_a_function_of_a_module_is_found_in_the_working_folder(here):
    (here / "code/fill.py").write_text(CODE.replace("from neighbour", "from code_of_mine.neighbour"))
    (here / "code").rename(here / "code_of_mine")
    (result,) = ask("py:code_of_mine.fill:flat")
    assert (result == 100).all()
    before = parse("py:code_of_mine.fill:flat").identity()
    (here / "code_of_mine/neighbour.py").write_text(NEIGHBOUR + "\n")  # the whole package counts
    assert parse("py:code_of_mine.fill:flat").identity() != before


def test_a_file_may_be_called_as_a_module_that_is_used(here):
    (here / "json.py").write_text("def fill(image, hole): return image")
    assert (ask("py:json.py:fill")[0] == IMAGE).all()


def test_the_file_is_part_of_the_identity_wherever_it_lies(here):
    before = parse("py:code/fill.py:flat").identity()
    assert before["name"] == "flat" and len(before["file"]) == 64
    assert parse("py:code/fill.py:many").identity() != before
    (here / "code").rename(here / "elsewhere")
    assert parse("py:elsewhere/fill.py:flat").identity() == before
    (here / "elsewhere/fill.py").write_text(CODE + "# changed")
    assert parse("py:elsewhere/fill.py:flat").identity() != before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("py:code/fill.py", r"py:code/fill\.py names no function: expected .* such as py:code/fill\.py:fill"),
        ("py:code/fill.py:", r"py:code/fill\.py: names no function"),
        ("py:missing.py:fill", r"no file missing\.py: expected py:FILE\.py:FUNCTION or py:PACKAGE\.MODULE:FUNCTION"),
        ("py:my code:fill", r"my code is neither a file that ends in \.py nor the name of a module"),
    ],
)
def test_a_wrong_py_method_is_refused(spec, message, here):
    with pytest.raises(BadInput, match=message):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("py:code/fill.py:flt", r"has no function flt, it has broken, deep, few, flat, many: expected"),
        ("py:code/fill.py:Filler", r"Filler in code/fill\.py is a class: expected a function of \(image, hole\)"),
        ("py:code/fill.py:number", r"number in code/fill\.py is of type int: expected a function"),
    ],
)
def test_a_name_that_is_no_function_is_refused_before_a_run(spec, message, here):
    with pytest.raises(BadInput, match=message):
        WorkerProcess(parse(spec).absolute()).start()


def test_a_missing_module_is_refused(here):
    with pytest.raises(BadInput, match="no module no_such_module in this folder or among the installed packages"):
        parse("py:no_such_module:fill").identity()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import sd_of_mine", r"ModuleNotFoundError: No module named 'sd_of_mine' \(fill\.py, line 3\)"),
        ("def f(:", r"SyntaxError: invalid syntax \(fill\.py, line 3\)"),
        ("import broken_too", r"ZeroDivisionError: division by zero \(broken_too\.py, line 2\)"),
    ],
)
def test_an_error_of_the_import_names_the_file_and_the_line(line, message, here):
    (here / "code/broken_too.py").write_text("\n1 / 0")
    (here / "code/fill.py").write_text(f"import os\n\n{line}")
    with pytest.raises(BadInput, match=message) as refused:
        WorkerProcess(parse("py:code/fill.py:flat").absolute()).start()
    assert str(refused.value).startswith("code/fill.py cannot be imported: ")


def test_an_error_of_a_call_names_the_line_of_the_users_code(here):
    number = CODE.splitlines().index("    return image.reshape(7, 7)") + 1
    (message,) = ask("py:code/fill.py:deep")
    assert message == f"ValueError: cannot reshape array of size 12288 into shape (7,7) (fill.py, line {number})"
    assert ask("py:code/fill.py:broken") == [r"KeyError: 'no\nlevel' (neighbour.py, line 4)"]


def test_a_function_in_batches_gets_lists_and_has_one_copy(here):
    folders(here, ratios=(0.05, 0.08, 0.09))
    scores = score(here, ["py:code/fill.py:many"], workers=2)
    assert (scores["error"] == "").all()
    assert Path("calls").read_text().split() == ["4", "2"] and len(Path("starts").read_text().split()) == 1
    one = score(here, ["many=py:code/fill.py:flat"], out="one", workers=1)
    assert one.equals(scores)


def test_a_plain_function_has_one_copy_in_each_worker(here):
    folders(here)
    score(here, ["py:code/fill.py:flat"], workers=2)
    pids = Path("starts").read_text().split()  # the first is that of the check before the run
    assert 2 <= len(pids) <= 3 and len(set(pids)) == len(pids)
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_batch_that_fails_is_filled_one_by_one(here):
    pairs = [("0", IMAGE, HOLE), ("1", IMAGE, HOLE | True), ("2", IMAGE, HOLE)]
    first, second, third = ask("py:code/fill.py:many", *pairs)
    assert (first == 100).all() and (third == 100).all()
    assert second.startswith("ValueError: too large (fill.py, line ")
    assert ask("py:code/fill.py:few") == ["the function returned 0 images for 1: expected a list of as many"]


def test_a_function_of_a_file_scores_as_the_same_function_in_python(here):
    images, masks = folders(here)

    def flat(image, hole):
        return np.full_like(image, 100)

    result = evaluate({"same": flat, "flat": "py:code/fill.py:flat"}, images, masks, size=SIDE, workers=1)
    same, file = (result.scores.query("method == @name").drop(columns="method") for name in ("same", "flat"))
    assert same.reset_index(drop=True).equals(file.reset_index(drop=True))
