"""What the commands share: options, types, and how a mistake of the user is told."""

import _thread
import errno
import signal
import sys
import threading
from pathlib import Path

import click

from maskgen.errors import BadInput

MENDABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}  # by the user: disk full, no right
POLARITIES = ("hole-white", "hole-black")  # as in maskgen.maskset, which imports OpenCV
CONTEXT = {"show_default": True, "max_content_width": 100}
ANY = click.Path(exists=True, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
seed_option = click.option("--seed", default=0, show_default=True, help="Every random choice comes from it.")
workers_option = click.option("--workers", type=click.IntRange(1), help="Processes. [default: all cores]")


def _answers(context, param, address):
    """Before anything is written: whether a scheduler is there."""
    if address is not None:
        from maskgen.runtime.cluster import check

        check(address)
    return address


cluster_option = click.option(
    "--cluster", metavar="ADDRESS", callback=_answers, help="Dask scheduler that does the work instead."
)


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
            default, flag = getattr(config, name), name.replace("_", "-")
            if isinstance(default, bool):
                command = click.option(f"--{flag}/--no-{flag}", default=default, help=text)(command)
                continue
            listed = isinstance(default, tuple)
            kind = Numbers(float if listed and any(isinstance(n, float) for n in default) else int) if listed else None
            shown = kind.show(default) if listed else default
            command = click.option(f"--{flag}", type=kind, default=shown, help=text)(command)
        return command

    return decorate


def picked(config, options):
    """A settings object of a class from the options that are its fields."""
    return config(**{name: value for name, value in options.items() if name in config.__dataclass_fields__})


def warn(line):
    """Tell the user something without mixing it into the results on stdout."""
    click.echo(line, err=True)


def _not_lost(before):
    """A hook for exceptions that Python cannot pass on, as in a destructor: Ctrl-C comes again, without a traceback."""

    def hook(told):
        if told.exc_type is KeyboardInterrupt:
            threading.Timer(0.02, _ctrl_c).start()  # here and now it would be lost once more
        else:
            before(told)

    return hook


def _ctrl_c():
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # wakes it, wherever it waits
    else:
        _thread.interrupt_main()


class Tool(click.Group):
    """A group of commands whose user sees one line where he made a mistake, and no traceback."""

    def __call__(self, *args, **named):
        """Run as a program: Ctrl-C stops it wherever it comes, and does nothing once all is done."""
        sys.unraisablehook = _not_lost(sys.unraisablehook)
        try:
            return super().__call__(*args, **named)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python's own end would show a traceback

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
