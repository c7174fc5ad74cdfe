"""How much a request matters, in four classes, and how it says so in a header."""

from collections.abc import Iterable
from enum import IntEnum

from loadshed._errors import ConfigError

HEADER = b"x-request-criticality"
"""The class of a request: the name of a `Criticality`."""

A_CLASS = "a Criticality, or the name of one"


class Criticality(IntEnum):
    """How much a request matters: when not all can be served, the first of these go first.

    The classes of Google's "Site Reliability Engineering", chapter 21, "Handling Overload". Few
    enough that everybody knows what to choose, and that they mean the same in every service.
    """

    CRITICAL_PLUS = 0
    """What must not fail: people notice at once, and it costs dear."""
    CRITICAL = 1
    """What people wait for; the class of whoever says nothing. Provide for all of it, and of the
    class above."""
    SHEDDABLE_PLUS = 2
    """What may fail for minutes, now and then: batch work that tries again."""
    SHEDDABLE = 3
    """What may often fail in part, and now and then altogether."""


_NAMES = {each.name.encode(): each for each in Criticality}


def read_criticality(headers: Iterable[Iterable[bytes]]) -> tuple[Criticality | None, bool]:
    """The class that the header names, and whether there is one that had to be ignored.

    That is one that names no class, or comes more than once.
    """
    values = [value for name, value in headers if name == HEADER]
    criticality = parse_criticality(values[0]) if len(values) == 1 else None
    return criticality, bool(values) and criticality is None


def parse_criticality(value: bytes) -> Criticality | None:
    """The class of that name, in whatever case; None where there is none."""
    return _NAMES.get(value.upper())


def criticality_of(setting: str, value: object, expected: str = A_CLASS) -> Criticality:
    """The class that is meant: a `Criticality`, or the name of one.

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(value, Criticality):
        return value
    named = parse_criticality(value.encode(errors="replace")) if isinstance(value, str) else None
    if named is None:
        raise ConfigError(setting, value, expected)
    return named
