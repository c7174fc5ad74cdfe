"""LoadShedMiddleware, driven message by message on asyncio, uvloop and trio."""

import json
import math
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, StreamingResponse

from loadshed import (
    BackPressureError,
    ConcurrencyLimiter,
    ConfigError,
    QueueFullError,
    RequestTimeoutError,
)
from loadshed._read_ahead import READ_AHEAD
from loadshed.asgi import LoadShedMiddleware

from .helpers import CancelAt, settle

pytestmark = pytest.mark.anyio

DISCONNECT = {"type": "http.disconnect"}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


class Client:
    """One request: what it sends is pushed, what it is sent is kept."""

    def __init__(self, app: Any, kind: str = "http", path: str = "/", **scope: Any) -> None:
        self.app = app
        self.scope = {"type": kind, "path": path, "method": "POST", "headers": [], **scope}
        self.sent: list[Any] = []
        self.received = 0
        self._push, self._pull = anyio.create_memory_object_stream[Any](math.inf)
        self.over = anyio.Event()
        self.error: BaseException | None = None

    def push(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self._push.send_nowait(message)

    async def receive(self) -> Any:
        message = await self._pull.receive()
        self.received += 1
        return message

    async def send(self, message: Any) -> None:
        await checkpoint()
        self.sent.append(message)

    async def run(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            self.over.set()
            self.close()

    def close(self) -> None:
        self._push.close()
        self._pull.close()

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


class App:
    """Answers when it is told to, and remembers who came and what they sent."""

    def __init__(self) -> None:
        self.go = anyio.Event()
        self.paths: list[str] = []
        self.messages: list[Any] = []
        self.read = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        for _ in range(self.read):
            self.messages.append(await receive())
        await self.go.wait()
        await PlainTextResponse("ok")(scope, receive, send)


class Requests:
    """A number of requests, started one after the other."""

    def __init__(self, middleware: Any, tasks: anyio.abc.TaskGroup) -> None:
        self.middleware = middleware
        self.tasks = tasks

    async def come(self, *paths: str, **scope: Any) -> list[Client]:
        clients = [Client(self.middleware, path=path, **scope) for path in paths]
        for client in clients:
            self.tasks.start_soon(client.run)
            await settle()
        return clients


def statistics(middleware: LoadShedMiddleware) -> tuple[int, int, int, int]:
    """Ongoing, queued, completed, abandoned."""
    seen = middleware.limiter.statistics()
    return seen.ongoing, seen.queued, seen.completed, seen.abandoned


async def test_some_run_some_wait_and_the_rest_gets_503() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=2, max_queued_requests=2)
    async with anyio.create_task_group() as tasks:
        clients = await Requests(middleware, tasks).come(*[f"/{n}" for n in range(9)])
        assert app.paths == ["/0", "/1"]
        assert [client.status for client in clients] == [None] * 4 + [503] * 5
        app.go.set()
    assert [client.status for client in clients] == [200] * 4 + [503] * 5
    assert sorted(app.paths) == ["/0", "/1", "/2", "/3"]
    assert statistics(middleware) == (0, 0, 4, 0)


async def test_a_503_tells_when_to_come_back_and_why() -> None:
    middleware = LoadShedMiddleware(App(), max_ongoing_requests=1, max_queued_requests=0)
    with middleware.limiter.acquire_nowait():
        client = Client(middleware)
        await client.run()
    start, end = client.sent
    assert start["type"] == "http.response.start"
    assert start["status"] == 503
    assert client.headers == {
        b"content-type": b"application/problem+json",
        b"content-length": str(len(end["body"])).encode(),
        b"retry-after": b"1",
    }
    detail = "Request dropped due to backpressure (num_queued_requests=0, max_queued_requests=0)."
    assert json.loads(end["body"]) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": detail,
    }
    assert client.received == 0  # its body is not read first


async def test_a_request_that_waited_too_long_gets_503() -> None:
    middleware = LoadShedMiddleware(App(), max_ongoing_requests=1, max_wait=0)
    with middleware.limiter.acquire_nowait():
        client = Client(middleware)
        await client.run()
    assert client.status == 503
    assert b"max_wait=0)" in client.body
    assert middleware.limiter.statistics().shed == {"queue_timeout": 1}


async def test_a_limiter_deeper_inside_is_answered_the_same_way() -> None:
    inner = ConcurrencyLimiter(1, 0)
    middleware = LoadShedMiddleware(inner(App()), max_ongoing_requests=5)
    with inner.acquire_nowait():
        client = Client(middleware)
        await client.run()
    assert (client.status, client.headers[b"retry-after"]) == (503, b"1")
    assert statistics(middleware) == (0, 0, 1, 0)


@pytest.mark.parametrize(("told", "sent"), [(0, b"1"), (0.5, b"1"), (2.5, b"3"), (7, b"7")])
async def test_an_error_of_the_applications_own_is_told_in_whole_seconds(
    told: Any, sent: bytes
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise BackPressureError(retry_after=told)

    client = Client(LoadShedMiddleware(app, max_ongoing_requests=1))
    await client.run()
    assert (client.status, client.headers[b"retry-after"]) == (503, sent)


async def test_back_pressure_after_the_response_began_is_the_servers_to_handle() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise BackPressureError

    client = Client(LoadShedMiddleware(app, max_ongoing_requests=1))
    await client.run()
    assert isinstance(client.error, BackPressureError)
    assert client.status == 200


# Who is not limited.


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_health_checks_are_never_shed(path: str, root_path: str) -> None:
    app = App()
    app.go.set()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, max_queued_requests=0)
    with middleware.limiter.acquire_nowait():
        health = Client(middleware, path=root_path + path, root_path=root_path)
        other = Client(middleware, path=root_path + path + "/more", root_path=root_path)
        await health.run()
        await other.run()
    assert (health.status, other.status) == (200, 503)


async def test_paths_or_a_callable_say_who_is_exempt() -> None:
    app = App()
    app.go.set()
    settings: list[Any] = [["/static"], lambda scope: scope["path"].startswith("/static")]
    for exempt in settings:
        middleware = LoadShedMiddleware(
            app, max_ongoing_requests=1, max_queued_requests=0, exempt=exempt
        )
        with middleware.limiter.acquire_nowait():
            clients = [Client(middleware, path=path) for path in ("/static", "/healthz")]
            for client in clients:
                await client.run()
        assert [client.status for client in clients] == [200, 503]


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "something.new"])
async def test_other_scopes_pass_through(kind: str) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, max_queued_requests=0)
    with middleware.limiter.acquire_nowait():
        client = Client(middleware, kind)
        await client.run()
    assert seen == [(client.scope, client.receive, client.send)]


async def test_several_middlewares_may_share_a_limiter() -> None:
    app = App()
    limiter = ConcurrencyLimiter(1, 0)
    one, two = (LoadShedMiddleware(app, limiter=limiter) for _ in range(2))
    assert one.limiter is two.limiter is limiter
    async with anyio.create_task_group() as tasks:
        await Requests(one, tasks).come("/one")
        (client,) = await Requests(two, tasks).come("/two")
        assert client.status == 503
        app.go.set()


async def test_on_shed_may_answer_instead() -> None:
    seen: list[Any] = []

    def on_shed(scope: Any, error: BackPressureError) -> Any:
        seen.append((scope, error))
        return PlainTextResponse("busy", 429) if scope["path"] == "/api" else None

    middleware = LoadShedMiddleware(
        App(), max_ongoing_requests=1, max_queued_requests=0, on_shed=on_shed
    )
    with middleware.limiter.acquire_nowait():
        clients = [Client(middleware, path=path) for path in ("/api", "/page")]
        for client in clients:
            await client.run()
    assert [client.status for client in clients] == [429, 503]
    assert clients[0].body == b"busy"
    assert seen[0][0] is clients[0].scope
    assert isinstance(seen[0][1], QueueFullError)


# Clients that leave, and what they sent before.


async def test_a_client_that_leaves_the_queue_never_reaches_the_application() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, max_queued_requests=2)
    async with anyio.create_task_group() as tasks:
        _, leaver, stayer = await Requests(middleware, tasks).come("/0", "/leaver", "/stayer")
        leaver.push(body(b"x"), DISCONNECT)
        await leaver.over.wait()
        assert statistics(middleware) == (1, 1, 0, 1)
        assert (leaver.sent, leaver.error) == ([], None)
        app.go.set()
    assert app.paths == ["/0", "/stayer"]
    assert stayer.status == 200
    assert statistics(middleware) == (0, 0, 2, 1)


@pytest.mark.parametrize("granted_first", [True, False])
async def test_a_client_that_leaves_in_the_step_of_its_grant_loses_no_permit(
    granted_first: bool,
) -> None:
    app = App()
    app.go.set()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, max_queued_requests=2)
    permit = middleware.limiter.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        (leaver,) = await Requests(middleware, tasks).come("/leaver")
        if granted_first:
            permit.release()
        leaver.push(DISCONNECT)
        permit.release()
    assert statistics(middleware)[:2] == (0, 0)
    async with middleware.limiter:
        pass


async def test_what_was_read_ahead_is_played_back_in_order() -> None:
    app = App()
    app.read = 4
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    messages = [body(b"1", more=True), body(b"2", more=True), body(b"3", more=True), body(b"4")]
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        client.push(*messages[:2])
        await settle()
        assert client.received == 2
        permit.release()
        await settle()
        assert app.messages == messages[:2]  # and the third is waited for
        client.push(*messages[2:])
        app.go.set()
    assert app.messages == messages
    assert client.status == 200


async def test_a_receive_under_way_at_the_grant_is_not_cancelled() -> None:
    """A server that loses the message of a cancelled receive would lose a piece of the body."""
    cancelled = 0
    received = 0

    class Delicate(Client):
        async def receive(self) -> Any:
            nonlocal cancelled, received
            try:
                message = await super().receive()
            except anyio.get_cancelled_exc_class():
                cancelled += not app.go.is_set()
                raise
            received += 1
            return message

    app = App()
    app.read = 1
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    client = Delicate(middleware)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run)
        await settle()
        permit.release()
        await settle()
        client.push(body(b"late"))
        await settle()
        assert app.messages == [body(b"late")]
        app.go.set()
    assert (cancelled, received) == (0, 1)


async def test_asking_whether_the_client_has_left_takes_no_message_away() -> None:
    """As Starlette's `Request.is_disconnected` does it: a receive that is cancelled at once."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            with anyio.CancelScope() as at_once:
                at_once.cancel()
                seen.append(await receive())
        has_asked.set()
        seen.append(await receive())
        seen.append(await receive())

    has_asked = anyio.Event()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        permit.release()
        await has_asked.wait()
        assert seen == []
        client.push(body(b"1", more=True), body(b"2"))
    assert seen == [body(b"1", more=True), body(b"2")]


async def test_two_receives_at_once_get_a_message_each() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def read() -> None:
            seen.append(await receive())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)

    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        permit.release()
        await settle()
        client.push(body(b"1", more=True))
        await settle()
        client.push(body(b"2"))
    assert sorted(message["body"] for message in seen) == [b"1", b"2"]


async def test_at_most_64_kib_are_read_ahead() -> None:
    app = App()
    app.read = 20
    piece = READ_AHEAD // 8
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    messages = [body(bytes(piece), more=True) for _ in range(19)] + [body()]
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        client.push(*messages)
        await settle()
        assert client.received == 8
        app.go.set()
        permit.release()
    assert app.messages == messages
    assert client.status == 200


@pytest.mark.parametrize("size", [0, 100])
async def test_a_receive_that_answers_at_once_for_ever_does_not_hang_the_server(size: int) -> None:
    """As that of a middleware outside which has read the body, and plays it back."""

    class Replayed(Client):
        async def receive(self) -> Any:
            self.received += 1
            return body(bytes(size))

    app = App()
    app.read = 1
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    client = Replayed(middleware)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run)
        await settle()
        assert client.received == 2  # the body, and what should have been the client's leaving
        permit.release()
        app.go.set()
    assert (client.status, app.messages) == (200, [body(bytes(size))])


async def test_a_body_in_very_small_pieces_does_not_take_more_memory() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        client.push(*[body(b"x", more=True) for _ in range(10_000)])
        await settle()
        assert client.received <= READ_AHEAD // 256
        app.go.set()
        permit.release()
    assert client.status == 200


@pytest.mark.parametrize("in_time", [False, True])
async def test_on_shed_reads_what_was_read_while_the_request_waited(in_time: bool) -> None:
    messages = [body(b"1", more=True), body(b"2")]
    seen: list[Any] = []

    async def reader(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive(), await receive()])
        await PlainTextResponse("busy", 429)(scope, receive, send)

    middleware = LoadShedMiddleware(
        App(),
        max_ongoing_requests=1,
        max_wait=0.01,
        on_shed=lambda scope, error: reader,
        request_timeout_s=1000 if in_time else None,
    )
    with middleware.limiter.acquire_nowait():
        client = Client(middleware)
        client.push(*messages)
        await client.run()
    assert (client.status, seen) == (429, messages)


async def test_a_client_that_left_after_that_is_noticed_at_the_grant() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        client.push(body(bytes(READ_AHEAD), more=True), DISCONNECT)
        await settle()
        assert (client.received, statistics(middleware)) == (1, (1, 1, 0, 0))
        permit.release()
    assert app.paths == []
    assert statistics(middleware) == (0, 0, 1, 1)


async def test_a_slow_client_is_not_waited_for_at_the_grant() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        client.push(body(bytes(READ_AHEAD), more=True))
        await settle()
        permit.release()
        await settle()
        assert app.paths == ["/"]
        app.go.set()
    assert client.status == 200


async def test_a_paused_client_that_left_while_something_else_went_wrong() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, max_wait=0)
    with middleware.limiter.acquire_nowait():
        client = Client(middleware)
        client.push(body(bytes(READ_AHEAD), more=True))
        await client.run()
    assert client.status == 503


async def test_an_error_of_the_servers_receive_is_the_applications() -> None:
    class Broken(Client):
        async def receive(self) -> Any:
            raise OSError("broken")

    app = App()
    app.read = 1
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    client = Broken(middleware)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.run)
        await settle()
        permit.release()
    assert isinstance(client.error, OSError)
    assert app.paths == ["/"]
    assert statistics(middleware) == (0, 0, 2, 0)


@pytest.mark.parametrize("error", [LookupError("x"), KeyboardInterrupt(), SystemExit(3)])
async def test_an_error_of_an_application_that_was_queued_arrives_as_it_is(
    error: BaseException,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    client = Client(middleware)
    caught: list[BaseException] = []

    async def run() -> None:
        try:
            await middleware(client.scope, client.receive, client.send)
        except BaseException as raised:  # noqa: BLE001
            caught.append(raised)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await settle()
        permit.release()
    client.close()
    assert caught == [error]
    assert statistics(middleware) == (0, 0, 2, 0)


# How long a permit is held.


class Stream:
    """Sends a piece of its response each time it is told to."""

    def __init__(self, *, last: dict[str, Any]) -> None:
        self.last = last
        self.steps = [anyio.Event() for _ in range(4)]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        piece = {"type": "http.response.body", "body": b"x", "more_body": True}
        for step, message in zip(self.steps, (start, piece, self.last), strict=False):
            await step.wait()
            await send(message)
        await self.steps[3].wait()


@pytest.mark.parametrize(
    "last",
    [
        {"type": "http.response.body", "body": b"y"},
        {"type": "http.response.body", "more_body": False},
        {"type": "http.response.pathsend", "path": "/dev/null"},
        {"type": "http.response.zerocopysend", "file": 0},
    ],
)
@pytest.mark.parametrize("queued", [False, True])
async def test_a_permit_is_held_until_the_last_body_message(
    last: dict[str, Any], queued: bool
) -> None:
    app = Stream(last=last)
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    permit = middleware.limiter.acquire_nowait()
    if not queued:
        permit.release()
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        permit.release()
        ongoing = []
        for step in app.steps:
            step.set()
            await settle()
            ongoing.append(statistics(middleware)[0])
        assert ongoing == [1, 1, 0, 0]
    assert client.sent[-1] == last
    assert statistics(middleware) == (0, 0, 2, 0)


async def test_background_tasks_hold_no_permit() -> None:
    done = anyio.Event()
    response = PlainTextResponse("ok", background=BackgroundTask(done.wait))
    middleware = LoadShedMiddleware(response, max_ongoing_requests=1)
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        assert (client.status, statistics(middleware)) == (200, (0, 0, 1, 0))
        assert not client.over.is_set()
        done.set()


async def test_an_application_that_raises_gives_its_permit_back() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    middleware = LoadShedMiddleware(app, max_ongoing_requests=1)
    client = Client(middleware)
    await client.run()
    assert isinstance(client.error, LookupError)
    assert statistics(middleware) == (0, 0, 1, 0)


async def test_a_last_message_that_can_not_be_sent_gives_the_permit_back() -> None:
    released = []

    class Gone(Client):
        async def send(self, message: Any) -> None:
            if message["type"] == "http.response.body":
                raise OSError
            await super().send(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(OSError):  # noqa: PT011
            await PlainTextResponse("ok")(scope, receive, send)
        released.append(statistics(middleware))

    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, request_timeout_s=1000)
    await Gone(middleware).run()
    assert released == [(0, 0, 1, 0)]


async def test_a_client_that_leaves_in_mid_stream_frees_the_permit_with_the_applications_end() -> (
    None
):
    async def endless() -> Any:
        while True:
            await checkpoint()
            yield b"x"

    async with aclosing(endless()) as pieces:
        middleware = LoadShedMiddleware(StreamingResponse(pieces), max_ongoing_requests=1)
        client = Client(middleware)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.run)
            while len(client.sent) < 3:
                await checkpoint()
            assert statistics(middleware) == (1, 0, 0, 0)
            client.push(DISCONNECT)
    assert statistics(middleware) == (0, 0, 1, 0)


# From end to end.


async def test_a_request_past_its_time_gets_504_and_its_application_is_cancelled() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, request_timeout_s=0.01)
    client = Client(middleware)
    await client.run()
    assert app.paths == ["/"]
    assert client.status == 504
    assert client.headers[b"content-type"] == b"application/problem+json"
    assert json.loads(client.body) == {
        "type": "about:blank",
        "title": "Gateway Timeout",
        "status": 504,
        "detail": "Request not done within request_timeout_s=0.01.",
    }
    assert statistics(middleware) == (0, 0, 1, 0)


async def test_waiting_in_the_queue_counts() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, request_timeout_s=0.01)
    with middleware.limiter.acquire_nowait():
        client = Client(middleware)
        await client.run()
    assert (client.status, app.paths) == (504, [])
    assert statistics(middleware) == (0, 0, 1, 1)


@pytest.mark.parametrize("kind", ["debug", "early_hint", "push"])
async def test_what_comes_before_a_response_does_not_begin_it(kind: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": f"http.response.{kind}"})
        await anyio.sleep_forever()

    client = Client(LoadShedMiddleware(app, max_ongoing_requests=1, request_timeout_s=0.01))
    await client.run()
    assert [message.get("status") for message in client.sent] == [None, 504, None]


async def test_a_response_that_has_begun_is_broken_off() -> None:
    app = Stream(last=body())
    app.steps[0].set()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, request_timeout_s=0.05)
    client = Client(middleware)
    await client.run()
    assert isinstance(client.error, RequestTimeoutError)
    assert client.error.request_timeout_s == 0.05
    assert [message["type"] for message in client.sent] == ["http.response.start"]
    assert statistics(middleware) == (0, 0, 1, 0)


async def test_a_response_in_time_is_left_alone_and_so_is_its_background() -> None:
    ran = []

    async def background() -> None:
        with anyio.move_on_after(0.05):
            await anyio.sleep_forever()
        ran.append(True)

    response = PlainTextResponse("ok", background=BackgroundTask(background))
    middleware = LoadShedMiddleware(response, max_ongoing_requests=1, request_timeout_s=0.02)
    client = Client(middleware)
    await client.run()
    assert (client.status, client.error, ran) == (200, None, [True])


async def test_a_shed_within_its_time_is_a_503() -> None:
    middleware = LoadShedMiddleware(
        App(), max_ongoing_requests=1, max_queued_requests=0, request_timeout_s=1000
    )
    with middleware.limiter.acquire_nowait():
        client = Client(middleware)
        await client.run()
    assert client.status == 503


async def test_an_application_that_swallows_its_cancel_gets_504_too() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope(shield=True):
            await late.wait()

    late = anyio.Event()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, request_timeout_s=0)
    async with anyio.create_task_group() as tasks:
        (client,) = await Requests(middleware, tasks).come("/")
        assert statistics(middleware)[0] == 1  # the permit is held until the work has ended
        late.set()
    assert client.status == 504


# Websockets.


@pytest.fixture
def websockets() -> ConcurrencyLimiter:
    return ConcurrencyLimiter(1, 0)


async def test_a_websocket_holds_a_permit_while_it_is_open(websockets: ConcurrencyLimiter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send({"type": "websocket.accept"})
        assert await receive() == {"type": "websocket.disconnect"}

    websockets.max_queued_requests = 1
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, websockets=websockets)
    async with anyio.create_task_group() as tasks:
        requests = Requests(middleware, tasks)
        clients = await requests.come("/", "/", "/", kind="websocket")
        for client in clients[:2]:
            client.push({"type": "websocket.connect"})
        await settle()
        seen = websockets.statistics()
        assert (seen.ongoing, seen.queued) == (1, 1)
        assert clients[2].sent == [
            {"type": "websocket.close", "code": 1013, "reason": "Try again in 1 s."}
        ]
        for client in clients[1::-1]:  # the second leaves before it was let in
            client.push({"type": "websocket.disconnect"})
            await client.over.wait()
            assert client.error is None
    assert [len(client.sent) for client in clients] == [1, 0, 1]
    assert (websockets.statistics().completed, websockets.statistics().abandoned) == (1, 1)
    assert statistics(middleware) == (0, 0, 0, 0)


async def test_a_websocket_is_rejected_with_503_where_the_server_can(
    websockets: ConcurrencyLimiter,
) -> None:
    middleware = LoadShedMiddleware(App(), max_ongoing_requests=1, websockets=websockets)
    with websockets.acquire_nowait():
        client = Client(middleware, "websocket", extensions={"websocket.http.response": {}})
        await client.run()
    assert [message["type"] for message in client.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (client.status, client.headers[b"retry-after"]) == (503, b"1")


async def test_exempt_websockets_pass_through(websockets: ConcurrencyLimiter) -> None:
    app = App()
    app.go.set()
    middleware = LoadShedMiddleware(
        app, max_ongoing_requests=1, websockets=websockets, exempt=["/live"]
    )
    with websockets.acquire_nowait():
        client = Client(middleware, "websocket", "/live")
        await client.run()
    assert app.paths == ["/live"]


# Cancelled at every await.


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await PlainTextResponse("ok")(scope, receive, send)


@pytest.mark.parametrize("timeout", [None, 1000])
@pytest.mark.parametrize("situation", ["free", "queued", "shed", "late", "left"])
async def test_cancelling_at_any_await_loses_nothing(timeout: float | None, situation: str) -> None:
    n, cancelled = 0, True
    while cancelled:
        n += 1
        middleware = LoadShedMiddleware(
            answer,
            max_ongoing_requests=1,
            max_queued_requests=0 if situation == "shed" else 1,
            max_wait=0 if situation == "late" else None,
            request_timeout_s=timeout,
        )
        permit = middleware.limiter.acquire_nowait()
        if situation == "free":
            permit.release()
        client = Client(middleware)
        client.push(DISCONNECT if situation == "left" else body())
        scope = anyio.CancelScope()
        victim = CancelAt(middleware(client.scope, client.receive, client.send), n, scope.cancel)

        async def run(scope: Any = scope, victim: Any = victim) -> None:
            with scope:
                await victim

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await settle()
            permit.release()
        client.close()
        cancelled = victim.waits >= n
        assert statistics(middleware)[:2] == (0, 0)
        async with middleware.limiter:
            pass
    assert n > 1


# Bad input.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_ongoing_requests": 0}, "max_ongoing_requests must be .*, not 0"),
        ({"max_ongoing_requests": 1, "max_queued_requests": -1}, "max_queued_requests must be"),
        ({"max_ongoing_requests": 1, "max_wait": "x"}, "max_wait must be"),
        ({"max_ongoing_requests": 1, "request_timeout_s": -1}, "request_timeout_s must be"),
        (
            {"max_ongoing_requests": 1, "exempt": "/healthz"},
            "exempt must be a tuple or list of paths .* '/healthz'",
        ),
        (
            {"max_ongoing_requests": 1, "exempt": 5},
            "exempt must be a tuple or list of paths .* not 5",
        ),
        (
            {"max_ongoing_requests": 1, "exempt": ["healthz"]},
            "exempt must be a tuple or list of paths .* 'healthz'",
        ),
        (
            {"max_ongoing_requests": 1, "exempt": [5]},
            "exempt must be a tuple or list of paths .* not 5",
        ),
        ({"max_ongoing_requests": 1, "exempt": [["/a"]]}, r"exempt must be .* not \['/a'\]"),
        ({"max_ongoing_requests": 1, "exempt": b"/a"}, "exempt must be .* not b'/a'"),
        ({"max_ongoing_requests": 1, "exempt": checkpoint}, "exempt must be .* that is not async"),
        ({"max_ongoing_requests": 1, "on_shed": 5}, "on_shed must be a callable"),
        ({"max_ongoing_requests": 1, "on_shed": checkpoint}, "on_shed must be .* not async"),
        ({"limiter": 5}, "limiter must be a ConcurrencyLimiter, not 5"),
        ({"max_ongoing_requests": 1, "websockets": 5}, "websockets must be a ConcurrencyLimiter"),
        (
            {"limiter": ConcurrencyLimiter(1), "max_ongoing_requests": 2},
            "max_ongoing_requests must be left out where a limiter is given, not 2",
        ),
        ({"limiter": ConcurrencyLimiter(1), "max_wait": 0}, "max_wait must be left out"),
    ],
)
def test_nonsense_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoadShedMiddleware(App(), **settings)


def test_its_repr_tells_its_state() -> None:
    middleware = LoadShedMiddleware(App(), limiter=ConcurrencyLimiter(2, name="api"))
    assert repr(middleware) == (
        "<LoadShedMiddleware <ConcurrencyLimiter 'api' ongoing=0/2 queued=0/2>>"
    )
