"""What runs in a replica on Ray, without a cluster."""

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from loadshed import NotPicklableError, QueueFullError, RequestTimeoutError
from loadshed.ray_serve._replica import CallReplica, Front, Replica, _front, _Ingress
from loadshed.serve import ingress


class Given:
    """Code that is there."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def make(self) -> Any:
        return self.made


def replica(made: Any, timeout: float | None = None) -> Replica:
    return Replica(Given(made), timeout)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


async def items_of(call: Awaitable[Any]) -> list[Any]:
    return [each async for each in await call]


class Model:
    def __init__(self) -> None:
        self.closed = threading.Event()
        self.config: Any = None

    def __call__(self, x: int) -> int:
        return x + 1

    async def later(self, x: int) -> int:
        return x + 2

    def promised(self, x: int) -> Any:
        return self.later(x)

    def in_thread(self) -> bool:
        return threading.current_thread() is not threading.main_thread()

    def count(self) -> Iterator[int]:
        try:
            yield from range(3)
        finally:
            self.closed.set()

    async def count_async(self) -> AsyncIterator[int]:
        try:
            yield 0
            yield 1
        finally:
            self.closed.set()

    def slowly(self) -> Iterator[int]:
        yield 0
        time.sleep(0.4)
        yield 1

    async def never(self) -> AsyncIterator[int]:
        yield 0
        try:
            await asyncio.sleep(60)
        finally:
            self.closed.set()

    async def failing(self) -> AsyncIterator[int]:
        yield 0
        raise TimeoutError("its own")

    def fail_late(self) -> None:
        time.sleep(0.3)
        raise ValueError("nobody waits for it")

    async def fail_instead(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("nobody waits for it") from None

    async def wait(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            self.closed.set()

    def reconfigure(self, config: Any, rank: int) -> None:
        time.sleep(0.2)
        self.config = (config, rank)


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize(
    ("method", "args", "expected"),
    [(None, (1,), 2), ("later", (1,), 3), ("promised", (1,), 3), ("in_thread", (), True)],
)
def test_it_calls_what_is_served(
    method: str | None, args: Any, expected: object, timeout: float | None
) -> None:
    made = replica(Model(), timeout)
    assert run(lambda: made.loadshed_call(method, *args)) == expected


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize(("method", "expected"), [("count", [0, 1, 2]), ("count_async", [0, 1])])
def test_a_generator_is_an_async_one(
    method: str, expected: list[int], timeout: float | None
) -> None:
    made = replica(Model(), timeout)
    assert run(lambda: items_of(made.loadshed_call(method))) == expected


@pytest.mark.parametrize("method", ["count", "count_async"])
def test_a_generator_is_closed_with_its_caller(method: str) -> None:
    model = Model()

    async def take_one() -> None:
        async with contextlib.aclosing(await replica(model).loadshed_call(method)) as items:
            await anext(items)
        assert model.closed.is_set()

    run(take_one)


@pytest.mark.parametrize("method", ["slowly", "never"])
def test_a_generator_has_as_much_time_as_any_call(method: str) -> None:
    model = Model()

    async def take_all() -> None:
        items = await replica(model, 0.2).loadshed_call(method)
        assert await anext(items) == 0
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            await anext(items)
        assert time.monotonic() - began < 0.35
        assert model.closed.is_set() == (method == "never")

    run(take_all)


def test_a_timeout_of_its_own_is_none_of_ours() -> None:
    made = replica(Model(), 30)
    with pytest.raises(TimeoutError, match="its own"):
        run(lambda: items_of(made.loadshed_call("failing")))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["fail_late", "fail_instead", "wait"])
def test_what_is_late_is_forgotten(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async def be_impatient() -> None:
        with pytest.raises(RequestTimeoutError):
            await replica(Model(), 0.1).loadshed_call(method)
        await asyncio.sleep(0.4)

    run(be_impatient)
    gc.collect()
    assert not caplog.messages


def test_who_is_cancelled_waits_until_the_work_has_ended() -> None:
    model = Model()

    async def leave() -> None:
        task = asyncio.create_task(replica(model, 30).loadshed_call("wait"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.closed.is_set()

    run(leave)


def test_no_more_threads_are_at_work_than_ray_says() -> None:
    now = most = 0

    def work() -> None:
        nonlocal now, most
        now += 1
        most = max(now, most)
        time.sleep(0.05)
        now -= 1

    async def many() -> None:
        from anyio import to_thread  # noqa: PLC0415

        to_thread.current_default_thread_limiter().total_tokens = 2
        made = replica(work)
        await asyncio.gather(*(made.loadshed_call(None) for _ in range(6)))

    run(many)
    assert most == 2


def test_ray_finds_the_methods_that_there_are() -> None:
    made = replica(Model(), 0.05)
    assert run(lambda: made.later(1)) == 3
    run(lambda: made.reconfigure({"a": 1}, rank=2))  # however long it takes
    assert made._target.object.config == ({"a": 1}, 2)
    for missing in ("check_health", "closed", "_target_", "__del__"):
        assert not hasattr(made, missing)


def test_rays_own_handles_call_it_as_well() -> None:
    made = CallReplica(Given(Model()), None)
    assert run(lambda: made(1)) == 2
    scope = {"type": "http", "headers": []}
    nothing = CallReplica(Given(object()), None)
    with pytest.raises(TypeError, match="can't be called"):
        run(lambda: nothing(Request(scope)))


def test_an_http_request_is_answered_by_what_is_served() -> None:
    async def through(scope: Any, receive: Any, send: Any) -> None:
        made = CallReplica(Given(lambda request: request.url.path), None)
        response = await made(Request(scope, receive, send))
        await response(scope, receive, send)

    assert TestClient(through).get("/here").text == "/here"


def test_an_ingress_serves_its_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("app")(scope, receive, send)

    for made in (app, ingress(app)()()):
        _Ingress(Given(made), None)
        assert TestClient(_front()).get("/").text == "app"


class App:
    """An application that does what the path says."""

    def __init__(self) -> None:
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["begun"] = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.ended = True
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.state = scope.get("state")
        if scope["type"] == "websocket":
            raise QueueFullError(1, 1)
        await getattr(self, scope["path"].strip("/"))(send)

    async def fine(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    async def full(self, send: Any) -> None:
        raise QueueFullError(1, 1, retry_after=3)

    async def full_late(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise QueueFullError(1, 1)

    async def wrong(self, send: Any) -> None:
        raise NotPicklableError("it")

    async def slow(self, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await self.fine(send)  # too late

    async def stream(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await asyncio.sleep(60)

    async def lingering(self, send: Any) -> None:
        await self.fine(send)
        await asyncio.sleep(0.3)
        self.ended = True


def test_its_lifespan_begins_and_ends_with_the_replica() -> None:
    app = App()
    with TestClient(Front(app, None)) as client:
        assert client.get("/fine").text == "fine"
        assert app.state == {"begun": True}
        assert not app.ended
    assert app.ended


def test_an_application_that_cannot_start_says_so() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    sent: list[Any] = []

    async def start() -> None:
        async def receive() -> Any:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message)

        await Front(broken, None)({"type": "lifespan"}, receive, send)

    run(start)
    assert [each["type"] for each in sent] == ["lifespan.startup.failed"]
    assert "no disk" in sent[0]["message"]


@pytest.mark.parametrize("timeout", [None, 0.2])
def test_an_error_of_ours_is_answered(timeout: float | None) -> None:
    response = TestClient(Front(App(), timeout)).get("/full")
    assert (response.status_code, response.headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize(
    ("path", "error"), [("full_late", QueueFullError), ("wrong", NotPicklableError)]
)
def test_an_error_that_cannot_be_answered_is_raised(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        TestClient(Front(App(), None)).get(f"/{path}")


def test_an_error_in_a_websocket_is_raised() -> None:
    with (
        pytest.raises(QueueFullError),
        TestClient(Front(App(), 1)).websocket_connect("/"),
    ):
        pass


def test_a_late_request_is_a_504_and_only_that() -> None:
    sent: list[Any] = []

    async def send(message: Any = None) -> Any:
        sent.append(message)

    scope = {"type": "http", "path": "/slow", "headers": []}
    run(lambda: Front(App(), 0.1)(scope, send, send))
    start, body = sent
    assert start["status"] == 504
    assert b"request_timeout_s=0.1" in body["body"]


def test_a_late_stream_is_broken_off() -> None:
    with pytest.raises(RequestTimeoutError):
        TestClient(Front(App(), 0.1)).get("/stream")


def test_what_comes_after_the_response_has_its_own_time() -> None:
    app = App()
    assert TestClient(Front(app, 0.1)).get("/lingering").text == "fine"
    assert app.ended


def test_who_leaves_cancels_what_is_bounded_in_time() -> None:
    app = App()

    async def leave() -> None:
        scope = {"type": "http", "path": "/slow", "headers": []}
        sent: list[Any] = []

        async def send(message: Any = None) -> Any:
            sent.append(message)

        task = asyncio.create_task(Front(app, 30)(scope, send, send))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert sent

    run(leave)
