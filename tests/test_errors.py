"""The errors: what they carry, what they say, and that they survive a journey."""

import copy
import math
import pickle
from typing import Any

import pytest

import loadshed
from loadshed import (
    BackPressureError,
    CircuitOpenError,
    ConfigError,
    LoadShedError,
    NotPicklableError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
    RequestTimeoutError,
    RetryError,
)

ONE_OF_EACH: list[LoadShedError] = [
    LoadShedError("x"),
    BackPressureError(1, 2, reason="throttle", retry_after=7),
    QueueFullError(2, 2, retry_after=3),
    QueueTimeoutError(1, math.inf, retry_after=4, max_wait=0.5),
    RetryError([503, 503], 503),
    CircuitOpenError("open"),
    RequestTimeoutError(2.5),
    ReplicaError("x"),
    ReplicaDiedError("x"),
    ReplicaUnavailableError("Traceback ..."),
    NotPicklableError("x"),
    ConfigError("max_wait", -1, "a number of seconds >= 0"),
]


def test_there_is_one_of_each() -> None:
    errors = [value for value in vars(loadshed).values() if isinstance(value, type)]
    errors = [error for error in errors if issubclass(error, LoadShedError)]
    assert {type(error) for error in ONE_OF_EACH} == set(errors)


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        (BackPressureError, (LoadShedError,)),
        (QueueFullError, (BackPressureError,)),
        (QueueTimeoutError, (BackPressureError,)),
        (RetryError, (LoadShedError,)),
        (CircuitOpenError, (LoadShedError,)),
        (RequestTimeoutError, (LoadShedError,)),
        (ReplicaError, (LoadShedError,)),
        (ReplicaDiedError, (ReplicaError,)),
        (ReplicaUnavailableError, (ReplicaError,)),
        (ConfigError, (LoadShedError, ValueError)),
        (LoadShedError, (Exception,)),
    ],
)
def test_the_tree_is_the_documented_one(error: type, parents: tuple[type, ...]) -> None:
    assert error.__bases__ == parents


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling_and_copying(error: LoadShedError, protocol: int) -> None:
    error.add_note("from afar")
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):  # noqa: S301
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert twin.__dict__ == error.__dict__


def test_back_pressure_reads_like_ray_serves() -> None:
    expected = "Request dropped due to backpressure (num_queued_requests=2, max_queued_requests=2)."
    assert str(BackPressureError(2, 2)) == expected
    assert str(QueueFullError(2, 2)) == expected


def test_a_timeout_in_the_queue_says_how_long_it_waited() -> None:
    assert str(QueueTimeoutError(1, 2, max_wait=0.5)) == (
        "Request dropped due to backpressure "
        "(num_queued_requests=1, max_queued_requests=2, max_wait=0.5)."
    )


def test_a_deadline_is_named_where_the_numbers_do_not_say_why() -> None:
    assert str(QueueFullError(1, 2, reason="deadline")) == (
        "Request dropped due to backpressure "
        "(num_queued_requests=1, max_queued_requests=2, reason=deadline)."
    )
    assert str(QueueTimeoutError(1, 2, reason="deadline", max_wait=0.5)) == (
        "Request dropped due to backpressure "
        "(num_queued_requests=1, max_queued_requests=2, max_wait=0.5, reason=deadline)."
    )


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (BackPressureError(), (0, 0, "queue_full", 1)),
        (
            BackPressureError(
                num_queued_requests=1, max_queued_requests=2, reason="deadline", retry_after=3
            ),
            (1, 2, "deadline", 3),
        ),
        (QueueFullError(4, 4, retry_after=2), (4, 4, "queue_full", 2)),
        (QueueTimeoutError(4, 4, retry_after=2), (4, 4, "queue_timeout", 2)),
    ],
)
def test_back_pressure_carries_the_facts(error: BackPressureError, facts: tuple[Any, ...]) -> None:
    assert facts == (
        error.num_queued_requests,
        error.max_queued_requests,
        error.reason,
        error.retry_after,
    )


def test_the_other_messages_tell_what_happened() -> None:
    assert str(RequestTimeoutError(2.5)) == "Request not done within request_timeout_s=2.5."
    assert str(RetryError([1, 2], 2)) == "No success after 2 attempts; the last one: 2."
    assert RetryError([1, 2], 2).history == (1, 2)
    assert (
        str(ConfigError("n", 0, "a whole number >= 1")) == "n must be a whole number >= 1, not 0."
    )
