"""Reading mask sequences: sets, folders of frames, archives, and the packed file."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from maskgen import Sequences
from maskgen.errors import BadInput
from maskgen.maskset import encode
from maskgen.sequences.index import INDEX, frame_name, write_index
from maskgen.sequences.measure import describe
from maskgen.sequences.reader import pack, unpack


def moving_square(step, side=40, frames=4, shape=(100, 150)):
    holes = np.zeros((frames, *shape), bool)
    for t, hole in enumerate(holes):
        hole[30 : 30 + side, 20 + step * t : 20 + step * t + side] = True
    return holes


SQUARES = {"still_2": moving_square(0), "fast_10": moving_square(9)}


def write_frames(folder, sequences):
    for name, holes in sequences.items():
        (folder / name).mkdir(parents=True)
        for t, hole in enumerate(holes):
            (folder / name / frame_name(t)).write_bytes(encode(hole))
    return folder


def write_packed(path, sequences):
    """A packed file. Returns its path."""
    rows = [
        {"sequence": name, "mode": "drifting", **describe(holes, []), "sha256": ""} for name, holes in sequences.items()
    ]
    write_index(path.parent, rows)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(path.parent / INDEX, INDEX)
        for name, holes in sequences.items():
            archive.writestr(f"{name}.npy", pack(holes))
    (path.parent / INDEX).unlink()
    return path


@pytest.fixture(params=["folder", "set", "zip", "packed"])
def squares(request, tmp_path):
    """SQUARES in one of the forms that are read."""
    if request.param == "packed":
        return write_packed(tmp_path / "x.zip", SQUARES)
    if request.param == "zip":
        folder = write_frames(tmp_path / "x", SQUARES)
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for path in sorted(folder.rglob("*.png")):
                archive.write(path, path.relative_to(folder))
        return tmp_path / "x.zip"
    folder = write_frames(tmp_path / "x" / "test", SQUARES)
    if request.param == "folder":
        return folder
    write_frames(tmp_path / "x" / "train", {"other": SQUARES["fast_10"]})
    rows = [
        {"sequence": f"test/{name}", "split": "test", "mode": "drifting", **describe(holes, [])}
        for name, holes in SQUARES.items()
    ]
    write_index(tmp_path / "x", rows)
    return tmp_path / "x"


def test_sequences_are_found_by_name_and_by_place_in_natural_order(squares):
    sequences = Sequences(squares)
    assert sequences.names == ["fast_10", "still_2"] and len(sequences) == 2
    assert sequences["still_2"].dtype == bool
    for name, holes in zip(sequences.names, sequences, strict=True):
        np.testing.assert_array_equal(holes, SQUARES[name])
    np.testing.assert_array_equal(sequences[-1], SQUARES["still_2"])


def test_the_class_comes_from_the_index_or_is_measured(squares):
    sequences = Sequences(squares)  # 1,600 of 15,000 pixels are holes; 9 px a frame are fast
    assert [sequences.category(name) for name in sequences.names] == ["0.1-0.2_fast", "0.1-0.2_still"]


def test_what_is_not_there_is_an_error(squares):
    sequences = Sequences(squares)
    with pytest.raises(BadInput, match=r"no sequence 'slow' in .*expected one of 2, such as fast_10"):
        sequences["slow"]
    with pytest.raises(IndexError, match="expected an index below 2, got 2"):
        sequences[2]


def test_a_reader_can_be_pickled_and_read_from_again(squares):
    sequences = Sequences(squares)
    sequences[0]
    copy = pickle.loads(pickle.dumps(sequences))
    np.testing.assert_array_equal(copy[1], SQUARES["still_2"])


def test_a_part_of_a_set_has_its_rows(tmp_path):
    write_frames(tmp_path / "train", {"a": SQUARES["fast_10"]})
    row = {"sequence": "train/a", "split": "train", "mode": "tracked", **describe(SQUARES["fast_10"], [])}
    write_index(tmp_path, [row])
    assert Sequences(tmp_path / "train").row("a")["mode"] == "tracked"


def test_a_folder_with_frames_of_its_own_is_one_sequence(tmp_path):
    folder = write_frames(tmp_path, {"café 1": SQUARES["fast_10"]}) / "café 1"
    assert Sequences(folder).names == ["café 1"] and Sequences(folder)[0].shape == (4, 100, 150)


def test_annotations_with_a_palette_are_read_as_in_davis(tmp_path):
    objects = np.zeros((20, 30), np.uint8)
    objects[5:9, 5:9], objects[10:12, 20:29] = 1, 2
    picture = Image.fromarray(objects, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    (tmp_path / "bear").mkdir()
    picture.save(tmp_path / "bear" / "00000.png")
    np.testing.assert_array_equal(Sequences(tmp_path)["bear"], (objects > 0)[None])


def test_frames_of_two_sizes_are_refused(tmp_path):
    write_frames(tmp_path, {"a": SQUARES["fast_10"]})
    (tmp_path / "a" / "00001.png").write_bytes(encode(np.eye(50, dtype=bool)))
    with pytest.raises(BadInput, match="a has frames of 50x50 and 150x100 px: expected one size"):
        Sequences(tmp_path)["a"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_path_without_sequences_is_refused(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(BadInput, match="expected"):
        Sequences(tmp_path / "x")


# The packed file


@pytest.mark.parametrize("height", [1, 8, 100, 101])
def test_packing_keeps_every_pixel_at_any_height(height):
    holes = np.random.default_rng(0).random((3, height, 17)) < 0.5
    np.testing.assert_array_equal(unpack(pack(holes), height, "x"), holes)


def test_numpy_alone_reads_a_packed_file(tmp_path):
    path = write_packed(tmp_path / "x.zip", {"a": SQUARES["fast_10"]})
    holes = np.unpackbits(np.load(path)["a"], axis=1, count=100)
    np.testing.assert_array_equal(holes, SQUARES["fast_10"])


def with_header(shape, dtype=np.uint8, **options):
    """A NumPy file with 12 bytes of data, whose header states another shape or dtype."""
    data = io.BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": np.dtype(dtype).str, **options}
    np.lib.format.write_array_header_1_0(data, header)
    return data.getvalue() + bytes(12)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        b"PK\x03\x04" * 20,
        with_header((2, 2, 4)),
        with_header((10**6, 2, 10**6)),
        with_header((0, 2, 10**18)),
        with_header((12,)),
        with_header((2, 2, 3), fortran_order=True),
        with_header((2, 2, 3), np.int8),
        with_header((3, 1, 4)),  # 8 rows, the index says 9
        pack(SQUARES["fast_10"])[:-1],
    ],
)
def test_a_damaged_array_is_refused(data):
    with pytest.raises(BadInput, match="x is damaged"):
        unpack(data, 9, "x")


def test_a_packed_file_without_one_of_its_sequences_is_refused(tmp_path):
    path = write_packed(tmp_path / "x.zip", SQUARES)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != "still_2.npy"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    with pytest.raises(BadInput, match="lists 'still_2', which is missing"):
        Sequences(path)
