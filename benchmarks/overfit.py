"""Does training work? Eight photos are learnt by heart, from the command line, with a kill -9 in the middle.

    python benchmarks/overfit.py [--size 32] [--steps 3000] [--out FOLDER]

Eight squares of scikit-image's photos under endless holes, made of the small ones among the masks that ship. Prints the
hole loss on the way, and what is left of it at the end.
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

from evaluation.pairing import OWN_MASKS
from maskgen.runtime import images
from pconv_model.train import CHECKPOINT

PHOTOS = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "moon.png")
PHOTOS += ("rocket.jpg",)
NET = "--width 0.5 --depth 5"
LOSS = "--no-vgg --tv 0"
DATA = "--hold-out 0 --scale 1,1 --colour 0 --no-flip"  # the same pixels every time
PACE = "--batch 16 --lr 3e-3,5e-4 --decay cosine --ema 0.99 --log-every 100 --minutes 0.25 --workers 1"


def write_squares(folder, side):
    """The centred squares of eight photos, as files."""
    for name in PHOTOS:
        photo = images.read(Path(skimage.data.__file__).parent / name)
        short = min(photo.shape[:2])
        top, left = ((length - short) // 2 for length in photo.shape[:2])
        square = photo[top : top + short, left : left + short]
        images.write(folder / f"{Path(name).stem}.png", cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA))


def copy_masks(folder):
    """The shipped masks of the two smallest classes; made wider for training, they cover up to 0.38 of an image."""
    folder.mkdir()
    for i, path in enumerate(sorted((OWN_MASKS / "test").glob("*_0.01-0.1/*.png"))):
        shutil.copy(path, folder / f"{i:02d}.png")


def begun(command, checkpoint):
    """Start a run and kill it a while after its first checkpoint. Returns the seconds it had."""
    start = time.monotonic()
    run = subprocess.Popen(command)
    while run.poll() is None and not checkpoint.exists():
        time.sleep(0.5)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(10)
    run.kill()
    if run.wait() == 0:
        raise SystemExit("the run had ended before it could be killed: give it more --steps")
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
        length = f"--size {size} --phase1-steps {steps - steps // 6} --phase2-steps {steps // 6}"
        command = [str(Path(sys.executable).parent / "pconv"), "train", str(folder / "photos")]
        command += ["--masks", str(folder / "masks"), "--out", str(run), "--validate-every", str(steps)]
        command += [*NET.split(), *LOSS.split(), *DATA.split(), *PACE.split(), *length.split()]
        print(*command)
        seconds = begun(command, run / CHECKPOINT)
        print(f"\nkilled after {seconds:.0f} s; the same command again")
        start = time.monotonic()
        subprocess.run(command, check=True)
        history = pd.read_csv(run / "history.csv")
        print(history[["step", "hole", "val_l1", "val_psnr"]].iloc[[0, *range(4, len(history), 5), -1]].to_string())
        print(f"{seconds:.0f} s before the kill, {time.monotonic() - start:.0f} s after it")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
