"""What a kill, Ctrl-C, a full or read-only disk and a second run cost: everything is tried on real commands.

    python benchmarks/faults.py [--kills 50] [--minutes 60] [--case kill --case disk ...] [--command extract ...]

Small jobs of `maskgen extract`, `maskgen testset`, `evaluate` and `pconv train` are disturbed at moments drawn over
their whole length and then continued by the same command. What that ends with is compared, byte by byte, with an
undisturbed run. Touches only processes it has started and a folder of its own. Prints a Markdown table.
"""

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click
import cv2
import numpy as np
import psutil
from extract import film

from maskgen.alone import LOCK
from maskgen.maskset import INDEX

ROOT = Path(__file__).parents[1]
CASES = ("kill", "ctrl-c", "disk", "readonly", "two")
JOBS = {  # name: the tool, and its words; {work} is where the inputs lie
    "extract": (
        "maskgen",
        "extract {work}/film.mp4 --out out --train 60 --test 40 --size 128 --min-area 8 --workers 2",
    ),
    "testset": ("maskgen", "testset {work}/raw out --per-category 6 --workers 2"),
    "evaluate": (
        "evaluate",
        "--images {work}/photos --masks {work}/masks --size 96 --method telea --method mean --metric psnr --metric ssim"
        " --workers 2 --out out",
    ),
    "train": (
        "pconv",
        "train {work}/photos --masks {work}/raw --out out --no-vgg --width 0.05 --depth 3 --size 32 --batch 2"
        " --phase1-steps 30 --phase2-steps 10 --validate-every 10 --log-every 5 --validation 2 --minutes 0.002"
        " --workers 1 --device cpu",
    ),
}


@dataclass
class Row:
    """What became of one kind of disturbance of one command."""

    what: str
    command: str
    times: int = 0
    unhurt: int = 0  # runs that had ended, or went on to their end, before or in spite of it
    files: int = 0  # that differ from the undisturbed run's, are missing or too many
    parts: int = 0  # half-written files and locks that stayed
    rows: int = 0  # of an index or table lost or doubled
    told: int = 0  # disturbed runs that showed more than one line, a traceback, or an unexpected exit code
    notes: list = field(default_factory=list)


def start(name, work, place):
    """Start a command in the folder `place`, in a process group of its own."""
    tool, words = JOBS[name]
    line = [sys.executable, "-c", f"import cli; cli.{tool}(prog_name={tool!r})", *words.format(work=work).split()]
    place.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    with (place / "said").open("w") as said:
        return subprocess.Popen(
            line, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True
        )


def said(place):
    """What the last command in `place` said on stderr, without what only tells where it goes on from."""
    lines = (place / "said").read_text(errors="replace").splitlines()
    told = [line for line in lines if line.strip() and "%|" not in line]  # nor bars of progress
    return [line for line in told if not line.startswith(("goes on from", "only one source"))]


def finish(name, work, place):
    """Run a command to its end; returns its exit code. What lasts longer than five minutes hangs."""
    return start(name, work, place).wait(timeout=300)


def outcome(name, out):
    """Every file below `out` by its name, as a hash of what counts in it."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if name == "train":
            data = without_speed(path, data)
        found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def without_speed(path, data):
    """A training run writes how fast it was; everything else has to be the same."""
    import torch

    from pconv_model.checkpoints import load, read_header

    if path.name == "history.csv":
        rows = [{**row, "images_per_s": ""} for row in csv.DictReader(data.decode().splitlines())]
        return repr(rows).encode()
    if path.suffix == ".safetensors":
        history, state = read_header(path)["history"], load(path).state_dict()
    elif path.suffix == ".pt":
        told = torch.load(path, weights_only=True)
        history, state = told["history"], {**told["net"], **told.get("average", {}), "step": told["step"]}
    else:
        return data
    history = [{key: value for key, value in row.items() if key != "images_per_s"} for row in history]
    tensors = [(key, value.numpy().tobytes() if hasattr(value, "numpy") else value) for key, value in state.items()]
    return repr((history, tensors)).encode()


def compare(row, name, out, wanted):
    """Add to a row what is not as in the undisturbed run."""
    got = outcome(name, out)
    halves = [path for path in got if path.endswith(".part") or Path(path).name == LOCK]
    differ = [path for path in {*got, *wanted} if got.get(path) != wanted.get(path) and path not in halves]
    row.parts += len(halves)
    row.files += len(differ)
    for table in {path for path in got if Path(path).name in (INDEX, "scores.csv", "history.csv")}:
        lines = (out / table).read_text().splitlines()
        row.rows += abs(len(lines) - wanted_lines[name, table]) + len(lines) - len(set(lines))
    row.notes += [f"{row.command}: {path}" for path in [*halves, *differ][:3]]


wanted_lines = {}  # of the tables of the undisturbed runs


def workers_of(process):
    """The workers below a process, as they are now; not the helper of joblib that only tidies up after them."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
        return [child for child in below if "resource_tracker" not in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def end(process):
    """Wait for a process that was hit, and end what is left of its group."""
    until = time.monotonic() + 300
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        assert time.monotonic() < until, f"{process.args} hangs"
        time.sleep(0.02)
    with suppress(ProcessLookupError):  # before its number is given back, and could be another's
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


class Lab:
    """The inputs, the undisturbed runs, and the time that is left."""

    def __init__(self, folder, names, minutes, seed):
        self.work, self.seed, self.wanted, self.seconds = folder / "work", seed, {}, {}
        self.until = time.monotonic() + 60 * minutes
        self.work.mkdir()
        film(self.work / "film.mp4", 160)
        prepare(self.work)
        for name in names:
            begin = time.monotonic()
            code = finish(name, self.work, folder / name)
            assert code == 0, f"{name} fails undisturbed: {said(folder / name)}"
            self.seconds[name] = time.monotonic() - begin
            self.wanted[name] = outcome(name, folder / name / "out")
            for table in self.wanted[name]:
                if Path(table).name in (INDEX, "scores.csv", "history.csv"):
                    lines = (folder / name / "out" / table).read_text().splitlines()
                    wanted_lines[name, table] = len(lines)
        self.folder = folder

    def moments(self, name, count, case):
        """Shares of the run's length, drawn one from each of `count` equal parts of it."""
        rng = np.random.default_rng([self.seed, CASES.index(case), list(JOBS).index(name)])
        places = (rng.permutation(count) + rng.random(count)) / count
        for place in places:
            if time.monotonic() > self.until:
                return
            yield float(place), rng

    def reached(self, name, place, share):
        """A command that has gone on for a share of its length; one that ended sooner is begun anew, its length kept.

        The machine may be faster now than it was; a kill that comes too late would say nothing.
        """
        for last in (False, False, True):
            begin, process = time.monotonic(), start(name, self.work, place)
            try:
                process.wait(timeout=share * self.seconds[name])
            except subprocess.TimeoutExpired:
                return process
            if not last:
                self.seconds[name] = 0.98 * (time.monotonic() - begin)
                shutil.rmtree(place)
        return process

    @contextmanager
    def place(self):
        """A folder for one trial, which goes again."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            yield Path(place)

    def judge(self, row, name, place):
        """The same command once more, and what it ends with."""
        row.times += 1
        code = finish(name, self.work, place)
        if code:
            row.told += 1
            row.notes.append(f"{name} ended with {code}: {said(place)[-1:]}")
        compare(row, name, place / "out", self.wanted[name])


def prepare(work):
    """Photos, raw masks and masks to lay over the photos."""
    from skimage import data

    (work / "photos").mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        photo = cv2.resize(getattr(data, name)(), (128, 128), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(work / "photos" / f"{name}.png"), cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))
    code = "import cli; cli.maskgen()"
    raw = f"extract {work}/film.mp4 --out {work}/raw --train 20 --test 40".split()
    done = subprocess.run([sys.executable, "-c", code, *raw], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (work / "masks").mkdir()
    for i, path in enumerate(sorted((work / "raw" / "test").rglob("*.png"))):
        shutil.copy(path, work / "masks" / f"{i:03d}.png")


def kill(lab, name, count, rows):
    """kill -9 of the main process and of one that it has started, by turns; every third run is hit twice."""
    main = Row("kill -9 of the main process", name)
    worker = Row("kill -9 of a worker", name)
    for turn, (moment, rng) in enumerate(lab.moments(name, count, "kill")):
        with lab.place() as place:
            row, late = main, 0
            for strike in range(1 + (turn % 3 == 2)):
                if strike:  # what is left to do is less, so this one may well come too late
                    process = start(name, lab.work, place)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=float(rng.random() * lab.seconds[name]))
                else:
                    process = lab.reached(name, place, moment)
                below = workers_of(process) if turn % 2 else []
                hit = below[int(rng.integers(len(below)))] if below else process
                row = worker if below else row
                late += process.poll() is not None
                with suppress(psutil.Error, ProcessLookupError):
                    hit.kill()
                if below:  # it ends by itself, with one line or none
                    code = end(process)
                    late += code == 0
                    if code not in (0, 2) or len(said(place)) > (code == 2):
                        row.told += 1
                        row.notes.append(f"{name}, worker killed: exit code {code}, {said(place)[-2:]}")
                process.wait()
            row.unhurt += late > strike
            lab.judge(row, name, place)
    rows += [row for row in (main, worker) if row.times]


def ctrl_c(lab, name, count, rows):
    """SIGINT to the whole group, as a terminal sends it."""
    row = Row("Ctrl-C", name)
    for moment, _ in lab.moments(name, count, "ctrl-c"):
        with lab.place() as place:
            process = lab.reached(name, place, max(moment, 0.4 / lab.seconds[name]))  # sooner Python itself starts
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            code = end(process)
            row.unhurt += code == 0
            if code not in (0, 130) or len(said(place)) > (code == 130):
                row.told += 1
                row.notes.append(f"{name}, Ctrl-C after {moment:.0%}: exit code {code}, {said(place)[-2:]}")
            lab.judge(row, name, place)
    rows.append(row)


@contextmanager
def small_disk(place, size):
    """A tmpfs of some bytes at `place`; yields a function that mounts it anew with other options."""

    def mount(*options):
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", place], check=True)

    place.mkdir(parents=True)
    mount(f"size={size}")
    try:
        yield lambda *options: mount("remount", *options)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def may_mount():
    """Whether this user may mount a tmpfs here."""
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", "1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def refused(row, name, place, code, words):
    """Count a run that did not end with exit code 2 and one line with the words."""
    lines = said(place)
    if code != 2 or len(lines) != 1 or words not in lines[0]:
        row.told += 1
        row.notes.append(f"{name}, expected {words!r}: exit code {code}, {lines[-2:]}")


def disk(lab, name, count, rows):
    """A disk that is full at a random byte; then it is made larger and the same command given."""
    row, rng = Row("disk full", name), np.random.default_rng([lab.seed, 7])
    with lab.place() as place:
        finish(name, lab.work, place)
        whole = sum(-(-path.stat().st_size // 4096) * 4096 for path in (place / "out").rglob("*") if path.is_file())
    for _, _ in lab.moments(name, count, "disk"):
        with lab.place() as place, small_disk(place / "out", int(whole * rng.uniform(0.1, 0.95))) as remount:
            code = finish(name, lab.work, place)
            if code:
                refused(row, name, place, code, "No space left on device")
            row.unhurt += code == 0
            row.parts += len(list((place / "out").rglob("*.part")))
            remount("size=500m")
            lab.judge(row, name, place)
    rows.append(row)


def readonly(lab, name, count, rows):
    """A run that was killed finds its folder read-only; then it may write again."""
    row = Row("output folder turned read-only", name)
    for moment, _ in lab.moments(name, count, "readonly"):
        with lab.place() as place, small_disk(place / "out", "500m") as remount:
            process = start(name, lab.work, place)
            time.sleep(moment * lab.seconds[name])
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.2)
            remount("ro")
            refused(row, name, place, finish(name, lab.work, place), "Read-only file system")
            remount("rw")
            lab.judge(row, name, place)
    rows.append(row)


def two(lab, name, count, rows):
    """A second run is started while the first one is at work."""
    row = Row("two runs on one folder", name)
    for _, rng in lab.moments(name, count, "two"):
        with lab.place() as place:
            first = start(name, lab.work, place)
            while not (place / "out" / LOCK).exists() and first.poll() is None:
                time.sleep(0.01)
            time.sleep(float(rng.random()) / 5)
            with tempfile.TemporaryDirectory(dir=lab.folder) as other:  # the same folder under another name
                (Path(other) / "out").symlink_to(place / "out")
                code = finish(name, lab.work, Path(other))
                ended = first.poll() is not None
                row.unhurt += ended
                if not ended:
                    refused(row, name, Path(other), code, "another run is at work")
            if first.wait(timeout=300):
                row.told += 1
                row.notes.append(f"{name}: the first of two runs ended with {first.returncode}: {said(place)[-1:]}")
            lab.judge(row, name, place)
    rows.append(row)


@click.command()
@click.option("--kills", default=50, show_default=True, help="Kills of every command.")
@click.option("--others", default=5, show_default=True, help="Times of everything else, for every command.")
@click.option("--minutes", default=60.0, show_default=True, help="No trial begins after this.")
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), default=CASES)
@click.option("--command", "names", multiple=True, type=click.Choice(list(JOBS)), default=list(JOBS))
@click.option("--seed", default=0, show_default=True)
def main(kills, others, minutes, cases, names, seed):
    rows = []
    mounts = not {"disk", "readonly"} & set(cases) or may_mount()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), names, minutes, seed)
        for case in cases:
            if case in ("disk", "readonly") and not mounts:
                continue
            for name in names:
                function = {"kill": kill, "ctrl-c": ctrl_c, "disk": disk, "readonly": readonly, "two": two}[case]
                function(lab, name, kills if case == "kill" else others, rows)
                print(f"{case} {name}: done", file=sys.stderr)
    head = ("what was done", "command", "times", "unhurt", "files that differ", "half files", "rows wrong", "told ill")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for row in rows:
        print(
            f"| {row.what} | {row.command} | {row.times} | {row.unhurt} | {row.files} | {row.parts} | {row.rows} "
            f"| {row.told} |"
        )
    lengths = ", ".join(f"{name} {lab.seconds[name]:.1f}" for name in names)
    print(f"\nseconds of an undisturbed run: {lengths}")
    if not mounts:
        print("full and read-only disks were left out: they need the right to mount a tmpfs")
    for note in dict.fromkeys(note for row in rows for note in row.notes):
        print(f"* {note}")
    sys.exit(any(row.files or row.parts or row.rows or row.told for row in rows))


if __name__ == "__main__":
    main()
