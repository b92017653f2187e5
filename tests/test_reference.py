"""The 60 reference photos: `--images reference`."""

import csv
import hashlib
import json
from pathlib import Path

import cv2
from click.testing import CliRunner
from small_run import SIDE, folders

from evaluation import pairing, read_protocol
from evaluation.commands import evaluate
from evaluation.pairing import REFERENCE_PHOTOS
from maskgen.runtime import images

FROZEN = "974fd127897c4a78540133b11f737a1ac30f0a86744c3ded32fc13a7c437b22b"  # sha256 of the index
QUICK = f"--method grey --metric psnr --size {SIDE} --workers 1 --no-pictures".split()


def typed(*words):
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def index():
    with (REFERENCE_PHOTOS / "metadata.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_reference_photos_never_change():
    assert hashlib.sha256((REFERENCE_PHOTOS / "metadata.csv").read_bytes()).hexdigest() == FROZEN
    for row in index():
        assert hashlib.sha256((REFERENCE_PHOTOS / row["file_name"]).read_bytes()).hexdigest() == row["sha256"]


def test_there_are_60_photos_of_512_px_in_5_mb_with_licence_and_source():
    rows = index()
    paths = [REFERENCE_PHOTOS / row["file_name"] for row in rows]
    assert len(set(paths)) == 60 and sum(path.stat().st_size for path in paths) <= 5e6
    assert {cv2.imread(str(path)).shape for path in paths} == {(512, 512, 3)}
    assert {(row["source"], row["licence"]) for row in rows} == {("CID22", "CC BY-SA 4.0")}
    assert [row["file_name"] for row in rows] == [path.name for path in images.find(REFERENCE_PHOTOS)]


def test_images_reference_are_the_photos_that_ship_and_can_be_taken_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, masks = folders(tmp_path, ratios=(0.05, 0.15))
    done = typed("--images", "reference", "--masks", masks, *QUICK)
    assert done.exit_code == 0 and "photos: 4 of reference" in done.output
    assert json.loads((tmp_path / "results/recipe.json").read_text())["folders"]["images"] == "reference"
    done = typed("--pairs", "results", "--masks", masks, "--out", "again", *QUICK)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again/scores.csv").read_bytes() == (tmp_path / "results/scores.csv").read_bytes()


def test_a_folder_named_reference_comes_before_the_photos_that_ship(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders(tmp_path, images=1)[0].rename("reference")
    assert pairing.find_images(Path("reference")) == ["photo0.png"]


def test_the_protocol_takes_the_photos_that_ship_and_a_partial_run_says_so(tmp_path):
    words = "--protocol reference --per-class 1 --method grey --metric psnr --workers 1 --no-pictures".split()
    done = typed(*words, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "masks: 12 of v1; photos: 12 of reference"
    assert "12 of 1,200 pairs (the first mask of each class)" in lines[-1] and lines[-1].startswith("partial run:")


def test_the_protocol_uses_each_photo_twenty_times_and_the_first_five_masks_of_the_classes_use_all_photos():
    table = read_protocol("reference")
    assert set(table["image"].value_counts()) == {20} and len(table) == 1200
    assert set(table["image"]) == {row["file_name"] for row in index()}
    assert table.groupby("category").head(5)["image"].is_unique
