"""The settings of a deployment: what they may be, and what they are where nobody says.

They are given in the code, in a config file, or both; then the file's count. So what was given is
kept as it was, by name, and `Settings` is made of it last.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loadshed._errors import ConfigError
from loadshed._limits import shares_of
from loadshed._policy.admission import Order
from loadshed._policy.criticality import Criticality
from loadshed._policy.settings import (
    positive_number,
    positive_seconds,
    seconds,
    whole_number,
    yes_or_no,
)

STATUS_CODES = (503, 429)
"""What a request can be answered that is turned away."""

ORDERS = ("fifo", "adaptive_lifo")
"""Who of those that wait goes first."""

CLASSES = tuple(each.name for each in Criticality)
"""How much a request matters, the highest first."""

A_PART = "a number above 0, and 1 at most"
SHARES = f"a mapping of {', '.join(CLASSES)} to parts above 0, together 1 at most, or None"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackpressureConfig:
    """How a request is answered over HTTP that is turned away.

    Args:
        status_code: 503 or 429.
        retry_after_s: Seconds for the header `Retry-After`, rounded up. By default what the queue's
            own estimate says.

    Raises:
        ConfigError: One is not what it may be.
    """

    status_code: int = 503
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        if self.status_code not in STATUS_CODES:
            raise ConfigError("status_code", self.status_code, "503 or 429")
        retry_after_s = seconds("retry_after_s", self.retry_after_s)
        object.__setattr__(self, "retry_after_s", retry_after_s)  # it was infinite, perhaps


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment is to be like. The fields are those of `loadshed.serve.deployment`."""

    num_replicas: int = 1
    max_ongoing_requests: float | Literal["auto"] = 5
    max_queued_requests: float | None = None
    max_wait: float | None = None
    order: Order | None = None
    shares: Mapping[str, float] | None = None
    max_tenants: int = 1000
    tenant_share: float = 0.5
    trust_criticality: bool = False
    tenant_header: str | None = None
    request_timeout_s: float | None = None
    user_config: Any = None
    health_check_period_s: float | None = 10
    health_check_timeout_s: float | None = 30
    graceful_shutdown_timeout_s: float | None = 20
    backpressure_config: BackpressureConfig = field(default_factory=BackpressureConfig)


Check = Callable[[str, object], Any]
"""Returns the value of a setting, or raises the `ConfigError` that says what it may be."""


def _ongoing(setting: str, value: object) -> float | str:
    if value == "auto":
        return "auto"
    try:
        return whole_number(setting, value, at_least=1)
    except ConfigError as error:
        raise ConfigError(setting, value, f"{error.expected}, or 'auto'") from None


def _replicas(setting: str, value: object) -> float:
    return whole_number(setting, value, at_least=1, infinite=False)


def _queued(setting: str, value: object) -> float | None:
    if value is None:
        return None
    if value == -1 and not isinstance(value, bool):  # Ray's spelling
        return math.inf
    return whole_number(setting, value, at_least=0)


def _order(setting: str, value: object) -> object:
    if value is not None and value not in ORDERS:
        raise ConfigError(setting, value, "'fifo' or 'adaptive_lifo', or None")
    return value


def _shares(setting: str, value: object) -> dict[str, float] | None:
    if value is None:
        return None
    try:
        return {each.name: share for each, share in shares_of(value).items()}
    except ConfigError:
        raise ConfigError(setting, value, SHARES) from None


def _tenants(setting: str, value: object) -> float:
    return whole_number(setting, value, at_least=1, infinite=False)


def _tenant_share(setting: str, value: object) -> float:
    return positive_number(setting, value, A_PART, at_most=1)


def _header(setting: str, value: object) -> object:
    is_name = isinstance(value, str) and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", value, re.ASCII)
    if value is not None and not is_name:
        raise ConfigError(setting, value, "the name of a header, or None")
    return value


def _backpressure(setting: str, value: object) -> BackpressureConfig:
    if value is None:
        return BackpressureConfig()
    if isinstance(value, BackpressureConfig):
        return value
    fields = ("status_code", "retry_after_s")
    if not isinstance(value, Mapping) or not all(name in fields for name in value):
        raise ConfigError(setting, value, f"a mapping of {_in_words(fields)}")
    try:
        return BackpressureConfig(**value)
    except ConfigError as error:
        raise ConfigError(f"{setting}.{error.setting}", error.value, error.expected) from None


def _anything(setting: str, value: object) -> object:
    return value


CHECKS: Mapping[str, Check] = {
    "num_replicas": _replicas,
    "max_ongoing_requests": _ongoing,
    "max_queued_requests": _queued,
    "max_wait": seconds,
    "order": _order,
    "shares": _shares,
    "max_tenants": _tenants,
    "tenant_share": _tenant_share,
    "trust_criticality": yes_or_no,
    "tenant_header": _header,
    "request_timeout_s": seconds,
    "user_config": _anything,
    "health_check_period_s": positive_seconds,
    "health_check_timeout_s": positive_seconds,
    "graceful_shutdown_timeout_s": seconds,
    "backpressure_config": _backpressure,
}
"""Every setting, and what it may be."""

ONLY_RAY = frozenset(
    {
        "autoscaling_config",
        "deployment_actors",
        "gang_scheduling_config",
        "graceful_shutdown_wait_loop_s",
        "logging_config",
        "max_constructor_retry_count",
        "max_replicas_per_node",
        "max_surge_percent",
        "placement_group_bundle_label_selector",
        "placement_group_bundles",
        "placement_group_strategy",
        "ray_actor_options",
        "request_router_config",
        "rolling_update_percentage",
        "version",
    }
)
"""Settings that Ray Serve has for a deployment and that mean nothing on one machine. They are kept
for Ray."""


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """These settings, each as it has to be; those that only Ray knows as they are.

    Raises:
        ConfigError: There is no such setting, or it is not what it may be.
    """
    return {name: _check(name)(name, value) for name, value in given.items()}


def _check(name: str) -> Check:
    if name in ONLY_RAY:
        return _anything
    try:
        return CHECKS[name]
    except KeyError:
        expected = f"the name of a setting{did_you_mean(name, [*CHECKS, *ONLY_RAY])}"
        raise ConfigError("setting", name, expected) from None


def settings(*given: Mapping[str, Any]) -> Settings:
    """What was given, made one: of each setting the last that was given counts.

    Raises:
        ConfigError: There is no such setting, or it is not what it may be.
    """
    together = {name: value for each in given for name, value in checked(each).items()}
    return Settings(**{name: value for name, value in together.items() if name in CHECKS})


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion for a name that is not known, to put behind what it may be; or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _in_words(names: Iterable[str]) -> str:
    return " and ".join(repr(name) for name in names)


# What is said of a whole application.

TEXT = "a string of printable characters, and not empty"
PREFIX = "'/', or a path like '/app', without '/' at its end, '//', '{', '}', '?', '#' and spaces"


def is_text(value: object) -> bool:
    """Whether it is some text, and can be shown."""
    return isinstance(value, str) and value != "" and value.isprintable()


def is_root_path(value: object) -> bool:
    """Whether it can be what a proxy has taken away of all paths: nothing, perhaps."""
    return value == "" or (
        is_text(value) and re.fullmatch(r"(/[^/{}?#\s]+)+", str(value)) is not None
    )


def is_prefix(value: object) -> bool:
    """Whether paths can begin with it, as `route_prefix` says."""
    return value == "/" or (value != "" and is_root_path(value))
