"""Picture files as users have them: rotated by EXIF, with profiles, of all colour spaces and depths, beside litter."""

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

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


def profile(space, lightness):
    """A small ICC profile, class prtr, from `space` to Lab: a table (lut8Type, A2B0) of the 8 or 16 corners.

    lightness: from a corner, a tuple of 0 and 1, to L*, 255 for 100; a* and b* are 0.
    """
    channels, ramp = (4 if space == b"CMYK" else 3), bytes(range(256))
    corners = b"".join(bytes([lightness(corner), 128, 128]) for corner in itertools.product((0, 1), repeat=channels))
    one = 1 << 16  # in the fixed-point numbers of ICC
    table = b"mft1" + struct.pack(">4xBBBx9i", channels, 3, 2, one, 0, 0, 0, one, 0, 0, 0, one)
    table += ramp * channels + corners + ramp * 3
    header = struct.pack(">I4xI4s4s4s12x4s", 144 + len(table), 0x02400000, b"prtr", space, b"Lab ", b"acsp")
    white = struct.pack(">3i", 63190, one, 54061)  # D50
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    return header.ljust(68, b"\0") + white + bytes(48) + tags + table


INK = profile(b"CMYK", lambda cmyk: 0 if cmyk[0] else 128 if cmyk[3] else 255)  # magenta and yellow are invisible
NEGATIVE = profile(b"Lab ", lambda lab: 0 if lab[0] else 255)


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
    picture = images.decode(data, "photo")[0]
    assert picture.flags.c_contiguous
    assert np.abs(picture.astype(int) - PHOTO).max() <= (4 if form == "JPEG" else 0)


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_width_and_height_in_the_exif_turn_with_the_picture(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({0xA002: 60, 0xA003: 40})
    found = Image.Exif()
    found.load(images.decode(saved(PHOTO, "JPEG", exif=exif), "photo")[1].exif)
    details = found.get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == ((40, 60) if orientation > 4 else (60, 40))


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(images.decode(saved(PHOTO, "PNG", exif=exif), "photo")[0], PHOTO)


def test_the_orientation_of_a_png_may_be_in_its_text():
    exif = Image.Exif()
    exif[0x0112] = 6
    data, text = exif.tobytes(), PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")  # as ImageMagick writes it
    assert np.array_equal(images.decode(saved(stored_as(PHOTO, 6), "PNG", pnginfo=text), "photo")[0], PHOTO)


def test_exif_without_an_orientation_is_kept():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    found = Image.Exif()
    found.load(images.decode(saved(PHOTO, "JPEG", exif=exif), "photo")[1].exif)
    assert found[0x010F] == "Maker"


def test_damaged_exif_is_dropped():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    entry = struct.pack(">HHI", 0x010F, 2, 6)  # tag, type text, 6 bytes
    assert entry in exif.tobytes()
    data = saved(
        PHOTO, "JPEG", exif=exif.tobytes().replace(entry, struct.pack(">HHI", 0x0100, 2, 6))
    )  # a width in letters
    assert images.decode(data, "photo")[1].exif == b""


def test_the_directory_of_a_tiff_is_not_kept_as_exif():
    assert images.decode(saved(PHOTO, "TIFF"), "photo")[1].exif == b""


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_picture_without_metadata_has_none(form):
    metadata = images.decode(saved(PHOTO, form), "photo")[1]
    assert (metadata.icc, metadata.exif) == (b"", b"")


@pytest.mark.parametrize("kept", [{"icc_profile": SRGB}, {"dpi": (300, 300)}])
def test_one_kind_of_metadata_in_a_png_is_read(kept):
    metadata = images.decode(saved(PHOTO, "PNG", **kept), "photo")[1]
    assert metadata.icc == kept.get("icc_profile", b"")
    assert metadata.dpi == (pytest.approx(kept["dpi"], rel=1e-3) if "dpi" in kept else None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_pillow_is_not_needed_for_a_plain_png(monkeypatch, dtype, shape):
    opened = []
    monkeypatch.setattr(Image, "open", opened.append)
    data = images.encode(np.zeros(shape, dtype), ".png")
    assert images.decode(data, "mask")[0].shape == shape and not opened
    images.decode(images.encode(np.zeros(shape, dtype), ".tif"), "mask")
    assert len(opened) == 1


def test_the_pixels_of_a_png_are_decoded_only_once(monkeypatch):
    data, loaded = saved(PHOTO, "PNG", icc_profile=SRGB), []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda picture: loaded.append(picture))
    assert np.array_equal(images.decode(data, "photo")[0], PHOTO) and not loaded


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3), (40, 60, 4)])
@pytest.mark.parametrize("space", [b"GRAY", b"RGB "])
def test_a_profile_is_kept_only_where_its_channels_fit(shape, space):
    icc = SRGB[:16] + space + SRGB[20:]
    found = Image.open(io.BytesIO(images.encode(np.zeros(shape, np.uint8), ".png", Metadata(icc=icc)))).info
    fits = (space == b"GRAY") == (len(shape) == 2 or shape[2] == 1)
    assert found.get("icc_profile") == (icc if fits else None)


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


@pytest.mark.parametrize("orientation", range(2, 9))
def test_palette_indices_are_kept_and_upright(orientation):
    indices, exif = np.arange(15, dtype=np.uint8).reshape(3, 5), Image.Exif()
    exif[0x0112] = orientation
    picture = stored_as(indices, orientation)
    picture.putpalette(bytes(range(45)))
    stored = images.decode_stored(saved(picture, "PNG", exif=exif), "p")
    assert np.array_equal(stored.pixels, indices) and stored.pixels.flags.c_contiguous
    assert stored.palette.shape == (256, 3)
    assert np.array_equal(stored.palette[:15], np.arange(45).reshape(15, 3))


def test_a_palette_may_have_an_alpha_of_its_own():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80], "RGBA")
    stored = images.decode_stored(saved(picture, "TGA"), "p")  # a format that marks no transparent index
    assert stored.palette[:2].tolist() == [[10, 20, 30, 40], [50, 60, 70, 80]]


@pytest.mark.parametrize("form", ["TIFF", "PNG", "PCX"])
def test_black_and_white_become_grey(form):
    pixels = PHOTO[..., 0] > 128
    assert np.array_equal(images.decode(saved(Image.fromarray(pixels), form), "p")[0], pixels * 255)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_becomes_the_same_rgb_as_in_pillow(form):
    data = saved(Image.fromarray(PHOTO).convert("CMYK"), form)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(images.decode_rgb(data, "p").astype(int) - expected).max() == 0


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_takes_the_colours_of_its_profile(form):
    inks = np.zeros((8, 16, 4), np.uint8)
    inks[..., 1] = 255  # magenta, invisible in this profile
    inks[:, 8:, 3] = 255  # black, of which L* is 50: sRGB 119
    data = saved(Image.fromarray(inks, "CMYK"), form, icc_profile=INK, dpi=(300, 150))
    picture, metadata = images.decode(data, "p")
    assert picture.shape == (8, 16, 3) and (picture[:, :8] == 255).all()
    assert np.abs(picture[:, 8:].astype(int) - 119).max() <= 1
    assert metadata == Metadata(b"", (300, 150), b"")  # the pixels are sRGB now


@pytest.mark.parametrize("icc", [SRGB, b"damaged"])
def test_cmyk_with_a_profile_that_does_not_fit_is_converted_without_it(icc):
    data = saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", icc_profile=icc)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    picture, metadata = images.decode(data, "p")
    assert np.array_equal(picture, expected) and metadata.icc == b""


@pytest.mark.parametrize("form", [{}, {"icc_profile": None}], ids=["with its profile", "without a profile"])
def test_lab_becomes_rgb(form):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    data = saved(ImageCms.profileToProfile(Image.fromarray(PHOTO), srgb, lab, outputMode="LAB"), "TIFF", **form)
    assert ("icc_profile" in Image.open(io.BytesIO(data)).info) == (not form)
    assert np.abs(images.decode(data, "p")[0].astype(int) - PHOTO).max() <= 4  # 8 bits of L*, a*, b*


def test_lab_takes_the_colours_of_its_profile():
    pixels = np.full((4, 6, 3), 128, np.uint8)
    pixels[:, :3, 0], pixels[:, 3:, 0] = 0, 255
    picture = images.decode(saved(Image.fromarray(pixels, "LAB"), "TIFF", icc_profile=NEGATIVE), "p")[0]
    assert (picture[:, :3] == 255).all() and (picture[:, 3:] == 0).all()


def test_grey_multiplied_by_its_alpha_is_divided_again():
    half = Image.merge("LA", [Image.new("L", (3, 2), 50), Image.new("L", (3, 2), 128)])
    data, entry = saved(half, "TIFF"), struct.pack("<HHI", 338, 3, 1)  # ExtraSamples: 2 is alpha, 1 multiplied by it
    assert entry + b"\2\0" in data
    picture = images.decode(data.replace(entry + b"\2\0", entry + b"\1\0"), "p")[0]
    assert picture[0, 0].tolist() in ([99, 99, 99, 128], [100, 100, 100, 128])  # 50 * 255 / 128 = 99.6


def test_a_palette_with_an_alpha_layer_becomes_colours_with_alpha():
    picture = Image.fromarray(PHOTO).quantize(16).convert("PA")
    picture.putalpha(Image.fromarray(PHOTO[..., 0]))
    assert np.array_equal(images.decode(saved(picture, "TIFF"), "p")[0], np.array(picture.convert("RGBA")))


def test_a_fourth_sample_without_a_meaning_is_no_alpha(monkeypatch):
    padded = Image.fromarray(PHOTO).convert("RGBX")
    assert np.array_equal(images.decode(saved(padded, "TIFF"), "p")[0], PHOTO)
    see_through = Image.fromarray(PHOTO).convert("RGBA")
    assert np.array_equal(images.decode(saved(see_through, "TIFF"), "p")[0], np.array(see_through))
    layout = (b"II", 2, (1,), 1, (8, 8, 8, 8), (0,))
    monkeypatch.setitem(TiffImagePlugin.OPEN_INFO, layout, ("RGBX", "RGBX"))  # as in Pillow 11
    picture, metadata = images.decode(saved(padded, "TIFF", icc_profile=SRGB), "p")
    assert np.array_equal(picture, PHOTO) and metadata.icc == SRGB


def test_grey_with_alpha_keeps_its_alpha_in_every_format():
    alpha = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
    both = Image.merge("LA", [Image.fromarray(PHOTO[..., 0]), Image.fromarray(alpha)])
    for form in ("PNG", "TIFF"):
        picture = images.decode(saved(both, form), "p")[0]
        assert np.array_equal(picture[..., 0], PHOTO[..., 0]) and np.array_equal(picture[..., 3], alpha)


def test_a_resolution_that_makes_no_sense_is_dropped():
    assert images.decode(saved(PHOTO, "TIFF", dpi=(200, 100)), "p")[1].dpi == (200, 100)
    assert images.decode(saved(PHOTO, "TIFF", dpi=(1, 1)), "p")[1].dpi == (1, 1)  # that of a file without a unit
    assert images.decode(saved(PHOTO, "PNG", dpi=(0, 0)), "p")[1].dpi is None
    for absurd in ((2e5, 2e5), (1e5, 1e5), (300, 1e5)):
        assert images.decode(saved(PHOTO, "TIFF", dpi=absurd), "p")[1].dpi is None
    data, ratio = saved(PHOTO, "TIFF", dpi=(72, 72)), struct.pack("<II", 72, 1)
    assert data.count(ratio) == 2
    for no_number in (struct.pack("<II", 72, 0), struct.pack("<II", 0, 1)):
        assert images.decode(data.replace(ratio, no_number), "p")[1].dpi is None


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".JPG"])
def test_a_jpeg_is_written_with_the_given_quality(ending):
    def smallest_steps(quality):  # of the quantisation tables, as Pillow reads them
        tables = Image.open(io.BytesIO(images.encode(PHOTO, ending, quality=quality))).quantization
        return [min(table) for table in tables.values()]

    # The tables of the JPEG standard, whose smallest entries are 10 and 17, are scaled by 1 for quality 50.
    assert smallest_steps(50) == [10, 17] and smallest_steps(100) == [1, 1]


def test_write_makes_folders_and_passes_metadata_and_quality_on(tmp_path):
    for quality in (50, 95):
        images.write(tmp_path / "new" / "deep" / f"{quality}.jpg", PHOTO, quality=quality)
    images.write(tmp_path / "new" / "deep" / "default.jpg", PHOTO)
    tables = {path.stem: Image.open(path).quantization for path in (tmp_path / "new" / "deep").iterdir()}
    assert tables["default"] == tables["95"] != tables["50"]
    assert tables["95"] == Image.open(io.BytesIO(images.encode(PHOTO, ".jpg"))).quantization
    assert tables["95"] == Image.open(io.BytesIO(saved(PHOTO, "JPEG", quality=95))).quantization
    images.write(tmp_path / "new" / "a.png", PHOTO, Metadata(icc=SRGB))
    assert images.read_with_metadata(tmp_path / "new" / "a.png")[1].icc == SRGB


def test_a_picture_of_an_unknown_ending_is_not_written(tmp_path):
    with pytest.raises(BadInput, match=r"ends in '\.gif': expected \.bmp, \.jpeg, "):
        images.write(tmp_path / "new" / "a.GIF", PHOTO)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (4, 6, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_rgb_picture_has_three_channels_of_eight_bits_and_no_alpha(tmp_path, shape, dtype):
    picture = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    stored = picture.astype(dtype) * (257 if dtype == np.uint16 else 1)
    images.write(tmp_path / "a.png", stored)
    rgb = images.read_rgb(tmp_path / "a.png")
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert np.array_equal(rgb, np.dstack([picture] * 3) if picture.ndim == 2 else picture[..., :3])


@pytest.mark.parametrize("read", [images.read, images.read_rgb, images.read_with_metadata])
def test_a_file_that_cannot_be_read_is_named(tmp_path, read):
    with pytest.raises(BadInput, match=r"cannot read .*gone\.png: No such file"):
        read(tmp_path / "gone.png")
    with pytest.raises(BadInput, match=r"^cannot read .{200}: File name too long$"):
        read(tmp_path / ("long" * 100))
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(BadInput, match=r"notes\.png is not an image .*: expected a complete \.bmp, \.jpeg, "):
        read(tmp_path / "notes.png")


def test_sixteen_bits_are_rounded_where_eight_are_wanted():
    deep = np.array([[0, 128, 129, 65535]], np.uint16)  # 128/257 = 0.498, 129/257 = 0.502
    assert images.decode_rgb(images.encode(deep, ".png"), "p")[0, :, 0].tolist() == [0, 0, 1, 255]


def test_floats_from_0_to_1_become_sixteen_bits():
    data = cv2.imencode(".tif", np.array([[0, 0.5, 1]], np.float32))[1].tobytes()
    picture = images.decode(data, "p")[0]
    assert picture.dtype == np.uint16 and picture.tolist() == [[0, 32768, 65535]]


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 1.5), (-0.5, 1)])
def test_other_floats_are_refused_with_their_range(low, high):
    data = cv2.imencode(".tif", np.array([[low, high]], np.float32))[1].tobytes()
    with pytest.raises(BadInput, match=f"scan has float32 values from {low} to {high}"):
        images.decode(data, "scan")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.95])
def test_a_truncated_file_is_refused(form, share):
    data = saved(PHOTO, form)
    with pytest.raises(BadInput, match="not an image"):
        images.decode(data[: int(len(data) * share)], "photo")


def test_a_huge_picture_is_refused_before_memory_is_allocated():
    with pytest.raises(BadInput, match="claims 60x40 px, expected 100 px at most"):
        images.decode_stored(saved(PHOTO, "JPEG"), "photo", max_pixels=100)
    assert images.decode_stored(saved(PHOTO, "JPEG"), "photo", max_pixels=40 * 60).pixels.shape == PHOTO.shape


def test_a_png_that_claims_the_largest_width_is_refused():
    data = images.encode(PHOTO, ".png")
    with pytest.raises(BadInput, match="claims 4294967295x40 px"):
        images.decode(data[:16] + b"\xff" * 4 + data[20:], "photo")


def test_a_missing_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"no such folder: .*gone \(expected a folder of masks"):
        images.find(tmp_path / "gone", kind="mask")
    with pytest.raises(BadInput, match=f"no picture in {tmp_path}: expected files that end in .bmp, .jpeg, "):
        images.find(tmp_path)


def test_pictures_in_excluded_folders_are_left_out(tmp_path):
    for name in ("a.png", "masks/a.png", "out/a.png"):
        images.write(tmp_path / name, PHOTO)
    masks, out = tmp_path / "masks", tmp_path / "out"
    found = images.find(tmp_path, exclude=[masks, out / ".." / "out", tmp_path])  # all of it cannot be excluded
    assert found == [tmp_path / "a.png"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(BadInput, match=f"no photo in {tmp_path} outside {masks} and {out}$"):
        images.find(tmp_path, exclude=[masks, out], kind="photo")


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


def test_the_end_of_a_png_is_at_its_end():
    words = Image.frombytes("P", (60, 20), b"IEND" * 300)  # palette indices are stored without a filter
    words.putpalette(bytes(768))
    data = saved(words, "PNG", compress_level=0)
    assert data.count(b"IEND") > 100 and images.looks_complete(data)
    assert not images.looks_complete(data[: data.rindex(b"IEND")] + bytes(100))


def test_a_bmp_is_longer_than_its_header():
    data = images.encode(PHOTO, ".bmp")
    assert images.looks_complete(data[:6] + b"\1\2\3\4" + data[10:])  # bytes that an application may use
    assert not images.looks_complete(b"BM" + struct.pack("<I", 26) + bytes(20))
    assert images.looks_complete(b"BM" + struct.pack("<I", 27) + bytes(21))
