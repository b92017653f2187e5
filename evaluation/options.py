"""The options that several commands of `evaluate` share."""

from pathlib import Path

import click

from evaluation.settings import (
    COPIES,
    FIRST,
    LIKE,
    METHODS,
    METRICS,
    NATIVE,
    PROTOCOLS,
    TIMEOUT,
    BenchmarkConfig,
)
from maskgen.runtime.command import FOLDER, POLARITIES, PathType, cluster_option, workers_option
from maskgen.settings import SIZE, TESTSET

PATH = click.Path(path_type=Path)
FACTORS = click.IntRange(2, 16)
MASKS = PathType(path_type=Path)


class SizeType(click.ParamType):
    """Height and width in px, 512 or 384x512, or the word native."""

    name = "H[xW]"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple) or value == NATIVE:
            return value
        try:
            sides = [int(side) for side in str(value).lower().split("x")]
        except ValueError:
            sides = []
        if len(sides) not in (1, 2) or min(sides) < 16:
            expected = f"expected pixels as 512 or 384x512 (height x width), at least 16, or {NATIVE}"
            self.fail(f"{expected}, got {value!r}", param, ctx)
        return sides[0], sides[-1]


def together(*options):
    """Several options as one decorator."""

    def decorate(function):
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


images_option = click.option(
    "--images",
    type=FOLDER,
    help="Folder of photos, or `reference`: the 60 that ship. [default: those that scikit-image installs]",
)
size_option = click.option(
    "--size",
    type=SizeType(),
    default=f"{SIZE}",
    help="Height and width to which all images are cut; native keeps each image at its own size.",
)
polarity_option = click.option(
    "--polarity", type=click.Choice(POLARITIES), default=POLARITIES[0], help="What white means in the masks."
)
threshold_option = click.option(
    "--threshold",
    type=click.IntRange(1, 255),
    help="Lowest grey level that is white. [default: masks have two values, the larger is white]",
)
mask_options = together(
    click.option(
        "--masks",
        type=MASKS,
        help=f"Folder, zip or tar of masks, or `v1`: the 12,000 that ship. [default: {TESTSET}, else v1]",
    ),
    polarity_option,
    threshold_option,
)
per_class_option = click.option(
    "--per-class",
    type=click.IntRange(0),
    help=f"Masks of each class, of v1 the first ones; 0 takes all. [default: all; {FIRST} of v1 without --masks]",
)


protocol_option = click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    help="Take the canonical masks and the images of this data set, below --images, in pairs that never change; "
    "reference has its own images.",
)
like_option = click.option(
    "--like", type=click.Choice(LIKE), help="Print metrics and table as the evaluator of LaMa or MMagic does."
)
raw_option = click.option("--raw", is_flag=True, help="Score the method's own pixels everywhere, not only in the hole.")


def method_options(methods=METHODS):
    """The options that say which methods run, and how. methods: the default of --method."""
    return together(
        click.option(
            "--method",
            "-m",
            "methods",
            multiple=True,
            default=methods,
            metavar="[LABEL=]METHOD",
            help="Name, dir:FOLDER, cmd:'PROGRAM {image} {mask} {output}', serve:'PROGRAM', py:FILE.py:FUNCTION, "
            "onnx:FILE, torchscript:FILE or exported:FILE; repeatable.",
        ),
        click.option(
            "--weights",
            multiple=True,
            metavar="[NAME=]FILE",
            help="Checkpoint of a network; NAME is its label or name.",
        ),
        click.option(
            "--range",
            multiple=True,
            metavar="[LABEL=]LOW,HIGH",
            help="Black and white for an onnx:, torchscript: or exported: network, such as -1,1. [default: 0,1]",
        ),
        click.option(
            "--white",
            multiple=True,
            metavar="[LABEL=]hole|valid",
            help="What 1 means in the mask of such a network. [default: hole; valid for an input of that name]",
        ),
        click.option(
            "--bgr",
            multiple=True,
            is_flag=False,
            flag_value="",
            metavar="[LABEL]",
            help="Such a network takes and returns blue first.",
        ),
        click.option(
            "--copies",
            type=click.Choice(COPIES),
            default=COPIES[0],
            help="Copies of a serve: program: one, or one in each of the --workers.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            default=TIMEOUT,
            help="Time limit of a method for one image, in seconds.",
        ),
    )


def run_options(methods=METHODS):
    """The options of all commands that score methods on images. methods: the default of --method."""
    return together(
        method_options(methods),
        click.option(
            "--metric",
            "metrics",
            multiple=True,
            type=click.Choice(METRICS),
            metavar="METRIC",
            default=BenchmarkConfig.metrics,
            help=f"{', '.join(METRICS)}; repeatable.",
        ),
        click.option("--by", metavar="METRIC", help="Metric that picks the pairs to show. [default: the first]"),
        click.option("--pictures/--no-pictures", default=True, help="Keep every result as a JPEG."),
        click.option("--pages", is_flag=True, help="Write an HTML page for every pair."),
        click.option("--retry", is_flag=True, help="Try pairs again that failed in an earlier run."),
        workers_option,
        cluster_option,
    )


def out_option(default):
    """The option --out of a command."""
    return click.option("--out", "-o", type=FOLDER, default=default, help="Folder for scores, tables and pictures.")
