"""`serve:`: a program that is started once, its answers, its failures, and its end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_run import SIDE, folders, photo, score

from evaluation import commands
from evaluation.methods import parse, parse_all, process, served
from evaluation.methods.served import ServedProgram
from maskgen.errors import BadInput

ROOT = Path(__file__).parents[1]
IMAGE = photo(0)
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[20:34, 16:40] = True
# It returns the image as it is. `each` is done for every pair before the answer.
PROGRAM = """
import json, os, shutil, signal, sys, time
with open("starts", "a") as file:
    print(os.getpid(), file=file)
{first}
for line in sys.stdin:
    pair = json.loads(line)
    number = int(pair["pair"])
{each}
    shutil.copy(pair["image"], pair["output"])
    print("ok")
"""


@pytest.fixture
def served_by(tmp_path, monkeypatch):
    """Makes the method of a program from code that it runs first and for each pair."""
    monkeypatch.chdir(tmp_path)
    running = []

    def make(each="", first="", timeout=60, code=PROGRAM):
        lines = "".join(f"    {line}\n" for line in each.splitlines())
        (tmp_path / "program.py").write_text(code.replace("{first}", first).replace("{each}", lines))
        running.append(ServedProgram(parse(f"serve:{sys.executable} -S program.py"), timeout))
        return running[-1]

    yield make
    for program in running:
        program.close()


def starts():
    return [int(line) for line in Path("starts").read_text().split()]


def fill(program, count):
    """The results of pairs 0, 1, ... as messages; "" for the image as it is."""
    results = program.fill([(f"{i}", IMAGE, HOLE) for i in range(count)])
    return [result if isinstance(result, str) else "" if (result == IMAGE).all() else "another" for result in results]


def is_running(pid):
    """True for a process that has not ended; one that has is a zombie until its parent knows."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def has_ended(pid, seconds=5):
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def test_one_start_fills_all_pairs(served_by):
    program = served_by()
    assert fill(program, 5) == [""] * 5
    assert fill(program, 2) == [""] * 2
    assert len(starts()) == 1


def test_the_program_gets_the_files_and_the_name_of_a_pair(served_by):
    look = """
import struct
kinds = [open(pair[name], "rb").read(29) for name in ("image", "mask")]  # signature, length, IHDR
sides = [struct.unpack(">IIBB", kind[16:26]) for kind in kinds]
assert sides == [(64, 64, 8, 2), (64, 64, 8, 0)], sides
assert sorted(pair) == ["image", "mask", "output", "pair"] and not os.path.exists(pair["output"]), pair
"""
    program = served_by(look)
    assert fill(program, 1) == [""]


def test_lines_that_are_no_answers_are_ignored(served_by):
    noise = r"""
print("loading\nok then")
print("Error: no GPU, error: none", end="\n\n")
sys.stdout.write("step 1/2\rstep 2/2\r")
sys.stderr.write("ok\n")
"""
    assert fill(served_by(noise), 3) == [""] * 3


def test_an_error_costs_its_pair_only_and_the_program_goes_on(served_by):
    refuse = """
if number == 1:
    print("error: cannot read", pair["mask"])
    continue
if number == 2:
    print("error:")
    continue
"""
    assert fill(served_by(refuse), 4) == ["", "cannot read mask.png", "error: without a text", ""]
    assert len(starts()) == 1


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("sys.exit('out of luck')", "ended with code 1: out of luck"),
        ("print('bad luck'); os._exit(3)", "ended with code 3: bad luck"),
        ("sys.exit()", "ended with code 0"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("os.close(1); os.close(2); continue", "closed its stdout"),
    ],
)
def test_a_crash_at_a_pair_costs_that_pair_only(end, message, served_by, monkeypatch):
    monkeypatch.setattr(process, "END_TIMEOUT", 0.2)
    results = fill(served_by(f"if number == 30: {end}"), 60)
    assert results[30] == f"{sys.executable} {message}"
    assert [i for i, result in enumerate(results) if result] == [30]
    assert len(starts()) == (3 if end == "sys.exit()" else 2)  # one that ends normally gets a second try


def test_a_program_that_ends_after_every_answer_is_started_for_every_pair(served_by):
    code = PROGRAM.replace('print("ok")', 'print("ok", flush=True); break')
    assert fill(served_by(code=code), 4) == [""] * 4
    assert len(starts()) == 4


def test_a_program_that_is_killed_from_outside_once_loses_no_pair(served_by):
    shot = """
if number == 2 and not os.path.exists("shot"):
    open("shot", "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert fill(served_by(shot), 4) == [""] * 4
    assert len(starts()) == 2


def test_a_pair_that_takes_too_long_is_given_up(served_by):
    program = served_by("if number == 1: time.sleep(1000)", timeout=0.7)
    assert fill(program, 3) == ["", "no result within 0.7 s", ""]
    hung, other = starts()
    assert has_ended(hung) and is_running(other)


def test_the_start_may_take_longer_than_a_pair(served_by):
    assert fill(served_by(first="time.sleep(0.8)", timeout=0.6), 2) == ["", ""]


def test_an_ok_without_an_output_costs_its_pair_and_does_not_shift_the_others(served_by):
    early = """
if number == 1:
    print("ok")
    time.sleep(0.1)
"""
    code = PROGRAM.replace('shutil.copy(pair["image"], pair["output"])', "number == 1 or shutil.copy(*copied(pair))")
    code = "def copied(pair): return pair['image'], pair['output']\n" + code
    first, second, third = fill(served_by(early, code=code), 3)
    assert first == third == "" and second == f"{sys.executable} answered ok but wrote no output"


def test_an_output_that_is_no_image_or_of_another_size_costs_its_pair(served_by):
    write = """
if number == 1:
    open(pair["output"], "w").write("no png")
    print("ok")
    continue
if number == 2:
    shutil.copy("small.png", pair["output"])
    print("ok")
    continue
"""
    import cv2

    program = served_by(write)
    cv2.imwrite("small.png", IMAGE[:32])
    broken, small = fill(program, 4)[1:3]
    assert "is not an image that can be read" in broken and small == "the result is 32 x 64 x 3, expected 64 x 64 x 3"
    assert len(starts()) == 1


def test_a_program_that_never_answers_is_refused_with_what_it_should_print(served_by, monkeypatch):
    monkeypatch.setattr(served, "START_TIMEOUT", 0.2)
    program = served_by("print('done')\ncontinue", timeout=0.3)
    expected = "expected the line `ok` or `error: TEXT` on stdout for each line on stdin, got done"
    assert fill(program, 1) == [f"no result within 0.5 s: {expected}"]
    with pytest.raises(BadInput, match=r"the method program cannot start: no result within 0\.5 s: expected the line"):
        fill(program, 1)


def test_a_program_that_cannot_start_is_not_started_for_every_pair(served_by):
    program = served_by(first="import no_such_package")
    with pytest.raises(BadInput) as refused:
        fill(program, 60)
    reason = "ended with code 1: ModuleNotFoundError: No module named 'no_such_package'"
    assert str(refused.value) == f"the method program cannot start: {sys.executable} {reason}"
    assert len(starts()) == 3


def test_a_served_command_line_is_checked_before_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my serve.py").write_text("old")
    method = parse("serve:python3 'my serve.py' --steps 5")
    assert (method.label, method.serial) == ("my_serve", True)
    before = method.identity()
    assert before["command"] == "python3 'my serve.py' --steps 5"
    (tmp_path / "my serve.py").write_text("new")
    assert method.identity()["files"].pop("my serve.py") != before["files"].pop("my serve.py")
    for line, message in {
        "serve:no-such-program x": "cannot start no-such-program: no such program",
        "serve:python3 x {image}": r"has \{image\}, but a served program reads its files' names from stdin: use cmd:",
        "serve:python3 'x": "cannot be split into words: No closing quotation",
        "serve:": "names nothing after serve:",
    }.items():
        with pytest.raises(BadInput, match=message):
            parse(line)
    with pytest.raises(BadInput, match="--copies per-worker is for programs: expected a method serve:'PROGRAM'"):
        parse_all(["telea"], copies="per-worker")


def test_no_shell_reads_the_command_line(served_by, tmp_path):
    served_by()
    program = ServedProgram(parse(f"serve:{sys.executable} -S program.py ; touch broken $(touch broken) > broken"), 60)
    assert fill(program, 1) == [""]
    program.close()
    assert not Path("broken").exists()


def test_one_program_takes_all_pairs_or_every_worker_has_one(tmp_path, served_by):
    folders(tmp_path)
    served_by("time.sleep(0.3)")
    line = f"copy=serve:{sys.executable} -S {tmp_path / 'program.py'}"
    one = score(tmp_path, [line], workers=2)
    assert (one["error"] == "").all() and len(set(starts())) == 1
    methods = parse_all([line], copies="per-worker")
    assert not methods[0].serial
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("small_run.parse_all", lambda texts: methods)
        each = score(tmp_path, [line], out="each", workers=2)
    assert each.equals(one)
    assert len(set(starts()[1:])) == 2
    for pid in starts():
        assert not is_running(pid) or has_ended(pid, 15)


KILLED = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from evaluation.methods import parse
from evaluation.methods.served import ServedProgram
program = ServedProgram(parse({line!r}))
print(program.fill([("0", np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=bool))])[0].sum(), flush=True)
program.fill([("1", np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=bool))])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_a_program_that_works_ends_with_a_run_that_is_killed(served_by, tmp_path):
    served_by("number == 1 and time.sleep(1000)")
    code = KILLED.format(root=str(ROOT), line=f"serve:{sys.executable} -S program.py")
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"0\n"
        (pid,) = starts()
        assert is_running(pid)
        run.kill()
        assert has_ended(pid)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_a_run_that_was_ended_leaves_no_program_and_resumes_to_the_same_bytes(end, tmp_path, served_by):
    folders(tmp_path)
    served_by("time.sleep(0.2 * os.path.exists('slow'))\nif number == 2: sys.exit('no luck')")
    line = ["--images", "images", "--masks", "masks", "--size", "64", "--metric", "psnr", "--workers", "1"]
    line += ["-m", f"copy=serve:{sys.executable} -S program.py", "--out"]
    assert CliRunner().invoke(commands.evaluate, [*line, "whole"]).exit_code == 0
    Path("slow").touch()
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell's background ignores it
    code += f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cli; cli.evaluate(prog_name='evaluate')"
    run = subprocess.Popen([sys.executable, "-c", code, *line, "out"], stderr=subprocess.PIPE)
    journal = Path("out/journal/copy.jsonl")
    while not (journal.exists() and journal.stat().st_size):
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.02)
    run.send_signal(end)
    run.wait()
    assert all(map(has_ended, starts()))
    assert 1 <= len(journal.read_bytes().splitlines()) < 4
    Path("slow").unlink()
    assert CliRunner().invoke(commands.evaluate, [*line, "out"]).exit_code == 0
    whole, resumed = (
        {path.relative_to(name): path.read_bytes() for path in Path(name).rglob("*") if path.is_file()}
        for name in ("whole", "out")
    )
    assert whole == resumed and b"no luck" in whole[Path("scores.csv")]


def test_a_program_of_another_language_can_be_served(served_by, tmp_path):
    (tmp_path / "copy.sh").write_text(
        """while read -r line; do
             image=$(printf %s "$line" | sed 's/.*"image": "\\([^"]*\\)".*/\\1/')
             output=$(printf %s "$line" | sed 's/.*"output": "\\([^"]*\\)".*/\\1/')
             cp "$image" "$output" && echo ok || echo "error: no copy"
           done"""
    )
    served_by()  # moves to the folder
    program = ServedProgram(parse("serve:sh copy.sh"))
    assert fill(program, 2) == ["", ""]
    program.close()
