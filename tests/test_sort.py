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
from maskgen.maskset import Masks, describe, encode, write_index
from maskgen.sort import Rules, blocks, find_polarity, grid, measure_masks, open_masks, parse_edges
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


def test_resized_masks_stay_binary_and_are_measured_again(tmp_path, out):
    (tmp_path / "a.png").write_bytes(encode(block(0.25, 256, 1024)))
    row = measure_masks(Masks(tmp_path), Rules(resize=512), out, workers=1)[0]
    assert row["border_distance"] == 128 and row["hole_ratio"] == "0.250000"
    grey = cv2.imread(str(out / "test" / row["file_name"]), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (512, 512) and set(np.unique(grey)) == {0, 255}


def test_a_sorted_copy_is_a_mask_set_without_faults(folder, out):
    measure_masks(Masks(folder), Rules(), out, workers=1)
    assert find_faults(out, workers=1) == (6, [])
    with (out / "test" / "metadata.csv").open() as file:
        rows = {row["source"]: row["file_name"] for row in csv.DictReader(file)}
    assert rows["2.png"] == "free_0.1-0.2/00000.png" and rows["5.png"] == "outside/00000.png"


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
    run = maskgen("bin", "--ratios", "--workers", 1, cwd=tmp_path)
    assert run.returncode == 0 and run.stdout.splitlines()[-1].split() == ["all", "4"]
    assert not list(tmp_path.glob("*.csv"))


def test_the_command_writes_an_index_where_it_is_asked_to(folder, tmp_path):
    run = maskgen(
        "bin", folder, "--ratios", "0.1,0.3,0.5", "--border", 20, "--index", tmp_path / "i.csv", "--workers", 1
    )
    assert run.returncode == 0 and "(0.1, 0.3]" in run.stdout and "polarity: hole-white" in run.stderr
    assert len((tmp_path / "i.csv").read_text().splitlines()) == 7


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    run = maskgen("bin", tmp_path / "nowhere")
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "no such file or folder" in run.stderr


def everything(top):
    return {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_a_set_whose_making_was_interrupted_is_made_to_its_end(folder, out, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    measure_masks(Masks(folder), Rules(), out / "whole", workers=1)
    for moment in ("write_whole", "write_index", "write_checksums"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sort, moment, stop if moment != "write_whole" else after_three(stop))
            measure_masks(Masks(folder), Rules(), out / "cut", workers=1)
    measure_masks(Masks(folder), Rules(), out / "cut", workers=1)
    assert everything(out / "cut") == everything(out / "whole")


def after_three(stop):
    """write_whole, but for the fourth file it stops."""
    left, write = [3], sort.write_whole

    def limited(*arguments):
        left[0] -= 1
        return write(*arguments) if left[0] >= 0 else stop()

    return limited


def test_a_run_that_goes_on_measures_only_what_is_not_sorted_yet(folder, out, monkeypatch):
    measured = []
    monkeypatch.setattr(sort, "BATCH", 2)
    measure_one = sort._measure_one
    monkeypatch.setattr(sort, "_measure_one", lambda i, *rest: measured.append(i) or measure_one(i, *rest))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sort, "write_whole", after_three(lambda: (_ for _ in ()).throw(KeyboardInterrupt)))
        measure_masks(Masks(folder), Rules(), out, workers=1)
    assert measured == [0, 1, 2, 3]
    (out / "test" / "interior_0.1-0.2" / "00000.png").unlink()  # what is gone is made again
    measured.clear()
    measure_masks(Masks(folder), Rules(), out, workers=1)
    assert measured == [1, 2, 3, 4, 5] and find_faults(out, workers=1) == (6, [])


SPOILT = ["", "x", "{}", "[1]", '{"file_name": "../x.png"}', '{"category": []}', '{"source": 1}']


@pytest.mark.parametrize("line", SPOILT)
def test_a_journal_that_makes_no_sense_is_dropped_from_there(line, folder, out, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(sort, "write_index", lambda *_: 1 / 0)
        measure_masks(Masks(folder), Rules(), out, workers=1)
    journal = out / ".progress" / "masks.jsonl"
    rows = journal.read_text().splitlines()
    rows[1] = line if not line.startswith('{"') else json.dumps({**json.loads(rows[1]), **json.loads(line)})
    journal.write_text("\n".join(rows) + "\n")
    measure_masks(Masks(folder), Rules(), out, workers=1)
    assert find_faults(out, workers=1) == (6, [])


@pytest.mark.parametrize(("old", "new"), [("interior_0.01-0.1,0.0", "some,0.0"), ("0.049", "much"), ("0.png", "")])
def test_the_index_of_a_finished_set_that_was_changed_is_refused(folder, out, old, new):
    measure_masks(Masks(folder), Rules(), out, workers=1)
    index = out / "test" / "metadata.csv"
    assert old in index.read_text()
    index.write_text(index.read_text().replace(old, new))
    with pytest.raises(BadInput, match="was changed since: see `maskgen verify"):
        measure_masks(Masks(folder), Rules(), out, workers=1)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(250):
        (tmp_path / "many" / f"{i}.png").write_bytes(encode(block(0.02 + 0.001 * i, i % 100, 256)))
    measure_masks(Masks(tmp_path / "many"), Rules(), tmp_path / "whole", workers=1)
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
def test_whatever_decides_the_result_is_refused_by_name_when_it_changes(name, finished, folder, out, monkeypatch):
    change, rules, says = CHANGES[name]
    with monkeypatch.context() as patch:
        if not finished:
            patch.setattr(sort, "write_index", lambda *_: 1 / 0)
        with nullcontext() if finished else pytest.raises(ZeroDivisionError):
            measure_masks(Masks(folder), Rules(), out, workers=1)
    before = everything(out)
    if change:
        change(folder, monkeypatch)
    with pytest.raises(BadInput, match=f"was created with other settings .*{says}"):
        measure_masks(Masks(folder), Rules(**rules), out, workers=1)
    assert everything(out) == before


def test_another_path_to_the_same_masks_is_the_same_set(folder, out, tmp_path_factory):
    measure_masks(Masks(folder), Rules(), out, workers=1)
    elsewhere = tmp_path_factory.mktemp("moved") / "masks"
    shutil.copytree(folder, elsewhere)
    said = []
    measure_masks(Masks(elsewhere), Rules(), out, workers=1, say=said.append)
    assert said == [f"{out} is already complete"]


@pytest.mark.parametrize(("threshold", "used"), [(None, 153), (100, 100)])
def test_nvidias_threshold_gives_way_to_the_one_asked_for(tmp_path, monkeypatch, threshold, used):
    monkeypatch.setattr(sort, "NVIDIA", {"test": 4})
    grey = np.full((64, 64), 40, np.uint8)
    grey[:16], grey[:8] = 120, 200  # 16 rows from 100 upwards, 8 rows from 153 upwards
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i:05d}.png"), grey)
    masks, rules, _ = open_masks(tmp_path, Rules("auto", threshold), "nvidia")
    assert rules.threshold == used
    rows = measure_masks(masks, rules, workers=1)
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
    masks, rules, _ = open_masks(tmp_path, Rules("auto"))
    rows = measure_masks(masks, rules, workers=1)
    assert len(rows) == 8 and {row["category"] for row in rows} == {"interior_0.1-0.2"}


def test_masks_with_grey_levels_ask_for_a_threshold_in_one_line(tmp_path):
    soft = cv2.GaussianBlur(block(0.15).astype(np.uint8) * 255, (0, 0), 5)
    cv2.imwrite(str(tmp_path / "a.jpg"), soft)
    refused = maskgen("bin", tmp_path)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "--threshold 128" in refused.stderr
    taken = maskgen("bin", tmp_path, "--threshold", 128, "--workers", 1)
    assert taken.returncode == 0 and taken.stdout.splitlines()[2].split() == ["(0.1,", "0.2]", "1", "0"]


def test_what_a_mac_and_a_notebook_leave_is_skipped_with_one_line(folder, tmp_path_factory):
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


def test_a_tar_of_everything_here_and_a_link_to_a_folder_are_followed(folder, tmp_path_factory):
    top = tmp_path_factory.mktemp("tar")
    with tarfile.open(top / "masks.tar", "w") as archive:
        archive.add(folder, ".")
    (top / "linked").mkdir()
    (top / "linked" / "here").symlink_to(folder, target_is_directory=True)
    for name in ("masks.tar", "linked"):
        masks, rules, _ = open_masks(top / name, Rules("auto"))
        assert len(measure_masks(masks, rules, top / f"{name}.set", workers=1)) == 6
        assert find_faults(top / f"{name}.set", workers=1) == (6, [])


def test_masks_of_different_sizes_make_a_set_without_faults(tmp_path, out):
    for i, side in enumerate((200, 300, 512)):
        (tmp_path / f"{i} größe {side}.png").write_bytes(encode(block(0.15, 60, side)))
    rows = measure_masks(Masks(tmp_path), Rules(), out, workers=1)
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
def test_masks_that_are_holes_all_over_are_reported(tmp_path, polarity, values, says, recwarn):
    for i, value in enumerate(values):
        (tmp_path / f"{i}.png").write_bytes(encode(np.full((64, 64), bool(value))))
    (tmp_path / "2.png").write_bytes(encode(block(0.3, 0, 64)))
    measure_masks(Masks(tmp_path), Rules(polarity), workers=1)
    said = [str(warning.message) for warning in recwarn if warning.category is InputWarning]
    assert len(said) == bool(says) and all(says in line and polarity in line for line in said)


@pytest.mark.parametrize("polarity", ["hole-white", "hole-black"])
def test_a_run_without_any_hole_says_so(tmp_path, out, polarity):
    (tmp_path / "0.png").write_bytes(encode(np.full((64, 64), polarity == "hole-black")))
    for _ in range(2):  # also when the set is already complete
        with pytest.warns(InputWarning, match=f"no mask has a hole .polarity {polarity}"):
            measure_masks(Masks(tmp_path), Rules(polarity), out, workers=1)


# What an index says of the polarity.


def test_hole_black_is_refused_for_a_mask_set_with_an_index(tmp_path):
    write_raw(tmp_path, 3)
    run = maskgen("bin", tmp_path, "--polarity", "hole-black")
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "has an index" in run.stderr


def test_an_index_of_something_else_says_nothing(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(encode(~block(0.15, 0)))
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a cat\n")
    assert find_polarity(Masks(tmp_path))[0] == "hole-black"
    rows = measure_masks(Masks(tmp_path), Rules("hole-black"), workers=1)
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


def test_an_index_that_fits_all_but_one_mask_is_used_and_the_one_is_named(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encode(block(0.3 if i == 5 else 0.05, 0)))
    index_for(tmp_path, [0.05] * 8)
    with pytest.warns(InputWarning, match="does not fit 1 of 8 masks, such as 5.png .*maskgen verify"):
        assert "as in every mask set" in find_polarity(Masks(tmp_path))[1]


def test_an_index_that_measures_the_black_is_refused(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(encode(~block(0.05 + 0.02 * i, 0)))
    index_for(tmp_path, [0.05 + 0.02 * i for i in range(8)])
    with pytest.raises(BadInput, match="measures the black of these masks"):
        find_polarity(Masks(tmp_path))


def test_a_class_of_a_set_and_the_whole_set_are_read_by_its_index(folder, out):
    measure_masks(Masks(folder), Rules(), out, workers=1)
    for part in (out, out / "test", out / "test" / "free_0.5-0.6"):
        assert "as in every mask set" in find_polarity(Masks(part))[1]


# Where things are written.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bin masks --out masks/sorted", "masks/sorted lies in masks"),
        ("bin masks --out set --index set/index.csv", "gets an index of its own"),
        ("bin masks --index masks/0.png/a.csv", "is no folder"),
        ("bin black --polarity hole-black --index black/metadata.csv", "that are read with hole-black"),
        ("bin masks --threshold 9 --resize 64 --index masks/metadata.csv", "with threshold 9 and resize 64"),
        ("bin masks --threshold 0", "0 is not in the range"),
        ("bin masks --layout theirs", "'theirs' is not one of"),
        ("bin masks --polarity white", "'white' is not one of"),
    ],
)
def test_what_would_do_harm_is_refused_in_one_line_before_the_work(folder, tmp_path_factory, monkeypatch, words, says):
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
    with pytest.raises(BadInput, match=next(iter(wrong)) if "edges" not in wrong else "rising list"):
        Rules(**wrong)


def test_an_unknown_layout_is_refused(folder):
    with pytest.raises(BadInput, match="no layout 'theirs': expected one of any, nvidia"):
        open_masks(folder, Rules(), "theirs")
