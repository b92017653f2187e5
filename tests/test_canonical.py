"""The masks that come with the package, how they were packed, and what `maskgen get` writes."""

import csv
import hashlib
import importlib.util
import io
import shutil
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from maskgen import canonical, get_masks, unpack
from maskgen.archives import read_file
from maskgen.categories import CATEGORIES
from maskgen.commands import maskgen
from maskgen.errors import BadInput
from maskgen.maskset import Masks, read_hole, read_index, read_recipe
from maskgen.publish import publish
from maskgen.sampler import MaskSampler
from maskgen.settings import GET, FillConfig, PublishConfig
from maskgen.testset import make_testset
from maskgen.training_set import augment_folder
from maskgen.verify import find_faults
from tests.rawmasks import write_raw

# SHA-256 of the indices of both parts, which have the SHA-256 of the pixels of each mask. A version never changes.
V1 = "a3833e8c75fcad48dada8244d5d5e4480b7176f20a84522f24235a6b3232208e"

SCRIPT = Path(__file__).parents[1] / "scripts" / "pack_canonical.py"
MASKS = ("testset", "raw")  # parts that are masks; tests/test_canonical_sequences.py has the sequences
FORMS = {"testset": "test", "raw": "train", "nvidia-order": "."}  # of PNG files, with the folder of the index


def quiet(line):
    """Where commands print lines."""


def index_of(path):
    return list(csv.DictReader(io.StringIO(read_file(path, "metadata.csv").decode())))


def packed_pixels_sha256(hole):
    return hashlib.sha256(np.packbits(hole).tobytes()).hexdigest()


def test_version_1_never_changes():
    indices = [read_file(canonical.path_of("v1", part), "metadata.csv") for part in ("testset", "raw")]
    assert hashlib.sha256(b"".join(indices)).hexdigest() == V1


@pytest.mark.parametrize("part", MASKS)
def test_every_packaged_mask_has_the_pixels_that_its_index_lists(part):
    masks = Masks(canonical.path_of("v1", part))
    with ThreadPoolExecutor(2) as pool:
        found = dict(
            zip(masks.names, pool.map(lambda i: packed_pixels_sha256(masks[i]), range(len(masks))), strict=True)
        )
    assert found == {row["file_name"]: row["pixels_sha256"] for row in index_of(masks.path)}


def test_the_packaged_test_set_has_as_many_masks_in_each_class():
    counts = Counter(row["category"] for row in index_of(canonical.TESTSET))
    assert set(counts) == set(CATEGORIES) and len(set(counts.values())) == 1


def test_every_packaged_mask_has_a_credited_video_with_a_licence():
    for part in MASKS:
        path = canonical.path_of("v1", part)
        recipe = read_recipe(path)
        assert recipe["licence"] == "CC-BY-4.0"
        assert {name for row in index_of(path) for name in row["source"].split(";")} == {
            source["name"] for source in recipe["sources"]
        }
        credits = (canonical.TESTSET.parent / "CREDITS.md").read_text()
        assert all(f"| {s['name']} | {s['source']} | {s['licence']} |" in credits for s in recipe["sources"])


def test_both_files_stay_below_20_megabytes():
    assert all(canonical.path_of("v1", part).stat().st_size < 20e6 for part in MASKS)


@pytest.mark.parametrize(("wrong", "words"), [(("v0",), "one of v1"), (("v1", "train"), "one of testset, raw")])
def test_unknown_versions_and_parts_are_refused(wrong, words):
    with pytest.raises(BadInput, match=words):
        canonical.path_of(*wrong)


@pytest.fixture(scope="module")
def pack():
    """The script that packs masks, as a module."""
    spec = importlib.util.spec_from_file_location("pack_canonical", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A test set with a mask of each class, its raw masks, and 24 for training, as the commands make them."""
    folder = tmp_path_factory.mktemp("made")
    raw = write_raw(folder / "raw")
    make_testset(raw, folder / "testset", FillConfig(per_category=1), workers=1, say=quiet)
    return folder / "testset", raw, write_raw(folder / "train", 24, "train")


@pytest.fixture(scope="module")
def packed(made, pack, tmp_path_factory):
    """The folder of the two files, with 12 test masks and 8 of the raw ones."""
    out = tmp_path_factory.mktemp("packed")
    pack.main([*map(str, made), str(out), "--raw-masks", "8"])
    return out


@pytest.fixture
def small(packed, monkeypatch, tmp_path):
    """The small files in place of the packaged ones."""
    monkeypatch.setattr(canonical, "path_of", lambda version, part="testset": packed / f"{part}.zip")
    monkeypatch.chdir(tmp_path)
    return packed


def test_packing_again_gives_the_same_bytes(made, pack, packed, tmp_path):
    pack.main([*map(str, made), str(tmp_path), "--raw-masks", "8"])
    for name in ("testset.zip", "raw.zip", "CREDITS.md"):
        assert (tmp_path / name).read_bytes() == (packed / name).read_bytes()


def test_pillow_and_opencv_read_each_packed_mask_as_the_png_that_was_packed(made, packed):
    with zipfile.ZipFile(packed / "testset.zip") as archive:
        for row in read_index(made[0] / "test").to_dict("records"):
            data = archive.read(row["file_name"].replace(".png", ".tif"))
            expected = cv2.imread(str(made[0] / "test" / row["file_name"]), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("L")), expected)
            assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), expected)


def test_the_index_of_a_packed_set_has_the_columns_of_the_set_and_hashes_of_pixels(made, packed):
    index = pd.DataFrame(index_of(packed / "testset.zip"))
    before = pd.read_csv(made[0] / "test" / "metadata.csv", dtype=str, keep_default_na=False)
    same = [name for name in before.columns if name not in ("file_name", "sha256")]
    assert index[same].equals(before[same]) and list(index.columns) == ["file_name", *same, "pixels_sha256"]
    for name, digest in zip(before["file_name"], index["pixels_sha256"], strict=True):
        assert digest == packed_pixels_sha256(read_hole(made[0] / "test" / name))


def test_raw_masks_are_chosen_one_from_each_of_equal_shares(pack, packed):
    chosen = pack.chosen_evenly(list(range(1000)), 10)
    assert [n // 100 for n in chosen] == list(range(10)) and len({n % 100 for n in chosen}) > 5
    assert pack.chosen_evenly(list(range(1000)), 10) == chosen and pack.chosen_evenly([3, 4], 2) == [3, 4]
    rows = index_of(packed / "raw.zip")
    assert Counter(row["source"] for row in rows) == {"clip0.mp4": 4, "clip1.mp4": 4}
    assert [row["file_name"] for row in rows[:4]] == [f"clip0/{i:04d}.tif" for i in range(4)]
    assert read_recipe(packed / "raw.zip")["counts"] == {"train": 8}


def test_a_changed_mask_is_not_packed(made, pack, tmp_path):
    testset = shutil.copytree(made[0], tmp_path / "testset")
    shutil.copy(testset / "test" / "free_0.1-0.2" / "00000.png", testset / "test" / "free_0.2-0.3" / "00000.png")
    with pytest.raises(BadInput, match=r"free_0.2-0.3/00000.png differs from the index"):
        pack.main([str(testset), str(made[1]), str(made[2]), str(tmp_path)])


@pytest.mark.parametrize("what", FORMS)
def test_get_writes_a_mask_set_that_verify_accepts(small, what):
    assert get_masks(what, workers=1, say=quiet) == (8 if what == "raw" else 12)
    folder = Path(GET[what])
    assert find_faults(folder, workers=1) == (8 if what == "raw" else 12, [])
    table = read_index(folder / FORMS[what])
    for name, digest in zip(table["file_name"], table["pixels_sha256"], strict=True):
        assert packed_pixels_sha256(read_hole(folder / FORMS[what] / name)) == digest
    packed = read_index(small / ("raw.zip" if what == "raw" else "testset.zip"))
    assert sorted(table["pixels_sha256"]) == sorted(packed["pixels_sha256"])
    assert "clip0.mp4 | a lake | CC-BY-4.0" in (folder / "CREDITS.md").read_text()


def test_the_test_set_is_the_one_that_was_packed(small, made):
    get_masks("testset", "again", workers=1, say=quiet)
    before = pd.read_csv(made[0] / "test" / "metadata.csv", dtype=str, keep_default_na=False)
    after = pd.read_csv("again/test/metadata.csv", dtype=str, keep_default_na=False)
    assert after.drop(columns="pixels_sha256").equals(before)  # with the SHA-256 of the PNG files
    assert read_recipe("again")["settings"] == read_recipe(made[0])["settings"]


def test_nvidias_order_has_blocks_by_ratio_and_first_the_free_masks(small):
    get_masks("nvidia-order", workers=1, say=quiet)
    table = read_index("masks/nvidia-order")
    assert list(table["file_name"]) == [f"{i:05d}.png" for i in range(12)]
    ratios = ("0.01-0.1", "0.1-0.2", "0.2-0.3", "0.3-0.4", "0.4-0.5", "0.5-0.6")
    assert list(table["category"]) == [f"{side}_{ratio}" for ratio in ratios for side in ("free", "interior")]
    assert list(table["original"]) == [f"{name}/00000.png" for name in table["category"]]


def test_the_archives_are_those_of_a_published_set(small):
    pytest.importorskip("pyarrow")
    for what in ("testset", "webdataset", "parquet"):
        get_masks(what, workers=1, say=quiet)
        assert find_faults(GET[what], workers=1) == (12, [])
    publish(Path("masks/testset"), Path("dist"), PublishConfig())
    published = Path("dist/archives")
    for tar in (published / "webdataset").iterdir():
        assert (Path("masks/webdataset") / tar.name).read_bytes() == tar.read_bytes()
    assert Path("masks/parquet", unpack.PARQUET).read_bytes() == (published / "masks.parquet").read_bytes()
    assert {path.name for path in Path("masks/webdataset").glob("*.tar")} == {f"{name}.tar" for name in CATEGORIES}


def test_what_get_writes_is_loaded_by_datasets_and_webdataset(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets, webdataset = pytest.importorskip("datasets"), pytest.importorskip("webdataset")
    for what in ("raw", "parquet", "webdataset"):
        get_masks(what, workers=1, say=quiet)
    raw = datasets.load_dataset(
        "imagefolder", data_dir="masks/raw", split="train", drop_labels=True, cache_dir=tmp_path
    )
    table = datasets.load_dataset("masks/parquet", split="test", cache_dir=tmp_path)
    tars = sorted(map(str, Path("masks/webdataset").glob("*.tar")))
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("l8")
    pairs = [(np.array(row["image"]), row) for part in (raw, table) for row in part]
    pairs += [(sample["png"], sample["json"]) for sample in samples]
    assert len(pairs) == 8 + 12 + 12
    for levels, row in pairs:
        assert packed_pixels_sha256(levels == 255) == row["pixels_sha256"]


def test_a_published_version_1_is_complete_for_mlcroissant(small):
    mlcroissant = pytest.importorskip("mlcroissant")
    get_masks("testset", workers=1, say=quiet)
    warnings = publish(Path("masks/testset"), Path("dist"), PublishConfig(url="https://masks.example/v1", archives=()))
    assert warnings == ["1 of 2 videos have no stated licence, such as clip1.mp4: add them with --sources"]
    loaded = mlcroissant.Dataset(jsonld="dist/croissant.json")
    assert not loaded.metadata.ctx.issues.errors and not loaded.metadata.ctx.issues.warnings
    rows = list(loaded.records("masks"))
    assert len(rows) == 12 and {len(row["masks/pixels_sha256"]) for row in rows} == {64}
    assert all(
        "clip0.mp4 | a lake | CC-BY-4.0" in Path("dist", name).read_text() for name in ("LICENSE", "datasheet.md")
    )


@pytest.mark.parametrize("what", ["testset", "webdataset"])
def test_an_interrupted_get_is_continued(small, monkeypatch, what):
    encode, written = unpack.encode, []

    def stop_at_the_seventh(hole):
        written.append(hole)
        if len(written) == 7:
            raise KeyboardInterrupt
        return encode(hole)

    monkeypatch.setattr(unpack, "BATCH", 2)
    monkeypatch.setattr(unpack, "encode", stop_at_the_seventh)
    with pytest.raises(KeyboardInterrupt):
        get_masks(what, "stopped", workers=1, say=quiet)
    get_masks(what, "stopped", workers=1, say=quiet)
    assert len(written) < 7 + 12  # some were not made again
    get_masks(what, "whole", workers=1, say=quiet)
    files = {path.relative_to("whole") for path in Path("whole").rglob("*") if path.is_file()}
    assert files == {path.relative_to("stopped") for path in Path("stopped").rglob("*") if path.is_file()}
    assert all((Path("whole") / name).read_bytes() == (Path("stopped") / name).read_bytes() for name in files)


@pytest.mark.parametrize(("what", "pattern"), [("testset", "*.png"), ("webdataset", "*.tar"), ("parquet", "*.parquet")])
def test_a_changed_or_missing_file_is_made_again(small, what, pattern):
    if what == "parquet":
        pytest.importorskip("pyarrow")
    get_masks(what, "got", workers=1, say=quiet)
    files = sorted(Path("got").rglob(pattern))
    before = [path.read_bytes() for path in files]
    files[0].write_bytes(b"damaged")
    files[-1].unlink(missing_ok=True)
    get_masks(what, "got", workers=1, say=quiet)
    assert [path.read_bytes() for path in files] == before and find_faults("got", workers=1) == (12, [])


def test_a_complete_folder_is_left_alone(small):
    said = []
    get_masks("raw", "got", workers=1, say=said.append)
    assert not said
    get_masks("raw", "got", workers=1, say=said.append)
    assert said == ["got is already complete"]


def test_other_folders_and_wishes_are_refused(small):
    get_masks("raw", "got", workers=1, say=quiet)
    with pytest.raises(BadInput, match="what was raw, is testset"):
        get_masks("testset", "got", workers=1, say=quiet)
    with pytest.raises(BadInput, match=r"what is one of testset, raw, .*, parquet, sequences, got 'test'"):
        get_masks("test")


def test_a_damaged_package_is_noticed(small, packed, tmp_path, monkeypatch):
    with zipfile.ZipFile(packed / "testset.zip") as archive, zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        names = archive.namelist()
        for name, source in zip(names, [names[1], *names[1:]], strict=True):
            other.writestr(name, archive.read(source))
    monkeypatch.setattr(canonical, "path_of", lambda *_: tmp_path / "other.zip")
    with pytest.raises(BadInput, match="differs from the index: install the package again"):
        get_masks("testset", workers=1, say=quiet)
    assert any("pixels_sha256 is" in fault for fault in find_faults(tmp_path / "other.zip", workers=1)[1])


def test_verify_finds_what_is_missing_twice_or_too_many_in_an_archive(packed, tmp_path):
    whole = zipfile.ZipFile(packed / "testset.zip")
    names = [name for name in whole.namelist() if name.endswith(".tif")]
    index = whole.read("metadata.csv").decode()
    row = next(line for line in index.splitlines() if line.startswith(names[0]))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        for name in [*names[:-1], "recipe.json"]:
            other.writestr(name, whole.read(name))
        other.writestr("more.tif", whole.read(names[0]))
        other.writestr("metadata.csv", index + row + "\n")
    number, faults = find_faults(tmp_path / "other.zip", workers=1)
    assert number == 13 and {f"{names[0]}: listed twice", f"{names[-1]}: listed, but not there"} <= set(faults)
    assert "more.tif: there, but not listed" in faults and find_faults(packed / "testset.zip", workers=1) == (12, [])


def test_augmented_masks_credit_the_videos_of_packed_raw_masks(small):
    augment_folder(MaskSampler(small / "raw.zip", 64), "augmented", 2, workers=1, say=quiet)
    assert read_recipe("augmented")["sources"][0]["licence"] == "CC-BY-4.0"


def test_augment_takes_the_packaged_raw_masks_where_there_are_no_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in ([], ["v1", "named"]):
        result = CliRunner().invoke(maskgen, ["augment", *arguments, "--count", "2", "--size", "64", "-j1"])
        assert result.exit_code == 0 and "2 masks in" in result.stdout
    masks = [read_hole(Path(folder, "train/0000/000001.png")) for folder in ("masks/augmented", "named")]
    assert np.array_equal(*masks) and np.array_equal(masks[0], MaskSampler(size=64)[1])
    assert all(source["licence"] for source in read_recipe("named")["sources"])


def test_the_commands_get_and_verify(small):
    result = CliRunner().invoke(maskgen, ["get", "testset", "my masks", "-j1"])
    assert result.stdout == "12 masks in my masks, all with the pixels of v1\n"
    assert CliRunner().invoke(maskgen, ["get", "-j1"]).exit_code == 0 and Path("masks/testset/test").is_dir()
    assert "12 masks, no faults" in CliRunner().invoke(maskgen, ["verify", "v1", "-j1"]).stdout
    wrong = CliRunner().invoke(maskgen, ["get", "tests"])
    assert wrong.exit_code == 2 and "'nvidia-order'" in wrong.stderr
