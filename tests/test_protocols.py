"""Which mask lies over which image in each protocol, and runs on pictures that have the names of its data set."""

import gzip
import hashlib
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from evaluation import evaluate, protocols, read_protocol
from evaluation.commands import evaluate as command
from evaluation.protocol_pairs import protocol_pairs
from evaluation.protocols import ALL, FOLDER
from evaluation.settings import PROTOCOLS
from maskgen.categories import CATEGORIES
from maskgen.errors import BadInput, InputWarning

# The pairings of version 1. They never change: a published number belongs to one of these.
FROZEN = {
    "places2": "a997addf582e5617b61568eb5f14db2a35f8eb9b1509c5b6fb1aec649087bfa7",
    "imagenet": "463070ea977a740343a5407d387cf7add0eacb5f522ebb81bdfaf7c5550798f9",
    "celebahq": "ef602e2b6fb29ca3fc9ec26a46d97a12f48f669892f2862cc0cde1197a96b584",
    "paris": "b238abf708e96d0da89b91b5ef3ac29bb4297be3424f992e33f52f25bc2abb1f",
    "reference": "b28532829276de9fc58823d80144adda551dd3f0c55213fe8d2257a1c23672d9",
}


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return ALL[request.param]


def each(protocol):
    """Masks of a class: all of the test set, or the first 100."""
    return 100 if protocol.name == "reference" else 1000


# ---- the pairings ----


def test_the_pairing_in_the_package_is_the_frozen_one(protocol):
    data = gzip.decompress((FOLDER / f"{protocol.name}-v1.csv.gz").read_bytes())
    assert hashlib.sha256(data).hexdigest() == FROZEN[protocol.name] == protocol.sha256


def test_drawing_again_gives_the_same_pairing(protocol):
    assert protocols.draw(protocol) == list(protocols.read(protocol))


def test_every_mask_is_used_once_and_every_image_equally_often(protocol):
    rows = protocols.read(protocol)
    assert [mask for _, mask in rows] == [
        f"{category}/{i:05d}" for category in CATEGORIES for i in range(each(protocol))
    ]
    assert set(Counter(image for image, _ in rows).values()) == {len(rows) // protocol.images}


def test_the_first_masks_of_each_class_use_the_images_equally_often_for_any_number_of_them(protocol):
    images = [image for image, _ in protocols.read(protocol)]
    uses = Counter(dict.fromkeys(set(images), 0))
    for n in range(each(protocol)):
        uses.update(images[n :: each(protocol)])  # mask n of each class
        if n < 60 or n % 50 == 49:
            assert max(uses.values()) - min(uses.values()) <= 1


@pytest.mark.parametrize(
    ("name", "pattern", "first", "last"),
    [
        ("places2", r"Places365_val_([0-9]{8})\.jpg", 1, 36500),
        ("imagenet", r"ILSVRC2012_val_([0-9]{8})\.JPEG", 1, 50000),
        ("celebahq", r"(0|[1-9][0-9]*)\.jpg", 0, 29999),
        ("paris", r"([0-9]{3})_im\.png", 1, 100),
        ("reference", r"([1-9][0-9]*)\.jpg", 33162, 7266811),
    ],
)
def test_the_images_have_names_of_their_data_set(name, pattern, first, last):
    for image in read_protocol(name)["image"]:
        assert first <= int(re.fullmatch(pattern, image)[1]) <= last


def test_a_face_has_masks_of_four_classes_two_interior_and_two_free_small_and_large():
    table = read_protocol("celebahq")
    for _, group in table.groupby("image"):
        sides = Counter(category.split("_")[0] for category in group["category"])
        lows = [float(category.split("_")[1].split("-")[0]) for category in group["category"]]
        assert sides == {"interior": 2, "free": 2} and min(lows) < 0.3 <= max(lows)


def test_a_street_has_ten_masks_of_every_class():
    counts = read_protocol("paris").groupby(["image", "category"]).size()
    assert len(counts) == 100 * 12 and set(counts) == {10}


def test_the_documentation_states_the_hashes_and_the_first_row():
    page = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text()
    assert all(f"| `{name}`, v1 | `{sha256}` |" in page for name, sha256 in FROZEN.items())
    assert ",".join(protocols.read(ALL["places2"])[0]) in page


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


# ---- runs ----

QUICK = "--metric psnr --workers 1 --no-pictures --method grey".split()


def typed(*words):
    return CliRunner().invoke(command, [str(word) for word in words])


def add_image(path, i=0, shape=(260, 300)):
    """Write a picture of one colour, another for each i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(path.suffix.lower(), np.full((*shape, 3), (i % 256, i // 256, 99), np.uint8))[1]
    path.write_bytes(data.tobytes())


def data_set(folder, name, per_class=1, shape=(260, 300)):
    """Write the images that the first masks of each class lie over. Returns their names in the order of the pairs."""
    table = read_protocol(name)
    images = list(dict.fromkeys(table.groupby("category", sort=False).head(per_class)["image"]))
    for i, image in enumerate(images):
        add_image(folder / image, i, shape)
    return images


def test_every_result_names_the_protocol_and_how_much_of_it_was_scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(Path("photos"), "paris")
    done = typed(*QUICK, "--protocol", "paris", "--images", "photos", "--per-class", 1, "--paper")
    assert done.exit_code == 0, done.output
    words = "protocol paris, v1 (sha256 b238abf7), 256 px, 12 of 12,000 pairs (the first mask of each class)"
    lines = done.stdout.splitlines()
    assert lines[:2] == ["masks: 12 of v1; photos: 12 of photos", words]
    assert lines[-1] == f"partial run: {words}; its numbers are not those of the whole protocol"
    for name in ("table.md", "report.html"):
        assert words in Path("results", name).read_text(), name
    assert words in done.stdout.split("psnr (dB)")[1].splitlines()[0]
    assert words in Path("results/table.tex").read_text().split("caption{")[1]
    table = pd.read_csv("results/table.csv", keep_default_na=False)
    assert set(zip(table["source"], table["protocol"], strict=True)) == {("this run", words), ("published", "")}
    settings = json.loads(Path("results/recipe.json").read_text())["settings"]
    record = settings["protocol"]
    assert (record["name"], record["version"], record["sha256"]) == ("paris", "v1", FROZEN["paris"])
    assert (record["pairs"], record["of"], settings["size"]) == (12, 12000, [256, 256])
    pairs = pd.read_csv("results/pairs.csv", dtype=str)
    table = read_protocol("paris").iloc[[int(pair) for pair in pairs["pair"]]]
    assert pairs["image"].tolist() == table["image"].tolist() and pairs["pair"].tolist()[:2] == ["00000", "01000"]
    assert [Path(mask).with_suffix("").as_posix() for mask in pairs["mask"]] == table["mask"].tolist()


def test_a_whole_run_says_how_to_cite_it_and_a_run_without_one_image_is_no_whole_run(tmp_path, monkeypatch):
    rows = [row for i, row in enumerate(protocols.read(ALL["paris"])) if i % 1000 == 0]
    monkeypatch.setattr(protocols, "read", lambda protocol: rows)  # as if the protocol had one mask of each class
    images = data_set(tmp_path / "photos", "paris")
    words = [*QUICK, "--protocol", "paris", "--images", tmp_path / "photos", "--out"]
    done = typed(*words, tmp_path / "whole")
    text = "protocol paris, v1 (sha256 b238abf7), 256 px,"
    cite = "cite its numbers as v1/paris, composited, 256 px"
    assert done.stdout.splitlines()[-1] == f"complete run: {text} all 12 pairs; {cite}"
    (tmp_path / "photos" / images[3]).unlink()
    done = typed(*words, tmp_path / "partial", "--raw")
    assert f"warning: 1 of 12 images of paris are not in {tmp_path / 'photos'}: {images[3]}" in done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"partial run: {text} 11 of 12 pairs (1 of 12 images missing)")
    assert "cite" not in done.stdout
    recipe = json.loads((tmp_path / "partial" / "recipe.json").read_text())
    assert recipe["settings"]["protocol"]["missing_images"] == 1
    assert len(set(pd.read_csv(tmp_path / "partial" / "scores.csv")["image"])) == 11


@pytest.mark.parametrize(
    ("name", "image", "file"),
    [
        ("places2", "Places365_val_{:08d}.jpg", "val_large/Places365_val_{:08d}.jpg"),
        ("places2", "Places365_val_{:08d}.jpg", "places365_VAL_{:08d}.PNG"),
        ("imagenet", "ILSVRC2012_val_{:08d}.JPEG", "val/n01440764/ILSVRC2012_val_{:08d}.JPEG"),
        ("imagenet", "ILSVRC2012_val_{:08d}.JPEG", "ILSVRC2012_val_{:08d}_n01440764.jpg"),
        ("celebahq", "{}.jpg", "CelebA-HQ-img/{}.jpg"),
        ("celebahq", "{}.jpg", "{:05d}.png"),
        ("celebahq", "{}.jpg", "imgHQ{:05d}.webp"),
        ("paris", "{:03d}_im.png", "paris_eval_gt/{:03d}_im.png"),
    ],
)
def test_an_image_is_found_at_any_depth_and_with_any_ending(tmp_path, name, image, file):
    first = read_protocol(name)["image"][0]
    number = int(re.search(r"(\d+)(?:_im)?\.", first)[1])
    assert image.format(number) == first
    add_image(tmp_path / file.format(number), shape=(512, 512))
    with pytest.warns(InputWarning, match="images of"):
        found = protocol_pairs(name, tmp_path, (256, 256), 1, out=tmp_path / "out")
    assert {pair.image for pair in found.pairs} == {file.format(number)}


def test_other_pictures_in_the_folder_do_not_matter(tmp_path):
    images = data_set(tmp_path, "imagenet")
    found = protocol_pairs("imagenet", tmp_path, (512, 512), 1, out=tmp_path / "out")
    for name in ("train/n01440764/n01440764_10026.JPEG", "ILSVRC2012_test_00000001.JPEG", "x.png"):
        add_image(tmp_path / name)
    with_others = protocol_pairs("imagenet", tmp_path, (512, 512), 1, out=tmp_path / "out")
    assert with_others.pairs == found.pairs and [pair.image for pair in found.pairs] == images


def test_the_same_files_in_another_layout_have_the_same_hash(tmp_path):
    def hash_of(folder):
        found = protocol_pairs("imagenet", folder, (512, 512), 1, out=tmp_path / "out")
        return found.experiment["protocol"]["images_sha256"]

    images = data_set(tmp_path / "flat", "imagenet")
    for i, image in enumerate(images):
        add_image(tmp_path / "nested" / f"class{i % 3}" / image, i)
    assert hash_of(tmp_path / "flat") == hash_of(tmp_path / "nested")
    add_image(tmp_path / "nested" / "class0" / images[0], 1000)
    assert hash_of(tmp_path / "flat") != hash_of(tmp_path / "nested")


# ---- what is refused ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--masks photos", "--protocol says which mask lies over which image: leave out --masks"),
        ("--pairs photos", "leave out --pairs"),
        ("--seed 7", "leave out --seed"),
        ("--polarity hole-white", "leave out --polarity"),
        ("--threshold 128", "leave out --threshold"),
        ("--size 128", "--protocol imagenet is defined at 512 or 256 px, got --size 128x128"),
        ("--size 256x512", "--protocol imagenet is defined at 512 or 256 px, got --size 256x512"),
        ("--size native", "--protocol imagenet is defined at 512 or 256 px, got --size native"),
        ("--images nowhere", "no such folder: nowhere"),
        (
            "--images empty",
            "no image of --protocol imagenet in empty: expected ILSVRC2012_val_00000001.JPEG to "
            "ILSVRC2012_val_00050000.JPEG, at any depth and with any ending, found no picture",
        ),
        ("--images other", "with any ending, found cat.jpg and 1 others"),
        ("--images broken", "2 images cannot be read; the first: broken/ILSVRC2012_val_"),
        ("--images twice", "twice, a/ILSVRC2012_val_"),
        ("--images small", "the images in small are 256 x 256 px at most, a reduced copy: --protocol imagenet takes"),
    ],
)
@pytest.mark.parametrize("name", ["", "pairs"])
def test_what_a_protocol_cannot_use_gives_one_line(words, message, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = data_set(Path("photos"), "imagenet")
    Path("empty").mkdir()
    for path in ("other/cat.jpg", "other/dog.jpg", f"twice/a/{images[0]}", f"twice/b/{images[0]}"):
        add_image(Path(path))
    data_set(Path("small"), "imagenet", shape=(256, 256))
    data_set(Path("broken"), "imagenet")
    for image in images[2:4]:
        Path("broken", image).write_bytes(Path("broken", image).read_bytes()[:200])
    if name and words.startswith("--pairs"):
        return
    before = set(Path().iterdir())
    options = ["--protocol", "imagenet", "--images", "photos", "--per-class", 1, *words.split()]
    done = typed(*([name] if name else []), *options)
    assert done.exit_code == 2 and message in done.stderr and not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert set(Path().iterdir()) == before


def test_without_images_the_message_says_which_folder_is_meant():
    done = typed("--protocol", "places2")
    assert done.exit_code == 2 and len(done.output.splitlines()) == 1
    assert "--protocol places2 needs --images: the folder of Places2, validation" in done.stderr
    assert "with Places365_val_00000001.jpg to Places365_val_00036500.jpg" in done.stderr


def test_faces_that_are_counted_otherwise_are_not_taken_for_those_of_the_protocol(tmp_path):
    first = int(read_protocol("celebahq")["image"][0].removesuffix(".jpg"))
    add_image(tmp_path / "celeba" / f"{first:06d}.jpg", shape=(512, 512))
    with pytest.raises(BadInput, match=rf"expected 0.jpg to 29999.jpg.*found {first:06d}.jpg$"):
        protocol_pairs("celebahq", tmp_path / "celeba", (512, 512), 1, out=tmp_path / "out")
    for number in (first, 30000):
        add_image(tmp_path / "from one" / f"{number:05d}.jpg", shape=(512, 512))
    with pytest.raises(BadInput, match=r"30000.jpg: --protocol celebahq counts from 0, so these files count from 1"):
        protocol_pairs("celebahq", tmp_path / "from one", (512, 512), 1, out=tmp_path / "out")


def test_faces_of_256_px_are_scored_at_256_px_only(tmp_path):
    data_set(tmp_path, "celebahq", shape=(256, 256))
    assert len(protocol_pairs("celebahq", tmp_path, (256, 256), 1, out=tmp_path / "out").pairs) == 12
    with pytest.raises(BadInput, match="256 x 256 px at most, a reduced copy"):
        protocol_pairs("celebahq", tmp_path, (512, 512), 1, out=tmp_path / "out")


def test_a_pairing_that_was_changed_in_the_package_is_refused(tmp_path, monkeypatch):
    data = protocols.as_csv(protocols.draw(ALL["paris"])).replace(b"001_im", b"002_im")
    (tmp_path / "paris-v1.csv.gz").write_bytes(gzip.compress(data))
    monkeypatch.setattr(protocols, "FOLDER", tmp_path)
    protocols.read.cache_clear()
    with pytest.raises(BadInput, match="has changed: install irregular-masks again"):
        read_protocol("paris")


# ---- from Python, and pairs for another program ----


def test_python_takes_the_same_options(tmp_path):
    data_set(tmp_path, "paris")
    result = evaluate(["grey"], tmp_path, protocol="paris", per_class=1, metrics=["psnr"], workers=1)
    assert "12 of 12,000 pairs" in str(result) and set(result.table["protocol"].str[:18]) == {"protocol paris, v1"}
    arrays = [np.zeros((64, 64, 3), np.uint8)], [np.ones((64, 64), bool)]
    with pytest.raises(BadInput, match="leave out --masks"):
        evaluate(["grey"], *arrays, protocol="paris")
    with pytest.raises(BadInput, match="--protocol paris needs --images"):
        evaluate(["grey"], arrays[0], protocol="paris")
    with pytest.raises(
        BadInput, match="protocol is one of places2, imagenet, celebahq, paris, reference, got 'places'"
    ):
        evaluate(["grey"], tmp_path, protocol="places")


def test_pairs_of_a_protocol_are_scored_under_its_name_wherever_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(Path("photos"), "imagenet", per_class=2)
    words = "--protocol imagenet --images photos --per-class 2 --size 256".split()
    direct = typed(*QUICK, *words, "--out", "direct")
    done = typed("pairs", *words, "--white", "valid", "--out", "pairs")
    assert done.exit_code == 0 and "protocol imagenet, v1 (sha256 463070ea), 256 px, 24 of 12,000 pairs" in done.stdout
    Path("photos").rename("gone")
    Path("pairs").rename("moved")
    hint = done.stdout.splitlines()[-1]
    assert shlex.split(hint)[-2] == "--pairs"
    again = typed(*QUICK, "--pairs", "moved", "--out", "again")
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines()[-1] == direct.stdout.splitlines()[-1]
    recipes = [json.loads(Path(name, "recipe.json").read_text()) for name in ("direct", "again")]
    assert recipes[0]["settings"]["protocol"] == recipes[1]["settings"]["protocol"]
    scores = [pd.read_csv(Path(name, "scores.csv"))["psnr"].tolist() for name in ("direct", "again")]
    assert scores[0] == scores[1]
    same = typed(*QUICK, "--pairs", "direct", "--images", "gone", "--out", "same")
    assert same.stdout.splitlines()[-1] == direct.stdout.splitlines()[-1]


def test_a_list_of_pairs_that_was_edited_is_no_longer_the_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_set(Path("photos"), "imagenet")
    typed("pairs", *"--protocol imagenet --images photos --per-class 1 --size 256".split())
    text = Path("pairs/pairs.csv").read_text()
    lines = text.splitlines(keepends=True)
    Path("pairs/pairs.csv").write_text("".join(lines[:-1]))
    done = typed(*QUICK, "--pairs", "pairs")
    assert "11 of 12,000 pairs (the first mask of each class; 1 of 12 images missing)" in done.stdout.splitlines()[-1]
    other = lines[1].replace(read_protocol("imagenet")["image"][0], read_protocol("imagenet")["image"][1])
    Path("pairs/pairs.csv").write_text("".join([lines[0], other, *lines[2:]]))
    done = typed(*QUICK, "--pairs", "pairs", "--out", "other")
    assert done.exit_code == 2 and "the pair 00000" in done.stderr and "is not of the protocol imagenet" in done.stderr
    Path("pairs/pairs.csv").write_text(text)
    done = typed(*QUICK, "--pairs", "pairs", "--size", 512, "--out", "other")
    assert done.exit_code == 2 and "leave out --size" in done.stderr
