"""Report of a study: rates with Wilson intervals (figure 8 of the paper), a ranking, agreement, excluded raters.

Raters are excluded because of catch trials and sides only, never because of how they judged a method.
"""

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.benchmark import TRUTH
from evaluation.study.settings import TOLERANCE, StudyReportConfig
from evaluation.study.store import DATABASE, checked_database
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.runtime.files import write_whole

ALL = "all"  # as a border or a category: all of them together


def read(folder: Path) -> pd.DataFrame:
    """All answers of a study except practice, with the columns of their trials. Does not change the database.

    Raises BadInput if the folder holds no study, or its database is damaged.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise BadInput(f"no {DATABASE} in {folder}: make a study with `evaluate study make RESULTS {folder}`")
    db = sqlite3.connect(path, timeout=30)
    try:
        with checked_database(path):
            found = db.execute(
                "SELECT rater, source, excluded, trial, kind, category, pair, hole_ratio, a, b, exposure, side, "
                "choice, shown_ms, answer_ms, width, views, flagged, at FROM answers "
                "JOIN dealt USING (rater, position) JOIN trials USING (trial) JOIN raters USING (rater) "
                "WHERE kind != 'practice' ORDER BY rater, position"
            )
            table = pd.DataFrame.from_records(
                found.fetchall(), columns=[column[0] for column in found.description], coerce_float=True
            )
    finally:
        db.close()
    table["won"] = table["choice"] == "a"
    table["border"] = [name.split("_")[0] if name in CATEGORIES else "other" for name in table["category"]]
    return table


def wilson(wins: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the share wins / n (Wilson 1927). Arrays or numbers; (0, 1) where n is 0."""
    from scipy.stats import norm

    wins, n = np.asarray(wins, float), np.asarray(n, float)
    z = norm.ppf((1 + confidence) / 2)
    share = np.divide(wins, n, out=np.full_like(wins, 0.5), where=n > 0)
    middle = (share * n + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(share * (1 - share) * n + z**2 / 4)
    return np.where(n > 0, (middle - half).clip(0), 0), np.where(n > 0, (middle + half).clip(max=1), 1)


def raters(answers: pd.DataFrame, config: StudyReportConfig) -> pd.DataFrame:
    """One row for each rater.

    Columns: rater, source, answers, catches, catches_right, left (share of answers), seconds (median of an answer),
    flagged, left_out (the reason, or empty).
    """
    rows = []
    for (rater, source), group in answers.groupby(["rater", "source"]):
        catches = group[group["kind"] == "catch"]
        right, left = int(catches["won"].sum()), float((group["side"] == "left").mean())
        why = group["excluded"].iloc[0]
        if not why and len(catches) >= config.catch_least and right < config.catch_right * len(catches):
            why = f"{right} of {len(catches)} catch trials right"
        if not why and len(group) >= config.side_least and max(left, 1 - left) >= config.same_side:
            why = f"one side in {max(left, 1 - left):.0%} of the trials"
        rows.append(
            {
                "rater": rater,
                "source": source,
                "answers": len(group) - len(catches),
                "catches": len(catches),
                "catches_right": right,
                "left": round(left, 3),
                "seconds": round(float(group["answer_ms"].median()) / 1000, 2),
                "flagged": int(group["flagged"].sum()),
                "left_out": why,
            }
        )
    names = "rater source answers catches catches_right left seconds flagged left_out".split()
    return pd.DataFrame(rows, columns=names)


def kept(answers: pd.DataFrame, who: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The answers of a part that count: those of raters who are not excluded, and not flagged."""
    included = set(who["rater"][who["left_out"] == ""])
    return answers[(answers["kind"] == kind) & answers["rater"].isin(included) & (answers["flagged"] == 0)]


def rates(answers: pd.DataFrame, by: list[str], config: StudyReportConfig) -> pd.DataFrame:
    """Share of answers for `a` in each class, in each border group and in total.

    Columns: those of `by`, border, category, n, wins, rate, low, high (Wilson). The category `all` pools the classes of
    one border group, and the border `all` pools everything.
    """
    parts = [answers, answers.assign(category=ALL), answers.assign(category=ALL, border=ALL)]
    rows = pd.concat(parts).groupby([*by, "border", "category"], sort=False)["won"].agg(n="size", wins="sum")
    table = rows.reset_index()
    table["rate"] = table["wins"] / table["n"]
    table["low"], table["high"] = wilson(table["wins"], table["n"], config.confidence)
    order = {name: i for i, name in enumerate([*CATEGORIES, ALL])}
    keys = table.assign(category=table["category"].map(order).fillna(len(order)))
    return table.loc[keys.sort_values([*by, "category", "border"], kind="stable").index].reset_index(drop=True)


def bradley_terry(answers: pd.DataFrame, config: StudyReportConfig) -> pd.DataFrame:
    """Rank the methods by pairwise answers. Columns: method, n, strength, low, high, beats_average.

    Bradley & Terry 1952: P(i beats j) = 1 / (1 + exp(s_j - s_i)), with strengths s of mean 0, by Newton's method. Half
    an answer is added to each side of each comparison, so that a method that never lost has a finite strength.
    Intervals: Wald, with the covariance clustered by image pair (ten answers on one pair are not independent), never
    narrower than those of independent answers. beats_average: probability of winning against a strength of 0.
    """
    from scipy.stats import norm

    names = sorted(set(answers["a"]) | set(answers["b"]))
    if len(names) < 2:
        return pd.DataFrame(columns=["method", "n", "strength", "low", "high", "beats_average"])
    index = {name: i for i, name in enumerate(names)}
    a, b = answers["a"].map(index).to_numpy(), answers["b"].map(index).to_numpy()
    compared = sorted(set(zip(a.tolist(), b.tolist(), strict=True)))
    one, other = np.array([*a, *[i for i, _ in compared] * 2]), np.array([*b, *[j for _, j in compared] * 2])
    won = np.concatenate([answers["won"].to_numpy(float), np.ones(len(compared)), np.zeros(len(compared))])
    weight = np.concatenate([np.ones(len(answers)), np.full(2 * len(compared), 0.5)])
    design = np.eye(len(names))[one] - np.eye(len(names))[other]  # (answers, methods)
    strength = np.zeros(len(names))
    for _ in range(100):
        chance = 1 / (1 + np.exp(-design @ strength))
        inverse = np.linalg.pinv(design.T @ (design * (weight * chance * (1 - chance))[:, None]))
        step = inverse @ (design.T @ (weight * (won - chance)))
        strength = strength + step
        if np.abs(step).max() < 1e-10:
            break
    real = len(answers)
    scores = pd.DataFrame(design[:real] * (won - chance)[:real, None]).groupby(answers["pair"].to_numpy()).sum()
    clustered = inverse @ (scores.T.to_numpy() @ scores.to_numpy()) @ inverse
    variance = np.maximum(np.diag(clustered), np.diag(inverse))
    half = norm.ppf((1 + config.confidence) / 2) * np.sqrt(variance)
    n = np.bincount(np.concatenate([a, b]), minlength=len(names))
    columns = {"method": names, "n": n, "strength": strength, "low": strength - half, "high": strength + half}
    table = pd.DataFrame({**columns, "beats_average": 1 / (1 + np.exp(-strength))})
    return table.sort_values("strength", ascending=False, ignore_index=True)


def agreement(answers: pd.DataFrame) -> dict[str, float]:
    """Agreement of raters on the trials with two or more answers.

    Keys: trials (their number), pairwise (share of pairs of raters with the same choice), alpha (Krippendorff's alpha,
    nominal: 1 is perfect agreement, 0 is chance).
    """
    counts = answers.groupby("trial")["won"].agg(n="size", wins="sum")
    counts = counts[counts["n"] > 1]
    if counts.empty:
        return {"trials": 0, "pairwise": np.nan, "alpha": np.nan}
    n, wins = counts["n"].to_numpy(float), counts["wins"].to_numpy(float)
    differ = 2 * wins * (n - wins)  # ordered pairs of raters who chose differently
    pairwise = 1 - differ.sum() / (n * (n - 1)).sum()
    total, first = n.sum(), wins.sum()
    expected = 2 * first * (total - first) / (total * (total - 1))
    alpha = 1 - (differ / (n - 1)).sum() / total / expected if expected else np.nan
    return {"trials": len(counts), "pairwise": float(pairwise), "alpha": float(alpha)}


def tables(folder: Path, config: StudyReportConfig) -> dict[str, pd.DataFrame]:
    """The tables of the report by name. Raises BadInput if there are no answers."""
    answers = read(folder)
    if answers.empty:
        raise BadInput(f"{folder} has no answers yet: collect some with `evaluate study serve {folder}`")
    who = raters(answers, config)
    unlimited, limited = kept(answers, who, "unlimited"), kept(answers, who, "limited")
    rankings, agreements = [], []
    for border in [ALL, *dict.fromkeys(unlimited["border"])]:
        chosen = unlimited if border == ALL else unlimited[unlimited["border"] == border]
        rankings.append(bradley_terry(chosen, config).assign(border=border))
    for name, part in [("unlimited", unlimited), *((f"limited {ms} ms", g) for ms, g in limited.groupby("exposure"))]:
        if len(part):
            agreements.append({"part": name, "answers": len(part), **agreement(part)})
    return {
        "preferences": rates(unlimited, ["a", "b"], config).rename(columns={"a": "method", "b": "other"}),
        "exposures": rates(limited, ["a", "exposure"], config).rename(columns={"a": "method"}),
        "ranking": pd.concat(rankings, ignore_index=True) if rankings else pd.DataFrame(),
        "agreement": pd.DataFrame(agreements, columns=["part", "answers", "trials", "pairwise", "alpha"]),
        "raters": who,
    }


def write(folder: Path, config: StudyReportConfig) -> str:
    """Write `folder/report`: a CSV file for each table, report.md and figure8.png. Returns the text of report.md."""
    found, out = tables(folder, config), folder / "report"
    out.mkdir(exist_ok=True)
    for name, table in found.items():
        write_whole(out / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode())
    write_whole(out / "figure8.png", figure(found))
    text = as_markdown(found, config)
    write_whole(out / "report.md", text.encode())
    return text


def as_markdown(found: dict[str, pd.DataFrame], config: StudyReportConfig) -> str:
    """The tables as a Markdown report."""
    who, confidence = found["raters"], f"{config.confidence:.0%}"
    excluded = who[who["left_out"] != ""]
    flagged = int(who["flagged"][who["left_out"] == ""].sum())
    lines = [
        "# User study",
        "",
        f"{int(who['answers'].sum())} answers of {len(who)} raters; {len(excluded)} raters with "
        f"{int(excluded['answers'].sum())} answers are excluded, and {flagged} answers of the others, with exposures "
        f"more than {TOLERANCE:.0%} off or seen twice. Rates are shares of answers with {confidence} Wilson intervals.",
        "",
        "![Figure 8](figure8.png)",
    ]
    if len(found["preferences"]):
        lines += ["", "## Which of two results looks more real?", "", "Share of answers for the first method.", ""]
        lines += _pivot(found["preferences"], lambda row: f"{row['method']} > {row['other']}")
    if len(found["exposures"]):
        lines += ["", "## Result against truth", "", "Share of answers for the result; 50 % is chance.", ""]
        lines += _pivot(found["exposures"], lambda row: f"{row['method']}, {row['exposure']} ms")
    if len(found["ranking"]):
        lines += [
            "",
            "## Ranking",
            "",
            f"Bradley-Terry strengths (log odds, mean 0) with {confidence} intervals, clustered by image pair.",
            "",
            "| holes | method | strength | interval | beats the average | answers |",
            "|---|---|---|---|---|---|",
        ]
        for row in found["ranking"].to_dict("records"):
            lines.append(
                f"| {row['border']} | {row['method']} | {row['strength']:.2f} | {row['low']:.2f} to {row['high']:.2f} "
                f"| {100 * row['beats_average']:.1f} % | {row['n']} |"
            )
    lines += [
        "",
        "## Agreement between raters",
        "",
        "On trials with two or more answers.",
        "",
        "| part | trials | pairs of raters who agree | Krippendorff's alpha |",
        "|---|---|---|---|",
    ]
    for row in found["agreement"].to_dict("records"):
        numbers = f"{100 * row['pairwise']:.1f} % | {row['alpha']:.3f}" if row["trials"] else "- | -"
        lines.append(f"| {row['part']} | {row['trials']} | {numbers} |")
    lines += [
        "",
        "## Excluded raters",
        "",
        f"Raters are excluded if fewer than {config.catch_right:.0%} of {config.catch_least} or more catch trials are "
        f"right, if they chose one side in {config.same_side:.0%} or more of {config.side_least} or more trials, or if "
        "the platform reports their submission as rejected, returned or timed out.",
        "",
    ]
    lines += [
        f"* rater {row['rater']} ({row['source']}, {row['answers']} answers): {row['left_out']}"
        for row in excluded.to_dict("records")
    ] or ["None."]
    return "\n".join(lines) + "\n"


def _pivot(table, title):
    """A Markdown table with a column for each comparison and a row for each class, each border group and the total."""
    table = table.assign(column=[title(row) for row in table.to_dict("records")])
    columns = list(dict.fromkeys(table["column"]))
    rows = list(dict.fromkeys(zip(table["border"], table["category"], strict=True)))
    order = {name: i for i, name in enumerate(CATEGORIES)}
    rows.sort(key=lambda key: (key[0] == ALL, key[1] == ALL, order.get(key[1], len(order))))
    cells = {(row["border"], row["category"], row["column"]): row for row in table.to_dict("records")}
    lines = ["| holes | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for border, category in rows:
        name = category if category != ALL else f"{border} holes" if border != ALL else "all holes"
        values = []
        for column in columns:
            row = cells.get((border, category, column))
            values.append(
                "-"
                if row is None
                else f"{100 * row['rate']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f}), n {row['n']}"
            )
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return lines


def figure(found: dict[str, pd.DataFrame]) -> bytes:
    """Figure 8 as PNG: rates over hole ratio, rates against the truth over exposure; a column for each border group."""
    import io

    from matplotlib.figure import Figure

    borders = [
        b
        for b in ("interior", "free", "other")
        if any(len(found[name]) and b in set(found[name]["border"]) for name in ("preferences", "exposures"))
    ]
    kinds = [name for name in ("preferences", "exposures") if len(found[name])]
    page = Figure(figsize=(5.4 * max(1, len(borders)), 3.9 * max(1, len(kinds))), layout="constrained")
    axes = page.subplots(max(1, len(kinds)), max(1, len(borders)), squeeze=False, sharey="row")
    for line, kind in zip(axes, kinds, strict=False):
        for axis, border in zip(line, borders, strict=True):
            table = found[kind][found[kind]["border"] == border]
            _panel(axis, table, kind, border)
        line[0].set_ylabel("chosen over the other" if kind == "preferences" else f"chosen over the {TRUTH}")
        line[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _panel(axis, table, kind, border):
    if kind == "preferences":
        table = table[table["category"] != ALL]
        places = {name: i for i, name in enumerate(dict.fromkeys(table["category"]))}
        groups = table.groupby(["method", "other"], sort=False)
        axis.set_xticks(range(len(places)), [name.split("_")[-1] for name in places], fontsize=8)
        axis.set_xlabel("hole ratio")
        x, name = (lambda rows: rows["category"].map(places)), (lambda key: f"{key[0]} > {key[1]}")
    else:
        table = table[table["category"] == ALL]
        times = sorted(set(table["exposure"]))
        groups = table.groupby("method", sort=False)
        axis.set_xticks(range(len(times)), [f"{ms} ms" for ms in times], fontsize=8)
        axis.set_xlabel("shown for")
        x, name = (lambda rows: rows["exposure"].map({ms: i for i, ms in enumerate(times)})), str
    for i, (key, rows) in enumerate(groups):
        shift = (i - (groups.ngroups - 1) / 2) * min(0.12, 0.6 / groups.ngroups)
        errors = [100 * (rows["rate"] - rows["low"]), 100 * (rows["high"] - rows["rate"])]
        axis.errorbar(x(rows) + shift, 100 * rows["rate"], errors, marker="o", ms=4, lw=1.2, capsize=3, label=name(key))
    axis.axhline(50, color="#888", lw=0.8, ls="--", zorder=0)
    axis.set_ylim(0, 100)
    axis.yaxis.set_major_formatter("{x:.0f} %")
    axis.set_title(
        {"interior": "interior: 50 px from the border", "free": "free: anywhere"}.get(border, border), fontsize=10
    )
    axis.spines[["top", "right"]].set_visible(False)
