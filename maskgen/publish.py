"""Write a mask set as others expect a data set: a folder that loads as it stands, archives, papers, checksums."""

import io
import itertools
import json
import re
import shutil
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

from tqdm import tqdm

from maskgen import plots
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput, install_hint
from maskgen.maskset import INDEX, credit_lines, read_index, read_recipe
from maskgen.runtime.files import CHECKSUMS, sha256, write_checksums, write_whole
from maskgen.runtime.output import PROGRESS, RECIPE, OutputFolder, libraries, locked, opencv
from maskgen.settings import BORDER, EDGES, PublishConfig
from maskgen.video import read_credits

ARCHIVES = ("webdataset", "parquet")
NEEDED = ("category", "hole_ratio", "border_distance", "sha256")  # columns without which nothing can be said
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: every file has it, so that bytes repeat
NVIDIA_NAME = "mask/testing_mask_dataset/{:05d}.png"
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


def publish(
    masks: Path,
    out: Path,
    config: PublishConfig,
    *,
    credits: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Write the test set `masks` to `out`, ready for a host of data sets. Returns warnings, such as a missing licence.

    out gets the masks and index (Hugging Face's imagefolder layout), README.md (dataset card), croissant.json,
    datasheet.md, LICENSE, CITATION.cff, recipe.json, pictures, archives/ and checksums.sha256. credits: a
    SOURCES.csv, as `maskgen.video.read_credits` reads it, which adds to or corrects what the recipe knows of the
    videos. The same set and config give the same bytes.

    A folder belongs to one set and one layout: another set is refused. Where only the config, the credits or the
    libraries that draw and pack differ, all but the masks is written anew. say: is told where nothing has to be done.
    Raises BadInput for a set that is unfinished, has no recipe or index, or holds other masks than its index lists; for
    an unknown archive, a date that is none, and an `out` that holds something else.
    """
    with locked(out):  # before the masks are read
        return _publish("imagefolder", _write_folder, masks, out, config, credits, say)


def publish_nvidia(
    masks: Path,
    out: Path,
    config: PublishConfig,
    *,
    credits: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Write the test set as one zip in the layout of NVIDIA's: 00000.png to 11999.png in one folder. Returns warnings.

    The order is one block per class: for each ratio interval first the free masks (their "with border"), then the
    interior ones. `index.csv` beside the zip says which file is what, which theirs never did. All else as `publish`.
    """
    with locked(out):
        return _publish("nvidia", _write_nvidia, masks, out, replace(config, archives=()), credits, say)


def _publish(layout, write, masks, out, config, credits, say):
    _check(config)
    recipe, table = _read(masks)
    if out.resolve().is_relative_to(masks.resolve()):
        raise BadInput(f"{out} is the mask set itself, or lies in it: expected another folder to publish to")
    sources, warnings = _credited(recipe.get("sources", []), credits)
    if not config.url:
        warnings.append("the papers do not say where the set will be found: --url")
    fixed = {"made_by": "maskgen publish", "layout": layout, "masks": _checked_index(masks, table)}
    about = {
        "publication": asdict(config),
        "libraries": {**opencv(), **libraries("numpy", "pandas", "matplotlib", "pyarrow")},
        "sources": sources,
    }
    about |= {key: value for key, value in recipe.items() if key not in {*fixed, *about, "version", "libraries"}}
    about = json.loads(json.dumps({**about, "testset_version": recipe.get("version", "")}))  # as it will be read back
    with OutputFolder(out, fixed, about=about) as folder:
        if folder.complete and all(folder.finished.get(key) == value for key, value in about.items()):
            say(folder.already)
        else:
            if folder.complete:  # other papers: whoever stops now leaves an unfinished folder
                folder.reopen()
                (out / RECIPE).unlink()
                (out / CHECKSUMS).unlink(missing_ok=True)
            write(masks, out, table, recipe, sources, config)
            folder.finish()
        if not (out / CHECKSUMS).exists():  # they include the recipe, which a finished run writes last
            write_checksums(out)
    return warnings


def _check(config):
    """BadInput for a config that no host takes."""
    unknown = [name for name in config.archives if name not in ARCHIVES]
    if unknown:
        raise BadInput(f"no archive {unknown[0]!r}: expected one of {', '.join(ARCHIVES)}; a zip is always written")
    try:
        known = date.fromisoformat(config.date).isoformat() == config.date
    except ValueError:
        known = False
    if not known:
        raise BadInput(f"the date of publication is a day such as 2026-11-23, got {config.date!r}")
    if "parquet" in config.archives:
        _pyarrow()


def _write_folder(masks, out, table, recipe, sources, config):
    for name in tqdm(table["file_name"], unit="mask", desc="publish"):
        target, data = out / "test" / name, (masks / "test" / name).read_bytes()
        if not target.exists() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, data)
    write_whole(out / "test" / INDEX, (masks / "test" / INDEX).read_bytes())
    plots.draw_figures(out, out / "preview")
    _archives(out, table, config)
    papers = {
        "README.md": card(table, recipe, sources, config, out),
        "datasheet.md": datasheet(table, recipe, sources, config),
        "LICENSE": licence_text(sources, config),
        "CITATION.cff": citation(config),
        "croissant.json": json.dumps(croissant(table, recipe, sources, config, out), indent=2) + "\n",
    }
    for name, text in papers.items():
        write_whole(out / name, text.encode())


def _write_nvidia(masks, out, table, recipe, sources, config):
    order = [f"{side}_{name.partition('_')[2]}" for name in CATEGORIES[:6] for side in ("free", "interior")]
    table = table.assign(place=table["category"].map(order.index)).sort_values("place", kind="stable")
    table = table.drop(columns="place").reset_index(drop=True)
    files = [(NVIDIA_NAME.format(i), masks / "test" / name) for i, name in enumerate(table["file_name"])]
    write_whole(out / "test_mask.zip", _zip(files))
    index = table.assign(original=table["file_name"], file_name=[name for name, _ in files])
    write_whole(out / "index.csv", index.to_csv(index=False, lineterminator="\n").encode())
    write_whole(out / "LICENSE", licence_text(sources, config).encode())


def _read(masks):
    """Recipe and index table of a test set."""
    if (masks / PROGRESS).is_dir():
        raise BadInput(f"{masks} is unfinished: run the command that makes it to its end")
    recipe = read_recipe(masks)
    table = read_index(masks / "test")
    missing = [name for name in NEEDED if name not in table]
    if missing or not all(
        isinstance(v, dict) and {"mean", "max"} <= set(v) for v in recipe.get("clipped", {}).values()
    ):
        what = f"no column {missing[0]}" if missing else f"no shares of clipped outline in its {RECIPE}"
        raise BadInput(f"{masks} has {what}: expected a test set, made by `maskgen testset`")
    strangers = sorted(set(table["category"]) - set(CATEGORIES))
    if table.empty or strangers:
        what = "no masks" if table.empty else f"the class {strangers[0]!r}"
        raise BadInput(f"{masks} has {what}: expected a test set, made by `maskgen testset`")
    return recipe, table


def _checked_index(masks, table):
    """SHA-256 of the index. BadInput where a mask has not the hash that is listed there, so that it stands for all."""
    for name, listed in zip(table["file_name"], table["sha256"], strict=True):
        path = masks / "test" / name
        if not path.is_file() or sha256(path) != listed:
            raise BadInput(f"{path} is missing, or not the mask that the index lists: see `maskgen verify {masks}`")
    return sha256(masks / "test" / INDEX)


def _credited(sources, credits):
    """The videos of a set with what a SOURCES.csv adds, and warnings of what is still unknown."""
    sources, warnings = [dict(source) for source in sources], []
    if credits:
        known = {_composed(file): row for file, row in read_credits(credits).items()}
        files = [_composed(source.get("file", source["name"])) for source in sources]
        for source, file in zip(sources, files, strict=True):
            source.update(known.get(file, {}))
        if not set(known) & set(files):
            warnings.append(f"{credits} names none of the {len(sources)} videos, only such as {next(iter(known))}")
    silent = [source["name"] for source in sources if not source.get("licence")]
    if silent:
        warnings.append(
            f"{len(silent)} of {len(sources)} videos have no stated licence, such as {silent[0]}: --sources"
        )
    return sources, warnings


def _composed(name):
    """A file name with its accents in one form: macOS stores them as characters of their own."""
    return unicodedata.normalize("NFC", name)


def _archives(out, table, config):
    """Everything below `archives`: the zip, and what config.archives names."""
    folder = out / "archives"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "webdataset", ignore_errors=True)  # of another config
    (folder / "masks.parquet").unlink(missing_ok=True)
    files = [(f"masks/{name}", out / "test" / name) for name in [INDEX, *table["file_name"]]]
    write_whole(folder / "masks.zip", _zip(files))
    if "webdataset" in config.archives:
        (folder / "webdataset").mkdir(exist_ok=True)
        for name in CATEGORIES:
            rows = table[table["category"] == name]
            if len(rows):
                write_whole(folder / "webdataset" / f"{name}.tar", _tar(out / "test", rows))
    if "parquet" in config.archives:
        write_whole(folder / "masks.parquet", _parquet(out / "test", table))


def _zip(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:  # PNG is packed already
        for name, path in files:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, path.read_bytes())
    return data.getvalue()


def _tar(folder, rows):
    """A WebDataset shard: NAME.png and NAME.json, one after the other."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for row in rows.to_dict("records"):
            key = row["file_name"].removesuffix(".png").replace("/", "_").replace(".", "-")  # a dot would end the key
            told = json.dumps(row, ensure_ascii=False).encode()
            for name, content in ((f"{key}.png", (folder / row["file_name"]).read_bytes()), (f"{key}.json", told)):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(
            f"a Parquet archive needs pyarrow: {install_hint('publish')}, or leave it out with --archives webdataset"
        ) from None
    return pyarrow


def _parquet(folder, table):
    """The index and the PNG files as one table, the image as Hugging Face stores it: {bytes, path}."""
    arrow = _pyarrow()
    images = [{"bytes": (folder / name).read_bytes(), "path": name} for name in table["file_name"]]
    image = arrow.array(images, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))
    columns = {"image": image, **{name: arrow.array(table[name].tolist()) for name in table.columns}}
    features = {"image": {"_type": "Image"}} | {
        name: {"dtype": str(column.type).replace("double", "float64"), "_type": "Value"}
        for name, column in columns.items()
        if name != "image"
    }
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    data = io.BytesIO()
    arrow.parquet.write_table(arrow.table(columns).replace_schema_metadata(told), data, row_group_size=1000)
    return data.getvalue()


# The papers.


def _counts(table):
    counts = Counter(table["category"])
    lines = ["| hole ratio | interior | free |", "|---|---|---|"]
    for low, high in itertools.pairwise(EDGES):
        interior, free = (counts[f"{side}_{low:g}-{high:g}"] for side in ("interior", "free"))
        lines.append(f"| ({low:g}, {high:g}] | {interior} | {free} |")
    return "\n".join(lines)


def _fields(table):
    return "\n".join(f"* `{name}`: {COLUMNS[name][0]}" for name in table.columns if name in COLUMNS)


def _facts(table, recipe):
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

{_facts(table, recipe)}

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
{_facts(table, recipe)}

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


def croissant(table, recipe: dict, sources: list[dict], config: PublishConfig, out: Path) -> dict:
    """croissant.json: the set in MLCommons' Croissant 1.1 with its Responsible AI part, as a JSON-LD object."""
    index, archive = out / "test" / INDEX, out / "archives" / "masks.zip"
    link = LICENCES.get(config.licence, ("", ""))[1]
    told = [name for name in table.columns if name in COLUMNS]
    from_index = [
        {
            "@type": "cr:Field",
            "@id": f"masks/{name}",
            "name": name,
            "description": COLUMNS[name][0],
            "dataType": COLUMNS[name][1],
            "source": {"fileObject": {"@id": "index"}, "extract": {"column": name}},
        }
        for name in told
    ]
    # A row of the index and its picture meet by the file's name.
    key = {"source": {"fileSet": {"@id": "mask-files"}, "extract": {"fileProperty": "fullpath"}}}
    image = {
        "@type": "cr:Field",
        "@id": "images/image",
        "name": "image",
        "description": "the mask, white where pixels are missing",
        "dataType": "sc:ImageObject",
        "source": {"fileSet": {"@id": "mask-files"}, "extract": {"fileProperty": "content"}},
    }
    path = {"@type": "cr:Field", "@id": "images/path", "name": "path", "description": "path within the zip"}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": config.name,
        "description": " ".join(_facts(table, recipe).replace("**", "").split()),
        "license": link or config.licence,
        "url": config.url or "test",  # Croissant wants one; relative to this file, the masks themselves
        "creator": {"@type": "sc:Organization", "name": config.creator},
        "datePublished": config.date,
        "version": config.version,
        "keywords": ["inpainting", "irregular masks", "occlusion", "optical flow", "benchmark"],
        "inLanguage": "en",
        "citeAs": bibtex(config),
        "isBasedOn": [
            f"{s.get('name')} ({s.get('source', 'not stated')}, {s.get('licence', 'not stated')})" for s in sources
        ],
        "rai:dataCollection": f"Optical flow between frames of {len(sources)} public videos; forward-backward check.",
        "rai:dataCollectionType": ["Secondary Data Analysis", "Software Collection"],
        "rai:dataPreprocessingProtocol": [
            "Raw holes are joined, turned, shifted, cropped and grown to a wanted ratio; recipe.json has the settings."
        ],
        "rai:dataBiases": [f"Holes follow what moved in {len(sources)} videos; other videos give other shapes."],
        "rai:dataUseCases": ["Testing image inpainting by size of hole and distance from the border."],
        "rai:dataLimitations": [
            "Interior masks above a ratio of 0.5 nearly fill the room the border leaves.",
            "Not the masks of Liu et al. 2018, though made by the recipe of their paper.",
        ],
        "rai:dataSocialImpact": "Comparable tests of inpainting; better inpainting also serves forgers of images.",
        "rai:personalSensitiveInformation": [
            "None: outlines of moving things, turned and widened, without any picture."
        ],
        "rai:dataReleaseMaintenancePlan": "Versions as in datasheet.md; checksums.sha256 tells them apart.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "archive",
                "name": "archive",
                "contentUrl": "archives/masks.zip",
                "contentSize": f"{archive.stat().st_size} B",
                "encodingFormat": "application/zip",
                "sha256": sha256(archive),
            },
            {
                "@type": "cr:FileObject",
                "@id": "index",
                "name": "index",
                "contentUrl": f"test/{INDEX}",
                "contentSize": f"{index.stat().st_size} B",
                "encodingFormat": "text/csv",
                "sha256": sha256(index),
            },
            {
                "@type": "cr:FileSet",
                "@id": "mask-files",
                "name": "mask-files",
                "containedIn": {"@id": "archive"},
                "encodingFormat": "image/png",
                "includes": "masks/*.png",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "masks",
                "name": "masks",
                "key": {"@id": "masks/file_name"},
                "field": from_index,
            },
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "field": [{**path, "dataType": "sc:Text", **key}, image],
            },
        ],
    }


CONTEXT = {  # the names of Croissant 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
