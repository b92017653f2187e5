"""The summary of a benchmark as text, Markdown, LaTeX and HTML tables, all in the layout of the paper's Table 1."""

import html
import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from evaluation.metrics import ALL
from maskgen.categories import CATEGORIES
from maskgen.settings import EDGES

INTERVALS = tuple(f"({low:g}, {high:g}]" for low, high in itertools.pairwise(EDGES))
PUBLISHED = "as published by Liu et al. 2018, Table 1: other images, masks and classifier"
NAMES = {"l1_percent": "l1_image", "psnr_db": "psnr", "ssim": "ssim", "iscore": "iscore"}  # the paper's and ours


def published() -> pd.DataFrame:
    """The paper's Table 1 as rows of metric, method, category and mean, the metrics under our names."""
    table = pd.read_csv(Path(__file__).parents[1] / "data" / "table1.csv", comment="#")
    side = table["border"].map({"N": "interior", "B": "free"})
    return pd.DataFrame(
        {
            "metric": table["metric"].map(NAMES),
            "method": table["method"],
            "category": side + "_" + table["ratio_bin"],
            "mean": table["value"],
        }
    )


def with_published(table: pd.DataFrame) -> pd.DataFrame:
    """Add the paper's numbers to a summary, for the metrics that it has; the column `source` tells them apart."""
    theirs = published()
    theirs = theirs[theirs["metric"].isin(table["metric"])].assign(source="published", best=False, tied=False)
    return pd.concat([table.assign(source="this run"), theirs], ignore_index=True)


def columns_of(categories) -> list[tuple[str, str, str]]:
    """The table's columns as (heading, subheading, class): the paper's twelve pairwise, then any other class."""
    present = list(dict.fromkeys(categories))
    paper = [
        (interval, side, f"{side}_{low:g}-{high:g}")
        for interval, (low, high) in zip(INTERVALS, itertools.pairwise(EDGES), strict=True)
        for side in ("interior", "free")
    ]
    others = [(name, "", name) for name in present if name not in CATEGORIES]
    return (paper if any(name in CATEGORIES for name in present) else []) + others


def title(name: str, recipe: dict) -> str:
    """What stands above a metric's table: its unit and direction, whose pixels, how many pairs."""
    metric = ALL[name]
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{name}{unit}, {metric.better} is better; {pixels(recipe)}, {recipe['sources']['pairs']} pairs"


def pixels(recipe: dict) -> str:
    """Which pixels were scored."""
    return "the method's own pixels (raw)" if recipe["settings"]["raw"] else "composited images"


def rows_of(table: pd.DataFrame, name: str) -> list[tuple[str, str, list]]:
    """The lines of one metric as (source, method, a cell for each column or None); this run's before the paper's."""
    lines = []
    columns = columns_of(table["category"])
    group = table[table["metric"] == name]
    sources = group["source"] if "source" in group else pd.Series("this run", group.index)
    for (source, method), rows in group.groupby([sources, "method"], sort=False):
        cells = {row["category"]: row for row in rows.to_dict("records")}
        lines.append((source, method, [cells.get(category) for _, _, category in columns]))
    return lines


def number(cell: dict | None, name: str) -> str:
    """A mean as printed, - where there is none."""
    if cell is None or np.isnan(cell["mean"]):
        return "-"
    return f"{cell['mean']:.{ALL[name].digits}f}"


def mark(cell: dict | None) -> str:
    """What follows a number: * after the best, ~ after what cannot be told from it."""
    if cell is None or np.isnan(cell["mean"]):
        return ""
    return "*" if cell["best"] else "~" if cell["tied"] else ""


def spread(cell: dict | None, name: str) -> str:
    """Half the width of the interval, as ±0.05; empty without one."""
    if cell is None or np.isnan(cell.get("low", np.nan)):
        return ""
    return f"±{(cell['high'] - cell['low']) / 2:.{ALL[name].digits}f}"


def legend(table: pd.DataFrame) -> list[str]:
    """The lines below the tables: what the marks mean, which pairs are not in the means."""
    ours = table[table["source"] == "this run"] if "source" in table else table
    lines = [
        "* best, ~ not to be told from the best (Wilcoxon's paired test over images, Holm-corrected), "
        "± half the 95 % bootstrap interval"
    ]
    cells = ours.groupby(["method", "category"], sort=False)[["identical", "failed", "n"]].max()
    for method, row in cells.groupby("method", sort=False).sum().iterrows():
        if row["identical"]:
            lines.append(f"{method}: {int(row['identical'])} identical results, infinite PSNR, not in its mean")
        if row["failed"] and not row["n"] and not row["identical"]:
            lines.append(f"{method}: no result, all {int(row['failed'])} pairs failed; scores.csv tells why")
        elif row["failed"]:
            lines.append(f"{method}: {int(row['failed'])} pairs failed and are in no mean; scores.csv tells why")
    return lines


def as_text(table: pd.DataFrame, recipe: dict) -> str:
    """For a terminal: half the interval's width below each mean."""
    columns = columns_of(table["category"])
    wide = max(9, *(len(sub or head) + 1 for head, sub, _ in columns))
    first = max(10, *(len(method) + 2 for method in table["method"]))
    blocks = []
    for name in dict.fromkeys(table["metric"]):
        heads = [" " * first, " " * first]
        for head, sub, _ in columns:
            if sub == "interior":
                heads[0] += head.center(2 * wide)
            elif not sub:
                heads[0] += head.rjust(wide)
            heads[1] += sub.rjust(wide)
        lines = [title(name, recipe), *[line.rstrip() for line in heads if line.strip()]]
        told = False
        for source, method, cells in rows_of(table, name):
            if source == "published" and not told:
                lines.append(PUBLISHED)
                told = True
            means = "".join((number(cell, name) + (mark(cell) or " ")).rjust(wide) for cell in cells)
            spreads = "".join((spread(cell, name) + " ").rjust(wide) for cell in cells)
            lines.append((method.ljust(first) + means).rstrip())
            if spreads.strip():
                lines.append((" " * first + spreads).rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, "\n".join(legend(table))])


def as_markdown(table: pd.DataFrame, recipe: dict) -> str:
    """For a README: best in bold."""
    columns = columns_of(table["category"])
    blocks = []
    for name in dict.fromkeys(table["metric"]):
        heads = [f"{head}<br>{sub}" if sub else head for head, sub, _ in columns]
        lines = [f"**{title(name, recipe)}**", "", "| | " + " | ".join(heads) + " |"]
        lines.append("|---|" + "---:|" * len(columns))
        for source, method, cells in rows_of(table, name):
            shown = []
            for cell in cells:
                text = number(cell, name)
                text = f"**{text}**" if mark(cell) == "*" else text + mark(cell).replace("~", "\\~")
                shown.append(" ".join(filter(None, [text, spread(cell, name)])))
            label = f"*{method}, published*" if source == "published" else method
            lines.append(f"| {label} | " + " | ".join(shown) + " |")
        if any(source == "published" for source, _, _ in rows_of(table, name)):
            lines += ["", f"*published: {PUBLISHED}*"]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, "\n".join(f"- {line}" for line in _bold_legend(table))]) + "\n"


def _bold_legend(table):
    lines = legend(table)
    return [lines[0].replace("* best", "bold: best").replace("~ not", "\\~: not"), *lines[1:]]


def as_latex(table: pd.DataFrame, recipe: dict) -> str:
    """For a paper: a table environment for each metric, with booktabs; best in bold, tied underlined."""
    columns = columns_of(table["category"])
    blocks = ["% needs \\usepackage{booktabs}"]
    for name in dict.fromkeys(table["metric"]):
        over, under, rules, at = [], [], [], 2
        for head, sub, _ in columns:
            if sub == "interior":
                over.append(f"\\multicolumn{{2}}{{c}}{{${head}$}}")
                rules.append(f"\\cmidrule(lr){{{at}-{at + 1}}}")
            elif not sub:
                over.append(_tex(head))
            under.append(sub)
            at += 1
        body = []
        told = False
        for source, method, cells in rows_of(table, name):
            if source == "published" and not told:
                body.append(f"\\midrule\n\\multicolumn{{{len(columns) + 1}}}{{l}}{{\\emph{{{_tex(PUBLISHED)}}}}} \\\\")
                told = True
            means, spreads = [_tex(method)], [""]
            for cell in cells:
                text = number(cell, name).replace("-", "--") if number(cell, name) == "-" else number(cell, name)
                means.append({"*": f"\\textbf{{{text}}}", "~": f"\\underline{{{text}}}"}.get(mark(cell), text))
                width = spread(cell, name).removeprefix("±")
                spreads.append(f"{{\\scriptsize$\\pm${width}}}" if width else "")
            body.append(" & ".join(means) + " \\\\")
            if any(spreads):
                body.append(" & ".join(spreads) + " \\\\")
        caption = (
            title(name, recipe)
            + ". Bold: best; underlined: not to be told from it; $\\pm$: half the 95\\,\\% interval."
        )
        heads = [" & ".join(["", *over]) + " \\\\", "".join(rules)] if rules else [" & ".join(["", *over]) + " \\\\"]
        if any(under):
            heads.append(" & ".join(["", *under]) + " \\\\")
        blocks.append(
            "\n".join(
                [
                    "\\begin{table*}",
                    "\\centering\\small\\setlength{\\tabcolsep}{4pt}",
                    f"\\begin{{tabular}}{{l*{{{len(columns)}}}{{r}}}}",
                    "\\toprule",
                    *heads,
                    "\\midrule",
                    *body,
                    "\\bottomrule",
                    "\\end{tabular}",
                    f"\\caption{{{_tex(caption, keep='$' + chr(92))}}}",
                    "\\end{table*}",
                ]
            )
        )
    return "\n\n".join(blocks) + "\n"


def _tex(text, keep=""):
    for character in "&%#_":
        text = text.replace(f"\\{character}", character).replace(character, f"\\{character}")
    return text if "$" in keep else text.replace("$", "\\$")


def as_html(table: pd.DataFrame, name: str) -> str:
    """The table element of one metric."""
    columns = columns_of(table["category"])
    over, under = "<th rowspan=2></th>", ""
    for head, sub, _ in columns:
        if sub == "interior":
            over += f"<th colspan=2>{html.escape(head)}</th>"
        elif not sub:
            over += f"<th rowspan=2>{html.escape(head)}</th>"
        under += f"<th>{sub}</th>" if sub else ""
    lines, told = [], False
    for source, method, cells in rows_of(table, name):
        if source == "published" and not told:
            lines.append(
                f"<tr class=told><th colspan={len(columns) + 1}><span>{html.escape(PUBLISHED)}</span></th></tr>"
            )
            told = True
        shown = ""
        for cell in cells:
            kind = {"*": " class=best"}.get(mark(cell), "")
            width = spread(cell, name)
            tied = "<i>~</i>" if mark(cell) == "~" else ""
            shown += f"<td{kind}>{number(cell, name)}{tied}" + (f"<small>{width}</small>" if width else "") + "</td>"
        lines.append(f"<tr><th>{html.escape(method)}</th>{shown}</tr>")
    return f"<table><thead><tr>{over}</tr><tr>{under}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
