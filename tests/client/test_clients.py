"""The ready clients: httpx's, with the policy on whatever they send through."""

import pickle
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import anyio
import httpx
import pytest

from loadshed import ConfigError, RetryError
from loadshed.asgi import LoadShedMiddleware, MiddlewareStatistics
from loadshed.client import (
    AsyncClient,
    AsyncRetryTransport,
    CircuitBreaker,
    Client,
    Hedge,
    History,
    Retry,
    RetryBudget,
    RetryTransport,
    deadline,
)
from loadshed.client._family import Family, family_of
from loadshed.client._sending import copied, with_header

from .calling import FAMILIES, QUICK, TLS, Chunks
from .scripted import Answer, ScriptedServer

Served = Callable[[Any], AbstractContextManager[str]]

PLAIN: dict[str, Any] = {"trust_env": False, "verify": TLS}
"""A client of which a test says nothing more."""

FLAKY = [Answer(503), Answer()]

OPTIONS: dict[str, Any] = {
    "auth": ("me", "secret"),
    "params": {"a": "1"},
    "headers": {"x-a": "1"},
    "cookies": {"c": "1"},
    "follow_redirects": True,
    "limits": httpx.Limits(max_connections=7),
    "max_redirects": 3,
    "default_encoding": "latin-1",
} | PLAIN


class Counting(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that always gives 503, and counts how often it is asked and closed."""

    def __init__(self) -> None:
        self.requests = self.closed = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return httpx.Response(503)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


class Fake(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that gives or raises one thing after the other."""

    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response, in which a `None` is an interrupt; and whether it was closed."""

    def __init__(self, *chunks: bytes | None) -> None:
        self._chunks = list(chunks)
        self.closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if not self._chunks:
            raise StopIteration
        chunk = self._chunks.pop(0)
        if chunk is None:
            raise KeyboardInterrupt
        return chunk

    def __aiter__(self) -> AsyncIterator[bytes]:
        return Chunks(self)

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def history(response: httpx.Response) -> History:
    found: History = response.extensions["loadshed"]
    return found


# Made of httpx's.


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_they_take_what_httpxs_take_and_wrap_what_that_makes_of_it(kind: Any) -> None:
    client: Any = kind(base_url="http://localhost/api", event_hooks={"request": []}, **OPTIONS)
    assert issubclass(kind, httpx.Client | httpx.AsyncClient)
    assert client.base_url == "http://localhost/api/"
    assert (client.headers["x-a"], client.cookies["c"]) == ("1", "1")
    transport = client._transport
    assert isinstance(transport, RetryTransport | AsyncRetryTransport)
    assert transport._inner.given._pool._max_connections == 7
    assert transport.retry == client.retry == Retry()
    with pytest.raises(TypeError, match="nonsense"):
        kind(nonsense=True, **PLAIN)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_timeout_is_that_of_the_policy_unless_it_is_given(kind: Any) -> None:
    assert kind(**PLAIN).timeout == httpx.Timeout(10)
    assert kind(retry=Retry(attempt_timeout=3), **PLAIN).timeout == httpx.Timeout(3)
    assert kind(retry=Retry(attempt_timeout=None), **PLAIN).timeout == httpx.Timeout(None)
    assert kind(timeout=7, **PLAIN).timeout == httpx.Timeout(7)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_policy_of_a_transport_that_has_one_is_the_clients(kind: Any) -> None:
    wrap: Any = RetryTransport if kind is Client else AsyncRetryTransport
    policy = Retry(total=1, attempt_timeout=3)
    transport = wrap(Counting(), retry=policy)
    client = kind(transport=transport, **PLAIN)
    assert client._transport is transport
    assert (client.retry, client.timeout) == (policy, httpx.Timeout(3))
    assert kind(transport=transport, retry=QUICK, **PLAIN).retry == QUICK


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_policy_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match="retry must be a Retry"):
        kind(retry=3, **PLAIN)
    with pytest.raises(ConfigError, match="budget must be a RetryBudget, or None"):
        kind(budget=0.2, **PLAIN)


def test_a_transport_of_the_other_kind_is_refused() -> None:
    transport: Any = AsyncRetryTransport(Counting())
    with pytest.raises(ConfigError, match="inner must be a transport with a method handle_request"):
        Client(transport=transport, **PLAIN)


def test_only_the_async_client_hedges() -> None:
    transport: Any = AsyncClient(hedge=Hedge(), **PLAIN)._transport
    assert transport._settings.hedge == Hedge()
    with pytest.raises(ConfigError, match="hedge must be None: a thread can't be cancelled"):
        Client(hedge=Hedge(), **PLAIN)


# Mounts and proxies.


def test_what_is_mounted_is_wrapped_and_never_twice() -> None:
    own, mounted, wrapped = Counting(), Counting(), Counting()
    retrying = RetryTransport(wrapped, retry=Retry(total=1, backoff_factor=0))
    with Client(
        retry=QUICK,
        transport=own,
        mounts={"http://mounted": mounted, "http://wrapped": retrying, "http://none": None},
        **PLAIN,
    ) as client:
        for name in ("mounted", "wrapped", "none", "other"):
            assert client.get(f"http://{name}").status_code == 503
        budgets = {id(client._transport.budget)}  # type: ignore[attr-defined]
        budgets |= {id(one.budget) for one in client._mounts.values() if one}  # type: ignore[attr-defined]
        assert len(budgets) == 2
    assert (mounted.requests, wrapped.requests, own.requests) == (6, 2, 12)
    assert (mounted.closed, wrapped.closed, own.closed) == (1, 1, 1)


@pytest.mark.anyio
async def test_what_is_mounted_is_wrapped_and_never_twice_in_the_async_client() -> None:
    own, mounted, wrapped = Counting(), Counting(), Counting()
    retrying = AsyncRetryTransport(wrapped, retry=Retry(total=1, backoff_factor=0))
    async with AsyncClient(
        retry=QUICK,
        transport=own,
        mounts={"http://mounted": mounted, "http://wrapped": retrying, "http://none": None},
        **PLAIN,
    ) as client:
        for name in ("mounted", "wrapped", "none", "other"):
            assert (await client.get(f"http://{name}")).status_code == 503
    assert (mounted.requests, wrapped.requests, own.requests) == (6, 2, 12)
    assert (mounted.closed, wrapped.closed, own.closed) == (1, 1, 1)


def test_what_goes_through_a_proxy_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "all_proxy", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedServer(*FLAKY * 2) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        for options in ({"verify": TLS}, {"proxy": proxy.url} | PLAIN):
            with Client(retry=QUICK, **options) as client:
                response = client.get("http://example.invalid/path")
                assert [attempt.status for attempt in history(response).attempts] == [503, 200]
    assert {request.target for request in proxy.requests} == {"http://example.invalid/path"}
    assert len(proxy.requests) == 4


# Transports that are no network.


def test_a_mock_transport_is_served() -> None:
    statuses = iter([500, 503, 200])
    mock = httpx.MockTransport(lambda _: httpx.Response(next(statuses), text="mock"))
    with Client(transport=mock, retry=QUICK) as client:
        response = client.get("http://localhost")
    assert response.text == "mock"
    assert [attempt.status for attempt in history(response).attempts] == [500, 503, 200]


@pytest.mark.anyio
async def test_who_is_shed_by_the_middleware_comes_back_when_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, may_end, over = anyio.Event(), anyio.Event(), anyio.Event()
    waits: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/long":
            running.set()
            await may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        may_end.set()
        await over.wait()

    middleware: Any = LoadShedMiddleware(app, max_ongoing_requests=1, max_queued_requests=0)
    async with AsyncClient(
        transport=httpx.ASGITransport(middleware),
        base_url="http://app",
        retry=Retry(backoff_factor=0, jitter="none"),
    ) as client:

        async def long() -> None:
            assert (await client.get("/long")).text == "served"
            over.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(long)
            await running.wait()
            monkeypatch.setattr(anyio, "sleep", wait)
            response = await client.get("/")
    assert response.text == "served"
    assert [attempt.status for attempt in history(response).attempts] == [503, 200]
    assert waits == [pytest.approx(1, abs=0.5)]
    assert middleware.limiter.statistics().shed == {"queue_full": 1}


# On a real server.


class Stuck:
    """An application that never answers the first request, and says when it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        if self.requests == 1:
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})


def stuck() -> tuple[Stuck, LoadShedMiddleware]:
    app = Stuck()

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app(scope, receive, send)

    return app, LoadShedMiddleware(with_lifespan, max_ongoing_requests=1, trust_deadline=True)


def test_a_server_that_trusts_gives_up_what_its_client_has_given_up(served: Served) -> None:
    app, middleware = stuck()
    policy = Retry(attempt_timeout=1, backoff_factor=0)
    with served(middleware) as url, Client(retry=policy, **PLAIN) as client:
        assert client.get(url).text == "served"
        assert app.cancelled.wait(10)
    assert middleware.statistics() == MiddlewareStatistics(deadlines=2, retries=1, ignored=0)


def test_and_answers_who_is_more_patient_than_it_says(served: Served) -> None:
    app, middleware = stuck()
    headers = {"x-request-timeout-seconds": "0.1"}
    with served(middleware) as url, Client(retry=QUICK, **PLAIN) as client:
        response = client.get(url, headers=headers)
    assert [attempt.status for attempt in history(response).attempts] == [504, 200]
    assert app.cancelled.is_set()


@pytest.mark.anyio
async def test_the_deadline_of_a_block_reaches_the_server(served: Served) -> None:
    app, middleware = stuck()
    with served(middleware) as url:
        async with AsyncClient(retry=QUICK, **PLAIN) as client:
            with deadline(0.3), suppress(httpx.ReadTimeout):  # or the server was quicker
                await client.get(url)
        assert await anyio.to_thread.run_sync(app.cancelled.wait, 10)
    assert middleware.statistics().deadlines >= 1


# Many at once.


def test_threads_share_a_client() -> None:
    with (
        ScriptedServer(*FLAKY * 100) as server,
        Client(retry=Retry(total=50, backoff_factor=0), budget=None, **PLAIN) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        responses = list(threads.map(client.get, [server.url] * 100))
        attempts = [history(response).attempts for response in responses]
        assert [response.status_code for response in responses] == [200] * 100
        assert sum(map(len, attempts)) == len(server.requests) == 200
    assert all(one.status == 503 for many in attempts for one in many[:-1])


@pytest.mark.anyio
async def test_tasks_share_a_client() -> None:
    responses: list[httpx.Response] = []
    with ScriptedServer(*FLAKY * 100) as server:
        policy = Retry(total=50, backoff_factor=0)
        async with AsyncClient(retry=policy, budget=None, **PLAIN) as client:

            async def ask() -> None:
                for _ in range(10):
                    response = await client.get(server.url)
                    responses.append(response)

            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(ask)
        assert len(server.requests) == 200
    assert [response.status_code for response in responses] == [200] * 100
    assert sum(len(history(response).attempts) for response in responses) == 200


# Interrupts.


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("guarded", [False, True])
def test_an_interrupt_goes_on_its_way(before: int, guarded: bool) -> None:
    breaker = CircuitBreaker(minimum_throughput=1, break_duration=1e-9) if guarded else None
    bodies = [Body(b"x" * 10) for _ in range(before)]
    answers = [httpx.Response(503, stream=body) for body in bodies]
    transport = Fake(*answers, KeyboardInterrupt(), httpx.Response(200))
    with Client(transport=transport, retry=QUICK, breaker=breaker) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get("http://localhost")
        assert client.get("http://localhost").status_code == 200
    assert all(body.closed for body in bodies)
    assert breaker is None or breaker.state("http://localhost") == "closed"


@pytest.mark.parametrize("status", [200, 503])
def test_an_interrupt_while_a_body_is_read_closes_it(status: int) -> None:
    body = Body(b"x", None)
    transport = Fake(httpx.Response(status, stream=body), httpx.Response(200))
    with Client(transport=transport, retry=QUICK) as client, pytest.raises(KeyboardInterrupt):
        client.get("http://localhost")
    assert body.closed


@pytest.mark.anyio
async def test_a_body_that_is_no_generator_is_read_like_any() -> None:
    bodies = [Body(b"x" * 100), Body(b"he", b"re")]
    responses = [httpx.Response(503 - 303 * n, stream=body) for n, body in enumerate(bodies)]
    async with AsyncClient(transport=Fake(*responses), retry=QUICK) as client:
        assert (await client.get("http://localhost")).text == "here"
    assert all(body.closed for body in bodies)


# One transport, and what is sent through it.


def test_every_request_pays_into_the_budget_those_too_that_succeed() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    budget = RetryBudget()
    with Client(transport=transport, budget=budget) as client:
        for _ in range(300):
            client.get("http://localhost/path")
    assert budget.balance("http://localhost") == pytest.approx(100 + 0.2 * 300)


@pytest.mark.anyio
async def test_every_request_of_the_async_client_pays_into_the_budget() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    budget = RetryBudget()
    async with AsyncClient(transport=transport, budget=budget) as client:
        assert client._transport.budget is budget  # type: ignore[attr-defined]
        for _ in range(300):
            await client.get("http://localhost/path")
    assert budget.balance("http://localhost") == pytest.approx(100 + 0.2 * 300)


BREAKERS: list[Callable[[], CircuitBreaker | None]] = [lambda: None, CircuitBreaker]
guarded_or_not = pytest.mark.parametrize("breaker", BREAKERS, ids=["plain", "guarded"])


def request() -> httpx.Request:
    made = httpx.Request("GET", "http://localhost")
    family_of(made)  # or else the first of all would go the long way
    return made


@guarded_or_not
def test_the_response_that_the_transport_inside_gave_is_handed_on_itself(breaker: Any) -> None:
    first, failed, second = [httpx.Response(status) for status in (200, 503, 200)]
    transport = RetryTransport(Fake(first, failed, second), retry=QUICK, breaker=breaker())
    assert transport.handle_request(request()) is first
    assert transport.handle_request(request()) is second


@pytest.mark.anyio
@guarded_or_not
async def test_the_async_transport_hands_it_on_itself_too(breaker: Any) -> None:
    first, failed, second = [httpx.Response(status) for status in (200, 503, 200)]
    transport = AsyncRetryTransport(Fake(first, failed, second), retry=QUICK, breaker=breaker())
    assert await transport.handle_async_request(request()) is first
    assert await transport.handle_async_request(request()) is second


class EnteredError(Exception):
    pass


def entered(**_: Any) -> None:
    raise EnteredError


def test_the_loop_of_tenacity_is_entered_after_a_failure_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadshed.client._transport.Retrying", entered)
    plain = RetryTransport(Fake(httpx.Response(200), httpx.Response(503)))
    guarded = RetryTransport(Fake(httpx.Response(200)), breaker=CircuitBreaker())
    assert plain.handle_request(request()).status_code == 200
    with deadline(5):
        assert guarded.handle_request(request()).status_code == 200
    with pytest.raises(EnteredError):
        plain.handle_request(request())


@pytest.mark.anyio
async def test_the_async_loop_of_tenacity_is_entered_after_a_failure_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadshed.client._async_transport.AsyncRetrying", entered)
    plain = AsyncRetryTransport(Fake(httpx.Response(200), httpx.Response(503)))
    guarded = AsyncRetryTransport(Fake(httpx.Response(200)), breaker=CircuitBreaker())
    assert (await plain.handle_async_request(request())).status_code == 200
    with deadline(5):
        assert (await guarded.handle_async_request(request())).status_code == 200
    with pytest.raises(EnteredError):
        await plain.handle_async_request(request())


def test_a_request_may_be_of_a_class_of_its_own() -> None:
    class Special(httpx.Request):
        pass

    with ScriptedServer(*FLAKY) as server, Client(retry=QUICK, **PLAIN) as client:
        request = Special("PUT", server.url, content=b"body")
        assert client.send(request).request is request
        assert server.bodies == [b"body"] * 2
        assert server.headers("x-retry-attempt") == [None, "1"]


def test_headers_are_added_as_other_versions_of_httpx_would_have_them() -> None:
    assert with_header({}, b"x-a", b"1") == {"x-a": "1"}
    assert with_header({"x-a": "0"}, b"x-a", b"1") == {"x-a": "0"}


def test_a_request_of_another_version_of_httpx_is_copied_whole() -> None:
    class Request(httpx.Request):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.more = "more"

    module: Any = ModuleType("httpx")
    vars(module).update(vars(httpx) | {"Request": Request})
    Family(module)
    request = Request("GET", "http://localhost")
    assert vars(copied(request)) == vars(request)


def test_transports_tell_what_they_are_and_check_what_they_get() -> None:
    assert repr(RetryTransport()) == f"<RetryTransport HTTPTransport {Retry()!r}>"
    given = repr(AsyncRetryTransport(Counting(), retry=QUICK))
    assert given.startswith("<AsyncRetryTransport <tests.client.test_clients.Counting object")
    assert given.endswith(f"{QUICK!r}>")
    hedge: Any = Hedge()
    with pytest.raises(ConfigError, match="hedge must be None: a thread can't be cancelled"):
        RetryTransport(hedge=hedge)
    wrong: Any = anyio.sleep
    with pytest.raises(ConfigError, match="on_event must be a callable that is not async, or None"):
        RetryTransport(on_event=wrong)
    wrong = "yes"
    with pytest.raises(ConfigError, match="raise_on_exhausted must be True or False"):
        AsyncRetryTransport(raise_on_exhausted=wrong)
    wrong = SimpleNamespace(stream=None, extensions={})
    with pytest.raises(TypeError, match="is neither a request of httpx nor one of httpx2"):
        RetryTransport().handle_request(wrong)


def test_a_transport_without_another_serves_both_libraries() -> None:
    transport = RetryTransport(retry=QUICK)
    clients = [library.Client(transport=transport, trust_env=False) for library in FAMILIES]
    with ScriptedServer(*FLAKY * len(clients)) as server:
        for library, client in zip(FAMILIES, clients, strict=True):
            response = client.get(server.url)
            assert type(response) is library.Response
            assert len(response.extensions["loadshed"].attempts) == 2
        assert server.connections == len(clients)
        transport.close()
        server.wait_until_left()


@pytest.mark.anyio
async def test_an_async_transport_without_another_serves_both_libraries() -> None:
    transport = AsyncRetryTransport(retry=QUICK)
    clients = [library.AsyncClient(transport=transport, trust_env=False) for library in FAMILIES]
    with ScriptedServer(*FLAKY * len(clients)) as server:
        for library, client in zip(FAMILIES, clients, strict=True):
            response = await client.get(server.url)
            assert type(response) is library.Response
            assert len(response.extensions["loadshed"].attempts) == 2
        await transport.aclose()
        server.wait_until_left()


def test_a_request_can_be_sent_again() -> None:
    with ScriptedServer(*FLAKY * 2) as server, Client(retry=QUICK, **PLAIN) as client:
        request = client.build_request("PUT", server.url, content=b"body")
        for _ in range(2):
            assert len(history(client.send(request)).attempts) == 2
        assert server.bodies == [b"body"] * 4
        assert server.headers("x-retry-attempt") == [None, "1"] * 2


def test_a_stream_is_read_by_the_caller() -> None:
    with (
        ScriptedServer(Answer(503), Answer(body=b"x" * 100_000)) as server,
        Client(retry=QUICK, **PLAIN) as client,
        client.stream("GET", server.url) as response,
    ):
        assert history(response).stopped == "success"
        assert not response.is_stream_consumed
        assert sum(map(len, response.iter_bytes())) == 100_000


def test_a_deadline_of_a_requests_own_is_that_of_its_redirects() -> None:
    redirect = Answer(302, {"location": "/elsewhere"})
    with (
        ScriptedServer(redirect, Answer()) as server,
        Client(retry=Retry(deadline=None), follow_redirects=True, **PLAIN) as client,
    ):
        policy = Retry(deadline=5)
        assert client.get(server.url, extensions={"retry": policy}).status_code == 200
        seconds = [float(value or "nan") for value in server.headers("x-request-timeout-seconds")]
        assert seconds == [pytest.approx(5, abs=0.5)] * 2
        with pytest.raises(ConfigError, match=r'extensions\["retry"\] must be a loadshed'):
            client.get(server.url, extensions={"retry": 3})


@pytest.mark.parametrize("library", FAMILIES)
def test_errors_survive_pickling(library: Any) -> None:
    transport = RetryTransport(retry=Retry(total=1, backoff_factor=0), raise_on_exhausted=True)
    with (
        ScriptedServer(Answer(503)) as server,
        library.Client(transport=transport, trust_env=False) as client,
        pytest.raises(RetryError) as caught,
    ):
        client.get(server.url)
    error: Any = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert type(error) is type(caught.value)
    assert isinstance(error, library.HTTPError)
    assert [attempt.status for attempt in error.history] == [503, 503]
    assert error.last.status_code == 503


def test_a_budget_can_be_shared_or_left_out() -> None:
    budget = RetryBudget(min_retries_per_sec=0, percent_can_retry=0)
    for given, attempts in ((budget, 1), (None, 6)):
        transport = Counting()
        with Client(transport=transport, retry=QUICK, budget=given) as client:
            client.get("http://localhost")
        assert transport.requests == attempts
