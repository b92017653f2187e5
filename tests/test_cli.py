"""The commands as a user types them."""

import os
import re
import sqlite3
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from films import encode, write_video

import cli
from maskgen.errors import BadInput
from maskgen.extraction.flow import FLOWS
from maskgen.runtime import files
from maskgen.runtime.command import FIX, Tool

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


@pytest.mark.parametrize("name", sorted(cli.maskgen.commands))
def test_the_help_names_the_defaults_of_all_arguments(name):
    shown = " ".join(typed("maskgen", name, "--help").output.split())
    arguments = [param for param in cli.maskgen.commands[name].params if isinstance(param, click.Argument)]
    given = [argument.default for argument in arguments if isinstance(argument.default, str)]
    assert arguments and all(default in shown for default in given) and "[default:" in shown


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
def test_a_user_error_gives_one_line_and_exit_code_2(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = typed("maskgen", *words)
    assert done.exit_code == 2 and says in done.output and len(done.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


NUMBERS = ("", "-1", "0", "nan", "-inf", "1e400", "9" * 20, "1,2,x", "wrong")
TEXTS = ("", "=", "\udcff", "x" * 300, "a\nb", "-1")
PATHS = ("", ".", "..", "file", "folder", "nowhere/x", "file/x", "\udcff", "x" * 300, "/dev/null")
STOPS = {  # arguments of a missing folder, for commands that would find work in an empty folder
    "evaluate": "--images nowhere --out results",
    "maskgen augment": "nowhere",
    "maskgen get": "wrong",
    "pconv export": "--weights nowhere",
    "pconv convert": "nowhere out.safetensors",
    "pconv average": "nowhere nowhere --out out.safetensors",
    "pconv inpaint": "folder folder --device cpu --weights nowhere",
    "pconv superres": "folder --device cpu --weights nowhere",
    "evaluate study make": "nowhere study",
    "evaluate study export": "--platform mturk --url https://example.org",
    "evaluate study import": "nowhere study --platform mturk",
}


def every_command(group, path):
    yield path, group
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from every_command(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("long", "short"), [("--out", "-o"), ("--method", "-m"), ("--workers", "-j")])
def test_common_options_have_one_short_form_in_every_command(long, short):
    having = {
        path: short in option.opts
        for tool, group in GROUPS.items()
        for path, command in every_command(group, tool)
        for option in command.params
        if long in option.opts
    }
    assert len(having) >= 3 and all(having.values()), having


def absurd_values(param):
    if isinstance(param.type, click.Path):
        return PATHS
    return TEXTS if isinstance(param.type, click.types.StringParamType | click.Choice) else NUMBERS


@pytest.mark.parametrize(
    ("path", "command"),
    [pytest.param(*each, id=each[0]) for tool, group in GROUPS.items() for each in every_command(group, tool)],
)
def test_absurd_values_give_one_line(path, command, tmp_path, monkeypatch):
    here = tmp_path / "here"  # with nothing beside it, since `..` is tried
    (here / "folder").mkdir(parents=True)
    (here / "file").write_text("no table, no picture, no film\n")
    monkeypatch.chdir(here)
    tool, *sub = path.split()
    stop = STOPS.get(path, STOPS["evaluate"] if "--images" in str([p.opts for p in command.params]) else "").split()
    given = [word for word in stop if not word.startswith("-")][
        : sum(isinstance(p, click.Argument) for p in command.params)
    ]
    faults, place = [], 0
    for param in command.params:
        if isinstance(param, click.Option) and param.is_flag:
            continue
        for value in absurd_values(param):
            if isinstance(param, click.Option):
                words = [*stop, f"{param.opts[0]}={value}"]
            else:
                before = [*given, *["nowhere"] * place][:place]
                words = [*stop[len(given) :], "--", *before, value, *given[place + 1 :]]
            done = typed(tool, *sub, *words)
            lines = [line for line in done.output.splitlines() if line.strip() and "%|" not in line]
            if not isinstance(done.exception, SystemExit | None) or done.exit_code not in (0, 2) or len(lines) > 2:
                faults.append((words, done.exit_code, done.exception, lines[-2:]))
        place += isinstance(param, click.Argument)
    assert not faults
    assert {path.name for path in here.iterdir()} == {"folder", "file"}


def test_extract_says_what_it_made(tmp_path):
    for seed in (0, 5):
        write_video(tmp_path / f"videos/film{seed}.avi", 12, seed=seed)
    done = typed(
        "maskgen", "extract", tmp_path / "videos", "-o", tmp_path / "raw", *"--train 4 --test 2 --size 64 -j 2".split()
    )
    assert done.exit_code == 0 and "train: 4 masks, as many as wanted" in done.stdout


def test_extract_fails_without_any_mask_and_says_why_in_its_last_line(tmp_path):
    encode(tmp_path / "black.mp4", [np.zeros((96, 128, 3), np.uint8)] * 12)
    words = ["extract", tmp_path / "black.mp4", "--out", tmp_path / "raw", *"--train 4 --test 0 --workers 1".split()]
    for _ in range(2):  # the second run is not "already complete"
        done = typed("maskgen", *words)
        assert done.exit_code == 1 and not (tmp_path / "raw").exists()
        assert "no mask came from black: its frames are all of one colour" in done.stdout
        assert done.stderr.strip().splitlines()[-1].endswith("was not written: 22 in frames of one colour")


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="only Linux has a folder where not even root may write")
def test_a_folder_without_write_permission_gives_one_line(tmp_path):
    write_video(tmp_path / "film.avi", 30)
    done = typed("maskgen", "extract", tmp_path / "film.avi", "--out", "/sys/kernel/masks", "--workers", "1")
    assert done.exit_code == 2 and len(done.output.strip().splitlines()) == 1
    assert done.output.strip().endswith("fix that, then run the same command again to continue")


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
        .endswith("No space left on device; fix that, then run the same command again to continue")
    )


WARNS = """
import click, sys, warnings
from tqdm import tqdm
from maskgen.errors import warn
from maskgen.runtime import parallel
from maskgen.runtime.command import Tool

def odd(number):
    warn(f"{number % 2} is odd\\nand goes on")
    return number

@click.group(cls=Tool)
def tool():
    pass

@tool.command()
@click.option("--workers", type=int)
def works(workers):
    for number in tqdm(parallel.run(odd, range(8), workers=workers)):
        warn("2 is even, \\udcff and ü")
    warnings.warn("of another library")
    print("all × done: \\udcff")

tool(prog_name="tool")
"""


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_each_warning_is_one_line_from_any_process_and_in_any_encoding(workers, encoding):
    line = [sys.executable, "-c", WARNS, "works", "--workers", workers]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(line, cwd=ROOT, capture_output=True, env=environment, timeout=60)
    cross, umlaut = ("×", "ü") if encoding == "utf-8" else ("\\xd7", "\\xfc")
    assert (done.returncode, done.stdout.decode()) == (0, f"all {cross} done: \\udcff\n")
    said = [part for part in done.stderr.decode().replace("\r", "\n").splitlines() if part.startswith("tool: ")]
    wanted = ["0 is odd and goes on", "1 is odd and goes on", f"2 is even, \\udcff and {umlaut}"]
    assert sorted(said) == [f"tool: warning: {line}" for line in wanted]
    assert b"UserWarning: of another library" in done.stderr


def test_outside_a_command_a_warning_is_a_python_warning():
    code = "from maskgen.errors import warn\ndef work(): warn('odd')\nwork()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "<string>:3: InputWarning: odd\n"


def failing(error):
    """The result of a command that raises an error."""

    @click.group(cls=Tool, name="tool")
    def tool():
        pass

    @tool.command()
    def fails():
        raise error

    return CliRunner().invoke(tool, ["fails"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(36, "File name too long", "x"), "x: File name too long; shorten it"),
        (OSError(24, "Too many open files", "x"), "x: Too many open files; use fewer --workers, or raise the limit of"),
        (OSError(28, "No space left on device"), f"the disk: No space left on device; {FIX}"),
        (FileNotFoundError(2, "No such file or directory", "a/b"), f"a/b: No such file or directory; {FIX}"),
        (OSError(5, "Input/output error", "a"), f"a: Input/output error; {FIX}"),
        (OSError(98, "Address already in use"), "the disk: Address already in use;"),
        (sqlite3.OperationalError("database or disk is full"), f"database or disk is full; {FIX}"),
        (MemoryError(), "out of memory: use smaller sizes, a smaller batch or fewer --workers"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: "),
        (BadInput("two\nlines"), "two lines"),
        (
            UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "no"),
            "'a\\udcff' contains a name that is not valid Unicode: rename",
        ),
        (ImportError("libGL.so.1 is missing", name="cv2"), "libGL.so.1 is missing"),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_line(error, line):
    done = failing(error)
    assert done.exit_code == 2 and done.output.startswith(f"tool: {line}") and done.output.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        *(KeyError("x"), OSError("of a library"), ImportError("x", name="x"), RuntimeError("x")),
        UnicodeEncodeError("ascii", "ü", 0, 1, "no"),
    ],
)
def test_a_bug_keeps_its_traceback(error):
    done = failing(error)
    assert done.exit_code == 1 and done.exception is error and not done.output


@pytest.fixture
def no_libgl(tmp_path):
    """An environment in which OpenCV cannot be imported, as after `pip install .` on a server."""
    missing = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({missing!r})")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT)))}


ADVICE = (
    "OpenCV needs a system library that is missing (libGL.so.1: cannot open shared object file: No such file or "
    "directory): on Debian or Ubuntu, apt install libgl1 libglib2.0-0; or use the build without windows: pip uninstall "
    "opencv-python, then pip install opencv-python-headless\n"
)


@pytest.mark.parametrize("words", ["maskgen bin .", "pconv inpaint . .", "evaluate --images ."])
def test_a_missing_system_library_is_one_line_with_its_name(words, no_libgl, tmp_path):
    tool = words.split()[0]
    line = [sys.executable, "-c", f"import cli; cli.{tool}(prog_name={tool!r})", *words.split()[1:]]
    done = subprocess.run(line, cwd=tmp_path, env=no_libgl, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{tool}: {ADVICE}")


@pytest.mark.parametrize("module", ["maskgen.extraction.run", "pconv_model.inpaint", "evaluation.metrics"])
def test_in_python_every_import_names_the_missing_library(module, no_libgl, tmp_path):
    code = f"import contextlib\nwith contextlib.suppress(ImportError): import {module}\nimport {module}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=no_libgl, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith(f"\nImportError: {ADVICE}")


def test_installation_hints_work_in_a_clone():
    index = "irregular-masks" + "["  # a package of that name is on no index
    texts = [path for ending in ("py", "md", "cfg", "toml", "html", "yml") for path in ROOT.rglob(f"*.{ending}")]
    ours = [path for path in texts if not {".venv", ".git", "build"} & set(path.relative_to(ROOT).parts)]
    assert len(ours) > 100 and not [
        path for path in ours if index in path.read_text(encoding="utf-8", errors="replace")
    ]
    extras = ConfigParser()
    extras.read(ROOT / "setup.cfg")
    hinted = [
        re.findall(r"install_hint\([\"'](\w+)|pip install '\.\[(\w+)", path.read_text(errors="replace"))
        for path in ours
    ]
    named = {name for found in hinted for pair in found for name in pair if name}
    assert {"cluster", "study"} < named <= set(extras["options.extras_require"])


@pytest.mark.parametrize("words", [["maskgen"], ["pconv"], ["evaluate", "study"]])
def test_a_tool_without_a_command_prints_its_help(words):
    bare, asked = typed(*words), typed(*words, "--help")
    assert (bare.exit_code, bare.stderr, bare.stdout) == (0, "", asked.stdout)
    assert "\nCommands:\n" in bare.stdout


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
        (
            "goes",
            130,
            "",
            "tool: stopped; nothing is lost, run the same command again to continue\n",
        ),  # in a destructor
        ("ends", 0, "all done\n", ""),  # while Python itself ends
    ],
)
def test_ctrl_c_stops_a_command_at_any_moment_without_a_traceback(name, code, out, err):
    line = [sys.executable, "-c", INTERRUPTED, name]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.lstrip()) == (code, out, err)
