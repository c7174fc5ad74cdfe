"""The settings of a deployment: what they may be, and which of those that were given count."""

import dataclasses
import inspect
import math
from typing import Any

import pytest

from loadshed import ConfigError, Criticality, ReplicaPool
from loadshed.serve import BackpressureConfig
from loadshed.serve._settings import (
    CHECKS,
    ONLY_RAY,
    Settings,
    checked,
    did_you_mean,
    settings,
)

FIELDS = {each.name for each in dataclasses.fields(Settings)}


def test_every_setting_has_a_check_and_none_of_them_is_for_ray_alone() -> None:
    assert set(CHECKS) == FIELDS
    assert not FIELDS & ONLY_RAY


def test_the_defaults_are_those_of_a_pool() -> None:
    of_a_pool = inspect.signature(ReplicaPool).parameters
    ours = Settings()
    for name in FIELDS - {"backpressure_config", "tenant_header", "max_ongoing_requests"}:
        assert getattr(ours, name) == of_a_pool[name].default
    assert ours.tenant_header is None
    assert ours.max_ongoing_requests == 5  # Ray Serve's
    assert ours.backpressure_config == BackpressureConfig(status_code=503, retry_after_s=None)
    assert settings() == settings({}) == ours


ACCEPTED = [
    ("num_replicas", 1, 1),
    ("num_replicas", 7, 7),
    ("max_ongoing_requests", 1, 1),
    ("max_ongoing_requests", math.inf, math.inf),
    ("max_ongoing_requests", "auto", "auto"),
    ("max_queued_requests", None, None),
    ("max_queued_requests", 0, 0),
    ("max_queued_requests", -1, math.inf),
    ("max_queued_requests", math.inf, math.inf),
    ("max_wait", 0, 0),
    ("max_wait", 0.5, 0.5),
    ("max_wait", None, None),
    ("max_wait", math.inf, None),
    ("order", None, None),
    ("order", "fifo", "fifo"),
    ("order", "adaptive_lifo", "adaptive_lifo"),
    ("shares", None, None),
    ("shares", {}, {}),
    ("shares", {"critical": 0.5, "Sheddable_Plus": 0.5}, {"CRITICAL": 0.5, "SHEDDABLE_PLUS": 0.5}),
    ("shares", {Criticality.SHEDDABLE: 1}, {"SHEDDABLE": 1}),
    ("max_tenants", 1, 1),
    ("tenant_share", 1, 1),
    ("tenant_share", 0.1, 0.1),
    ("trust_criticality", True, True),
    ("tenant_header", None, None),
    ("tenant_header", "X-API-Key", "X-API-Key"),
    ("request_timeout_s", 0, 0),
    ("request_timeout_s", math.inf, None),
    ("user_config", {"a": [1]}, {"a": [1]}),
    ("user_config", None, None),
    ("health_check_period_s", 0.1, 0.1),
    ("health_check_period_s", None, None),
    ("health_check_timeout_s", 3, 3),
    ("graceful_shutdown_timeout_s", 0, 0),
    ("graceful_shutdown_timeout_s", None, None),
    ("backpressure_config", None, BackpressureConfig()),
    ("backpressure_config", {}, BackpressureConfig()),
    ("backpressure_config", {"status_code": 429}, BackpressureConfig(status_code=429)),
    (
        "backpressure_config",
        BackpressureConfig(retry_after_s=1.5),
        BackpressureConfig(retry_after_s=1.5),
    ),
    ("ray_actor_options", {"num_gpus": 1}, {"num_gpus": 1}),
]


@pytest.mark.parametrize(("name", "given", "kept"), ACCEPTED)
def test_what_a_setting_may_be_is_kept_as_it_has_to_be(name: str, given: Any, kept: Any) -> None:
    found = checked({name: given})
    assert found == {name: kept}
    assert checked(found) == found


SHARES_OF = (
    "a mapping of CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE to parts above 0, together 1 "
    "at most"
)
REFUSED = [
    ("num_replicas", 0, "a whole number >= 1"),
    ("num_replicas", 1.5, "a whole number >= 1"),
    ("num_replicas", True, "a whole number >= 1"),
    ("num_replicas", "auto", "a whole number >= 1"),
    ("num_replicas", math.inf, "a whole number >= 1"),
    ("num_replicas", None, "a whole number >= 1"),
    ("max_ongoing_requests", 0, "a whole number >= 1, or math.inf"),
    ("max_ongoing_requests", None, "a whole number >= 1, or math.inf"),
    ("max_ongoing_requests", "Auto", "a whole number >= 1, or math.inf, or 'auto'"),
    ("order", "lifo", "'fifo' or 'adaptive_lifo', or None"),
    ("order", ["fifo"], "'fifo' or 'adaptive_lifo', or None"),
    ("shares", ["CRITICAL"], f"{SHARES_OF}, or None"),
    ("shares", {"URGENT": 0.5}, SHARES_OF),
    ("shares", {"CRITICAL": 0}, SHARES_OF),
    ("shares", {"CRITICAL": 1.1}, SHARES_OF),
    ("shares", {"CRITICAL": True}, SHARES_OF),
    ("shares", {"CRITICAL": 0.6, "SHEDDABLE": 0.6}, SHARES_OF),
    ("shares", {"CRITICAL": 0.1, "critical": 0.2}, SHARES_OF),
    ("max_tenants", 0, "a whole number >= 1"),
    ("max_tenants", math.inf, "a whole number >= 1"),
    ("max_tenants", None, "a whole number >= 1"),
    ("tenant_share", 0, "a number above 0, and 1 at most"),
    ("tenant_share", 1.5, "a number above 0, and 1 at most"),
    ("trust_criticality", 1, "True or False"),
    ("trust_criticality", None, "True or False"),
    ("tenant_header", "", "the name of a header, or None"),
    ("tenant_header", "x api key", "the name of a header, or None"),
    ("tenant_header", "x-key\n", "the name of a header, or None"),
    ("tenant_header", b"x-key", "the name of a header, or None"),
    ("max_queued_requests", -2, "a whole number >= 0, or math.inf"),
    ("max_queued_requests", False, "a whole number >= 0, or math.inf"),
    ("max_queued_requests", "1", "a whole number >= 0, or math.inf"),
    ("max_wait", -0.1, "a number of seconds >= 0, or None"),
    ("max_wait", math.nan, "a number of seconds >= 0, or None"),
    ("request_timeout_s", "1", "a number of seconds >= 0, or None"),
    ("health_check_period_s", 0, "a number of seconds > 0, or None"),
    ("health_check_timeout_s", 0, "a number of seconds > 0, or None"),
    ("graceful_shutdown_timeout_s", True, "a number of seconds >= 0, or None"),
    ("backpressure_config", 503, "a mapping of 'status_code' and 'retry_after_s'"),
    ("backpressure_config", {"status": 503}, "a mapping of 'status_code' and 'retry_after_s'"),
    ("backpressure_config", {1: 503}, "a mapping of 'status_code' and 'retry_after_s'"),
    ("backpressure_config", [("status_code", 503)], "a mapping of 'status_code' and"),
]


@pytest.mark.parametrize(("name", "given", "expected"), REFUSED)
def test_what_a_setting_may_not_be_is_refused_by_its_name(
    name: str, given: Any, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        checked({name: given})
    assert caught.value.setting == name
    assert caught.value.value is given
    assert caught.value.expected.startswith(expected)


@pytest.mark.parametrize("status_code", [200, 500, 502, "503", None, [503], True])
def test_who_is_turned_away_gets_503_or_429(status_code: Any) -> None:
    with pytest.raises(ConfigError, match=r"^status_code must be 503 or 429, not "):
        BackpressureConfig(status_code=status_code)
    with pytest.raises(ConfigError, match=r"^backpressure_config\.status_code must be 503 or"):
        checked({"backpressure_config": {"status_code": status_code}})


@pytest.mark.parametrize("seconds", [-1, "1", math.nan, True])
def test_when_to_come_back_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ConfigError, match=r"^retry_after_s must be a number of seconds >= 0"):
        BackpressureConfig(retry_after_s=seconds)
    with pytest.raises(ConfigError, match=r"^backpressure_config\.retry_after_s must be"):
        checked({"backpressure_config": {"retry_after_s": seconds}})


def test_when_to_come_back_is_never_infinite() -> None:
    """It would have to be written into a header."""
    try:
        found = BackpressureConfig(retry_after_s=math.inf).retry_after_s
    except ConfigError:
        return
    assert found is None


def test_a_name_that_is_no_setting_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError) as caught:
        checked({"max_ongoing_request": 3})
    assert str(caught.value) == (
        "setting must be the name of a setting (did you mean 'max_ongoing_requests'?), "
        "not 'max_ongoing_request'."
    )
    with pytest.raises(ConfigError, match=r"the name of a setting, not 'zzz'"):
        settings({"zzz": 1})
    with pytest.raises(ConfigError, match="did you mean 'ray_actor_options'"):
        checked({"ray_actor_option": 1})


def test_of_each_setting_the_last_that_was_given_counts() -> None:
    code = {"num_replicas": 2, "max_wait": 1.0, "user_config": {"a": 1}}
    file = {"num_replicas": 3, "user_config": {"b": 2}, "max_queued_requests": -1}
    found = settings({"request_timeout_s": 9}, code, file)
    assert found == Settings(
        num_replicas=3,
        max_wait=1.0,
        user_config={"b": 2},
        max_queued_requests=math.inf,
        request_timeout_s=9,
    )
    assert code == {"num_replicas": 2, "max_wait": 1.0, "user_config": {"a": 1}}


def test_one_that_is_given_as_none_takes_the_place_of_one_that_was_given() -> None:
    assert settings({"request_timeout_s": 9}, {"request_timeout_s": None}).request_timeout_s is None
    assert settings({"user_config": 1}, {"user_config": None}).user_config is None


def test_a_mapping_of_how_to_answer_takes_the_place_of_all_of_another() -> None:
    found = settings(
        {"backpressure_config": {"status_code": 429}}, {"backpressure_config": {"retry_after_s": 3}}
    )
    assert found.backpressure_config == BackpressureConfig(status_code=503, retry_after_s=3)


def test_what_is_wrong_is_told_though_something_else_counts() -> None:
    with pytest.raises(ConfigError, match="num_replicas"):
        settings({"num_replicas": 0}, {"num_replicas": 1})


@pytest.mark.parametrize("name", sorted(ONLY_RAY))
def test_what_only_ray_knows_is_taken_and_is_no_setting_here(name: str) -> None:
    value = object()
    assert checked({name: value})[name] is value
    assert settings({name: value}) == Settings()


def test_a_suggestion_is_close_or_is_none() -> None:
    assert did_you_mean("Modl", {"Model": 1, "Other": 2}) == " (did you mean 'Model'?)"
    assert did_you_mean("Modl", ["Quite another"]) == did_you_mean("x", []) == ""
