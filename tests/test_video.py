import unicodedata

import cv2
import numpy as np
import pytest
from films import encode, frame, texture, write_frames, write_video

from maskgen.errors import BadInput, InputWarning
from maskgen.extraction import video


def test_probe_counts_the_readable_frames_of_a_truncated_file(tmp_path):
    path = write_video(tmp_path / "film.avi", 300, height=64, width=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = video.probe(path, "film")
    reader = video.open_reader(path)
    assert 100 < source.frames < 200
    assert reader.read(source.frames - 1) is not None and reader.read(source.frames) is None


def test_sources_are_found_in_nested_folders_and_get_unique_names(tmp_path):
    write_video(tmp_path / "a/clip.avi", 2)
    write_video(tmp_path / "b/clip.avi", 2)
    write_frames(tmp_path / "b/frames", 2)
    (tmp_path / "b/poster.png").write_bytes(b"beside a video: not a source")
    found = video.find([tmp_path])
    assert [name for _, name in found] == ["a_clip", "b_clip", "b_frames"]
    again = video.find([tmp_path / "a/clip.avi", tmp_path / "b/clip.avi"])
    assert [name for _, name in again] == ["clip", "clip-2"]


def test_hidden_and_system_files_are_skipped_with_one_warning(tmp_path):
    write_video(tmp_path / "clip.AVI".lower(), 2).rename(tmp_path / "clip.AVI")
    write_frames(tmp_path / "frames", 2)
    for litter in (
        "._clip.AVI",
        "__MACOSX/._clip.avi",
        "__MACOSX/frames/1.png",
        "frames/.hidden.png",
        "frames/Thumbs.db",
    ):
        (tmp_path / litter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / litter).write_bytes(b"litter")
    with pytest.warns(InputWarning, match=r"4 hidden or system files are skipped, such as \._clip\.AVI") as warnings:
        found = video.find([tmp_path])
    assert [name for _, name in found] == ["clip", "frames"] and len(warnings) == 1
    assert video.probe(tmp_path / "frames", "frames").frames == 2


def test_links_to_folders_are_followed_but_not_in_a_loop(tmp_path):
    write_video(tmp_path / "elsewhere/clip.avi", 2)
    (tmp_path / "films").mkdir()
    (tmp_path / "films/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "films")
    assert [name for _, name in video.find([tmp_path / "films"])] == ["link_clip"]


@pytest.mark.parametrize("ending", [".bmp", ".JPG", ".tiff", ".webp"])
def test_a_folder_of_pictures_of_any_format_is_a_source(tmp_path, ending):
    write_frames(tmp_path / "film", 3)
    for path in (tmp_path / "film").iterdir():
        cv2.imwrite(str(path.with_suffix(ending)), cv2.imread(str(path)))
        path.unlink()
    assert [video.probe(*found).frames for found in video.find([tmp_path])] == [3]


def test_an_unreadable_first_picture_loses_only_its_own_frame(tmp_path):
    write_frames(tmp_path / "film", 5)
    (tmp_path / "film/1.png").write_text("no picture")
    source = video.probe(tmp_path / "film", "film")
    assert (source.frames, source.width, source.height) == (5, 128, 96)


def test_content_does_not_depend_on_the_names_of_pictures(tmp_path):
    one, other = (write_frames(tmp_path / name, 3) for name in ("one", "other"))
    (other / "3.png").rename(other / "30.png")
    sources = [video.probe(folder, folder.name) for folder in (one, other)]
    assert sources[0].content == sources[1].content and sources[0].sha256 != sources[1].sha256


def test_interlaced_and_hdr_films_get_a_remark(tmp_path):
    woven = [frame(i) for i in range(3)]
    old = encode(tmp_path / "old.mpg", woven, "mpeg2video", options={"flags": "+ilme+ildct"})
    hdr = encode(tmp_path / "hdr.mkv", woven, pixels="yuv420p10le", color_trc=16)
    [line] = video.probe(old, "old").remarks
    assert "is interlaced" in line and "docs/extract.md" in line
    [line] = video.probe(hdr, "hdr").remarks
    assert "is 10-bit HDR (PQ) video" in line and "docs/extract.md" in line
    assert video.probe(write_video(tmp_path / "plain.mp4", 3), "plain").remarks == ()


@pytest.mark.parametrize(("lightest", "is_one"), [(46, True), (47, False)])  # from 30: 16 or 17 grey levels
def test_a_frame_of_one_colour_may_have_some_noise(lightest, is_one):
    noisy = np.random.default_rng(0).integers(30, lightest, (96, 96, 3), np.uint8, endpoint=True)
    assert video.is_one_colour(noisy) is is_one
    noisy = np.full((96, 96, 3), (200, 10, 90), np.uint8)
    assert video.is_one_colour(noisy)
    noisy[41, 43] = 255
    assert not video.is_one_colour(noisy)


def test_the_output_folder_is_not_searched(tmp_path):
    write_frames(tmp_path / "film", 2)
    write_frames(tmp_path / "masks/raw/train/film", 2)
    assert [name for _, name in video.find([tmp_path], outside=tmp_path / "masks/raw")] == ["film"]


def test_squares_are_centred_or_spread_along_the_long_side():
    assert video.crop_squares(100, 60, 1) == [(20, 0, 60)]
    assert video.crop_squares(60, 100, 1) == [(0, 20, 60)]
    assert video.crop_squares(180, 60, 3) == [(0, 0, 60), (60, 0, 60), (120, 0, 60)]
    assert video.crop_squares(75, 60, 5) == [(0, 0, 60), (15, 0, 60)]  # share 45 of 60 px
    assert len(video.crop_squares(74, 60, 5)) == 1
    assert video.crop_squares(64, 60, 5) == [(2, 0, 60)]  # 4 px to spare: five squares would all be the same


def test_a_crop_has_the_requested_size():
    assert video.crop(texture(90, 160, 0), (35, 0, 90), 64).shape == (64, 64, 3)


def test_a_change_of_scene_is_a_cut_but_motion_or_a_change_of_light_is_not():
    def is_cut(one, following):
        return video.is_cut(video.colour_histograms(one), video.colour_histograms(following))

    day, night = texture(96, 96, 0), texture(96, 96, 0) // 4
    assert is_cut(day, night) and is_cut(texture(96, 96, 0), texture(96, 96, 0)[:, :, ::-1] // 2)
    assert not is_cut(frame(0), frame(1)) and not is_cut(day, cv2.convertScaleAbs(day, alpha=1, beta=4))


@pytest.mark.parametrize(("changed", "is_cut"), [(0.29, False), (0.31, True)])
def test_a_cut_changes_the_colours_of_three_tenths_of_the_frame(changed, is_cut):
    before, after = np.zeros((9, 8, 8, 8)), np.zeros((9, 8, 8, 8))
    before[:, 0, 0, 0] = 1
    after[:, 0, 0, 0], after[:, 7, 7, 7] = 1 - changed, changed
    assert video.is_cut(before, after) == is_cut


def test_colour_histograms_tell_fields_and_colours_apart():
    frame = np.zeros((90, 90, 3), np.uint8)
    frame[30:60, 60:] = (255, 0, 128)  # the sixth of 3x3 fields
    histograms = video.colour_histograms(frame)
    assert histograms.shape == (9, 8, 8, 8) and histograms.sum((1, 2, 3)) == pytest.approx(1)
    places = [np.unravel_index(field.argmax(), field.shape) for field in histograms]
    assert places == [(0, 0, 0)] * 5 + [(7, 0, 4)] + [(0, 0, 0)] * 3


def test_credits_beside_the_videos_are_read(tmp_path):
    (tmp_path / "SOURCES.csv").write_text("file,source,licence\nclip.avi,a library,CC0\ncafé.mp4,a shop,MIT\n")
    clip, cafe = tmp_path / "clip.avi", tmp_path / unicodedata.normalize("NFD", "café.mp4")
    assert video.described([clip, cafe]) == {
        clip: {"source": "a library", "licence": "CC0"},
        cafe: {"source": "a shop", "licence": "MIT"},
    }


@pytest.mark.parametrize(
    "table",
    ["file,licence", "file,license", "File, License ", "FILE ,source,LICENCE,license", "\ufefffile,license,use"],
)
def test_the_licence_column_may_have_either_spelling_in_any_case(tmp_path, table):
    cells = {"file": "clip.avi", "licence": "CC0", "license": "CC0"}
    row = ",".join(cells.get(name.strip("\ufeff ").lower(), "") for name in table.split(","))
    (tmp_path / "SOURCES.csv").write_text(f"{table}\n{row}\n", encoding="utf-8")
    assert video.read_sources(tmp_path / "SOURCES.csv") == {"clip.avi": {"licence": "CC0"}}


def test_an_empty_cell_of_the_credits_means_unknown_and_overwrites_nothing(tmp_path):
    rows = "file,source,licence,license\na.avi,, ,CC0\nb.avi,a lake,,\na.avi,a hill,,\n,nobody,MIT,\nc.avi\n"
    (tmp_path / "SOURCES.csv").write_text(rows)
    assert video.read_sources(tmp_path / "SOURCES.csv") == {
        "a.avi": {"source": "a hill", "licence": "CC0"},
        "b.avi": {"source": "a lake"},
        "c.avi": {},
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("video,licence\na.mp4,CC0\n", "no column `file`, only video, licence"),
        ("", "names no file"),
        ("file,split\na.mp4,validation\n", "a.mp4: expected the split train, test or nothing, got validation"),
    ],
)
def test_credits_without_files_are_refused(tmp_path, table, message):
    (tmp_path / "SOURCES.csv").write_text(table)
    with pytest.raises(BadInput, match=message):
        video.read_sources(tmp_path / "SOURCES.csv")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: (p / "x.mp4").write_text("not a video"), "not a video"),
        (lambda p: (p / "x.mp4").write_bytes(b""), "is empty"),
        (lambda p: (p / "x.mp4").symlink_to(p / "gone.mp4"), "cannot read"),
        (lambda p: write_video(p / "x.mp4", 1), "only one frame"),
        (lambda p: write_frames(p / "x.mp4", 1), "only one frame"),
        (lambda p: write_video(p / "x.mp4", 5, height=48, width=80), "80x48, expected 64 px or more"),
    ],
)
def test_the_error_for_a_video_without_a_pair_gives_the_reason(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(BadInput, match=message):
        video.probe(tmp_path / "x.mp4", "x")
