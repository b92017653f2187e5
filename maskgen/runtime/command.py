"""What all commands share: option types, common options, and one-line messages for errors that the user can fix."""

import _thread
import errno
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import click

from maskgen.errors import BadInput, InputWarning

FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130  # exit codes
RESUME = "run the same command again to continue"
FIX = f"fix that, then {RESUME}"
ADVICE = {  # for errors of the operating system
    errno.ENAMETOOLONG: "shorten it",
    errno.EMFILE: "use fewer --workers, or raise the limit of `ulimit -n`",
    errno.ENFILE: "use fewer --workers",
}
POLARITIES = ("hole-white", "hole-black")  # as in maskgen.maskset, which imports OpenCV
LARGEST = 2**32 - 1  # of any number; the largest seed of NumPy and torch
CONTEXT = {"show_default": True, "max_content_width": 100}
SEED = click.IntRange(0, LARGEST)
seed_option = click.option("--seed", type=SEED, default=0, help="Seed of all random choices.")
workers_option = click.option(
    "--workers", "-j", type=click.IntRange(1, 1024), help="Number of processes. [default: all cores]"
)


def _checked_address(context, param, address):
    """Raise BadInput before anything is written if there is no scheduler at the address."""
    if address is not None:
        from maskgen.runtime.cluster import check_scheduler

        check_scheduler(address)
    return address


cluster_option = click.option(
    "--cluster", metavar="ADDRESS", callback=_checked_address, help="Use the workers of this Dask scheduler instead."
)


class PathType(click.Path):
    """A path. An empty text, as from an unset shell variable, is an error and not the working folder."""

    def convert(self, value, param, ctx):
        if value == "":
            self.fail("expected a path, got an empty text", param, ctx)
        return super().convert(value, param, ctx)


FILE_OR_FOLDER = PathType(exists=True, path_type=Path)
FILE = PathType(dir_okay=False, path_type=Path)
FOLDER = PathType(file_okay=False, path_type=Path)


class Numbers(click.ParamType):
    """A tuple of numbers, written `128,256`."""

    def __init__(self, kind):
        self.kind, self.name = kind, "numbers"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(",") if part)
        except ValueError:
            self.fail(f"expected numbers such as 128,256, got {value!r}", param, ctx)

    def text_of(self, value):
        """How a tuple is written, for --help."""
        return ",".join(f"{number:g}" for number in value)


def config_options(config, **fields):
    """Options for fields of a settings class, with its defaults. fields: name of a field -> help text."""

    def decorate(command):
        for name, text in reversed(fields.items()):
            default, flag = getattr(config, name), name.replace("_", "-")
            if isinstance(default, bool):
                command = click.option(f"--{flag}/--no-{flag}", default=default, help=text)(command)
                continue
            listed = isinstance(default, tuple)
            kind = Numbers(float if listed and any(isinstance(n, float) for n in default) else int) if listed else None
            shown = kind.text_of(default) if listed else default
            command = click.option(f"--{flag}", type=kind, default=shown, help=text)(command)
        return command

    return decorate


def config_from(config, options):
    """An object of a settings class from the options that are its fields; other options are ignored."""
    return config(**{name: value for name, value in options.items() if name in config.__dataclass_fields__})


def print_stderr(line):
    """Print a line to stderr, so that stdout has only results."""
    click.echo(line, err=True)


def _resend_ctrl_c(before):
    """A `sys.unraisablehook` for Ctrl-C in a destructor or callback, where Python drops the exception: send it again.

    before: the hook for all other exceptions.
    """

    def hook(unraisable):
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
        elif hasattr(signal, "pthread_kill"):  # wakes the main thread also while it waits
            threading.Timer(0.02, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        else:
            threading.Timer(0.02, _thread.interrupt_main).start()

    return hook


def check_numbers(context):
    """Raise click.BadParameter for an option that is NaN, infinite or larger than `LARGEST`."""
    for param in context.command.params:
        values = context.params.get(param.name)
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, int | float) and not abs(value) <= LARGEST:
                raise click.BadParameter(f"expected a number up to {LARGEST}, got {value:g}", context, param)


class Command(click.Command):
    """A command whose numbers are finite and not larger than `LARGEST`."""

    def invoke(self, ctx):
        check_numbers(ctx)
        return super().invoke(ctx)


class Tool(click.Group):
    """A group of commands that prints one line, and no traceback, for a warning or an error that the user can fix."""

    command_class = Command
    group_class = type  # subgroups are of this class too

    def parse_args(self, ctx, args):
        if not args and self.no_args_is_help:  # Click 8.2 would print it to stderr and exit with 2
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def invoke(self, ctx):
        check_numbers(ctx)
        return super().invoke(ctx)

    def __call__(self, *args, **named):
        """Run as a program. Ctrl-C stops it at any moment, and is ignored once the work is done."""
        sys.unraisablehook = _resend_ctrl_c(sys.unraisablehook)
        try:
            return super().__call__(*args, **named)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # otherwise Python prints a traceback as it exits

    def main(self, args=None, prog_name=None, **extra):
        """Run a command and exit with its code: what it returns, or 2 for an error that the user can fix."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # file names may be invalid or not in the encoding
        try:
            with _warnings_as_lines(self._print_line):
                code = super().main(args, prog_name, standalone_mode=False, **extra)
                _end_workers()
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else self.name
            self._exit(f"{error.format_message()} (see {where} --help)", USER_ERROR)
        except (KeyboardInterrupt, click.Abort):
            self._exit(f"stopped; nothing is lost, {RESUME}", INTERRUPTED)
        except BrokenPipeError:  # the reader of stdout, such as `| head`, has ended
            sys.stderr.close()
            sys.exit(FAILED)
        except Exception as error:
            line = user_message(error)
            if not line:
                raise
            self._exit(line, USER_ERROR)
        sys.exit(code if isinstance(code, int) else 0)

    def _exit(self, message, code):
        self._print_line(message)
        sys.exit(code)

    def _print_line(self, message):
        line = f"{self.name}: {' '.join(map(str.strip, message.splitlines()))}"
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)  # above the progress bars
        else:
            click.echo(line, err=True)


def _end_workers():
    """End the worker processes of a command, if it started any."""
    parallel = sys.modules.get("maskgen.runtime.parallel")
    if parallel:
        parallel.end_workers()


def user_message(error: Exception) -> str:
    """The line that is printed for an error that the user can fix; "" for a bug."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, BadInput) or (isinstance(error, ImportError) and error.name == "cv2"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # from the operating system, such as a full disk
        advice = ADVICE.get(error.errno, FIX)
        return f"{error.filename or 'the disk'}: {error.strerror}; {advice}"
    if f"{type(error).__module__}.{type(error).__name__}" == "sqlite3.OperationalError":
        return f"{error}; {FIX}"
    if isinstance(error, UnicodeEncodeError) and any("\ud800" <= c <= "\udfff" for c in error.object):
        where = error.object[max(0, error.start - 60) : error.end + 20]
        return f"{where!r} contains a name that is not valid Unicode: rename the file"
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # the latter of torch
    if no_memory or "Insufficient memory" in str(error) or "can't allocate memory" in str(error):
        return "out of memory: use smaller sizes, a smaller batch or fewer --workers"
    return ""


@contextmanager
def _warnings_as_lines(print_line):
    """Print each different `InputWarning` once, as a line, until the block ends; others are left to Python."""
    printed, before = set(), warnings.showwarning

    def show(message, category, *where, **options):
        if not issubclass(category, InputWarning):
            before(message, category, *where, **options)
        elif str(message) not in printed:
            printed.add(str(message))
            print_line(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=InputWarning)
        warnings.showwarning = show
        yield
