"""Kinds of mask files: two values, a palette, alpha; all others need a threshold."""

import io
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from maskgen.errors import BadInput, InputWarning
from maskgen.maskset import Masks, check_polarity, decode, read_hole, write_index
from tests.rawmasks import draw

HOLE = draw("##......", "##......", ".....###", "........")


def png(pixels, mode=None):
    """A PNG file of an array, or of indices with mode "P"."""
    data = io.BytesIO()
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])  # as DAVIS: black, dark red, dark green
    picture.save(data, "PNG")
    return data.getvalue()


def with_alpha(colour, alpha):
    return png(np.dstack([colour] * 3 + [alpha]).astype(np.uint8))


@pytest.mark.parametrize("low, high", [(0, 255), (0, 1), (0, 128), (1, 2), (254, 255), (0, 65535)])
def test_the_larger_of_two_values_is_white(low, high):
    pixels = np.where(HOLE, high, low).astype(np.uint16 if high > 255 else np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    assert np.array_equal(decode(data, "m"), HOLE)
    assert np.array_equal(decode(data, "m", polarity="hole-black"), ~HOLE)


def test_files_of_one_bit_and_of_floats_are_masks():
    assert np.array_equal(decode(png(HOLE), "m"), HOLE)
    assert np.array_equal(decode(cv2.imencode(".tif", HOLE.astype(np.float32))[1].tobytes(), "m"), HOLE)


@pytest.mark.parametrize("tags", [{}, {274: 3}, {262: 0}, {266: 2}])
def test_a_bilevel_tiff_is_read_with_its_orientation_its_order_of_bits_and_its_meaning_of_1(tags):
    hole = np.kron(HOLE, np.ones((5, 7), bool))
    data = io.BytesIO()
    Image.fromarray(hole).save(data, "TIFF", compression="group4", tiffinfo=tags)
    with Image.open(data) as picture:
        expected = np.asarray(picture.convert("L")) == 255
    assert np.array_equal(decode(data.getvalue(), "m"), expected)
    assert np.array_equal(expected, hole if 274 not in tags else hole[::-1, ::-1])


def test_in_a_palette_index_0_is_the_background():
    two_objects = np.where(HOLE, 1, 0).astype(np.uint8)
    two_objects[2, 7] = 2
    assert np.array_equal(decode(png(two_objects, "P"), "m"), HOLE)


def test_a_palette_with_a_bright_background_is_refused():
    picture = Image.fromarray(HOLE.astype(np.uint8))
    picture.putpalette([255, 255, 255, 0, 0, 0])
    data = io.BytesIO()
    picture.save(data, "PNG")
    with pytest.raises(BadInput, match="index 0, is brighter than the rest"):
        decode(data.getvalue(), "m")


def test_the_brighter_of_two_colours_is_white():
    red = np.zeros((*HOLE.shape, 3), np.uint8)
    red[HOLE, 0] = 255
    assert np.array_equal(decode(png(red), "m"), HOLE)


@pytest.mark.parametrize("colour", [0, 255])
def test_alpha_is_the_mask_if_the_colours_are_constant(colour):
    assert np.array_equal(decode(with_alpha(np.full(HOLE.shape, colour), HOLE * 255), "m"), HOLE)


@pytest.mark.parametrize("alpha", [0, 255])
def test_constant_alpha_is_ignored(alpha):
    assert np.array_equal(decode(with_alpha(HOLE * 255, np.full(HOLE.shape, alpha)), "m"), HOLE)


def test_alpha_of_grey_files_is_read_in_the_same_way():
    data = io.BytesIO()
    layers = [Image.fromarray(np.zeros(HOLE.shape, np.uint8)), Image.fromarray(HOLE.astype(np.uint8) * 255)]
    Image.merge("LA", layers).save(data, "PNG")
    assert np.array_equal(decode(data.getvalue(), "m"), HOLE)


def test_colour_and_alpha_that_both_vary_are_refused():
    with pytest.raises(BadInput, match="colours and alpha that both vary"):
        decode(with_alpha(np.roll(HOLE, 1) * 255, HOLE * 255), "m")


def test_other_files_are_refused_with_their_values():
    levels = np.arange(32, dtype=np.uint8).reshape(4, 8) * 8
    with pytest.raises(BadInput, match=r"m holds 32 values \(0, 8, 16, 24, \.\.\., 240, 248\).*--threshold 128"):
        decode(png(levels), "m")
    with pytest.raises(BadInput, match=r"m holds 3 values \(0, 1, 2\)"):
        decode(png(levels // 8 % 3), "m")
    with pytest.raises(BadInput, match="m holds 3 colours"):
        decode(png(np.dstack([HOLE * 255, np.roll(HOLE, 3) * 255, HOLE * 0]).astype(np.uint8)), "m")


def test_a_threshold_reads_soft_edges_and_jpeg():
    soft = cv2.GaussianBlur(np.kron(HOLE, np.ones((8, 8))).astype(np.uint8) * 255, (0, 0), 1)
    jpeg = cv2.imencode(".jpg", soft)[1].tobytes()
    with pytest.raises(BadInput, match="--threshold 128"):
        decode(jpeg, "m")
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE) >= 100
    assert np.array_equal(decode(jpeg, "m", threshold=100), expected)


def test_a_threshold_is_of_255_whatever_the_depth():
    levels = np.array([[0, 32767, 32896]], np.uint16)  # 0, 127.498 and 128 of 255
    assert decode(cv2.imencode(".png", levels)[1].tobytes(), "m", threshold=128).tolist() == [[False, False, True]]


def test_a_mask_without_a_hole_and_one_that_is_all_hole():
    assert not decode(png(np.zeros((4, 4), np.uint8)), "m").any()
    with pytest.warns(InputWarning, match="m covers the whole image"):
        assert decode(png(np.ones((4, 4), np.uint8)), "m").all()


def test_endings_of_masks_may_have_any_case(tmp_path):
    for name in ("0.PNG", "1.Png", "2.bmp", "3.TIF"):
        (tmp_path / name).write_bytes(cv2.imencode(name[1:].lower(), HOLE.astype(np.uint8) * 255)[1])
    masks = Masks(tmp_path)
    assert masks.names == ["0.PNG", "1.Png", "2.bmp", "3.TIF"]
    assert all(np.array_equal(masks[i], HOLE) for i in range(4))


def test_a_mask_set_with_an_index_has_white_holes(tmp_path):
    row = {"file_name": "0.png", "category": "", "hole_ratio": 0.2, "border_distance": 0, "components": 1, "sha256": ""}
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0.png").write_bytes(png(HOLE))
    write_index(tmp_path / "test", [row])
    for folder in (tmp_path, tmp_path / "test"):
        with pytest.raises(BadInput, match="in a mask set with an index white is a hole"):
            Masks(folder, polarity="hole-black")
        check_polarity(folder, "hole-white")


def test_an_index_of_another_kind_has_no_polarity(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,a dog\n")
    (tmp_path / "0.png").write_bytes(png(HOLE))
    check_polarity(tmp_path, "hole-black")
    assert np.array_equal(read_hole(tmp_path / "0.png", polarity="hole-black"), ~HOLE)


def test_skipped_files_are_reported_once_and_not_by_every_worker(tmp_path, recwarn):
    for name in ("a.png", "._a.png"):
        (tmp_path / name).write_bytes(png(HOLE))
    masks = Masks(tmp_path)
    copy = pickle.loads(pickle.dumps(masks))
    assert copy.names == ["a.png"] and len(recwarn) == 1
