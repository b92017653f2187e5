"""What a kill, Ctrl-C, a full or read-only disk and a second run cost: everything is tried on real commands.

    python benchmarks/faults.py [--kills 14] [--log trials.jsonl] [--case kill --case disk ...] [--command extract ...]

A small job of every command that writes a folder is disturbed and then continued by the same command. What that ends
with is compared, byte by byte, with an undisturbed run. Half of the kills come at moments drawn over the length of the
job, half at its changes of files: before a file is opened to be written, renamed or removed, from the first to the
last. Touches only processes it has started and a folder of its own. Prints a Markdown table, row by row. With --log
every trial is kept as it ends: a run that was stopped goes on from there.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from running import JOBS, Lab, Row, said  # isort: skip - before NumPy, whose number of threads it sets

import click
import numpy as np
import psutil

from maskgen.runtime.lock import LOCK
from maskgen.runtime.recipe import RECIPE

CASES = ("kill", "ctrl-c", "disk", "readonly", "two", "again")


@dataclass
class Trial:
    """One disturbance of one command: a share of its length at which it comes, random numbers, a folder."""

    name: str
    number: int
    count: int
    moment: float
    rng: np.random.Generator
    place: Path


def trial_of(case, name, number, count, seed, place):
    """Trial `number` of `count`: moments are drawn one from each of as many equal parts of the run."""
    key = [seed, CASES.index(case), list(JOBS).index(name), count]
    drawn = np.random.default_rng(key)
    moments = (drawn.permutation(count) + drawn.random(count)) / count
    return Trial(name, number, count, float(moments[number]), np.random.default_rng([*key, number]), place)


def kill(lab, trial):
    """kill -9: of the main process at a change of a file, of it or of a worker at a moment; some are hit twice."""
    name, place, rng = trial.name, trial.place, trial.rng
    if trial.number % 2 == 0:
        row, last = Row("kill -9 at a change of a file", name), max(1, lab.changes[name] - 1)
        share = 2 * (trial.number // 2) / max(1, trial.count - 2)  # from the first change to the last
        command = lab.start(name, place, round(last * share))
        row.unhurt += command.ended() == 0
    else:
        row, late = Row("kill -9 at a moment", name), 0
        workers = trial.number % 4 == 3  # which have to be at work: those that cannot start are done without
        command = lab.started(name, place, 0.5 + trial.moment / 2 if workers else trial.moment)
        below = command.workers() if workers else []
        late += command.poll() is not None
        with suppress(psutil.Error, ProcessLookupError):
            (below[int(rng.integers(len(below)))] if below else psutil.Process(command.pid)).kill()
        if below:  # it ends by itself, with one line or none
            row.what = "kill -9 of a worker"
            code = command.end()
            late += code == 0
            if code not in (0, 2) or command.is_odd(place):
                row.fault("messages", f"exit code {code}, {said(place)[-2:]}")
        command.ended()
        row.unhurt += bool(late)
    lab.check_whole(row, name, place / "out")
    if trial.number % 5 == 4:  # once more while it goes on; what is left to do is less, so this may come too late
        command = lab.start(name, place)
        command.wait(float(rng.random() * lab.seconds[name]))
        command.signal(signal.SIGKILL)
        command.ended()
    lab.check_resumed(row, name, place)
    return row


def ctrl_c(lab, trial):
    """SIGINT to the whole group, as a terminal sends it."""
    name, place = trial.name, trial.place
    row, command = Row("Ctrl-C", name), lab.started(name, place, 0.03 + 0.97 * trial.moment)
    command.signal(signal.SIGINT)
    code = command.end()
    row.unhurt += code == 0
    if code not in (0, 130) or command.is_odd(place):
        row.fault("messages", f"after {trial.moment:.0%}: exit code {code}, {said(place)[-3:]}")
    lab.check_whole(row, name, place / "out")
    lab.check_resumed(row, name, place)
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


def refused(row, place, code, words):
    """Count a run that did not end with exit code 2 and one line with the words."""
    lines = said(place)
    if code != 2 or len(lines) != 1 or words not in lines[0]:
        row.fault("messages", f"expected {words!r}: exit code {code}, {lines[-2:]}")


def disk(lab, trial):
    """A disk that is full at a random byte; then it is made larger and the same command given."""
    name, place, row = trial.name, trial.place, Row("disk full", trial.name)
    files = [path for path in (lab.folder / name / "out").rglob("*") if path.is_file()]
    whole = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
    with small_disk(place / "out", int(whole * (0.05 + 0.9 * trial.moment))) as remount:
        code = lab.start(name, place).ended()
        if code:
            refused(row, place, code, "No space left on device")
        row.unhurt += code == 0
        row.parts += len(list((place / "out").rglob("*.part")))
        lab.check_whole(row, name, place / "out")
        remount("size=500m")
        lab.check_resumed(row, name, place)
    return row


def readonly(lab, trial):
    """A run that was killed finds its folder read-only; then it may write again."""
    name, place, row = trial.name, trial.place, Row("output folder turned read-only", trial.name)
    with small_disk(place / "out", "500m") as remount:
        command = lab.start(name, place)
        command.wait(trial.moment * lab.seconds[name])
        command.signal(signal.SIGKILL)
        command.ended()
        time.sleep(0.2)
        remount("ro")
        refused(row, place, lab.start(name, place).ended(), "Read-only file system")
        remount("rw")
        lab.check_resumed(row, name, place)
    return row


def two(lab, trial):
    """A second run is started while the first one is at work."""
    name, place, row = trial.name, trial.place, Row("two runs on one folder", trial.name)
    first = lab.start(name, place)
    while not (place / "out" / LOCK).exists() and first.poll() is None:
        time.sleep(0.001)
    time.sleep(trial.moment * lab.seconds[name] / 4)
    other = place / "other"  # the same folder under another name
    other.mkdir()
    (other / "out").symlink_to(place / "out")
    code = lab.start(name, other).ended()
    if first.poll() is None:
        refused(row, other, code, "another run is using")
    else:
        row.unhurt += 1
    if first.ended():
        row.fault("messages", f"the first of two runs ended with {first.returncode}: {said(place)[-1:]}")
    lab.check_resumed(row, name, place)
    return row


def again(lab, trial):
    """The same command on its finished folder: it says so and changes nothing."""
    name, place, row = trial.name, trial.place, Row("the finished command again", trial.name)
    shutil.copytree(lab.folder / name / "out", place / "out")
    code = lab.start(name, place).ended()
    text = (place / "said").read_text() + (place / "out.txt").read_text()
    if code or (RECIPE in lab.wanted[name] and "is already complete" not in text):
        row.fault("messages", f"expected 'is already complete': exit code {code}, {text.splitlines()[-2:]}")
    lab.compare(row, name, place / "out")
    return row


TRY = {"kill": kill, "ctrl-c": ctrl_c, "disk": disk, "readonly": readonly, "two": two, "again": again}


class Trials:
    """The trials that are done, by (case, command, number), in a file of one JSON line each if there is one."""

    def __init__(self, log):
        self.log, self.done = log, {}
        for line in log.read_text().splitlines() if log and log.exists() else ():
            entry = json.loads(line)
            self.done[tuple(entry["trial"])] = Row(**entry["row"])

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
    folder = Path(tempfile.mkdtemp())  # not one that goes with the process, of which commands are copies
    try:
        for case in cases:
            for name in names:
                for number in range(counts[case]):
                    if (case, name, number) in trials.done or time.monotonic() > until:
                        continue
                    lab = lab or Lab(folder, names)
                    place = folder / "place"
                    place.mkdir()
                    row = TRY[case](lab, trial_of(case, name, number, counts[case], seed, place))
                    shutil.rmtree(place)
                    trials.add((case, name, number), row)
                    for note in row.notes:
                        print(note, file=sys.stderr, flush=True)
                yield from trials.rows(case, name)
    finally:
        shutil.rmtree(folder)
    if lab:
        lengths = ", ".join(f"{name} {lab.seconds[name]:.1f} ({lab.changes[name]})" for name in names)
        print(f"seconds (and changes of files) of an undisturbed run: {lengths}", file=sys.stderr)


@click.command()
@click.option("--kills", default=14, show_default=True, help="Kills of every command.")
@click.option("--others", default=3, show_default=True, help="Times of everything else, for every command.")
@click.option("--minutes", default=30.0, show_default=True, help="No trial begins after this.")
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), default=CASES)
@click.option("--command", "names", multiple=True, type=click.Choice(list(JOBS)), default=list(JOBS))
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Keep every trial here, and go on.")
@click.option("--seed", default=0, show_default=True)
def main(kills, others, minutes, cases, names, log, seed):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    if {"disk", "readonly"} & set(cases) and not may_mount():
        print("full and read-only disks are left out: they need the right to mount a tmpfs", file=sys.stderr)
        cases = [case for case in cases if case not in ("disk", "readonly")]
    counts = {case: kills if case == "kill" else 1 if case == "again" else others for case in cases}
    head = (
        "what was done",
        "command",
        "times",
        "unhurt",
        "files that differ",
        "half files",
        "rows wrong",
        "bad messages",
    )
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    bad = 0
    for row in run(Trials(log), names, cases, counts, minutes, seed):
        cells = (row.what, row.command, row.times, row.unhurt, row.files, row.parts, row.rows, row.messages)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        bad += row.files + row.parts + row.rows + row.messages
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
