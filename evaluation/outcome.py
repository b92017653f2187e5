"""What the results of all runs have in common: scores, the table of means, and which methods failed."""

import tempfile
from pathlib import Path

import pandas as pd


class Outcome:
    """The results of a run: `scores`, `table` and `failures`.

    scores: DataFrame with a row for each method and UNIT, with the error if it failed, as in `scores.csv`. folder:
    where all files of the run are.
    """

    UNIT = "pair"  # what a method is scored on; a column of the scores

    def __init__(self, folder: Path, scores: pd.DataFrame, text: str, labels: list[str]):
        self.folder, self.scores, self._text, self._labels = folder, scores, text, labels
        self._temporary: tempfile.TemporaryDirectory | None = None  # removed together with this object

    @property
    def table(self) -> pd.DataFrame:
        """One row for each metric, class and method: the mean and its interval, as in `table.csv`."""
        return pd.read_csv(self.folder / "table.csv", dtype={"method": str, "category": str})

    @property
    def failures(self) -> list[str]:
        """One line for each method that failed; those that failed everywhere come last."""
        return [line for _, line in self._failures()]

    @property
    def all_failed(self) -> bool:
        """True if a method failed everywhere."""
        return any(everywhere for everywhere, _ in self._failures())

    def _failures(self):
        found = []
        for label, rows in self.scores[self.scores["method"].isin(self._labels)].groupby("method", sort=False):
            failed = rows[rows["error"] != ""]
            if len(failed):
                everywhere = len(failed) == len(rows)
                count = "all" if everywhere else f"{len(failed):,}"
                first, error = failed[self.UNIT].iloc[0], failed["error"].iloc[0]
                found.append((everywhere, f"{label}: {count} {self.UNIT}s failed, the first, {first}: {error}"))
        return sorted(found, key=lambda item: item[0])

    def __repr__(self) -> str:
        return "\n".join([self._text.rstrip("\n"), *self.failures])
