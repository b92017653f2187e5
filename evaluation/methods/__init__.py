"""Inpainting methods: one function and one row of METHODS for each, and three doors for any other program.

A method is a function of (image, hole), uint8 (H, W, 3) RGB with black where pixels are missing and bool (H, W), that
returns uint8 (H, W, 3). What it returns outside the hole counts only in a raw benchmark.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from evaluation.methods import identity
from evaluation.methods.doors import Failed, Folder, Program, words_of
from evaluation.settings import NETWORKS, RIVALS
from maskgen.errors import BadInput, install_hint, warn
from maskgen.runtime import files

GROUP = "irregular_masks.methods"  # entry points of packages that bring methods of their own
DOORS = ("dir", "cmd", "onnx")


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
        """Which network it is: what stands before a +."""
        return self.argument.partition("+")[0]

    @property
    def how(self) -> dict[str, bool]:
        """How a network runs: the +. Ours runs at all scales and mirrored, another's result is blended."""
        plus = self.argument != self.net
        return {"post": plus} if self.argument in RIVALS else {"mirror": plus, "scales": plus}

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
        """All that decides its results, for recipe.json. Raises BadInput where a file or a folder is missing."""
        if self.kind == "dir":
            return identity.of_folder(Path(self.argument))
        if self.kind == "cmd":
            return identity.of_command(self.argument, Path(self.folder))
        if self.kind == "onnx":
            return identity.of_onnx(Path(self.argument))
        if self.kind == "network":
            of_net = identity.of_rival if self.argument in RIVALS else identity.of_net
            return of_net(self.net, Path(self.weights) if self.weights else None, self.how)
        if self.argument in METHODS:
            return identity.of_name(self.argument)
        return identity.of_plug_in(self.argument, entry_point(self.argument))


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
            words_of(argument)
        return Method(_checked(label or _short(door, argument)), door, argument)
    if spec in NETWORKS:
        method = Method(_checked(label or spec), "network", spec)
        given = [weights[name] for name in (label, spec, method.net) if weights and name in weights]
        return replace(method, weights=str(given[0])) if given else method
    others = entry_points(group=GROUP).names
    if spec in METHODS and spec in others:
        warn(f"{spec} is our own method: the one of that name in {entry_point(spec).value} is not used")
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
    given = {}
    for text in weights:
        name, equals, file = text.partition("=")
        if not equals or name not in known:
            if len(names) != 1:
                came = " and ".join(sorted(names)) or "no network"
                raise BadInput(f"--weights {text}: expected one network among the methods, got {came}: write NAME=FILE")
            name, file = names[0], text
        if not Path(file).is_file():
            raise BadInput(f"no weights file {file}: expected a checkpoint of {name}, or NAME=FILE")
        given[name] = file
    methods = [parse(text, given) for text in texts]
    taken = set()
    for label in (method.label for method in methods):
        if label.lower() in taken:  # they name files, and not every file system tells A from a
            raise BadInput(f"two methods are called {label}: write --method OTHERNAME={label}...")
        taken.add(label.lower())
    return methods


def _label_and_spec(text):
    before, equals, after = text.partition("=")
    return (before, after) if equals and ":" not in before else ("", text)


def _short(door, argument):
    """A label made of what follows a door's colon."""
    if door == "dir":
        name = Path(argument).absolute().name
    else:
        name = Path(words_of(argument)[0] if door == "cmd" else argument).stem
    return files.shortened(re.sub(r"[^\w.+-]+", "_", name).strip("._")) or door


def _checked(label):
    if not re.fullmatch(r"[\w+-][\w.+-]*", label):
        raise BadInput(f"a method's label is a file name of letters, digits and -_.+, got {label!r}: use LABEL=METHOD")
    if files.shortened(label) != label:
        raise BadInput(f"a method's label has {files.LONGEST} bytes at most, got {label!r}: use a shorter LABEL=METHOD")
    if label.lower() == "truth":
        raise BadInput("no method can be called truth, the true images are: use another LABEL=METHOD")
    return label


def entry_point(name: str) -> EntryPoint:
    """The plug-in of a name. Raises BadInput where two packages bring one."""
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if len(points) > 1:
        raise BadInput(f"two packages bring a method {name}: {' and '.join(points)}: uninstall one")
    return next(iter(points.values()))


def load(method: Method, *, raw: bool = False, threads: int = 1, size: tuple[int, int] | None = None) -> Callable:
    """The function of (pair id, image, hole) that does a method's work, with everything loaded that it needs.

    size: px, height and width of all images, where they have one size. Raises BadInput for what the user must mend
    first: a missing package, missing weights, a broken model file, a size at which it does not work.
    """
    if method.kind == "dir":
        return Folder(Path(method.argument))
    if method.kind == "cmd":
        return Program(method.argument)
    if method.kind == "onnx":
        from evaluation.methods.onnx_model import Model

        return Model(Path(method.argument), threads, size)
    if method.argument in RIVALS:
        return _rival(method, threads)
    if method.kind == "network":
        return Network(method, raw, threads)
    if method.argument == "patchmatch" and not find_spec("patchmatch"):
        raise BadInput(f"patchmatch is not installed: {install_hint('patchmatch')}")
    if method.argument in METHODS:
        return _without_pair(METHODS[method.argument])
    return _without_pair(entry_point(method.argument).load())


def _rival(method, threads):
    """A network of evaluation.methods.nets."""
    try:
        import torch

        from evaluation.methods.nets import run
    except ImportError as error:
        raise BadInput(f"the network {method.argument} cannot be loaded: {error}") from None
    torch.set_num_threads(threads)
    weights = Path(method.weights) if method.weights else None
    return _without_pair(run.load(method.net, weights, identity.device(), **method.how))


def _without_pair(function):
    return lambda pair, image, hole: function(image, hole)


class Network:
    """A network of pconv_model as a method; `many` takes neighbours through it together."""

    def __init__(self, method: Method, raw: bool, threads: int):
        try:
            import torch

            from pconv_model.inpaint import Inpainter
        except ImportError as error:
            raise BadInput(f"the network {method.argument} cannot be loaded: {error}") from None
        torch.set_num_threads(threads)
        weights = Path(method.weights) if method.weights else None
        self.inpainter = Inpainter.load(weights, method.net, device=identity.device(), **method.how)
        self.raw = raw

    def __call__(self, pair, image, hole):
        return self.many([(pair, image, hole)])[0]

    def many(self, pairs):
        """What the network makes of [(pair id, image, hole), ...]."""
        _, images, holes = zip(*pairs, strict=True)
        return list(self.inpainter.fill_all(images, holes, self.raw))
