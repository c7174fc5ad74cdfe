"""What a setting may be: each check returns the value, or raises the `ConfigError` that says."""

import math
from operator import index

from loadshed._errors import ConfigError


def whole_number(setting: str, value: object, *, at_least: int) -> float:
    """A whole number from `at_least` up, or `math.inf` spelled out."""
    if value == math.inf:
        return math.inf
    try:
        number = at_least - 1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = at_least - 1
    if number < at_least:
        raise ConfigError(setting, value, f"a whole number >= {at_least}, or math.inf")
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
    try:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and float(value) >= at_least:  # type: ignore[arg-type]
            return value  # type: ignore[return-value]
    except OverflowError:
        pass
    raise ConfigError(setting, value, f"a number of seconds >= {at_least}, or None")
