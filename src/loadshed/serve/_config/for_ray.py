"""The settings of a deployment as a config file of Ray Serve has them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from loadshed._errors import ConfigError
from loadshed.serve._settings import ONLY_RAY, BackpressureConfig, settings

NOT_IN_FILES = frozenset({"max_constructor_retry_count", "version"})
"""Settings that Ray has in code alone."""

_SECONDS = ("health_check_period_s", "health_check_timeout_s", "graceful_shutdown_timeout_s")
_DEFAULTS = settings()  # in seconds, ours are those of Ray
_QUEUE = {
    name: getattr(_DEFAULTS, name)
    for name in (
        "order",
        "shares",
        "max_tenants",
        "tenant_share",
        "trust_criticality",
        "tenant_header",
    )
}
"""Settings of a queue that Ray has not, and the values that change nothing."""

_NO_SUCH_QUEUE = (
    "left out: Ray Serve's queue is first in, first out, for all alike; `LoadShedMiddleware` "
    "around the application of an `ingress` has it there"
)
_NOT_FOUND = (
    "a whole number >= 1 for Ray Serve, which finds none by itself; on one machine "
    "`loadshed status` says what was found, and `LoadShedMiddleware` around the application of an "
    "`ingress` finds it there"
)


class Setting(NamedTuple):
    """A value for Ray, and what is to be said about it."""

    value: Any
    note: str = ""


def deployment(name: str, given: Mapping[str, Any]) -> dict[str, Setting]:
    """What Ray's file says for what is `given`, checked; without `request_timeout_s`.

    Raises:
        ConfigError: Ray has nothing that means the same.
    """
    if given.get("max_wait") is not None:
        expected = "left out: Ray Serve knows no bound for the time in the queue"
        raise ConfigError(f"max_wait of {name}", given["max_wait"], expected)
    for setting, usual in _QUEUE.items():
        if given.get(setting, usual) not in (usual, "fifo"):
            raise ConfigError(f"{setting} of {name}", given[setting], _NO_SUCH_QUEUE)
    made = {
        setting: _setting(f"{setting} of {name}", setting, value)
        for setting, value in given.items()
        if setting not in ("max_wait", "request_timeout_s", *_QUEUE, *NOT_IN_FILES)
    }
    if given.get("autoscaling_config") is not None:
        made.pop("num_replicas", None)  # Ray takes one of the two
    if given.get("max_queued_requests") is None:
        made["max_queued_requests"] = _queue(given)
    return made


def request_timeout(given: Iterable[Mapping[str, Any]]) -> float | None:
    """The one bound that Ray has for every request: the largest of those given."""
    bounds = [each["request_timeout_s"] for each in given if "request_timeout_s" in each]
    return None if None in bounds else max(bounds, default=None)


def _queue(given: Mapping[str, Any]) -> Setting:
    """As long as what may be worked on: with Ray's own default there is no bound."""
    ongoing = given.get("max_ongoing_requests", _DEFAULTS.max_ongoing_requests)
    replicas = given.get("num_replicas", _DEFAULTS.num_replicas)
    scaling = given.get("autoscaling_config")
    if isinstance(scaling, Mapping) and isinstance(scaling.get("max_replicas"), int):
        replicas = scaling["max_replicas"]
    return Setting(int(replicas * ongoing), "As many as may be worked on; Ray itself has no bound.")


def _setting(full_name: str, setting: str, value: Any) -> Setting:
    if setting in ONLY_RAY:
        return Setting(value)
    if setting in _SECONDS and value is None:
        return Setting(getattr(_DEFAULTS, setting), "Ray's default; Ray does not know null here.")
    if setting == "max_ongoing_requests" and value == math.inf:
        raise ConfigError(full_name, value, "a whole number >= 1 for Ray Serve")
    if setting == "max_ongoing_requests" and value == "auto":
        raise ConfigError(full_name, value, _NOT_FOUND)
    if setting == "max_queued_requests" and value is not None:
        return Setting(_queued(full_name, value))
    if setting == "user_config" and not (value is None or isinstance(value, Mapping)):
        raise ConfigError(full_name, value, "a mapping for Ray Serve")
    return Setting(backpressure(value) if isinstance(value, BackpressureConfig) else value)


def _queued(full_name: str, value: float) -> float:
    if value == 0:
        raise ConfigError(full_name, value, "a whole number >= 1, or math.inf, for Ray Serve")
    return -1 if value == math.inf else value


def backpressure(value: BackpressureConfig) -> dict[str, Any]:
    """The same as plain data; to come back after an infinite time is to be told nothing."""
    after = None if value.retry_after_s == math.inf else value.retry_after_s
    return {"status_code": value.status_code, "retry_after_s": after}
