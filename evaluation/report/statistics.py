"""Mean scores with bootstrap intervals, and paired tests between methods.

Pairs that share an image are not independent. So the bootstrap resamples images, and the tests compare means of images.
If each image occurs once in a class, these are the usual bootstrap and the usual paired test.
"""

import itertools
import zlib
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from evaluation.metrics import ALL, METRICS
from evaluation.settings import ReportConfig

COLUMNS = ["metric", "method", "category", "n", "mean", "low", "high", "identical", "failed"]
OVERALL = "all"  # all classes together
FEWEST = 6  # images of a test: with five the smallest p-value is 0.06


def with_overall(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores, and again as one class OVERALL where they are of several classes."""
    classes = set(scores["category"])
    if len(classes) < 2 or OVERALL in classes:
        return scores
    return pd.concat([scores, scores.assign(category=OVERALL)], ignore_index=True)


def summary(scores: pd.DataFrame, config: ReportConfig, seed: int) -> pd.DataFrame:
    """Summarise scores by metric, method and class.

    Columns: metric, method, category, n (finite scores), mean, low and high (bounds of the mean), identical (infinite
    scores, such as the PSNR of identical images, which are not part of the mean), failed (pairs without a result).
    """
    names, rows = [name for name in METRICS if name in scores], {}
    for category, of_class in scores.groupby("category", sort=False):  # outside, as its cells share their samples
        for name, (method, group) in itertools.product(names, of_class.groupby("method", sort=False)):
            finite = group[np.isfinite(group[name])]
            mean, low, high = interval(finite[name], finite["image"], config, [seed, zlib.crc32(category.encode())])
            rows[name, method, category] = {
                "metric": name,
                "method": method,
                "category": category,
                "n": len(finite),
                "mean": mean,
                "low": low,
                "high": high,
                "identical": int(np.isposinf(group[name]).sum()),
                "failed": int((group["error"] != "").sum()),
            }
    cells = scores[["method", "category"]].drop_duplicates().itertuples(index=False)
    in_order = [rows[name, *cell] for name, cell in itertools.product(names, cells)]
    return pd.DataFrame(in_order, columns=COLUMNS)


def unscored(scores: pd.DataFrame) -> dict[str, dict[str, int]]:
    """How many results of a method a metric has no value for, by metric and method; failed pairs do not count."""
    done = scores[scores["error"] == ""]
    counts = {name: done["method"][done[name].isna()].value_counts(sort=False) for name in METRICS if name in scores}
    return {name: {str(method): int(n) for method, n in count.items()} for name, count in counts.items() if len(count)}


def with_sets(table: pd.DataFrame, sets: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Add metrics of sets, such as FID, to a summary. They have no interval. scores: for the number of failed pairs."""
    if sets.empty:
        return table
    keys = ["method", "category"]
    failed = scores.assign(failed=scores["error"] != "").groupby(keys, sort=False, as_index=False)["failed"].sum()
    rows = sets.merge(failed, on=keys).assign(low=np.nan, high=np.nan, identical=0)[COLUMNS]
    return pd.concat([table, rows], ignore_index=True) if len(table) else rows


def interval(
    values: ArrayLike, images: ArrayLike, config: ReportConfig, seed: int | list[int]
) -> tuple[float, float, float]:
    """Mean and percentile bootstrap interval of values, resampling the images.

    values, images: of one length; the scores and the image that each score belongs to. Returns (mean, low, high): all
    nan without values, bounds nan if there is only one image. Source: Efron & Tibshirani 1993, chapter 13.
    """
    if not len(values):
        return np.nan, np.nan, np.nan
    table = pd.DataFrame({"value": np.asarray(values, float), "image": np.asarray(images)})
    mean = float(table["value"].mean())
    groups = table.groupby("image", sort=True)["value"].agg(["sum", "size"])
    if len(groups) < 2:
        return mean, np.nan, np.nan
    counts = _counts(len(groups), config.resamples, *np.atleast_1d(seed).tolist())
    means = (counts @ groups["sum"].to_numpy()) / (counts @ groups["size"].to_numpy())
    low, high = np.quantile(means, [(1 - config.confidence) / 2, (1 + config.confidence) / 2])
    return mean, float(low), float(high)


@lru_cache(maxsize=1)
def _counts(images, resamples, *seed):
    """How often each image is in each of the bootstrap's samples: int64 (resamples, images)."""
    rng = np.random.default_rng(list(seed) if len(seed) > 1 else seed[0])
    return rng.multinomial(images, np.full(images, 1 / images), resamples)


def comparisons(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare each two methods in each class and metric by Wilcoxon's signed-rank test over images.

    Columns: metric, category, method, other, n (images that both methods have), difference (mean over the pairs of
    method - other), p, p_holm (corrected for all comparisons of the metric). p is nan for fewer than six images.
    """
    from scipy.stats import wilcoxon

    methods = list(dict.fromkeys(scores["method"]))
    rows = []
    for name in [name for name in METRICS if name in scores]:
        for category, group in scores.groupby("category", sort=False):
            values = group.pivot(index=["pair", "image"], columns="method", values=name)
            for method, other in itertools.combinations(methods, 2):
                difference = (values[method] - values[other]).replace([np.inf, -np.inf], np.nan).dropna()
                by_image = difference.groupby("image").mean()
                p = np.nan
                if len(by_image) >= FEWEST:
                    p = float(wilcoxon(by_image).pvalue) if by_image.any() else 1.0
                rows.append(
                    {
                        "metric": name,
                        "category": category,
                        "method": method,
                        "other": other,
                        "n": len(by_image),
                        "difference": float(difference.mean()) if len(difference) else np.nan,
                        "p": p,
                    }
                )
    columns = ["metric", "category", "method", "other", "n", "difference", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = table.groupby("metric")["p"].transform(holm) if len(table) else []
    return table


def holm(p: pd.Series) -> pd.Series:
    """Adjust p-values for multiple comparisons by Holm's step-down method (1979). nan stays nan and does not count."""
    known = p.dropna().sort_values()
    factors = np.arange(len(known), 0, -1)
    return (known * factors).cummax().clip(upper=1).reindex(p.index)


def mark_best(table: pd.DataFrame, tests: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Mark the best methods of each metric and class in a summary, and those that do not differ from them.

    Adds the bool columns `best` and `tied`. Means that are equal as printed are all best, as in the paper's table. A
    method is tied if its difference to one of the best is not significant at alpha, or could not be tested.
    """
    table = table.assign(best=False, tied=False)
    significant = tests[tests["p_holm"] < alpha]
    keys = significant[["metric", "category", "method", "other"]].itertuples(index=False)
    different = {(name, category, frozenset(methods)) for name, category, *methods in keys}
    for (name, category), group in table.groupby(["metric", "category"], sort=False):
        means = group["mean"].dropna()
        if means.empty:
            continue
        printed = means.round(ALL[name].digits)
        top = printed.min() if ALL[name].better == "lower" else printed.max()
        winners = printed.index[printed == top]
        table.loc[winners, "best"] = True
        for i in means.index.difference(winners):
            matches = [frozenset(table.loc[[i, winner], "method"]) for winner in winners]
            table.loc[i, "tied"] = any((name, category, match) not in different for match in matches)
    return table
