"""Retry-After, in every form, from a real server."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from loadshed.client import Retry

from .calling import FEW, KINDS, Caller, Outcome, Waits
from .scripted import Answer, ScriptedServer

PLAIN = Retry(jitter="none")


@pytest.fixture(params=KINDS, ids=str)
def call(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(params=FEW, ids=str)
def few(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def date_in(seconds: float, form: str) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime(form)


DATES = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"]


def retry_after(call: Caller, value: str, policy: Retry) -> Outcome:
    with ScriptedServer(Answer(503, {"retry-after": value}), Answer()) as server:
        return call("GET", server.url, retry=policy)


def test_retry_after_in_seconds_is_the_floor_of_the_wait(call: Caller, waits: Waits) -> None:
    assert retry_after(call, "30", PLAIN).delays == [0, 30]
    assert waits.took(30)
    assert retry_after(call, "1", Retry(backoff_factor=8, jitter="none")).delays == [0, 8]


@pytest.mark.parametrize("form", DATES)
def test_retry_after_can_be_a_date(
    few: Caller, waits: Waits, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    try:
        [wait] = retry_after(few, date_in(40, form), PLAIN).delays[1:]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 20 < wait <= 40


def test_a_date_is_measured_by_the_clock_of_the_server(few: Caller, waits: Waits) -> None:
    headers = {
        "date": "Fri, 31 Dec 1999 23:59:50 GMT",
        "retry-after": "Sat, 01 Jan 2000 00:00:20 GMT",
    }
    with ScriptedServer(Answer(503, headers), Answer()) as server:
        assert few("GET", server.url, retry=PLAIN).delays == [0, 30]


@pytest.mark.parametrize(
    "value",
    ["0", "-5", "1.5", "soon", "", "1e3", "٣", *(date_in(-100, form) for form in DATES)],
    ids=str,
)
def test_nonsense_and_the_past_mean_the_plain_backoff(
    few: Caller, waits: Waits, value: str
) -> None:
    with ScriptedServer(Answer(503, {"retry-after": value}), Answer()) as server:
        assert few("GET", server.url, retry=PLAIN).delays == [0, 1]


def test_a_retry_after_that_is_too_long_ends_it_at_once(call: Caller, waits: Waits) -> None:
    outcome = retry_after(call, "61", PLAIN)
    assert (outcome.status, outcome.stopped, waits) == (503, "retry_after", [])
    outcome = retry_after(call, date_in(3600, DATES[0]), PLAIN)
    assert (outcome.status, outcome.stopped, waits) == (503, "retry_after", [])


def test_the_longest_retry_after_is_waited_for_if_there_is_time(few: Caller, waits: Waits) -> None:
    policy = Retry(jitter="none", deadline=None)
    assert retry_after(few, "60", policy).delays == [0, 60]
    assert retry_after(few, "60", PLAIN).stopped == "deadline"


def test_clients_that_are_shed_together_do_not_come_back_together(
    few: Caller, waits: Waits
) -> None:
    with ScriptedServer(*[Answer(503, {"retry-after": "10"}), Answer()] * 10) as server:
        outcomes = few.times(10, "GET", server.url, retry=Retry(backoff_factor=0))
    delays = {outcome.delays[1] for outcome in outcomes}
    assert all(10 <= delay <= 11 for delay in delays)
    assert len(delays) == 10


def test_retry_after_can_be_ignored(few: Caller, waits: Waits) -> None:
    policy = Retry(jitter="none", respect_retry_after=False)
    assert retry_after(few, "30", policy).delays == [0, 1]
    assert retry_after(few, "300", policy).delays == [0, 1]


def test_a_429_is_waited_for_like_a_503(few: Caller, waits: Waits) -> None:
    with ScriptedServer(Answer(429, {"retry-after": "20"}), Answer()) as server:
        assert few("GET", server.url, retry=PLAIN).delays == [0, 20]
