"""Write the canonical masks as files: PNG folders that other commands read, or archives for training code."""

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePath

from tqdm import tqdm

from maskgen import canonical
from maskgen.archive_writers import import_pyarrow, nvidia_order, parquet_bytes, webdataset_shard
from maskgen.archives import read_file
from maskgen.checks import expect, one_of
from maskgen.errors import BadInput
from maskgen.generated_set import (
    CREDITS,
    files_are_intact,
    finish_set,
    has_checksum,
    mask_is_intact,
    open_journal,
    read_checksums,
)
from maskgen.maskset import INDEX, Masks, credit_lines, encode, pixels_sha256, read_index, read_recipe
from maskgen.runtime import parallel
from maskgen.runtime.files import CHECKSUMS, parse_rows, sha256, write_checksums, write_whole
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.settings import GET

BATCH = 100  # masks per task of a worker
PARTS = {"testset": "test", "raw": "train", "nvidia-order": ""}  # folder of the index in each set of PNG files
PARQUET = "test-00000-of-00001.parquet"  # as Hugging Face names the one file of a split


def get_masks(
    what: str = "testset",
    out: Path | str | None = None,
    *,
    version: str = "v1",
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Write the canonical masks, which come with the package, to a folder. Returns the number of masks,
    or of sequences.

    what: one of these:

    * "testset": PNG files in twelve classes, as `maskgen testset` writes them;
    * "raw": raw training masks, PNG files by video, as `maskgen extract` writes them;
    * "nvidia-order": the test set in the order of NVIDIA's archive, 00000.png to 11999.png in one folder;
    * "webdataset": the test set as one tar for each class;
    * "parquet": the test set as one table, with the PNG files in a column;
    * "sequences": the test set of sequences, a folder of PNG files for each, as `maskgen sequences` writes them.

    out: a new folder; by default `masks/` and the value of `what`. Every mask is compared with the hash of its pixels
    in the packaged index. Resumes an interrupted run, and makes missing or changed files of a finished one again. say:
    called with a line if the folder is complete. Raises BadInput if `out` holds anything else.
    """
    expect("what", what, one_of(GET))
    out = Path(GET[what] if out is None else out)
    if what == "parquet":
        import_pyarrow("get webdataset")
    if what == "sequences":
        from maskgen.sequences.unpack import get_sequences

        return get_sequences(out, version=version, workers=workers, say=say)
    packed = canonical.path_of(version, "raw" if what == "raw" else "testset")
    origin, rows = read_recipe(packed), parse_rows(read_file(packed, INDEX), packed)
    recipe = {
        "made_by": "maskgen get",
        "what": what,
        "masks": {"version": version, "sha256": sha256(packed)},
        "libraries": library_versions("opencv", *["pyarrow"] * (what == "parquet")),
    }
    made_with = {key: origin[key] for key in ("made_by", "version", "libraries") if key in origin}
    info = {"made_with": made_with, **{key: value for key, value in origin.items() if key not in made_with}}
    with OutputFolder(out, recipe, info=info, ignored=(PROGRESS, CREDITS)) as folder:
        if files_are_intact(folder, *_main_files(what, rows)):
            say(folder.complete_message)
        else:
            credits = f"The masks, licensed under {origin['licence']}, come from these videos:\n\n"
            write_whole(out / CREDITS, f"{credits}{credit_lines(origin['sources'])}\n".encode())
            write = {"webdataset": _write_webdataset, "parquet": _write_parquet}.get(what, _write_set)
            write(_Source(Masks(packed), rows, what, workers), folder)
    return len(rows)


def _main_files(what, rows):
    """The files that `checksums.sha256` of a finished folder must list."""
    if what == "webdataset":
        return [f"{name}.tar" for name in _classes(rows)]
    return [PARQUET if what == "parquet" else PurePath(PARTS[what], INDEX).as_posix()]


def _classes(rows):
    return list(dict.fromkeys(row["category"] for row in rows))


@dataclass(frozen=True)
class _Source:
    """The packed masks, and how their PNG files are made."""

    masks: Masks
    rows: list[dict[str, str]]  # of their index
    what: str
    workers: int | None

    def png_files(self, names: dict[str, str], folder: Path | None = None) -> Iterator[tuple[str, str, bytes]]:
        """For each mask its name, and the SHA-256 and bytes of its PNG file, or no bytes where files are written.

        names: of the masks in the archive -> of the files to write in `folder`, if that is given.
        """
        places = {name: i for i, name in enumerate(self.masks.names)}
        hashes = {row["file_name"]: row["pixels_sha256"] for row in self.rows}
        tasks = [(places[name], hashes[name], folder and folder.absolute() / png) for name, png in names.items()]
        batches = [tasks[i : i + BATCH] for i in range(0, len(tasks), BATCH)]
        job = functools.partial(_make_batch, masks=self.masks)
        with tqdm(total=len(tasks), unit="mask", desc=f"get {self.what}") as bar:
            for batch in parallel.run(job, batches, workers=self.workers):
                yield from batch
                bar.update(len(batch))


def _make_batch(tasks, masks):
    made = []
    for place, digest, path in tasks:
        hole, name = masks[place], masks.names[place]
        if pixels_sha256(hole) != digest:
            raise BadInput(f"{masks.path}: {name} differs from the index: install the package again")
        data = encode(hole)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        made.append((name, hashlib.sha256(data).hexdigest(), b"" if path else data))
    return made


def _write_set(source, folder):
    """Write a mask set of PNG files."""
    part, rows = PARTS[source.what], {row["file_name"]: row for row in source.rows}
    names = {name: _png(name) for name in rows}
    if source.what == "nvidia-order":
        names = {
            name: f"{i:05d}.png" for i, name in enumerate(nvidia_order(read_index(source.masks.path))["file_name"])
        }
        rows = {name: {**rows[name], "original": _png(name)} for name in names}
    with open_journal(folder, part, _is_row) as made:
        missing = {
            name: png
            for name, png in names.items()
            if png not in made.rows or not mask_is_intact(folder.path / part, made.rows[png])
        }
        for name, digest, _ in source.png_files(missing, folder.path / part):
            made.add({**rows[name], "file_name": names[name], "sha256": digest})
        finish_set(folder, part, [made.rows[png] for png in names.values()], number=len(names))


def _is_row(row):
    return isinstance(row.get("sha256"), str)


def _png(name):
    return PurePath(name).with_suffix(".png").as_posix()


def _write_webdataset(source, folder):
    """Write one tar for each class."""
    table, checksums = read_index(source.masks.path), read_checksums(folder.path)
    folder.reopen()
    category = dict(zip(table["file_name"], table["category"], strict=True))
    intact = {name for name in set(category.values()) if _is_intact(folder.path, f"{name}.tar", checksums)}
    missing = {name: "" for name in category if category[name] not in intact}
    for name, files in groupby(source.png_files(missing), lambda file: category[file[0]]):
        pngs = {_png(mask): (digest, data) for mask, digest, data in files}
        rows = _with_png_files(table[table["category"] == name], pngs)
        write_whole(folder.path / f"{name}.tar", webdataset_shard(rows, lambda png, pngs=pngs: pngs[png][1]))
    _finish(folder, len(table))


def _is_intact(folder, name, checksums):
    """True for a file of a finished folder that is as it was written, and for one of an interrupted run."""
    return has_checksum(folder, name, checksums[name]) if name in checksums else (folder / name).exists()


def _write_parquet(source, folder):
    """Write one table."""
    table = read_index(source.masks.path)
    folder.reopen()
    pngs = {
        _png(mask): (digest, data) for mask, digest, data in source.png_files(dict.fromkeys(table["file_name"], ""))
    }
    data = parquet_bytes(_with_png_files(table, pngs), lambda png: pngs[png][1], import_pyarrow())
    write_whole(folder.path / PARQUET, data)
    _finish(folder, len(table))


def _with_png_files(table, pngs):
    """Rows of the index that list PNG files. pngs: name -> SHA-256 and bytes, in the order of the rows."""
    return table.assign(file_name=list(pngs), sha256=[digest for digest, _ in pngs.values()])


def _finish(folder, number):
    """Write recipe and checksums, which makes a folder of archives complete. number: of masks."""
    (folder.path / CHECKSUMS).unlink(missing_ok=True)  # if the run is killed now, none is better than outdated ones
    folder.finish(number=number)
    write_checksums(folder.path)
