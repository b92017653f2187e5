import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import cli
from maskgen import sort
from maskgen.errors import BadInput, InputWarning
from maskgen.maskset import Masks, describe, encode, read_hole, write_index
from maskgen.sort import (
    SortConfig,
    classes_by_block,
    count_table,
    find_polarity,
    measure_masks,
    open_masks,
    parse_edges,
)
from maskgen.verify import find_faults
from tests.rawmasks import write_raw

ROOT = Path(__file__).parents[1]


def block(ratio, border=60, side=512):
    """A square hole of about that ratio, `border` px from the upper left corner."""
    hole = np.zeros((side, side), bool)
    length = round(side * ratio**0.5)
    hole[border : border + length, border : border + length] = True
    return hole


@pytest.fixture
def folder(tmp_path):
    holes = [block(0.05), block(0.15), block(0.15, 10), block(0.25), block(0.55, 0), block(0.005)]
    for i, hole in enumerate(holes):
        (tmp_path / f"{i}.png").write_bytes(encode(hole))
    return tmp_path


@pytest.fixture
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("sets") / "sorted"


def maskgen(*args, cwd=None):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cli; cli.maskgen(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, cwd=cwd)


def test_masks_fall_into_the_classes_of_the_paper(folder):
    rows = measure_masks(Masks(folder), SortConfig(), workers=1)
    assert [row["category"] for row in rows] == [
        "interior_0.01-0.1",
        "interior_0.1-0.2",
        "free_0.1-0.2",
        "interior_0.2-0.3",
        "free_0.5-0.6",
        "",
    ]


def test_other_edges_and_another_border(folder):
    rows = measure_masks(Masks(folder), SortConfig(edges=(0.1, 0.3, 0.5), border=10), workers=1)
    assert [row["category"] for row in rows] == ["", *["interior_0.1-0.3"] * 3, "", ""]


def test_the_table_has_a_line_for_each_interval(folder):
    lines = count_table(measure_masks(Masks(folder), SortConfig(), workers=1)).splitlines()
    assert lines[0].split() == ["hole", "ratio", "interior", "free"]
    assert lines[2].split() == ["(0.1,", "0.2]", "1", "1"]
    assert lines[-2].split() == ["other", "1"] and lines[-1].split() == ["all", "6"]


@pytest.mark.parametrize("text", ["", "a,b", "0.3,0.1", "0.1", "0.1,1.5", "-0.1,0.2"])
def test_edges_that_do_not_rise_are_refused(text):
    with pytest.raises(BadInput, match="ascending list"):
        parse_edges(text)


def test_polarity_is_found_by_measuring(tmp_path):
    for name, turn in (("white", False), ("black", True)):
        (tmp_path / name).mkdir()
        for i in range(8):
            (tmp_path / name / f"{i}.png").write_bytes(encode(block(0.05 + 0.06 * i, 0) ^ turn))
        polarity, why = find_polarity(Masks(tmp_path / name))
        assert polarity == f"hole-{name}" and "of 8 masks" in why


def test_polarity_is_not_guessed_where_masks_disagree_or_are_in_between(tmp_path):
    for name, ratios in (("mixed", (0.1, 0.9)), ("half", (0.45, 0.5))):
        (tmp_path / name).mkdir()
        for i, ratio in enumerate(ratios):
            (tmp_path / name / f"{i}.png").write_bytes(encode(block(ratio, 0)))
        with pytest.raises(BadInput, match=r"the polarity is not clear.*give --polarity"):
            find_polarity(Masks(tmp_path / name))


def polarity_of(folder, ratios, side=100):
    """The polarity of masks with these shares of white, or None where it is not clear."""
    folder.mkdir()
    for i, ratio in enumerate(ratios):
        hole = np.zeros((side, side), bool)
        hole.ravel()[: round(ratio * side**2)] = True
        (folder / f"{i}.png").write_bytes(encode(hole))
    try:
        return find_polarity(Masks(folder))[0]
    except BadInput:
        return None


@pytest.mark.parametrize(
    ("ratios", "polarity"),
    [
        ([0.39], "hole-white"),
        ([0.4], None),
        ([0.6], None),
        ([0.61], "hole-black"),
        ([0.1] * 19 + [0.9], "hole-white"),  # 95 % of them agree
        ([0.1] * 18 + [0.9], None),
        ([0.9] * 19 + [0.1], "hole-black"),
        ([0.1] * 2 + [0.5] * 6, "hole-white"),  # a quarter of them is clear
        ([0.1] * 2 + [0.5] * 7, None),
    ],
)
def test_nearly_all_masks_that_are_clear_have_to_agree_and_a_quarter_has_to_be_clear(tmp_path, ratios, polarity):
    assert polarity_of(tmp_path / "masks", ratios) == polarity


def test_the_masks_that_are_measured_for_the_polarity_span_the_set():
    assert sort._evenly_spaced(3).tolist() == [0, 1, 2]
    chosen = sort._evenly_spaced(1000)
    assert len(chosen) == 64 and (chosen[0], chosen[-1]) == (0, 999) and set(np.diff(chosen)) == {15, 16}


def test_the_class_of_a_block_is_the_most_frequent_one_and_of_two_the_first_by_name():
    rows = [{"category": name} for name in ("b", "a", "a", "b", "", "", "a")]
    assert classes_by_block(rows, 4).splitlines() == [
        "00000 to 00003: 2 of 4 are a",
        "00004 to 00006: 2 of 3 are other",
    ]
    ties = [{"category": f"{name}{k}"} for k in range(10) for name in "ba"]
    assert [line[-2:] for line in classes_by_block(ties, 2).splitlines()] == [f"a{k}" for k in range(10)]


def test_the_table_counts_interior_and_free_masks_in_columns_of_their_own():
    rows = [{"category": name} for name in ("interior_0.1-0.25", *["free_0.1-0.25"] * 2, *["free_0.25-1"] * 3, "")]
    assert [line.split() for line in count_table(rows, (0.1, 0.25, 1)).splitlines()[1:]] == [
        ["(0.1,", "0.25]", "1", "2"],
        ["(0.25,", "1]", "0", "3"],
        ["other", "1"],
        ["all", "7"],
    ]


def test_a_mask_set_with_an_index_has_white_holes(tmp_path):
    write_raw(tmp_path, 3)
    assert "as in every mask set" in find_polarity(Masks(tmp_path / "test"))[1]


def test_both_polarities_measure_alike(folder, tmp_path):
    (tmp_path / "turned").mkdir()
    for path in folder.glob("*.png"):
        (tmp_path / "turned" / path.name).write_bytes(encode(cv2.imread(str(path), 0) == 0))
    rows = measure_masks(Masks(folder), SortConfig(), workers=1)[:6]
    masks, config, _ = open_masks(tmp_path / "turned", SortConfig("auto"))
    turned = measure_masks(masks, config, workers=1)
    assert [r["hole_ratio"] for r in turned] == [r["hole_ratio"] for r in rows]


def test_resized_masks_stay_binary_and_are_measured_again(tmp_path, out):
    (tmp_path / "a.png").write_bytes(encode(block(0.25, 256, 1024)))
    row = measure_masks(Masks(tmp_path), SortConfig(resize=512), out, workers=1)[0]
    assert row["border_distance"] == 128 and row["hole_ratio"] == "0.250000"
    grey = cv2.imread(str(out / "test" / row["file_name"]), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (512, 512) and set(np.unique(grey)) == {0, 255}


def test_resizing_takes_the_nearest_pixel(tmp_path, out):
    hole = np.random.default_rng(0).integers(0, 2, (300, 300)).astype(bool)
    (tmp_path / "a.png").write_bytes(encode(hole))
    row = measure_masks(Masks(tmp_path), SortConfig(resize=100), out, workers=1)[0]
    assert (read_hole(out / "test" / row["file_name"]) == hole[1::3, 1::3]).all()


def test_a_sorted_copy_is_a_mask_set_without_faults(folder, out):
    measure_masks(Masks(folder), SortConfig(), out, workers=1)
    assert find_faults(out, workers=1) == (6, [])
    with (out / "test" / "metadata.csv").open() as file:
        rows = {row["source"]: row["file_name"] for row in csv.DictReader(file)}
    assert rows["2.png"] == "free_0.1-0.2/00000.png" and rows["5.png"] == "outside/00000.png"


def test_masks_are_numbered_within_their_class_in_the_order_of_their_names(tmp_path, out):
    for i, ratio in enumerate((0.05, 0.15, 0.06, 0.9, 0.07, 0.16, 0.95)):
        (tmp_path / f"{i}.png").write_bytes(encode(block(ratio, 0)))
    rows = measure_masks(Masks(tmp_path), SortConfig(), out, workers=1)
    assert [(row["source"], row["file_name"]) for row in rows] == [
        ("0.png", "free_0.01-0.1/00000.png"),
        ("1.png", "free_0.1-0.2/00000.png"),
        ("2.png", "free_0.01-0.1/00001.png"),
        ("3.png", "outside/00000.png"),
        ("4.png", "free_0.01-0.1/00002.png"),
        ("5.png", "free_0.1-0.2/00001.png"),
        ("6.png", "outside/00001.png"),
    ]
    recipe = json.loads((out / "recipe.json").read_text())
    assert {name: count for name, count in recipe["counts"].items() if count} == {
        "free_0.01-0.1": 3,
        "free_0.1-0.2": 2,
        "outside": 2,
    }


def test_a_copy_of_nvidias_test_masks_is_indexed_by_measuring(tmp_path):
    # As theirs: 12,000 flat files, white holes; here in blocks of one class each, the free ones first.
    kinds = [encode(block(0.045, border, 128)) for border in (0, 50)]
    path = tmp_path / "test_mask.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(12_000):
            archive.writestr(f"mask/testing_mask_dataset/{i:05d}.png", kinds[i // 1000 % 2])
    masks, config, why = open_masks(path, SortConfig("auto"), "nvidia")
    assert (config.polarity, config.threshold) == ("hole-white", 153) and "of 64 masks" in why
    masks.names = masks.names[::100]
    rows = measure_masks(masks, config, workers=1)
    assert classes_by_block(rows, 10).splitlines()[:2] == [
        "00000 to 00009: 10 of 10 are free_0.01-0.1",
        "00010 to 00019: 10 of 10 are interior_0.01-0.1",
    ]


def test_other_masks_than_nvidias_are_refused(folder):
    with pytest.raises(BadInput, match="expected NVIDIA's 12,000 test masks"):
        open_masks(folder, SortConfig(), "nvidia")


def test_the_bare_command_takes_the_default_folder_and_the_paper_classes(tmp_path):
    write_raw(tmp_path / "masks" / "raw", 4)
    run = maskgen("bin", "--ratios", "--workers", 1, cwd=tmp_path)
    assert run.returncode == 0 and run.stdout.splitlines()[-1].split() == ["all", "4"]
    assert not list(tmp_path.glob("*.csv"))


def test_the_command_writes_an_index_where_it_is_asked_to(folder, tmp_path):
    run = maskgen(
        "bin", folder, "--ratios", "0.1,0.3,0.5", "--border", 20, "--index", tmp_path / "i.csv", "--workers", 1
    )
    assert run.returncode == 0 and "(0.1, 0.3]" in run.stdout and "polarity: hole-white" in run.stderr
    assert len((tmp_path / "i.csv").read_text().splitlines()) == 7


def test_a_missing_folder_is_one_line_and_exit_code_2(tmp_path):
    run = maskgen("bin", tmp_path / "nowhere")
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "no such file or folder" in run.stderr


def everything(top):
    return {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_an_interrupted_run_is_resumed_to_the_same_bytes(folder, out, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    measure_masks(Masks(folder), SortConfig(), out / "whole", workers=1)
    for moment in ("write_whole", "write_index", "write_checksums"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sort, moment, stop if moment != "write_whole" else after_three(stop))
            measure_masks(Masks(folder), SortConfig(), out / "cut", workers=1)
    measure_masks(Masks(folder), SortConfig(), out / "cut", workers=1)
    assert everything(out / "cut") == everything(out / "whole")


def after_three(stop):
    """write_whole, but for the fourth file it stops."""
    left, write = [3], sort.write_whole

    def limited(*arguments):
        left[0] -= 1
        return write(*arguments) if left[0] >= 0 else stop()

    return limited


def test_a_resumed_run_measures_only_masks_that_are_not_sorted_yet(folder, out, monkeypatch):
    measured = []
    monkeypatch.setattr(sort, "BATCH", 2)
    measure_one = sort._measure_one
    monkeypatch.setattr(sort, "_measure_one", lambda i, *rest: measured.append(i) or measure_one(i, *rest))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sort, "write_whole", after_three(lambda: (_ for _ in ()).throw(KeyboardInterrupt)))
        measure_masks(Masks(folder), SortConfig(), out, workers=1)
    assert measured == [0, 1, 2, 3]
    (out / "test" / "interior_0.1-0.2" / "00000.png").unlink()  # a deleted mask is written again
    measured.clear()
    measure_masks(Masks(folder), SortConfig(), out, workers=1)
    assert measured == [1, 2, 3, 4, 5] and find_faults(out, workers=1) == (6, [])


SPOILT = ["", "x", "{}", "[1]", '{"file_name": "../x.png"}', '{"category": []}', '{"source": 1}']


@pytest.mark.parametrize("line", SPOILT)
def test_a_damaged_journal_is_used_up_to_the_damage(line, folder, out, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(sort, "write_index", lambda *_: 1 / 0)
        measure_masks(Masks(folder), SortConfig(), out, workers=1)
    journal = out / ".progress" / "masks.jsonl"
    rows = journal.read_text().splitlines()
    rows[1] = line if not line.startswith('{"') else json.dumps({**json.loads(rows[1]), **json.loads(line)})
    journal.write_text("\n".join(rows) + "\n")
    measure_masks(Masks(folder), SortConfig(), out, workers=1)
    assert find_faults(out, workers=1) == (6, [])


@pytest.mark.parametrize(("old", "new"), [("interior_0.01-0.1,0.0", "some,0.0"), ("0.049", "much"), ("0.png", "")])
def test_the_index_of_a_finished_set_that_was_changed_is_refused(folder, out, old, new):
    measure_masks(Masks(folder), SortConfig(), out, workers=1)
    index = out / "test" / "metadata.csv"
    assert old in index.read_text()
    index.write_text(index.read_text().replace(old, new))
    with pytest.raises(BadInput, match="was changed after the run: see `maskgen verify"):
        measure_masks(Masks(folder), SortConfig(), out, workers=1)


def test_a_killed_run_is_resumed_to_the_same_bytes(tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(250):
        (tmp_path / "many" / f"{i}.png").write_bytes(encode(block(0.02 + 0.001 * i, i % 100, 256)))
    measure_masks(Masks(tmp_path / "many"), SortConfig(), tmp_path / "whole", workers=1)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cli; cli.maskgen(sys.argv[1:])"
    words = ["bin", "many", "--polarity", "hole-white", "--workers", "1", "--out", "cut"]
    run = subprocess.Popen([sys.executable, "-c", code, *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
    journal = tmp_path / "cut" / ".progress" / "masks.jsonl"
    while run.poll() is None and not (journal.exists() and journal.stat().st_size > 10_000):
        time.sleep(0.005)
    run.kill()
    run.wait()
    assert journal.exists() and not (tmp_path / "cut" / "recipe.json").exists()
    again = maskgen(*words, cwd=tmp_path)
    assert again.returncode == 0
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_a_finished_set_made_again_is_complete_and_prints_the_same(folder, out):
    first = maskgen("bin", folder, "--workers", 1, "--out", out, "--index", out.parent / "a.csv")
    before = everything(out)
    again = maskgen("bin", folder, "--workers", 1, "--out", out, "--index", out.parent / "b.csv")
    assert first.returncode == again.returncode == 0 and first.stdout == again.stdout
    assert f"6 masks in {out}" in first.stderr and f"{out} is already complete" in again.stderr
    assert everything(out) == before
    assert (out.parent / "a.csv").read_bytes() == (out.parent / "b.csv").read_bytes()
    assert (out.parent / "a.csv").read_bytes() == (out / "test" / "metadata.csv").read_bytes()


def rename(folder, patch):
    (folder / "0.png").rename(folder / "zero.png")


def redraw(folder, patch):
    (folder / "0.png").write_bytes(encode(block(0.05, 61)))


def recompress(folder, patch):
    """The same pixels in other bytes."""
    cv2.imwrite(str(folder / "0.png"), cv2.imread(str(folder / "0.png"), 0), [cv2.IMWRITE_PNG_COMPRESSION, 1])


CHANGES = {  # what is changed: what the refusal names
    "rename": (rename, {}, "masks was"),
    "redraw": (redraw, {}, "masks was"),
    "recompress": (recompress, {}, "masks was"),
    "polarity": (None, {"polarity": "hole-black"}, "polarity was hole-white, is hole-black"),
    "threshold": (None, {"threshold": 100}, "threshold was null, is 100"),
    "resize": (None, {"resize": 256}, "resize was null, is 256"),
    "edges": (None, {"edges": (0.1, 0.5)}, "edges was"),
    "border": (None, {"border": 20}, "border was 50, is 20"),
    "opencv": (lambda _, patch: patch.setattr(cv2, "__version__", "3.2.1"), {}, "opencv was .*, is 3.2.1"),
    "numpy": (
        lambda _, patch: patch.setattr(sort, "library_versions", lambda *n: {"numpy": "1"}),
        {},
        "numpy was .*, is 1",
    ),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_anything_that_decides_the_result_is_refused_by_name(name, finished, folder, out, monkeypatch):
    change, config, says = CHANGES[name]
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(sort, "write_index", lambda *_: 1 / 0)
        with nullcontext() if finished else pytest.raises(ZeroDivisionError):
            measure_masks(Masks(folder), SortConfig(), out, workers=1)
    before = everything(out)
    if change:
        change(folder, monkeypatch)
    with pytest.raises(BadInput, match=f"was created with other settings .*{says}"):
        measure_masks(Masks(folder), SortConfig(**config), out, workers=1)
    assert everything(out) == before


def test_another_path_to_the_same_masks_is_the_same_set(folder, out, tmp_path_factory):
    measure_masks(Masks(folder), SortConfig(), out, workers=1)
    elsewhere = tmp_path_factory.mktemp("moved") / "masks"
    shutil.copytree(folder, elsewhere)
    said = []
    measure_masks(Masks(elsewhere), SortConfig(), out, workers=1, say=said.append)
    assert said == [f"{out} is already complete"]


@pytest.mark.parametrize(("threshold", "used"), [(None, 153), (100, 100)])
def test_a_given_threshold_replaces_that_of_nvidia(tmp_path, monkeypatch, threshold, used):
    monkeypatch.setattr(sort, "NVIDIA", {"test": 4})
    grey = np.full((64, 64), 40, np.uint8)
    grey[:16], grey[:8] = 120, 200  # 16 rows from 100 upwards, 8 rows from 153 upwards
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i:05d}.png"), grey)
    masks, config, _ = open_masks(tmp_path, SortConfig("auto", threshold), "nvidia")
    assert config.threshold == used
    rows = measure_masks(masks, config, workers=1)
    assert {row["hole_ratio"] for row in rows} == {"0.250000" if used == 100 else "0.125000"}


# Masks of any kind.


def test_masks_of_every_ending_and_kind_are_measured_alike(tmp_path):
    hole = block(0.15)
    grey = hole.astype(np.uint8) * 255
    (tmp_path / "a.PNG").write_bytes(encode(hole))
    for name, picture in {
        "b.Png": hole.astype(np.uint8),
        "c.bmp": grey,
        "d.tif": hole.astype(np.uint16) * 9,
        "e e.png": grey[..., None] | np.uint8([0, 0, 0])[None, None],
        "ñ.webp": grey,
    }.items():
        lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith("webp") else []
        (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix.lower(), picture, lossless)[1].tobytes())
    (tmp_path / "inner").mkdir()
    indices = Image.fromarray(hole.astype(np.uint8))
    indices.putpalette([0, 0, 0, 128, 0, 0])
    indices.save(tmp_path / "inner" / "davis.png")
    alpha = np.dstack([np.zeros((512, 512, 3), np.uint8), grey])
    Image.fromarray(alpha).save(tmp_path / "inner" / "alpha.png")
    masks, config, _ = open_masks(tmp_path, SortConfig("auto"))
    rows = measure_masks(masks, config, workers=1)
    assert len(rows) == 8 and {row["category"] for row in rows} == {"interior_0.1-0.2"}


def test_masks_with_grey_levels_ask_for_a_threshold_in_one_line(tmp_path):
    soft = cv2.GaussianBlur(block(0.15).astype(np.uint8) * 255, (0, 0), 5)
    cv2.imwrite(str(tmp_path / "a.jpg"), soft)
    refused = maskgen("bin", tmp_path)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--threshold 128" in refused.stderr
    taken = maskgen("bin", tmp_path, "--threshold", 128, "--workers", 1)
    assert taken.returncode == 0 and taken.stdout.splitlines()[2].split() == ["(0.1,", "0.2]", "1", "0"]


def test_files_of_macos_and_notebooks_are_skipped_with_one_line(folder, tmp_path_factory):
    top = tmp_path_factory.mktemp("mac")
    with zipfile.ZipFile(top / "masks.zip", "w") as archive:
        for path in sorted(folder.glob("*.png")):
            archive.write(path, f"masks/{path.name}")
            archive.writestr(f"__MACOSX/masks/._{path.name}", b"no picture")
        archive.writestr("masks/.DS_Store", b"")
    shutil.copytree(folder, top / "masks/.ipynb_checkpoints")
    shutil.copytree(folder, top / "masks/inner")
    (top / "masks/Thumbs.db").write_bytes(b"no picture")
    for name, workers in (("masks.zip", 1), ("masks", 1), ("masks", 2)):
        run = maskgen("bin", top / name, "--workers", workers)
        assert run.returncode == 0 and run.stdout.splitlines()[-1].split() == ["all", "6"]
        assert sum("are skipped" in line for line in run.stderr.splitlines()) == 1


def test_a_tar_of_a_folder_and_a_link_to_a_folder_are_read(folder, tmp_path_factory):
    top = tmp_path_factory.mktemp("tar")
    with tarfile.open(top / "masks.tar", "w") as archive:
        archive.add(folder, ".")
    (top / "linked").mkdir()
    (top / "linked" / "here").symlink_to(folder, target_is_directory=True)
    for name in ("masks.tar", "linked"):
        masks, config, _ = open_masks(top / name, SortConfig("auto"))
        assert len(measure_masks(masks, config, top / f"{name}.set", workers=1)) == 6
        assert find_faults(top / f"{name}.set", workers=1) == (6, [])


def test_masks_of_different_sizes_make_a_set_without_faults(tmp_path, out):
    for i, side in enumerate((200, 300, 512)):
        (tmp_path / f"{i} größe {side}.png").write_bytes(encode(block(0.15, 60, side)))
    rows = measure_masks(Masks(tmp_path), SortConfig(), out, workers=1)
    assert [row["width"] for row in rows] == [200, 300, 512] and find_faults(out, workers=1) == (3, [])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_is_refused_in_one_line(folder):
    Path(os.fsdecode(os.fsencode(folder) + b"/m\xfe.png")).write_bytes(encode(block(0.15)))
    run = maskgen("bin", folder)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and r"'m\udcfe.png', a name that is not" in run.stderr


def test_a_folder_without_masks_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("no mask")
    run = maskgen("bin", tmp_path)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "no mask in" in run.stderr


@pytest.mark.parametrize(
    ("polarity", "values", "says"),
    [
        ("hole-white", (1, 1), "2 of 3 masks cover the whole image, such as 0.png"),
        ("hole-black", (0, 0), "2 of 3 masks cover the whole image, such as 0.png"),
        ("hole-white", (0, 0), None),
    ],
)
def test_masks_that_are_all_hole_are_reported(tmp_path, out, polarity, values, says, recwarn):
    for i, value in enumerate(values):
        (tmp_path / f"{i}.png").write_bytes(encode(np.full((64, 64), bool(value))))
    (tmp_path / "2.png").write_bytes(encode(block(0.3, 0, 64)))
    measure_masks(Masks(tmp_path), SortConfig(polarity), out, workers=1)
    said = [str(warning.message) for warning in recwarn if warning.category is InputWarning]
    assert len(said) == bool(says) and all(says in line and polarity in line for line in said)


@pytest.mark.parametrize("polarity", ["hole-white", "hole-black"])
def test_a_set_without_any_hole_is_reported(tmp_path, out, polarity):
    (tmp_path / "0.png").write_bytes(encode(np.full((64, 64), polarity == "hole-black")))
    for _ in range(2):  # also when the set is already complete
        with pytest.warns(InputWarning, match=f"no mask has a hole .polarity {polarity}"):
            measure_masks(Masks(tmp_path), SortConfig(polarity), out, workers=1)


# The index and the polarity.


def test_hole_black_is_refused_for_a_mask_set_with_an_index(tmp_path):
    write_raw(tmp_path, 3)
    run = maskgen("bin", tmp_path, "--polarity", "hole-black")
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "has an index" in run.stderr


def test_an_index_of_another_kind_is_ignored(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(encode(~block(0.15, 0)))
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a cat\n")
    assert find_polarity(Masks(tmp_path))[0] == "hole-black"
    rows = measure_masks(Masks(tmp_path), SortConfig("hole-black"), workers=1)
    assert {row["category"] for row in rows} == {"free_0.1-0.2"}


def index_for(folder, ratios, names=None):
    rows = [describe(block(ratio, 0), f"{i}.png", b"") for i, ratio in enumerate(ratios)]
    for row, name in zip(rows, names or (), strict=False):
        row["file_name"] = name
    write_index(folder, rows)


def test_an_index_that_does_not_fit_the_masks_is_not_used(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encode(~block(0.05 + 0.02 * i, 0)))
    index_for(tmp_path, [0.4] * 8)
    with pytest.warns(InputWarning, match="does not fit 8 of 8 masks, such as 0.png .*it is not used"):
        assert find_polarity(Masks(tmp_path))[0] == "hole-black"
    index_for(tmp_path, [0.4] * 8, [f"old{i}.png" for i in range(8)])
    with pytest.warns(InputWarning, match="lists none of the masks"):
        assert find_polarity(Masks(tmp_path))[0] == "hole-black"


@pytest.mark.parametrize(("difference", "used"), [(0.009, True), (0.011, False)])
def test_hole_ratios_of_an_index_may_differ_by_less_than_a_hundredth(tmp_path, difference, used, recwarn):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(encode(block(0.2, 0)))
    row = describe(block(0.2, 0), "0.png", b"")
    ratio = float(row["hole_ratio"]) + difference
    write_index(tmp_path, [{**row, "file_name": f"{i}.png", "hole_ratio": f"{ratio:.6f}"} for i in range(4)])
    polarity, reason = find_polarity(Masks(tmp_path))
    assert polarity == "hole-white" and ("as in every mask set" in reason) == used and bool(recwarn.list) != used


def test_an_index_that_fits_all_but_one_mask_is_used_and_the_one_is_named(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encode(block(0.3 if i == 5 else 0.05, 0)))
    index_for(tmp_path, [0.05] * 8)
    with pytest.warns(InputWarning, match="does not fit 1 of 8 masks, such as 5.png .*maskgen verify"):
        assert "as in every mask set" in find_polarity(Masks(tmp_path))[1]


def test_an_index_that_measures_black_pixels_is_refused(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encode(~block(0.05 + 0.02 * i, 0)))
    index_for(tmp_path, [0.05 + 0.02 * i for i in range(8)])
    with pytest.raises(BadInput, match="measures the black pixels of these masks"):
        find_polarity(Masks(tmp_path))


def test_the_index_counts_for_a_set_its_part_and_a_class_of_it(folder, out):
    measure_masks(Masks(folder), SortConfig(), out, workers=1)
    for part in (out, out / "test", out / "test" / "free_0.5-0.6"):
        assert "as in every mask set" in find_polarity(Masks(part))[1]


# Paths of the output.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bin masks --out masks/sorted", "masks/sorted lies in masks"),
        ("bin masks --out set --index set/index.csv", "gets its own index"),
        ("bin masks --index masks/0.png/a.csv", "is not a folder"),
        ("bin black --polarity hole-black --index black/metadata.csv", "the masks are read with hole-black"),
        ("bin masks --threshold 9 --resize 64 --index masks/metadata.csv", "with threshold 9 and resize 64"),
        ("bin masks --threshold 0", "0 is not in the range"),
        ("bin masks --layout theirs", "'theirs' is not one of"),
        ("bin masks --polarity white", "'white' is not one of"),
    ],
)
def test_harmful_options_are_refused_in_one_line_before_the_work(folder, tmp_path_factory, monkeypatch, words, says):
    top = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(top)
    shutil.copytree(folder, top / "masks")
    shutil.copytree(folder, top / "black")
    before = everything(top)
    run = CliRunner().invoke(cli.maskgen, words.split())
    assert run.exit_code == 2 and says in run.output
    assert sum(not line.startswith("polarity") for line in run.output.splitlines()) == 1
    assert everything(top) == before


def test_an_index_goes_to_a_new_folder_and_makes_a_mask_set_of_the_masks(folder, tmp_path_factory):
    top = tmp_path_factory.mktemp("index")
    for index in (top / "new" / "folder" / "i.csv", folder / "metadata.csv"):
        words = ["bin", str(folder), "--workers", "1", "--index", str(index)]
        assert CliRunner().invoke(cli.maskgen, words).exit_code == 0
        assert len(index.read_text().splitlines()) == 7
    assert find_faults(folder, workers=1) == (6, [])


@pytest.mark.parametrize(
    "wrong",
    [{"polarity": "white"}, {"threshold": 0}, {"threshold": 256}, {"resize": 0}, {"edges": (0.5, 0.1)}, {"border": 0}],
)
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong)) if "edges" not in wrong else "ascending list"):
        SortConfig(**wrong)


def test_an_unknown_layout_is_refused(folder):
    with pytest.raises(BadInput, match="no layout 'theirs': expected one of any, nvidia"):
        open_masks(folder, SortConfig(), "theirs")
