"""Which mask lies over which image in each protocol, and runs on pictures that have the names of its data set."""

import gzip
import hashlib
import re
from collections import Counter

import pytest

from evaluation import protocols, read_protocol
from evaluation.protocols import ALL, FOLDER, PER_CLASS
from evaluation.settings import PROTOCOLS
from maskgen.categories import CATEGORIES

# The pairings of version 1. They never change: a published number belongs to one of these.
FROZEN = {
    "places2": "a997addf582e5617b61568eb5f14db2a35f8eb9b1509c5b6fb1aec649087bfa7",
    "imagenet": "463070ea977a740343a5407d387cf7add0eacb5f522ebb81bdfaf7c5550798f9",
    "celebahq": "ef602e2b6fb29ca3fc9ec26a46d97a12f48f669892f2862cc0cde1197a96b584",
    "paris": "b238abf708e96d0da89b91b5ef3ac29bb4297be3424f992e33f52f25bc2abb1f",
}
MASKS = [f"{category}/{i:05d}" for category in CATEGORIES for i in range(PER_CLASS)]  # of the test set


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    return ALL[request.param]


# ---- the pairings ----


def test_the_pairing_in_the_package_is_the_frozen_one(protocol):
    data = gzip.decompress((FOLDER / f"{protocol.name}-v1.csv.gz").read_bytes())
    assert hashlib.sha256(data).hexdigest() == FROZEN[protocol.name] == protocol.sha256


def test_drawing_again_gives_the_same_pairing(protocol):
    assert protocols.draw(protocol) == list(protocols.read(protocol))


def test_every_mask_is_used_once_and_every_image_equally_often(protocol):
    rows = protocols.read(protocol)
    assert [mask for _, mask in rows] == MASKS
    assert set(Counter(image for image, _ in rows).values()) == {len(MASKS) // protocol.images}


def test_the_first_masks_of_each_class_use_the_images_equally_often_for_any_number_of_them(protocol):
    images = [image for image, _ in protocols.read(protocol)]
    uses = Counter(dict.fromkeys(set(images), 0))
    for n in range(PER_CLASS):
        uses.update(images[n::PER_CLASS])  # mask n of each class
        if n < 60 or n % 50 == 49:
            assert max(uses.values()) - min(uses.values()) <= 1


@pytest.mark.parametrize(
    ("name", "pattern", "first", "last"),
    [
        ("places2", r"Places365_val_([0-9]{8})\.jpg", 1, 36500),
        ("imagenet", r"ILSVRC2012_val_([0-9]{8})\.JPEG", 1, 50000),
        ("celebahq", r"(0|[1-9][0-9]*)\.jpg", 0, 29999),
        ("paris", r"([0-9]{3})_im\.png", 1, 100),
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


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000
