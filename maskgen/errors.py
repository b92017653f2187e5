"""What a user can mend is a `BadInput`; every other error is ours and keeps its traceback."""


class BadInput(ValueError):
    """One line for the user: what was expected, what came, what to do."""
