"""The command `evaluate`: options in, one function call out. Heavy imports wait inside."""

import shlex
from dataclasses import replace
from pathlib import Path

import click
from click.core import ParameterSource

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
from evaluation.study.commands import study
from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.command import (
    CONTEXT,
    FOLDER,
    POLARITIES,
    Tool,
    cluster_option,
    seed_option,
    workers_option,
)
from maskgen.settings import SIZE, TESTSET

PATH = click.Path(path_type=Path)


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
    click.option(
        "--threshold",
        type=click.IntRange(1, 255),
        help="Grey level from which on masks are white. [default: none, each has two values]",
    ),
)
per_class_option = click.option(
    "--per-class", type=click.IntRange(0), default=BenchmarkConfig.per_class, help="Masks drawn of each class; 0: all."
)


raw_option = click.option("--raw", is_flag=True, help="Score the method's own pixels everywhere, not only in the hole.")


def run_options(methods=METHODS):
    """What every command that scores methods takes. methods: those of a run that names none."""
    return together(
        click.option(
            "--method",
            "-m",
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
    return click.option("--out", "-o", type=FOLDER, default=default, help="Where scores, tables and pictures go.")


@click.group(cls=Tool, invoke_without_command=True, context_settings=CONTEXT)
@click.version_option(__version__)
@run_options()
@images_option
@mask_options
@size_option
@per_class_option
@seed_option
@click.option("--pairs", "listed", type=PATH, help="What `evaluate pairs` wrote, or a pairs.csv, in place of drawing.")
@raw_option
@click.option("--paper", is_flag=True, help="Show the published Table 1 below ours.")
@out_option(OUT)
@click.pass_context
def evaluate(context, images, masks, polarity, threshold, size, per_class, seed, listed, raw, out, **how):
    """Score inpainting methods on masks of every class: Table 1 of the paper, for any method.

    A METHOD is mean, grey, telea, ns, biharmonic, patchmatch, pconv, conv, gl, gntipt, or one of the three open doors.
    pconv and conv are the two nets' own answers, as in the paper; pconv+ and conv+ are all that `pconv inpaint
    --mirror` does. gl and gntipt are networks of others and need --weights.
    """
    if context.invoked_subcommand:
        return _hand_down(context)
    from evaluation import pairing

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=per_class, raw=raw, seed=seed)
    if listed:
        given = {name: context.params[name] if _is_given(context, name) else None for name in ("polarity", "size")}
        if _is_given(context, "per_class"):
            raise BadInput("--per-class draws pairs and --pairs names them: leave one of the two out")
        pairs, sources, size = pairing.open_pairs(listed, images=images, masks=masks, threshold=threshold, **given)
        config = replace(config, size=size)
        how = looked_up(config, **how)
        photos = BUILT_IN if sources.images == pairing.image_folder(None) else str(sources.images)
        names = photos, _mask_name(sources.masks)
    else:
        how = looked_up(config, **how)
        pairs, sources, names = _drawn(images, masks, polarity, threshold, config, out)
    return _benchmark(config, pairs, sources, out, names, _used(pairs, names), **how)


def _is_given(context, name):
    """Whether an option was typed, also before the name of the command."""
    return context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)


def _hand_down(context):
    """Let options that stand before the name of a command hold for that command; refuse those that it does not have."""
    command = context.command.commands[context.invoked_subcommand]
    known = {option.name for option in command.params}
    for option in context.command.params:
        if _is_given(context, option.name) and option.name not in known:
            path = f"{context.command_path} {context.invoked_subcommand}"
            if isinstance(command, click.Group):
                raise click.UsageError(f"{option.opts[0]} stands before {path}: write it behind the whole command")
            raise click.UsageError(f"{option.opts[0]} is no option of {path}: leave it out")
    given = {name: value for name, value in context.params.items() if _is_given(context, name)}
    context.default_map = {context.invoked_subcommand: given}


def looked_up(config, *, methods, weights, by, **how):
    """The options of `run_options` with their methods and --by read: a mistake in them is told before any file is."""
    from evaluation import metrics
    from evaluation.methods import parse_all
    from evaluation.report import shown_by

    methods = parse_all(methods, weights)
    identities = {method.label: method.identity() for method in methods}  # raises where a file or folder is missing
    by = shown_by(config, by or "")
    metrics.check(config.metrics, config.size)
    return {**how, "methods": methods, "identities": identities, "by": by}


def _drawn(images, masks, polarity, threshold, config, out):
    """The pairs of two folders, where their files lie, and what recipe.json calls the folders."""
    from evaluation import pairing

    folder = masks or pairing.default_masks()
    pairs = pairing.make_pairs(images, folder, config, polarity, threshold, outside=[out])
    sources = pairing.Sources(pairing.image_folder(images), folder, polarity, threshold)
    return pairs, sources, (str(images or BUILT_IN), _mask_name(folder))


def _mask_name(folder):
    from evaluation import pairing

    return BUILT_IN_MASKS if folder == pairing.OWN_MASKS else str(folder)


def _used(pairs, names, masks=""):
    """Which masks and photos are used: the first line that is printed. masks: in words, if they are no folder's."""
    photos = len({pair.image_sha256 for pair in pairs})
    count = len({pair.mask for pair in pairs})
    told = f"{count:,} of {names[1]}"
    if names[1] == BUILT_IN_MASKS:
        told = f"{count:,} that ship with {BUILT_IN_MASKS}"
        told += "" if Path(TESTSET).is_dir() else f", as there is no {TESTSET}"
    return f"masks: {masks or told}; photos: {photos:,} of {names[0]}"


def _benchmark(config, pairs, sources, out, names, used, *, methods, by, pages, paper=False, **how):
    """Score, report, and say where it is. names: what recipe.json calls the folders. Returns the exit code."""
    from evaluation import benchmark, report

    text = ""

    def write(scores):
        nonlocal text
        text = report.write(out, scores, pairs, sources, config, ReportConfig(by=by), paper=paper, pages=pages)

    click.echo(used)
    scores = benchmark.run(methods, pairs, sources, out, config, names=names, report=write, say=click.echo, **how)
    click.echo(text)
    click.echo(f"\nscores, tables and pictures are in {out}; look at {out / 'report.html'}")
    labels = [method.label for method in methods]
    failures = scores[(scores["error"] != "") & scores["method"].isin(labels)].groupby("method", sort=False)
    whole = {method for method, failed in failures if len(failed) == len(pairs)}
    for method, failed in sorted(failures, key=lambda group: group[0] in whole):  # what is worst stands last
        count = "all" if method in whole else f"{len(failed):,}"
        told = f"{method}: {count} pairs failed, the first, {failed['pair'].iloc[0]}: {failed['error'].iloc[0]}"
        click.echo(told, err=True)
    return int(bool(whole))


@evaluate.command("pairs")
@images_option
@mask_options
@size_option
@per_class_option
@seed_option
@click.option("--layout", type=click.Choice(LAYOUTS), default=LAYOUTS[0], help="Two folders, or as LaMa wants it.")
@click.option("--white", type=click.Choice(("hole", "valid")), default="hole", help="What white means in the masks.")
@click.option("--out", "-o", type=FOLDER, default=PAIRS, help="Where the files go.")
def export_pairs(images, masks, polarity, threshold, size, per_class, seed, layout, white, out):
    """Write image and mask pairs for a program of your own."""
    from evaluation import experiments

    config = BenchmarkConfig(size=size, per_class=per_class, seed=seed)
    pairs, sources, names = _drawn(images, masks, polarity, threshold, config, out)
    click.echo(_used(pairs, names))
    experiments.export(pairs, sources, out, config, layout=layout, white=white, names=names, say=click.echo)
    click.echo(f"{len(pairs):,} pairs in {out}; --method NAME=dir:FOLDER is for results, {pairs[0].pair}.png and so on")
    click.echo(f"score them with: evaluate --pairs {shlex.quote(str(out.resolve()))}")


@evaluate.command()
@click.argument("growth", nargs=-1, type=click.IntRange(0))
@run_options()
@images_option
@mask_options
@size_option
@click.option("--count", type=click.IntRange(1), default=10, help="Holes that grow.")
@seed_option
@raw_option
@out_option(f"{OUT}-dilation")
def dilation(growth, images, masks, polarity, threshold, size, count, seed, raw, out, **how):
    """Let the same holes grow by GROWTH pixels, as in figure 10. [default: 0 5 15 35 55 95]"""
    from evaluation import experiments, pairing

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=count, raw=raw, seed=seed)
    how = looked_up(config, **how)
    folder, growth = masks or pairing.default_masks(), growth or GROWTH
    drawing = experiments.growing(images, folder, growth, config, polarity, threshold, outside=[out])
    told = f"{len(drawing.pairs) // len(growth)} of {_mask_name(folder)}, widened by {', '.join(map(str, growth))} px"
    how["experiment"] = {"made_by": "evaluate dilation", "growth": growth}
    return _with_drawn(drawing, images, "grown holes", told, config, out, **how)


@evaluate.command()
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], help="What is drawn.")
@run_options()
@images_option
@size_option
@click.option("--per-class", type=click.IntRange(1), default=5, help="Holes of each class.")
@seed_option
@raw_option
@out_option(f"{OUT}-holes")
def holes(kind, images, size, per_class, seed, raw, out, **how):
    """Score on drawn holes of every class: boxes, as in figure 15, or free-form strokes."""
    from evaluation import experiments

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, per_class=per_class, raw=raw, seed=seed)
    how = looked_up(config, **how)
    drawing = experiments.drawn(images, kind, config, outside=[out])
    how["experiment"] = {"made_by": "evaluate holes", "kind": kind}
    return _with_drawn(
        drawing, images, f"{kind} holes", f"{len(drawing.pairs):,} drawn {kind} holes", config, out, **how
    )


def _with_drawn(drawing, images, name, told, config, out, **how):
    """A benchmark on masks that are made for it and lie with its results."""
    from evaluation import pairing

    sources = pairing.Sources(pairing.image_folder(images), out)
    names = str(images or BUILT_IN), name
    used = _used(drawing.pairs, names, told)
    return _benchmark(config, drawing.pairs, sources, out, names, used, drawn=drawing.files, **how)


@evaluate.command()
@click.option("--factor", type=click.IntRange(2, 16), default=FACTOR, help="How many times larger.")
@run_options(("bicubic",))
@images_option
@size_option
@seed_option
@out_option(f"{OUT}-superres")
def superres(factor, images, size, seed, out, **how):
    """Enlarge photos that were made smaller, as in section 5.2; any inpainting method can try."""
    from evaluation import experiments, pairing

    config = BenchmarkConfig(metrics=how.pop("metrics"), size=size, raw=True, seed=seed, factor=factor)
    how = looked_up(config, **how)
    pairs = experiments.enlarging(images, config, outside=[out])
    sources = pairing.Sources(pairing.image_folder(images), out)
    names = str(images or BUILT_IN), f"{factor} times smaller"
    how["experiment"] = {"made_by": "evaluate superres"}
    return _benchmark(config, pairs, sources, out, names, _used(pairs, names, "none"), **how)


evaluate.add_command(study)
