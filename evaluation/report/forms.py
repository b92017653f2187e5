"""The scores of a run as the evaluators of LaMa and MMagic print them.

LaMa (Suvorov et al. 2022): means and standard deviations by hole ratio in ten bins [a, b), and over all pairs; its
`lpips_fid100_f1` is the harmonic mean of 1 - LPIPS and 1 - FID / 100. MMagic: one mean over all pairs.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from evaluation.settings import LIKE
from maskgen.errors import BadInput

EDGES = np.linspace(0, 1, 11)  # of LaMa's bins
LABELS = [f"{10 * i}-{10 * (i + 1)}%" for i in range(10)]
ALL_PAIRS = "total"
NAMES = {"lpips_vgg": "lpips", "ssim_padded": "ssim"}  # ours: LaMa's
F1 = "lpips_fid100_f1"
COLUMNS = ("method", "masks", "fid", "lpips", "lpips std", F1, "ssim", "ssim std")
HEADINGS = {"l1_hole": "l1 error", "psnr": "PSNR", "ssim": "SSIM"}  # ours: MMagic's
NOTES = {  # of a column, where its name does not say what it is
    "fid": "fid with the resizing of torch-fidelity",
    "lpips": "lpips of VGG16",
    "ssim": "ssim with zeros beyond the border",
    "l1 error": "l1 error in % over missing pixels",
    "PSNR": "PSNR in dB",
}
TITLES = {"lama": "as LaMa's evaluator prints", "mmagic": "as MMagic prints, means over all pairs"}
DIGITS = {"lama": 4, "mmagic": 3}

SetScores = Callable[[dict[str, str]], pd.DataFrame]  # `benchmark.set_scores` of a run, by groups of pairs


def check(like: str, metrics: tuple[str, ...]) -> None:
    """Raise BadInput for a form that does not exist, or that shows none of the metrics."""
    if like and like not in LIKE:
        raise BadInput(f"no form {like!r}: expected {' or '.join(LIKE)}")
    if like and not set(LIKE[like]) & set(metrics):
        raise BadInput(f"--like {like} shows {', '.join(LIKE[like])}: leave --metric out, or name some of these")


def rows(like: str, scores: pd.DataFrame, set_scores: SetScores) -> pd.DataFrame:
    """One row for each method, as MMagic prints, or for each method and bin that has masks, as LaMa prints."""
    scores = scores[scores["error"] == ""]
    return _as_lama(scores, set_scores) if like == "lama" else _as_mmagic(scores)


def text(like: str, table: pd.DataFrame, pixels: str) -> str:
    """`rows` for a terminal. pixels: which pixels were scored, in words."""
    lines = table.to_string(index=False, na_rep="", float_format=f"{{:.{DIGITS[like]}f}}".format)
    notes = [note for column, note in NOTES.items() if column in table]
    return f"{TITLES[like]}: {', '.join([*notes, pixels])}\n{lines}"


def _as_mmagic(scores):
    names = [name for name in HEADINGS if name in scores]
    means = scores.groupby("method", sort=False)[names].mean()
    return means.rename(columns=HEADINGS).reset_index()


def _as_lama(scores, set_scores):
    bins = {pair: bin_of(ratio) for pair, ratio in zip(scores["pair"], scores["hole_ratio"], strict=True)}
    fids = {}
    for groups in (bins, dict.fromkeys(bins, ALL_PAIRS)):
        for row in set_scores(groups).to_dict("records"):
            if row["metric"] == "fid":
                fids[row["method"], row["category"]] = row["mean"]
    found = []
    for method, own in scores.groupby("method", sort=False):
        labels = own["pair"].map(bins)
        for label in [label for label in LABELS if label in set(labels)]:
            found.append(_lama_row(method, label, own[labels == label], fids))
        found.append(_lama_row(method, ALL_PAIRS, own, fids))
        if {"fid", "lpips"} <= set(found[-1]):
            found[-1][F1] = f1(found[-1]["lpips"], found[-1]["fid"])
    table = pd.DataFrame(found)
    return table[[name for name in COLUMNS if name in table]]


def _lama_row(method, label, scores, fids):
    row = {"method": method, "masks": label}
    for ours, theirs in NAMES.items():
        if ours in scores:
            row |= {theirs: scores[ours].mean(), f"{theirs} std": scores[ours].std(ddof=0)}
    return row | ({"fid": fids[method, label]} if (method, label) in fids else {})


def bin_of(ratio: float) -> str:
    """LaMa's bin of a hole ratio: its lower edge belongs to it, and 1 to the last."""
    return LABELS[min(int(np.searchsorted(EDGES, ratio, side="right")) - 1, len(LABELS) - 1)]


def f1(lpips: float, fid: float) -> float:
    """LaMa's `lpips_fid100_f1`, higher is better."""
    near, real = 1 - lpips, max(0, 100 - fid) / 100
    return 2 * near * real / (near + real + 1e-3)
