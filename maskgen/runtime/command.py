"""What the commands share: options, types, and how a mistake of the user is told."""

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

FAULT, MISTAKE, STOPPED = 1, 2, 130  # exit codes: the work found a fault; the user can mend it; Ctrl-C
ADVICE = {
    errno.ENAMETOOLONG: "shorten it",
    errno.EMFILE: "use fewer --workers, or raise the limit of `ulimit -n`",
    errno.ENFILE: "use fewer --workers",
}
GOES_ON = "mend that, and the same command goes on"
POLARITIES = ("hole-white", "hole-black")  # as in maskgen.maskset, which imports OpenCV
LARGEST = 2**32 - 1  # of any whole number; NumPy and torch both take it for a seed
CONTEXT = {"show_default": True, "max_content_width": 100}
SEED = click.IntRange(0, LARGEST)
seed_option = click.option("--seed", type=SEED, default=0, help="Every random choice comes from it.")
workers_option = click.option("--workers", "-j", type=click.IntRange(1, 1024), help="Processes. [default: all cores]")


def _answers(context, param, address):
    """Before anything is written: whether a scheduler is there."""
    if address is not None:
        from maskgen.runtime.cluster import check_scheduler

        check_scheduler(address)
    return address


cluster_option = click.option(
    "--cluster", metavar="ADDRESS", callback=_answers, help="Dask scheduler that does the work instead."
)


class PathType(click.Path):
    """A path; `--out "$FORGOTTEN"` is a mistake and not the working folder."""

    def convert(self, value, param, ctx):
        if value == "":
            self.fail("expected a path, got an empty text", param, ctx)
        return super().convert(value, param, ctx)


FILE_OR_FOLDER = PathType(exists=True, path_type=Path)
FILE = PathType(dir_okay=False, path_type=Path)
FOLDER = PathType(file_okay=False, path_type=Path)


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


def config_options(config, **fields):
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


def config_from(config, options):
    """A settings object of a class from the options that are its fields."""
    return config(**{name: value for name, value in options.items() if name in config.__dataclass_fields__})


def print_stderr(line):
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


def check_numbers(context):
    """Raise click.BadParameter for an option of a command that is NaN, infinite or beyond `LARGEST`."""
    for param in context.command.params:
        values = context.params.get(param.name)
        for value in values if isinstance(values, tuple) else (values,):
            if isinstance(value, int | float) and not abs(value) <= LARGEST:
                raise click.BadParameter(f"expected a number up to {LARGEST}, got {value:g}", context, param)


class Command(click.Command):
    """A command that never sees NaN, infinite or absurd numbers."""

    def invoke(self, ctx):
        check_numbers(ctx)
        return super().invoke(ctx)


class Tool(click.Group):
    """A group of commands whose user sees one line for a mistake or a warning, and no traceback."""

    command_class = Command
    group_class = type  # groups inside are of this class too

    def parse_args(self, ctx, args):
        if not args and self.no_args_is_help:  # Click 8.2 would print it to stderr and exit with 2
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def invoke(self, ctx):
        check_numbers(ctx)
        return super().invoke(ctx)

    def __call__(self, *args, **named):
        """Run as a program: Ctrl-C stops it wherever it comes, and does nothing once all is done."""
        sys.unraisablehook = _not_lost(sys.unraisablehook)
        try:
            return super().__call__(*args, **named)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python's own end would show a traceback

    def main(self, args=None, prog_name=None, **extra):
        """Run a command and end the process with its exit code; a bug alone shows a traceback."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # names of files may be no text at all, or no ASCII
        try:
            with _warnings_told(self._say):
                code = super().main(args, prog_name, standalone_mode=False, **extra)
                _end_workers()
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else self.name
            self._stop(f"{error.format_message()} ({where} --help tells more)", MISTAKE)
        except (KeyboardInterrupt, click.Abort):
            self._stop("stopped; nothing is lost, the same command goes on from here", STOPPED)
        except BrokenPipeError:  # `| head` has seen enough
            sys.stderr.close()
            sys.exit(FAULT)
        except Exception as error:
            line = user_message(error)
            if not line:
                raise
            self._stop(line, MISTAKE)
        sys.exit(code if isinstance(code, int) else 0)

    def _stop(self, message, code):
        self._say(message)
        sys.exit(code)

    def _say(self, message):
        line = f"{self.name}: {' '.join(map(str.strip, message.splitlines()))}"
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)  # above the bars that are on the screen
        else:
            click.echo(line, err=True)


def _end_workers():
    """End the processes that have worked for a command, if it had any."""
    parallel = sys.modules.get("maskgen.runtime.parallel")
    if parallel:
        parallel.end_workers()


def user_message(error: Exception) -> str:
    """What an error that the user can mend says, in one line; "" for a bug of ours."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, BadInput) or (isinstance(error, ImportError) and error.name == "cv2"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:  # the system's own word: full, read-only, not there
        advice = ADVICE.get(error.errno, GOES_ON)
        return f"{error.filename or 'the disk'}: {error.strerror}; {advice}"
    if f"{type(error).__module__}.{type(error).__name__}" == "sqlite3.OperationalError":
        return f"{error}; {GOES_ON}"
    if isinstance(error, UnicodeEncodeError) and any("\ud800" <= c <= "\udfff" for c in error.object):
        where = error.object[max(0, error.start - 60) : error.end + 20]
        return f"{where!r} holds a name that is no valid Unicode: rename the file"
    wants_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # the latter is torch's
    if wants_memory or "Insufficient memory" in str(error) or "can't allocate memory" in str(error):
        return "out of memory: use smaller sizes, a smaller batch or fewer --workers"
    return ""


@contextmanager
def _warnings_told(say):
    """Say each `InputWarning` once, in a line of its own, until the block ends; others are left to Python."""
    told, before = set(), warnings.showwarning

    def show(message, category, *where, **more):
        if not issubclass(category, InputWarning):
            before(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=InputWarning)
        warnings.showwarning = show
        yield
