"""Publish mask sequences: their folders of frames, archives of at most a thousand, a card, previews and checksums."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from maskgen.archive_writers import zip_bytes
from maskgen.errors import BadInput
from maskgen.maskset import credit_lines, read_recipe
from maskgen.publish.texts import LICENCES, SIZES, bibtex, citation, licence_link, licence_text, render
from maskgen.runtime.files import sha256, write_whole
from maskgen.sequences import plots
from maskgen.sequences.index import INDEX, frame_name, frames_sha256, index_bytes, read_index
from maskgen.sequences.measure import CATEGORIES
from maskgen.settings import PublishConfig

PART = 1000  # sequences of an archive
NAME, TITLE = "irregular-mask-sequences", "Irregular mask sequences: 6x3 classes by hole ratio and motion"


def sequence_config(config: PublishConfig) -> PublishConfig:
    """The config of sequences: no archives but zips, and a name and a title of their own if those are the defaults."""
    own = {key: text for key, text in (("name", NAME), ("title", TITLE)) if getattr(config, key) == _default(key)}
    return replace(config, archives=(), **own)


def _default(key):
    return getattr(PublishConfig, key)


def read(masks: Path) -> tuple[dict, list[dict[str, str]]]:
    """The recipe and the index rows of a set of sequences."""
    rows = read_index(masks)
    if "split" not in rows[0] or not all(row["frames"].isdecimal() for row in rows):
        raise BadInput(f"{masks / INDEX} is no index of a whole set: expected one as `maskgen sequences` writes it")
    return read_recipe(masks), rows


def checked_index(masks: Path, rows: list[dict[str, str]]) -> str:
    """Check all frames against the index, and return its SHA-256. BadInput if they differ."""
    for row in tqdm(rows, unit="sequence", desc="check"):
        if frames_sha256(masks / row["sequence"], int(row["frames"])) != row["sha256"]:
            raise BadInput(
                f"{masks / row['sequence']} is incomplete or differs from the index: run `maskgen verify {masks}`"
            )
    return sha256(masks / INDEX)


def write(masks: Path, out: Path, rows: list[dict], recipe: dict, sources: list[dict], config: PublishConfig) -> None:
    """Write all that a published set has but recipe and checksums."""
    for row in tqdm(rows, unit="sequence", desc="publish"):
        target = out / row["sequence"]
        if frames_sha256(target, int(row["frames"])) != row["sha256"]:
            target.mkdir(parents=True, exist_ok=True)
            for name in _frames(row):
                write_whole(out / name, (masks / name).read_bytes())
    write_whole(out / INDEX, index_bytes(rows))
    plots.draw_figures(out, out / "preview")
    parts = _archives(out, rows)
    documents = {
        "README.md": _card(rows, parts, recipe, sources, config, out),
        "LICENSE": licence_text(sources, config),
        "CITATION.cff": citation(config),
    }
    for name, text in documents.items():
        write_whole(out / name, text.encode())


def _frames(row):
    return [f"{row['sequence']}/{frame_name(t)}" for t in range(int(row["frames"]))]


def _archives(out, rows):
    """Write zips of at most PART sequences of a split, each with an index of its own. Returns (name, rows) of each."""
    parts = []
    for split in dict.fromkeys(row["split"] for row in rows):
        of_split = [row for row in rows if row["split"] == split]
        for i in range(0, len(of_split), PART):
            part, name = of_split[i : i + PART], f"archives/{split}-{i // PART:02d}.zip"
            files = ((name, (out / name).read_bytes()) for row in part for name in _frames(row))
            (out / name).parent.mkdir(exist_ok=True)
            write_whole(out / name, zip_bytes([(INDEX, index_bytes(part)), *files]))
            parts.append((name, part))
    return parts


def _card(rows, parts, recipe, sources, config, out):
    """The dataset card, README.md."""
    classes, sizes = Counter(row["category"] for row in rows), {f"{row['width']} x {row['height']}" for row in rows}
    motions = list(dict.fromkeys(name.partition("_")[2] for name in CATEGORIES))
    intervals = list(dict.fromkeys(name.partition("_")[0] for name in CATEGORIES))
    return render(
        "sequences.md",
        config=config,
        hub=LICENCES.get(config.licence, ("other", ""))[0],
        link=licence_link(config),
        size=next(name for limit, name in SIZES.items() if len(rows) < limit),
        number=len(rows),
        frames=" or ".join(sorted({row["frames"] for row in rows})),
        sizes=" or ".join(sorted(sizes)),
        modes=Counter(row["mode"] for row in rows),
        splits=Counter(row["split"] for row in rows),
        motions=motions,
        classes=[(_shown(name), [classes[f"{name}_{motion}"] for motion in motions]) for name in intervals],
        outside=classes[""],
        index=INDEX,
        parts=[(name, len(part), (out / name).stat().st_size) for name, part in parts],
        made_by=recipe.get("version", ""),
        credits=credit_lines(sources),
        videos=len(sources),
        bibtex=bibtex(config),
    )


def _shown(interval):
    """The interval `0.1-0.2` as in a text."""
    return f"({interval.replace('-', ', ')}]"
