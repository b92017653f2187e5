"""The commands `maskgen`, `pconv` and `evaluate`: options in, one function call out.

Heavy modules are imported inside the commands, so that --help answers at once.
"""

import sys
from pathlib import Path

import click

from maskgen import __version__
from maskgen.errors import BadInput

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


@click.group(cls=Tool, invoke_without_command=True, context_settings={"show_default": True, "max_content_width": 100})
@click.version_option(__version__)
def evaluate():
    """Score inpainting methods on masks of every class."""
