"""croissant.json: a published mask set in MLCommons' Croissant, for the search engines of datasets."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from maskgen.maskset import INDEX
from maskgen.publish.texts import bibtex, columns_of, facts, licence_link, render
from maskgen.runtime.files import sha256
from maskgen.settings import PublishConfig

if TYPE_CHECKING:
    import pandas as pd


def croissant(table: "pd.DataFrame", recipe: dict, sources: list[dict], config: PublishConfig, out: Path) -> dict:
    """The set in Croissant 1.1 with its Responsible AI part, as a JSON-LD object.

    Source: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
    """
    description = render("facts.md", **facts(table, recipe)).replace("**", "")
    text = render(
        "croissant.json",
        config=config,
        description=" ".join(description.split()),
        link=licence_link(config),
        bibtex=bibtex(config),
        based_on=[
            f"{s.get('name')} ({s.get('source', 'not stated')}, {s.get('licence', 'not stated')})" for s in sources
        ],
        videos=len(sources),
        archive=_file(out / "archives" / "masks.zip"),
        index=_file(out / "test" / INDEX),
        columns=columns_of(table),
    )
    return json.loads(text)


def _file(path):
    return {"name": path.name, "size": path.stat().st_size, "sha256": sha256(path)}
