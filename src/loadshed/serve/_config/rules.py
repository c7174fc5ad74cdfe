"""What the fields of a config may be. Each rule returns the value, or raises what says so."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from loadshed._errors import ConfigError
from loadshed._policy.settings import number, seconds
from loadshed.serve import _settings
from loadshed.serve._config.tree import Wrong, of_plain, shown
from loadshed.serve._settings import (
    CHECKS,
    CLASSES,
    PREFIX,
    TEXT,
    Check,
    did_you_mean,
    is_prefix,
    is_root_path,
    is_text,
)

INFINITE = ".inf"
"""Infinity as YAML spells it. JSON has no number for it, and so carries this string."""


class SeveralError(ValueError):
    """More than one part of a value may be wrong; their places start at the value."""

    def __init__(self, wrong: list[Wrong]) -> None:
        super().__init__(wrong)
        self.wrong = wrong

    def __str__(self) -> str:
        return "\n".join(f"{path(each.place)} {each.message}".strip() for each in self.wrong)


def path(place: tuple[str | int, ...]) -> str:
    """A place in words: `applications[0].deployments[1].num_replicas`."""
    return "".join(_step(step) for step in place).removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, str) and re.fullmatch(r"[\w-]{1,80}", step):
        return f".{step}"
    return f"[{shown(step)}]"


def _a(expected: str, fits: Any) -> Check:
    def check(setting: str, value: object) -> object:
        if not fits(value):
            raise ConfigError(setting, value, expected)
        return value

    return check


def _matches(pattern: str) -> Any:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _is_port(value: object) -> bool:
    return type(value) is int and 0 <= value <= 65535


def setting_as_written(setting: str, value: object) -> Any:
    """The value that is checked, but as it was written: -1 stays -1."""
    value = _number(value)
    CHECKS[setting](setting, value)
    return value


def _number(value: object) -> object:
    return math.inf if value == INFINITE else value


def optional_seconds(setting: str, value: object) -> float | None:
    return seconds(setting, _number(value))


def replicas(setting: str, value: object) -> Any:
    try:
        return CHECKS[setting](setting, value)
    except ConfigError as error:
        more = ": nothing scales it on one machine" if value == "auto" else ""
        raise ConfigError(setting, value, f"{error.expected}{more}") from None


def plain(setting: str, value: object) -> Any:
    tree = of_plain(value, finite=True)
    if tree.wrong:
        raise SeveralError(tree.wrong)
    return tree.value


def plain_mapping(setting: str, value: object) -> Any:
    return plain(setting, mapping(setting, value))


def shares(setting: str, value: object) -> object:
    """The shares as they were written; each that is wrong is told in its own line."""
    if isinstance(value, Mapping):
        wrong = [each for item in value.items() for each in _wrong_in_share(*item)]
        if wrong:
            raise SeveralError(wrong)
    return setting_as_written(setting, value)


def _wrong_in_share(name: object, share: object) -> Iterator[Wrong]:
    place = (str(name),)
    if str(name).upper() not in CLASSES:
        meant = did_you_mean(str(name).upper(), CLASSES)
        yield Wrong(place, f"must be one of {', '.join(CLASSES)}{meant}.", at_key=True)
    else:
        try:
            CHECKS["tenant_share"]("", share)
        except ConfigError as error:
            yield Wrong(place, f"must be {error.expected}, not {shown(share)}.")


def part_of_backpressure(setting: str, value: object) -> object:
    value = _number(value)
    _settings.BackpressureConfig(**{setting: value})  # type: ignore[arg-type]
    return None if value == math.inf else value  # after an infinite time: there is nothing to say


def keep_alive(setting: str, value: object) -> float:
    return number(setting, value, at_least=0)


mapping = _a("a mapping", lambda value: isinstance(value, Mapping | BaseModel))
mapping_or_null = _a(
    "a mapping, or null", lambda value: value is None or isinstance(value, Mapping | BaseModel)
)
listed = _a("a list", lambda value: isinstance(value, list | tuple))
text = _a(TEXT, is_text)
port = _a("a whole number from 0 to 65535", _is_port)
root_path = _a(
    "'', or a path like '/serve', without '/' at its end and what no prefix has", is_root_path
)
route_prefix = _a(f"{PREFIX}, or null", lambda value: value is None or is_prefix(value))
_NAME = r"[^\W\d]\w*"
_DOTTED = rf"{_NAME}(\.{_NAME})*"
import_path = _a("like 'package.module:name'", _matches(rf"{_DOTTED}:{_DOTTED}"))


def directory(setting: str, value: object) -> object:
    if isinstance(value, str) and "://" in value:
        raise ConfigError(setting, value, "a local directory; download it first")
    return _a("a local directory", is_text)(setting, value)


def directory_or_null(setting: str, value: object) -> object:
    return None if value is None else directory(setting, value)


def variables(setting: str, value: object) -> object:
    given = plain_mapping(setting, value)
    wrong = [each for item in given.items() for each in _wrong_in_variable(*item)]
    if wrong:
        raise SeveralError(wrong)
    return given


def _wrong_in_variable(name: str, value: object) -> Iterator[Wrong]:
    if name == "" or "=" in name or "\0" in name:
        message = f"must be a name without '=' and NUL, and not empty, not {shown(name)}."
        yield Wrong((name,), message, at_key=True)
    elif not isinstance(value, str) or "\0" in value:
        yield Wrong((name,), f"must be a string (in quotes) without NUL, not {shown(value)}.")
