"""Publish a mask set: read and check it, then write the masks, the archives and the documents."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from maskgen import plots
from maskgen.archive_writers import import_pyarrow, nvidia_order, parquet_bytes, webdataset_shard, zip_bytes
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput
from maskgen.extraction.video import CREDIT, read_sources
from maskgen.maskset import INDEX, read_index, read_recipe
from maskgen.publish import sequences
from maskgen.publish.croissant import croissant
from maskgen.publish.texts import card, citation, datasheet, licence_text
from maskgen.runtime.files import CHECKSUMS, sha256, write_checksums, write_whole
from maskgen.runtime.lock import locked
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import RECIPE, library_versions
from maskgen.sequences.settings import INDEX as SEQUENCES
from maskgen.settings import PublishConfig

ARCHIVES = ("webdataset", "parquet")
NEEDED = ("category", "hole_ratio", "border_distance", "sha256")  # columns of the index
WITHOUT_PARQUET = "use --archives webdataset"
NVIDIA_NAME = "mask/testing_mask_dataset/{:05d}.png"


def publish(
    masks: Path,
    out: Path,
    config: PublishConfig,
    *,
    credits: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Write a test set, or mask sequences, to a folder ready to upload. Returns warnings, such as a missing licence.

    The folder gets the masks and their index (Hugging Face's imagefolder layout), README.md (dataset card),
    croissant.json, datasheet.md, LICENSE, CITATION.cff, recipe.json, previews, archives/ and checksums.sha256. The same
    set and config give the same bytes.

    Mask sequences get their folders of frames and sequences.csv, README.md, LICENSE, CITATION.cff, recipe.json,
    previews, zips of at most 1,000 sequences each, and checksums.sha256. config.archives is not used for them.

    A folder that was published to can be published to again. If only the config, the credits or the libraries that draw
    and pack differ, everything except the masks is rewritten. Another set or layout is refused.

    Args:
        masks: the test set, as `maskgen testset` writes it, or sequences, as `maskgen sequences` does.
        out: a new folder, or one published to before.
        config: what the documents state.
        credits: a SOURCES.csv, as `extraction.video.read_sources` reads it; it completes and corrects the recipe.
        say: called with a line if there is nothing to do.

    Raises:
        BadInput: the set is unfinished, has no recipe or index, or its masks differ from the index; an archive is
            unknown or the date invalid; `out` holds something else.
    """
    with locked(out):  # before the masks are read
        if (masks / SEQUENCES).is_file():
            config = sequences.sequence_config(config)
            steps = _Steps(sequences.read, sequences.checked_index, sequences.write)
            return _publish("sequences", steps, masks, out, config, credits, say)
        return _publish("imagefolder", _Steps(_read, _checked_index, _write_folder), masks, out, config, credits, say)


def publish_nvidia(
    masks: Path,
    out: Path,
    config: PublishConfig,
    *,
    credits: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Write a test set as one zip in the layout of NVIDIA's archive. Returns warnings.

    The files are 00000.png to 11999.png in one folder, in one block for each class: for each ratio interval first the
    free masks ("with border" in the paper), then the interior masks. `index.csv` beside the zip lists the class of each
    file. Arguments and errors are those of `publish`.
    """
    with locked(out):
        steps = _Steps(_read, _checked_index, _write_nvidia)
        return _publish("nvidia", steps, masks, out, replace(config, archives=()), credits, say)


class _Steps(NamedTuple):
    """What differs between kinds of sets and layouts."""

    read: Callable  # folder -> recipe, index
    check: Callable  # folder, index -> SHA-256 of the index; BadInput if masks differ from it
    write: Callable  # writes everything but recipe and checksums


def _publish(layout, steps, masks, out, config, credits, say):
    _check(config)
    if (masks / PROGRESS).is_dir():
        raise BadInput(f"{masks} is unfinished: finish it with the command that made it")
    recipe, table = steps.read(masks)
    if out.resolve().is_relative_to(masks.resolve()):
        raise BadInput(f"{out} is the mask set, or is inside it: publish to another folder")
    sources, warnings = _with_credits(recipe.get("sources", []), credits)
    if not config.url:
        warnings.append("no address for the set: use --url, so that the documents state where it is")
    fixed = {"made_by": "maskgen publish", "layout": layout, "masks": steps.check(masks, table)}
    info = {
        "publication": asdict(config),
        "libraries": library_versions("opencv", "numpy", "pandas", "matplotlib", "pyarrow"),
        "sources": sources,
    }
    info |= {key: value for key, value in recipe.items() if key not in {*fixed, *info, "version", "libraries"}}
    info = json.loads(json.dumps({**info, "testset_version": recipe.get("version", "")}))  # as it is read back
    with OutputFolder(out, fixed, info=info) as folder:
        if folder.complete and all(folder.finished.get(key) == value for key, value in info.items()):
            say(folder.complete_message)
        else:
            if folder.complete:  # with other documents; if interrupted from here on, the folder is unfinished
                folder.reopen()
                (out / RECIPE).unlink()
                (out / CHECKSUMS).unlink(missing_ok=True)
            steps.write(masks, out, table, recipe, sources, config)
            folder.finish()
        if not (out / CHECKSUMS).exists():  # last, as they include the recipe
            write_checksums(out)
    return warnings


def _check(config):
    """Raise BadInput for an unknown archive or an invalid date."""
    unknown = [name for name in config.archives if name not in ARCHIVES]
    if unknown:
        raise BadInput(f"unknown archive {unknown[0]!r}: expected {' or '.join(ARCHIVES)}; a zip is always written")
    try:
        valid = date.fromisoformat(config.date).isoformat() == config.date
    except ValueError:
        valid = False
    if not valid:
        raise BadInput(f"expected a date of publication such as 2026-11-23, got {config.date!r}")
    if "parquet" in config.archives:
        import_pyarrow(WITHOUT_PARQUET)


def _write_folder(masks, out, table, recipe, sources, config):
    for name in tqdm(table["file_name"], unit="mask", desc="publish"):
        target, data = out / "test" / name, (masks / "test" / name).read_bytes()
        if not target.exists() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, data)
    write_whole(out / "test" / INDEX, (masks / "test" / INDEX).read_bytes())
    plots.draw_figures(out, out / "preview")
    _archives(out, table, config)
    documents = {
        "README.md": card(table, recipe, sources, config, out),
        "datasheet.md": datasheet(table, recipe, sources, config),
        "LICENSE": licence_text(sources, config),
        "CITATION.cff": citation(config),
        "croissant.json": json.dumps(croissant(table, recipe, sources, config, out), indent=2) + "\n",
    }
    for name, text in documents.items():
        write_whole(out / name, text.encode())


def _write_nvidia(masks, out, table, recipe, sources, config):
    table = nvidia_order(table)
    names = {NVIDIA_NAME.format(i): masks / "test" / name for i, name in enumerate(table["file_name"])}
    write_whole(out / "test_mask.zip", zip_bytes((name, path.read_bytes()) for name, path in names.items()))
    index = table.assign(original=table["file_name"], file_name=list(names))
    write_whole(out / "index.csv", index.to_csv(index=False, lineterminator="\n").encode())
    write_whole(out / "LICENSE", licence_text(sources, config).encode())


def _read(masks):
    """Read a test set. Returns (recipe, index as a DataFrame)."""
    if (masks / SEQUENCES).is_file():
        raise BadInput(f"{masks} holds sequences: expected a test set of single masks, as `maskgen testset` writes it")
    recipe = read_recipe(masks)
    table = read_index(masks / "test")
    missing = [name for name in NEEDED if name not in table]
    if missing or not all(
        isinstance(v, dict) and {"mean", "max"} <= set(v) for v in recipe.get("clipped", {}).values()
    ):
        what = f"no column {missing[0]}" if missing else f"no shares of clipped outline in {RECIPE}"
        raise BadInput(f"{masks} has {what}: expected a test set, as `maskgen testset` writes it")
    unknown = sorted(set(table["category"]) - set(CATEGORIES))
    if table.empty or unknown:
        what = "no masks" if table.empty else f"the class {unknown[0]!r}"
        raise BadInput(f"{masks} has {what}: expected a test set, as `maskgen testset` writes it")
    return recipe, table


def _checked_index(masks, table):
    """Check all masks against the index, and return its SHA-256, which then identifies the set.

    Raises BadInput if a mask is missing or has another hash than listed.
    """
    for name, listed in zip(table["file_name"], table["sha256"], strict=True):
        path = masks / "test" / name
        if not path.is_file() or sha256(path) != listed:
            raise BadInput(f"{path} is missing or differs from the index: run `maskgen verify {masks}`")
    return sha256(masks / "test" / INDEX)


def _with_credits(sources, credits):
    """Add a SOURCES.csv to the sources of a set. Returns (sources, warnings of what is still unknown)."""
    sources, warnings = [dict(source) for source in sources], []
    if credits:
        known = {_normalised(file): row for file, row in read_sources(credits).items()}
        files = [_normalised(source.get("file", source["name"])) for source in sources]
        for source, file in zip(sources, files, strict=True):
            row = known.get(file, {})
            source.update({key: row[key] for key in CREDIT if key in row})
        if not set(known) & set(files):
            warnings.append(f"{credits} lists none of the {len(sources)} videos; its first row is {next(iter(known))}")
    unlicensed = [source["name"] for source in sources if not source.get("licence")]
    if unlicensed:
        count = f"{len(unlicensed)} of {len(sources)} videos"
        warnings.append(f"{count} have no stated licence, such as {unlicensed[0]}: add them with --sources")
    return sources, warnings


def _normalised(name):
    """A file name with composed accents. macOS decomposes them."""
    return unicodedata.normalize("NFC", name)


def _archives(out, table, config):
    """Write `archives/`: the zip, and what config.archives names."""
    folder = out / "archives"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / "webdataset", ignore_errors=True)  # from an earlier config
    (folder / "masks.parquet").unlink(missing_ok=True)

    def read(name):
        return (out / "test" / name).read_bytes()

    write_whole(folder / "masks.zip", zip_bytes((f"masks/{name}", read(name)) for name in [INDEX, *table["file_name"]]))
    if "webdataset" in config.archives:
        (folder / "webdataset").mkdir(exist_ok=True)
        for name in CATEGORIES:
            rows = table[table["category"] == name]
            if len(rows):
                write_whole(folder / "webdataset" / f"{name}.tar", webdataset_shard(rows, read))
    if "parquet" in config.archives:
        write_whole(folder / "masks.parquet", parquet_bytes(table, read, import_pyarrow(WITHOUT_PARQUET)))
