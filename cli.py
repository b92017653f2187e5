"""The commands `maskgen`, `pconv` and `evaluate`: options in, one function call out.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

import sys
from pathlib import Path

import click

from evaluation.settings import BUILT_IN, METHODS, OUT, TIMEOUT, BenchmarkConfig, ReportConfig
from maskgen import __version__
from maskgen.errors import BadInput
from maskgen.settings import SIZE, TESTSET

POLARITIES = ("hole-white", "hole-black")  # maskgen.maskset.POLARITIES, which imports OpenCV
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
seed_option = click.option("--seed", default=0, show_default=True, help="Every random choice comes from it.")
workers_option = click.option("--workers", type=click.IntRange(1), help="Processes. [default: all cores]")
cluster_option = click.option("--cluster", metavar="ADDRESS", help="Dask scheduler that does the work instead.")


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
        sys.exit(code if isinstance(code, int) else 0)

    def _stop(self, message, code):
        click.echo(f"{self.name}: {message}", err=True)
        sys.exit(code)


@click.group(cls=Tool, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(__version__)
def maskgen():
    """Make irregular masks from video, augment them, sort them into classes, publish them."""


@click.group(cls=Tool, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(__version__)
def pconv():
    """Train and use the partial-convolution network of Liu et al. 2018."""


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
