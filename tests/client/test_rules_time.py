"""Deadlines, timeouts, and the guards that bound many requests together."""

import time
from typing import Any

import anyio
import httpx
import pytest

from loadshed import BackPressureError, CircuitOpenError, RetryError, _clock
from loadshed.client import (
    AdaptiveThrottle,
    CircuitBreaker,
    Client,
    Event,
    Retry,
    deadline,
)

from .calling import FEW, KINDS, READY, Caller, Waits
from .scripted import Answer, ScriptedServer, dripping, reset, silence

LONG = 20.0
"""Seconds after which a test has hung; what it waits for takes less than one."""


@pytest.fixture(params=KINDS, ids=str)
def call(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(params=FEW, ids=str)
def few(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(params=READY, ids=str)
def ready(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


# What the server is told.


def seconds_sent(server: ScriptedServer) -> list[float]:
    return [float(value or "nan") for value in server.headers("x-request-timeout-seconds")]


def test_the_server_is_told_how_long_is_left_and_which_retry_it_is(few: Caller) -> None:
    with ScriptedServer(Answer(503), Answer(503), Answer()) as server:
        policy = Retry(attempt_timeout=None, deadline=5, backoff_factor=0.05, jitter="none")
        assert few("GET", server.url, retry=policy).status == 200
        assert server.headers("x-retry-attempt") == [None, "1", "2"]
        first, second, third = seconds_sent(server)
    assert 4.9 < first <= 5
    assert 0 < third <= second - 0.1
    assert second <= first - 0.05


def test_it_is_told_the_smaller_of_both_limits(few: Caller) -> None:
    for limits, expected in (((2, 5), 2), ((5, 2), 2), ((2, None), 2), ((None, 2), 2)):
        with ScriptedServer() as server:
            few("GET", server.url, retry=Retry(attempt_timeout=limits[0], deadline=limits[1]))
            assert seconds_sent(server) == [pytest.approx(expected, abs=0.1)]


def test_it_is_told_the_deadline_of_a_block(call: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        outcomes = call.times(2, "GET", server.url, within=2)
        assert [outcome.status for outcome in outcomes] == [200, 200]
        assert seconds_sent(server) == [pytest.approx(2, abs=0.5)] * 3


def test_without_limits_it_is_told_of_none(few: Caller) -> None:
    with ScriptedServer(Answer(), Answer(503), Answer()) as server:
        policy = Retry(attempt_timeout=None, deadline=None, backoff_factor=0)
        outcomes = few.times(2, "GET", server.url, retry=policy)
        assert [outcome.status for outcome in outcomes] == [200, 200]
        assert server.headers("x-request-timeout-seconds") == [None] * 3
        assert server.headers("x-retry-attempt") == [None, None, "1"]


def test_what_the_user_says_wins(call: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        headers = {"X-Request-Timeout-Seconds": "7", "X-Retry-Attempt": "3"}
        call("GET", server.url, headers=headers)
        assert server.headers("x-request-timeout-seconds") == ["7", "7"]
        assert server.headers("x-retry-attempt") == ["3", "3"]


def test_the_server_need_not_be_told(call: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        call("GET", server.url, propagate_deadline=False)
        assert server.headers("x-request-timeout-seconds") == [None, None]
        assert server.headers("x-retry-attempt") == [None, None]


def test_the_callers_request_is_left_as_it_was(call: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        timeouts = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}
        request = call("PUT", server.url, content=b"body", timeout=5).request
        sent = {name for name, _ in server.requests[0].headers}
    assert set(request.headers) == sent - {"x-request-timeout-seconds"}
    assert request.extensions["timeout"] == timeouts
    assert request.content == b"body"
    assert request.extensions.keys() - {"loadshed", "loadshed.read"} == {"timeout"}


# The limit of an attempt.


def test_an_attempt_that_is_not_answered_in_time_is_tried_again(few: Caller) -> None:
    with ScriptedServer(silence(), silence("half the head"), Answer()) as server:
        policy = Retry(attempt_timeout=0.5, backoff_factor=0)
        outcome = few("GET", server.url, retry=policy)
        assert (outcome.statuses, outcome.stopped) == ([None, None, 200], "success")
        for attempt in outcome.history.attempts[:2]:
            assert isinstance(attempt.error, few.library.ReadTimeout)


def test_headers_that_drip_are_not_waited_for_unless_by_a_thread(few: Caller) -> None:
    if few.is_async:
        with ScriptedServer(dripping("headers"), Answer()) as server:
            policy = Retry(attempt_timeout=0.5, backoff_factor=0)
            outcome = few("GET", server.url, retry=policy)
            assert outcome.statuses == [None, 200]
            assert isinstance(outcome.history.attempts[0].error, few.library.ReadTimeout)
    else:  # each byte comes in time
        with ScriptedServer(Answer(drips="headers")) as server:
            policy = Retry(attempt_timeout=0.2, backoff_factor=0)
            outcome = few("GET", server.url, retry=policy)
            assert outcome.statuses == [200]
            assert outcome.history.attempts[0].elapsed > 0.2


def test_the_limit_of_an_attempt_bounds_a_body_that_the_client_reads(ready: Caller) -> None:
    with ScriptedServer(dripping("body"), silence("half the body"), Answer()) as server:
        policy = Retry(attempt_timeout=0.5, backoff_factor=0)
        outcome = ready("GET", server.url, retry=policy)
        assert outcome.statuses == [None, None, 200]
        for attempt in outcome.history.attempts[:2]:
            assert isinstance(attempt.error, ready.library.ReadTimeout)


def test_the_last_error_body_is_bounded_too(ready: Caller) -> None:
    with ScriptedServer(dripping("body", 503)) as server:
        policy = Retry(attempt_timeout=0.1, total=0)
        outcome = ready("GET", server.url, retry=policy)
        assert isinstance(outcome.error, ready.library.ReadTimeout)
        assert (outcome.statuses, outcome.stopped) == ([503], "total")


def test_a_streamed_body_is_not_cut_by_the_policy(few: Caller) -> None:
    with ScriptedServer(Answer(body=b"x" * 40, drips="body")) as server:
        policy = Retry(attempt_timeout=0.2, deadline=0.3)
        # A transport can't know whether it is streamed, and never cuts it.
        outcome = few("GET", server.url, retry=policy, stream=few.ready)
        assert outcome.response.content == b"x" * 40


# The limit of everything.


@pytest.mark.parametrize("body", [dripping("body"), silence("half the body")], ids=["drip", "hang"])
@pytest.mark.parametrize("stream", [False, True], ids=["read", "stream"])
def test_the_deadline_of_a_block_bounds_every_body(few: Caller, body: Answer, stream: bool) -> None:
    began = time.monotonic()
    with ScriptedServer(body) as server:
        outcome = few("GET", server.url, within=0.1, stream=stream)
        assert isinstance(outcome.error, few.library.ReadTimeout)
    assert 0.09 < time.monotonic() - began < LONG


def test_a_retry_that_can_not_finish_is_not_started(call: Caller, waits: Waits) -> None:
    with ScriptedServer(Answer(503, body=b"busy")) as server:
        policy = Retry(deadline=3, jitter="none")
        outcome = call("GET", server.url, retry=policy)
        assert (outcome.stopped, outcome.response.content) == ("deadline", b"busy")
        assert waits.took(1, 2)  # and not 4; to wait takes no time here
        assert len(server.requests) == 3


def test_the_deadline_ends_an_attempt(few: Caller) -> None:
    began = time.monotonic()
    with ScriptedServer(silence()) as server:
        policy = Retry(attempt_timeout=None, deadline=0.2, backoff_factor=0)
        outcome = few("GET", server.url, retry=policy)
        assert isinstance(outcome.error, few.library.ReadTimeout)
        # There was a second one, in the moment that httpx's own timeout had left.
        assert (outcome.stopped, len(server.requests)) == ("deadline", 1)
    assert time.monotonic() - began < LONG


def test_the_deadline_ends_it_among_many_attempts(few: Caller) -> None:
    began = time.monotonic()
    with ScriptedServer(Answer(503)) as server:
        policy = Retry(
            total=10**6, deadline=0.59, backoff_factor=0.2, backoff_base=1, jitter="none"
        )
        outcome = few("GET", server.url, retry=policy)
        assert (outcome.status, outcome.stopped) == (503, "deadline")
        assert len(server.requests) == 3  # what is left is too short for a third wait
    assert time.monotonic() - began < LONG


def test_of_deadlines_around_each_other_the_first_to_end_counts(few: Caller) -> None:
    for outer, inner in ((0.2, LONG), (LONG, 0.2)):
        began = time.monotonic()
        with ScriptedServer(silence()) as server, deadline(outer):
            outcome = few("GET", server.url, within=inner)
        assert isinstance(outcome.error, few.library.ReadTimeout)
        assert outcome.stopped == "deadline"
        assert time.monotonic() - began < LONG


def test_nothing_is_sent_after_the_deadline(call: Caller) -> None:
    with ScriptedServer() as server:
        outcome = call("GET", server.url, within=0)
        assert isinstance(outcome.error, call.library.ConnectTimeout)
        assert (outcome.history.attempts, outcome.stopped) == ((), "deadline")
        assert server.connections == 0


def test_a_deadline_that_passes_during_the_wait_gives_what_there_is(
    few: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, asleep = time.sleep, anyio.sleep
    monkeypatch.setattr(_clock, "thread_sleep", lambda _: sleep(0.15))
    monkeypatch.setattr(anyio, "sleep", lambda _: asleep(0.15))
    policy = Retry(deadline=0.1, backoff_factor=0)
    for misdeed in (Answer(503, body=b"busy"), reset(), Answer(503, body=b"x" * 100_000)):
        with ScriptedServer(misdeed) as server:
            outcome = few("GET", server.url, retry=policy)
            assert (outcome.stopped, len(server.requests)) == ("deadline", 1)
        if misdeed.body == b"busy":
            assert outcome.response.content == b"busy"
        elif misdeed.then == "reset":
            assert outcome.error is outcome.history.attempts[0].error
        else:  # too long to be read by the way
            assert (outcome.status, outcome.response.content) == (503, b"")


# Redirects and authentication.


def slowly(ready: Caller) -> dict[str, Any]:
    """Options of a client in which some time passes between the requests that it makes of one."""

    async def apause(_: object) -> None:
        await anyio.sleep(0.05)

    def pause(_: object) -> None:
        time.sleep(0.05)

    return {"event_hooks": {"response": [apause if ready.is_async else pause]}}


ELSEWHERE = Answer(302, {"location": "/elsewhere"})
CHALLENGE = Answer(401, {"www-authenticate": 'Digest realm="r", nonce="n", qop="auth"'})


@pytest.mark.parametrize("first", [ELSEWHERE, CHALLENGE], ids=["redirect", "digest"])
def test_what_the_client_makes_of_one_request_has_one_deadline(
    ready: Caller, first: Answer
) -> None:
    policy = Retry(attempt_timeout=None, deadline=5, backoff_factor=0)
    options = slowly(ready) | {"follow_redirects": True, "auth": httpx.DigestAuth("me", "secret")}
    with ScriptedServer(Answer(503), first, Answer(503), Answer(body=b"here")) as server:
        outcome = ready("GET", server.url, retry=policy, client=options)
        assert outcome.response.content == b"here"
        assert [attempt.status for attempt in outcome.response.extensions["loadshed"].attempts] == [
            503,
            200,
        ]
        assert server.headers("x-retry-attempt") == [None, "1", None, "1"]
        _, before, after, _ = seconds_sent(server)
        assert after <= before - 0.05


def test_a_deadline_passes_between_two_requests_of_one(ready: Caller) -> None:
    policy = Retry(deadline=0.04, attempt_timeout=None)
    options = slowly(ready) | {"follow_redirects": True}
    with ScriptedServer(ELSEWHERE, Answer()) as server:
        outcome = ready("GET", server.url, retry=policy, client=options)
        assert isinstance(outcome.error, httpx.ConnectTimeout)
        assert len(server.requests) == 1


# The breaker.


def breaker(**settings: Any) -> CircuitBreaker:
    return CircuitBreaker(**({"minimum_throughput": 2, "failure_ratio": 0.5} | settings))


def test_a_breaker_that_opens_ends_the_request_with_what_there_is(call: Caller) -> None:
    with ScriptedServer(Answer(503, body=b"busy")) as server:
        guard = breaker()
        outcome = call("GET", server.url, breaker=guard)
        assert (outcome.status, outcome.response.content) == (503, b"busy")
        assert (outcome.statuses, outcome.stopped) == ([503, 503], "breaker")
        assert guard.state(server.url) == "open"


def test_while_a_breaker_is_open_nothing_is_sent(call: Caller) -> None:
    with ScriptedServer(reset()) as server:
        _, outcome = call.times(2, "GET", server.url, breaker=breaker())
        error = outcome.failure
        assert isinstance(error, CircuitOpenError)
        assert isinstance(error, call.library.TransportError)
        assert error.origin == server.url
        assert 0 < error.retry_after <= 5
        assert (outcome.history.attempts, outcome.stopped) == ((), "breaker")
        assert len(server.requests) == 2


def test_a_breaker_closes_when_one_that_is_let_through_succeeds(few: Caller) -> None:
    with ScriptedServer(Answer(503), Answer(503), Answer()) as server:
        guard = breaker(break_duration=0.05)
        policy = Retry(first_delay=0, backoff_factor=0.05, jitter="none")
        outcome = few("GET", server.url, retry=policy, breaker=guard)
        assert (outcome.statuses, outcome.stopped) == ([503, 503, 200], "success")
        assert guard.state(server.url) == "closed"


def test_a_breaker_that_opens_during_the_wait_leaves_what_there_is(few: Caller) -> None:
    guard = breaker(minimum_throughput=3, failure_ratio=1)

    def fail(event: Event) -> None:
        if event.kind == "stop":
            return
        with Client(retry=Retry(total=1, backoff_factor=0), breaker=guard) as other:
            other.get(server.url)

    with ScriptedServer(Answer(503, body=b"first"), Answer(503, body=b"other")) as server:
        outcome = few("GET", server.url, breaker=guard, on_event=fail)
        assert (outcome.response.content, outcome.statuses) == (b"first", [503])
        assert outcome.stopped == "breaker"


@pytest.mark.parametrize("status", [429, 404, 200])
def test_a_server_that_answers_does_not_open_the_breaker(few: Caller, status: int) -> None:
    with ScriptedServer(Answer(status)) as server:
        guard = breaker()
        few.times(3, "GET", server.url, breaker=guard)
        assert guard.state(server.url) == "closed"


def test_an_open_breaker_at_the_start_is_an_error_also_where_retries_are_exhausted(
    few: Caller,
) -> None:
    with ScriptedServer(Answer(503)) as server:
        outcomes = few.times(2, "GET", server.url, breaker=breaker(), raise_on_exhausted=True)
        first, second = (outcome.failure for outcome in outcomes)
        assert isinstance(first, RetryError)
        assert isinstance(second, few.library.HTTPError)
        assert "circuit breaker is open" in str(second)


def test_what_could_not_be_sent_says_nothing_of_the_server(few: Caller) -> None:
    guard = breaker(minimum_throughput=1)
    outcome = few("GET", "gopher://localhost", breaker=guard, budget=None)
    assert isinstance(outcome.error, few.library.UnsupportedProtocol)
    assert guard.state("gopher://localhost") == "closed"


def test_guards_need_no_limits(few: Caller) -> None:
    with ScriptedServer(Answer(503), Answer(body=b"here")) as server:
        policy = Retry(attempt_timeout=None, deadline=None, backoff_factor=0)
        outcome = few("GET", server.url, retry=policy, breaker=CircuitBreaker())
        assert outcome.response.content == b"here"
        assert server.headers("x-request-timeout-seconds") == [None, None]


# The throttle.


def test_a_client_that_is_mostly_turned_away_asks_less_often(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)
    throttle = AdaptiveThrottle(k=1)
    with ScriptedServer(Answer(503)) as server:
        outcomes = call.times(
            3, "GET", server.url, retry=Retry(total=0), throttle=throttle, raise_on_exhausted=False
        )
        assert outcomes[0].status == 503
        for outcome in outcomes[1:]:
            error = outcome.failure
            assert isinstance(error, BackPressureError)
            assert isinstance(error, call.library.HTTPError)
            assert error.reason == "throttle"
            assert (outcome.history.attempts, outcome.stopped) == ((), "throttle")
        assert len(server.requests) == 1
        assert throttle.refusal(server.url) == 3 / 4


@pytest.mark.parametrize("answer", [Answer(200), Answer(404), Answer(500), reset()], ids=str)
def test_whatever_is_not_turned_away_is_accepted(few: Caller, answer: Answer) -> None:
    throttle = AdaptiveThrottle(k=1)
    with ScriptedServer(answer) as server:
        few.times(3, "GET", server.url, retry=Retry(total=0), throttle=throttle)
        assert throttle.refusal(server.url) == 0


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_turned_away_is_not(few: Caller, status: int) -> None:
    throttle = AdaptiveThrottle(k=1)
    with ScriptedServer(Answer(status)) as server:
        few("GET", server.url, throttle=throttle)
        assert throttle.refusal(server.url) == 1 / 2
