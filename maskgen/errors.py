"""Errors that users can fix are `BadInput`, warnings about their inputs `InputWarning`; other errors are bugs."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


class BadInput(ValueError):
    """One line for the user: what was expected, what came, what to do."""


class InputWarning(UserWarning):
    """One line about an unusual input, which does not stop the work. The commands print each different line once."""


def warn(line: str) -> None:
    """Issue an `InputWarning`."""
    lines = _collected.get()
    if lines is None:
        warnings.warn(line, InputWarning, stacklevel=3)
    else:
        lines.append(line)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the lines of `warn` in this thread instead of issuing them, so that a worker can send them back."""
    lines: list[str] = []
    before = _collected.set(lines)
    try:
        yield lines
    finally:
        _collected.reset(before)


def install_hint(extra: str) -> str:
    """The shell command that installs an extra of setup.cfg, and where to run it."""
    return f"pip install '.[{extra}]' in your clone"
