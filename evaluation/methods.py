"""Inpainting methods: one function and one row of METHODS for each, and three doors for any other program.

A method is a function of (image, hole), uint8 (H, W, 3) RGB with black where pixels are missing and bool (H, W), that
returns uint8 (H, W, 3). What it returns outside the hole counts only in a raw benchmark.
"""

import ctypes
import difflib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from evaluation.settings import NETWORKS
from maskgen import maskset
from maskgen.errors import BadInput

GROUP = "irregular_masks.methods"  # entry points of packages that bring methods of their own
DOORS = ("dir", "cmd", "onnx")


class Failed(Exception):
    """One pair that a method could not do. The benchmark writes it down and goes on."""


def mean(image, hole):
    """Every missing pixel takes the mean colour of the others; grey if there are none."""
    return _fill(image, hole, image[~hole].mean(0) if not hole.all() else 127.5)


def grey(image, hole):
    """Every missing pixel is 128."""
    return _fill(image, hole, 128)


def telea(image, hole):
    """Fast marching (Telea 2004), radius 3, OpenCV."""
    return cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def ns(image, hole):
    """Navier-Stokes (Bertalmio et al. 2001), radius 3, OpenCV."""
    return cv2.inpaint(image, hole.astype(np.uint8), 3, cv2.INPAINT_NS)


def biharmonic(image, hole):
    """Biharmonic equation (Damelin & Hoang 2018), scikit-image, every connected hole solved apart."""
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(image, hole, split_into_regions=True, channel_axis=-1)
    return (filled * 255).round().clip(0, 255).astype(np.uint8)


def patchmatch(image, hole):
    """PatchMatch (Barnes et al. 2009) of the package PyPatchMatch, patches of radius 3: 7 x 7 px."""
    from patchmatch import patch_match

    return patch_match.inpaint(image, hole.astype(np.uint8) * 255, patch_size=3)


def bicubic(image, hole):
    """Cubic enlargement of the small image whose pixels a super-resolution problem spreads out, OpenCV."""
    return cv2.resize(small_image(image, hole), hole.shape[::-1], interpolation=cv2.INTER_CUBIC)


def small_image(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The small image whose pixels a super-resolution problem spreads out, uint8 (h, w, 3).

    Raises Failed where the known pixels are not a regular lattice, as in an inpainting problem.
    """
    rows, columns = np.flatnonzero(~hole.all(1)), np.flatnonzero(~hole.all(0))
    if len(rows) < 2 or len(columns) < 2 or hole[np.ix_(rows, columns)].any() or not hole.any():
        raise Failed("it enlarges images: it is a method of `evaluate superres`")
    return image[np.ix_(rows, columns)]


def _fill(image, hole, colour):
    filled = image.copy()
    filled[hole] = np.round(colour)
    return filled


METHODS = {
    "mean": mean,
    "grey": grey,
    "telea": telea,
    "ns": ns,
    "biharmonic": biharmonic,
    "patchmatch": patchmatch,
    "bicubic": bicubic,
}
PLAIN = ("mean", "grey", "telea", "ns", "bicubic")  # a few lines of NumPy or one call of OpenCV that always ends


@dataclass(frozen=True)
class Method:
    """What the user asked for with --method: a name of METHODS, of a network or of an entry point, or a door."""

    label: str  # its name in every table
    kind: str  # "name", "network", "dir", "cmd" or "onnx"
    argument: str  # the name, or what follows the door's colon
    weights: str = ""  # file of a network; empty takes the one that ships
    folder: str = ""  # where it works; empty where its process is started

    @property
    def plain(self) -> bool:
        """Whether it can neither hang nor crash, so that it needs no process of its own."""
        return self.kind == "name" and self.argument in PLAIN

    @property
    def net(self) -> str:
        """Which network of pconv_model it is: what stands before a +, with which it runs at all scales and mirrored."""
        return self.argument.removesuffix("+")

    @property
    def batched(self) -> bool:
        """Whether it runs once, on all cores or the graphics card, and not in several processes."""
        return self.kind in ("network", "onnx")

    def absolute(self) -> "Method":
        """The same, for a worker that is in another folder."""
        argument = str(Path(self.argument).absolute()) if self.kind in ("dir", "onnx") else self.argument
        weights = self.weights and str(Path(self.weights).absolute())
        return replace(self, argument=argument, weights=weights, folder=str(Path.cwd()) if self.kind == "cmd" else "")

    @property
    def always_starts(self) -> bool:
        """Whether it needs nothing that may be missing: no package beyond our own, no file, no program."""
        return self.kind == "name" and self.argument in METHODS and self.argument != "patchmatch"

    def identity(self) -> dict:
        """What makes its results its own, for recipe.json: a file by its hash, a folder by its files."""
        told = {"kind": self.kind, "argument": self.argument}
        if self.weights:
            told["weights_sha256"] = _sha256(Path(self.weights), "weights")
        if self.kind == "onnx":
            told["sha256"] = _sha256(Path(self.argument), "an ONNX model")
        if self.kind == "dir":
            told["files"] = _listing(Path(self.argument))
        return told


def parse(text: str, weights: dict[str, str] | None = None) -> Method:
    """Read one --method: `telea`, `dir:FOLDER`, `cmd:PROGRAM`, `onnx:FILE`, each with `LABEL=` before it if wanted.

    weights: files for networks by their label or name. Raises BadInput for an unknown name, with the nearest ones, for
    a bad label, for an empty door, and for a program that is not there or has no place for its files.
    """
    label, spec = _label_and_spec(text)
    door, colon, argument = spec.partition(":")
    if colon and door in DOORS:
        if not argument.strip():
            raise BadInput(f"--method {text!r} names nothing after {door}: - expected {door}:SOMETHING")
        if door == "cmd":
            _words(argument)
        return Method(_checked(label or _short(door, argument)), door, argument)
    if spec in NETWORKS:
        method = Method(_checked(label or spec), "network", spec)
        files = [weights[name] for name in (label, spec, method.net) if weights and name in weights]
        return replace(method, weights=str(files[0])) if files else method
    others = entry_points(group=GROUP).names
    if spec not in METHODS and spec not in others:
        near = difflib.get_close_matches(spec.lower(), [*METHODS, *NETWORKS, *others])
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise BadInput(
            f"no method {spec!r}{meant}: expected one of {', '.join([*METHODS, *NETWORKS])}, "
            "dir:FOLDER, cmd:'PROGRAM {image} {mask} {output}' or onnx:FILE"
        )
    return Method(_checked(label or spec), "name", spec)


def parse_all(texts, weights=()) -> list[Method]:
    """Read every --method with --weights FILE or --weights NAME=FILE, where NAME is the label or the name of a network.

    Raises BadInput where two methods share a label, and for weights that are missing or whose network is not known.
    """
    texts = list(texts)
    networks = [method for method in map(parse, texts) if method.kind == "network"]
    names = [method.label for method in networks]
    known = {name for method in networks for name in (method.label, method.argument, method.net)}
    files = {}
    for text in weights:
        name, equals, file = text.partition("=")
        if not equals or name not in known:
            if len(names) != 1:
                came = " and ".join(sorted(names)) or "no network"
                raise BadInput(f"--weights {text}: expected one network among the methods, got {came}: write NAME=FILE")
            name, file = names[0], text
        if not Path(file).is_file():
            raise BadInput(f"no weights file {file}: expected a checkpoint of {name}, or NAME=FILE")
        files[name] = file
    methods = [parse(text, files) for text in texts]
    labels = [method.label for method in methods]
    for label in labels:
        if labels.count(label) > 1:
            raise BadInput(f"two methods are called {label}: write --method OTHERNAME={label}...")
    return methods


def _label_and_spec(text):
    before, equals, after = text.partition("=")
    return (before, after) if equals and ":" not in before else ("", text)


def _short(door, argument):
    return Path(shlex.split(argument)[0] if door == "cmd" else argument).stem or door


def _checked(label):
    if not all(c.isalnum() or c in "-_.+" for c in label) or label.startswith("."):
        raise BadInput(f"a method's label is a file name of letters, digits and -_.+, got {label!r}: use LABEL=METHOD")
    if label == "truth":
        raise BadInput("no method can be called truth, the true images are: use another LABEL=METHOD")
    return label


def _sha256(path, what):
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror} (expected {what})") from None


def _listing(folder):
    if not folder.is_dir():
        raise BadInput(f"no such folder: {folder} (expected results named after the pairs: 00000.png ...)")
    files = sorted(f"{path.name} {path.stat().st_size}" for path in folder.iterdir() if path.is_file())
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def load(method: Method, *, raw: bool = False, threads: int = 1) -> Callable:
    """The function of (pair id, image, hole) that does a method's work, with everything loaded that it needs.

    Raises BadInput for what the user must mend first: a missing package, missing weights, a broken model file.
    """
    if method.kind == "dir":
        return partial(_from_folder, Path(method.argument))
    if method.kind == "cmd":
        return partial(_by_program, _words(method.argument))
    if method.kind == "onnx":
        return _without_pair(_onnx(Path(method.argument), threads))
    if method.kind == "network":
        return Network(method, raw, threads)
    if method.argument == "patchmatch" and not find_spec("patchmatch"):
        raise BadInput("patchmatch is not installed: pip install 'irregular-masks[patchmatch]'")
    if method.argument in METHODS:
        return _without_pair(METHODS[method.argument])
    return _without_pair(entry_points(group=GROUP)[method.argument].load())


def _without_pair(function):
    return lambda pair, image, hole: function(image, hole)


class Network:
    """A network of pconv_model as a method; `many` takes neighbours through it together."""

    def __init__(self, method: Method, raw: bool, threads: int):
        try:
            import torch

            from pconv_model import inpaint
        except ImportError as error:
            raise BadInput(f"the network {method.argument} cannot be loaded: {error}") from None
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        weights = Path(method.weights) if method.weights else None
        plus = method.argument != method.net
        self.model = inpaint.load(weights, method.net, device, mirror=plus, scales=plus)
        self.inpaint_batch, self.raw = inpaint.inpaint_batch, raw

    def __call__(self, pair, image, hole):
        return self.many([(pair, image, hole)])[0]

    def many(self, pairs):
        """What the network makes of [(pair id, image, hole), ...]."""
        _, images, holes = zip(*pairs, strict=True)
        return list(self.inpaint_batch(self.model, images, holes, self.raw))


def _from_folder(folder, pair, image, hole):
    for suffix in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        path = folder / f"{pair}{suffix}"
        if path.is_file():
            try:
                return read_image(path)
            except Failed as error:  # goes into the table, which is the same wherever the folder lies
                raise Failed(str(error).replace(str(path), path.name)) from None
    raise Failed(f"no {pair}.png in {folder.name}")


def read_image(path: Path) -> np.ndarray:
    """Read any image as uint8 (H, W, 3), RGB, turned as its EXIF says. Raises Failed for what is none."""
    try:
        return decode_image(path.read_bytes(), path)
    except OSError as error:
        raise Failed(f"cannot read {path}: {error.strerror}") from None


def decode_image(data: bytes, name: Path) -> np.ndarray:
    """The image in the bytes of a file, as `read_image` does. name: for the message if there is none."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    except cv2.error:  # it claims an absurd size
        image = None
    if image is None:
        raise Failed(f"{name} is not an image that can be read")
    return image


def _words(command):
    words = shlex.split(command)
    for needed in ("{image}", "{mask}", "{output}"):
        if not any(needed in word for word in words):
            raise BadInput(f"cmd:{command} has no {needed}: expected cmd:'PROGRAM {{image}} {{mask}} {{output}}'")
    if not shutil.which(words[0]):
        raise BadInput(f"cannot start {words[0]}: no such program (expected its name on PATH, or its path)")
    return words


def _by_program(words, pair, image, hole):
    """Run a program on PNG files: the image, the mask (255 = hole), and the path where it shall write its result."""
    with tempfile.TemporaryDirectory(prefix="evaluate-") as folder:
        paths = {name: Path(folder) / f"{name}.png" for name in ("image", "mask", "output")}
        cv2.imwrite(str(paths["image"]), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        paths["mask"].write_bytes(maskset.encode(hole))
        # Only the three names are filled in: other braces, as in a program's JSON argument, stay as they are.
        line = list(words)
        for name, path in {**paths, "pair": pair}.items():
            line = [word.replace("{" + name + "}", str(path)) for word in line]
        parent = os.getpid()
        first = (lambda: die_with(parent)) if sys.platform == "linux" else None
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=first, check=False)
        said = done.stderr.decode(errors="replace").strip().splitlines()
        last_word = f": {said[-1]}" if said else ""
        if done.returncode:
            raise Failed(f"{line[0]} ended with code {done.returncode}{last_word}")
        if not paths["output"].is_file():
            raise Failed(f"{line[0]} ended well but wrote no output{last_word}")
        return read_image(paths["output"])


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when the process `parent` that started it ends, also by a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before we asked
            os._exit(1)


def _onnx(path, threads):
    """A network of two inputs, image and mask, or of one with both; floats or bytes as the file declares.

    image: (1, 3, H, W) RGB, float in 0..1 or uint8; mask: (1, 1, H, W), 1 (255 for uint8) in the hole, or where pixels
    are known if the input is called "valid", as in what `pconv export` writes. One input of four channels takes both.
    The output is (1, 3, H, W) in the image's own form.
    """
    try:
        import onnxruntime
    except ImportError:
        raise BadInput("onnx: needs onnxruntime: pip install 'irregular-masks[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime has a dozen error classes of its own
        raise BadInput(f"{path} is not an ONNX model that can be loaded: {str(error).splitlines()[0]}") from None
    inputs = session.get_inputs()
    if len(inputs) not in (1, 2):
        raise BadInput(f"{path} has {len(inputs)} inputs: expected image and mask, or one of four channels")

    def fill(image, hole):
        plane, marked = image.transpose(2, 0, 1)[None], hole[None, None]
        if len(inputs) == 2:
            arrays = [plane, ~marked if "valid" in inputs[1].name else marked]
        else:
            arrays = [np.concatenate([plane, marked * np.uint8(255)], 1)]
        feed = {}
        for asked, array in zip(inputs, arrays, strict=True):
            if asked.type == "tensor(uint8)":
                feed[asked.name] = array.astype(np.uint8) * (255 if array.dtype == bool else 1)
            else:
                feed[asked.name] = (array if array.dtype == bool else array / 255).astype(np.float32)
        out = session.run(None, feed)[0]
        if out.dtype != np.uint8:
            if not np.isfinite(out).all():
                raise Failed("the result holds NaN or infinite values")
            out = (out * 255).round().clip(0, 255).astype(np.uint8)
        return out[0].transpose(1, 2, 0)

    return fill
