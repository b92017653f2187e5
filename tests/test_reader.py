import random
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from films import encode, frame, remux, texture, write_frames, write_video

from maskgen.errors import BadInput
from maskgen.extraction.reader import FileReader, Stamps, one_field, open_reader, upright

GOP = {"preset": "veryfast", "bf": "3", "g": "20"}
OPEN = {**GOP, "x264-params": "open-gop=1:keyint=20:min-keyint=20:scenecut=0"}
H265 = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=20:min-keyint=20:open-gop=1"}
VPX = {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "20", "deadline": "good", "cpu-used": "5"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
THIRDS = np.cumsum([0] + [20] * 23 + [120] * 24 + [20] * 22).tolist()  # 30, 5 and 30 frames a second
KINDS = {  # file name: codec, its options and those of the container
    "h264.mp4": {"codec": "libx264", "options": GOP},
    "h264.mkv": {"codec": "libx264", "options": GOP},
    "h264.ts": {"codec": "libx264", "options": GOP},
    "h264.flv": {"codec": "libx264", "options": GOP},
    "h264.avi": {"codec": "libx264", "options": GOP},  # B-frames in a container that stores no time stamps
    "h264.h264": {"codec": "libx264", "options": GOP},  # no container
    "fragments.mp4": {"codec": "libx264", "options": GOP, "to": FRAGMENTS},
    "live.mkv": {"codec": "libx264", "options": GOP, "to": {"live": "1"}},  # no index
    "open.mp4": {"codec": "libx264", "options": OPEN},
    "open.ts": {"codec": "libx264", "options": OPEN},
    "refresh.mp4": {"codec": "libx264", "options": {**GOP, "bf": "0", "x264-params": "intra-refresh=1:keyint=20"}},
    "varying.mp4": {"codec": "libx264", "options": GOP, "stamps": THIRDS},
    "varying.mkv": {"codec": "libx264", "options": GOP, "stamps": THIRDS},
    "negative.mkv": {"codec": "libx264", "options": GOP, "to": {"avoid_negative_ts": "disabled"}},
    "h265.mp4": {"codec": "libx265", "options": H265},
    "vp8.webm": {"codec": "libvpx", "options": VPX},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VPX},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "13", "g": "20", "svtav1-params": "lp=1"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mpeg2.vob": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "mpeg2.mxf": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "wmv2.wmv": {"codec": "wmv2"},
    "mjpeg.mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "huff.avi": {"codec": "huffyuv", "pixels": "yuv422p"},
    "animation.gif": {"codec": "gif", "pixels": "rgb8"},
}


@pytest.fixture(scope="module")
def pictures():
    return [frame(i, height=64, width=96, seed=10 * (i > 30)) for i in range(70)]


@pytest.fixture(scope="module")
def film(pictures, tmp_path_factory):
    return encode(tmp_path_factory.mktemp("film") / "film.mp4", pictures, options=GOP)


def plain_read(path):
    """All frames in order, by PyAV alone."""
    with av.open(str(path)) as film:
        return [one.to_ndarray(format="rgb24") for one in film.decode(video=0)]


def assert_any_order_is_a_plain_read(path, seed=0):
    frames, reader = plain_read(path), FileReader(path)
    packed = FileReader(path, reader.stamps.pack())
    assert reader.count() == len(frames) and reader.read(len(frames)) is None
    order = random.Random(seed).sample(range(len(frames)), len(frames))
    for number in order:
        assert np.array_equal(packed.read(number), frames[number]), number
    for number in (*range(len(frames)), 0, 0):
        assert np.array_equal(reader.read(number), frames[number]), number


@pytest.mark.parametrize("name", KINDS)
def test_frames_in_any_order_equal_those_of_a_plain_read(tmp_path, pictures, name):
    assert_any_order_is_a_plain_read(encode(tmp_path / name, pictures, **KINDS[name]))


def test_frames_that_are_corrupt_after_a_seek_are_decoded_from_an_earlier_keyframe(tmp_path, pictures, monkeypatch):
    path = encode(tmp_path / "film.mp4", pictures, "libx264", options=GOP)
    frames, reader = plain_read(path), FileReader(path)
    decoded, picture = FileReader._decoded, FileReader._picture

    def with_corrupt_frames(self, packets):  # as in H.264, if frames depend on some before the keyframe
        for one in decoded(self, packets):
            is_late = self.stamps.number(one.pts) > self._first + 5
            yield SimpleNamespace(film_frame=one, pts=one.pts, is_corrupt=self._first > 0 and is_late)

    monkeypatch.setattr(FileReader, "_decoded", with_corrupt_frames)
    monkeypatch.setattr(FileReader, "_picture", lambda self, one: picture(self, one.film_frame))
    for number in random.Random(0).sample(range(len(frames)), len(frames)):
        assert np.array_equal(reader.read(number), frames[number]), number
    assert reader.count() == len(frames)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cut.ts", {"skip": 7}),  # its first frames depend on missing ones
        ("edited.mp4", {"shift": -4096, "to": {"avoid_negative_ts": "disabled"}}),  # an edit list hides the first eight
        ("later.mp4", {"shift": 51200}),
    ],
)
def test_frames_are_counted_from_the_first_one_shown(film, tmp_path, name, options):
    path = remux(film, tmp_path / name, **options)
    assert len(plain_read(path)) < 70 or name == "later.mp4"
    assert_any_order_is_a_plain_read(path)


def test_two_concatenated_films_are_read_to_the_end(film, tmp_path):
    part = remux(film, tmp_path / "part.ts").read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    assert FileReader(tmp_path / "joined.ts").count() == 140
    assert_any_order_is_a_plain_read(tmp_path / "joined.ts")


@pytest.mark.parametrize("damaged", [7, 40])
def test_a_damaged_frame_is_missing_and_the_others_keep_their_numbers(pictures, tmp_path, damaged):
    path = encode(tmp_path / "film.mov", pictures[:60], "prores_ks", pixels="yuv422p10le")
    with av.open(str(path)) as film:
        packet = list(film.demux(video=0))[damaged]
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    (tmp_path / "damaged.mov").write_bytes(data)
    whole, reader = FileReader(path), FileReader(tmp_path / "damaged.mov")
    assert reader.count() == 60
    for number in (59, damaged + 1, damaged - 1, damaged + 2, damaged, 0):
        shown = reader.read(number)
        assert shown is None if number == damaged else np.array_equal(shown, whole.read(number)), number


def test_a_truncated_film_knows_how_many_frames_its_header_promised(film, tmp_path):
    fast = remux(film, tmp_path / "fast.mp4", to={"movflags": "faststart"})
    for name, promised in (("fast.mp4", 70), ("film.mkv", 70)):
        path = fast if name == fast.name else remux(film, tmp_path / name)
        assert FileReader(path).promised == 0 or FileReader(path).count() == FileReader(path).promised
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        reader = FileReader(path)
        assert 20 < reader.count() < 50 and abs(reader.promised - promised) <= 2, name


def test_packed_stamps_are_small_and_lossless():
    stamps = Stamps.of([-3, 900, 1000, 1033, 2000], {1000: 48, -3: 7, 5: 9})
    again = Stamps.unpack(stamps.pack())
    assert again.frames.tolist() == [-3, 900, 1000, 1033, 2000] and again.keyframes.tolist() == [0, 2]
    assert again.positions.tolist() == [7, 48] and [again.number(stamp) for stamp in (900, 901, None)] == [
        1,
        None,
        None,
    ]
    assert not any(Stamps.of(frames, {1: 0}).frames.size for frames in ([1, None, 2], [1, 1], [1, 3, 2]))
    assert Stamps.unpack(Stamps.of([], {}).pack()).frames.size == 0
    hour = Stamps.of(list(range(0, 90_000 * 512, 512)), {number * 12_800: number * 50_000 for number in range(3_600)})
    assert len(hour.pack()) < 2000


TURNS = {  # display matrix of MP4: the rotation it stands for
    "upright": ((1, 0, 0, 1), lambda picture: picture),
    "a phone held upright": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "upside down": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "to the left": ((0, -1, 1, 0), lambda picture: np.rot90(picture)),
    "in a mirror": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_rotated_as_in_players(film, tmp_path, turn):
    (a, b, c, d), turned = TURNS[turn]
    data = bytearray(film.read_bytes())
    place = data.index(b"tkhd") + 44  # ISO/IEC 14496-12: the matrix of a track
    matrix = np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], ">i4")
    data[place : place + 36] = matrix.tobytes()
    (tmp_path / "turned.mp4").write_bytes(data)
    assert np.array_equal(FileReader(tmp_path / "turned.mp4").read(5), turned(plain_read(film)[5]))


def test_other_angles_are_ignored():
    picture, half = texture(4, 6, 0), 46341
    assert upright(picture, np.array([half, half, 0, -half, half, 0, 0, 0, 1 << 30])) is picture


FIELDS = {
    "h264.mp4": {"codec": "libx264", "options": {"crf": "4", "x264-params": "interlaced=1:tff=1"}},
    "h264.ts": {"codec": "libx264", "options": {"crf": "4", "flags": "+ilme+ildct"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"flags": "+ilme+ildct", "b": "9M", "qmax": "2"}},
    "deep.mov": {"codec": "prores_ks", "pixels": "yuv422p10le", "options": {"flags": "+ildct"}},
}


@pytest.mark.parametrize("name", FIELDS)
def test_frames_of_an_interlaced_film_show_one_moment(tmp_path, name):
    moments = [
        cv2.GaussianBlur(frame(i, step=6), (0, 0), 2) for i in range(12)
    ]  # with no more detail than half the rows can show
    woven = [
        np.where(np.arange(96)[:, None, None] % 2 == 0, *pair) for pair in zip(moments[::2], moments[1::2], strict=True)
    ]
    reader = FileReader(encode(tmp_path / name, woven, **FIELDS[name]))
    assert reader.interlaced and reader.count() == 6
    for number in range(6):
        shown = reader.read(number).astype(int)
        right, wrong = (np.abs(shown - moments[2 * number + i]).mean() for i in (0, 1))
        assert right < 6 and right < wrong, number
        assert abs(shown.mean() - moments[2 * number].mean()) < 3  # not near-black


def test_one_field_keeps_every_second_row_and_interpolates_the_others():
    rows = np.array([10, 99, 20, 99, 40, 99], np.uint8)
    assert one_field(np.tile(rows[:, None, None], (1, 2, 3)))[:, 0, 0].tolist() == [10, 15, 20, 30, 40, 40]
    assert one_field(np.tile(rows[:5, None, None], (1, 2, 3)))[:, 1, 2].tolist() == [10, 15, 20, 30, 40]


BT601, BT709 = (0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722)  # ITU-R: weights of red, green and blue in luma


@pytest.mark.parametrize(
    ("tags", "weights"), [({}, BT601), ({"colorspace": 5, "color_range": 2}, BT601), ({"colorspace": 1}, BT709)]
)
def test_colours_follow_the_matrix_and_range_stored_in_the_film(tmp_path, tags, weights):
    y, cb, cr = 120, 90, 160
    flat = av.VideoFrame.from_ndarray(np.full((64, 64, 3), (y, cb, cr), np.uint8), format="yuv444p", channel_last=True)
    with av.open(str(tmp_path / "film.mkv"), "w") as film:
        stream = film.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(flat, name, value)
        flat.pts = 0
        film.mux(stream.encode(flat))
        film.mux(stream.encode())
    full = tags.get("color_range") == 2
    luma = y if full else (y - 16) * 255 / 219
    blue, red = ((c - 128) * (1 if full else 255 / 224) for c in (cb, cr))
    kr, kg, kb = weights
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / kg
    assert np.abs(FileReader(tmp_path / "film.mkv").read(0)[32, 32] - np.array([r, g, b])).max() <= 2


@pytest.mark.parametrize(("tags", "transfer"), [({}, ""), ({"color_trc": 16}, "PQ"), ({"color_trc": 18}, "HLG")])
def test_a_ten_bit_film_is_read_as_eight_bits_and_reported(tmp_path, pictures, tags, transfer):
    deep = dict(pixels="yuv420p10le", options={"preset": "veryfast", "qp": "1"}, **tags)
    reader = FileReader(encode(tmp_path / "deep.mkv", pictures[:3], **deep))
    plain = FileReader(encode(tmp_path / "plain.mkv", pictures[:3], options={"preset": "veryfast", "qp": "1"}))
    assert (reader.bits, reader.transfer) == (10, transfer) and plain.bits == 8
    assert np.abs(reader.read(2).astype(int) - plain.read(2)).max() <= 6


def test_a_cover_picture_is_not_read_as_the_film(film, tmp_path):
    with av.open(str(film)) as one, av.open(str(tmp_path / "covered.mp4"), "w") as covered:
        cover = covered.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = covered.add_stream_from_template(one.streams.video[0])
        covered.mux(cover.encode(av.VideoFrame.from_ndarray(texture(64, 64, 0), format="rgb24")))
        for packet in one.demux(video=0):
            if packet.size:
                packet.stream = stream
                covered.mux(packet)
    assert FileReader(tmp_path / "covered.mp4").count() == 70


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"])
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_a_playlist_is_not_followed(film, tmp_path, name, text):
    (tmp_path / name).write_text(text.format(film))
    with pytest.raises(BadInput, match="is not a video"):
        open_reader(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["http:film.mp4", "concat:a|b.mp4", "%03d.mp4", "a film,b.mp4", b"\xff\xfe.mp4".decode("utf8", "surrogateescape")],
)
def test_no_file_name_is_read_as_a_url_or_pattern(film, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = type(tmp_path)(name)
    path.write_bytes(film.read_bytes())
    assert open_reader(path).count() == 70


def test_frames_of_a_folder_are_rgb_in_natural_order(tmp_path):
    reader = open_reader(write_frames(tmp_path / "film", 11))
    assert all(np.array_equal(reader.read(i), frame(i)) for i in range(11))  # 9.png, 10.png, 11.png
    assert reader.read(11) is None


@pytest.mark.parametrize("ending", [".avi", ".mp4", ".mkv"])
def test_a_video_file_contains_the_frames_written_to_it(tmp_path, ending):
    reader = open_reader(write_video(tmp_path / f"film{ending}", 6))
    for i in range(6):
        assert np.abs(reader.read(i).astype(int) - frame(i)).mean() < 12  # grey levels, the loss of the codec


def test_frames_on_which_no_other_depends_are_not_decoded_while_they_are_passed_over(tmp_path, pictures, monkeypatch):
    path = encode(tmp_path / "film.mp4", pictures, "libx264", options={"bf": "2", "b-pyramid": "none", "g": "250"})
    frames, decoded, numbered = plain_read(path), [], FileReader._numbered
    reader = FileReader(path)

    def recorded(self, *args):
        for numbered_frame in numbered(self, *args):
            decoded.append(numbered_frame[0])
            yield numbered_frame

    monkeypatch.setattr(FileReader, "_numbered", recorded)
    reader._rewind()
    assert np.array_equal(reader.read(40), frames[40]) and len(decoded) < 30
    assert np.array_equal(reader.read(39), frames[39]) and np.array_equal(reader.read(41), frames[41])
