"""What a kill, Ctrl-C, a full or read-only disk and a second run cost: everything is tried on real commands.

    python benchmarks/faults.py [--kills 50] [--log trials.jsonl] [--case kill --case disk ...] [--command extract ...]

Small jobs of `maskgen extract`, `maskgen testset`, `evaluate` and `pconv train` are disturbed at moments drawn over
their whole length and then continued by the same command. What that ends with is compared, byte by byte, with an
undisturbed run. Touches only processes it has started and a folder of its own. Prints a Markdown table, row by row.
With --log every trial is kept as it ends: a run that was stopped goes on from there, and several may share a log.
"""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import cv2
import numpy as np
import psutil
from extract import film

from maskgen.maskset import INDEX
from maskgen.runtime.output import LOCK

ROOT = Path(__file__).parents[1]
CASES = ("kill", "ctrl-c", "disk", "readonly", "two")
JOBS = {  # name: the tool, and its words; {work} is where the inputs lie
    "extract": (
        "maskgen",
        "extract {work}/film.mp4 --out out --train 60 --test 40 --size 128 --min-area 8 --workers 2",
    ),
    "testset": ("maskgen", "testset {work}/raw out --per-category 3 --workers 2"),
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
    """What became of one trial, or of all of one kind."""

    what: str
    command: str
    times: int = 1
    unhurt: int = 0  # runs that had ended, or went on to their end, before or in spite of it
    files: int = 0  # that differ from the undisturbed run's, are missing or too many
    parts: int = 0  # half-written files and locks that stayed
    rows: int = 0  # of an index or table lost or doubled
    told: int = 0  # runs that showed more than one line, a traceback or an unexpected exit code, or hung
    notes: list = field(default_factory=list)

    def add(self, other):
        """Count another trial in."""
        for name in ("times", "unhurt", "files", "parts", "rows", "told", "notes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def start(name, work, place):
    """Start a command in the folder `place`, in a process group of its own."""
    tool, words = JOBS[name]
    code = f"import cli, os; os.mkdir('begun'); cli.{tool}(prog_name={tool!r})"
    (place / "tmp").mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        (place / "begun").rmdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    environment["TMPDIR"] = str(place / "tmp")
    line = [sys.executable, "-c", code, *words.format(work=work).split()]
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
    """Run a command to its end; returns its exit code, or -9 where it lasts longer than five minutes: it hangs."""
    return ended(start(name, work, place))


def ended(process):
    """Wait for a process, or end it after five minutes; returns its exit code."""
    try:
        return process.wait(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


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
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) and time.monotonic() < until:
        time.sleep(0.02)
    with suppress(ProcessLookupError):  # before its number is given back, and could be another's
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


class Lab:
    """The inputs and the undisturbed runs."""

    def __init__(self, folder, names):
        self.folder, self.work, self.wanted, self.seconds = folder, folder / "work", {}, {}
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

    def reached(self, name, place, share, begun=False):
        """A command that has gone on for a share of its length; one that ended sooner is begun anew, its length kept.

        The machine may be faster now than it was; a kill that comes too late would say nothing. begun: not before the
        command itself is at work, and not Python alone.
        """
        for last in (False, False, True):
            begin, process = time.monotonic(), start(name, self.work, place)
            while begun and not (place / "begun").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.1 * begun)
            try:
                process.wait(timeout=max(0, begin + share * self.seconds[name] - time.monotonic()))
            except subprocess.TimeoutExpired:
                return process
            if not last:
                self.seconds[name] = 0.98 * (time.monotonic() - begin)
                empty(place)
        return process

    def judge(self, row, name, place):
        """The same command once more, and what it ends with."""
        code = finish(name, self.work, place)
        if code:
            row.told += 1
            row.notes.append(f"{name} ended with {code}: {said(place)[-1:]}")
        compare(row, name, place / "out", self.wanted[name])


def empty(place):
    """Take away what a run has left in a place; a disk mounted there stays."""
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass
class Trial:
    """One disturbance of one command: a share of its length at which it comes, random numbers, a folder."""

    name: str
    number: int
    moment: float
    rng: np.random.Generator
    place: Path


def trial_of(case, name, number, count, seed, place):
    """Trial `number` of `count`: moments are drawn one from each of as many equal parts of the run."""
    drawn = np.random.default_rng([seed, CASES.index(case), list(JOBS).index(name), count])
    moments = (drawn.permutation(count) + drawn.random(count)) / count
    rng = np.random.default_rng([seed, CASES.index(case), list(JOBS).index(name), count, number])
    return Trial(name, number, float(moments[number]), rng, place)


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


def kill(lab, trial):
    """kill -9 of the main process or, by turns, of one that it has started; every third run is hit twice."""
    name, place, rng = trial.name, trial.place, trial.rng
    row, late = Row("kill -9 of the main process", name), 0
    for strike in range(1 + (trial.number % 3 == 2)):
        if strike:  # what is left to do is less, so this one may well come too late
            process = start(name, lab.work, place)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=float(rng.random() * lab.seconds[name]))
        else:
            process = lab.reached(name, place, trial.moment)
        below = workers_of(process) if trial.number % 2 else []
        hit = below[int(rng.integers(len(below)))] if below else process
        if below:
            row.what = "kill -9 of a worker"
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
    return row


def ctrl_c(lab, trial):
    """SIGINT to the whole group, as a terminal sends it."""
    name, place = trial.name, trial.place
    row, process = Row("Ctrl-C", name), lab.reached(name, place, trial.moment, begun=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    code = end(process)
    row.unhurt += code == 0
    if code not in (0, 130) or len(said(place)) > (code == 130):
        row.told += 1
        row.notes.append(f"{name}, Ctrl-C after {trial.moment:.0%}: exit code {code}, {said(place)[-3:]}")
    lab.judge(row, name, place)
    return row


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


def disk(lab, trial):
    """A disk that is full at a random byte; then it is made larger and the same command given."""
    name, place, row = trial.name, trial.place, Row("disk full", trial.name)
    files = [path for path in (lab.folder / name / "out").rglob("*") if path.is_file()]
    whole = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
    with small_disk(place / "out", int(whole * (0.1 + 0.85 * trial.moment))) as remount:
        code = finish(name, lab.work, place)
        if code:
            refused(row, name, place, code, "No space left on device")
        row.unhurt += code == 0
        row.parts += len(list((place / "out").rglob("*.part")))
        remount("size=500m")
        lab.judge(row, name, place)
    return row


def readonly(lab, trial):
    """A run that was killed finds its folder read-only; then it may write again."""
    name, place, row = trial.name, trial.place, Row("output folder turned read-only", trial.name)
    with small_disk(place / "out", "500m") as remount:
        process = start(name, lab.work, place)
        time.sleep(trial.moment * lab.seconds[name])
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        remount("ro")
        refused(row, name, place, finish(name, lab.work, place), "Read-only file system")
        remount("rw")
        lab.judge(row, name, place)
    return row


def two(lab, trial):
    """A second run is started while the first one is at work."""
    name, place, row = trial.name, trial.place, Row("two runs on one folder", trial.name)
    first = start(name, lab.work, place)
    while not (place / "out" / LOCK).exists() and first.poll() is None:
        time.sleep(0.01)
    time.sleep(float(trial.rng.random()) / 5)
    other = place / "other"  # the same folder under another name
    other.mkdir()
    (other / "out").symlink_to(place / "out")
    code = finish(name, lab.work, other)
    if first.poll() is None:
        refused(row, name, other, code, "another run is at work")
    else:
        row.unhurt += 1
    if ended(first):
        row.told += 1
        row.notes.append(f"{name}: the first of two runs ended with {first.returncode}: {said(place)[-1:]}")
    lab.judge(row, name, place)
    return row


TRY = {"kill": kill, "ctrl-c": ctrl_c, "disk": disk, "readonly": readonly, "two": two}


class Trials:
    """The trials that are done, by (case, command, number), in a file of one JSON line each if there is one."""

    def __init__(self, log):
        self.log, self.done = log, {}
        for line in log.read_text().splitlines() if log and log.exists() else ():
            told = json.loads(line)
            self.done[tuple(told["trial"])] = Row(**told["row"])

    def add(self, key, row):
        """Keep a trial, on the disk when this returns."""
        self.done[key] = row
        if self.log:
            with self.log.open("a") as file:
                file.write(json.dumps({"trial": key, "row": asdict(row)}) + "\n")

    def rows(self, case, name):
        """What the trials of a case and a command add up to, a row for each kind of disturbance."""
        found = {}
        for (of_case, of_name, _), row in sorted(self.done.items(), key=lambda item: item[0]):
            if (of_case, of_name) == (case, name):
                found.setdefault(row.what, Row(row.what, name, times=0)).add(row)
        return list(found.values())


def run(trials, names, cases, counts, minutes, seed):
    """Do the trials that are lacking, and yield the rows of each case and command as they are complete."""
    until, lab = time.monotonic() + 60 * minutes, None
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            for name in names:
                for number in range(counts[case]):
                    if (case, name, number) in trials.done or time.monotonic() > until:
                        continue
                    lab = lab or Lab(Path(folder), names)
                    with tempfile.TemporaryDirectory(dir=folder) as place:
                        row = TRY[case](lab, trial_of(case, name, number, counts[case], seed, Path(place)))
                    trials.add((case, name, number), row)
                    for note in row.notes:
                        print(note, file=sys.stderr, flush=True)
                yield from trials.rows(case, name)
    if lab:
        lengths = ", ".join(f"{name} {lab.seconds[name]:.1f}" for name in names)
        print(f"seconds of an undisturbed run: {lengths}", file=sys.stderr)


@click.command()
@click.option("--kills", default=50, show_default=True, help="Kills of every command.")
@click.option("--others", default=5, show_default=True, help="Times of everything else, for every command.")
@click.option("--minutes", default=90.0, show_default=True, help="No trial begins after this.")
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), default=CASES)
@click.option("--command", "names", multiple=True, type=click.Choice(list(JOBS)), default=list(JOBS))
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Keep every trial here, and go on.")
@click.option("--seed", default=0, show_default=True)
def main(kills, others, minutes, cases, names, log, seed):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    if {"disk", "readonly"} & set(cases) and not may_mount():
        print("full and read-only disks are left out: they need the right to mount a tmpfs", file=sys.stderr)
        cases = [case for case in cases if case not in ("disk", "readonly")]
    counts = {case: kills if case == "kill" else others for case in cases}
    head = ("what was done", "command", "times", "unhurt", "files that differ", "half files", "rows wrong", "told ill")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    bad = 0
    for row in run(Trials(log), names, cases, counts, minutes, seed):
        cells = (row.what, row.command, row.times, row.unhurt, row.files, row.parts, row.rows, row.told)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        bad += row.files + row.parts + row.rows + row.told
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
