"""Readers that give the frames of a video file or of a folder of pictures by number, 0 for the first."""

import gc
import re
import zlib
from itertools import chain, islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from maskgen.errors import BadInput
from maskgen.runtime import files, images

PLAYLISTS = {"concat", "dash", "hls", "image2", "imf", "vobsub", "webm_dash_manifest"}  # formats that name other files
# These five change the speed, or what is said of a file, but no frame: they are free to choose.
CHECKED = 16  # first frames, whose time stamps are compared with those of their packets
SEEK_FROM = 16  # frames ahead from which seeking is used; decoding this many costs about as much
KEYFRAMES_TRIED = 3  # before a film is decoded from its start
SKIPPING = ("h264", "hevc")  # decoders that can leave out frames on which no other depends
TOLERANCE = 0.5  # seconds by which a header may be wrong about the length of a film
HDR = {16: "PQ", 18: "HLG"}  # transfer functions of ITU-T H.273 that are not for SDR screens
DEEP = re.compile(r"(gray|gbra?p|yuva?4\d\dp)(9|1\d)[lb]e")  # FFmpeg's names of planar pixel formats of 9 bits or more


class Stamps:
    """The time stamps by which a film's frames are found, in the unit of its stream.

    If they do not ascend, none are kept, and the frames of the film are counted from its start.
    """

    def __init__(self, frames, keyframes, positions):
        self.frames = np.asarray(frames, np.int64)  # (N,), ascending
        self.keyframes = np.asarray(keyframes, np.int64)  # (K,), ascending numbers of frames where decoding can start
        self.positions = np.asarray(positions, np.int64)  # (K,), byte offsets of keyframes, which identify them

    @classmethod
    def of(cls, frames: list, positions: dict) -> "Stamps":
        """From the stamps of all frames in display order, and the byte offsets of keyframes by stamp."""
        if None in frames or any(after <= before for before, after in pairwise(frames)):
            return cls([], [], [])
        keyframes = [number for number, stamp in enumerate(frames) if stamp in positions]
        return cls(frames, keyframes, [positions[frames[number]] for number in keyframes])

    def pack(self) -> bytes:
        """As compressed bytes; few, as the steps between the stamps of most films repeat."""
        steps = [np.diff(column, prepend=0) for column in (self.frames, self.keyframes, self.positions)]
        return zlib.compress(np.concatenate([[self.frames.size], *steps]).astype("<i8").tobytes())

    @classmethod
    def unpack(cls, packed: bytes) -> "Stamps":
        """The inverse of `pack`."""
        size, *steps = np.frombuffer(zlib.decompress(packed), "<i8")
        return cls(*map(np.cumsum, (steps[:size], *np.split(np.array(steps[size:]), 2))))

    def number(self, stamp: int | None) -> int | None:
        """The number of the frame with this time stamp, None if there is none."""
        number = int(np.searchsorted(self.frames, stamp)) if stamp is not None else self.frames.size
        return number if number < self.frames.size and self.frames[number] == stamp else None


def open_reader(path: Path, stamps: bytes = b"") -> "FileReader | FolderReader":
    """Open a video file or a folder of frames. The reader has `read(index)`, `count()` and `close()`.

    stamps: packed time stamps of the file from an earlier reader; if empty, they are read from the file.
    Raises BadInput if the path is not a video or a folder.
    """
    return FolderReader(path) if path.is_dir() else FileReader(path, stamps)


class FileReader:
    """Frames of a video file. Reading forwards decodes each frame once and holds only one.

    A frame's number is its index in a plain read from the start. It is found by the frame's time stamp, so decoding can
    start anywhere. A frame that cannot be decoded keeps its number. Raises BadInput for a file that is not a video.
    """

    def __init__(self, path: Path, stamps: bytes = b""):
        self._path, self._reformatter = path, VideoReformatter()
        self._film = self._stream = self._frames = self._frame = None
        self._wanted = None  # time stamp of the frame to which decoding goes on; None: all frames are decoded
        self._damaged = 0  # packets that could not be decoded
        self._counted = 0  # frames, if all were decoded to get their stamps
        self.bits, self.transfer, self.interlaced = 8, "", False  # of the first frames; unknown if stamps are given
        self.promised = 0  # frames according to the header, if the file holds fewer
        self.stamps = Stamps.unpack(stamps) if stamps else self._read_stamps()
        self._seeking_fails = False  # after a seek that found no known frame
        self._rewind()

    def read(self, index: int) -> np.ndarray | None:
        """Frame `index` (0 is the first) as players show it, uint8 (H, W, 3), RGB; None if it cannot be decoded."""
        frame = self._find(index)
        try:
            return None if frame is None else self._picture(frame)
        except av.FFmpegError:  # FFmpeg cannot convert its pixel format
            return None

    def count(self) -> int:
        """Frames from the first to the last one that can be decoded."""
        if self._counted and not self.stamps.frames.size:
            return self._counted
        expected = len(self.stamps.frames)
        if expected and self._find(expected - 1) is not None:
            return expected
        self._seeking_fails = False  # the last frame may be damaged; others can be found
        for key in self._keyframes_until(expected):
            if self._seek(key, expected):
                last = self._read_to_end()
                if self._is_trusted():
                    return last + 1
        self._rewind()
        return self._read_to_end() + 1

    def close(self):
        """Close the file and free the memory of its decoder."""
        self._close_film()
        gc.collect()  # PyAV's objects refer to each other: some 100 MB would stay until Python collects cycles

    def _close_film(self):
        if self._film is not None:
            self._film.close()
        self._film = self._stream = self._frames = self._frame = None

    def _open(self):
        self._close_film()
        formats = ",".join(sorted(av.formats_available - PLAYLISTS))
        only_local = {"protocol_whitelist": "file", "format_whitelist": formats}
        try:
            if not self._path.stat().st_size:
                raise BadInput(f"{self._path} is empty, expected a video")
            self._path.open("rb").close()
            # With "file:" no name is read as a URL.
            self._film = av.open(f"file:{self._path}", container_options=only_local, metadata_errors="replace")
            covers = Disposition.attached_pic | Disposition.timed_thumbnails
            self._stream = next((s for s in self._film.streams.video if not s.disposition & covers), None)
        except av.FFmpegError:
            self._stream = None
        except OSError as error:
            raise BadInput(f"cannot read {self._path}: {error.strerror}") from None
        if self._stream is None or self._stream.codec_context is None:
            raise BadInput(
                f"{self._path} is not a video that can be opened, or its header or index is damaged: "
                "expected for example .mp4, .mkv or .avi"
            )
        self._stream.codec_context.thread_count = 1  # there is one worker process for each core
        self._stream.codec_context.thread_type = "NONE"

    def _packets(self, *streams):
        """The packets of some streams, as far as the file can be read. The last is an empty packet, or None."""
        try:
            yield from self._film.demux(*streams)
        except av.FFmpegError:
            yield None

    def _decoded(self, packets):
        decoder = self._stream.codec_context
        for packet in packets:
            if packet is not None and decoder.name in SKIPPING:
                is_passed = self._wanted is not None and packet.pts is not None and packet.pts < self._wanted
                # No other frame depends on these, so those before the wanted one need not be decoded.
                decoder.skip_frame = "NONREF" if is_passed else "DEFAULT"
            try:
                yield from self._stream.decode(packet)
            except av.FFmpegError:  # only the frame of the damaged packet is lost
                self._damaged += 1

    def _read_stamps(self):
        self._open()
        stamps, positions, in_file_order = self._packet_stamps()
        self._open()
        head = []
        for frame in islice(self._decoded(self._packets(self._stream)), CHECKED):
            head.append(frame.pts)
            self.bits = max(self.bits, *(part.bits for part in frame.format.components))
            self.transfer = self.transfer or HDR.get(frame.color_trc, "")
            self.interlaced = self.interlaced or frame.interlaced_frame
        if head and None not in (*stamps, *head):
            # Packets before the first frame belong to a scene whose beginning was cut off.
            in_order = [stamp for stamp in sorted(stamps) if stamp >= head[0]]
            # The order of frames and packets differs, but not that of the stamps: AVI stores no stamps, so these are
            # guessed by FFmpeg.
            is_guess = self._stream.codec_context.has_b_frames and in_file_order
            shown = set(head)
            lost = [stamp for stamp in in_order if stamp < head[-1] and stamp not in shown]
            if head == sorted(shown.intersection(in_order)) and len(lost) <= self._damaged and not is_guess:
                return Stamps.of(in_order, positions)
        self._open()  # the packets do not tell, for example because two make a frame: decode all of them
        decoded = [one.pts for one in self._decoded(self._packets(self._stream)) if not one.is_corrupt]
        self._counted = len(decoded)
        return Stamps.of(decoded, positions)

    def _packet_stamps(self):
        """From all packets, undecoded: time stamps, byte offsets of keyframes, and whether frames come in their order.

        Also sets `promised`.
        """
        units = [float(stream.time_base or 0) for stream in self._film.streams]
        stamps, positions, before, end, is_delayed = [], {}, None, 0.0, False
        for packet in self._packets():  # of all streams: the header gives the length of the longest one
            if packet is None or not packet.size or packet.stream_index >= len(units):
                continue
            if packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * units[packet.stream_index])
            if packet.stream_index != self._stream.index or packet.is_discard:
                continue
            jumps_back = None not in (before, packet.dts) and packet.dts < before  # as in films that were concatenated
            before = packet.dts
            is_delayed = is_delayed or packet.pts != packet.dts
            stamps.append(None if jumps_back else packet.pts)
            if packet.is_keyframe:
                positions[packet.pts] = _position(packet)
        length = (self._film.duration or 0) / av.time_base
        found = end - (self._film.start_time or 0) / av.time_base
        if length - found > max(TOLERANCE, length / 20):
            self.promised = self._stream.frames or round(len(stamps) * length / max(found, TOLERANCE))
        elif self._film.format.name == "avi":  # its length is an estimate, and no edit list hides frames
            self.promised = self._stream.frames
        in_file_order = not is_delayed or self._film.format.name == "avi"
        return stamps, positions, in_file_order and None not in stamps and stamps == sorted(stamps)

    def _rewind(self):
        self._open()
        self._start(self._packets(self._stream), 0)

    def _seek(self, key, index):
        """Start at keyframe number `key`, or near it; False if that is no known keyframe up to frame `index`."""
        try:
            self._film.seek(int(self.stamps.frames[self.stamps.keyframes[key]]), stream=self._stream)
        except av.FFmpegError:
            return False
        packets = self._packets(self._stream)
        for packet in packets:
            if packet is not None and packet.is_keyframe:
                number = self.stamps.number(packet.pts)
                # After a seek, containers without an index may give a packet the stamp of another.
                is_known = (self.stamps.keyframes == number) & (self.stamps.positions == _position(packet))
                if number is None or number > index or not is_known.any():
                    return False
                self._start(chain([packet], packets), number)
                return True
        return False

    def _start(self, packets, first):
        """Decode these packets from now on. Frames before number `first` depend on earlier ones and are not used."""
        self._frames = self._numbered(self._decoded(packets), first)
        self._first, self._frame, self._has_corrupt = first, None, False
        self._before = self._now = first - 1  # numbers of the last two frames decoded

    def _numbered(self, frames, first):
        """Yield (number, frame) of sound frames in ascending order."""
        last = first - 1
        for frame in frames:
            number = self.stamps.number(frame.pts) if self.stamps.frames.size else last + 1
            if frame.is_corrupt:
                self._has_corrupt = True
            elif number is not None and number > last:
                last = number
                yield number, frame

    def _is_trusted(self):
        """True if a missing frame cannot be decoded at all. After a seek, H.264 may need frames before the keyframe."""
        return not self._first or (self._starts_at_keyframe and not self._has_corrupt)

    def _find(self, index):
        keys = self._keyframes_until(index)
        seeking_helps = keys and self.stamps.keyframes[keys[0]] > self._now + SEEK_FROM and not self._seeking_fails
        if self._before < index and (index <= self._now or not seeking_helps):
            frame = self._forward(index)
            if frame is not None or self._is_trusted():
                return frame
        for key in () if self._seeking_fails else keys:
            if self._seek(key, index):
                frame = self._forward(index)
                if frame is not None or self._is_trusted():
                    return frame
        self._seeking_fails = len(keys) == KEYFRAMES_TRIED or self._has_corrupt  # do not try again
        self._rewind()
        return self._forward(index)

    def _keyframes_until(self, index):
        """The last keyframes up to frame `index`, as indices into the list of keyframes, the last one first."""
        stop = int(np.searchsorted(self.stamps.keyframes, index, side="right"))
        return range(stop - 1, max(-1, stop - 1 - KEYFRAMES_TRIED), -1)

    def _forward(self, index):
        if self._now < index:
            self._wanted = int(self.stamps.frames[index]) if index < self.stamps.frames.size else None
            while self._now < index:
                self._step()
            self._before = max(self._before, index - 1)  # frames before may have been passed over, not decoded
        return self._frame if self._now == index else None

    def _step(self):
        is_first, self._before = self._now < self._first, self._now
        self._now, self._frame = next(self._frames, (np.inf, None))
        if is_first:
            self._starts_at_keyframe = self._now == self._first
            # An earlier keyframe may be needed to decode the first frame.
            if self._first and self._frame and not self._starts_at_keyframe:
                self._before = self._now - 1

    def _read_to_end(self):
        """The number of the last frame that can be decoded."""
        self._wanted = None
        while self._now < np.inf:
            self._step()
        return self._before

    def _picture(self, frame):
        deep, shallow = DEEP.fullmatch(frame.format.name), frame
        if deep:  # to 8 bits first, from which the conversion to RGB is fast
            shallow = self._reformatter.reformat(frame, format=deep[1], threads=1)
        rgb = self._reformatter.reformat(shallow, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
        picture, matrix = rgb.to_ndarray(), frame.side_data.get("DISPLAYMATRIX")
        if frame.interlaced_frame:
            picture = one_field(picture)
        if matrix is not None:
            picture = upright(picture, np.frombuffer(matrix, "<i4"))
        return np.ascontiguousarray(picture)


def _position(packet):
    return -1 if packet.pos is None else packet.pos


def one_field(picture: np.ndarray) -> np.ndarray:
    """One field of an interlaced picture: its even rows, and the rows between interpolated. uint8 (H, W, 3)."""
    kept = picture[::2]
    filled = picture.copy()
    gaps = filled[1::2]
    gaps[: len(kept) - 1] = cv2.addWeighted(kept[:-1], 0.5, kept[1:], 0.5, 0)
    gaps[len(kept) - 1 :] = kept[-1]
    return filled


def upright(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate by multiples of 90 degrees and mirror a picture as its display matrix says. uint8 (H, W, 3).

    matrix: int32 (9,), of FFmpeg or MP4: x' = m0 x + m3 y, y' = m1 x + m4 y. Other angles are ignored.
    """
    across, down = matrix[0], matrix[4]
    if not across and not down:
        picture, across, down = picture.swapaxes(0, 1), matrix[3], matrix[1]
    elif matrix[1] or matrix[3]:
        return picture
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


class FolderReader:
    """The pictures of a folder in natural order, as frames. Raises BadInput if there is no such folder."""

    def __init__(self, path: Path):
        folder = next(files.walk(path), None)
        if folder is None:
            raise BadInput(f"cannot read {path}: expected a folder of pictures")
        self.files = [path / name for name in folder[1] if name.lower().endswith(images.ENDINGS)]

    def read(self, index: int) -> np.ndarray | None:
        """Frame `index` (0 is the first), uint8 (H, W, 3), RGB; None if it cannot be decoded."""
        try:
            return images.read_rgb(self.files[index]) if index < len(self.files) else None
        except BadInput:
            return None

    def count(self) -> int:
        """The number of pictures."""
        return len(self.files)

    def close(self):
        """Does nothing, as no file is kept open."""
