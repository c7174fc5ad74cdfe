"""What somebody was surprised by once."""

import logging
import math
from typing import Any

import anyio
import httpx
import pytest
import tenacity
import trio
import trio.testing

from loadshed import CircuitOpenError, ConfigError, RetryError, _clock
from loadshed.client import (
    AsyncClient,
    CircuitBreaker,
    Client,
    Hedge,
    Retry,
    RetryTransport,
    deadline,
)
from loadshed.client._sending import LEAST, Timeouts

from .scripted import Answer, ScriptedServer

ONCE = Retry(total=1, backoff_factor=0)
URL = "http://localhost/"


def answering(*statuses: int, **options: Any) -> httpx.MockTransport:
    left = [*statuses]
    return httpx.MockTransport(lambda _: httpx.Response(left.pop(0), **options))


# RetryError.last is a response like those that a client returns.


def test_the_last_response_of_a_retry_error_can_be_read() -> None:
    with ScriptedServer(Answer(503, body=b'{"why": "busy"}')) as server:
        client = Client(retry=ONCE, raise_on_exhausted=True)
        with client, pytest.raises(RetryError) as caught:
            client.get(server.url)
    last = caught.value.last
    assert last.json() == {"why": "busy"}
    assert last.read() == last.content
    assert last.request.url == server.url
    assert last.extensions["loadshed"].stopped == "total"
    with pytest.raises(httpx.HTTPStatusError):
        last.raise_for_status()


@pytest.mark.anyio
async def test_the_last_response_of_an_async_retry_error_can_be_read() -> None:
    with ScriptedServer(Answer(503, body=b"busy")) as server:
        async with AsyncClient(retry=ONCE, raise_on_exhausted=True) as client:
            with pytest.raises(RetryError) as caught:
                await client.get(server.url)
    assert (await caught.value.last.aread(), caught.value.last.text) == (b"busy", "busy")


def test_a_body_that_cannot_be_decoded_does_not_hide_the_retry_error() -> None:
    headers = {"content-encoding": "gzip"}
    with ScriptedServer(Answer(503, headers=[*headers.items()], body=b"no gzip")) as server:
        client = Client(retry=ONCE, raise_on_exhausted=True)
        with client, pytest.raises(RetryError) as caught:
            client.get(server.url)
    assert caught.value.last.status_code == 503


@pytest.mark.parametrize("url", ["ftp://localhost/", "nonsense"])
def test_what_is_never_tried_again_is_a_retry_error_too_if_asked_for(url: str) -> None:
    with Client(raise_on_exhausted=True) as client, pytest.raises(RetryError) as caught:
        client.get(url)
    assert isinstance(caught.value.last, httpx.UnsupportedProtocol)
    assert isinstance(caught.value, httpx.TransportError)


def test_and_a_deadline_that_has_passed_before() -> None:
    with Client(raise_on_exhausted=True) as client, deadline(0), pytest.raises(RetryError) as error:
        client.get(URL)
    assert error.value.history == ()


def test_but_the_open_breaker_has_an_error_of_its_own() -> None:
    breaker = CircuitBreaker(minimum_throughput=1)
    transport = answering(503, 200)
    policy = Retry(total=0)
    with Client(
        transport=transport, retry=policy, breaker=breaker, raise_on_exhausted=True
    ) as client:
        with pytest.raises(RetryError):
            client.get("http://[::1]:8080/")
        with pytest.raises(CircuitOpenError) as caught:
            client.get("http://[::1]:8080/")
    assert caught.value.origin == "http://[::1]:8080"


def test_an_error_of_the_users_own_is_raised_as_it_is() -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise KeyError("mine")

    client = Client(transport=httpx.MockTransport(fail), raise_on_exhausted=True)
    with client, pytest.raises(KeyError, match="mine"):
        client.get(URL)


# A sync attempt ends in time although it consists of several operations.


def test_the_operations_of_an_attempt_share_its_time() -> None:
    now = 100.0
    given = {"connect": 5.0, "read": None, "write": 1.0, "pool": math.inf}
    timeouts = Timeouts(given)
    timeouts.clock, timeouts.ends_at = lambda: now, 110.0
    assert [timeouts.get(kind) for kind in given] == [5.0, 10.0, 1.0, 10.0]
    now = 107.0
    assert [timeouts.get(kind) for kind in given] == [3.0, 3.0, 1.0, 3.0]
    now = 200.0
    assert [timeouts.get(kind) for kind in given] == [LEAST] * 4
    timeouts.ends_at = math.inf
    assert [timeouts.get(kind) for kind in given] == [5.0, None, 1.0, None]


def test_a_wait_for_the_pool_and_one_for_the_answer_take_no_longer_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []
    now = 0.0
    monkeypatch.setattr(_clock, "thread_time", lambda: now)

    def operate(request: httpx.Request) -> httpx.Response:
        nonlocal now
        for kind in ("pool", "connect", "write", "read"):
            asked.append(request.extensions["timeout"].get(kind))
            now += 3
        return httpx.Response(200)

    with Client(transport=httpx.MockTransport(operate), retry=Retry(deadline=None)) as client:
        client.get(URL)
    assert asked == pytest.approx([9.95, 6.95, 3.95, 0.95])


# Whose timeout it is.


class Seeing(httpx.BaseTransport):
    """A transport that notes the read timeout of each request."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.headers: list[httpx.Headers] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.timeouts.append(request.extensions["timeout"]["read"])
        self.headers.append(request.headers)
        return httpx.Response(200)


SLOW: Any = {"extensions": {"retry": Retry(attempt_timeout=50)}}


def test_a_timeout_that_is_the_default_by_chance_is_the_users() -> None:
    seeing = Seeing()
    with Client(transport=seeing) as client:
        client.get(URL, **SLOW)
        client.get(URL, timeout=10, **SLOW)
        client.timeout = 3
        client.get(URL, **SLOW)
    assert seeing.timeouts == [49.95, 10, 3]


def test_a_policy_without_limits_has_no_timeout_by_default() -> None:
    seeing = Seeing()
    with Client(transport=seeing, retry=Retry(attempt_timeout=None, deadline=None)) as client:
        client.get(URL)
        client.get(URL, **SLOW)
    assert seeing.timeouts == [None, 49.95]


def test_a_limit_of_more_than_a_day_is_not_told_to_the_server() -> None:
    seeing = Seeing()
    with Client(transport=seeing, retry=Retry(attempt_timeout=1e6, deadline=None)) as client:
        client.get(URL)
    assert "x-request-timeout-seconds" not in seeing.headers[0]


def test_none_is_no_policy_of_a_requests_own() -> None:
    with Client(transport=answering(503, 200), retry=ONCE) as client:
        assert client.get(URL, extensions={"retry": None}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"retry": 3}, "retry"),
        ({"budget": "big"}, "budget"),
        ({"breaker": 5}, "breaker"),
        ({"throttle": 5}, "throttle"),
        ({"hedge": Hedge()}, "hedge"),
        ({"on_event": 3}, "on_event"),
        ({"raise_on_exhausted": "x"}, "raise_on_exhausted"),
    ],
)
def test_a_wrong_setting_is_told_of_where_there_is_nothing_to_wrap(
    settings: Any, setting: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(transport=RetryTransport(), **settings)
    assert caught.value.setting == setting


# The log.


@pytest.mark.anyio
async def test_the_log_tells_of_a_hedge(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loadshed.client")
    asked = anyio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if not asked.is_set():
            asked.set()
            await anyio.sleep_forever()
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    async with AsyncClient(transport=transport, hedge=Hedge(delay=0)) as client:
        await client.get(URL)
    request = "<Request('GET', 'http://localhost/')>"
    messages = [record.message for record in caplog.records if record.name == "loadshed.client"]
    assert messages[0] == f"Sending {request} once more while it is under way."
    assert messages[1].startswith(f"Done with {request} after ")


def test_the_log_tells_of_a_request_that_was_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "loadshed.client")
    with Client() as client, deadline(0), pytest.raises(httpx.ConnectTimeout):
        client.get(URL)
    assert caplog.messages == ["Done with <Request('GET', 'http://localhost/')>: deadline."]


# Policies.


@pytest.mark.parametrize("other", [3, None, "urllib3"])
def test_only_a_policy_of_urllib3s_can_be_taken_over(other: Any) -> None:
    with pytest.raises(ConfigError, match=r"^retry must be a urllib3.Retry, not"):
        Retry.from_urllib3(other)


@pytest.mark.parametrize("seconds", [None, "2"])
def test_a_wait_strategy_returns_seconds(seconds: Any) -> None:
    def strategy(_: tenacity.RetryCallState) -> Any:
        return seconds

    with pytest.raises(ConfigError, match=r"^wait must be a strategy that returns seconds"):
        Retry(wait=strategy).delay(1)


@pytest.mark.parametrize("nothing", [0, -1, math.nan])
def test_a_server_that_asks_for_nothing_gets_the_plain_backoff(nothing: float) -> None:
    assert Retry(jitter="equal").delay(1, nothing, random=lambda: 0.5) == 0.75


# Deadlines.


def test_a_task_that_a_hook_has_started_is_free_of_the_calls_deadline() -> None:
    async def check() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(200))
        statuses: list[int] = []
        async with (
            AsyncClient(
                transport=transport, retry=Retry(deadline=1), follow_redirects=True
            ) as client,
            anyio.create_task_group() as tasks,
        ):

            async def ask_later() -> None:
                await anyio.sleep(2)
                statuses.append((await client.get(URL)).status_code)

            async def start(_: httpx.Response) -> None:
                client.event_hooks = {}
                tasks.start_soon(ask_later)

            client.event_hooks = {"response": [start]}
            await client.get(URL)
        assert statuses == [200]

    trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))
