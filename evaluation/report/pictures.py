"""The pictures of a run, and the pairs that a report shows."""

from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.metrics import METRICS
from evaluation.pairs import Pair, Sources, jpeg, load_pair, reduced
from evaluation.settings import BenchmarkConfig, ReportConfig


class Pictures:
    """The pictures and scores of a run, by pair.

    Results are read from `out/pictures`. The input and the true image are computed from their sources.
    """

    def __init__(
        self,
        out: Path,
        scores: pd.DataFrame,
        pairs: dict[str, Pair],
        sources: Sources,
        config: BenchmarkConfig,
        report: ReportConfig,
    ):
        self.out, self.scores, self.pairs = out, scores, pairs
        self.sources, self.config, self.report = sources, config, report
        self.methods = list(dict.fromkeys(scores["method"]))
        self.rows = {(row["pair"], row["method"]): row for row in scores.to_dict("records")}

    def load(self, pair: str) -> dict[str, bytes]:
        """Pictures of a pair as JPEG, by name: "input" (white in the hole), each method with a result, "truth"."""
        truth, image, hole = load_pair(self.pairs[pair], self.sources, self.config)
        if self.config.factor:
            image = reduced(truth, self.config.factor).repeat(self.config.factor, 0).repeat(self.config.factor, 1)
        else:
            image[hole] = 255
        pictures = {"input": jpeg(image, self.report.quality)}
        for method in self.methods:
            path = self.out / "pictures" / method / self.pairs[pair].category / f"{pair}.jpg"
            if path.exists() and not self.rows[pair, method]["error"]:
                pictures[method] = path.read_bytes()
        return {**pictures, "truth": jpeg(truth, self.report.quality)}

    def missing(self, pair: str, method: str) -> str:
        """Why a method has no picture of a pair, in one or two words."""
        return "failed" if self.rows[pair, method]["error"] else "no picture"

    def score(self, pair: str, method: str, metric: str) -> str:
        """A score as printed, "-" without one."""
        value = self.rows[pair, method][metric]
        return "-" if np.isnan(value) else f"{value:.{METRICS[metric].digits}f}"


def select_pairs(scores: pd.DataFrame, by: str) -> dict[str, dict[str, str]]:
    """Select the worst, median and best pair of each class by a metric's mean over the methods.

    Returns {class: {"worst": pair, "median": pair, "best": pair}}. A method that failed on a whole class is ignored
    there. Pairs that another method failed on are not selected. A class of one or two pairs has fewer entries.
    """
    selected = {}
    for category, group in scores.groupby("category", sort=False):
        values = group.pivot(index="pair", columns="method", values=by).replace([np.inf, -np.inf], np.nan)
        means = values.dropna(axis=1, how="all").dropna().mean(axis=1)
        order = means.sort_values(ascending=METRICS[by].better == "higher", kind="stable").index  # worst first
        if len(order) == 1:
            selected[category] = {"median": order[0]}
            continue
        ranks = {"worst": 0, "median": len(order) // 2, "best": len(order) - 1} if len(order) else {}
        selected[category] = {}
        for name, rank in ranks.items():
            if order[rank] not in selected[category].values():
                selected[category][name] = order[rank]
    return selected
