"""A Dask cluster of two workers on this machine: speed, overhead, and the cost of losing a worker or the scheduler.

    python benchmarks/cluster.py [VIDEOS ...] [--masks 600] [--part speed] [--part faults] [--part traffic]

Scheduler and workers are started as a user starts them. Without VIDEOS it makes a film. Prints Markdown tables; each
part takes two to four minutes on two cores.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import click
import cloudpickle
import psutil
from distributed import Client
from extract import film

from evaluation import benchmark, pairing
from evaluation import masks as mask_files
from evaluation.methods import parse_all
from evaluation.pairs import Sources
from evaluation.settings import BenchmarkConfig
from maskgen import canonical, maskset
from maskgen.errors import BadInput
from maskgen.extraction.run import extract
from maskgen.maskset import Masks
from maskgen.runtime import cluster, parallel
from maskgen.sampler import MaskSampler
from maskgen.settings import ExtractConfig, FillConfig
from maskgen.sort import SortConfig, measure_masks
from maskgen.testset import make_testset
from maskgen.training_set import augment_folder
from maskgen.verify import find_faults

PROGRAMS = Path(sys.executable).parent
PARTS = ("speed", "faults", "traffic")
EASY = 20_000  # tasks that cost nothing, to measure the overhead of the cluster


class Machines:
    """A scheduler and its workers, of one thread each, in a folder of their own."""

    def __init__(self, folder):
        self.folder, self.running = folder, []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"

    def start(self, workers):
        """Start a scheduler and a number of workers, and wait until they are ready."""
        self._program("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        for _ in range(30):
            try:
                cluster.check_scheduler(self.address)
                break
            except BadInput:
                time.sleep(0.5)
        for _ in range(workers):
            self._program("worker", self.address, "--nthreads", "1", "--no-dashboard")
        with Client(self.address) as client:
            client.wait_for_workers(workers, timeout=60)
        list(parallel.run(abs, range(50), cluster=self.address))  # so that all have imported their modules

    def _program(self, *words):
        log = (self.folder / f"{words[0]}.log").open("a")
        command = [PROGRAMS / "dask", *words]
        self.running.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))

    def busy(self):
        """Processor time used by all of them, in s."""
        programs = [psutil.Process(process.pid) for process in self.running]
        everyone = programs + [child for program in programs for child in program.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in everyone)

    def kill_a_worker(self):
        """Kill a worker process; Dask's nanny process starts another, as on any machine."""
        with Client(self.address) as client:
            worker = min(client.run(os.getpid).values())
        os.kill(worker, signal.SIGKILL)

    def kill_the_scheduler(self):
        """Kill the scheduler with SIGKILL."""
        self.running[0].kill()

    def stop(self):
        """End all of them."""
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.running.clear()


@contextmanager
def machines(folder, workers):
    """A running scheduler and its workers, ended after the block."""
    here = Machines(folder)
    try:
        here.start(workers)
        yield here
    finally:
        here.stop()


class Command:
    """`maskgen extract` in a process of its own."""

    def __init__(self, videos, out, masks, *how):
        wanted = ["--train", str(masks * 7 // 10), "--test", str(masks * 3 // 10)]
        self.begin = time.perf_counter()
        self.process = subprocess.Popen(
            [PROGRAMS / "maskgen", "extract", *videos, "--out", out, *wanted, *how],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, expected=0):
        """Wait for it. Returns (seconds, seconds of its own processor time, its stderr)."""
        said = self.process.stderr.read()
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - self.begin
        if self.process.returncode != expected:
            raise SystemExit(f"expected exit code {expected}, got {self.process.returncode}: {said[-500:]}")
        return seconds, used.ru_utime + used.ru_stime, said


def digest(folder):
    """One hash of all names and bytes below a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def same(*folders):
    """ "yes" if all folders hold the same files, otherwise "NO"."""
    return "yes" if len({digest(folder) for folder in folders}) == 1 else "NO"


def speed(videos, masks, folder):
    """The same extraction with one Dask worker, with two, and with two plain processes."""
    with machines(folder, 1) as here:
        one, _, _ = Command(videos, folder / "one", masks, "--cluster", here.address).end()
    with machines(folder, 2) as here:
        before = here.busy()
        two, own, _ = Command(videos, folder / "two", masks, "--cluster", here.address).end()
        busy = here.busy() - before + own
    plain, busy_plain, _ = Command(videos, folder / "plain", masks, "--workers", "2").end()
    yield "one Dask worker, s", f"{one:.1f}", ""
    yield "two Dask workers, s", f"{two:.1f}", ""
    yield "two plain processes, s", f"{plain:.1f}", ""
    yield "one Dask worker / two", f"{one / two:.2f}", ">= 1.7"
    yield "two Dask workers / two plain processes", f"{two / plain:.3f}", "<= 1.10"
    yield "processor time of all processes, Dask / plain, s", f"{busy:.1f} / {busy_plain:.1f}", ""
    yield "the ratio of these", f"{busy / busy_plain:.3f}", "<= 1.10"
    yield "same bytes", same(*(folder / name for name in ("one", "two", "plain"))), "yes"
    yield "processor time of the command itself, s", f"{own:.1f}", ""
    yield "the same for a mask, ms", f"{1000 * own / masks:.1f}", ""


def faults(videos, masks, folder):
    """A worker killed halfway, and the scheduler killed halfway."""
    with machines(folder, 2) as here:
        how = "--cluster", here.address
        whole, _, _ = Command(videos, folder / "whole", masks, *how).end()
        command = Command(videos, folder / "worker", masks, *how)
        time.sleep(whole / 2)
        here.kill_a_worker()
        disturbed, _, _ = command.end()
        yield "two Dask workers, undisturbed, s", f"{whole:.1f}", ""
        yield "with a worker killed at half time, s", f"{disturbed:.1f}", ""
        yield "lost, s", f"{disturbed - whole:.1f}", "< 60"
        yield "same bytes", same(folder / "whole", folder / "worker"), "yes"
        command = Command(videos, folder / "scheduler", masks, *how)
        time.sleep(whole / 2)
        here.kill_the_scheduler()
        killed = time.perf_counter()
        _, _, said = command.end(expected=2)
        ended = time.perf_counter()
        here.stop()
        here.start(2)
        again, _, _ = Command(videos, folder / "scheduler", masks, *how).end()
    lines = [line for line in said.replace("\r", "\n").splitlines() if line.startswith("maskgen: ")]
    yield "scheduler killed at half time: s until the command ends with exit code 2", f"{ended - killed:.1f}", ""
    yield "lines of the command about it", f"{len(lines)}", "1"
    yield "the same command again, s", f"{again:.1f}", ""
    yield "lost, s", f"{killed - command.begin + again - whole:.1f}", "< 60"
    yield "same bytes", same(folder / "whole", folder / "scheduler"), "yes"
    print(*lines, sep="\n", file=sys.stderr)


def first_of_v1(folder):
    """Write ten masks of each class of v1 as a mask set. Returns its folder."""
    table, rows = mask_files.find_masks(canonical.TESTSET), []
    for name in table.groupby("category", sort=False).head(10)["mask"]:
        hole = maskset.decode(mask_files.read(canonical.TESTSET, name), name)
        path, data = (folder / "test" / name).with_suffix(".png"), maskset.encode(hole)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        rows.append(maskset.describe(hole, path.relative_to(folder / "test").as_posix(), data))
    maskset.write_index(folder / "test", rows)
    (folder / "recipe.json").write_bytes(mask_files.read(canonical.TESTSET, "recipe.json"))
    return folder


def traffic(videos, masks, folder):
    """The batches that each command sends to the scheduler, and how many it handles per second."""
    sent, send = [], cluster._Connection.send

    def recorded(connection, batch):
        data = cloudpickle.dumps(cluster._Batch(connection.setup, batch), protocol=5)
        sent.append((len(batch), len(data), len(connection.setup)))
        return send(connection, batch)

    def row(what, things):
        tasks, sizes, setups = zip(*sent, strict=True)
        sent.clear()
        own = sum(sizes) - sum(setups)
        return (
            f"{what} {things:,}",
            f"{sum(tasks):,} tasks in {len(sizes):,} batches; {sum(sizes) / len(sizes):,.0f} bytes per batch, "
            f"{max(sizes):,} at most; {own / sum(tasks):,.0f} bytes per task besides the function's {max(setups):,}",
            "",
        )

    with machines(folder, 2) as here, mock.patch.object(cluster._Connection, "send", recorded):
        address = here.address
        config = ExtractConfig(train=masks * 7 // 10, test=masks * 3 // 10)
        extract(videos, folder / "raw", config, cluster=address, say=lambda line: None)
        yield row("extract, masks:", masks)
        ready = first_of_v1(folder / "v1")
        make_testset(ready, folder / "set", FillConfig(per_category=5), cluster=address)
        yield row("testset, masks:", 60)
        find_faults(ready, cluster=address)
        yield row("verify, masks:", 120)
        measure_masks(Masks(ready / "test"), SortConfig(), folder / "sorted", cluster=address)
        yield row("bin, masks:", 120)
        augment_folder(MaskSampler(ready), folder / "augmented", 500, cluster=address)
        yield row("augment, masks:", 500)
        config = BenchmarkConfig(per_class=5, metrics=("l1_image", "psnr", "ssim"))
        pairs = pairing.make_pairs(None, ready, config)
        sources = Sources(pairing.image_folder(None), ready)
        benchmark.run(parse_all(["telea"]), pairs, sources, folder / "results", config, cluster=address)
        yield row("evaluate, pairs:", len(pairs))
        scheduler = psutil.Process(here.running[0].pid)
        before, busy, begin = scheduler.memory_info().rss, sum(scheduler.cpu_times()[:2]), time.perf_counter()
        list(parallel.run(abs, range(EASY), cluster=address))
        seconds = time.perf_counter() - begin
        used, grown = sum(scheduler.cpu_times()[:2]) - busy, scheduler.memory_info().rss - before
        batches = len(sent)
        yield f"{EASY:,} tasks that cost nothing, s", f"{seconds:.1f} ({batches:,} batches)", ""
        yield "batches per second, two workers", f"{batches / seconds:.0f}", ""
        yield "the scheduler's processor time per batch, ms", f"{1000 * used / batches:.2f}", ""
        yield "its memory grew by, MB", f"{grown / 1024**2:.1f}", ""


@click.command()
@click.argument("videos", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--masks", default=600, show_default=True, help="Masks of each extraction.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="One part only. [default: all]")
def main(videos, masks, parts):
    for part in parts or PARTS:
        folder = Path(tempfile.mkdtemp())
        try:
            films = [path.absolute() for path in videos] or [film(folder / "film.mp4", 1000)]
            rows = list({"speed": speed, "faults": faults, "traffic": traffic}[part](films, masks, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"\n| {part}, {masks} masks | measured | expected |\n|---|---|---|")
        print("\n".join(f"| {what} | {value} | {asked} |" for what, value, asked in rows), flush=True)


if __name__ == "__main__":
    main()
