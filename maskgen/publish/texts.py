"""The documents of a published mask set: dataset card, datasheet, licence, citation. Their text is in `templates/`."""

import itertools
import json
import re
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from maskgen.maskset import INDEX, credit_lines
from maskgen.settings import BORDER, EDGES, PublishConfig

if TYPE_CHECKING:
    import pandas as pd

LICENCES = {  # SPDX name: Hugging Face's name, address of the text
    "CC-BY-4.0": ("cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/legalcode"),
    "CC0-1.0": ("cc0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/legalcode"),
    "Apache-2.0": ("apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
}
SIZES = {1000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 10**9: "100K<n<1M"}  # Hugging Face's classes
COLUMNS = {  # of the index: description, Croissant type
    "file_name": ("path of the mask, relative to the index", "sc:Text"),
    "category": ("class: interior or free, and the interval of the hole ratio", "sc:Text"),
    "hole_ratio": ("hole pixels / all pixels", "sc:Float"),
    "border_distance": ("px between the nearest hole pixel and the nearest image edge; 0 lies on it", "sc:Integer"),
    "components": ("8-connected pieces of the hole", "sc:Integer"),
    "source": ("videos the hole comes from", "sc:Text"),
    "frame": ("frame of the first raw mask's video", "sc:Text"),
    "kind": ("occluded or disoccluded, of the first raw mask", "sc:Text"),
    "raw": ("raw masks it is joined from", "sc:Text"),
    "layers": ("how many raw masks", "sc:Integer"),
    "dilation": ("px, side of the brush that widened the hole", "sc:Float"),
    "rotation": ("degrees each raw mask was turned by", "sc:Text"),
    "zoom": ("how much each raw mask was magnified", "sc:Text"),
    "clipped": ("share of the outline that lies straight along the border line", "sc:Float"),
    "seed": ("numbers that the generator of this mask started from", "sc:Text"),
    "attempt": ("how often it was made anew, being too much like another", "sc:Integer"),
    "pixels_sha256": ("hash of the pixels, 8 in a byte, hole pixels as 1, the same in every file format", "sc:Text"),
    "sha256": ("hash of the PNG file", "sc:Text"),
}


@cache
def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("maskgen.publish"),
        autoescape=False,  # Markdown, YAML and JSON, which the filters below quote
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = json.dumps
    environment.filters["quoted"] = partial(json.dumps, ensure_ascii=False)  # for YAML, whose strings include JSON's
    return environment


def render(template: str, **values) -> str:
    """Fill `templates/TEMPLATE.jinja`."""
    return _environment().get_template(f"{template}.jinja").render(values)


def columns_of(table: "pd.DataFrame") -> list[tuple[str, str, str]]:
    """The columns of an index that have a description, as (name, description, Croissant type)."""
    return [(name, *COLUMNS[name]) for name in table.columns if name in COLUMNS]


def licence_link(config: PublishConfig) -> str:
    """Address of the licence's text, "" for a licence that `LICENCES` does not list."""
    return LICENCES.get(config.licence, ("", ""))[1]


def facts(table: "pd.DataFrame", recipe: dict) -> dict:
    """The numbers of `facts.md.jinja`, which the card, the datasheet and the Croissant description share."""
    free = table["category"].str.startswith("free")
    return {
        "number": len(table),
        "free": int(free.sum()),
        "touching": int(((table["border_distance"].astype(int) == 0) & free).sum()),
        "border": BORDER,
        "closest_pair": recipe.get("closest_pair", "an unmeasured number"),
    }


def _counts(table):
    """The rows of `counts.md.jinja`: (interval, interior masks, free masks)."""
    counts = Counter(table["category"])
    return [
        (f"({low:g}, {high:g}]", counts[f"interior_{low:g}-{high:g}"], counts[f"free_{low:g}-{high:g}"])
        for low, high in itertools.pairwise(EDGES)
    ]


def card(table: "pd.DataFrame", recipe: dict, sources: list[dict], config: PublishConfig, out: Path) -> str:
    """The dataset card, README.md: YAML for Hugging Face, then what a user of the masks needs to know."""
    dtypes = {name: str(table[name].dtype) for name in table.columns if name != "file_name"}
    return render(
        "README.md",
        **facts(table, recipe),
        config=config,
        hub=LICENCES.get(config.licence, ("other", ""))[0],
        link=licence_link(config),
        size=next(name for limit, name in SIZES.items() if len(table) < limit),
        features=[(name, dtype if dtype in ("int64", "float64") else "string") for name, dtype in dtypes.items()],
        bytes=sum((out / "test" / name).stat().st_size for name in table["file_name"]),
        made_by=recipe.get("version", ""),
        counts=_counts(table),
        index=INDEX,
        columns=columns_of(table),
        credits=credit_lines(sources),
        videos=len(sources),
        bibtex=bibtex(config),
    )


def datasheet(table: "pd.DataFrame", recipe: dict, sources: list[dict], config: PublishConfig) -> str:
    """datasheet.md: the questions of Gebru et al., "Datasheets for Datasets", that apply."""
    return render(
        "datasheet.md",
        **facts(table, recipe),
        config=config,
        counts=_counts(table),
        raw_masks=recipe.get("raw_masks_used", "?"),
        reuse=recipe.get("masks_that_use_one_raw_mask", "not counted"),
        credits=credit_lines(sources),
        videos=len(sources),
        settings=recipe.get("settings", {}),
        clipped=recipe.get("clipped", {}),
    )


def bibtex(config: PublishConfig) -> str:
    """How to cite the set, without a newline at the end."""
    title, creator = (re.sub(r"([&%$#_{}])", r"\\\1", text) for text in (config.title, config.creator))
    fields = {"title": title, "author": f"{{{creator}}}", "year": config.date[:4], "url": config.url}
    given = [(key, value) for key, value in {**fields, "version": config.version}.items() if value]
    return render("citation.bib", key=re.sub(r"\W+", "_", config.name), fields=given).rstrip("\n")


def citation(config: PublishConfig) -> str:
    """CITATION.cff."""
    return render("CITATION.cff", config=config)


def licence_text(sources: list[dict], config: PublishConfig) -> str:
    """LICENSE: the masks' licence, and credit for every video."""
    return render("LICENSE", config=config, link=licence_link(config), credits=credit_lines(sources))
