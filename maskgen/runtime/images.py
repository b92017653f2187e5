"""Picture files: the one place that finds, reads and writes them.

Arrays are upright, whatever the EXIF orientation of the file, and keep its 8 or 16 bits: grey (H, W), RGB (H, W, 3) or
RGB with alpha (H, W, 4). OpenCV decodes all files that it decodes without loss; Pillow decodes the others, and reads
the metadata.
"""

import contextlib
import hashlib
import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from maskgen.errors import BadInput
from maskgen.runtime import files
from maskgen.runtime.files import write_whole

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**28  # 16384 x 16384 px; a damaged or hostile file may claim any size
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION, WIDTH, HEIGHT = 0x0112, 0xA002, 0xA003  # EXIF tags
WIDTH_TAG, HEIGHT_TAG = 256, 257  # of TIFF
FAX = {258: 1, 259: 4, 262: 1}  # of TIFF: 1 bit, Group 4, 1 is white
FAX_TAGS = {WIDTH_TAG, HEIGHT_TAG, *FAX, 266, 273, 277, 278, 279, 284}  # others need Pillow, such as an orientation
TURNED = (  # functions that make an array upright, for EXIF orientations 1 to 8
    lambda a: a,
    lambda a: a[:, ::-1],
    lambda a: a[::-1, ::-1],
    lambda a: a[::-1],
    lambda a: a.swapaxes(0, 1),
    lambda a: a.swapaxes(0, 1)[:, ::-1],
    lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    lambda a: a.swapaxes(0, 1)[::-1],
)


@dataclass(frozen=True)
class Metadata:
    """What a picture file stores besides its pixels, to be kept in the file of a result."""

    icc: bytes = b""  # colour profile
    dpi: tuple[float, float] | None = None  # pixels per inch, across and down
    exif: bytes = b""  # without the orientation, since arrays are upright


@dataclass(frozen=True)
class Stored:
    """A picture as stored in its file, but upright."""

    pixels: np.ndarray  # uint8, uint16 or float; (H, W), (H, W, 3), (H, W, 4), or palette indices, uint8 (H, W)
    palette: np.ndarray | None = None  # uint8 (N, 3) or with alpha (N, 4)
    metadata: Metadata = Metadata()


def find(folder: Path, *, exclude: Iterable[Path] = (), kind: str = "picture") -> list[Path]:
    """Every picture file below a folder, in natural order. Raises BadInput if there is none.

    exclude: folders below it that are left out, such as those of masks and results. kind: what a picture is called in
    errors.
    """
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected a folder of {kind}s)")
    found = files.find(folder, ENDINGS)
    if not found:
        raise BadInput(f"no {kind} in {folder}: expected files that end in {', '.join(ENDINGS)}")
    others = [other.resolve() for other in exclude if other.resolve() != folder.resolve()]
    kept = [path for path in found if not any(path.resolve().is_relative_to(other) for other in others)]
    if not kept:
        raise BadInput(f"no {kind} in {folder} outside {' and '.join(map(str, others))}")
    return kept


def read(path: Path) -> np.ndarray:
    """Read a picture: uint8 or uint16, grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4). Raises BadInput if it is none.

    Palette indices become colours. CMYK and Lab become RGB, by their colour profile if they have one. Floats from 0 to
    1 become uint16.
    """
    return read_with_metadata(path)[0]


def read_with_metadata(path: Path) -> tuple[np.ndarray, Metadata]:
    """Read a picture as `read` does, and its metadata."""
    return decode(read_bytes(path), path)


def read_rgb(path: Path) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3), RGB, without its alpha. Raises BadInput if it is no picture."""
    return decode_rgb(read_bytes(path), path)


def read_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture in px, as they are stored, without decoding it; (0, 0) if it cannot be read."""
    width, height = _Header(read_bytes(path)).size
    return height, width


def read_bytes(path: Path, sha256: str = "") -> bytes:
    """The bytes of a file. Raises BadInput if it cannot be read, or if its SHA-256 is not the given one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {str(path)[:200]}: {error.strerror}") from None
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise BadInput(f"{path} has changed, its SHA-256 is not the recorded one: restore the old file")
    return data


def decode(data: bytes, name: Path | str) -> tuple[np.ndarray, Metadata]:
    """The picture in the bytes of a file, and its metadata, as `read_with_metadata` returns them. name: for errors."""
    stored = decode_stored(data, name)
    pixels = stored.pixels if stored.palette is None else stored.palette[stored.pixels]
    return _integers(pixels, name), stored.metadata


def decode_rgb(data: bytes, name: Path | str) -> np.ndarray:
    """The picture in the bytes of a file as uint8 (H, W, 3), RGB; 16 bits are rounded to 8, alpha is dropped."""
    image, _ = decode(data, name)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(image[..., None], 3, 2) if image.ndim == 2 else np.ascontiguousarray(image[..., :3])


def looks_complete(data: bytes) -> bool:
    """True if a JPEG, PNG, WebP or BMP file has its beginning and its end. Does not decode it.

    A file for which this is False may be complete: of another format, or a JPEG followed by other bytes.
    """
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0  # the end marker follows the last scan
    if data.startswith(PNG):
        return b"IEND" in data[-64:]
    if data[:4] == b"RIFF":
        return data[8:12] == b"WEBP" and int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return data[:2] == b"BM" and 26 < int.from_bytes(data[2:6], "little") <= len(data)


def decode_stored(data: bytes, name: Path | str, *, max_pixels: int = MAX_PIXELS) -> Stored:
    """The pixels in the bytes of a picture file as they are stored, but upright, and its metadata.

    max_pixels: a file that claims more raises BadInput before memory is allocated. Raises BadInput also for bytes that
    are no picture. name: for errors.
    """
    header = _Header(data)
    if header.pixels > max_pixels:
        raise BadInput(
            f"{name} claims {header.size[0]}x{header.size[1]} px, expected {max_pixels:,} px at most: remove it"
        )
    stored = header.decoded_by_pillow() if header.needs_pillow else None
    if stored is None:
        pixels = _decoded_by_opencv(data)
        if pixels is not None and header.has_padding and pixels.shape[2:] == (4,):
            pixels = pixels[..., :3]
        stored = Stored(TURNED[header.turn - 1](pixels)) if pixels is not None else None
    if stored is None:
        raise BadInput(f"{name} is not an image that can be read: expected a complete {', '.join(ENDINGS)} file")
    return replace(stored, pixels=np.ascontiguousarray(stored.pixels), metadata=header.metadata())


def _decoded_by_opencv(data):
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # an absurd size, no bytes, or damaged ones
        return None
    if pixels is None or pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


class _Header:
    """What Pillow reads from a file without decoding its pixels; `image` is None if it does not know the format."""

    def __init__(self, data):
        self.image, self.exif, self.orientation, self.size = None, None, 1, (0, 0)
        if _is_plain_png(data):
            self.size = struct.unpack(">II", data[16:24])
            return
        if size := _size_of_plain_fax(data):
            self.size = size
            return
        from PIL import Image

        with _quiet(), contextlib.suppress(Exception):  # Pillow's readers raise anything for damaged bytes
            self.image = Image.open(io.BytesIO(data))
            self.size = self.image.size
            if self.image.format != "PNG" or b"eXIf" in data or b"exif" in data:  # getexif would decode the whole PNG
                self.exif = self.image.getexif()
                orientation = self.exif.get(ORIENTATION)
                self.orientation = orientation if orientation in range(1, 9) else 1

    @property
    def pixels(self):
        return self.size[0] * self.size[1]

    @property
    def turn(self):
        """The EXIF orientation to apply to what OpenCV decodes; it turns a TIFF itself."""
        return 1 if self.image is not None and self.image.format == "TIFF" else self.orientation

    @property
    def needs_pillow(self):
        """Whether OpenCV would convert the pixels, with loss or by other rules."""
        if self.image is None:
            return False
        mode, form = self.image.mode, self.image.format
        return mode not in ("L", "RGB", "RGBA", "F") and mode[0] != "I" and (mode, form) != ("LA", "PNG")

    @property
    def has_padding(self):
        """Whether a fourth sample is no alpha: a TIFF may have one without a meaning, which OpenCV takes for alpha."""
        return self.image is not None and (self.image.format, self.image.mode) == ("TIFF", "RGB")

    def decoded_by_pillow(self):
        """The upright picture, or None if the file is damaged."""
        from PIL import ImageOps

        try:
            with _quiet():
                image = self.image
                image.load()
                if self.orientation != 1:  # no effect on a TIFF, which is turned as it is loaded
                    image = ImageOps.exif_transpose(image)
                if image.mode == "P":
                    return _with_palette(image)
                if image.mode == "1":
                    return Stored(np.asarray(image.convert("L")))
                if image.mode == "La":  # multiplied by alpha; Pillow converts it to LA only
                    image = image.convert("LA")
                if image.mode in ("LA", "PA", "RGBX"):
                    return Stored(np.asarray(image.convert("RGB" if image.mode == "RGBX" else "RGBA")))
                stored = Stored(np.asarray(_to_srgb(image)))
                self.image.info.pop("icc_profile", None)  # the pixels are sRGB now
                return stored
        except Exception:  # as above
            return None

    def metadata(self):
        """Profile, resolution and EXIF of the file, adapted to upright pixels."""
        if self.image is None:
            return Metadata()
        dpi = self.image.info.get("dpi")
        try:
            with _quiet():
                dpi = tuple(float(value) for value in dpi) if dpi else None
        except (TypeError, ValueError, ZeroDivisionError):
            dpi = None
        if dpi and not (len(dpi) == 2 and all(0 < value < 1e5 for value in dpi)):
            dpi = None
        if dpi and self.orientation > 4:
            dpi = dpi[::-1]
        return Metadata(self.image.info.get("icc_profile") or b"", dpi, self._exif())

    def _exif(self):
        from PIL import ExifTags

        if not self.exif or self.image.format == "TIFF":  # whose EXIF directory describes the strips of this file
            return b""
        try:
            with _quiet():
                details = self.exif.get_ifd(ExifTags.IFD.Exif)
                self.exif.pop(ORIENTATION, None)
                if self.orientation > 4 and WIDTH in details and HEIGHT in details:
                    details[WIDTH], details[HEIGHT] = details[HEIGHT], details[WIDTH]
                return self.exif.tobytes()
        except Exception:  # damaged EXIF is dropped
            return b""


def _is_plain_png(data):
    """Whether a file is a grey or RGB PNG without metadata, as nearly all masks are."""
    plain = data[:8] == PNG and data[24:26] in (b"\x08\x00", b"\x08\x02", b"\x10\x00", b"\x10\x02")
    return plain and not any(chunk in data for chunk in (b"eXIf", b"iCCP", b"pHYs", b"exif"))


def _size_of_plain_fax(data):
    """Width and height of a bilevel TIFF, CCITT Group 4 and white for 1, without metadata; None for any other file."""
    if data[:4] != b"II*\0":
        return None
    try:
        (place,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, place)
        fields = [struct.unpack_from("<HHII", data, place + 2 + 12 * i) for i in range(count)]
        (following,) = struct.unpack_from("<I", data, place + 2 + 12 * count)
    except struct.error:
        return None
    tags = {tag: value for tag, _, number, value in fields if number == 1}
    plain = len(tags) == count and not following and FAX.items() <= tags.items() and set(tags) <= FAX_TAGS
    return (tags[WIDTH_TAG], tags[HEIGHT_TAG]) if plain and {WIDTH_TAG, HEIGHT_TAG} <= set(tags) else None


@contextlib.contextmanager
def _quiet():
    """Switch off Pillow's size limit and warnings; we have our own."""
    import warnings

    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _with_palette(image):
    kind = "RGBA" if "transparency" in image.info or image.palette.mode == "RGBA" else "RGB"
    indices = np.asarray(image)
    ramp = image.copy()
    ramp = ramp.crop((0, 0, 256, 1))
    ramp.putdata(range(256))
    return Stored(indices, np.asarray(ramp.convert(kind)).reshape(256, -1))


def _to_srgb(image):
    """RGB of a picture in another colour space, by its own profile if that fits."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if profile and image.mode in ("CMYK", "LAB"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert("RGB")


def _integers(pixels, name):
    """uint8 and uint16 unchanged, floats from 0 to 1 as uint16. Raises BadInput for others."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype.kind != "f" or not (low >= 0 and high <= 1):
        raise BadInput(
            f"{name} has {pixels.dtype} values from {low:g} to {high:g}: expected 8 or 16 bits, or floats from 0 to 1"
        )
    return np.rint(pixels.astype(np.float64) * 65535).astype(np.uint16)


def encode(image: np.ndarray, ending: str, metadata: Metadata | None = None, *, quality: int = 95) -> bytes:
    """The bytes of a picture file. image: uint8 or uint16, as `read` returns it, or grey (H, W, 1).

    ending: such as ".png". metadata: stored in PNG files only. quality: of JPEG. Raises BadInput for an unknown ending.
    """
    if image.ndim == 3 and image.shape[2] > 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    ending = ending.lower()
    if ending not in ENDINGS:
        raise BadInput(f"cannot write a picture that ends in {ending!r}: expected {', '.join(ENDINGS)}")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if ending in (".jpg", ".jpeg") else []
    data = cv2.imencode(ending, image, options)[1].tobytes()
    if metadata and ending == ".png":
        return _with_chunks(data, metadata, grey=image.ndim == 2 or image.shape[2] == 1)
    return data


def write(path: Path, image: np.ndarray, metadata: Metadata | None = None, *, quality: int = 95) -> None:
    """Write a picture in the format of its file name, as `encode` does. Missing folders are created."""
    data = encode(image, path.suffix, metadata, quality=quality)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def _with_chunks(png, metadata, *, grey):
    """Insert profile, resolution and EXIF after the header of a PNG (chunks iCCP, pHYs, eXIf of its specification)."""
    chunks = []
    if metadata.icc[16:20] == (b"GRAY" if grey else b"RGB "):  # not a profile for other channels
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        per_metre = (round(value / 0.0254) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    inserted = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return png[:33] + inserted + png[33:]  # signature and IHDR are 33 bytes
