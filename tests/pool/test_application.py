"""ReplicaPool.asgi: an ASGI application in the replicas."""

import asyncio
import math
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from conftest import Served
from loadshed import NotPicklableError, ReplicaDiedError, ReplicaPool
from loadshed._pool.application import KEPT, Kept
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


# What is kept of a request, in case it has to be sent once more.


class Given:
    """Gives messages, and notes when there is none left."""

    def __init__(self, *messages: Any) -> None:
        self.messages = [*messages]

    async def __call__(self) -> Any:
        return self.messages.pop(0)


def piece(size: int, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


async def test_what_is_kept_is_received_once_more_and_then_what_follows(anyio_backend: Any) -> None:
    messages = [piece(1), piece(2), piece(3, more=False), {"type": "http.disconnect"}]
    kept = Kept(Given(*messages))
    assert [await kept.receive() for _ in range(2)] == messages[:2]
    for _ in range(2):
        assert kept.rewind()
        assert [await kept.receive() for _ in range(2)] == messages[:2]
    assert kept.rewind()
    assert [await kept.receive() for _ in range(4)] == messages
    assert kept.rewind()
    assert await kept.receive() == messages[0]
    assert kept.rewind()  # in the middle of what is given once more
    assert [await kept.receive() for _ in range(4)] == messages


async def test_where_nothing_was_received_there_is_nothing_to_keep(anyio_backend: Any) -> None:
    kept = Kept(Given(piece(1)))
    assert kept.rewind()
    assert await kept.receive() == piece(1)


async def test_what_is_too_much_to_keep_is_not_kept(anyio_backend: Any) -> None:
    kept = Kept(Given(piece(KEPT - 1), piece(0), piece(5)))
    await kept.receive()
    assert kept.rewind()
    assert await kept.receive() == piece(KEPT - 1)
    await kept.receive()  # each message counts, or many small ones would take much room
    assert not kept.rewind()
    assert kept._messages == []
    assert await kept.receive() == piece(5)
    assert not kept.rewind()


# A replica that dies.


def mortal_pool(tries: int = 2, **settings: Any) -> ReplicaPool:
    pool = ReplicaPool("tests.pool.mortal:app", **settings)
    pool.asgi.tries = tries
    return pool


def tried(path: Path) -> list[bytes]:
    return [each.read_bytes() for each in sorted(path.glob("try-*"))]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_request_that_may_be_done_twice_is_tried_again(
    anyio_backend: Any, tmp_path: Path, method: str
) -> None:
    async with mortal_pool() as pool:
        client = Client(pool.asgi, "/1", method=method, query_string=str(tmp_path).encode())
        await client.run(piece(3), piece(2, more=False))
        assert (client.status, client.body) == (200, b"xxxxx")
        assert tried(tmp_path) == [b"xxxxx", b"xxxxx"]
        seen = pool.statistics()
        assert (seen.ongoing, seen.queued, seen.admitted) == (0, 0, seen.completed)


@pytest.mark.parametrize("method", ["POST", "PATCH", "get"])
async def test_one_that_may_not_is_not(anyio_backend: Any, tmp_path: Path, method: str) -> None:
    async with mortal_pool() as pool:
        client = Client(pool.asgi, "/1", method=method, query_string=str(tmp_path).encode())
        await client.run(BODY)
        assert client.status == 502
        assert tried(tmp_path) == [b""]


@pytest.mark.parametrize("tries", [1, 2, 3])
async def test_it_is_tried_so_often_and_no_more(
    anyio_backend: Any, tmp_path: Path, tries: int
) -> None:
    async with mortal_pool(tries) as pool:
        client = Client(pool.asgi, "/9", method="GET", query_string=str(tmp_path).encode())
        await client.run(BODY)
        assert client.status == 502
        assert len(tried(tmp_path)) == tries


async def test_one_whose_response_has_begun_is_broken_off(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with mortal_pool() as pool:
        client = Client(pool.asgi, "/late", method="GET", query_string=str(tmp_path).encode())
        await client.run(BODY, BODY)
        assert isinstance(client.error, ReplicaDiedError)
        assert client.status == 200
        assert len(tried(tmp_path)) == 1


async def test_one_whose_body_is_too_large_to_be_kept_is_not_tried_again(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with mortal_pool() as pool:
        client = Client(pool.asgi, "/1", method="PUT", query_string=str(tmp_path).encode())
        await client.run(piece(KEPT), BODY)
        assert client.status == 502
        assert tried(tmp_path) == [b"x" * KEPT]


async def test_one_whose_body_was_not_read_is_tried_again_with_all_of_it(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with mortal_pool() as pool:
        client = Client(pool.asgi, "/unread", method="PUT", query_string=str(tmp_path).encode())
        await client.run(piece(2 * KEPT, more=False))
        assert client.status == 200
        assert len(tried(tmp_path)) == 2


async def test_one_that_has_waited_in_the_queue_is_tried_again_with_all_of_its_body(
    anyio_backend: Any, tmp_path: Path
) -> None:
    """While it waits its body is read ahead, the first time and the second."""
    async with mortal_pool(max_ongoing_requests=1) as pool:
        for n in range(3):
            (tmp_path / str(n)).mkdir()
        clients = [
            Client(pool.asgi, "/1", method="PUT", query_string=str(tmp_path / str(n)).encode())
            for n in range(3)
        ]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.run, piece(3), piece(4, more=False))
        for n, client in enumerate(clients):
            if client.status == 200:
                assert client.body == b"x" * 7
                assert tried(tmp_path / str(n)) == [b"x" * 7] * 2
            else:  # its place in the queue was taken as it came back
                assert client.status == 503
        assert any(client.status == 200 for client in clients)
        seen = pool.statistics()
        assert (seen.ongoing, seen.queued, seen.admitted) == (0, 0, seen.completed)


async def test_a_websocket_is_not_tried_again(anyio_backend: Any) -> None:
    async with mortal_pool() as pool:
        client = Client(pool.asgi, kind="websocket")
        await client.run({"type": "websocket.connect"})
        assert client.sent == [{"type": "websocket.close", "code": 1011, "reason": ""}]


# What its caller says of its patience.


async def test_a_caller_may_shorten_the_time_that_it_has(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with pool_of() as pool:
        pool.asgi.trust_deadline = True
        said = [(b"x-request-timeout-seconds", b"0.2")]
        query = str(tmp_path).encode()
        client = Client(pool.asgi, "/wait", query_string=query, headers=said)
        await client.run(BODY)
        assert client.status == 504
        await until(tmp_path, "cancelled")
        said = [(b"x-request-timeout-seconds", b"0")]
        client = Client(pool.asgi, headers=said)
        await client.run(BODY)
        assert client.status == 503
        for headers in ([], [(b"x-request-timeout-seconds", b"nan")]):
            client = Client(pool.asgi, headers=headers)
            await client.run(BODY)
            assert client.status == 200
        client = Client(pool.asgi, headers=[(b"x-request-timeout-seconds", b"20")])
        await client.run(BODY)
        assert client.body == b"1 []"


async def test_a_caller_can_not_lengthen_the_time_that_it_has(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with pool_of(request_timeout_s=0.2) as pool:
        pool.asgi.trust_deadline = True
        said = [(b"x-request-timeout-seconds", b"9")]
        query = str(tmp_path).encode()
        client = Client(pool.asgi, "/wait", query_string=query, headers=said)
        await client.run(BODY)
        assert client.status == 504
        assert b"request_timeout_s=0.2" in client.body


async def test_a_caller_is_not_believed_where_that_is_not_wanted(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with pool_of() as pool:
        client = Client(pool.asgi, headers=[(b"x-request-timeout-seconds", b"0")])
        await client.run(BODY)
        assert client.status == 200


async def test_one_whose_time_is_over_as_it_waits_is_shed(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with pool_of(max_ongoing_requests=1) as pool:
        pool.asgi.trust_deadline = True
        async with anyio.create_task_group() as tasks:
            first = Client(pool.asgi, "/wait", query_string=str(tmp_path).encode())
            tasks.start_soon(first.run, BODY)
            await until(tmp_path, "here-*")
            queued = Client(pool.asgi, headers=[(b"x-request-timeout-seconds", b"0.1")])
            await queued.run(BODY)
            assert queued.status == 503
            (tmp_path / "go").touch()
        assert first.status == 200


# How those are answered that are turned away.


async def shed_by(pool: ReplicaPool, tmp_path: Path, **scope: Any) -> Client:
    """The answer to one too many."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Client(pool.asgi, "/wait", query_string=str(tmp_path).encode()).run)
        await until(tmp_path, "here-*")
        client = Client(pool.asgi, **scope)
        await client.run(BODY)
        (tmp_path / "go").touch()
    return client


@pytest.mark.parametrize(
    ("status", "after", "header"),
    [(429, None, None), (503, 7, b"7"), (429, 0.2, b"1"), (429, 0, b"1"), (503, 3600, b"3600")],
)
async def test_they_get_the_status_and_the_retry_after_that_was_asked_for(
    anyio_backend: Any, tmp_path: Path, status: int, after: float | None, header: bytes | None
) -> None:
    async with pool_of(max_ongoing_requests=1, max_queued_requests=0) as pool:
        pool.asgi.answer_as(status, after)
        client = await shed_by(pool, tmp_path)
        assert client.status == status
        said = dict(client.sent[0]["headers"])[b"retry-after"]
        assert said == header or (header is None and 1 <= int(said) <= 32)
        assert b'"status": %d' % status in client.body
        assert b"Request dropped due to backpressure" in client.body


async def test_a_websocket_is_told_when_to_come_back(anyio_backend: Any, tmp_path: Path) -> None:
    async with pool_of(max_ongoing_requests=1, max_queued_requests=0) as pool:
        pool.asgi.answer_as(429, 7)
        client = await shed_by(pool, tmp_path, kind="websocket")
        assert client.sent[0]["code"] == 1013
        assert client.sent[0]["reason"] == "Try again in 7 s."


async def test_what_is_no_overload_is_answered_as_ever(anyio_backend: Any, tmp_path: Path) -> None:
    pool = pool_of(request_timeout_s=0.2)
    pool.asgi.answer_as(429, 7)
    client = Client(pool.asgi)
    await client.run(BODY)
    assert client.status == 503
    assert b"retry-after" not in dict(client.sent[0]["headers"])
    async with pool:
        client = Client(pool.asgi, "/wait", query_string=str(tmp_path).encode())
        await client.run(BODY)
        assert client.status == 504


async def test_what_waits_in_vain_says_how_long_and_gets_the_same_answer(
    anyio_backend: Any, tmp_path: Path
) -> None:
    async with pool_of(max_ongoing_requests=1, max_wait=0.05) as pool:
        pool.asgi.answer_as(429, 7)
        client = await shed_by(pool, tmp_path)
        assert client.status == 429
        assert dict(client.sent[0]["headers"])[b"retry-after"] == b"7"
        assert b"max_wait=0.05" in client.body


async def test_a_client_that_takes_no_more_of_what_it_has_asked_for_ends_the_request(
    anyio_backend: Any,
) -> None:
    async def sick(message: Any) -> None:
        raise OSError("gone")

    async with pool_of() as pool:
        client = Client(pool.asgi, "/echo")
        client.send = sick  # type: ignore[method-assign]
        await client.run(piece(3), BODY)
        assert isinstance(client.error, OSError)
        client = Client(pool.asgi, "/echo")
        await client.run(piece(3), BODY)
        assert client.body == b"xxx1 []"


@pytest.mark.parametrize(
    ("path", "kind", "met"),
    [
        ("/", "http", "http.disconnect, http.disconnect, ConnectionError"),
        ("/", "websocket", "websocket.disconnect, websocket.disconnect, ConnectionError"),
        ("/flood", "http", "http.disconnect, http.disconnect, ConnectionError, ConnectionError"),
    ],
)
async def test_what_outlives_its_request_finds_that_the_client_has_gone(
    anyio_backend: Any, path: str, kind: str, met: str
) -> None:
    async with pool_of("outliving") as pool:
        (first,) = pool.statistics().replicas
        begun = BODY if kind == "http" else {"type": "websocket.connect"}
        client = Client(pool.asgi, path, kind=kind)
        await client.run(begun)
        assert client.error is None
        client = Client(pool.asgi, "/met")
        await client.run(BODY)
        assert client.body.decode() == met
        assert [each.pid for each in pool.statistics().replicas] == [first.pid]


async def test_a_message_is_sent_as_it_was_and_may_be_a_view(anyio_backend: Any) -> None:
    async with pool_of("careless") as pool:
        client = Client(pool.asgi)
        await client.run(BODY)
        assert client.status == 200
        assert client.sent[0]["headers"] == [(b"x-number", b"1")]
        assert client.body == b"110an array, a view"


async def test_what_is_no_scope_takes_no_slot(anyio_backend: Any) -> None:
    async with pool_of(max_ongoing_requests=1) as pool:
        for _ in range(2):
            client = Client(pool.asgi)
            del client.scope["headers"]
            with anyio.fail_after(30):
                await client.run(BODY)
            assert isinstance(client.error, KeyError)
        client = Client(pool.asgi)
        with anyio.fail_after(30):
            await client.run(BODY)
        assert client.status == 200
        assert pool.statistics().ongoing == 0
