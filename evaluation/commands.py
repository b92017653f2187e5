"""The command `evaluate`: its options, and one function call for each command. Heavy imports are inside."""

import shlex

import click
from click.core import ParameterSource

from evaluation.options import (
    FACTORS,
    PATH,
    images_option,
    like_option,
    mask_options,
    out_option,
    per_class_option,
    polarity_option,
    protocol_option,
    raw_option,
    run_options,
    size_option,
    threshold_option,
)
from evaluation.settings import (
    FACTOR,
    GROWTH,
    KINDS,
    LAYOUTS,
    LIKE,
    NATIVE,
    OUT,
    PAIRS,
    BenchmarkConfig,
)
from evaluation.study.commands import study
from evaluation.video.commands import video
from maskgen import __version__
from maskgen.runtime.command import (
    CONTEXT,
    FOLDER,
    Tool,
    seed_option,
)


@click.group(cls=Tool, invoke_without_command=True, context_settings=CONTEXT)
@click.version_option(__version__)
@run_options()
@images_option
@mask_options
@size_option
@per_class_option
@seed_option
@click.option(
    "--pairs",
    "listed",
    type=PATH,
    help="Score the pairs of a pairs.csv, or of its folder; its columns image and mask are enough.",
)
@protocol_option
@raw_option
@click.option("--paper", is_flag=True, help="Add the published Table 1 to the tables.")
@like_option
@out_option(OUT)
@click.pass_context
def evaluate(
    context, images, masks, polarity, threshold, size, per_class, seed, listed, protocol, raw, out, metrics, **options
):
    """Score inpainting methods on masks of every class, as in Table 1 of the paper.

    A METHOD is mean, grey, telea, ns, biharmonic, patchmatch, pconv, conv, gl or gntipt; a folder of results, a
    program, a Python function or a network in a file; or a plug-in. pconv and conv run the network once, as in the
    paper; pconv+ and conv+ run it at all scales and on the mirror image, as `pconv inpaint --mirror`. gl and gntipt are
    networks of other authors and need --weights.
    """
    if context.invoked_subcommand:
        return _pass_on(context)
    from evaluation import api

    given = {name: context.params[name] if _is_given(context, name) else None for name in ("polarity", "size")}
    given["metrics"] = metrics if _is_given(context, "metrics") else None
    result = api.evaluate(
        images=images,
        masks=masks,
        threshold=threshold,
        per_class=per_class,
        seed=seed,
        pairs=listed,
        protocol=protocol,
        raw=raw,
        out=out,
        verbose=True,
        **given,
        **options,
    )
    return int(result.all_failed)


def _is_given(context, name):
    """True if an option was typed, also before the name of the command."""
    return context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)


def _pass_on(context):
    """Pass options that stand before a command's name to that command; refuse those that it does not have."""
    command = context.command.commands[context.invoked_subcommand]
    known = {option.name for option in command.params if isinstance(option, click.Option)}
    for option in context.command.params:
        if _is_given(context, option.name) and option.name not in known:
            path = f"{context.command_path} {context.invoked_subcommand}"
            if isinstance(command, click.Group):
                raise click.UsageError(f"{option.opts[0]} stands before {path}: write it after the whole command")
            raise click.UsageError(f"{option.opts[0]} is no option of {path}: leave it out")
    given = {name: value for name, value in context.params.items() if _is_given(context, name)}
    single = {option.name for option in command.params if not option.multiple}  # as --white of `evaluate pairs`
    given |= {name: value[-1] for name, value in given.items() if name in single and isinstance(value, tuple) and value}
    context.default_map = {context.invoked_subcommand: given}


def _run(pairs_of, config, out, *, methods, weights, range, white, bgr, copies, by, **options):
    """Score on the pairs that `pairs_of` returns; the options are checked before any file is read."""
    from evaluation import api

    chosen = api.read_methods(methods, weights, range=range, white=white, bgr=bgr, copies=copies)
    api.check_metrics(config, by, config.common_size, options.get("like"))
    return int(api.score_pairs(chosen, pairs_of(), config, out, by=by, verbose=True, **options).all_failed)


@evaluate.command()
@click.option("--truth", type=PATH, required=True, help="Folder of the true images.")
@click.option("--masks", type=PATH, required=True, help="Folder of masks, or one mask for all images.")
@polarity_option
@threshold_option
@run_options(())
@raw_option
@like_option
@out_option(f"{OUT}-folders")
@click.pass_context
def folders(context, truth, masks, polarity, threshold, raw, out, methods, metrics, **options):
    """Score results that were made elsewhere, each image at its own size.

    Images, masks and the results of each --method LABEL=dir:FOLDER are matched by their names: the same path or name,
    also with a word such as _input, _mask, _out or _mask001 at its beginning or end. For other names, write the form of
    the name with {} for what all have in common, as in --truth 'DIR/{}_real.png'. All three may be one folder. The
    classes are measured; masks of less than 0.01 or more than 0.6 of the image are in a class of their own, `other`.
    Other methods can run on the same pairs.
    """
    from evaluation import matching

    if not methods:
        raise click.UsageError("no results are named: write --method LABEL=dir:FOLDER")
    reading = {"polarity": polarity, "threshold": threshold, "outside": [out, *matching.result_folders(methods)]}
    if options["like"] and not _is_given(context, "metrics"):
        metrics = LIKE[options["like"]]
    config = BenchmarkConfig(metrics, NATIVE, raw=raw)
    return _run(lambda: matching.match_folders(truth, masks, **reading), config, out, methods=methods, **options)


@evaluate.command("pairs")
@images_option
@mask_options
@size_option
@per_class_option
@seed_option
@protocol_option
@click.option("--layout", type=click.Choice(LAYOUTS), default=LAYOUTS[0], help="Two folders, or as LaMa reads it.")
@click.option("--white", type=click.Choice(("hole", "valid")), default="hole", help="What white means in the masks.")
@click.option("--factor", type=FACTORS, help="Write small images, to be enlarged this many times, and no masks.")
@click.option("--out", "-o", type=FOLDER, default=PAIRS, help="Folder for the files.")
@click.pass_context
def export_pairs(context, images, masks, polarity, threshold, size, per_class, seed, protocol, factor, out, **layout):
    """Write pairs of image and mask as files, to be filled by another program."""
    from evaluation import experiments, pairing, protocol_pairs, protocols
    from evaluation.masks import default_per_class

    others = ("masks", "polarity", "threshold", "seed")
    if factor:
        for name in (*others, "per_class", "protocol", "layout", "white"):
            if _is_given(context, name):
                option = name.replace("_", "-")
                raise click.UsageError(f"--factor writes small images without masks: leave --{option} out")
        config = BenchmarkConfig(size=size, factor=factor)
        pair_set = experiments.enlarged_pairs(images, config, out=out)
    elif protocol is None:
        count = default_per_class(masks) if per_class is None else per_class
        config = BenchmarkConfig(size=size, per_class=count, seed=seed)
        pair_set = pairing.pair_folders(images, masks, config, polarity, threshold, out=out)
    else:
        given = {name: context.params[name] if _is_given(context, name) else None for name in ("size", *others)}
        size = protocol_pairs.check_options(protocol, images=images, **given)
        config = BenchmarkConfig(size=size, per_class=per_class or 0)
        pair_set = protocol_pairs.protocol_pairs(protocol, images, size, config.per_class, out=out)
    pairs, names, record = pair_set.pairs, pair_set.names, (pair_set.experiment or {}).get("protocol")
    click.echo(pair_set.description)
    if record:
        click.echo(protocols.caption(record))
    how = {**layout, "names": names, "protocol": record, "say": click.echo}
    experiments.export(pairs, pair_set.sources, out, config, **how)
    click.echo(f"{len(pairs):,} pairs in {out}; --method NAME=dir:FOLDER is for results, {pairs[0].pair}.png and so on")
    click.echo(f"score them with: evaluate --pairs {shlex.quote(str(out.resolve()))}")


@evaluate.command()
@click.argument("growth", nargs=-1, type=click.IntRange(0))
@run_options()
@images_option
@mask_options
@size_option
@click.option("--count", type=click.IntRange(1), default=10, help="Number of holes.")
@seed_option
@raw_option
@out_option(f"{OUT}-dilation")
def dilation(growth, images, masks, polarity, threshold, size, count, seed, raw, out, metrics, **options):
    """Score on the same holes dilated by GROWTH pixels, as in figure 10. [default: 0 5 15 35 55 95]"""
    from evaluation import experiments

    config = BenchmarkConfig(metrics, size, count, raw, seed)
    source = images, masks, growth or GROWTH, config, polarity, threshold
    return _run(lambda: experiments.growing_holes(*source, out=out), config, out, **options)


@evaluate.command()
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], help="Shape of the holes.")
@run_options()
@images_option
@size_option
@click.option("--per-class", type=click.IntRange(1), default=5, help="Holes of each class.")
@seed_option
@raw_option
@out_option(f"{OUT}-holes")
def holes(kind, images, size, per_class, seed, raw, out, metrics, **options):
    """Score on drawn holes of every class: boxes, as in figure 15, or free-form strokes."""
    from evaluation import experiments

    config = BenchmarkConfig(metrics, size, per_class, raw, seed)
    return _run(lambda: experiments.drawn_pairs(images, kind, config, out=out), config, out, **options)


@evaluate.command()
@click.option("--factor", type=FACTORS, default=FACTOR, help="Factor of enlargement.")
@run_options(("bicubic",))
@images_option
@size_option
@seed_option
@out_option(f"{OUT}-superres")
def superres(factor, images, size, seed, out, metrics, **options):
    """Enlarge photos that were reduced, as in section 5.2; inpainting methods can be scored as well."""
    from evaluation import experiments

    config = BenchmarkConfig(metrics, size, raw=True, seed=seed, factor=factor)
    return _run(lambda: experiments.enlarged_pairs(images, config, out=out), config, out, **options)


evaluate.add_command(study)
evaluate.add_command(video)
