"""Cost of `maskgen extract` relative to the optical flow alone, with one and two workers, and its peak memory.

    python benchmarks/extract.py [VIDEOS ...] [--masks 600] [--frames 20000]

Without VIDEOS it uses a film that it renders: photos sliding over each other. Prints a Markdown table.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import click
import cv2
import numpy as np

from maskgen.extraction import occlusion, task
from maskgen.extraction import run as extract
from maskgen.extraction.flow import both
from maskgen.runtime import parallel
from maskgen.settings import ExtractConfig


def film(path, frames, height=480, width=640):
    """Write a film in which one photo slides over another, back and forth. Returns its path."""
    from skimage import data

    background, foreground = (cv2.resize(photo, (width + 200, height)) for photo in (data.astronaut(), data.coffee()))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, (width, height))
    for index in range(frames):
        x, y = int(100 + 90 * np.sin(index / 9)), int(60 + 50 * np.cos(index / 7))
        picture = background[:, x : x + width].copy()
        picture[y : y + 300, 2 * x : 2 * x + 200] = foreground[y : y + 300, 100:300]
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def flow_seconds(some_task):
    """Seconds that the flow alone takes for the pairs that a task examines."""
    spent = []

    def timed(*pair):
        start = time.perf_counter()
        flows = both(*pair)
        spent.append(time.perf_counter() - start)
        return flows

    with mock.patch.object(occlusion, "both", timed), tempfile.TemporaryDirectory() as folder:
        task.extract_masks(replace(some_task, result=Path(folder) / "result.npz"))
    return sum(spent)


def run(videos, config, workers, folder):
    """Wall time of an extraction, the number of pairs it examined, and its tasks."""
    tasks = []

    def recorded(function, given, **options):
        given = list(given)
        tasks.extend(one for one in given if isinstance(one, task.Task))
        return parallel.run(function, given, **options)

    with mock.patch.object(extract, "parallel", mock.Mock(wraps=parallel, run=recorded)):
        start = time.perf_counter()
        recipe = extract.extract(videos, Path(folder) / f"masks{workers}", config, workers=workers)
    return time.perf_counter() - start, sum(recipe["counts"]["pairs"].values()), tasks


def peak_memory(video, folder):
    """Peak resident memory in MB of a process that extracts 200 masks from a video, as its only worker."""
    code = (
        "import sys, resource; from pathlib import Path; from maskgen import settings;"
        "from maskgen.extraction.run import extract;"
        "config = settings.ExtractConfig(train=140, test=60);"
        "extract([Path(sys.argv[1])], Path(sys.argv[2]), config, workers=1);"
        "status = Path('/proc/self/status');"  # Linux counts the memory of the parent in ru_maxrss
        "peak = [line.split()[1] for line in status.open() if line.startswith('VmHWM')] if status.exists() else [];"
        "print(*peak or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])"
    )
    command = [sys.executable, "-c", code, str(video), str(Path(folder) / f"memory-{Path(video).stem}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / (1024 if sys.platform != "darwin" else 1024**2)


@click.command()
@click.argument("videos", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--masks", default=600, show_default=True)
@click.option("--frames", default=20_000, show_default=True, help="Length of the long film for the memory test.")
def main(videos, masks, frames):
    with tempfile.TemporaryDirectory() as folder:
        short = film(Path(folder) / "short.mp4", 500)
        videos = list(videos) or [short]
        config = ExtractConfig(train=masks * 7 // 10, test=masks * 3 // 10)
        walls, rows = {}, []
        for workers in (1, 2):
            walls[workers], examined, tasks = run(videos, config, workers, folder)
            flow = sum(parallel.run(flow_seconds, tasks, workers=workers)) / workers
            rows.append((f"wall / flow alone, {workers} workers", f"{walls[workers] / flow:.2f}"))
            rows.append((f"pairs/s, {workers} workers", f"{examined / walls[workers]:.1f}"))
        rows.append(("one worker / two workers", f"{walls[1] / walls[2]:.2f}"))
        long = film(Path(folder) / "long.mp4", frames)
        rows.append(("peak memory, short film, MB", f"{peak_memory(short, folder):.0f}"))
        rows.append((f"peak memory, {frames} frames, MB", f"{peak_memory(long, folder):.0f}"))
    print("\n| what | measured |\n|---|---|")
    print("\n".join(f"| {what} | {value} |" for what, value in rows))
    print(f"\nflow: {config.flow}, {config.size}x{config.size}, {parallel.cores()} cores, OpenCV {cv2.__version__}")


if __name__ == "__main__":
    main()
