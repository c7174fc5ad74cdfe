"""ReplicaPool.asgi: an ASGI application in the replicas."""

import asyncio
import math
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from conftest import Served
from loadshed import NotPicklableError, ReplicaPool
from loadshed._replica.application import Lifespan

from . import inner

pytestmark = pytest.mark.anyio

BODY = {"type": "http.request", "body": b"", "more_body": False}


class Client:
    """One connection: what it sends is pushed, what it is sent is kept."""

    def __init__(self, app: Any, /, path: str = "/", kind: str = "http", **scope: Any) -> None:
        self.app = app
        self.scope = {"type": kind, "path": path, "method": "POST", "headers": [], **scope}
        self.sent: list[Any] = []
        self.error: Exception | None = None
        self.push, self._pull = anyio.create_memory_object_stream[Any](math.inf)

    async def receive(self) -> Any:
        return await self._pull.receive()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self, *messages: Any) -> None:
        for message in messages:
            self.push.send_nowait(message)
        with self.push, self._pull:
            try:
                await self.app(self.scope, self.receive, self.send)
            except Exception as error:  # noqa: BLE001
                self.error = error

    @property
    def status(self) -> int | None:
        return self.sent[0].get("status") if self.sent else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def until(path: Path, pattern: str, count: int = 1) -> None:
    with anyio.fail_after(10):
        while len(list(path.glob(pattern))) < count:
            await anyio.sleep(0.005)


def pool_of(name: str = "app", **settings: Any) -> ReplicaPool:
    return ReplicaPool(f"tests.pool.inner:{name}", **settings)


def test_a_server_starts_the_pool_and_streams_both_bodies(served: Served) -> None:
    pool = pool_of()
    with served(pool.asgi) as url, httpx.Client(base_url=url, timeout=20) as client:
        assert client.post("/").text == "1 []"
        data = b"y" * 2_000_000
        assert client.post("/echo", content=data).content == data + b"1 []"
        with client.stream("POST", "/large") as response:
            size = sum(len(chunk) for chunk in response.iter_bytes())
        assert size == 32 * 65536 + 4
        assert client.post("/die").status_code == 502
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/die-later", content=b"").read()
        assert client.post("/raise").status_code == 500
    assert pool.statistics().replicas == ()


async def test_requests_of_every_kind_are_served(anyio_backend: Any) -> None:
    def sick(*_: Any) -> Any:
        raise OSError("gone")

    async with pool_of() as pool:
        client = Client(
            pool.asgi,
            app=object(),
            state={},
            extensions={"http.response.zerocopysend": {}, "http.response.trailers": {}},
        )
        await client.run(BODY)
        assert client.body == b"1 ['http.response.trailers']"
        client = Client(pool.asgi, "/impatient")
        await client.run(BODY)
        assert client.status == 200
        client = Client(pool.asgi, "/raise")
        await client.run(BODY)
        assert isinstance(client.error, LookupError)
        client = Client(pool.asgi, kind="websocket")
        await client.run(
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "hello"},
            {"type": "websocket.disconnect"},
        )
        assert client.sent[1] == {"type": "websocket.send", "text": "hello"}
        for name, path in (("receive", "/echo"), ("send", "/")):
            client = Client(pool.asgi, path)
            setattr(client, name, sick)
            await client.run()
            assert isinstance(client.error, OSError)
        assert pool.asgi.__repr__().startswith("<PoolApplication ")


async def test_two_run_two_wait_and_five_get_503(anyio_backend: Any, tmp_path: Path) -> None:
    async with pool_of(max_ongoing_requests=2, max_queued_requests=2) as pool:
        query = str(tmp_path).encode()
        clients = [Client(pool.asgi, "/wait", query_string=query) for _ in range(9)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.run)
            await until(tmp_path, "here-*", 2)
            socket = Client(pool.asgi, kind="websocket")
            await socket.run()
            assert socket.sent[0]["code"] == 1013
            socket = Client(pool.asgi, kind="websocket", extensions={"websocket.http.response": {}})
            await socket.run()
            assert socket.status == 503
            (tmp_path / "go").touch()
    statuses = [client.status for client in clients]
    assert (statuses.count(200), statuses.count(503)) == (4, 5)
    shed = [client for client in clients if client.status == 503]
    assert all(b"retry-after" in dict(client.sent[0]["headers"]) for client in shed)


async def test_who_leaves_the_queue_is_not_served_and_who_is_cancelled_frees_the_slot(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with pool_of(max_ongoing_requests=1) as pool:
        query = str(tmp_path).encode()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Client(pool.asgi, "/wait", query_string=query).run)
            await until(tmp_path, "here-*")
            left = Client(pool.asgi, "/")
            await left.run({"type": "http.disconnect"})
            assert left.sent == []
            tasks.cancel_scope.cancel()
        await until(tmp_path, "cancelled")
        client = Client(pool.asgi)
        await client.run(BODY)
        assert client.status == 200
    assert pool.statistics().abandoned == 1


async def test_a_request_that_takes_too_long_gets_504(anyio_backend: Any, tmp_path: Path) -> None:
    async with pool_of(request_timeout_s=0.3, max_ongoing_requests=1) as pool:
        client = Client(pool.asgi, "/wait", query_string=str(tmp_path).encode())
        await client.run(BODY)
        assert client.status == 504
        (tmp_path / "go").touch()
    socket = Client(pool.asgi, kind="websocket")
    await socket.run()
    assert socket.sent[0]["code"] == 1011
    client = Client(pool.asgi)
    await client.run(BODY)
    assert client.status == 503  # it is not running any more


async def test_the_lifespan_does_nothing_where_the_pool_is_running(anyio_backend: Any) -> None:
    async with pool_of("no_lifespan") as pool:
        lifespan = Client(pool.asgi, kind="lifespan")
        await lifespan.run({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        kinds = [message["type"] for message in lifespan.sent]
        assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        client = Client(pool.asgi)
        await client.run(BODY)
        assert client.body == b"None []"


async def test_an_application_that_cannot_start_fails_the_startup(anyio_backend: Any) -> None:
    lifespan = Client(pool_of("broken").asgi, kind="lifespan")
    await lifespan.run({"type": "lifespan.startup"})
    assert [message["type"] for message in lifespan.sent] == ["lifespan.startup.failed"]
    assert "no model" in lifespan.sent[0]["message"]


async def test_a_pool_with_a_time_limit_serves_what_is_in_time(anyio_backend: Any) -> None:
    async with pool_of(request_timeout_s=20) as pool:
        client = Client(pool.asgi, "/echo")
        await client.run(BODY)
        assert client.body == b"1 []"


async def test_a_slow_client_slows_the_application(anyio_backend: Any) -> None:
    async with pool_of("no_lifespan") as pool:
        client = Client(pool.asgi, "/large")
        send = client.send

        async def slow(message: Any) -> None:
            await anyio.sleep(0.002)
            await send(message)

        client.send = slow  # type: ignore[method-assign]
        await client.run(BODY)
        assert len(client.body) == 32 * 65536 + len(b"None []")


async def test_what_is_no_application_is_a_type_error(anyio_backend: Any) -> None:
    async with pool_of("no_application") as pool:
        client = Client(pool.asgi)
        await client.run(BODY)
    assert isinstance(client.error, TypeError)


async def test_an_exception_after_a_wait_in_the_queue_reaches_the_server(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with pool_of(max_ongoing_requests=1) as pool, anyio.create_task_group() as tasks:
        first = Client(pool.asgi, "/wait", query_string=str(tmp_path).encode())
        tasks.start_soon(first.run)
        await until(tmp_path, "here-*")
        queued = [Client(pool.asgi, path) for path in ("/raise", "/unpicklable")]
        tasks.start_soon(queued[0].run, BODY)
        while not pool.statistics().queued:
            await anyio.sleep(0.001)
        (tmp_path / "go").touch()
        while queued[0].error is None:
            await anyio.sleep(0.001)
        await queued[1].run(BODY)
    assert isinstance(queued[0].error, LookupError)
    assert isinstance(queued[1].error, NotPicklableError)
    assert first.status == 200


def test_a_lifespan_that_fails_says_why_and_one_that_is_not_known_is_none() -> None:
    # Here, as a replica that could not start is killed, and its coverage may be lost with it.
    async def run() -> None:
        with pytest.raises(RuntimeError, match="no model"):
            await Lifespan(inner.broken).start()
        lifespan = Lifespan(inner.no_lifespan)
        await lifespan.start()
        await lifespan.stop()
        lifespan = Lifespan(inner.app)
        await lifespan.start()
        assert lifespan.state == {"starts": 1}
        await lifespan.stop()

    asyncio.run(run())
