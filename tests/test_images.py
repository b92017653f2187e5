"""Picture files as users have them: rotated by EXIF, with profiles, of all colour spaces and depths, beside litter."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from maskgen.errors import BadInput, InputWarning
from maskgen.runtime import images
from maskgen.runtime.images import Metadata

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PHOTO = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8), (0, 0), 2)


def saved(picture, form, **how):
    """The bytes of a picture file that Pillow writes. picture: an array, or a picture of Pillow's."""
    data = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(data, form, **how)
    return data.getvalue()


def stored_as(picture, orientation):
    """The pixels that a camera held another way would store: Pillow's transposition of the EXIF standard undone."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation: number of Image.Transpose that brings it about
    return Image.fromarray(picture).transpose(Image.Transpose(undo[orientation])) if orientation > 1 else picture


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_whatever_its_exif_says(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    data = saved(stored_as(PHOTO, orientation), form, exif=exif, **how)
    assert np.array_equal(np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).shape, PHOTO.shape)
    assert np.abs(images.decode(data, "photo")[0].astype(int) - PHOTO).max() <= (4 if form == "JPEG" else 0)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_sixteen_bits_survive_a_turned_tiff(orientation):
    deep = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60) * 27
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(deep).transpose({1: 1, 3: 3, 6: 2, 8: 4}[orientation]), "TIFF", exif=exif)
    expected = deep[::-1] if orientation == 1 else deep  # transposition 1 is a flip, which orientation 1 leaves alone
    assert np.array_equal(images.decode(data, "photo")[0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4)])
def test_a_png_that_is_written_is_read_back(tmp_path, dtype, shape):
    picture = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    images.write(tmp_path / "new" / "a.png", picture)
    again = images.read(tmp_path / "new" / "a.png")
    assert again.dtype == dtype and np.array_equal(again, picture.squeeze())


def test_profile_resolution_and_exif_except_the_orientation_are_kept():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769).update({0xA002: 40, 0xA003: 60, 0x9003: "2026:01:02 03:04:05"})
    data = saved(stored_as(PHOTO, 6), "JPEG", exif=exif, icc_profile=SRGB, dpi=(300, 150))
    picture, metadata = images.decode(data, "photo")
    result = Image.open(io.BytesIO(images.encode(picture, ".png", metadata)))
    found = result.getexif()
    assert result.info["icc_profile"] == SRGB
    assert result.info["dpi"] == pytest.approx((150, 300), rel=1e-3)  # turned by a quarter, as the picture is
    assert 0x0112 not in found and found[0x010F] == "Maker"
    details = found.get_ifd(0x8769)
    assert (details[0xA002], details[0xA003], details[0x9003]) == (60, 40, "2026:01:02 03:04:05")


def test_an_end_marker_without_a_scan_is_no_complete_jpeg():
    assert not images.looks_complete(b"\xff\xd8\xff\xe0\xff\xd9")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_resolution_turns_with_the_picture(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored_as(PHOTO, orientation), "JPEG", exif=exif, dpi=(300, 150))
    assert images.decode(data, "photo")[1].dpi == ((150, 300) if orientation > 4 else (300, 150))


def test_a_profile_is_kept_only_where_its_channels_fit():
    grey = images.encode(PHOTO[..., 0], ".png", Metadata(icc=SRGB))
    assert "icc_profile" not in Image.open(io.BytesIO(grey)).info


def test_pillow_verifies_and_reads_the_files_that_are_written():
    data = images.encode(PHOTO, ".png", Metadata(SRGB, (300, 300), Image.Exif().tobytes()))
    Image.open(io.BytesIO(data)).verify()  # compares the checksum of every chunk
    assert data[data.index(b"eXIf") + 4 :][:4] in (
        b"II*\0",
        b"MM\0*",
    )  # a TIFF header, without the prefix of JPEG files
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), PHOTO)


def test_palettes_become_colours():
    palette = Image.fromarray(PHOTO).quantize(16)
    assert np.array_equal(images.decode(saved(palette, "PNG"), "p")[0], np.array(palette.convert("RGB")))
    clear = saved(palette, "PNG", transparency=3)
    assert np.array_equal(images.decode(clear, "p")[0], np.array(Image.open(io.BytesIO(clear)).convert("RGBA")))


def test_black_and_white_become_grey():
    pixels = PHOTO[..., 0] > 128
    assert np.array_equal(images.decode(saved(Image.fromarray(pixels), "TIFF"), "p")[0], pixels * 255)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_becomes_the_same_rgb_as_in_pillow(form):
    data = saved(Image.fromarray(PHOTO).convert("CMYK"), form)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(images.decode_rgb(data, "p").astype(int) - expected).max() == 0


def test_grey_with_alpha_keeps_its_alpha_in_every_format():
    alpha = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
    both = Image.merge("LA", [Image.fromarray(PHOTO[..., 0]), Image.fromarray(alpha)])
    for form in ("PNG", "TIFF"):
        picture = images.decode(saved(both, form), "p")[0]
        assert np.array_equal(picture[..., 0], PHOTO[..., 0]) and np.array_equal(picture[..., 3], alpha)


def test_a_resolution_that_makes_no_sense_is_dropped():
    assert images.decode(saved(PHOTO, "TIFF", dpi=(200, 100)), "p")[1].dpi == (200, 100)
    assert images.decode(saved(PHOTO, "TIFF", dpi=(2e5, 2e5)), "p")[1].dpi is None


def test_a_jpeg_is_written_with_the_given_quality():
    def smallest_steps(quality):  # of the quantisation tables, as Pillow reads them
        tables = Image.open(io.BytesIO(images.encode(PHOTO, ".jpg", quality=quality))).quantization
        return [min(table) for table in tables.values()]

    # The tables of the JPEG standard, whose smallest entries are 10 and 17, are scaled by 1 for quality 50.
    assert smallest_steps(50) == [10, 17] and smallest_steps(100) == [1, 1]


def test_sixteen_bits_are_rounded_where_eight_are_wanted():
    deep = np.array([[0, 128, 129, 65535]], np.uint16)  # 128/257 = 0.498, 129/257 = 0.502
    assert images.decode_rgb(images.encode(deep, ".png"), "p")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_floats_from_0_to_1_become_sixteen_bits():
    data = cv2.imencode(".tif", np.array([[0, 0.5, 1]], np.float32))[1].tobytes()
    assert images.decode(data, "p")[0].tolist() == [[0, 32768, 65535]]


def test_other_floats_are_refused_with_their_range():
    data = cv2.imencode(".tif", np.array([[0, 255]], np.float32))[1].tobytes()
    with pytest.raises(BadInput, match="scan has float32 values from 0 to 255"):
        images.decode(data, "scan")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_refused(form, share):
    data = saved(PHOTO, form)
    with pytest.raises(BadInput, match="not an image"):
        images.decode(data[: int(len(data) * share)], "photo")


def test_a_huge_picture_is_refused_before_memory_is_allocated():
    with pytest.raises(BadInput, match="claims 60x40 px, expected 100 px at most"):
        images.decode_stored(saved(PHOTO, "JPEG"), "photo", max_pixels=100)
    assert images.decode_stored(saved(PHOTO, "JPEG"), "photo", max_pixels=40 * 60).pixels.shape == PHOTO.shape


def test_pictures_are_found_with_endings_in_any_case_and_without_litter(tmp_path):
    for name in ("b.PNG", "a.Jpeg", "deep/c.tif", "._a.jpeg", "__MACOSX/a.png", ".ipynb_checkpoints/b.png", "x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(InputWarning, match=r"3 hidden or system files are skipped, such as "):
        found = images.find(tmp_path)
    assert [path.name for path in found] == ["a.Jpeg", "b.PNG", "c.tif"]


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp"])
def test_a_truncated_file_is_recognised_without_decoding(ending):
    data = images.encode(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8), ending)
    assert images.looks_complete(data)
    assert not any(images.looks_complete(data[: round(len(data) * share)]) for share in (0, 0.1, 0.5, 0.9, 0.99))
    if ending != ".png":  # of which the last 4 bytes are a checksum
        assert not images.looks_complete(data[:-1])
    if ending == ".jpg":  # a thumbnail is a whole JPEG inside the header of a larger one
        thumbnail = images.encode(np.zeros((8, 8, 3), np.uint8), ".jpg")
        data = data[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
        assert images.looks_complete(data) and not images.looks_complete(data[:-200])
