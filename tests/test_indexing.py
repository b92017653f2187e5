import csv
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskgen import indexing
from maskgen.errors import BadInput
from maskgen.indexing import Rules, blocks, find_polarity, grid, measure_masks, open_masks, parse_edges
from maskgen.maskset import Masks, encode
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


def maskgen(*args, cwd=None):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import cli; cli.maskgen(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, cwd=cwd)


def test_masks_fall_into_the_classes_of_the_paper(folder):
    rows = measure_masks(Masks(folder), Rules(), workers=1)
    assert [row["category"] for row in rows] == [
        "interior_0.01-0.1",
        "interior_0.1-0.2",
        "free_0.1-0.2",
        "interior_0.2-0.3",
        "free_0.5-0.6",
        "",
    ]


def test_other_edges_and_another_border(folder):
    rows = measure_masks(Masks(folder), Rules(edges=(0.1, 0.3, 0.5), border=10), workers=1)
    assert [row["category"] for row in rows] == ["", *["interior_0.1-0.3"] * 3, "", ""]


def test_the_table_has_a_line_for_each_interval(folder):
    lines = grid(measure_masks(Masks(folder), Rules(), workers=1)).splitlines()
    assert lines[0].split() == ["hole", "ratio", "interior", "free"]
    assert lines[2].split() == ["(0.1,", "0.2]", "1", "1"]
    assert lines[-2].split() == ["other", "1"] and lines[-1].split() == ["all", "6"]


@pytest.mark.parametrize("text", ["", "a,b", "0.3,0.1", "0.1", "0.1,1.5", "-0.1,0.2"])
def test_edges_that_do_not_rise_are_refused(text):
    with pytest.raises(BadInput, match="rising list"):
        parse_edges(text)


def test_polarity_is_found_by_evidence(tmp_path):
    for name, turn in (("white", False), ("black", True)):
        (tmp_path / name).mkdir()
        for i in range(8):
            (tmp_path / name / f"{i}.png").write_bytes(encode(block(0.05 + 0.06 * i, 0) ^ turn))
        polarity, why = find_polarity(Masks(tmp_path / name))
        assert polarity == f"hole-{name}" and "of 8 masks" in why


def test_polarity_is_not_guessed_where_masks_disagree_or_say_nothing(tmp_path):
    for name, ratios in (("mixed", (0.1, 0.9)), ("half", (0.45, 0.5))):
        (tmp_path / name).mkdir()
        for i, ratio in enumerate(ratios):
            (tmp_path / name / f"{i}.png").write_bytes(encode(block(ratio, 0)))
        with pytest.raises(BadInput, match="say --polarity"):
            find_polarity(Masks(tmp_path / name))


def test_a_mask_set_of_ours_says_its_polarity_itself(tmp_path):
    write_raw(tmp_path, 3)
    assert "as in every mask set" in find_polarity(Masks(tmp_path / "test"))[1]


def test_both_polarities_measure_alike(folder, tmp_path):
    (tmp_path / "turned").mkdir()
    for path in folder.glob("*.png"):
        (tmp_path / "turned" / path.name).write_bytes(encode(cv2.imread(str(path), 0) == 0))
    rows = measure_masks(Masks(folder), Rules(), workers=1)[:6]
    masks, rules, _ = open_masks(tmp_path / "turned", Rules("auto"))
    turned = measure_masks(masks, rules, workers=1)
    assert [r["hole_ratio"] for r in turned] == [r["hole_ratio"] for r in rows]


def test_resized_masks_stay_binary_and_are_measured_again(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(block(0.25, 256, 1024)))
    row = measure_masks(Masks(tmp_path), Rules(resize=512), tmp_path / "out", workers=1)[0]
    assert row["border_distance"] == 128 and row["hole_ratio"] == "0.250000"
    grey = cv2.imread(str(tmp_path / "out" / "test" / row["file_name"]), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (512, 512) and set(np.unique(grey)) == {0, 255}


def test_a_sorted_copy_is_a_mask_set_without_faults(folder, tmp_path):
    out = tmp_path / "sorted"
    measure_masks(Masks(folder), Rules(), out, workers=1)
    assert find_faults(out, workers=1) == (6, [])
    with (out / "test" / "metadata.csv").open() as file:
        rows = {row["source"]: row["file_name"] for row in csv.DictReader(file)}
    assert rows["2.png"] == "free_0.1-0.2/00000.png" and rows["5.png"] == "outside/00000.png"
    with pytest.raises(BadInput, match="not empty"):
        measure_masks(Masks(folder), Rules(), out, workers=1)


def test_a_copy_of_nvidias_test_masks_is_indexed_by_measuring(tmp_path):
    # As theirs: 12,000 flat files, white holes; here in blocks of one class each, the free ones first.
    kinds = [encode(block(0.045, border, 128)) for border in (0, 50)]
    path = tmp_path / "test_mask.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(12_000):
            archive.writestr(f"mask/testing_mask_dataset/{i:05d}.png", kinds[i // 1000 % 2])
    masks, rules, why = open_masks(path, Rules("auto"), "nvidia")
    assert (rules.polarity, rules.threshold) == ("hole-white", 153) and "of 64 masks" in why
    masks.names = masks.names[::100]
    rows = measure_masks(masks, rules, workers=1)
    assert blocks(rows, 10).splitlines()[:2] == [
        "00000 to 00009: 10 of 10 are free_0.01-0.1",
        "00010 to 00019: 10 of 10 are interior_0.01-0.1",
    ]


def test_something_else_than_nvidias_masks_is_refused(folder):
    with pytest.raises(BadInput, match="expected NVIDIA's 12,000 test masks"):
        open_masks(folder, Rules(), "nvidia")


def test_the_bare_command_takes_the_default_folder_and_the_paper_classes(tmp_path):
    write_raw(tmp_path / "masks" / "raw", 4)
    run = maskgen("bin", "--ratios", cwd=tmp_path)
    assert run.returncode == 0 and run.stdout.splitlines()[-1].split() == ["all", "4"]
    assert not list(tmp_path.glob("*.csv"))


def test_the_command_writes_an_index_where_it_is_asked_to(folder, tmp_path):
    run = maskgen("bin", folder, "--ratios", "0.1,0.3,0.5", "--border", "20", "--index", tmp_path / "i.csv")
    assert run.returncode == 0 and "(0.1, 0.3]" in run.stdout and "polarity: hole-white" in run.stderr
    assert len((tmp_path / "i.csv").read_text().splitlines()) == 7


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    run = maskgen("bin", tmp_path / "nowhere")
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "no such file or folder" in run.stderr


def test_a_set_whose_making_was_interrupted_is_made_to_its_end(folder, tmp_path_factory, monkeypatch):
    out = tmp_path_factory.mktemp("sets")

    def everything(top):
        return {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}

    def stop(*_):
        raise KeyboardInterrupt

    measure_masks(Masks(folder), Rules(), out / "whole", workers=1)
    for moment in ("write_whole", "write_index", "write_checksums"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(indexing, moment, stop if moment != "write_whole" else after_three(stop))
            measure_masks(Masks(folder), Rules(), out / "cut", workers=1)
    with pytest.raises(BadInput, match="not empty"):
        measure_masks(Masks(folder), Rules(border=20), out / "cut", workers=1)
    measure_masks(Masks(folder), Rules(), out / "cut", workers=1)
    assert everything(out / "cut") == everything(out / "whole")


def after_three(stop):
    """write_whole, but for the fourth file it stops."""
    left, write = [3], indexing.write_whole

    def limited(*arguments):
        left[0] -= 1
        return write(*arguments) if left[0] >= 0 else stop()

    return limited
