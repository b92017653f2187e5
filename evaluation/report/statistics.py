"""Means of scores with bootstrap intervals, and paired tests of which differences are real.

Pairs that share an image are not independent, so images are what is drawn anew and what is compared. Where every
image is used once in a class, that is the plain bootstrap and the plain paired test.
"""

import itertools
import zlib

import numpy as np
import pandas as pd

from evaluation.metrics import ALL, METRICS
from evaluation.settings import ReportConfig

COLUMNS = ["metric", "method", "category", "n", "mean", "low", "high", "identical", "failed"]


def summary(scores: pd.DataFrame, config: ReportConfig, seed: int) -> pd.DataFrame:
    """One row for a metric, method and class: n, mean, low, high, identical, failed.

    n counts the pairs behind the mean. identical: pairs whose PSNR is infinite, counted apart from the mean; failed:
    pairs without a result. low and high bound the mean with the configured confidence (percentiles of the bootstrap).
    """
    rows = []
    for name in [name for name in METRICS if name in scores]:
        for (method, category), group in scores.groupby(["method", "category"], sort=False):
            kept = group[np.isfinite(group[name])]
            mean, low, high = interval(kept[name], kept["image"], config, [seed, zlib.crc32(category.encode())])
            rows.append(
                {
                    "metric": name,
                    "method": method,
                    "category": category,
                    "n": len(kept),
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "identical": int(np.isposinf(group[name]).sum()),
                    "failed": int((group["error"] != "").sum()),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def with_sets(table: pd.DataFrame, sets: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Add the metrics of sets to a summary; they have no interval. scores: by which failed pairs are counted."""
    if sets.empty:
        return table
    keys = ["method", "category"]
    failed = scores.assign(failed=scores["error"] != "").groupby(keys, sort=False, as_index=False)["failed"].sum()
    told = sets.merge(failed, on=keys).assign(low=np.nan, high=np.nan, identical=0)[COLUMNS]
    return pd.concat([table, told], ignore_index=True) if len(table) else told


def interval(values, images, config: ReportConfig, seed) -> tuple[float, float, float]:
    """Mean of the values and the bounds of its bootstrap interval; nan without values, no bounds for one image.

    images: the image behind each value, what is drawn with replacement.
    """
    if not len(values):
        return np.nan, np.nan, np.nan
    table = pd.DataFrame({"value": np.asarray(values, float), "image": np.asarray(images)})
    groups = table.groupby("image", sort=True)["value"].agg(["sum", "size"])
    if len(groups) < 2:
        return float(table["value"].mean()), np.nan, np.nan
    rng, n = np.random.default_rng(seed), len(groups)
    drawn = rng.multinomial(n, np.full(n, 1 / n), config.resamples)
    means = (drawn @ groups["sum"].to_numpy()) / (drawn @ groups["size"].to_numpy())
    low, high = np.quantile(means, [(1 - config.confidence) / 2, (1 + config.confidence) / 2])
    return float(table["value"].mean()), float(low), float(high)


def comparisons(scores: pd.DataFrame) -> pd.DataFrame:
    """Every two methods on every class and metric: mean difference, Wilcoxon's signed-rank p, and Holm's correction.

    Columns metric, category, method, other, n (images that both have), difference (method - other), p, p_holm. The
    correction is over all comparisons of one metric. p is nan where fewer than six images are there to compare: the
    smallest p of five is 0.06.
    """
    from scipy.stats import wilcoxon

    methods = list(dict.fromkeys(scores["method"]))
    rows = []
    for name in [name for name in METRICS if name in scores]:
        for category, group in scores.groupby("category", sort=False):
            table = group.pivot(index=["pair", "image"], columns="method", values=name)
            for one, other in itertools.combinations(methods, 2):
                difference = (table[one] - table[other]).replace([np.inf, -np.inf], np.nan).dropna()
                by_image = difference.groupby("image").mean()
                p = np.nan
                if len(by_image) >= 6:
                    p = float(wilcoxon(by_image).pvalue) if by_image.any() else 1.0
                told = {"metric": name, "category": category, "method": one, "other": other}
                mean = float(difference.mean()) if len(difference) else np.nan
                rows.append({**told, "n": len(by_image), "difference": mean, "p": p})
    columns = ["metric", "category", "method", "other", "n", "difference", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = table.groupby("metric")["p"].transform(holm) if len(table) else []
    return table


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction (1979) of the p-values that are not nan: sorted p times what is left, never falling."""
    known = p.dropna().sort_values()
    factors = np.arange(len(known), 0, -1)
    return (known * factors).cummax().clip(upper=1).reindex(p.index)


def best(table: pd.DataFrame, tests: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Mark in a summary the best mean of every metric and class, and what cannot be told from it.

    Adds the bool columns `best` and `tied`: tied is a method whose difference to the best is not real at alpha, also
    where there are too few images to know.
    """
    table = table.assign(best=False, tied=False)
    real = tests[tests["p_holm"] < alpha]
    apart = {frozenset(names) for names in real[["metric", "category", "method", "other"]].itertuples(index=False)}
    for (name, category), group in table.groupby(["metric", "category"], sort=False):
        known = group["mean"].dropna()
        if known.empty:
            continue
        shown = known.round(ALL[name].digits)
        top = shown.min() if ALL[name].better == "lower" else shown.max()
        winners = shown.index[shown == top]  # equal as printed is equal, as in the paper's table
        table.loc[winners, "best"] = True
        first = table.loc[winners[0], "method"]
        for i in known.index.difference(winners):
            table.loc[i, "tied"] = frozenset((name, category, table.loc[i, "method"], first)) not in apart
    return table
