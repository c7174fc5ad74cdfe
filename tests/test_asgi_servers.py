"""LoadShedMiddleware on real sockets: uvicorn with both of its HTTP implementations."""

import asyncio
import hashlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from loadshed import ConcurrencyLimiter
from loadshed.asgi import LoadShedMiddleware

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio"


@pytest.fixture(params=["h11", "httptools"])
def http(request: pytest.FixtureRequest) -> Any:
    return request.param


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving(app: Any, http: Any = "h11", **settings: Any) -> AsyncIterator[int]:
    """Serve `app`, in this event loop, on a port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = {
            "http": http,
            "ws": "none",
            "lifespan": "off",
            "log_level": "critical",
        } | settings
        config = uvicorn.Config(app, **settings)
        server = Server(config)
        task = asyncio.create_task(server.serve([listener]))
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            await task  # it says why
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        yield client


async def until(limiter: ConcurrencyLimiter, **expected: int) -> None:
    """Let the server work until the limiter's statistics are as expected."""
    async with asyncio.timeout(10):
        while any(getattr(limiter.statistics(), key) != n for key, n in expected.items()):  # noqa: ASYNC110
            await asyncio.sleep(0)


def application(handle: Callable[[Request], Awaitable[Response]], **settings: Any) -> Starlette:
    app = Starlette(routes=[Route("/{path:path}", handle, methods=["GET", "POST"])])
    app.add_middleware(LoadShedMiddleware, **settings)
    return app


async def test_the_seed_experiment() -> None:
    """Two run, two wait, and five are turned away, each within 50 ms, while the four still take."""
    limiter = ConcurrencyLimiter(max_ongoing_requests=2, max_queued_requests=2)
    done = asyncio.Event()

    async def get(client: httpx.AsyncClient) -> tuple[int, float]:
        start = time.perf_counter()
        response = await client.get("/")
        return response.status_code, time.perf_counter() - start

    async def handle(request: Request) -> Response:
        await done.wait()
        return PlainTextResponse("done")

    async with (
        serving(application(handle, limiter=limiter)) as port,
        client_of(port) as client,
        asyncio.TaskGroup() as tasks,
    ):
        running = [tasks.create_task(client.get("/")) for _ in range(2)]
        await until(limiter, ongoing=2, queued=0)
        waiting = [tasks.create_task(client.get("/")) for _ in range(2)]
        await until(limiter, ongoing=2, queued=2)
        # Who is turned away never depends on the machine. How fast does: so it may stumble.
        for _ in range(20):
            turned_away = await asyncio.gather(*[get(client) for _ in range(5)])
            assert [status for status, _ in turned_away] == [503] * 5
            assert not any(task.done() for task in running + waiting)
            if max(seconds for _, seconds in turned_away) <= 0.05:
                break
        assert max(seconds for _, seconds in turned_away) <= 0.05
        done.set()
    assert [task.result().status_code for task in running + waiting] == [200] * 4


async def test_ten_times_the_load_never_exceeds_the_limit_and_leaves_nothing(http: str) -> None:
    limiter = ConcurrencyLimiter(3, 3)
    running = most = 0

    async def handle(request: Request) -> Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return PlainTextResponse("ok")

    async with (
        serving(application(handle, limiter=limiter), http) as port,
        client_of(port) as client,
    ):
        for _ in range(5):
            answers = await asyncio.gather(*[client.get("/") for _ in range(60)])
            assert {answer.status_code for answer in answers} <= {200, 503}
            assert all("retry-after" in a.headers for a in answers if a.status_code == 503)
    seen = limiter.statistics()
    assert (seen.ongoing, seen.queued, most) == (0, 0, 3)
    assert seen.completed + seen.shed["queue_full"] == 300


async def test_a_client_that_leaves_the_queue_never_reaches_the_application(http: str) -> None:
    limiter = ConcurrencyLimiter(1, 5)
    paths: list[str] = []
    go = asyncio.Event()

    async def handle(request: Request) -> Response:
        paths.append(request.url.path)
        await go.wait()
        return PlainTextResponse("ok")

    async with (
        serving(application(handle, limiter=limiter), http) as port,
        client_of(port) as client,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(client.get("/first"))
        await until(limiter, ongoing=1)
        leaver = tasks.create_task(client.get("/leaver"))
        await until(limiter, queued=1)
        last = tasks.create_task(client.post("/last", content=b"x" * 1000))
        await until(limiter, queued=2)
        leaver.cancel()
        await until(limiter, queued=1, abandoned=1)
        go.set()
        assert [(await first).status_code, (await last).status_code] == [200, 200]
    assert paths == ["/first", "/last"]


@pytest.mark.parametrize("size", [0, 1000, 64 * 1024, 1_000_000])
async def test_the_body_of_a_request_that_waited_arrives_whole(http: str, size: int) -> None:
    limiter = ConcurrencyLimiter(1, 1)
    data = bytes(range(256)) * (size // 256)

    async def handle(request: Request) -> Response:
        return PlainTextResponse(hashlib.sha256(await request.body()).hexdigest())

    async with (
        serving(application(handle, limiter=limiter), http) as port,
        client_of(port) as client,
    ):
        permit = limiter.acquire_nowait()
        waiting = asyncio.create_task(client.post("/", content=data))
        await until(limiter, queued=1)
        for _ in range(50):  # some of it is read ahead
            await asyncio.sleep(0)
        permit.release()
        response = await waiting
    assert response.text == hashlib.sha256(data).hexdigest()


async def test_a_shed_upload_leaves_its_connection_usable(http: str) -> None:
    limiter = ConcurrencyLimiter(1, 0)

    async def handle(request: Request) -> Response:
        return PlainTextResponse(str(request.client))

    async with (
        serving(application(handle, limiter=limiter), http) as port,
        client_of(port) as client,
    ):
        with limiter.acquire_nowait():
            shed = await client.post("/", content=b"x" * 1000)
        assert shed.status_code == 503
        assert shed.headers["content-type"] == "application/problem+json"
        assert (await client.get("/")).status_code == 200


async def test_a_stream_holds_its_permit_to_its_last_byte(http: str) -> None:
    limiter = ConcurrencyLimiter(1, 0)
    more = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await more.wait()
        yield b"b"

    async def handle(request: Request) -> Response:
        return StreamingResponse(pieces())

    async with (
        serving(application(handle, limiter=limiter), http) as port,
        client_of(port) as client,
    ):
        async with client.stream("GET", "/") as response:
            content = response.aiter_bytes()
            assert await anext(content) == b"a"
            assert limiter.statistics().ongoing == 1
            assert (await client.get("/")).status_code == 503
            more.set()
            assert [piece async for piece in content] == [b"b"]
        await until(limiter, ongoing=0, completed=1)


async def test_a_client_that_leaves_a_stream_frees_its_permit(http: str) -> None:
    limiter = ConcurrencyLimiter(1, 0)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0)

    async def handle(request: Request) -> Response:
        return StreamingResponse(endless())

    async with (
        serving(application(handle, limiter=limiter), http) as port,
        client_of(port) as client,
    ):
        async with client.stream("GET", "/") as response:
            assert await anext(response.aiter_bytes())
        await until(limiter, ongoing=0, completed=1)


async def test_a_request_past_its_time_is_answered_or_broken_off(http: str) -> None:
    limiter = ConcurrencyLimiter(5)
    cancelled: list[str] = []

    async def forever(path: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(path)
            raise

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        await forever("/begun")

    async def handle(request: Request) -> Response:
        if request.url.path == "/begun":
            return StreamingResponse(pieces())
        await forever("/silent")
        raise AssertionError

    async with (
        serving(application(handle, limiter=limiter, request_timeout_s=0.1), http) as port,
        client_of(port) as client,
    ):
        silent = await client.get("/silent")
        assert silent.status_code == 504
        assert silent.json()["title"] == "Gateway Timeout"
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/begun")
        await until(limiter, ongoing=0, completed=2)
    assert cancelled == ["/silent", "/begun"]


async def test_a_deadline_of_the_callers_is_read_and_kept(http: str) -> None:
    limiter = ConcurrencyLimiter(1, 5)
    paths: list[str] = []

    async def handle(request: Request) -> Response:
        paths.append(request.url.path)
        if request.url.path == "/forever":
            await asyncio.Event().wait()
        return PlainTextResponse("ok")

    def saying(seconds: str) -> list[tuple[str, str]]:
        return [("X-Request-Timeout-Seconds", seconds)]

    middleware = LoadShedMiddleware(
        Starlette(routes=[Route("/{path:path}", handle)]), limiter=limiter, trust_deadline=True
    )
    async with serving(middleware, http) as port, client_of(port) as client:
        expired = await client.get("/expired", headers=saying("0"))
        assert (expired.status_code, expired.headers["retry-after"]) == (503, "1")
        with limiter.acquire_nowait():
            queued = await client.get("/queued", headers=saying("0.05"))
        assert (queued.status_code, queued.headers["retry-after"]) == (503, "1")
        assert "max_wait=0.05, reason=deadline)" in queued.json()["detail"]
        running = await client.get("/forever", headers=saying("0.05"))
        assert running.status_code == 504
        retry = [*saying("30"), *saying("30"), ("X-Retry-Attempt", "1")]
        answers = [
            await client.get("/", headers=headers)
            for headers in (saying("30"), saying("-1"), retry)
        ]
        assert [answer.status_code for answer in answers] == [200] * 3
        await until(limiter, ongoing=0, queued=0)
    assert paths == ["/forever", "/", "/", "/"]
    assert limiter.statistics().shed == {"deadline": 2}
    seen = middleware.statistics()
    assert (seen.deadlines, seen.retries, seen.ignored) == (4, 1, 3)


async def test_a_websocket_beyond_the_limit_is_rejected_with_503() -> None:
    websockets = ConcurrencyLimiter(1, 0)

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    app = Starlette(routes=[WebSocketRoute("/", echo)])
    app.add_middleware(LoadShedMiddleware, max_ongoing_requests=1, websockets=websockets)
    async with serving(app, ws="wsproto") as port:
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
            with pytest.raises(InvalidStatus) as caught:
                await connect(f"ws://127.0.0.1:{port}/", proxy=None)
            assert caught.value.response.status_code == 503
            assert caught.value.response.headers["retry-after"] == "1"
        await until(websockets, ongoing=0, completed=1)
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as websocket:
            await websocket.send("again")
            assert await websocket.recv() == "again"
