"""What users can mend is a `BadInput`, what they should know an `InputWarning`; any other error is our bug."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


class BadInput(ValueError):
    """One line for the user: what was expected, what came, what to do."""


class InputWarning(UserWarning):
    """One line about an input that looks odd. The work goes on; the commands print each line once."""


def warn(line: str) -> None:
    """Issue an `InputWarning`."""
    lines = _collected.get()
    if lines is None:
        warnings.warn(line, InputWarning, stacklevel=3)
    else:
        lines.append(line)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Keep the lines of `warn` instead of issuing them, in this thread: a worker sends them to whoever asked."""
    lines: list[str] = []
    before = _collected.set(lines)
    try:
        yield lines
    finally:
        _collected.reset(before)


def install_hint(extra: str) -> str:
    """How to install one of the optional dependencies of setup.cfg: a shell command, and where it works."""
    return f"pip install '.[{extra}]' in your clone"
