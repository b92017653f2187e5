"""From the text of `--method` to a function: which methods there are, what identifies them, how they are loaded.

Each family of methods has a module: `classical`, `external` (dir: and cmd:), `served` (serve:), `user_function` (py:),
`model_file` (onnx:, torchscript: and exported:), `networks` (ours), `rivals` (networks of other authors) and `plugins`.
Modules that import torch or onnxruntime are imported when they are needed.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluation.methods import classical, conventions, external, plugins, user_function
from evaluation.methods.conventions import Conventions, Option
from evaluation.settings import COPIES, NETWORKS, RIVALS
from maskgen import checks
from maskgen.errors import BadInput, warn
from maskgen.runtime import files

PREFIXES = ("dir", "cmd", "serve", "py", *conventions.KINDS)  # of methods outside this package
FORMS = (
    "dir:FOLDER, cmd:'PROGRAM {image} {mask} {output}', serve:'PROGRAM', py:FILE.py:FUNCTION, onnx:FILE, "
    "torchscript:FILE or exported:FILE"
)


@dataclass(frozen=True)
class Method:
    """A method of a run."""

    label: str  # its name in every table
    kind: str  # "classical", "plugin", "function", "network", "rival" or one of PREFIXES
    argument: str  # the method's name, or what follows the colon of a prefix
    weights: str = ""  # file of a network; empty takes the one that ships
    factor: int = 1  # by which a network of ours enlarges; 1: it fills holes
    folder: str = ""  # where a program is started; empty for the working folder
    function: Callable | None = None  # of (pair id, image, hole), for the kind "function"
    per_worker: bool = False  # for "serve": every worker has a copy of the program
    batched: bool = field(default=False, compare=False)  # for "py": takes several images; known when it is loaded
    conventions: Conventions = field(default_factory=Conventions)  # of a network in a file
    results: Mapping[str, str] | None = field(default=None, hash=False)  # of dir: the file of each pair, if known

    def __getstate__(self):
        """A function stays in its process: workers score its results and never call it."""
        return {**vars(self), "function": None}

    @property
    def net(self) -> str:
        """Which network it is: the part of its name before the +."""
        return self.argument.partition("+")[0]

    @property
    def options(self) -> dict[str, bool]:
        """What the + of a network turns on: all scales and the mirror image for ours, blending for others'."""
        plus = self.argument != self.net
        return {"post": plus} if self.kind == "rival" else {"mirror": plus, "scales": plus}

    @property
    def in_process(self) -> bool:
        """True if the method runs in the benchmark's own process: it cannot hang or crash, or it is a function."""
        return self.kind == "function" or (self.kind == "classical" and self.argument in classical.PLAIN)

    @property
    def serial(self) -> bool:
        """True if one process takes all pairs: a network on all cores or the graphics card, or a function."""
        if self.kind == "serve":
            return not self.per_worker
        return self.batched or self.kind in ("network", "rival", "function", *conventions.KINDS)

    @property
    def always_starts(self) -> bool:
        """True if the method needs no optional package or file, which might be missing, or starts in the workers."""
        if self.kind == "serve":
            return self.per_worker
        return self.kind == "function" or (self.kind == "classical" and self.argument != "patchmatch")

    def absolute(self) -> "Method":
        """The same method with absolute paths, for workers in another folder."""
        named = self.kind in ("dir", *conventions.KINDS)
        argument = str(Path(self.argument).absolute()) if named else self.argument
        weights = self.weights and str(Path(self.weights).absolute())
        folder = str(Path.cwd()) if self.kind in ("cmd", "serve", "py") else ""
        return replace(self, argument=argument, weights=weights, folder=folder)

    def identity(self) -> dict:
        """All that decides the results, for recipe.json. Raises BadInput where a file or a folder is missing."""
        weights = Path(self.weights) if self.weights else None
        if self.kind == "classical":
            return classical.identity(self.argument)
        if self.kind == "plugin":
            return plugins.identity(self.argument)
        if self.kind == "function":
            return plugins.function_identity(self.function)
        if self.kind == "dir":
            return external.folder_identity(Path(self.argument), self.results)
        if self.kind in ("cmd", "serve"):
            return external.program_identity(self.argument, Path(self.folder), self.kind)
        if self.kind == "py":
            return user_function.identity(self.argument, Path(self.folder))
        if self.kind in conventions.KINDS:
            from evaluation.methods import model_file

            return model_file.identity(self.kind, Path(self.argument), self.conventions)
        if self.kind == "rival":
            from evaluation.methods.rivals import inference

            return inference.identity(self.net, weights, self.options)
        from evaluation.methods import networks

        return networks.identity(self.net, weights, self.options, self.factor)


def load(method: Method, *, raw: bool = False, threads: int = 1, size: tuple[int, int] | None = None) -> Callable:
    """The function of (pair id, image, hole) that runs a method, with its weights and packages loaded.

    size: px, height and width of all images, if they have one size. Raises BadInput for what the user has to fix: a
    missing package, missing weights, a broken model file, a size that the method does not support.
    """
    weights = Path(method.weights) if method.weights else None
    if method.kind == "function":
        return _without_pair(method.function)
    if method.kind == "classical":
        return _without_pair(classical.load(method.argument))
    if method.kind == "plugin":
        return _without_pair(plugins.entry_point(method.argument).load())
    if method.kind == "dir":
        return external.Folder(Path(method.argument), method.results)
    if method.kind == "cmd":
        return external.Program(method.argument)
    if method.kind == "serve":
        from evaluation.methods import served

        return served.ServedProgram(method)
    if method.kind == "py":
        return user_function.load(method.argument, Path(method.folder))
    if method.kind in conventions.KINDS:
        from evaluation.methods import model_file

        return model_file.Model(model_file.load(method.kind, Path(method.argument), threads), method.conventions, size)
    try:
        if method.kind == "rival":
            from evaluation.methods.rivals import inference

            return _without_pair(inference.load(method.net, weights, threads=threads, **method.options))
        from evaluation.methods import networks

        return networks.Network(
            method.net, weights, raw=raw, threads=threads, options=method.options, factor=method.factor
        )
    except ImportError as error:
        raise BadInput(f"the network {method.argument} cannot be loaded: {error}") from None


def _without_pair(function):
    return lambda pair, image, hole: function(image, hole)


def parse(text: str, weights: dict[str, str] | None = None) -> Method:
    """Read one --method: a name, or a prefix with its argument such as `dir:FOLDER`, each with an optional `LABEL=`.

    weights: files for networks by their label or name. Raises BadInput for an unknown name, with the nearest ones, for
    a label that is not valid, for a prefix with nothing after it, and for a program that is missing or whose command
    line has no place for its files.
    """
    label, spec = _label_and_spec(text)
    prefix, colon, argument = spec.partition(":")
    if colon and prefix in PREFIXES:
        if not argument.strip():
            raise BadInput(f"--method {text!r} names nothing after {prefix}: - expected {prefix}:SOMETHING")
        if prefix in ("cmd", "serve"):
            external.words_of(argument, prefix)
        if prefix == "py":
            user_function.split(argument)
        return Method(checked_label(label or _default_label(prefix, argument)), prefix, argument)
    if spec in NETWORKS:
        method = Method(checked_label(label or spec), "rival" if spec in RIVALS else "network", spec)
        given = [weights[name] for name in (label, spec, method.net) if weights and name in weights]
        return replace(method, weights=str(given[0])) if given else method
    installed = plugins.names()
    if spec in classical.METHODS:
        if spec in installed:
            warn(f"{spec} is a built-in method: the plug-in {plugins.entry_point(spec).value} is not used")
        return Method(checked_label(label or spec), "classical", spec)
    if spec not in installed:
        near = difflib.get_close_matches(spec.lower(), [*classical.METHODS, *NETWORKS, *installed])
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise BadInput(
            f"no method {spec!r}{hint}: expected one of {', '.join([*classical.METHODS, *NETWORKS])}, {FORMS}"
        )
    return Method(checked_label(label or spec), "plugin", spec)


def parse_all(
    texts: Iterable[str],
    weights: Iterable[str] = (),
    *,
    range: Option = (),
    white: Option = (),
    bgr: Option = (),
    copies: str = COPIES[0],
) -> list[Method]:
    """Read every --method, with --weights as FILE or NAME=FILE, where NAME is the label or the name of a network.

    range, white, bgr: as for `conventions.read`. copies: of programs of serve:, one of COPIES. Raises BadInput as
    `parse`, where two methods have one label, for weights that are missing or belong to no network of the run, and for
    options that belong to no method.
    """
    checks.expect("copies", copies, checks.one_of(COPIES))
    texts = list(texts)
    networks = [method for method in map(parse, texts) if method.kind in ("network", "rival")]
    labels = [method.label for method in networks]
    known = {name for method in networks for name in (method.label, method.argument, method.net)}
    given = {}
    for text in weights:
        name, equals, file = text.partition("=")
        if not equals or name not in known:
            if len(labels) != 1:
                found = " and ".join(sorted(labels)) or "no network"
                raise BadInput(
                    f"--weights {text}: expected one network among the methods, got {found}: write NAME=FILE"
                )
            name, file = labels[0], text
        if not Path(file).is_file():
            raise BadInput(f"no weights file {file}: expected a checkpoint of {name}, or NAME=FILE")
        given[name] = file
    methods = [parse(text, given) for text in texts]
    check_labels([method.label for method in methods])
    if copies != COPIES[0] and not any(method.kind == "serve" for method in methods):
        raise BadInput(f"--copies {copies} is for programs: expected a method serve:'PROGRAM'")
    forms = conventions.read([each.label for each in methods if each.kind in conventions.KINDS], range, white, bgr)
    per_worker = copies != COPIES[0]
    return [
        replace(
            each,
            per_worker=per_worker and each.kind == "serve",
            conventions=forms.get(each.label, each.conventions),
        )
        for each in methods
    ]


def check_labels(labels: Iterable[str]) -> None:
    """Raise BadInput where two labels are the same, also if they differ in case only: they are names of files."""
    taken = set()
    for label in labels:
        if label.lower() in taken:
            raise BadInput(f"two methods are called {label}: write --method OTHERNAME={label}...")
        taken.add(label.lower())


def checked_label(label: str) -> str:
    """The label. Raises BadInput for one that cannot be a file name everywhere, and for "truth"."""
    if not re.fullmatch(r"[\w+-][\w.+-]*", label):
        raise BadInput(f"a method's label is a file name of letters, digits and -_.+, got {label!r}: use LABEL=METHOD")
    if files.shortened(label) != label:
        raise BadInput(f"a method's label has {files.LONGEST} bytes at most, got {label!r}: use a shorter LABEL=METHOD")
    if label.lower() == "truth":
        raise BadInput("no method can be called truth, which names the true images: use another LABEL=METHOD")
    return label


def _label_and_spec(text):
    before, equals, after = text.partition("=")
    return (before, after) if equals and ":" not in before else ("", text)


def _default_label(prefix, argument):
    """The label of a method that has a prefix and no label: the name of its folder, program or file."""
    if prefix == "dir":
        name = Path(argument).absolute().name
    elif prefix == "py":
        name = argument.rpartition(":")[2]
    elif prefix == "cmd":
        name = Path(external.words_of(argument)[0]).stem
    elif prefix == "serve":
        program, *words = external.words_of(argument, prefix)
        name = Path(next((word for word in words if external.is_file(Path(word))), program)).stem
    else:
        name = Path(argument).stem
    return files.shortened(re.sub(r"[^\w.+-]+", "_", name).strip("._")) or prefix
