"""Kills, Ctrl-C, full and read-only disks and a second run, tried on real commands.

    python benchmarks/faults.py [--kills 14] [--log trials.jsonl] [--case kill --case disk ...] [--command extract ...]

A small job of every command that writes a folder is disturbed, and the command is run again. All files are compared
with those of an undisturbed run. Half of the kills come at moments spread over the job, half just before a file is
opened for writing, renamed or removed, from the first to the last of these changes. Touches only processes it has
started and a temporary folder. Prints a Markdown table, row by row. With --log, trials are recorded and a stopped
series continues.
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
    """One disturbance of one command, at a moment between 0 (its start) and 1 (its end), in a folder `place`."""

    name: str
    number: int
    count: int
    moment: float
    rng: np.random.Generator
    place: Path


def trial_of(case, name, number, count, seed, place):
    """Trial `number` of `count`; the moments are stratified, one from each of `count` equal parts of the run."""
    key = [seed, CASES.index(case), list(JOBS).index(name), count]
    drawn = np.random.default_rng(key)
    moments = (drawn.permutation(count) + drawn.random(count)) / count
    return Trial(name, number, count, float(moments[number]), np.random.default_rng([*key, number]), place)


def kill(lab, trial):
    """kill -9 of the main process at a change of a file, or of it or a worker at a moment; some runs are hit twice."""
    name, place, rng = trial.name, trial.place, trial.rng
    if trial.number % 2 == 0:
        row, last = Row("kill -9 at a change of a file", name), max(1, lab.changes[name] - 1)
        share = 2 * (trial.number // 2) / max(1, trial.count - 2)  # from the first change to the last
        command = lab.start(name, place, round(last * share))
        row.unaffected += command.ended() == 0
    else:
        row, late = Row("kill -9 at a moment", name), 0
        workers = trial.number % 4 == 3  # later, as workers that cannot start are replaced by the main process
        command = lab.started(name, place, 0.5 + trial.moment / 2 if workers else trial.moment)
        below = command.workers() if workers else []
        late += command.poll() is not None
        with suppress(psutil.Error, ProcessLookupError):
            (below[int(rng.integers(len(below)))] if below else psutil.Process(command.pid)).kill()
        if below:  # the command ends by itself, with at most one line
            row.what = "kill -9 of a worker"
            code = command.end()
            late += code == 0
            if code not in (0, 2) or command.is_odd(place):
                row.fault("messages", f"exit code {code}, {said(place)[-2:]}")
        command.ended()
        row.unaffected += bool(late)
    lab.check_whole(row, name, place / "out")
    if trial.number % 5 == 4:  # once more as it continues; this may come too late
        command = lab.start(name, place)
        command.wait(float(rng.random() * lab.seconds[name]))
        command.signal(signal.SIGKILL)
        command.ended()
    lab.check_resumed(row, name, place)
    return row


def ctrl_c(lab, trial):
    """SIGINT to the process group, as a terminal sends it."""
    name, place = trial.name, trial.place
    row, command = Row("Ctrl-C", name), lab.started(name, place, 0.03 + 0.97 * trial.moment)
    command.signal(signal.SIGINT)
    code = command.end()
    row.unaffected += code == 0
    if code not in (0, 130) or command.is_odd(place):
        row.fault("messages", f"after {trial.moment:.0%}: exit code {code}, {said(place)[-3:]}")
    lab.check_whole(row, name, place / "out")
    lab.check_resumed(row, name, place)
    return row


@contextmanager
def small_disk(place, size):
    """A tmpfs of `size` bytes at `place`; yields a function that remounts it with other options."""

    def mount(*options):
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", place], check=True)

    place.mkdir(parents=True)
    mount(f"size={size}")
    try:
        yield lambda *options: mount("remount", *options)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def may_mount():
    """Whether this user may mount a tmpfs."""
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", "1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def refused(row, place, code, words):
    """Count a wrong message unless the run ended with exit code 2 and one line with these words."""
    lines = said(place)
    if code != 2 or len(lines) != 1 or words not in lines[0]:
        row.fault("messages", f"expected {words!r}: exit code {code}, {lines[-2:]}")


def disk(lab, trial):
    """The disk is full at a random byte; then it is enlarged and the command run again."""
    name, place, row = trial.name, trial.place, Row("full disk", trial.name)
    files = [path for path in (lab.folder / name / "out").rglob("*") if path.is_file()]
    whole = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
    with small_disk(place / "out", int(whole * (0.05 + 0.9 * trial.moment))) as remount:
        code = lab.start(name, place).ended()
        if code:
            refused(row, place, code, "No space left on device")
        row.unaffected += code == 0
        row.parts += len(list((place / "out").rglob("*.part")))
        lab.check_whole(row, name, place / "out")
        remount("size=500m")
        lab.check_resumed(row, name, place)
    return row


def readonly(lab, trial):
    """The folder of a killed run becomes read-only; later it is writable again."""
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
    """A second run is started while the first one works."""
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
        row.unaffected += 1
    if first.ended():
        row.fault("messages", f"the first of two runs ended with {first.returncode}: {said(place)[-1:]}")
    lab.check_resumed(row, name, place)
    return row


def again(lab, trial):
    """The command is run again on its finished folder: it says so and changes nothing."""
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
    """The finished trials by (case, command, number), recorded in a file of JSON lines if `log` is given."""

    def __init__(self, log):
        self.log, self.done = log, {}
        for line in log.read_text().splitlines() if log and log.exists() else ():
            trial = json.loads(line)
            self.done[tuple(trial["trial"])] = Row(**trial["row"])

    def add(self, key, row):
        """Record a trial."""
        self.done[key] = row
        if self.log:
            with self.log.open("a") as file:
                file.write(json.dumps({"trial": key, "row": asdict(row)}) + "\n")

    def rows(self, case, name):
        """The sums over the trials of a case and a command, one row per kind of disturbance."""
        found = {}
        for (of_case, of_name, _), row in sorted(self.done.items(), key=lambda item: item[0]):
            if (of_case, of_name) == (case, name):
                found.setdefault(row.what, Row(row.what, name, times=0)).add(row)
        return list(found.values())


def run(trials, names, cases, counts, minutes, seed):
    """Do the missing trials, and yield the rows of each case and command."""
    until, lab = time.monotonic() + 60 * minutes, None
    folder = Path(tempfile.mkdtemp())  # not TemporaryDirectory, which forks of this process would remove
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
@click.option("--others", default=3, show_default=True, help="Trials of each other case, for every command.")
@click.option("--minutes", default=30.0, show_default=True, help="No trial starts after this.")
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), default=CASES)
@click.option("--command", "names", multiple=True, type=click.Choice(list(JOBS)), default=list(JOBS))
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Record trials in this file, and continue from it."
)
@click.option("--seed", default=0, show_default=True)
def main(kills, others, minutes, cases, names, log, seed):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    if {"disk", "readonly"} & set(cases) and not may_mount():
        print("full and read-only disks are skipped: mounting a tmpfs needs root", file=sys.stderr)
        cases = [case for case in cases if case not in ("disk", "readonly")]
    counts = {case: kills if case == "kill" else 1 if case == "again" else others for case in cases}
    head = (
        "disturbance",
        "command",
        "trials",
        "unaffected",
        "files that differ",
        "partial files",
        "wrong rows",
        "wrong messages",
    )
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    bad = 0
    for row in run(Trials(log), names, cases, counts, minutes, seed):
        cells = (row.what, row.command, row.times, row.unaffected, row.files, row.parts, row.rows, row.messages)
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        bad += row.files + row.parts + row.rows + row.messages
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
