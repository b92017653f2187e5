"""The papers of a published mask set: data set card, datasheet, licence, citation."""

import itertools
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from maskgen.maskset import INDEX, credit_lines
from maskgen.settings import BORDER, EDGES, PublishConfig

LICENCES = {  # SPDX name: what Hugging Face calls it, where its text is
    "CC-BY-4.0": ("cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/legalcode"),
    "CC0-1.0": ("cc0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/legalcode"),
    "Apache-2.0": ("apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
}
COLUMNS = {  # of the index: what each tells, and its Croissant type
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
    "sha256": ("hash of the PNG file", "sc:Text"),
}


def _counts(table):
    counts = Counter(table["category"])
    lines = ["| hole ratio | interior | free |", "|---|---|---|"]
    for low, high in itertools.pairwise(EDGES):
        interior, free = (counts[f"{side}_{low:g}-{high:g}"] for side in ("interior", "free"))
        lines.append(f"| ({low:g}, {high:g}] | {interior} | {free} |")
    return "\n".join(lines)


def _fields(table):
    return "\n".join(f"* `{name}`: {COLUMNS[name][0]}" for name in table.columns if name in COLUMNS)


def facts(table, recipe):
    """Sentences that the card and the datasheet share."""
    touching = int(((table["border_distance"].astype(int) == 0) & table["category"].str.startswith("free")).sum())
    free = int(table["category"].str.startswith("free").sum())
    return f"""{len(table):,} binary masks of 512 x 512 px, 8-bit grey PNG. **White (255) is the hole**, black is kept.
Ratio intervals are (low, high]: a ratio on an edge belongs to the lower class. In `interior` masks every hole pixel
keeps {BORDER} px or more from the image edge; `free` masks are made without that rule and measure less.
{touching} of the {free} free masks touch the edge. No two masks of one kind correlate by more than
{recipe.get("closest_pair", "an unmeasured number")} as 32 x 32 thumbnails."""


def card(table, recipe: dict, sources: list[dict], config: PublishConfig, out: Path) -> str:
    """The dataset card, README.md: YAML for Hugging Face, then what a reader must know."""
    hub, link = LICENCES.get(config.licence, ("other", ""))
    number = len(table)
    size = next(
        name
        for limit, name in ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**9, "100K<n<1M"))
        if number < limit
    )
    other = f"license_name: {json.dumps(config.licence)}\nlicense_link: LICENSE\n" if hub == "other" else ""
    total = sum((out / "test" / name).stat().st_size for name in table["file_name"])
    kinds = {"int64": "int64", "float64": "float64"}
    features = "".join(
        f"    - name: {name}\n      dtype: {kinds.get(str(table[name].dtype), 'string')}\n"
        for name in table.columns
        if name != "file_name"
    )
    credits_ = credit_lines(sources)
    return f"""---
license: {hub}
{other}pretty_name: {json.dumps(config.title, ensure_ascii=False)}
task_categories:
- image-to-image
- mask-generation
size_categories:
- {size}
annotations_creators:
- machine-generated
source_datasets:
- original
tags:
- inpainting
- irregular-masks
- occlusion
- croissant
configs:
- config_name: default
  drop_labels: true
  data_files:
  - split: test
    path: test/**
dataset_info:
  features:
    - name: image
      dtype: image
{features}  splits:
    - name: test
      num_bytes: {total}
      num_examples: {number}
  download_size: {total}
---

# {config.title}

{facts(table, recipe)}

![masks of each class, white is the hole](preview/sheet.png)

## Details
* Curated by: {config.creator}
* Licence of the masks: {config.licence} ({link or "see LICENSE"}); the videos they come from are credited below
* Made by irregular-masks {recipe.get("version", "")}, after section 4.1 of Liu et al., ECCV 2018
* Version {config.version}, {config.date}

## Uses
Testing inpainting methods by size of hole and by its distance from the border, on any images of 512 x 512 px.
Out of scope: training and testing on the same masks; claims about holes of other shapes, such as text or boxes.

## Structure
{_counts(table)}

`test/{INDEX}` has a row for each mask:

{_fields(table)}

```python
from datasets import load_dataset
masks = load_dataset("imagefolder", data_dir=".", split="test", drop_labels=True)
```

`archives/` holds the same masks as a zip, and where made as WebDataset tars (one a class) and as Parquet.
`sha256sum -c checksums.sha256` or `maskgen verify .` checks every file.

## Creation
The masks are occlusions and disocclusions between video frames, found by the forward-backward check of optical
flow, then joined, turned, shifted, cropped and grown to a wanted hole ratio. `recipe.json` has every setting and
the hash of every video; `seed` in the index starts the generator of each mask.

{credits_}

## Bias, risks and limitations
Holes follow the outlines of things that moved in {len(sources)} videos; other videos give other shapes. The interior
masks above a ratio of 0.5 fill 77 to 93 % of the room the border leaves, so their outlines lie close to it
(`clipped` says how much of each). They are not NVIDIA's masks of 2018, though made by the recipe of the paper.

## Privacy
A mask shows no image content: outlines of moving things, turned and widened, and nothing that identifies a person.

## Citation
```bibtex
{bibtex(config)}
```
The paper whose test set this follows: Liu, Reda, Shih, Wang, Tao, Catanzaro, "Image Inpainting for Irregular Holes
Using Partial Convolutions", ECCV 2018.
"""


def bibtex(config: PublishConfig) -> str:
    """How to cite the set."""
    title, creator = (re.sub(r"([&%$#_{}])", r"\\\1", text) for text in (config.title, config.creator))
    fields = {"title": title, "author": f"{{{creator}}}", "year": config.date[:4], "url": config.url}
    lines = [f"  {key} = {{{value}}}," for key, value in {**fields, "version": config.version}.items() if value]
    key = re.sub(r"\W+", "_", config.name)
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def citation(config: PublishConfig) -> str:
    """CITATION.cff."""
    link = f"url: {json.dumps(config.url)}\n" if config.url else ""
    quoted = {key: json.dumps(value, ensure_ascii=False) for key, value in asdict(config).items()}
    return f"""cff-version: 1.2.0
message: If you use these masks, please cite them as below.
type: dataset
title: {quoted["title"]}
authors:
- name: {quoted["creator"]}
version: {quoted["version"]}
date-released: {config.date}
license: {json.dumps(config.licence)}
{link}"""


def licence_text(sources: list[dict], config: PublishConfig) -> str:
    """LICENSE: the masks' licence, and credit for every video."""
    link = LICENCES.get(config.licence, ("", ""))[1]
    return f"""{config.title}
Copyright {config.date[:4]} {config.creator}

The masks and their index are licensed under {config.licence}{f": {link}" if link else ""}

They are made from the videos below, whose makers are credited under their own licences.

{credit_lines(sources)}
"""


def datasheet(table, recipe: dict, sources: list[dict], config: PublishConfig) -> str:
    """datasheet.md: the questions of Gebru et al., "Datasheets for Datasets", that apply."""
    place = f", at {config.url}" if config.url else ""
    settings = "\n".join(f"* {key}: `{json.dumps(value)}`" for key, value in recipe.get("settings", {}).items())
    clipped = "\n".join(
        f"* {name}: mean {value['mean']}, highest {value['max']}" for name, value in recipe.get("clipped", {}).items()
    )
    return f"""# Datasheet: {config.title}

## Motivation
The test masks of Liu et al. (ECCV 2018) were published without an index, a licence or the program that made them.
This set gives the same classes with all three. Made by: {config.creator}.

## Composition
{facts(table, recipe)}

{_counts(table)}

Each instance is one mask with its row of the index; nothing is missing and nothing is labelled by hand. There is one
split, `test`. Masks of a class are independent draws, but share raw masks:
{recipe.get("raw_masks_used", "?")} of them were used, the fewest and the most masks that one of them takes part in are
{recipe.get("masks_that_use_one_raw_mask", "not counted")}. No content is confidential, offensive or about people.

## Collection
Optical flow between frames of {len(sources)} videos, which are credited below. Nobody was asked or paid: the videos are
public, and the masks keep no picture of them.

{credit_lines(sources)}

## Preprocessing
{settings}

Share of the outline that lies straight along the {BORDER} px line, interior masks:

{clipped or "* not measured"}

## Uses
Testing of image inpainting. Not for training a method that is then tested on them.

## Distribution
Under {config.licence}{place}, as PNG files, zip, and where made WebDataset and Parquet.

## Maintenance
Version {config.version} of {config.date}. A changed mask raises the first number of the version, an added one the
second, a changed text the third. `checksums.sha256` tells versions apart.
"""
