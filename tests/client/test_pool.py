"""The pool keeps all of its places, whoever leaves it and when.

httpcore 1.0.9 loses places for good (https://github.com/encode/httpcore/issues/1093): with bare
httpx, `test_no_step_in_which_a_place_is_free_loses_it` ends with a pool of 2 that serves nobody.
"""

import asyncio
import functools
import importlib
import importlib.util
import math
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.abc
import httpcore
import httpx
import pytest
from anyio.lowlevel import checkpoint

from loadshed.client import AsyncRetryTransport, Retry, RetryTransport, deadline
from loadshed.client._async_received import aclose, aread
from loadshed.client._pool import areclaim, arelease, reclaim
from tests.client.network import (
    Answer,
    AsyncNetwork,
    Connect,
    Server,
    async_transport,
    connections_in_use,
    serves,
)
from tests.helpers import CancelAt, settle

pytestmark = [
    pytest.mark.anyio,
    # anyio 4.8 leaves a socket to the garbage collector that it is cancelled in connecting.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

FAMILIES = [httpx]
if importlib.util.find_spec("httpx2"):
    FAMILIES.append(importlib.import_module("httpx2"))
families = pytest.mark.parametrize("family", FAMILIES, ids=[one.__name__ for one in FAMILIES])

MANY = 1000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"


class Hanging:
    """A server on a real socket that answers nobody until it is told to."""

    def __init__(self) -> None:
        self.hangs = True
        self.url = ""

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()
                    if not self.hangs:
                        await stream.send(ANSWER)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Hanging"]:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=1024)
        host, port = listener.extra_attributes[anyio.abc.SocketAttribute.local_address]()
        self.url = f"http://{host}:{port}/"
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self.handle)
            yield self
            tasks.cancel_scope.cancel()


def limited(family: Any) -> Any:
    return family.AsyncHTTPTransport(verify=False, limits=family.Limits(max_connections=2))


async def still_serves_two_at_a_time(family: Any, inner: Any, server: Hanging) -> None:
    server.hangs = False
    timeout = dict.fromkeys(("pool", "connect", "read", "write"), 5.0)
    responses = []
    for _ in range(2):
        request = family.Request("GET", server.url, extensions={"timeout": timeout})
        responses.append(await inner.handle_async_request(request))
    for response in responses:
        await response.aclose()
    assert len(inner._pool.connections) <= 2
    assert not connections_in_use(inner)


loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@families
@loops
async def test_a_thousand_that_time_out_or_are_cancelled_while_they_queue(family: Any) -> None:
    inner = limited(family)
    transport = AsyncRetryTransport(inner, retry=Retry(total=0, attempt_timeout=0.5))
    ended: list[str] = []

    async with Hanging().running() as server, family.AsyncClient(transport=transport) as client:

        async def get(number: int) -> None:
            with anyio.move_on_after(0.5 if number % 2 else None):
                try:
                    await client.get(server.url, timeout=None)
                except family.TimeoutException as error:
                    ended.append(type(error).__name__)
                    return
            ended.append("cancelled")

        async with anyio.create_task_group() as tasks:
            for number in range(MANY):
                tasks.start_soon(get, number)

        assert len(ended) == MANY
        await still_serves_two_at_a_time(family, inner, server)


@families
@loops
async def test_all_that_queue_and_the_two_that_do_not_are_cancelled_at_once(family: Any) -> None:
    inner = limited(family)
    transport = AsyncRetryTransport(inner, retry=Retry(total=0, attempt_timeout=60))

    async with Hanging().running() as server, family.AsyncClient(transport=transport) as client:
        get = functools.partial(client.get, server.url, timeout=None)
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(get)
            with anyio.fail_after(30):
                while len(inner._pool._requests) < 200:
                    await settle()
            tasks.cancel_scope.cancel()

        await still_serves_two_at_a_time(family, inner, server)


@families
@loops
async def test_all_time_out_in_the_same_step(family: Any) -> None:
    inner = limited(family)
    # The attempt ends with the deadline of all, and for httpx there is no time left to be first.
    transport = AsyncRetryTransport(inner, retry=Retry(total=0, attempt_timeout=None))

    async with Hanging().running() as server, family.AsyncClient(transport=transport) as client:
        ended: list[str] = []

        async def get() -> None:
            try:
                await client.get(server.url, timeout=None)
            except family.TimeoutException as error:
                ended.append(type(error).__name__)

        with deadline(0.3):
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    tasks.start_soon(get)

        assert len(ended) == 200
        await still_serves_two_at_a_time(family, inner, server)


@pytest.mark.parametrize("steps", range(10))
async def test_no_step_in_which_a_place_is_free_loses_it(steps: int) -> None:
    server = Server(answers=[Answer(wait=math.inf)] * 6)
    inner = async_transport(server)
    transport = AsyncRetryTransport(inner, retry=Retry(total=0))
    scopes: list[anyio.CancelScope] = []

    async def get() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await transport.handle_async_request(request())

    async with anyio.create_task_group() as tasks:
        for most in (2, 6):
            for _ in range(len(scopes), most):
                tasks.start_soon(get)
            await settle()
        assert len(server.requests) == 2

        holders, waiters = scopes[:2], scopes[2:]
        for scope in holders:
            scope.cancel()
        for _ in range(steps):
            await checkpoint()
        for scope in waiters:
            scope.cancel()

    server.answers.clear()
    await serves(inner)


@families
@loops
async def test_some_that_are_cancelled_and_others_that_time_out(family: Any) -> None:
    inner = limited(family)
    transport = AsyncRetryTransport(inner, retry=Retry(total=0, attempt_timeout=0.3))

    async with Hanging().running() as server, family.AsyncClient(transport=transport) as client:

        async def get(number: int) -> None:
            with anyio.move_on_after(0.001 * (number % 300)), suppress(family.TimeoutException):
                await client.get(server.url)

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(get, number)

        await still_serves_two_at_a_time(family, inner, server)


@families
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_those_that_asyncio_itself_cancels(family: Any) -> None:
    inner = limited(family)
    # The first must not have timed out before the last has come, however slow the machine is.
    transport = AsyncRetryTransport(inner, retry=Retry(total=0, attempt_timeout=60))

    async with Hanging().running() as server, family.AsyncClient(transport=transport) as client:
        gets = [client.get(server.url, timeout=None) for _ in range(200)]
        tasks = [asyncio.ensure_future(get) for get in gets]
        with anyio.fail_after(30):
            while len(inner._pool._requests) < len(tasks):
                await settle()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

        assert all(task.cancelled() for task in tasks)
        await still_serves_two_at_a_time(family, inner, server)


@contextmanager
def hanging_in_a_thread() -> Iterator[SimpleNamespace]:
    """The same server for threads."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    state = SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}/", hangs=True)
    connections: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            while connection.recv(65536):
                if not state.hangs:
                    connection.sendall(ANSWER)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield state
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        threads[0].join()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads[1:]:
            thread.join()
        for connection in connections:
            connection.close()


@families
def test_a_hundred_threads_that_time_out(family: Any) -> None:
    inner = family.HTTPTransport(verify=False, limits=family.Limits(max_connections=2))
    transport = RetryTransport(inner, retry=Retry(total=0, attempt_timeout=0.3))
    errors: list[Exception] = []

    with hanging_in_a_thread() as server, family.Client(transport=transport) as client:

        def get() -> None:
            try:
                client.get(server.url, timeout=None)
            except family.TimeoutException as error:
                errors.append(error)

        threads = [threading.Thread(target=get) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(errors) == 100
        server.hangs = False
        timeout = dict.fromkeys(("pool", "connect", "read", "write"), 5.0)
        responses = []
        for _ in range(2):
            request = family.Request("GET", server.url, extensions={"timeout": timeout})
            responses.append(inner.handle_request(request))
        for response in responses:
            response.close()
        assert not connections_in_use(inner)


# What `reclaim` does, one by one. The requests that it takes for a place's owners are the pool's.


def request() -> httpx.Request:
    timeout = dict.fromkeys(("pool", "connect", "read", "write"), 5.0)
    return httpx.Request("GET", "http://server/", extensions={"timeout": timeout})


def lose_a_place(pool: Any) -> Any:
    """What is left of a request that was cancelled when it had just been given a connection."""
    lost = pool.create_connection(httpcore.URL("http://server/").origin)
    pool._connections.append(lost)
    return lost


async def test_a_lost_place_is_given_back() -> None:
    inner = async_transport(Server())
    lose_a_place(inner._pool)
    lose_a_place(inner._pool)

    await areclaim(inner)

    assert inner._pool.connections == []
    await serves(inner)


async def test_a_request_that_waits_for_a_lost_place_gets_it() -> None:
    server = Server()
    inner = async_transport(server, connections=1)
    lose_a_place(inner._pool)

    async with anyio.create_task_group() as tasks:

        async def get() -> None:
            response = await inner.handle_async_request(request())
            await response.aclose()

        tasks.start_soon(get)
        await settle()
        assert server.attempts == 0

        await areclaim(inner)

    assert len(server.requests) == 1


async def test_a_thread_that_waits_for_a_lost_place_gets_it() -> None:
    with hanging_in_a_thread() as server, httpx.HTTPTransport(verify=False) as inner:
        server.hangs = False
        inner._pool._max_connections = 1
        lost = inner._pool.create_connection(httpcore.URL(server.url).origin)
        inner._pool._connections.append(lost)
        waits = httpx.Request("GET", server.url, extensions=request().extensions)
        statuses: list[int] = []

        def get() -> None:
            response = inner.handle_request(waits)
            statuses.append(response.status_code)
            response.close()

        thread = threading.Thread(target=get)
        thread.start()
        with anyio.fail_after(30):
            while not inner._pool._requests:
                await settle()

        reclaim(inner)
        await anyio.to_thread.run_sync(thread.join)

        assert statuses == [200]


async def test_a_connection_that_is_being_made_is_left_alone() -> None:
    server = Server(connects=[Connect(seconds=0.05)])
    inner = async_transport(server)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inner.handle_async_request, request())
        await settle()
        (connection,) = inner._pool.connections

        await areclaim(inner)

        assert inner._pool.connections == [connection]

    assert server.requests[0].status == 200
    assert inner._pool.connections == [connection]


async def test_a_connection_whose_answer_is_read_is_left_alone() -> None:
    inner = async_transport(Server())
    response = await inner.handle_async_request(request())
    (connection,) = inner._pool.connections

    await areclaim(inner)

    assert inner._pool.connections == [connection]
    assert await response.aread() == b"done"
    await areclaim(inner)  # now it is idle
    assert inner._pool.connections == [connection]


async def test_a_connection_that_was_made_for_a_request_that_left_is_closed() -> None:
    server = Server()
    inner = async_transport(server)
    scope = anyio.CancelScope()

    class Network(AsyncNetwork):
        async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
            stream = await super().connect_tcp(*args, **options)
            scope.cancel()  # it is noticed at the next wait, after the connection was made
            return stream

    inner._pool._network_backend = Network(server)
    with scope:
        await inner.handle_async_request(request())

    assert connections_in_use(inner)
    assert server.open == 1
    await areclaim(inner)
    assert inner._pool.connections == []
    assert server.open == 0


@pytest.mark.parametrize("kind", ["forward", "tunnel"])
async def test_a_place_that_was_lost_on_the_way_to_a_proxy_is_given_back(kind: str) -> None:
    proxy = httpcore.AsyncHTTPProxy("http://proxy/", network_backend=AsyncNetwork(Server()))
    scheme = "http" if kind == "forward" else "https"
    proxy._connections.append(proxy.create_connection(httpcore.URL(f"{scheme}://server/").origin))
    inner = httpx.AsyncHTTPTransport(verify=False)
    inner._pool = proxy

    await areclaim(inner)

    assert proxy.connections == []


class Odd:
    """A transport with a pool that is none of httpcore's."""

    class Pool:
        _requests = ()

        @property
        def _connections(self) -> Any:
            raise AssertionError("not ours")

    def __init__(self, pool: Any = None) -> None:
        self._pool = self.Pool() if pool is None else pool


async def test_other_transports_are_left_alone() -> None:
    odd_pool = httpcore.AsyncConnectionPool()
    del odd_pool._requests
    strangers: list[Any] = [
        httpx.MockTransport(lambda _: httpx.Response(200)),
        Odd(),
        Odd(odd_pool),
        object(),
    ]

    for stranger in strangers:
        reclaim(stranger)
        await areclaim(stranger)


async def test_the_pool_of_httpx2_is_left_alone() -> None:
    for family in FAMILIES[1:]:
        inner: Any = family.AsyncHTTPTransport(verify=False)
        lost = inner._pool.create_connection(httpcore.URL("http://server/").origin)
        inner._pool._connections.append(lost)

        await areclaim(inner)

        assert inner._pool._connections == [lost]  # it drops that by itself


# asyncio's own cancellation reaches into shielded scopes.


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("ends", ["read", "closed"])
async def test_a_response_whose_closing_is_broken_off_gives_its_place_back(ends: str) -> None:
    for n in range(1, 20):
        inner = async_transport(Server())
        response = await inner.handle_async_request(request())
        ending = aclose(response) if ends == "closed" else aread(response, httpx.ByteStream)
        task = cancelled_at(n, ending)
        await asyncio.wait([task])

        assert not inner._pool._requests
        await serves(inner)
        if not task.cancelled():
            break
    assert n > 1
    assert not task.cancelled()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("n", range(1, 6))
async def test_a_second_cancellation_while_the_first_closes_costs_no_place(n: int) -> None:
    inner = async_transport(Server(answers=[Answer(pause=math.inf)]))
    response = await inner.handle_async_request(request())
    scope = anyio.CancelScope()

    async def read() -> None:
        with scope:
            await CancelAt(aread(response, httpx.ByteStream), 1, scope.cancel)

    await asyncio.wait([cancelled_at(n, read())])

    assert not inner._pool._requests
    await serves(inner)


def cancelled_at(n: int, awaitable: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that is cancelled, as asyncio does it, at its n-th wait."""

    async def run() -> Any:
        return await CancelAt(awaitable, n, task.cancel)

    task = asyncio.ensure_future(run())
    return task


async def test_what_was_closed_in_order_needs_no_release() -> None:
    inner = async_transport(Server())
    response = await inner.handle_async_request(request())
    await response.aread()
    connections = inner._pool.connections

    await arelease(response.stream)
    await arelease(httpx.ByteStream(b""))

    assert inner._pool.connections == connections
