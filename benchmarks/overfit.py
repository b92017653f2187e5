"""Overfit eight photos with `pconv train`, with a kill -9 in the middle: does training work?

    python benchmarks/overfit.py [--size 32] [--steps 3000] [--out FOLDER]

Eight square photos of scikit-image under endless holes, made from the smallest masks that ship. Prints the hole loss
during the run, and the validation scores at the end.
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import cv2
import pandas as pd
import skimage.data

from evaluation import masks
from maskgen import canonical
from maskgen.runtime import images
from pconv_model.train import CHECKPOINT

PHOTOS = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "moon.png")
PHOTOS += ("rocket.jpg",)
SETTINGS = """
[net]
width = 0.5
depth = 5
[loss]
perceptual = 0
style = 0
tv = 0
[train]
phase1_steps = {phase1}
phase2_steps = {phase2}
lr = [3e-3, 5e-4]
decay = "cosine"
size = [{size}]
batch = [16]
ema = 0.99
# The same pixels every time:
hold_out = 0
scale = [1, 1]
colour = 0
flip = false
"""


def write_squares(folder, side):
    """Write the centred squares of eight photos."""
    for name in PHOTOS:
        photo = images.read(Path(skimage.data.__file__).parent / name)
        short = min(photo.shape[:2])
        top, left = ((length - short) // 2 for length in photo.shape[:2])
        square = photo[top : top + short, left : left + short]
        images.write(folder / f"{Path(name).stem}.png", cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA))


def copy_masks(folder):
    """Copy ten masks of v1 of each of the smallest classes; dilated for training, they cover up to 0.38 of an image."""
    folder.mkdir()
    table = masks.find_masks(canonical.TESTSET)
    small = table[table["category"].str.endswith("_0.01-0.1")].groupby("category").head(10)
    for i, name in enumerate(small["mask"]):
        (folder / f"{i:02d}.tif").write_bytes(masks.read(canonical.TESTSET, name))


def run_and_kill(command, checkpoint):
    """Start a run and kill it 10 s after its first checkpoint. Returns its duration in seconds."""
    start = time.monotonic()
    run = subprocess.Popen(command)
    while run.poll() is None and not checkpoint.exists():
        time.sleep(0.5)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(10)
    run.kill()
    if run.wait() == 0:
        raise SystemExit("the run ended before it could be killed: use more --steps")
    return time.monotonic() - start


@click.command(help=__doc__)
@click.option("--size", default=32, help="px, side of the photos.")
@click.option("--steps", default=3000)
@click.option("--out", type=click.Path(path_type=Path), help="Keep the run here.")
def main(size, steps, out):
    folder = Path(tempfile.mkdtemp(prefix="overfit-"))
    try:
        write_squares(folder / "photos", size)
        copy_masks(folder / "masks")
        run = out or folder / "run"
        settings = folder / "settings.toml"
        settings.write_text(SETTINGS.format(size=size, phase1=steps - steps // 6, phase2=steps // 6))
        command = [str(Path(sys.executable).parent / "pconv"), "train", str(folder / "photos")]
        command += ["--config", str(settings), "--masks", str(folder / "masks"), "--out", str(run)]
        command += ["--validate-every", str(steps), "--minutes", "0.25", "--workers", "1"]
        print(*command)
        seconds = run_and_kill(command, run / CHECKPOINT)
        print(f"\nkilled after {seconds:.0f} s; the same command again")
        start = time.monotonic()
        subprocess.run(command, check=True)
        history = pd.read_csv(run / "history.csv")
        print(history[["step", "hole", "val_l1", "val_psnr"]].iloc[[1, *range(9, len(history), 10), -1]].to_string())
        print(f"{seconds:.0f} s before the kill, {time.monotonic() - start:.0f} s after it")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
