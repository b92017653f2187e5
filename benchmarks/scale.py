"""How the time and memory of `maskgen extract` grow with the number of videos, their length and their frames' size.

    python benchmarks/scale.py [CLIPS] [--masks 20]

CLIPS: a folder of videos. Four of them are made into others: mirrored to give other masks, joined to longer films,
enlarged. Without it, a generated film is cut into four. One worker; a few
minutes. Prints a Markdown table; ratios are of processor time, which other programs hardly change.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import click
import cv2
import numpy as np
import psutil
from extract import film

from maskgen.extraction import video

BASE = 4  # clips that are used
FRAMES = 100  # of each
FACTORS = (1, 2, 4)  # of number and length
SIDES = (1, 2, 3)  # factors of a frame's sides
MIRRORS = ((), (1,), (0,), (0, 1))  # axes: four similar films from one


def clips(folder):
    """The frames of BASE clips spread over the folder's, each uint8 (FRAMES, 480, 640, 3)."""
    found = [path for path, _ in video.find([folder])]
    taken = []
    for path in found[:: max(1, len(found) // BASE)]:
        reader = video.open_reader(path)
        frames = [reader.read(i) for i in range(min(reader.count(), FRAMES))]
        reader.close()
        frames = [cv2.resize(frame, (640, 480), interpolation=cv2.INTER_AREA) for frame in frames if frame is not None]
        if len(frames) > FRAMES // 3:
            there_and_back = [*frames, *frames[-2:0:-1]] * (FRAMES // len(frames) + 1)
            taken.append(np.stack(there_and_back[:FRAMES]))
        if len(taken) == BASE:
            return taken
    raise SystemExit(f"expected {BASE} clips or more of {FRAMES // 3} frames in {folder}, found {len(taken)}")


def stretches(folder):
    """The same from a generated film."""
    reader = video.open_reader(film(folder / "film.mp4", BASE * FRAMES))
    frames = np.stack([reader.read(i) for i in range(BASE * FRAMES)])
    reader.close()
    return np.split(frames, BASE)


def write(path, frames, size=(640, 480)):
    """Write a film."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    for frame in frames:
        frame = frame if size == (640, 480) else cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
        writer.write(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR))
    writer.release()


def extraction(films, out, masks):
    """One run in a process of its own: (seconds, seconds of processor time, peak MB, pairs of frames, masks)."""
    command = [Path(sys.executable).with_name("maskgen"), "extract", films, "--out", out, "--workers", "1"]
    command += ["--train", str(masks), "--test", "0"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Not the kernel's maximum, which a process inherits from this one with all its frames.
    watched, peak, ended = psutil.Process(process.pid), 0, 0
    while not ended:
        time.sleep(0.1)
        peak = max(peak, watched.memory_info().rss)
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"maskgen extract {films} ended with exit code {process.returncode}")
    counts = json.loads((out / "recipe.json").read_text())["counts"]
    return (
        seconds,
        used.ru_utime + used.ru_stime,
        peak / 1024**2,
        sum(counts["pairs"].values()),
        sum(counts["masks"].values()),
    )


def series(taken, masks, folder):
    """Yield (name, [(what, units, folder of films, masks)]) of each thing that grows."""
    kinds = [[np.flip(frames, [axis + 1 for axis in axes]) for frames in taken] for axes in MIRRORS]
    for factor in FACTORS:
        for i, frames in enumerate(chain(*kinds[:factor])):
            write(folder / f"number{factor}" / f"{i}.mp4", frames)
        write(folder / f"length{factor}" / "film.mp4", chain(*chain(*kinds[:factor])))
    for factor in SIDES:
        for i, frames in enumerate(taken):
            write(folder / f"size{factor}" / f"{i}.mp4", frames, (640 * factor, 480 * factor))
    each, lengths = BASE * masks, [(f"{BASE * FRAMES * factor:,} frames", factor) for factor in FACTORS]
    yield (
        f"number of videos, {masks} masks of each",
        [(f"{BASE * factor} videos", factor, folder / f"number{factor}", factor * each) for factor in FACTORS],
    )
    yield (
        "length of a video, masks in proportion",
        [
            (f"{BASE * FRAMES * factor:,} frames", factor, folder / f"length{factor}", factor * each)
            for factor in FACTORS
        ],
    )
    yield (
        f"length of a video, always {each} masks",
        [(what, factor, folder / f"length{factor}", each) for what, factor in lengths],
    )
    yield (
        f"size of the frames, {each} masks",
        [(f"{640 * factor}x{480 * factor}", factor**2, folder / f"size{factor}", each) for factor in SIDES],
    )


@click.command()
@click.argument(
    "given", metavar="[CLIPS]", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--masks", default=20, show_default=True, help="Of each video.")
def main(given, masks):
    print(f"| what grows | | masks | pairs | s | processor s | ratio | ms per pair | peak MB |\n{'|---' * 9}|")
    with tempfile.TemporaryDirectory() as folder:
        taken = clips(given) if given else stretches(Path(folder))
        for number, (name, runs) in enumerate(series(taken, masks, Path(folder))):
            measured = []
            for what, units, films, wanted in runs:
                seconds, busy, peak, pairs, got = extraction(films, Path(folder) / "out" / f"{number}-{units}", wanted)
                measured.append(busy)
                ratio, a_pair = busy / measured[0], 1000 * busy / pairs
                print(
                    f"| {name} | {what} | {got} | {pairs} | {seconds:.1f} | {busy:.1f} | {ratio:.2f} | {a_pair:.0f} "
                    f"| {peak:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
