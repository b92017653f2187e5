"""What a setting may be: rules for the settings classes and for arguments, with one form of refusal."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from maskgen.errors import BadInput


@dataclass(frozen=True)
class Rule:
    """allows: tells whether a value is good. says: what is, to follow the word "is"."""

    allows: Callable[[Any], bool]
    says: str


def expect(name: str, value: object, rule: Rule) -> None:
    """Raise BadInput, which names the value and what is allowed, where a rule does not allow it."""
    try:
        good = rule.allows(value)
    except (TypeError, ValueError):  # a value of another type
        good = False
    if not good:
        raise BadInput(f"{name} is {rule.says}, got {value!r}")


def expect_fields(config: object, **rules: Rule) -> None:
    """`expect` for fields of a settings object."""
    for name, rule in rules.items():
        expect(name, getattr(config, name), rule)


def one_of(names: Iterable[str]) -> Rule:
    """One of some names."""
    names = tuple(names)
    return Rule(lambda value: isinstance(value, str) and value in names, f"one of {', '.join(names)}")


def flag() -> Rule:
    """True or False."""
    return Rule(lambda value: isinstance(value, bool), "True or False")


def optional(rule: Rule) -> Rule:
    """What a rule allows, or None."""
    return Rule(lambda value: value is None or rule.allows(value), f"{rule.says}, or None")


def whole(low: int, high: int | None = None) -> Rule:
    """A whole number, bounds included."""
    return Rule(lambda value: _is_whole(value, low, high), f"a whole number, {_range(low, high)}")


def number(low: float, high: float | None = None, *, above: bool = False) -> Rule:
    """A finite number, bounds included; with `above` the lower one is not."""
    words = _range(low, high) if not above else f"above {low:g}" + (f" and {high:g} at most" if high else "")
    return Rule(lambda value: _is_number(value, low, high) and (not above or value > low), f"a number, {words}")


def several(rule: Rule, least: int = 1, most: int | None = None) -> Rule:
    """So many values, each of which a rule allows."""

    def allows(value):
        return (
            isinstance(value, tuple | list)
            and least <= len(value) <= (most or len(value))
            and all(map(rule.allows, value))
        )

    count = f"{least} to {most}" if most else f"{least} or more"
    return Rule(allows, f"{count} values, each {rule.says}")


def pair(low: float, high: float, *, whole: bool = False, above: bool = False) -> Rule:
    """Two numbers, the smaller one first, bounds included; with `above` the lower bound is not."""
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
