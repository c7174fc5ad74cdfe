"""What is tried again, when, and what comes of it, on a real server that misbehaves."""

import socket
from typing import Any

import pytest
from tenacity import RetryCallState

from loadshed import LoadShedError, RetryError
from loadshed.client import Attempt, Event, Retry, RetryBudget

from .calling import FEW, KINDS, QUICK, Caller, Waits
from .scripted import HANG_UP, Answer, ScriptedServer, reset, truncated

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


def answers(*statuses: int, **options: Any) -> list[Answer]:
    return [Answer(status, body=b"%d" % status, **options) for status in statuses]


# What is tried again.


def test_a_request_that_succeeds_is_sent_once(call: Caller) -> None:
    with ScriptedServer(Answer(body=b"here")) as server:
        outcome = call("GET", server.url)
        assert (outcome.status, outcome.response.content) == (200, b"here")
        assert (outcome.statuses, outcome.stopped) == ([200], "success")
        assert len(server.requests) == 1


def test_failures_are_tried_again_until_one_succeeds(call: Caller, waits: Waits) -> None:
    with ScriptedServer(*answers(503, 500, 429, 504, 200)) as server:
        outcome = call("GET", server.url, retry=PLAIN)
    assert outcome.response.content == b"200"
    assert outcome.statuses == [503, 500, 429, 504, 200]
    assert outcome.stopped == "success"
    assert outcome.delays == [0, 1, 2, 4, 8]
    assert waits.took(1, 2, 4, 8)
    assert type(outcome.response) is call.library.Response
    assert all(attempt.elapsed >= 0 for attempt in outcome.history.attempts)


@pytest.mark.parametrize(
    ("policy", "sequence"),
    [
        (Retry(backoff_factor=0.1, backoff_base=4, jitter="none"), [0.1, 0.4, 1.6, 6.4, 25.6]),
        (Retry(first_delay=0, jitter="none"), [0, 2, 4, 8, 16]),
    ],
    ids=["prose", "code"],
)
def test_both_documented_sequences_are_waited_exactly(
    few: Caller, waits: Waits, policy: Retry, sequence: list[float]
) -> None:
    with ScriptedServer(*answers(503)) as server:
        outcome = few("GET", server.url, retry=policy)
    assert outcome.delays == pytest.approx([0, *sequence])
    assert waits.took(*sequence)
    assert (outcome.status, outcome.stopped, len(server.requests)) == (503, "total", 6)


def test_a_wait_strategy_sees_what_came_of_each_attempt(few: Caller, waits: Waits) -> None:
    seen: list[Any] = []

    def wait(state: RetryCallState) -> float:
        assert state.outcome is not None
        seen.append(state.outcome.exception() or state.outcome.result().status_code)
        return 7.0 * state.attempt_number

    with ScriptedServer(Answer(503), reset(), Answer(500), Answer()) as server:
        outcome = few("GET", server.url, retry=Retry(wait=wait))
    assert seen == [503, outcome.history.attempts[1].error, 500]
    assert waits.took(7, 14, 21)


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 408, 425])
def test_other_statuses_are_given_as_they_are(few: Caller, status: int) -> None:
    with ScriptedServer(Answer(status)) as server:
        outcome = few("GET", server.url)
        assert (outcome.status, outcome.stopped, len(server.requests)) == (status, "success", 1)


def test_without_statuses_only_errors_are_tried_again(few: Caller) -> None:
    with ScriptedServer(reset(), *answers(503)) as server:
        policy = Retry(status_forcelist=(), backoff_factor=0)
        outcome = few("GET", server.url, retry=policy)
        assert (outcome.statuses, outcome.stopped) == ([None, 503], "success")


@pytest.mark.parametrize(
    "misdeed", [reset("nothing"), reset("half the head"), HANG_UP], ids=["rst", "in head", "fin"]
)
def test_a_connection_that_breaks_before_the_headers_is_tried_again(
    call: Caller, misdeed: Answer
) -> None:
    with ScriptedServer(misdeed, misdeed, Answer(body=b"here")) as server:
        outcome = call("GET", server.url)
        assert outcome.response.content == b"here"
        assert outcome.statuses == [None, None, 200]
        assert len(server.requests) == 3
    for attempt in outcome.history.attempts[:2]:
        assert isinstance(attempt.error, call.library.TransportError)


@pytest.mark.parametrize(
    "misdeed",
    [reset("the head"), truncated(), truncated(chunked=True)],
    ids=["rst", "fin", "chunked"],
)
def test_a_body_that_breaks_off_belongs_to_the_attempt_where_the_client_reads_it(
    call: Caller, misdeed: Answer
) -> None:
    with ScriptedServer(misdeed, Answer(body=b"here")) as server:
        outcome = call("GET", server.url)
        if call.ready:
            assert outcome.response.content == b"here"
            assert (outcome.statuses, outcome.stopped) == ([None, 200], "success")
        else:
            broken = (call.library.ReadError, call.library.RemoteProtocolError)
            assert isinstance(outcome.error, broken)
            assert len(server.requests) == 1


def test_connections_that_are_refused_are_tried_again(call: Caller) -> None:
    with ScriptedServer(listening=False) as server:
        outcome = call("GET", server.url, on_event=lambda _: server.listen())
        assert (outcome.statuses, outcome.stopped) == ([None, 200], "success")
        assert isinstance(outcome.history.attempts[0].error, call.library.ConnectError)


def test_a_server_that_accepts_late_is_waited_for(few: Caller) -> None:
    with ScriptedServer(accepting=False) as server:
        policy = Retry(attempt_timeout=0.2, backoff_factor=0)
        outcome = few("GET", server.url, retry=policy, on_event=lambda _: server.accept())
        assert outcome.status == 200
        assert isinstance(outcome.history.attempts[0].error, few.library.ReadTimeout)


# Methods.


@pytest.mark.parametrize("method", ["POST", "PATCH", "BREW"])
def test_methods_that_may_not_be_repeated_are_sent_once(call: Caller, method: str) -> None:
    for misdeed in (Answer(503, body=b"busy"), reset()):
        with ScriptedServer(misdeed, Answer()) as server:
            outcome = call(method, server.url, content=b"once")
            assert (outcome.stopped, len(outcome.statuses)) == ("method", 1)
            assert server.bodies == [b"once"]
        if misdeed.status == 503:
            assert (outcome.status, outcome.response.content) == (503, b"busy")
        else:
            assert isinstance(outcome.error, call.library.TransportError)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"])
def test_methods_that_may_be_repeated_are(few: Caller, method: str) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        outcome = few(method, server.url)
        assert outcome.statuses == [503, 200]
        assert [request.method for request in server.requests] == [method] * 2


def test_any_method_is_tried_again_where_nothing_was_sent(call: Caller) -> None:
    with ScriptedServer(listening=False) as server:
        outcome = call("POST", server.url, content=b"order", on_event=lambda _: server.listen())
        assert (outcome.statuses, outcome.stopped) == ([None, 200], "success")
        assert server.bodies == [b"order"]


def test_any_method_is_tried_again_where_the_connection_took_too_long(few: Caller) -> None:
    # A queue that is full: the system answers nothing.
    with ScriptedServer(accepting=False, backlog=0) as server:
        host, port = server.origin.split(":")
        with socket.create_connection((host, int(port))):
            timeout = few.library.Timeout(None, connect=0.1)
            policy = Retry(backoff_factor=0, total=1)
            outcome = few("POST", server.url, content=b"order", retry=policy, timeout=timeout)
    assert outcome.stopped == "total"
    assert [type(attempt.error) for attempt in outcome.history.attempts] == [
        few.library.ConnectTimeout
    ] * 2


def test_a_request_that_was_sent_and_not_answered_is_not_tried_again(few: Caller) -> None:
    with ScriptedServer(accepting=False) as server:
        policy = Retry(attempt_timeout=0.2, backoff_factor=0)
        outcome = few("POST", server.url, content=b"order", retry=policy)
    assert outcome.stopped == "method"
    assert isinstance(outcome.error, few.library.ReadTimeout)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_an_idempotency_key_allows_it_and_is_the_same_each_time(call: Caller, method: str) -> None:
    with ScriptedServer(Answer(503), reset(), Answer()) as server:
        headers = {"Idempotency-Key": "order-7"}
        outcome = call(method, server.url, content=b"order", headers=headers)
        assert outcome.statuses == [503, None, 200]
        assert server.headers("idempotency-key") == ["order-7"] * 3
        assert server.bodies == [b"order"] * 3


def test_the_policy_can_allow_any_method(few: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        policy = Retry(allowed_methods=None, backoff_factor=0)
        assert few("BREW", server.url, retry=policy).statuses == [503, 200]


# Exceptions.


whatever_the_policy_says = pytest.mark.parametrize(
    "policy",
    [
        QUICK,
        Retry(backoff_factor=0, retry_on=Exception),
        Retry(backoff_factor=0, retry_on=lambda _: True),
    ],
    ids=["default", "every type", "any"],
)


@whatever_the_policy_says
@pytest.mark.parametrize("url", ["gopher://localhost", "http://"])
def test_a_url_of_an_unsupported_protocol_is_never_tried_again(
    few: Caller, url: str, policy: Retry
) -> None:
    outcome = few("GET", url, retry=policy)
    assert isinstance(outcome.error, few.library.UnsupportedProtocol)
    assert (outcome.stopped, len(outcome.statuses)) == ("error", 1)


@whatever_the_policy_says
def test_a_request_against_the_protocol_is_never_tried_again(few: Caller, policy: Retry) -> None:
    with ScriptedServer() as server:
        outcome = few("GET", server.url, headers={"x-broken": "a\nb"}, retry=policy)
    assert isinstance(outcome.error, few.library.LocalProtocolError)
    assert (outcome.stopped, len(outcome.statuses)) == ("error", 1)


@whatever_the_policy_says
@pytest.mark.parametrize("status", [407, 502])
def test_what_a_proxy_refuses_is_never_tried_again(few: Caller, status: int, policy: Retry) -> None:
    with ScriptedServer(Answer(status)) as proxy:
        outcome = few("GET", "https://example.invalid", retry=policy, inner={"proxy": proxy.url})
        assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert isinstance(outcome.error, few.library.ProxyError)
    assert (outcome.stopped, len(outcome.statuses)) == ("error", 1)


def test_retry_on_says_which_exceptions_are_tried_again(few: Caller) -> None:
    for retry_on, attempts in (
        (few.library.ConnectError, 1),
        ((few.library.ConnectError, few.library.NetworkError, few.library.RemoteProtocolError), 2),
        (lambda error: isinstance(error, few.library.ConnectError), 1),
        (lambda error: not isinstance(error, few.library.ConnectError), 2),
    ):
        with ScriptedServer(reset(), Answer()) as server:
            policy = Retry(retry_on=retry_on, backoff_factor=0)
            outcome = few("GET", server.url, retry=policy)
            assert len(outcome.statuses) == attempts
            assert outcome.stopped == ("success" if attempts == 2 else "error")


def test_a_predicate_is_asked_once_for_each_error(few: Caller) -> None:
    asked = []

    def retry_on(error: Exception) -> bool:
        asked.append(error)
        return True

    with ScriptedServer(reset()) as server:
        policy = Retry(retry_on=retry_on, backoff_factor=0, total=2)
        outcome = few("GET", server.url, retry=policy)
    assert asked == [attempt.error for attempt in outcome.history.attempts]


def test_a_predicate_that_raises_leaves_nothing_open(call: Caller) -> None:
    def retry_on(error: Exception) -> bool:
        raise LookupError("a mistake")

    with ScriptedServer(reset(), Answer()) as server:
        outcome = call("GET", server.url, retry=Retry(retry_on=retry_on))
        assert isinstance(outcome.error, LookupError)
        server.wait_until_left()


# How it ends.


def test_the_last_response_is_given_where_it_can_be_read_in_full(call: Caller) -> None:
    with ScriptedServer(*answers(500, 502, 503)) as server:
        outcome = call("GET", server.url, retry=Retry(total=2, backoff_factor=0))
        assert (outcome.status, outcome.response.content) == (503, b"503")
        assert (outcome.statuses, outcome.stopped) == ([500, 502, 503], "total")
        assert len(server.requests) == 3


def test_the_last_exception_is_raised_as_it_was(call: Caller) -> None:
    with ScriptedServer(reset()) as server:
        outcome = call("GET", server.url, retry=Retry(total=2, backoff_factor=0))
    assert isinstance(outcome.error, call.library.HTTPError)
    assert outcome.error is outcome.history.attempts[-1].error
    assert not isinstance(outcome.error, LoadShedError)
    assert outcome.failure.request.extensions["loadshed"] is outcome.history
    assert (outcome.statuses, outcome.stopped) == ([None] * 3, "total")


def test_a_retry_error_carries_every_attempt_where_it_is_asked_for(call: Caller) -> None:
    with ScriptedServer(reset(), *answers(503)) as server:
        policy = Retry(total=1, backoff_factor=0)
        outcome = call("GET", server.url, retry=policy, raise_on_exhausted=True)
        error = outcome.failure
        assert isinstance(error, RetryError)
        assert isinstance(error, call.library.HTTPError)
        assert error.last.status_code == 503
        assert error.last.is_closed
        assert error.history == outcome.history.attempts
        assert error.request.extensions["loadshed"].stopped == "total"
        assert error.__cause__ is None
        assert server.connections == 2  # the second is in the pool again


def test_a_retry_error_has_the_last_exception_as_its_cause(few: Caller) -> None:
    with ScriptedServer(reset()) as server:
        policy = Retry(total=1, backoff_factor=0)
        outcome = few("GET", server.url, retry=policy, raise_on_exhausted=True)
    error = outcome.failure
    assert isinstance(error, RetryError)
    assert error.last is error.__cause__ is error.history[-1].error


@pytest.mark.parametrize("status", [200, 404])
def test_no_retry_error_is_raised_for_what_is_no_failure(few: Caller, status: int) -> None:
    with ScriptedServer(Answer(503), Answer(status)) as server:
        assert few("GET", server.url, raise_on_exhausted=True).status == status


def test_a_retry_error_is_raised_for_whatever_reason_it_ended(few: Caller) -> None:
    with ScriptedServer(Answer(503)) as server:
        outcome = few("POST", server.url, raise_on_exhausted=True)
    assert isinstance(outcome.error, RetryError)
    assert (outcome.stopped, len(outcome.error.history)) == ("method", 1)


def test_the_budget_ends_it(call: Caller) -> None:
    with ScriptedServer(Answer(503)) as server:
        budget = RetryBudget(min_retries_per_sec=0.2, percent_can_retry=0)
        outcomes = call.times(2, "GET", server.url, budget=budget)
        assert [outcome.stopped for outcome in outcomes] == ["budget"] * 2
        assert len(server.requests) == 4
        assert budget.balance(server.url) == 0


def test_without_a_budget_each_request_has_all_its_retries(few: Caller) -> None:
    with ScriptedServer(Answer(503)) as server:
        outcomes = few.times(30, "GET", server.url, budget=None)
        assert {outcome.stopped for outcome in outcomes} == {"total"}
        assert len(server.requests) == 180


def test_a_request_can_have_a_policy_of_its_own(call: Caller) -> None:
    with ScriptedServer(Answer(503)) as server:
        policy = Retry(total=1, backoff_factor=0)
        outcome = call("GET", server.url, extensions={"retry": policy})
        assert len(outcome.statuses) == 2
        assert call("GET", server.url, extensions={"retry": "no"}).error is not None


# What is told of it.


def test_events_tell_of_each_retry_and_of_the_end(call: Caller) -> None:
    events: list[Event] = []
    with ScriptedServer(Answer(503), reset(), Answer()) as server:
        outcome = call("GET", server.url, on_event=events.append)
    first, second, third = outcome.history.attempts
    assert [(event.kind, event.attempt, event.stopped) for event in events] == [
        ("retry", first, ""),
        ("retry", second, ""),
        ("stop", third, "success"),
    ]
    assert all(event.subject is outcome.request for event in events)
    assert first == Attempt(503, None, first.elapsed, 0)


def test_nothing_is_told_of_a_request_that_succeeds_at_once(few: Caller) -> None:
    events: list[Event] = []
    with ScriptedServer() as server:
        few("GET", server.url, on_event=events.append)
    assert events == []


def test_a_hook_that_raises_leaves_nothing_open(call: Caller) -> None:
    for kind, attempts in (("retry", 1), ("stop", 2)):

        def on_event(event: Event, kind: str = kind) -> None:
            if event.kind == kind:
                raise LookupError("a mistake")

        with ScriptedServer(Answer(503, body=b"x" * 100000), Answer(body=b"y" * 100000)) as server:
            outcome = call("GET", server.url, on_event=on_event)
            assert isinstance(outcome.error, LookupError)
            assert len(server.requests) == attempts
            server.wait_until_left()


def test_the_log_is_silent_by_default(few: Caller, caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        few("GET", server.url)
        assert [one for one in caplog.records if one.name.startswith("loadshed")] == []


def test_the_log_tells_at_the_level_of_information(
    few: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        ScriptedServer(Answer(503), reset(), Answer()) as server,
        caplog.at_level("INFO", logger="loadshed.client"),
    ):
        few("GET", server.url)
    lines = [one.getMessage() for one in caplog.records if one.name == "loadshed.client"]
    assert len(lines) == 3
    subject = f"<Request('GET', '{server.url}')>"
    assert lines[0].startswith(f"Trying {subject} again in 0.000 s after 503 in ")
    assert "Error(" in lines[1]
    assert lines[2].endswith(": success.")
