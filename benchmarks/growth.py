"""How memory and time of the commands that read a mask set grow with the number of masks.

    python benchmarks/growth.py [--masks 10000 --masks 100000] [--command verify --command bin]

Each mask set is made of hard links to a few hundred masks of 32 x 32 px, 10,000 masks in a folder, with an index as
`maskgen extract` writes it. Each command runs in a process of its own with one worker. Prints a Markdown table; seconds
are processor time. A million masks take half an hour, and 4 GB of disk with the command `bin --out`.
"""

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

FOLDER = 10_000  # masks in a folder, as many as a mask set has
DIFFERENT = 400  # files that are linked
MASKGEN = "from cli import maskgen; maskgen()"
SAMPLER = "import sys; from maskgen import MaskSampler; MaskSampler(sys.argv[1], 64)[0]"
DATASET = "import sys; from maskgen import MaskDataset; MaskDataset(sys.argv[1])[0]"
MERGING = "import sys; from growth import merge; merge(sys.argv[1], int(sys.argv[2]))"
COMMANDS = {  # what is measured: the code of the process, and its arguments; {out} is the folder of results
    "start of Python": (MASKGEN, "--version"),
    "verify": (MASKGEN, "verify {set} --workers 1"),
    "bin": (MASKGEN, "bin {set} --ratios --workers 1"),
    "bin --index": (MASKGEN, "bin {set} --index {out}/index.csv --workers 1"),
    "bin --out": (MASKGEN, "bin {set} --out {out}/sorted --workers 1"),
    "verify, with checksums": (MASKGEN, "verify {out}/sorted --workers 1"),
    "testset": (MASKGEN, "testset {set}/train {out}/testset --per-category 1 --workers 1"),
    "MaskSampler": (SAMPLER, "{set}"),
    "MaskDataset": (DATASET, "{set}"),
    "extract without its workers": (MERGING, "{out}/extracted {masks}"),
}


def make_set(folder, number):
    """Write a raw mask set of hard links."""
    import numpy as np

    from maskgen.maskset import describe, encode

    rng, stored, kinds = np.random.default_rng(0), folder / "stored", []
    stored.mkdir(parents=True)
    for i in range(DIFFERENT):
        hole = np.zeros((32, 32), bool)
        top, left, height, width = rng.integers((0, 0, 4, 4), (16, 16, 17, 17))
        hole[top : top + height, left : left + width] = True
        data = encode(hole)
        (stored / f"{i}.png").write_bytes(data)
        kinds.append(describe(hole, "", data))
    part = folder / "set" / "train"
    part.mkdir(parents=True)
    columns = ["file_name", "category", "hole_ratio", "border_distance", "components"]
    with (part / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, "source", "frame", "gap", "square", "kind", "sha256"])
        for i in range(number):
            video, kind = f"a-video-{i // FOLDER:04d}", ("disoccluded", "occluded")[i % 2]
            name, row = f"{video}/{i % FOLDER:06d}_{kind}.png", kinds[i % DIFFERENT]
            if i % FOLDER == 0:
                (part / video).mkdir()
            os.link(stored / f"{i % DIFFERENT}.png", part / name)
            cells = [row[column] for column in columns[1:]]
            writer.writerow([name, *cells, video, i % FOLDER, 1, 0, kind, row["sha256"]])
    (folder / "set" / "recipe.json").write_text('{"made_by": "maskgen extract", "sources": []}\n')


def merge(out, number):
    """What `maskgen extract` does for masks that come from nowhere: it plans, merges, and writes index and recipe."""
    from unittest import mock

    import numpy as np

    from maskgen.extraction import run, schedule, task, video
    from maskgen.runtime.output import OutputFolder
    from maskgen.settings import ExtractConfig

    config, pairs, rng = ExtractConfig(train=number, test=0), {}, np.random.default_rng(0)
    sources = [
        video.Source(Path(f"{i}.mp4"), f"a-video-{i:04d}", FOLDER, 512, 512, f"{i:064x}", FOLDER)
        for i in range(max(2, number // FOLDER))
    ]

    def candidates(path):
        made = []
        for frame, gap, square in pairs.pop(path):
            for kind in task.KINDS:
                row = {"category": "", "hole_ratio": "0.006666", "border_distance": 0, "components": 1}
                row |= {"file_name": "", "sha256": rng.bytes(32).hex()}
                made.append(task.Candidate(frame, gap, square, kind, "", row, b"png", rng.bytes(512)))
        return made

    def examine(_, tasks, **options):
        for one in tasks:
            pairs[one.result] = one.pairs[: one.wanted // 2 + 1]
            yield None

    patches = [
        mock.patch.object(run.task, "read_candidates", candidates),
        mock.patch.object(run.parallel, "run", examine),
        mock.patch.object(run.files, "write_whole", lambda path, data: None),
        mock.patch.object(run.video, "described", lambda paths: {}),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        segments = schedule.assign_splits(sources, config)
        with OutputFolder(Path(out).absolute(), {"made_by": "maskgen extract"}) as folder:
            run.write_masks(segments, folder, config)


def measured(command, folder, number):
    """Seconds of processor time and peak resident memory in MB of one command. It must succeed."""
    (folder / "out").mkdir(exist_ok=True)
    code, arguments = COMMANDS[command]
    words = arguments.format(set=folder / "set", out=folder / "out", masks=number).split()
    top = Path(__file__).parents[1]
    path = os.pathsep.join([str(top), str(top / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    last = process.stderr.read().decode().splitlines()[-1:]
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with exit code {process.returncode}: {last}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


@click.command()
@click.option("--masks", multiple=True, type=int, default=(10_000, 100_000), show_default=True)
@click.option("--command", "commands", multiple=True, type=click.Choice(list(COMMANDS)), help="[default: all]")
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder for the sets, on a disk with hard links.")
def main(masks, commands, folder):
    print("| command | masks | s | MB |\n|---|---|---|---|")
    for number in masks:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            subprocess.run([sys.executable, __file__, "--make", made, str(number)], check=True)
            for command in commands or COMMANDS:
                seconds, peak = measured(command, Path(made), number)
                print(f"| `{command}` | {number:,} | {seconds:.1f} | {peak:.0f} |", flush=True)
            shutil.rmtree(Path(made) / "out", ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:  # in a process of its own: a command's peak would start at the memory of this one
        make_set(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
