"""The HTML pages of a report. Each is one file that loads nothing else."""

import base64
from collections.abc import Iterator
from functools import cache

from evaluation.metrics import METRICS
from evaluation.report import tables
from evaluation.report.charts import charts
from evaluation.report.pictures import Pictures

PAGES = "pages"  # below the results folder


def report_page(results: tables.Results, pictures: Pictures, selected: dict[str, dict[str, str]], pages: bool) -> str:
    """The report: tables, charts, and the selected pairs with a slider between each result and the true image.

    Args:
        results: what the tables show.
        pictures: the pictures of the run.
        selected: pairs to show, as `pictures.select_pairs` returns them.
        pages: whether to link the pages of all pairs.
    """
    by = results.report.by
    entries = {pair: _entry(pictures, pair) for pairs in selected.values() for pair in pairs.values()}
    classes = [
        (category, [(pair, _shots(pictures, pair, entries[pair], by, rank)) for rank, pair in pairs.items()])
        for category, pairs in selected.items()
        if pairs
    ]
    return _render(
        "report.html",
        title="Inpainting benchmark",
        facts=_facts(results.recipe),
        metrics=[_metric(results, pictures, name) for name in results.metrics],
        classes=classes,
        by=by,
        covered=not pictures.config.factor,
        index=f"{PAGES}/index.html" if pages else "",
        pair_count=len(pictures.pairs),
        entries=entries,
    )


def pair_pages(pictures: Pictures) -> Iterator[tuple[str, str]]:
    """Yield (path, HTML) of a page for each pair, then of the index. Paths are relative to the results folder."""
    by, classes = pictures.report.by, {}
    for pair in pictures.pairs.values():
        classes.setdefault(pair.category, []).append(pair.pair)
    places = {pair: f"{category}/{pair}.html" for category, group in classes.items() for pair in group}
    names = list(places)
    for i, name in enumerate(names):
        entry = _entry(pictures, name)
        text = _render(
            "pair.html",
            title=f"Pair {name}",
            category=pictures.pairs[name].category,
            covered=not pictures.config.factor,
            before=places[names[i - 1]] if i else "",
            after=places[names[i + 1]] if i + 1 < len(names) else "",
            pair=name,
            shots=_shots(pictures, name, entry, by),
            entries={name: entry},
        )
        yield f"{PAGES}/{places[name]}", text
    yield (
        f"{PAGES}/index.html",
        _render(
            "index.html",
            title=f"{len(names):,} pairs",
            metric=by,
            methods=pictures.methods,
            classes=[(category, [_index_row(pictures, pair) for pair in group]) for category, group in classes.items()],
        ),
    )


def _index_row(pictures, name):
    """A row of the index of pairs."""
    pair = pictures.pairs[name]
    return {
        "path": f"{pair.category}/{name}.html",
        "pair": name,
        "image": pair.image,
        "ratio": f"{pair.hole_ratio:.3f}",
        "scores": [pictures.score(name, method, pictures.report.by) for method in pictures.methods],
    }


@cache
def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # keys keep their order
    return environment


def _render(template, **values):
    return _environment().get_template(template).render(values)


def _facts(recipe):
    """The lines below the title."""
    folders, settings = recipe["folders"], recipe["settings"]
    libraries = [f"{name} {version}" for name, version in recipe["libraries"].items()]
    protocol = tables.protocol_of(recipe)
    return [
        *([protocol[0].upper() + protocol[1:]] if protocol else []),
        f"{recipe['sources']['pairs']} pairs; images: {folders['images']}, masks: {folders['masks']}",
        f"{tables.size(settings)}, seed {settings['seed']}, {tables.pixels(recipe)}",
        ", ".join([f"irregular-masks {recipe['version']}", *libraries]),
    ]


def _metric(results, pictures, name):
    """The section of a metric."""
    own = results.own[results.own["metric"] == name]
    return {
        "name": name,
        "title": tables.title(name, results.recipe),
        **tables.as_nested(results.table, name),
        "legend": [*tables.legend(results, name, best="bold"), *tables.significant(results, name)],
        "methods": list(dict.fromkeys(own["method"])),
        "charts": charts(own, pictures.scores, name),
    }


def _entry(pictures, pair):
    """The data of the slider: the pictures of a pair as data URIs, and its scores as text."""
    metrics = [name for name in METRICS if name in pictures.scores]
    return {
        "category": pictures.pairs[pair].category,
        "metrics": metrics,
        "scores": {method: [pictures.score(pair, method, name) for name in metrics] for method in pictures.methods},
        "pictures": {
            name: "data:image/jpeg;base64," + base64.b64encode(data).decode()
            for name, data in pictures.load(pair).items()
        },
    }


def _shots(pictures, pair, entry, by, rank=""):
    """(name, caption) of each picture of a pair. rank: "worst", "median", "best" or empty."""
    captions = {"input": f"{rank} input".strip(), "truth": "truth"}
    return [(name, captions.get(name) or f"{name} {pictures.score(pair, name, by)}") for name in entry["pictures"]]
