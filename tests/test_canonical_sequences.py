"""The sequences that come with the package: how they are chosen and packed, and what `maskgen get sequences` writes."""

import csv
import hashlib
import importlib.util
import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from maskgen import Sequences, canonical, get_masks
from maskgen.archives import read_file
from maskgen.commands import maskgen
from maskgen.errors import BadInput
from maskgen.maskset import encode, read_recipe
from maskgen.sequences.index import frame_name, read_index, write_index
from maskgen.sequences.measure import CATEGORIES, describe
from maskgen.verify import find_faults

# SHA-256 of the index, which has the SHA-256 of the pixels of each sequence. A version never changes.
V1 = "1ab8cea197fdeaa2ab021b2935779e461abb2ac48b7a5dbe377e65ab4d451ac0"
SCRIPT = Path(__file__).parents[1] / "scripts" / "pack_sequences.py"
SHAPE = (40, 60)
RATIOS = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55)
STEPS = {"still": 0, "slow": 0.2, "fast": 1}  # px a frame, of one edge; their speed is twice that
FRAMES = 6


def quiet(line):
    """Where commands print lines."""


def wiper(ratio, step):
    """A hole with an upright edge that moves by `step` px a frame. bool (T, H, W)."""
    edge = ratio * SHAPE[1] + step * (np.arange(FRAMES) - 2.5)
    return np.broadcast_to(np.arange(SHAPE[1]) < edge[:, None, None], (FRAMES, *SHAPE)).copy()


def row(name, mode, source="", raw="a/1.png", category="0.1-0.2_slow"):
    return {"sequence": f"test/{name}", "mode": mode, "source": source, "raw": raw, "category": category}


@pytest.fixture(scope="module")
def script():
    """The script that packs sequences, as a module."""
    spec = importlib.util.spec_from_file_location("pack_sequences", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Two sets that have six sequences of each class: half of them drift, half are tracked, from three videos each."""
    folders = []
    for mode in ("drifting", "tracked"):
        folder, rows = tmp_path_factory.mktemp(mode), []
        for ratio in RATIOS:
            for step in STEPS.values():
                for video in "abc":
                    name, holes = f"test/{mode}_{len(rows):05d}", wiper(ratio, step)
                    (folder / name).mkdir(parents=True)
                    pictures = [encode(hole) for hole in holes]
                    for t, picture in enumerate(pictures):
                        (folder / name / frame_name(t)).write_bytes(picture)
                    source = {"source": f"film {video}"} if mode == "tracked" else {}
                    made = {"sequence": name, "split": "test", "mode": mode, "raw": f"{video}/0000/1.png", **source}
                    rows.append({**made, **describe(holes, pictures)})
        write_index(folder, rows)
        names = [*"abc", *(f"film {video}" for video in "abc")]
        sources = [{"name": name, "source": "Jane Doe", "licence": f"licence of {name}"} for name in names]
        (folder / "recipe.json").write_text(json.dumps({"version": "1", "settings": {"seed": 0}, "sources": sources}))
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def packed(script, pools, tmp_path_factory):
    """A file with four sequences of each class."""
    out = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "MAX_SHARE", 0.3)  # three of the six videos have a quarter each
        script.main([*map(str, pools), str(out), "--each", "4"])
    return out / "sequences.zip"


@pytest.fixture
def as_v1(packed, monkeypatch):
    """The same file in place of that of the package."""
    monkeypatch.setattr(canonical, "path_of", lambda version, part="testset": packed)
    return packed


# Choosing


def test_modes_have_equal_shares_as_far_as_there_are_any(script):
    rows = {"drifting": [1] * 30, "tracked": [1] * 3, "occlusion": [1] * 20}
    assert script.shares(rows, 21, "x") == {"drifting": 9, "occlusion": 9, "tracked": 3}
    with pytest.raises(BadInput, match="only 53 sequences of the class x: expected 54"):
        script.shares(rows, 54, "x")


def test_the_video_that_was_used_least_comes_next(script, monkeypatch):
    monkeypatch.setattr(script, "CATEGORIES", ("0.1-0.2_slow",))
    monkeypatch.setattr(script, "MAX_SHARE", 1)
    rows = [row(str(i), "tracked", source) for i, source in enumerate("aaaabbbc")]
    chosen, total = script.choose(rows, lambda name: name, 5)
    assert [one["source"] for one in chosen] == ["a", "b", "c", "a", "b"]
    assert [one["sequence"] for one in chosen] == ["test/0", "test/4", "test/7", "test/1", "test/5"]
    assert total == {"a": 2, "b": 2, "c": 1}


def test_videos_of_a_group_count_as_one(script, monkeypatch):
    monkeypatch.setattr(script, "CATEGORIES", ("0.1-0.2_slow",))
    monkeypatch.setattr(script, "MAX_SHARE", 1)
    rows = [row(str(i), "tracked", source) for i, source in enumerate(["a1", "a2", "b", "b"])]
    chosen, _ = script.choose(rows, lambda name: name[0], 3)
    assert [one["source"] for one in chosen] == ["a1", "b", "a2"]  # without groups, a2 would come before b


def test_a_drifting_mask_counts_for_the_videos_of_its_raw_masks(script):
    raw = "a/0/1.png;b/1.png;a/0/3.png;a/4.png"
    assert script.videos_of(row("x", "drifting", raw=raw)) == {"a": 0.75, "b": 0.25}
    assert script.videos_of(row("x", "tracked", "film", raw)) == {"film": 1}


def test_a_video_with_a_larger_share_is_refused(script, monkeypatch):
    monkeypatch.setattr(script, "CATEGORIES", ("0.1-0.2_slow",))
    rows = [row(str(i), "tracked", source) for i, source in enumerate("aaab")]
    with pytest.raises(BadInput, match=r"a has 66.7% of the sequences, more than 15%"):
        script.choose(rows, lambda name: name, 3)


# The packed file


def test_each_class_has_its_number_of_both_modes_and_of_all_videos(packed):
    sequences = Sequences(packed)
    rows = [sequences.row(name) for name in sequences.names]
    counts = Counter((one["category"], one["mode"]) for one in rows)
    assert counts == {(category, mode): 2 for category in CATEGORIES for mode in ("drifting", "tracked")}
    assert {one["sequence"] for one in rows} == {f"{category}_{i:02d}" for category in CATEGORIES for i in range(4)}
    assert set(Counter(one["source"] for one in rows if one["source"]).values()) == {12}


def test_a_row_names_its_original_its_licences_and_the_hash_of_its_pixels(packed, pools):
    sequences = Sequences(packed)
    for name in sequences.names:
        one = sequences.row(name)
        holes = Sequences(pools[one["mode"] == "tracked"])[one["original"].removeprefix("test/")]
        np.testing.assert_array_equal(sequences[name], holes)
        assert one["pixels_sha256"] == hashlib.sha256(np.packbits(holes).tobytes()).hexdigest()
        names = [*([one["source"]] if one["source"] else []), one["raw"][0]]
        assert sorted(one["licence"].split(" | ")) == sorted(f"licence of {video}" for video in names)


def test_packing_again_gives_the_same_bytes_and_one_section_of_credits(script, pools, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "MAX_SHARE", 0.3)
    (tmp_path / "CREDITS.md").write_text("# Credits\n\n## The test set, testset.zip\n\n| lake |\n")
    for _ in range(2):
        script.main([*map(str, pools), str(tmp_path), "--each", "4"])
    assert (tmp_path / "sequences.zip").read_bytes() == packed.read_bytes()
    credits = (tmp_path / "CREDITS.md").read_text()
    assert credits.startswith("# Credits\n\n## The test set, testset.zip\n\n| lake |\n\n## The test set of sequences")
    assert credits.count("sequences.zip") == 1 and credits.count("| film b | Jane Doe | licence of film b |") == 1


def test_a_pool_whose_frames_were_changed_is_refused(script, pools, tmp_path, monkeypatch):
    def changed(folder, one):
        return read(folder, {**one, "sha256": "0" * 64})

    read = script.read_frames
    monkeypatch.setattr(script, "read_frames", changed)
    monkeypatch.setattr(script, "MAX_SHARE", 1)
    with pytest.raises(BadInput, match="differs from the index: run `maskgen verify` on the set"):
        script.main([*map(str, pools), str(tmp_path), "--each", "1"])


def test_verify_and_show_take_the_packed_file(packed, tmp_path):
    done = CliRunner().invoke(maskgen, ["verify", str(packed), "--workers", "1"])
    assert (done.exit_code, done.stdout) == (0, "72 mask sequences, no faults\n")
    done = CliRunner().invoke(maskgen, ["show", str(packed), "--out", str(tmp_path / "x")])
    assert done.exit_code == 0 and {path.name for path in (tmp_path / "x").iterdir()} == {"strips.png", "preview.gif"}


def test_verify_names_each_fault_of_a_packed_file(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    rows = list(csv.DictReader(io.StringIO(files["sequences.csv"].decode())))
    first, second, third = (one["sequence"] for one in rows[:3])
    files[f"{first}.npy"] = files[f"{first}.npy"][:-1] + b"\xff"  # 8 px, in the last frame
    files[f"{second}.npy"] = files[f"{second}.npy"][:-5]
    files["more.npy"] = files[f"{third}.npy"]
    text = files["sequences.csv"].decode().splitlines(keepends=True)
    files["sequences.csv"] = "".join([*text, text[3]]).encode()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    number, faults = find_faults(tmp_path / "x.zip", workers=1)
    text = "\n".join(faults)
    assert number == 73 and f"{first}: pixels_sha256 is" in text and f"{first}: hole_ratio is" in text
    assert f"{second} is damaged" in text and "more: there, but not listed" in text and f"{third}: listed twice" in text


# maskgen get sequences


def test_get_writes_a_set_that_verifies_with_the_same_pixels(as_v1, tmp_path):
    assert get_masks("sequences", tmp_path / "x", workers=1, say=quiet) == 72
    assert find_faults(tmp_path / "x", workers=1) == (72, [])
    written, packed = Sequences(tmp_path / "x"), Sequences(as_v1)
    assert written.names == packed.names
    for name in written.names:
        np.testing.assert_array_equal(written[name], packed[name])
        assert written.category(name) == packed.category(name) == name.rpartition("_")[0]
    assert {path.name for path in (tmp_path / "x" / "test").iterdir()} == set(packed.names)  # as DAVIS: no other level
    assert "| film a | Jane Doe | licence of film a |" in (tmp_path / "x" / "CREDITS.md").read_text()


def test_get_mends_a_set_and_says_if_there_is_nothing_to_do(as_v1, tmp_path):
    lines = []
    get_masks("sequences", tmp_path / "x", workers=1, say=quiet)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "x").rglob("*")) if path.is_file()}
    name = read_index(tmp_path / "x")[5]["sequence"]
    (tmp_path / "x" / name / frame_name(1)).unlink()
    get_masks("sequences", tmp_path / "x", workers=1, say=lines.append)
    assert lines == []
    assert {path: path.read_bytes() for path in before} == before
    get_masks("sequences", tmp_path / "x", workers=1, say=lines.append)
    assert lines == [f"{tmp_path / 'x'} is already complete"]


def test_the_name_of_the_packaged_sequences_is_taken_by_verify_show_and_the_reader(as_v1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(maskgen, ["verify", "v1-sequences", "--workers", "1"])
    assert (done.exit_code, done.stdout) == (0, "72 mask sequences, no faults\n")
    done = CliRunner().invoke(maskgen, ["show", "v1-sequences"])
    assert done.stdout == "v1-sequences-figures/strips.png\nv1-sequences-figures/preview.gif\n"
    assert len(Sequences("v1")) == len(Sequences("v1-sequences")) == 72


def test_show_of_another_file_says_what_it_expects(tmp_path):
    (tmp_path / "x.zip").write_text("no zip")
    done = CliRunner().invoke(maskgen, ["show", str(tmp_path / "x.zip")])
    assert done.exit_code == 2 and "expected" in done.stderr and "Traceback" not in done.stderr


# Version 1


def test_version_1_of_the_sequences_never_changes():
    assert hashlib.sha256(read_file(canonical.SEQUENCES, "sequences.csv")).hexdigest() == V1


def test_every_packaged_sequence_has_the_pixels_that_its_index_lists():
    sequences = Sequences()
    for name in sequences.names:
        digest = hashlib.sha256(np.packbits(sequences[name]).tobytes()).hexdigest()
        assert digest == sequences.row(name)["pixels_sha256"]


def test_version_1_has_fifty_sequences_of_each_class_and_credits_all_their_videos():
    sequences, recipe = Sequences("v1"), read_recipe(canonical.SEQUENCES)
    assert Counter(map(sequences.category, sequences.names)) == dict.fromkeys(CATEGORIES, 50)
    rows = [sequences.row(name) for name in sequences.names]
    videos = {raw.partition("/")[0] for one in rows for raw in one["raw"].split(";")} | {one["source"] for one in rows}
    assert videos - {""} == {source["name"] for source in recipe["sources"]}
    credits = (canonical.SEQUENCES.parent / "CREDITS.md").read_text().partition("sequences.zip")[2]
    assert all(f"| {s['name']} | {s['source']} | {s['licence']} |" in credits for s in recipe["sources"])
    assert recipe["licence"] == "CC-BY-4.0" and canonical.SEQUENCES.stat().st_size < 13e6
