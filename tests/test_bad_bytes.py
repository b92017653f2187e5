"""Damaged and hostile files: refused with one line, or read; never another exception."""

import io
import json
import pickle
import tarfile
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from films import write_video
from rawmasks import streaks, write_raw
from small_run import SIDE, folders, score

from evaluation import listed, pairing
from evaluation.methods.external import Folder
from evaluation.settings import BenchmarkConfig
from maskgen import maskset
from maskgen.errors import BadInput
from maskgen.extraction import task, video
from maskgen.publish import publish
from maskgen.runtime import files, images
from maskgen.sampler import MaskSampler
from maskgen.settings import ExtractConfig, FillConfig, PublishConfig
from maskgen.testset import make_testset
from maskgen.training_set import augment_folder
from maskgen.verify import find_faults
from pconv_model import checkpoints, features, foreign
from pconv_model.settings import NetConfig, TrainConfig
from pconv_model.state import TrainingState
from pconv_model.torch_files import torch_file
from pconv_model.unet import build

SMALL = NetConfig(width=0.05, depth=2)


def refused_or_read(read, *arguments):
    """Whether a reader refuses; a result is well too, any other exception is not."""
    try:
        read(*arguments)
    except BadInput as error:
        assert str(error)
        return True
    return False


def read_all(path):
    masks = maskset.Masks(path)
    return [masks[i] for i in range(len(masks))]


def spoilt(path, places, value=0xFF):
    """Yield with one byte of the file after the other turned into another; at the end it is whole again."""
    whole = path.read_bytes()
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ value]) + whole[at + 1 :])
        yield at
    path.write_bytes(whole)


def test_a_zip_with_any_byte_damaged_is_read_or_refused(tmp_path):
    path = tmp_path / "masks.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", maskset.encode(streaks(0, 64)))
    size = path.stat().st_size
    refused = [refused_or_read(read_all, path) for _ in spoilt(path, range(size))]
    assert sum(refused) > 50 and not refused_or_read(read_all, path)


def test_a_nameless_file_in_a_zip_is_no_mask(tmp_path):
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        archive.writestr("0.png", maskset.encode(streaks(0, 64)))
        archive.writestr("x", b"nameless")
        archive.infolist()[1].filename = ""  # in the directory at the end
    assert maskset.Masks(tmp_path / "masks.zip").names == ["0.png"]


@pytest.mark.parametrize("way", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_truncated_anywhere_is_read_or_refused(tmp_path, way):
    path, data = tmp_path / "masks.tar", maskset.encode(streaks(0, 64))
    with tarfile.open(path, way) as archive:
        entry = tarfile.TarInfo("0.png")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    whole = path.read_bytes()
    refused = []
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        refused.append(refused_or_read(read_all, path))
    assert sum(refused) > 20  # what is missing at the very end is only padding


def test_a_picture_that_claims_an_absurd_size_is_unreadable_everywhere(tmp_path):
    data = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0") + 5  # height and width in the start of frame
    data[at : at + 4] = (65_500).to_bytes(2, "big") * 2
    (tmp_path / "0.jpg").write_bytes(data)
    assert video.FolderReader(tmp_path).read(0) is None
    for read in (maskset.read_hole, images.read, lambda path: Folder(path.parent)(path.stem, None, None)):
        with pytest.raises(BadInput):
            read(tmp_path / "0.jpg")


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw", 6)


def edit(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"clip0/000000", b"../../000000"),
        (b"clip0/000000", b"/clip0/000000"),
        (b"clip0/000000", b"clip0/\x00000"),
        (b"file_name", b"file_mane"),
        (b"clip0.mp4", b"clip\xb9.mp4"),
    ],
)
def test_a_damaged_index_is_refused(raw, old, new):
    edit(raw / "test" / "metadata.csv", old, new)
    with pytest.raises(BadInput, match=r"metadata\.csv"):
        maskset.read_index(raw / "test")


def test_a_folder_whose_parts_are_mask_sets_names_them(raw):
    with pytest.raises(BadInput, match=r"read one of its parts, .*raw/test$"):
        maskset.read_index(raw)
    with pytest.raises(BadInput, match=r"`maskgen bin .*` measures any folder$"):
        maskset.read_index(raw / "test" / "clip0")


@pytest.mark.parametrize("value", ["", "many", "nan", "-1", "1e999"])
def test_a_measure_that_is_no_number_is_refused_with_its_mask(raw, value):
    index = raw / "test" / "metadata.csv"
    rows = files.read_rows(index)
    rows[2]["hole_ratio"] = value
    maskset.write_index(raw / "test", rows)
    with pytest.raises(BadInput, match=f"hole_ratio of {rows[2]['file_name']}"):
        pairing.find_masks(raw)


def test_verify_names_the_faults_of_a_damaged_index(raw):
    index = raw / "test" / "metadata.csv"
    lines = index.read_text().splitlines()
    lines[1] = lines[1].split(",")[0]  # a row cut short
    lines[2] = "x" * 5000 + lines[2]  # a name that no file can have
    lines[3] += ",more,than,columns"
    index.write_text("\n".join(lines) + "\n")
    _, faults = find_faults(raw, workers=1)
    assert any("hole_ratio" in fault for fault in faults) and any("not there" in fault for fault in faults)
    index.write_bytes(index.read_bytes() + b"\xb9\n")
    with pytest.raises(BadInput, match="not a table that can be read"):
        find_faults(raw, workers=1)


def test_damaged_checksums_are_faults(raw):
    files.write_checksums(raw)
    with (raw / files.CHECKSUMS).open("ab") as file:
        file.write(b"\xb2\xff\x00  ../out\n" + b"0" * 64 + b"  " + b"y" * 5000 + b"\n")
    _, faults = find_faults(raw, workers=1)
    assert "checksums.sha256: ../out leads out of the mask set" in faults and len(faults) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"settings": 1},
        {"settings": []},
        {"settings": {"edges": [0.2, 0.1]}},
        {"settings": {"edges": "abc"}},
        {"settings": {"edges": [0.1, 10**30]}},
        {"settings": {"border": None}},
        {"counts": []},
        {"counts": 3},
        {"sources": 5},
        {"sources": {"name": "clip"}},
        {"sources": [None]},
        {"sources": [{"sha256": "0"}]},
        {"sources": [{"name": ["clip"]}]},
    ],
)
def test_a_recipe_of_the_wrong_kind_is_refused(raw, change):
    (raw / "recipe.json").write_text(json.dumps({"settings": {}, "sources": [], "counts": {}} | change))
    with pytest.raises(BadInput, match=r"recipe\.json"):
        find_faults(raw, workers=1)


def test_training_masks_with_a_damaged_recipe_are_not_changed(tmp_path):
    write_raw(tmp_path / "raw", 6, "train")
    sampler = MaskSampler(tmp_path / "raw", size=64)
    augment_folder(sampler, tmp_path / "out", 2, workers=1)
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    (tmp_path / "out" / "recipe.json").write_text(json.dumps({**recipe, "count": "two"}))
    with pytest.raises(BadInput, match="count was two, is 2"):
        augment_folder(sampler, tmp_path / "out", 2, workers=1)


def test_the_result_file_of_a_task_is_made_again_if_any_byte_changed(tmp_path):
    """As after a power cut: a file of the right length and name, with holes in it."""
    write_video(tmp_path / "film.avi", 6)
    offered, config = tuple((frame, 1, 0) for frame in range(4)), ExtractConfig(size=64, min_area=1, min_ratio=0)
    piece = task.Task(tmp_path / "film.avi", offered, 4, ((16, 0, 96),), (96, 128), config, tmp_path / "piece.npz")
    task.extract_masks(piece)
    whole, wanted = piece.result.read_bytes(), task.read_candidates(piece.result)
    assert len(wanted) == 4
    for first in range(0, len(whole), 512):
        piece.result.write_bytes(whole[:first] + bytes(len(whole[first : first + 512])) + whole[first + 512 :])
        task.extract_masks(piece)
        assert task.read_candidates(piece.result) == wanted, f"zeros from {first}"


@pytest.fixture
def testset(tmp_path):
    """Twelve masks, one of each class, and the raw masks they are made of."""
    config = FillConfig(per_category=1)
    make_testset(write_raw(tmp_path / "raw", 12), tmp_path / "set", config, workers=1)
    return tmp_path / "raw", tmp_path / "set", config


def test_masks_of_damaged_journal_lines_are_made_again(testset):
    raw, out, config = testset
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    rows = files.read_rows(out / "test" / "metadata.csv")
    for broken in ({}, [], 3, {**rows[-1], "raw": None}, {**rows[-1], "attempt": ""}, {**rows[-1], "clipped": "much"}):
        (out / ".progress").mkdir()
        (out / "recipe.json").rename(out / ".progress" / "recipe.json")
        lines = "".join(json.dumps(row) + "\n" for row in [*rows[:-1], broken])
        (out / ".progress" / "made.jsonl").write_text(lines + '\x00\n{"file_name": "cut o')
        make_testset(raw, out, config, workers=1)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_set_whose_index_leads_out_of_its_folder_is_not_published(testset, tmp_path):
    _, out, _ = testset
    edit(out / "test" / "metadata.csv", b"interior_0.01-0.1/00000.png", b"../../../outside.png")
    with pytest.raises(BadInput, match="leads out"):
        publish(out, tmp_path / "dist", PublishConfig(archives=()))
    assert not (tmp_path / "dist").exists() and not (tmp_path / "outside.png").exists()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("category", "../../up"),
        ("pair", "../00000"),
        ("image", "/etc/passwd"),
        ("mask", "../masks/0.png"),
        ("hole_ratio", "much"),
        ("border_distance", ""),
    ],
)
def test_damaged_pairs_are_refused(tmp_path, column, value):
    images, masks = folders(tmp_path)
    pairs = pairing.make_pairs(images, masks, BenchmarkConfig(size=(SIDE, SIDE)))
    (tmp_path / "pairs.csv").write_bytes(listed.pairs_csv(pairs))
    assert listed.read_pairs(tmp_path / "pairs.csv") == pairs
    rows = files.read_rows(tmp_path / "pairs.csv")
    rows[1][column] = value
    text = ",".join(rows[0]) + "\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(BadInput, match=r"pairs\.csv"):
        listed.read_pairs(tmp_path / "pairs.csv")


def test_pairs_with_an_impossible_file_name_are_refused(tmp_path):
    images, masks = folders(tmp_path)
    pairs = pairing.make_pairs(images, masks, BenchmarkConfig(size=(SIDE, SIDE)))
    (tmp_path / "pairs.csv").write_bytes(listed.pairs_csv([replace(pairs[0], mask="x" * 5000), *pairs[1:]]))
    with pytest.raises(BadInput, match=r"which is not in .*: give its folder with --masks"):
        listed.open_pairs(tmp_path, images=images, masks=masks)


@pytest.mark.parametrize("value", ["", "much", [], {"a": 1}, 1e308])
def test_what_a_recipe_says_of_masks_counts_where_it_makes_sense(tmp_path, value):
    images, masks = folders(tmp_path)
    pairs = pairing.make_pairs(images, masks, BenchmarkConfig(size=(SIDE, SIDE)))
    (tmp_path / "pairs.csv").write_bytes(listed.pairs_csv(pairs))
    settings = {"threshold": value, "polarity": value, "size": value}
    (tmp_path / "recipe.json").write_text(json.dumps({"settings": settings, "sources": [], "counts": {}}))
    found = listed.open_pairs(tmp_path, images=images, masks=masks)
    assert (found.sources.polarity, found.sources.threshold, found.size) == ("hole-white", None, (512, 512))


@pytest.mark.parametrize("change", [{"methods": None}, {"methods": {"mean": 3}}, {"sources": []}, {"libraries": "old"}])
def test_results_with_a_damaged_recipe_are_not_changed(tmp_path, change):
    folders(tmp_path)
    score(tmp_path, ["mean"])
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    (tmp_path / "out" / "recipe.json").write_text(json.dumps(recipe | change))
    with pytest.raises(BadInput, match="was created with other settings"):
        score(tmp_path, ["mean"])


def test_a_recipe_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="cannot be read"):
        maskset.read_recipe(tmp_path)


@pytest.mark.parametrize("line", ['{"pair": []}', '{"pair": "00001"}', '{"pair": "00001", "error": ""}', "\x00\x00"])
def test_pairs_of_damaged_journal_rows_are_scored_again(tmp_path, line):
    folders(tmp_path)
    score(tmp_path, ["mean"])
    journal = tmp_path / "out" / "journal" / "mean.jsonl"
    before = journal.read_bytes()
    lines = before.decode().splitlines()
    lines[1] = line
    journal.write_text("\n".join(lines) + "\n")
    score(tmp_path, ["mean"])
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [{"width": 1e9}, {"depth": 10**9}, {"depth": None}, {"mean": [0.5] * 4}, {"kind": "other"}, {"colour": 1}],
)
def test_weights_of_an_impossible_net_are_refused_before_memory_is_allocated(tmp_path, change):
    from safetensors.torch import save_file

    header = {"format": checkpoints.FORMAT, "version": "1", "history": "[]", "about": "{}"}
    save_file(build(SMALL).state_dict(), tmp_path / "net.safetensors", header | {"config": json.dumps(change)})
    with pytest.raises(BadInput, match=r"net\.safetensors|kind is one of"):
        checkpoints.load(tmp_path / "net.safetensors")


@pytest.mark.parametrize("key", ["config", "history", "about", "version"])
def test_a_header_without_a_part_is_refused(tmp_path, key):
    from safetensors.torch import save_file

    header = {"format": checkpoints.FORMAT, "version": "1", "history": "[]", "about": "{}", "config": "{}"}
    header[key] = "{" if key != "version" else header.pop(key)
    if key == "version":
        del header["version"]
    save_file(build(SMALL).state_dict(), tmp_path / "net.safetensors", header)
    with pytest.raises(BadInput, match="damaged header"):
        checkpoints.read_header(tmp_path / "net.safetensors")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy's, of an array of no known kind
def test_a_pickle_or_vgg_with_any_byte_damaged_is_read_or_refused(tmp_path):
    array, path = np.zeros((2, 2), np.float32), tmp_path / "file"
    path.write_bytes(pickle.dumps({"VGG16_0": {"Conv_0": {"kernel": array, "bias": array}}}))
    assert not refused_or_read(features.read_arrays, path)
    assert sum(refused_or_read(features.read_arrays, path) for _ in spoilt(path, range(path.stat().st_size))) > 50
    for old in (True, False):
        torch.save({"features.0.weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=not old)
        assert all(refused_or_read(features.load_vgg, path) for _ in spoilt(path, range(0, path.stat().st_size, 9)))


@pytest.mark.parametrize("new", [True, False])
def test_a_checkpoint_with_any_byte_damaged_is_read_or_refused(tmp_path, new):
    path = tmp_path / "net.pth"
    torch.save({"model": {"w": torch.zeros(2)}}, path, _use_new_zipfile_serialization=new)
    places = range(0, path.stat().st_size, 3)
    refused = [refused_or_read(torch_file, path) for _ in spoilt(path, places, 0x95)]
    assert sum(refused) > 30 and not refused_or_read(torch_file, path)


@pytest.mark.parametrize(
    "change",
    [{"phase": None}, {"about": {}}, {"net": {}}, {"optimiser": {"state": {}, "param_groups": []}}, {"history": 3}],
)
def test_a_training_checkpoint_with_a_part_missing_is_refused(tmp_path, change):
    run = TrainingState(SMALL, TrainConfig(), "cpu")
    about = {"net": vars(SMALL), "train": {}, "loss": {}}
    run.save(tmp_path / "checkpoint.pt", about)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(saved | change, tmp_path / "checkpoint.pt")
    with pytest.raises(BadInput, match=r"checkpoint\.pt is a damaged training checkpoint"):
        TrainingState(SMALL, TrainConfig(), "cpu").load(tmp_path / "checkpoint.pt", about)


def test_an_hdf5_file_with_any_byte_damaged_is_read_or_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        file.create_group("p_conv2d_1").create_dataset("bias:0", data=np.zeros(4, np.float32))
    data = np.frombuffer(path.read_bytes(), np.uint8)
    places = np.flatnonzero(data)[:400]
    refused = [refused_or_read(foreign.read, path) for _ in spoilt(path, places)]
    assert all(refused)  # it is no whole net to begin with


def test_a_huge_claim_of_an_hdf5_file_allocates_no_memory(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        layer = file.create_group("p_conv2d_1")
        layer.create_dataset("img_kernel:0", (2**20, 2**20), np.float32, chunks=(64, 64), compression="gzip")
    with pytest.raises(BadInput, match="claims 1,099,511,627,776 numbers"):
        foreign.read(tmp_path / "net.h5")
