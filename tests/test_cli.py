"""The commands as a user types them."""

import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from films import encode, write_video

import cli
from maskgen.flow import FLOWS
from maskgen.runtime import files

ROOT = Path(__file__).parents[1]
GROUPS = {"maskgen": cli.maskgen, "pconv": cli.pconv, "evaluate": cli.evaluate}
COMMANDS = [(tool, name) for tool, group in GROUPS.items() for name in sorted(group.commands)]


def typed(tool, *words):
    return CliRunner().invoke(GROUPS[tool], [str(word) for word in words])


@pytest.mark.parametrize("tool", GROUPS)
def test_help_imports_nothing_heavy(tool):
    program = (
        "import atexit, sys, cli;"
        "heavy = {'numpy', 'cv2', 'torch', 'pandas', 'matplotlib', 'av'};"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules))));"
        f"cli.{tool}(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("Usage:") and done.stdout.endswith("[]\n")


@pytest.mark.parametrize(("tool", "name"), COMMANDS)
def test_every_command_has_help_with_its_defaults_and_is_in_the_readme(tool, name):
    assert f"{tool} {name}" in (ROOT / "README.md").read_text()
    shown = typed(tool, name, "--help")
    assert shown.exit_code == 0 and len(GROUPS[tool].commands[name].help) > 20
    undocumented = [
        option.name
        for option in GROUPS[tool].commands[name].params
        if isinstance(option, click.Option) and not option.help
    ]
    assert not undocumented


def test_the_help_of_extract_names_every_flow():
    shown = " ".join(typed("maskgen", "extract", "--help").output.split())
    assert all(name in shown for name in FLOWS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["extrat"], "No such command"),
        (["extract", "--trian", "5"], "No such option"),
        (["extract", "nowhere.mp4"], "no such file or folder: nowhere.mp4"),
        (["extract", "--gap", "1;2"], "expected numbers such as 128,256"),
        (["testset", "nowhere"], "no such folder: "),
        (["show", "nowhere"], "no such folder: nowhere"),
        (["extract", "--size", "small"], "is not a valid integer"),
        (["extract", "--flow", "magic", "."], "no optical flow called 'magic'"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = typed("maskgen", *words)
    assert done.exit_code == 2 and says in done.output and len(done.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_extract_says_what_it_made(tmp_path):
    for seed in (0, 5):
        write_video(tmp_path / f"videos/film{seed}.avi", 12, seed=seed)
    done = typed(
        "maskgen", "extract", tmp_path / "videos", "--out", tmp_path / "raw", *"--train 4 --test 2 --size 64".split()
    )
    assert done.exit_code == 0 and "train: 4 masks, as many as wanted" in done.stdout


def test_extract_fails_where_not_one_mask_came_and_says_why_last(tmp_path):
    encode(tmp_path / "black.mp4", [np.zeros((96, 128, 3), np.uint8)] * 12)
    words = ["extract", tmp_path / "black.mp4", "--out", tmp_path / "raw", *"--train 4 --test 0 --workers 1".split()]
    for _ in range(2):  # the second run is no "complete already"
        done = typed("maskgen", *words)
        assert done.exit_code == 1 and not (tmp_path / "raw").exists()
        assert "no mask came from black: its frames are all of one colour" in done.stdout
        assert done.stderr.strip().splitlines()[-1].endswith("was not written: 22 in frames of one colour")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="only Linux has a folder where not even root may write")
def test_a_folder_without_the_right_to_write_gives_one_line(tmp_path):
    write_video(tmp_path / "film.avi", 30)
    done = typed("maskgen", "extract", tmp_path / "film.avi", "--out", "/sys/kernel/masks", "--workers", "1")
    assert done.exit_code == 2 and len(done.output.strip().splitlines()) == 1
    assert done.output.strip().endswith("mend that, and the same command goes on")


def test_a_full_disk_gives_one_line(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_whole", full)
    write_video(tmp_path / "film.avi", 30)
    done = typed(
        "maskgen", "extract", tmp_path / "film.avi", "--out", tmp_path / "raw", *"--workers 1 --size 64".split()
    )
    assert done.exit_code == 2
    assert (
        done.output.strip()
        .splitlines()[-1]
        .endswith("No space left on device; mend that, and the same command goes on")
    )


INTERRUPTED = """
import atexit, signal, time, click
from maskgen.runtime.command import Tool

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests in the background has it ignored

class Late:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

@click.group(cls=Tool)
def tool():
    pass

@tool.command()
def goes():
    late = Late()
    del late
    time.sleep(20)
    print("went on")

@tool.command()
def ends():
    atexit.register(signal.raise_signal, signal.SIGINT)
    print("all done")

tool(prog_name="tool")
"""


@pytest.mark.parametrize(
    ("name", "code", "out", "err"),
    [
        ("goes", 130, "", "tool: stopped; nothing is lost, the same command goes on from here\n"),  # in a destructor
        ("ends", 0, "all done\n", ""),  # while Python itself ends
    ],
)
def test_ctrl_c_stops_a_command_wherever_it_comes_and_shows_no_traceback(name, code, out, err):
    line = [sys.executable, "-c", INTERRUPTED, name]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.lstrip()) == (code, out, err)
