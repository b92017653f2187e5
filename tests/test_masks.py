"""The masks of a run: the canonical set as it ships, folders, zips and tars."""

import csv
import io
import json
import multiprocessing
import shutil
import tarfile
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from small_run import SIDE, folders

from evaluation import experiments, listed, masks, pairing
from evaluation.commands import evaluate
from evaluation.pairs import Sources, load_pair
from evaluation.settings import BenchmarkConfig
from maskgen import canonical
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput

CONFIG = BenchmarkConfig(size=(SIDE, SIDE), metrics=("l1_image", "psnr"))
QUICK = f"--metric psnr --size {SIDE} --no-pictures --method grey".split()


def typed(*words):
    return CliRunner().invoke(evaluate, [str(word) for word in words])


def index_of_v1():
    """The rows of the packaged index, in order."""
    with zipfile.ZipFile(canonical.TESTSET) as archive:
        return list(csv.DictReader(io.TextIOWrapper(archive.open("metadata.csv"), "utf-8")))


def packed(folder, archive):
    """Pack the files of a folder as a zip, tar or tar.gz, as the name of the archive says."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*.*")):
                file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as file:
            file.add(folder, ".")


# ---- v1 ----


def test_v1_takes_the_first_masks_of_each_class_whatever_the_seed(tmp_path):
    images, _ = folders(tmp_path)
    first = {}
    for row in index_of_v1():
        first.setdefault(row["category"], []).append(row["file_name"])
    for seed in (0, 7):
        config = BenchmarkConfig(size=(SIDE, SIDE), per_class=2, seed=seed)
        pairs = pairing.make_pairs(images, canonical.TESTSET, config)
        assert [pair.mask for pair in pairs] == [name for category in CATEGORIES for name in first[category][:2]]


def test_the_holes_of_v1_are_those_that_pillow_reads_from_the_zip(tmp_path):
    images, _ = folders(tmp_path)
    config = BenchmarkConfig(size=(512, 512), per_class=1)
    for pair in pairing.make_pairs(images, canonical.TESTSET, config):
        _, _, hole = load_pair(pair, Sources(images, canonical.TESTSET), config)
        with zipfile.ZipFile(canonical.TESTSET) as archive, Image.open(archive.open(pair.mask)) as image:
            assert (hole == (np.asarray(image.convert("L")) == 255)).all()
        assert hole.mean() == pytest.approx(pair.hole_ratio, abs=1e-6)


def test_without_masks_ten_of_each_class_of_v1_are_scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, _ = folders(tmp_path)
    assert typed("--images", images, "--workers", 1, *QUICK).exit_code == 0
    scores = pd.read_csv("results/scores.csv")
    assert Counter(scores["category"]) == dict.fromkeys(CATEGORIES, 10)
    recipe = json.loads((tmp_path / "results/recipe.json").read_text())
    assert recipe["settings"]["per_class"] == 10 and recipe["folders"]["masks"] == "v1"


def test_all_of_v1_is_taken_where_it_is_named_and_ten_of_a_class_where_it_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert masks.default_per_class(None) == 10 and masks.default_per_class("v1") == 0
    (tmp_path / "masks/testset").mkdir(parents=True)
    assert masks.default_per_class(None) == 0


def test_pairs_of_v1_go_to_another_program_and_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, _ = folders(tmp_path)
    common = "--images", images, "--masks", "v1", "--per-class", 1, "--size", SIDE
    assert typed("pairs", *common, "--out", "given").exit_code == 0
    assert typed(*common, *QUICK, "--workers", 1, "--method", "filled=dir:given/truth").exit_code == 0
    psnr = pd.read_csv("results/scores.csv").groupby("method")["psnr"].min()
    assert psnr["filled"] == np.inf and np.isfinite(psnr["grey"])
    found = listed.open_pairs(Path("results"), images=images)
    assert len(found.pairs) == 12 and found.sources.masks == canonical.TESTSET


def test_growing_holes_are_the_first_small_masks_of_v1(tmp_path):
    images, _ = folders(tmp_path)
    found = experiments.growing_holes(images, Path("v1"), (0, 5), BenchmarkConfig(per_class=2), out=tmp_path / "out")
    small = [float(row["hole_ratio"]) for row in index_of_v1() if row["category"].endswith("0.01-0.1")]
    assert found.pairs[0].hole_ratio in small and found.pairs[0].hole_ratio < found.pairs[2].hole_ratio
    assert found.masks == "2 of v1, widened by 0, 5 px"


def test_a_folder_named_v1_comes_first_and_a_warning_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, own = folders(tmp_path)
    own.rename("v1")
    done = typed("--images", images, "--masks", "v1", *QUICK, "--workers", 1)
    assert done.exit_code == 0 and done.stdout.startswith("masks: 4 of ./v1; ")
    assert "v1 is read from the working folder" in done.stderr


# ---- archives ----


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_masks_in_an_archive_give_the_scores_of_the_folder(kind, tmp_path):
    images, folder = folders(tmp_path)
    archive = tmp_path / f"packed.{kind}"
    packed(folder, archive)
    for name, given in (("a", folder), ("b", archive)):
        words = "--images", images, "--masks", given, "--workers", 1, "--out", tmp_path / name
        assert typed(*words, *QUICK).exit_code == 0
    assert (tmp_path / "a/scores.csv").read_bytes() == (tmp_path / "b/scores.csv").read_bytes()


def test_processes_that_were_forked_read_an_archive_at_the_same_time():
    names = [row["file_name"] for row in index_of_v1()]
    read = partial(masks.read, canonical.TESTSET)
    alone = [read(name) for name in names]  # the archive is open when the workers begin
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read, names, chunksize=3) == alone


def test_the_index_in_an_archive_is_used(tmp_path):
    _, folder = folders(tmp_path)
    (folder / "test").mkdir()
    (folder / "0.png").rename(folder / "test/0.png")
    (folder / "test/metadata.csv").write_text("file_name,category,hole_ratio,border_distance\n0.png,mine,0.2,3\n")
    archive = tmp_path / "packed.zip"
    packed(folder, archive)
    assert masks.find_masks(archive).to_dict("records") == [
        {"mask": "test/0.png", "category": "mine", "hole_ratio": 0.2, "border_distance": 3}
    ]
    with pytest.raises(BadInput, match=r"packed\.zip has an index.*leave --polarity hole-black out"):
        masks.find_masks(archive, "hole-black")


def test_a_mask_that_changed_in_its_archive_is_not_scored(tmp_path):
    images, folder = folders(tmp_path)
    archive = tmp_path / "packed.zip"
    packed(folder, archive)
    pair = pairing.make_pairs(images, archive, CONFIG)[0]
    shutil.copy(folder / "3.png", folder / pair.mask)
    archive.unlink()
    packed(folder, archive)
    with pytest.raises(BadInput, match=f"packed.zip/{pair.mask} has changed"):
        load_pair(pair, Sources(images, archive), CONFIG)


def test_a_file_that_is_no_archive_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.zip").write_text("no zip")
    done = typed("--masks", tmp_path / "notes.zip", *QUICK)
    assert (
        done.exit_code == 2
        and "neither a folder nor a zip or tar" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )
