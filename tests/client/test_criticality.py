"""`with criticality("sheddable"):`, the setting, and the header that the server gets."""

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest
import trio
from trio.testing import MockClock

from loadshed import ConfigError, Criticality
from loadshed.asgi import LoadShedMiddleware
from loadshed.client import (
    AsyncClient,
    AsyncRetryTransport,
    CircuitBreaker,
    Client,
    Hedge,
    Retry,
    RetryTransport,
    criticality,
)
from loadshed.client._criticality import in_block
from tests.helpers import settle

from . import network
from .calling import FEW, KINDS, TLS, Caller
from .scripted import Answer, ScriptedServer

Served = Callable[[Any], AbstractContextManager[str]]

HEADER = "x-request-criticality"
PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE = Criticality
ONCE = Retry(total=0)
PLAIN: dict[str, Any] = {"trust_env": False, "verify": TLS}
UNBOUNDED = Retry(attempt_timeout=None, deadline=None, backoff_factor=0)
"""With it, nothing of a request would differ from the caller's."""

WRONG: list[object] = [
    None,
    "",
    "important",
    "sheddable plus",
    "\ud800",
    b"SHEDDABLE",
    3,
    True,
    math.nan,
    [],
]


@pytest.fixture(params=KINDS, ids=str)
def call(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(params=FEW, ids=str)
def few(request: pytest.FixtureRequest) -> Caller:
    return Caller(request.param)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert now() is None


def now() -> Criticality | None:
    """The class of whatever is sent now, as the transports see it."""
    return in_block.get(None)


# What the server is told.


def test_the_server_is_told_of_no_class_by_default(call: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        call("GET", server.url)
        assert server.headers(HEADER) == [None, None]


@pytest.mark.parametrize("each", Criticality)
def test_every_attempt_tells_the_class_of_the_client(call: Caller, each: Criticality) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        outcome = call("PUT", server.url, criticality=each, content=b"body")
        assert outcome.statuses == [503, 200]
        assert server.headers(HEADER) == [each.name] * 2
        assert HEADER not in outcome.request.headers  # which is the caller's


def test_it_is_told_of_the_class_of_a_block(call: Caller) -> None:
    with ScriptedServer(Answer(503), Answer()) as server, criticality(PLUS):
        call("GET", server.url)
        assert server.headers(HEADER) == ["CRITICAL_PLUS"] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"retry": UNBOUNDED},
        {"retry": UNBOUNDED, "breaker": CircuitBreaker()},
        {"propagate_deadline": False},
    ],
)
def test_it_is_told_whatever_else_is_set(few: Caller, options: dict[str, Any]) -> None:
    with ScriptedServer(Answer(503), Answer()) as server:
        outcome = few("GET", server.url, criticality="sheddable", **options)
        assert outcome.statuses == [503, 200]
        assert server.headers(HEADER) == ["SHEDDABLE"] * 2


def test_the_block_counts_before_the_client_and_the_request_before_the_block(few: Caller) -> None:
    own: dict[str, Any] = {"headers": {"X-Request-Criticality": "mine"}}
    extension: dict[str, Any] = {"extensions": {"criticality": "critical_plus"}}
    nothing: dict[str, Any] = {"extensions": {"criticality": None}}
    for options, inside, outside in (
        ({}, "SHEDDABLE", "CRITICAL"),
        (nothing, "SHEDDABLE", "CRITICAL"),
        (extension, "CRITICAL_PLUS", "CRITICAL_PLUS"),
        (own, "mine", "mine"),
        (own | extension, "mine", "mine"),
    ):
        with ScriptedServer(Answer(503), Answer(), Answer(503), Answer()) as server:
            with criticality(SHEDDABLE):
                few("GET", server.url, criticality=CRITICAL, **options)
            few("GET", server.url, criticality=CRITICAL, **options)
            assert server.headers(HEADER) == [inside, inside, outside, outside]


def test_the_header_that_all_requests_of_a_client_have_is_their_own(few: Caller) -> None:
    with ScriptedServer() as server, criticality(SHEDDABLE):
        few("GET", server.url, client={"headers": {HEADER: "CRITICAL"}})
        assert server.headers(HEADER) == ["CRITICAL"]


def test_who_is_redirected_to_tells_it_too_like_the_deadline(few: Caller) -> None:
    with ScriptedServer() as other:
        redirect = Answer(302, {"location": other.url})
        with ScriptedServer(redirect) as server:
            for options in ({"criticality": PLUS}, {"extensions": {"criticality": PLUS}}):
                few("GET", server.url, client={"follow_redirects": True}, **options)
        told = [each.headers(HEADER) for each in (server, other)]
        assert told == [["CRITICAL_PLUS"] * 2] * 2
        assert None not in other.headers("x-request-timeout-seconds")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "anyio_backend",
    [
        ("asyncio", {"use_uvloop": False}),
        ("trio", {"clock": MockClock(autojump_threshold=0)}),
    ],
    ids=["asyncio", "trio"],
)
async def test_a_hedge_tells_it_too() -> None:
    server = network.Server(answers=[network.Answer(wait=math.inf), network.Answer()])
    transport = network.async_transport(server, connections=5)
    async with AsyncClient(transport=transport, hedge=Hedge(delay=0.02)) as client:
        with criticality(SHEDDABLE):
            assert (await client.get("http://server/")).status_code == 200
    assert [each.headers.get(HEADER) for each in server.requests] == ["SHEDDABLE"] * 2


# The block.


def test_of_several_around_each_other_the_inner_one_counts() -> None:
    with criticality(SHEDDABLE):
        with criticality(PLUS):
            with criticality("sheddable_plus"):
                assert now() is SHEDDABLE_PLUS
            assert now() is PLUS
        assert now() is SHEDDABLE
    assert now() is None


@pytest.mark.anyio
async def test_what_is_started_in_the_block_is_of_the_same_class() -> None:
    seen: list[Criticality | None] = []

    async def task() -> None:
        seen.append(now())
        with criticality(PLUS):
            await settle()  # the other one is there, too
            seen.append(now())

    with criticality(SHEDDABLE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
            tasks.start_soon(task)
        assert now() is SHEDDABLE
    assert seen == [SHEDDABLE, SHEDDABLE, PLUS, PLUS]


@pytest.mark.anyio
async def test_a_worker_thread_is_of_the_class_of_who_waits_for_it() -> None:
    def work() -> tuple[Criticality | None, ...]:
        with criticality(PLUS):
            inner = anyio.from_thread.run_sync(now)
        return now(), inner

    with criticality(SHEDDABLE):
        assert await anyio.to_thread.run_sync(work) == (SHEDDABLE, PLUS)
        assert now() is SHEDDABLE


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run])
def test_one_that_is_entered_before_the_loop_runs_counts_in_it(run: Any) -> None:
    async def main() -> Criticality | None:
        return now()

    with criticality(SHEDDABLE):
        assert run(main) is SHEDDABLE


def test_in_a_thread_of_its_own_there_is_none_unless_the_context_is_copied() -> None:
    seen: list[Criticality | None] = []
    with criticality(SHEDDABLE):
        context = contextvars.copy_context()
        for target in (now, lambda: context.run(now)):
            thread = threading.Thread(target=lambda target=target: seen.append(target()))
            thread.start()
            thread.join()
    assert seen == [None, SHEDDABLE]


def test_it_ends_with_the_block_however_that_ends() -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught, criticality(SHEDDABLE):
        raise error
    assert caught.value is error
    assert now() is None


def test_it_may_be_left_in_another_context_than_it_was_entered_in() -> None:
    """As a dependency of FastAPI's is that is not async."""
    block = criticality(SHEDDABLE)
    contextvars.copy_context().run(block.__enter__)
    with criticality(PLUS):
        block.__exit__(None, None, None)
        assert now() is PLUS


def test_one_that_is_in_use_cannot_be_entered_again() -> None:
    block = criticality(SHEDDABLE)
    with block:
        message = "This criticality is in use: make one for each block"
        with pytest.raises(RuntimeError, match=message):
            block.__enter__()
        assert now() is SHEDDABLE
    with block:  # one after the other is all right
        assert now() is SHEDDABLE


@pytest.mark.parametrize("name", ["SHEDDABLE_PLUS", "sheddable_plus", "Sheddable_Plus"])
def test_a_class_may_be_said_by_its_name(name: str) -> None:
    block = criticality(name)
    assert repr(block) == "<criticality SHEDDABLE_PLUS>"
    with block as same:
        assert same is block
        assert now() is SHEDDABLE_PLUS


# What is no class.


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_class_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        criticality(wrong)
    expected = "a Criticality, or the name of one"
    assert str(caught.value) == f"criticality must be {expected}, not {wrong!r}."


@pytest.mark.parametrize("wrong", WRONG[1:])
@pytest.mark.parametrize("kind", [Client, AsyncClient, RetryTransport, AsyncRetryTransport])
def test_as_a_setting_too(kind: Any, wrong: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(criticality=wrong)
    expected = "a Criticality, or the name of one, or None"
    assert str(caught.value) == f"criticality must be {expected}, not {wrong!r}."


@pytest.mark.parametrize("breaker", [None, CircuitBreaker()])
@pytest.mark.parametrize("wrong", WRONG[1:])
def test_as_an_extension_too_and_nothing_is_sent(
    few: Caller, breaker: CircuitBreaker | None, wrong: Any
) -> None:
    with ScriptedServer() as server:
        extensions = {"criticality": wrong}
        failure = few("GET", server.url, breaker=breaker, extensions=extensions).failure
        assert server.requests == []
    assert isinstance(failure, ConfigError)
    expected = "a Criticality, or the name of one"
    assert str(failure) == f'extensions["criticality"] must be {expected}, not {wrong!r}.'


# Both halves together.


class Gate:
    """An application that answers once `may_end`, and says whom it has served."""

    def __init__(self) -> None:
        self.running, self.may_end = anyio.Event(), anyio.Event()
        self.served: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.running.set()
        await self.may_end.wait()
        self.served.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})


@pytest.mark.anyio
@pytest.mark.parametrize("said_by", ["block", "client", "extension"])
async def test_a_call_that_matters_more_takes_the_place_of_one_that_may_be_shed(
    said_by: str,
) -> None:
    app = Gate()
    middleware = LoadShedMiddleware(
        app, max_ongoing_requests=1, max_queued_requests=1, trust_criticality=True
    )
    limiter = middleware.limiter
    statuses: dict[str, int] = {}

    async def get(path: str, each: Criticality) -> None:
        transport: Any = httpx.ASGITransport(middleware)
        setting = each if said_by == "client" else None
        client = AsyncClient(
            transport=transport, base_url="http://app", retry=ONCE, criticality=setting
        )
        extensions = {"criticality": each} if said_by == "extension" else {}
        with ExitStack() as block:
            if said_by == "block":
                block.enter_context(criticality(each))
            async with client:
                statuses[path] = (await client.get(path, extensions=extensions)).status_code

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, "/first", CRITICAL)
        await app.running.wait()
        tasks.start_soon(get, "/batch", SHEDDABLE)
        await settle()
        assert limiter.statistics().queued == 1
        tasks.start_soon(get, "/person", CRITICAL)
        await settle()
        assert statuses == {"/batch": 503}
        tasks.start_soon(get, "/more", SHEDDABLE)
        await settle()
        assert statuses == {"/batch": 503, "/more": 503}
        app.may_end.set()
    assert statuses == {"/batch": 503, "/more": 503, "/first": 200, "/person": 200}
    assert app.served == ["/first", "/person"]
    assert limiter.statistics().shed == {"displaced": 1, "queue_full": 1}
    assert middleware.statistics().criticalities == 4


@pytest.mark.parametrize(("trusts", "believed"), [(True, 2), (False, 0)])
def test_a_server_on_the_network_believes_it_if_it_trusts(
    served: Served, trusts: bool, believed: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"served"})

    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, trust_criticality=trusts)
    with served(middleware) as url, Client(**PLAIN) as client:
        assert client.get(url).text == "served"
        with criticality("sheddable"):
            assert client.get(url).text == "served"
        assert client.get(url, extensions={"criticality": PLUS}).text == "served"
    assert middleware.statistics().criticalities == believed
    assert middleware.statistics().ignored == 0
