"""Write the canonical sequences, which come with the package, as a set of folders of frames."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from maskgen import canonical
from maskgen.errors import BadInput
from maskgen.generated_set import CREDITS, files_are_intact, open_journal
from maskgen.maskset import credit_lines, encode, pixels_sha256, read_recipe
from maskgen.runtime import parallel
from maskgen.runtime.files import CHECKSUMS, sha256, write_checksums, write_whole
from maskgen.runtime.output import PROGRESS, OutputFolder
from maskgen.runtime.recipe import library_versions
from maskgen.sequences.index import INDEX, PIXELS, frame_name, frames_sha256, write_index
from maskgen.sequences.reader import Sequences

BATCH = 10  # sequences per task of a worker
SPLIT = "test"


def get_sequences(out: Path, *, version: str, workers: int | None, say: Callable[[str], None]) -> int:
    """Write all sequences of a version to `out/test`, as `maskgen sequences` does. Returns their number.

    Arguments, resuming and errors are those of `maskgen.get_masks`.
    """
    packed = canonical.path_of(version, "sequences")
    sequences, origin = Sequences(packed), read_recipe(packed)
    recipe = {
        "made_by": "maskgen get",
        "what": "sequences",
        "masks": {"version": version, "sha256": sha256(packed)},
        "libraries": library_versions("opencv"),
    }
    made_with = {key: origin[key] for key in ("made_by", "pools") if key in origin}
    info = {"made_with": made_with, **{key: value for key, value in origin.items() if key not in made_with}}
    with OutputFolder(out, recipe, info=info, ignored=(PROGRESS, CREDITS)) as folder:
        if files_are_intact(folder, INDEX):
            say(folder.complete_message)
            return len(sequences)
        credits = f"The masks, licensed under {origin['licence']}, come from these videos:\n\n"
        write_whole(out / CREDITS, f"{credits}{credit_lines(origin['sources'])}\n".encode())
        names = {f"{SPLIT}/{name}": name for name in sequences.names}
        with open_journal(folder, "", _is_row, index=INDEX, key="sequence") as made:
            missing = [name for place, name in names.items() if not _is_done(place, made.rows, out)]
            batches = [missing[i : i + BATCH] for i in range(0, len(missing), BATCH)]
            job = functools.partial(_make_batch, sequences=sequences, folder=out.absolute())
            with tqdm(total=len(missing), unit="sequence", desc="get sequences") as bar:
                for rows in parallel.run(job, batches, workers=workers):
                    for row in rows:
                        made.add(row)
                    bar.update(len(rows))
            rows = [made.rows[place] for place in names]
        (out / CHECKSUMS).unlink(missing_ok=True)  # if the run is killed now, none is better than outdated ones
        write_index(out, rows)
        folder.finish(number=len(rows))
        write_checksums(out)
    return len(sequences)


def _is_row(row):
    return all(isinstance(row.get(key), str) for key in ("sequence", "frames", "sha256"))


def _is_done(place, rows, folder):
    return place in rows and frames_sha256(folder / place, int(rows[place]["frames"])) == rows[place]["sha256"]


def _make_batch(names, sequences, folder):
    made = []
    for name in names:
        holes, row, place = sequences[name], sequences.row(name), f"{SPLIT}/{name}"
        if pixels_sha256(holes) != row[PIXELS]:
            raise BadInput(f"{sequences.path}: {name} differs from the index: install the package again")
        pictures = [encode(hole) for hole in holes]
        (folder / place).mkdir(parents=True, exist_ok=True)
        for t, picture in enumerate(pictures):
            write_whole(folder / place / frame_name(t), picture)
        made.append(
            {**row, "sequence": place, "split": SPLIT, "sha256": hashlib.sha256(b"".join(pictures)).hexdigest()}
        )
    return made
