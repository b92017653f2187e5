"""The command `evaluate`: options in, one function call out. Heavy imports wait inside."""

import click

from evaluation.settings import (
    BUILT_IN,
    BUILT_IN_MASKS,
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
from evaluation.study.settings import PARTS, PLATFORMS, STUDY, ServeConfig, StudyConfig
from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.command import (
    CONTEXT,
    FILE,
    FOLDER,
    POLARITIES,
    Numbers,
    Tool,
    cluster_option,
    seed_option,
    warn,
    workers_option,
)
from maskgen.runtime.output import alone
from maskgen.settings import SIZE, TESTSET


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
        click.option(
            "--weights",
            multiple=True,
            metavar="[NAME=]FILE",
            help="Checkpoint of pconv, conv or the method so labelled.",
        ),
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


@click.group(cls=Tool, invoke_without_command=True, context_settings=CONTEXT)
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

    A METHOD is mean, grey, telea, ns, biharmonic, patchmatch, pconv, conv, or one of the three open doors. pconv and
    conv are the two nets' own answers, as in the paper; pconv+ and conv+ are all that `pconv inpaint --mirror` does.
    """
    if context.invoked_subcommand:
        return
    from evaluation import benchmark

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=per_class, raw=raw, seed=seed)
    how = looked_up(config, **how)
    folder = masks or benchmark.default_masks()
    pairs = benchmark.read_pairs(pairs_file) if pairs_file else benchmark.make_pairs(images, folder, config, polarity)
    name = BUILT_IN_MASKS if folder == benchmark.OWN_MASKS else str(folder)
    _benchmark(config, pairs, images, folder, name, polarity, out, **how)


def looked_up(config, *, methods, weights, by, **how):
    """The options of `run_options` with their methods and --by read: a mistake in them is told before any file is."""
    from evaluation.methods import parse_all
    from evaluation.report import shown_by

    methods = parse_all(methods, weights)
    for method in methods:
        method.identity()  # raises where its file or folder is missing
    return {**how, "methods": methods, "by": shown_by(config, by or "")}


@alone("out")
def _benchmark(config, pairs, images, masks, name, polarity, out, *, methods, by, pages, paper=False, **how):
    """Score, report, and say where it is. name: what recipe.json calls the masks."""
    from evaluation import benchmark, report

    sources = benchmark.Sources(benchmark.image_folder(images), masks, polarity)
    names = (str(images or BUILT_IN), name)
    scores = benchmark.run(methods, pairs, sources, out, config, names=names, **how)
    click.echo(report.write(out, scores, pairs, sources, config, ReportConfig(by=by), paper=paper, pages=pages))
    for method, failed in scores[scores["error"] != ""].groupby("method", sort=False):
        warn(f"{method}: {len(failed)} pairs failed, the first, {failed['pair'].iloc[0]}: {failed['error'].iloc[0]}")
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
@alone("out")
def dilation(growth, images, masks, polarity, size, count, seed, raw, out, **how):
    """Let the same holes grow by GROWTH pixels, as in figure 10. [default: 0 5 15 35 55 95]"""
    from evaluation import benchmark, experiments

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=count, raw=raw, seed=seed)
    how = looked_up(config, **how)
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
@alone("out")
def holes(kind, images, size, per_class, seed, raw, out, **how):
    """Score on drawn holes of every class: boxes, as in figure 15, or free-form strokes."""
    from evaluation import experiments

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=per_class, raw=raw, seed=seed)
    how = looked_up(config, **how)
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
    how = looked_up(config, **how)
    pairs = experiments.enlarging(images, config)
    _benchmark(config, pairs, images, out, f"{factor} times smaller", POLARITIES[0], out, **how)


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

    try:
        text = consent.read_text().strip() if consent else ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{consent} cannot be read as the text of a consent: {error}") from None
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
