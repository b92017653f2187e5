"""What users can mend is a `BadInput`, what they should know an `InputWarning`; any other error is our bug."""

import warnings


class BadInput(ValueError):
    """One line for the user: what was expected, what came, what to do."""


class InputWarning(UserWarning):
    """One line about an input that looks odd. The work goes on; the commands print each line once."""


def warn(line: str) -> None:
    """Issue an `InputWarning`."""
    warnings.warn(line, InputWarning, stacklevel=3)


def install_hint(extra: str) -> str:
    """How to install one of the optional dependencies of setup.cfg, from a clone: a shell command."""
    return f"pip install '.[{extra}]' in the folder of the clone"
