"""Runs commands in forks of one process and compares their results; used by `benchmarks/faults.py`."""

import atexit
import csv
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"})  # before NumPy, torch and tqdm are imported

import cv2
import psutil
from extract import film

import cli
from maskgen.errors import BadInput
from maskgen.runtime.files import read_rows
from maskgen.runtime.lock import LOCK
from maskgen.runtime.output import PROGRESS

TINY = "--no-vgg --width 0.05 --size 32 --batch 2 --workers 1 --device cpu"
SCORED = "--images {work}/photos --size 96 --method telea --method mean --metric psnr --workers 2 --out out"
JOBS = {  # {work} is the folder of the inputs
    "extract": "maskgen extract {work}/film.mp4 --out out --train 60 --test 40 --size 128 --min-area 8 --workers 2",
    "augment": "maskgen augment {work}/raw out --count 120 --size 128 --workers 2",
    "testset": "maskgen testset {work}/raw out --per-category 3 --workers 2",
    "bin": "maskgen bin {work}/raw/test --polarity hole-white --out out --workers 2",
    "publish": "maskgen publish {work}/set out",
    "train": f"pconv train {{work}}/photos --masks {{work}}/raw --out out {TINY} --phase1-steps 30 --phase2-steps 10"
    " --validate-every 10 --minutes 0.002",
    "search": f"pconv search {{work}}/photos --masks {{work}}/raw --out out {TINY} --steps 8 --hole 6,3"
    " --minutes 0.002",
    "inpaint": "pconv inpaint {work}/photos {work}/holes out --weights {work}/net.safetensors --device cpu",
    "enlarge": "pconv superres {work}/photos out --weights {work}/net.safetensors --device cpu --factor 2",
    "evaluate": f"evaluate --masks {{work}}/masks {SCORED}",
    "pairs": "evaluate pairs --images {work}/photos --masks {work}/masks --size 96 --out out",
    "dilation": f"evaluate dilation 0 3 9 --masks {{work}}/masks --count 4 {SCORED}",
    "holes": f"evaluate holes --per-class 1 {SCORED}",
    "superres": f"evaluate superres {SCORED}",
    "study": "evaluate study make {work}/results out --images {work}/photos --per-class 2 --catches 0",
}
SECRET = "secret.json"  # of a study: random, so not compared
HEAVY = (  # modules that commands import; importing them takes longer than most of these jobs
    *("maskgen.extraction.run", "maskgen.testset", "maskgen.publish", "maskgen.plots", "evaluation.study.make"),
    *("evaluation.benchmark", "evaluation.experiments", "evaluation.report", "pconv_model.search"),
    *("pconv_model.inpaint", "pconv_model.superres"),
)
HANGS = 120  # s after which a command counts as hanging; undisturbed ones take some seconds


@dataclass
class Row:
    """The result of one trial, or the sum over all trials of one kind."""

    what: str
    command: str
    times: int = 1
    unaffected: int = 0  # runs that ended before the fault, or in spite of it
    files: int = 0  # files that differ from those of the undisturbed run, are missing or surplus
    parts: int = 0  # half-written files under a final name, and left-over parts and locks
    rows: int = 0  # lost or duplicate rows of an index or table
    messages: int = 0  # runs with more than one line of output, a traceback, an unexpected exit code, or that hung
    notes: list = field(default_factory=list)

    def add(self, other):
        """Add the counts of another trial."""
        for name in ("times", "unaffected", "files", "parts", "rows", "messages", "notes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def fault(self, kind, note):
        """Count a fault and add a note."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.notes.append(f"{self.command}, {self.what}: {note}")


class Command:
    """A command in a fork of this process, which has imported all modules already; importing them takes seconds.

    The fork leads a process group, like a program in a terminal. change: it is killed before the file change of this
    number; -1: it writes the number of file changes to `place`/changes.
    """

    def __init__(self, words, place, change=None):
        (place / "tmp").mkdir(parents=True, exist_ok=True)
        self.returncode = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._work(words, place, change)

    def _work(self, words, place, change):
        code = 1
        try:
            os.setsid()
            os.chdir(place)
            os.environ["TMPDIR"], tempfile.tempdir = str(place / "tmp"), None
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in ((1, "out.txt"), (2, "said")):
                os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if change is not None:
                _watch_changes(place, change)
            tool, *rest = words
            getattr(cli, tool)(rest, prog_name=tool)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with suppress(BaseException):
                threading._shutdown()  # as at the end of Python; the stack above this belongs to the parent
                atexit._run_exitfuncs()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def poll(self):
        """The exit code, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, seconds=HANGS):
        """The exit code, None if it is still running after this time."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        return self.returncode

    def ended(self):
        """Wait for the end, and kill the command if it hangs; returns the exit code."""
        if self.wait() is None:
            self.signal(signal.SIGKILL)
        return self.wait()

    def signal(self, number):
        """Send a signal to the whole group, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self):
        """Wait for the end of a command after a fault, and kill the rest of its group; returns the exit code."""
        until = time.monotonic() + HANGS
        while not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) and time.monotonic() < until:
            time.sleep(0.005)
        self.signal(signal.SIGKILL)  # before its number is free for another process
        return self.wait()

    def is_odd(self, place):
        """Whether it printed more than the one line that fits its exit code, or a traceback."""
        lines = said(place)
        return "Traceback" in "".join(lines) if self.returncode == 0 else len(lines) > 1

    def workers(self):
        """Its current child processes, without the helper of joblib that only cleans up."""
        try:
            below = psutil.Process(self.pid).children(recursive=True)
            return [child for child in below if "resource_tracker" not in " ".join(child.cmdline())]
        except psutil.Error:
            return []


def _watch_changes(place, change):
    """Count the file changes below `place`/out. Kill this process before one of them, or write their number."""
    out, seen = str(place / "out"), [0]

    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            path = arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(out):
            if seen[0] == change:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1

    sys.addaudithook(hook)
    if change < 0:
        atexit.register(lambda: (place / "changes").write_text(str(seen[0])))


def said(place):
    """Lines that the last command in `place` wrote to stderr, without warnings, progress bars and expected notes."""
    lines = (place / "said").read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.strip() and ": warning: " not in line and "%|" not in line]
    return [line for line in errors if not line.startswith(("continues from", "only one source"))]


def outcome(name, out):
    """Every file below `out` by name, as a hash of its content without speeds."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name != SECRET):
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # workers notice the end of their parent within a second
            continue
        if name in ("train", "search"):
            data = without_speed(path, data)
        found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def without_speed(path, data):
    """The content without the speed of a training run, which is the only thing that may differ."""
    import torch

    from pconv_model.checkpoints import load, read_header

    if path.suffix == ".csv":
        rows = [{**row, "images_per_s": ""} for row in csv.DictReader(data.decode().splitlines())]
        return repr(rows).encode()
    if path.suffix == ".safetensors":
        history, state = read_header(path)["history"], load(path).state_dict()
    elif path.suffix == ".pt":
        saved = torch.load(path, weights_only=True)
        history, state = saved["history"], {**saved["net"], **saved.get("average", {}), "step": saved["step"]}
    else:
        return data
    history = [{key: value for key, value in row.items() if key != "images_per_s"} for row in history]
    tensors = [(key, value.numpy().tobytes() if hasattr(value, "numpy") else value) for key, value in state.items()]
    return repr((history, tensors)).encode()


def is_left_over(path):
    """Whether a file is temporary, a lock or of an unfinished run, by its path below the output folder."""
    return ".part" in Path(path).name or Path(path).name == LOCK or path.startswith(f"{PROGRESS}/")


def grows(name, path):
    """Whether a run appends to a file, or rewrites it as it continues."""
    return name in ("train", "search") or path.endswith((".jsonl", ".sqlite")) or path.startswith("journal/")


class Lab:
    """The inputs, and the results of undisturbed runs."""

    def __init__(self, folder, names):
        self.folder, self.work = folder, folder / "work"
        self.wanted, self.seconds, self.changes, self.lines = {}, {}, {}, {}
        self.work.mkdir()
        for module in HEAVY:
            import_module(module)
        cv2.setNumThreads(0)  # a fork would copy the state of the threads, but not the threads
        prepare(self.work)
        for name in names:
            place, begin = folder / name, time.monotonic()
            code = self.start(name, place).ended()
            assert code == 0, f"{name} fails without any fault: {said(place)}"
            self.seconds[name] = time.monotonic() - begin
            self.wanted[name] = outcome(name, place / "out")
            self.lines[name] = {path: len(read_rows(place / "out" / path)) for path in self.tables(name)}
            self.start(name, folder / "counted", -1).ended()
            self.changes[name] = int((folder / "counted" / "changes").read_text())
            shutil.rmtree(folder / "counted")

    def tables(self, name):
        """The CSV files of a command, by their paths below its output folder."""
        return [path for path in self.wanted[name] if path.endswith(".csv")]

    def start(self, name, place, change=None):
        """Start a command in the folder `place`."""
        return Command(JOBS[name].format(work=self.work).split(), place, change)

    def started(self, name, place, share):
        """A command that has run for a share of its usual time. One that ends sooner is started again.

        The machine may have become faster, and a kill after the end would test nothing.
        """
        for last in (False, False, True):
            begin, command = time.monotonic(), self.start(name, place)
            if command.wait(share * self.seconds[name]) is None:
                return command
            if not last:
                self.seconds[name] = 0.98 * (time.monotonic() - begin)
                empty(place)
        return command

    def check_whole(self, row, name, out):
        """Add to a row the files that an interrupted run left under their final name with other bytes."""
        for path, digest in outcome(name, out).items() if not grows(name, "") else ():
            if not is_left_over(path) and not grows(name, path) and digest != self.wanted[name].get(path):
                row.fault("parts", f"{path} is half-written")

    def check_resumed(self, row, name, place):
        """Run the same command once more and compare its result."""
        code = self.start(name, place).ended()
        if code:
            row.fault("messages", f"it ended with {code}: {said(place)[-1:]}")
        self.compare(row, name, place / "out")

    def compare(self, row, name, out):
        """Add to a row all differences from the undisturbed run."""
        got, wanted = outcome(name, out), self.wanted[name]
        for path in sorted({*got, *wanted}):
            if path in got and is_left_over(path):
                row.fault("parts", f"{path} was left over")
            elif got.get(path) != wanted.get(path):
                row.fault("files", f"{path} {'differs' if path in got and path in wanted else 'is missing or surplus'}")
        for path in self.tables(name):
            with suppress(BadInput):  # an unreadable table was counted above
                rows = [tuple(row.values()) for row in read_rows(out / path)]
                row.rows += abs(len(rows) - self.lines[name][path])


def empty(place):
    """Remove all that a run has left in a folder, but not the folder, which may be a mounted disk."""
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def prepare(work):
    """Make the inputs: a film, photos, masks, a test set, a net, and results for a user study."""
    from skimage import data

    from pconv_model import checkpoints
    from pconv_model.settings import NetConfig
    from pconv_model.unet import build

    film(work / "film.mp4", 160)
    for name in ("photos", "masks", "holes"):
        (work / name).mkdir()
    names = ("astronaut", "coffee", "chelsea", "rocket")
    for name in names:
        photo = cv2.resize(getattr(data, name)(), (128, 128), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(work / "photos" / f"{name}.png"), cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
    checkpoints.save(work / "net.safetensors", build(NetConfig(width=0.05, depth=3)))
    made = (
        f"maskgen extract {work}/film.mp4 --out {work}/raw --train 20 --test 40 --size 128 --min-area 8",
        f"maskgen testset {work}/raw {work}/set --per-category 2",
        f"evaluate --masks {work}/masks {SCORED} --out {work}/results",
    )
    for line in made:
        code = Command(line.format(work=work).split(), work / "made").ended()
        assert code == 0, said(work / "made")
        for i, path in enumerate(sorted((work / "raw" / "test").rglob("*.png"))):
            shutil.copy(path, work / "masks" / f"{i:03d}.png")
            if i < len(names):
                mask = cv2.resize(cv2.imread(str(path), 0), (128, 128), interpolation=cv2.INTER_NEAREST)
                cv2.imwrite(str(work / "holes" / f"{names[i]}.png"), mask)
