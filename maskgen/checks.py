"""Rules for the values of settings and arguments, with one form of error."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from maskgen.errors import BadInput


@dataclass(frozen=True)
class Rule:
    """allows: whether a value is valid. says: which values are valid, worded to follow "is"."""

    allows: Callable[[Any], bool]
    says: str


def expect(name: str, value: object, rule: Rule) -> None:
    """Raise BadInput, with the valid values and the given one, unless a rule allows the value."""
    try:
        valid = rule.allows(value)
    except (TypeError, ValueError):  # a value of another type
        valid = False
    if not valid:
        raise BadInput(f"{name} is {rule.says}, got {value!r}")


def expect_fields(config: object, **rules: Rule) -> None:
    """`expect` for fields of a settings object. rules: name of a field -> its rule."""
    for name, rule in rules.items():
        expect(name, getattr(config, name), rule)


def one_of(names: Iterable[str]) -> Rule:
    """One of the names."""
    names = tuple(names)
    return Rule(lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


def flag() -> Rule:
    """True or False."""
    return Rule(lambda value: isinstance(value, bool), "True or False")


def optional(rule: Rule) -> Rule:
    """None, or a value that the rule allows."""
    return Rule(lambda value: value is None or rule.allows(value), f"{rule.says}, or None")


def whole(low: int, high: int | None = None) -> Rule:
    """A whole number from low to high, both included."""
    return Rule(lambda value: _is_whole(value, low, high), f"a whole number, {_range(low, high)}")


def number(low: float, high: float | None = None, *, above: bool = False) -> Rule:
    """A finite number from low to high, both included; with `above` larger than low."""
    words = _range(low, high) if not above else f"above {low:g}" + (f" and {high:g} at most" if high else "")
    return Rule(lambda value: _is_number(value, low, high) and (not above or value > low), f"a number, {words}")


def several(rule: Rule, least: int = 1, most: int | None = None) -> Rule:
    """A tuple or list of `least` to `most` values, each allowed by the rule."""

    def allows(value):
        return (
            isinstance(value, tuple | list)
            and least <= len(value) <= (most or len(value))
            and all(map(rule.allows, value))
        )

    count = f"{least} to {most}" if most else f"{least} or more"
    return Rule(allows, f"{count} values, each {rule.says}")


def pair(low: float, high: float, *, whole: bool = False, above: bool = False) -> Rule:
    """Two numbers from low to high, the smaller one first, both bounds included; with `above` larger than low."""
    fits = _is_whole if whole else _is_number

    def allows(value):
        smaller, larger = value
        return all(fits(v, low, high) for v in value) and smaller <= larger and (not above or smaller > low)

    words = f"above {low:g} and {high:g} at most" if above else _range(low, high)
    return Rule(allows, f"two {'whole ' * whole}numbers, the smaller one first, {words}")


def _is_number(value, low, high):
    known = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return known and value >= low and (high is None or value <= high)


def _is_whole(value, low, high):
    return isinstance(value, Integral) and _is_number(value, low, high)


def _range(low, high):
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
