"""The error of a method on one pair."""


class Failed(Exception):
    """The method has no result for this pair. The benchmark records the message and continues with the next pair."""
