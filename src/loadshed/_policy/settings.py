"""What a setting may be: each check returns the value, or raises the `ConfigError` that says."""

import math
from operator import index

from loadshed._errors import ConfigError


def whole_number(
    setting: str,
    value: object,
    *,
    at_least: int,
    at_most: float = math.inf,
    infinite: bool = True,
) -> float:
    """A whole number from `at_least` up, or `math.inf` spelled out where it may be `infinite`."""
    if infinite and value == math.inf == at_most:
        return math.inf
    try:
        number = at_least - 1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = at_least - 1
    if not at_least <= number <= at_most:
        expected = f">= {at_least}" + (", or math.inf" if infinite else "")
        if at_most < math.inf:
            expected = f"from {at_least} to {at_most}"
        raise ConfigError(setting, value, f"a whole number {expected}")
    return number


def yes_or_no(setting: str, value: object) -> bool:
    """True or False, and nothing that merely counts as one of them."""
    if not isinstance(value, bool):
        raise ConfigError(setting, value, "True or False")
    return value


def seconds(setting: str, value: object, *, at_least: float = 0) -> float | None:
    """A number of seconds from `at_least` up, or None where there is no such bound."""
    if value is None or value == math.inf:
        return None
    if not _is_number(value) or not value >= at_least:  # type: ignore[operator]
        raise ConfigError(setting, value, f"a number of seconds >= {at_least}, or None")
    return value  # type: ignore[return-value]


def positive_seconds(setting: str, value: object) -> float | None:
    """A number of seconds above 0, or None where there is no such bound."""
    if value is None or value == math.inf:
        return None
    if not _is_number(value) or not value > 0:  # type: ignore[operator]
        raise ConfigError(setting, value, "a number of seconds > 0, or None")
    return value  # type: ignore[return-value]


def number(
    setting: str, value: object, *, at_least: float, infinite: bool = False, or_else: str = ""
) -> float:
    """A number from `at_least` up, and `math.inf` only where `infinite`."""
    if not _is_number(value) or not value >= at_least or (value == math.inf and not infinite):  # type: ignore[operator]
        more = ", or math.inf" if infinite else or_else
        raise ConfigError(setting, value, f"a number >= {at_least}{more}")
    return value  # type: ignore[return-value]


def positive_number(setting: str, value: object, expected: str, *, at_most: float) -> float:
    """A number above 0 and up to `at_most`."""
    if not _is_number(value) or not 0 < value <= at_most:  # type: ignore[operator]
        raise ConfigError(setting, value, expected)
    return value  # type: ignore[return-value]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
