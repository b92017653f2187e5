"""Small images, masks and misbehaving methods for the tests of the benchmark."""

import cv2
import numpy as np

from evaluation import benchmark, pairing
from evaluation.methods import parse_all
from evaluation.pairs import Sources
from evaluation.settings import BenchmarkConfig
from maskgen import maskset

SIDE = 64


def photo(seed: int, side: int = SIDE) -> np.ndarray:
    """A smooth colour image, uint8 (side, side, 3)."""
    noise = np.random.default_rng([7, seed]).integers(0, 256, (side, side, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def folders(root, images=3, ratios=(0.05, 0.15)):
    """Make a folder of photos and one of masks, bars at the top edge, two of each ratio. Returns both."""
    for i in range(images):
        (root / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "images" / f"photo{i}.png"), photo(i))
    for i, ratio in enumerate(ratio for ratio in ratios for _ in range(2)):
        hole = np.zeros((SIDE, SIDE), bool)
        hole.ravel()[: round(ratio * hole.size) + i] = True
        (root / "masks").mkdir(parents=True, exist_ok=True)
        (root / "masks" / f"{i}.png").write_bytes(maskset.encode(hole))
    return root / "images", root / "masks"


def score(root, methods, out="out", config=None, polarity="hole-white", **how):
    """Evaluate methods on the two folders of `root`. Returns the scores."""
    config = config or BenchmarkConfig(size=(SIDE, SIDE), metrics=("l1_image", "psnr"))
    pairs = pairing.make_pairs(root / "images", root / "masks", config, polarity)
    how = {"workers": 1, "names": ("images", "masks"), **how}
    sources = Sources(root / "images", root / "masks", polarity)
    return benchmark.run(parse_all(methods), pairs, sources, root / out, config, **how)


ODD = """
import os, signal, sys, time
import numpy as np

def good(image, hole):
    return np.full_like(image, 100)

def rude(image, hole):
    image[:], hole[:] = 100, True
    return image

def loud(image, hole):
    print("words on stdout")
    return good(image, hole)

def crash(image, hole):
    sys.stderr.write("out of luck\\n")
    os._exit(3)

def killed(image, hole):
    os.kill(os.getpid(), signal.SIGKILL)

def shot(image, hole):
    if not os.path.exists("shot"):
        open("shot", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return good(image, hole)

def hang(image, hole):
    time.sleep(1000)

def slow(image, hole):
    time.sleep(0.3)
    return good(image, hole)

def nothing(image, hole):
    return None

def small(image, hole):
    return image[:-1]

def nan(image, hole):
    return np.where(hole[..., None], np.nan, image)

def unit(image, hole):
    return np.where(hole[..., None], 0.5, image / image.max())

def raises(image, hole):
    raise KeyError("no such weight")

def moody(image, hole):
    if hole.mean() > 0.1 and not os.path.exists("cured"):
        os._exit(1)
    return good(image, hole)
"""


def plug_in(root, monkeypatch):
    """Install the misbehaving methods as a package with entry points, for this process and its children."""
    (root / "odd_methods.py").write_text(ODD)
    dist_info = root / "odd_methods-1.0.dist-info"
    dist_info.mkdir()
    (dist_info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-methods\nVersion: 1.0\n")
    names = [line[4:].split("(")[0] for line in ODD.splitlines() if line.startswith("def ")]
    points = "".join(f"{name} = odd_methods:{name}\n" for name in names)
    (dist_info / "entry_points.txt").write_text(f"[irregular_masks.methods]\n{points}")
    monkeypatch.syspath_prepend(root)
