"""LoadShedMiddleware where it trusts the deadlines of its callers."""

import json
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
import trio.testing
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse

from loadshed import (
    BackPressureError,
    ConcurrencyLimiter,
    ConfigError,
    QueueFullError,
    QueueTimeoutError,
    RequestTimeoutError,
)
from loadshed.asgi import LoadShedMiddleware, MiddlewareStatistics

from .helpers import CancelAt, settle
from .test_asgi import DISCONNECT, App, Client, Requests, answer, body, statistics

pytestmark = pytest.mark.anyio


def asking(seconds: object, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers of a caller who still waits for so long."""
    return [(b"x-request-timeout-seconds", str(seconds).encode()), *more]


class Middleware(LoadShedMiddleware):
    """One that trusts, and remembers what it shed."""

    def __init__(self, app: Any = None, **settings: Any) -> None:
        self.errors: list[BackPressureError] = []
        settings = {"trust_deadline": True, "on_shed": self.remember} | settings
        if "limiter" not in settings:
            settings = {"max_ongoing_requests": 1} | settings
        super().__init__(App() if app is None else app, **settings)

    def remember(self, scope: Any, error: BackPressureError) -> None:
        self.errors.append(error)

    @property
    def shed(self) -> dict[str, int]:
        return dict(self.limiter.statistics().shed)


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def in_virtual_time(clock: trio.testing.MockClock) -> Callable[..., Any]:
    return partial(trio.run, clock=clock)


# On arrival.


@pytest.mark.parametrize("seconds", ["0", "0.0", "0.00000000000000000001"])
@pytest.mark.parametrize("timeout", [None, 1000])
async def test_with_nothing_left_a_request_is_shed_at_once_and_no_permit_is_lost(
    seconds: str, timeout: float | None
) -> None:
    app = App()
    middleware = Middleware(app, request_timeout_s=timeout)
    client = Client(middleware, headers=asking(seconds))
    await client.run()
    assert (client.status, client.headers[b"retry-after"]) == (503, b"1")
    (error,) = middleware.errors
    assert isinstance(error, QueueFullError)
    assert error.reason == "deadline"
    assert (app.paths, client.received, middleware.shed) == ([], 0, {"deadline": 1})
    assert statistics(middleware) == (0, 0, 0, 0)
    async with middleware.limiter:
        pass


async def test_a_shed_says_that_it_was_for_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    middleware = Middleware()
    client = Client(middleware, headers=asking(0))
    await client.run()
    said = (
        "Request dropped due to backpressure "
        "(num_queued_requests=0, max_queued_requests=1, reason=deadline)."
    )
    assert json.loads(client.body)["detail"] == said
    assert caplog.record_tuples == [("loadshed", logging.WARNING, said)]


async def test_many_that_are_late_are_told_the_same_and_each_is_counted() -> None:
    middleware = Middleware()
    for _ in range(3):
        await Client(middleware, headers=asking(0)).run()
    assert [error.reason for error in middleware.errors] == ["deadline"] * 3
    assert middleware.shed == {"deadline": 3}


@pytest.mark.parametrize("seconds", ["100", "86400"])
async def test_with_something_left_a_free_permit_is_taken(seconds: str) -> None:
    middleware = Middleware(answer)
    client = Client(middleware, headers=asking(seconds))
    client.push(body())
    await client.run()
    assert client.status == 200


async def hold(middleware: LoadShedMiddleware, seconds: float) -> None:
    async with middleware.limiter:
        await anyio.sleep(seconds)


@pytest.mark.parametrize(
    ("left", "queued", "is_shed"),
    [(9.9, 0, True), (10, 0, False), (19.9, 1, True), (20, 1, False), (86400, 1, False)],
)
def test_a_request_that_would_wait_too_long_is_shed_on_arrival(
    in_virtual_time: Callable[..., Any], left: float, queued: int, is_shed: bool
) -> None:
    middleware = Middleware(max_queued_requests=9)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3 + queued):  # of which two are through after 20 seconds
                tasks.start_soon(hold, middleware, 10)
                await settle()
            await anyio.sleep(20)
            await settle()
            (client,) = await Requests(middleware, tasks).come("/", headers=asking(left))
            assert client.over.is_set() is is_shed
            assert statistics(middleware)[1] == queued + (not is_shed)
            tasks.cancel_scope.cancel()

    in_virtual_time(main)
    assert middleware.shed == ({"deadline": 1} if is_shed else {})
    for error in middleware.errors:
        assert isinstance(error, QueueFullError)
        assert (error.reason, error.num_queued_requests) == ("deadline", queued)
        assert error.retry_after == 10 * (queued + 1)


def test_who_finds_a_free_permit_is_never_shed_by_an_estimate(
    in_virtual_time: Callable[..., Any],
) -> None:
    app = App()
    app.go.set()
    middleware = Middleware(app)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(hold, middleware, 100)
        client = Client(middleware, headers=asking(0.5))
        await client.run()
        assert client.status == 200

    in_virtual_time(main)


def test_before_the_rate_is_known_whoever_may_wait_does(
    in_virtual_time: Callable[..., Any],
) -> None:
    middleware = Middleware(max_queued_requests=9)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(hold, middleware, 100)
                await settle()
            (client,) = await Requests(middleware, tasks).come("/", headers=asking(0.5))
            assert statistics(middleware)[1] == 5
            await client.over.wait()
        assert isinstance(middleware.errors[0], QueueTimeoutError)

    in_virtual_time(main)


def test_one_slow_hour_does_not_shed_for_ever_after(in_virtual_time: Callable[..., Any]) -> None:
    """Who is shed by the estimate doesn't wait, so nobody would see that it has become wrong."""
    app = App()
    app.go.set()
    middleware = Middleware(app)
    statuses = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(hold, middleware, 3600)
        for _ in range(10):
            await anyio.sleep(4)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hold, middleware, 0.1)
                await settle()
                (client,) = await Requests(middleware, tasks).come("/", headers=asking(2))
            statuses.append(client.status)

    in_virtual_time(main)
    assert statuses == [503] * statuses.count(503) + [200] * statuses.count(200)
    assert statuses.count(200) >= 8


# In the queue.


@pytest.mark.parametrize("timeout", [None, 5, 5.0001, 1000])
@pytest.mark.parametrize("max_wait", [None, 5, 6])
def test_in_the_queue_a_deadline_sheds(
    in_virtual_time: Callable[..., Any], timeout: float | None, max_wait: float | None
) -> None:
    app = App()
    middleware = Middleware(app, max_wait=max_wait, request_timeout_s=timeout)

    async def main() -> None:
        with middleware.limiter.acquire_nowait():
            client = Client(middleware, headers=asking(5))
            start = trio.current_time()
            await client.run()
            assert trio.current_time() - start == pytest.approx(5)
        assert (client.status, app.paths) == (503, [])
        assert b"max_wait=5.0, reason=deadline)" in client.body

    in_virtual_time(main)
    (error,) = middleware.errors
    assert isinstance(error, QueueTimeoutError)
    assert (error.reason, error.max_wait) == ("deadline", 5)
    assert middleware.shed == {"deadline": 1}
    assert statistics(middleware) == (0, 0, 1, 0)


@pytest.mark.parametrize("timeout", [None, 0.01, 0.010001])
async def test_that_it_is_a_503_is_no_matter_of_luck(timeout: float | None) -> None:
    middleware = Middleware(max_queued_requests=20, request_timeout_s=timeout)
    clients = [Client(middleware, headers=asking(0.01)) for _ in range(20)]
    with middleware.limiter.acquire_nowait():
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.run)
    assert [client.status for client in clients] == [503] * 20
    assert middleware.shed == {"deadline": 20}


@pytest.mark.parametrize("timeout", [5, 7])
def test_nor_is_it_where_the_event_loop_is_blocked(
    clock: trio.testing.MockClock, timeout: float
) -> None:
    middleware = Middleware(request_timeout_s=timeout)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            permit = middleware.limiter.acquire_nowait()
            (client,) = await Requests(middleware, tasks).come("/", headers=asking(5))
            clock.jump(100)
            await client.over.wait()
            assert client.status == 503
            permit.release()

    trio.run(main, clock=clock)
    assert middleware.shed == {"deadline": 1}


@pytest.mark.parametrize("looks", range(1, 8))
@pytest.mark.parametrize("timeout", [0.1, 0.2])
async def test_nor_is_it_where_the_machine_stalls_after_a_look_at_the_clock(
    timeout: float, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    middleware = Middleware(request_timeout_s=timeout)
    clock = middleware.limiter._clock
    before_the_stall = [0.5] * looks

    class Stalling:
        def now(self) -> float:
            return clock.now() - (before_the_stall.pop() if before_the_stall else 0)

    with middleware.limiter.acquire_nowait():
        monkeypatch.setattr(middleware.limiter, "_clock", Stalling())
        client = Client(middleware, headers=asking(0.1))
        await client.run()
    assert client.status == 503
    assert middleware.shed == {"deadline": 1}


@pytest.mark.parametrize("left", [5, 86400])
def test_a_shorter_max_wait_is_not_lengthened(
    in_virtual_time: Callable[..., Any], left: float
) -> None:
    middleware = Middleware(max_wait=4, request_timeout_s=4.5)

    async def main() -> None:
        with middleware.limiter.acquire_nowait():
            client = Client(middleware, headers=asking(left))
            start = trio.current_time()
            await client.run()
            assert trio.current_time() - start == pytest.approx(4)
        assert client.status == 503

    in_virtual_time(main)
    (error,) = middleware.errors
    assert isinstance(error, QueueTimeoutError)
    assert (error.reason, error.max_wait) == ("queue_timeout", 4)
    assert middleware.shed == {"queue_timeout": 1}


@pytest.mark.parametrize("left", [5, 86400])
def test_a_shorter_request_timeout_is_not_lengthened_in_the_queue(
    in_virtual_time: Callable[..., Any], left: float
) -> None:
    middleware = Middleware(request_timeout_s=4)

    async def main() -> None:
        with middleware.limiter.acquire_nowait():
            client = Client(middleware, headers=asking(left))
            start = trio.current_time()
            await client.run()
            assert trio.current_time() - start == pytest.approx(4)
        assert client.status == 504
        assert b"request_timeout_s=4." in client.body

    in_virtual_time(main)
    assert statistics(middleware) == (0, 0, 1, 1)


def test_each_in_the_queue_has_its_own_deadline(in_virtual_time: Callable[..., Any]) -> None:
    app = App()
    app.go.set()
    middleware = Middleware(app, max_queued_requests=100)
    order: list[str] = []

    async def main() -> None:
        async def run(client: Client) -> None:
            await client.run()
            order.append(f"{client.scope['path']} {client.status}")

        async with anyio.create_task_group() as tasks:
            permits = [middleware.limiter.acquire_nowait()]
            for left in (30, 10, 20, 15, 40):
                client = Client(middleware, path=f"/{left}", headers=asking(left))
                tasks.start_soon(run, client)
                await settle()
            await anyio.sleep(17)
            assert order == ["/10 503", "/15 503"]
            middleware.limiter.max_ongoing_requests = 3  # two more, for the two that came first
            await settle()
            assert sorted(order[2:]) == ["/20 200", "/30 200", "/40 200"]
            middleware.limiter.max_ongoing_requests = 1
            (late,) = await Requests(middleware, tasks).come("/late", headers=asking(1))
            await late.over.wait()
            assert late.status == 503
            permits[0].release()

    in_virtual_time(main)
    assert middleware.shed == {"deadline": 3}
    assert statistics(middleware)[:2] == (0, 0)


def test_one_whose_deadline_has_passed_is_shed_in_the_step_of_the_grant(
    clock: trio.testing.MockClock,
) -> None:
    """The loop is blocked, and the permit comes back before the timer has fired."""
    app = App()
    app.go.set()
    middleware = Middleware(app, max_queued_requests=2)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            permit = middleware.limiter.acquire_nowait()
            requests = Requests(middleware, tasks)
            (late,) = await requests.come("/late", headers=asking(5))
            (patient,) = await requests.come("/patient")
            clock.jump(6)
            permit.release()
        assert (late.status, patient.status) == (503, 200)

    trio.run(main, clock=clock)
    assert app.paths == ["/patient"]
    assert middleware.shed == {"deadline": 1}


@pytest.mark.parametrize("max_wait", [None, 4])
@pytest.mark.parametrize("timeout", [None, 5, 7])
def test_one_whose_deadline_passes_between_the_grant_and_its_use_hands_its_permit_on(
    clock: trio.testing.MockClock, max_wait: float | None, timeout: float | None
) -> None:
    app = App()
    app.go.set()
    limiter = ConcurrencyLimiter(1, 2, max_wait=max_wait)
    middleware = Middleware(app, limiter=limiter, request_timeout_s=timeout)
    other = Middleware(app, limiter=limiter)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            permit = limiter.acquire_nowait()
            (late,) = await Requests(middleware, tasks).come("/late", headers=asking(5))
            limiter.max_wait = None
            (patient,) = await Requests(other, tasks).come("/patient")
            permit.release()
            clock.jump(6)  # before the task that was granted it has run
        assert (late.status, patient.status) == (503, 200)

    trio.run(main, clock=clock)
    assert app.paths == ["/patient"]
    assert middleware.shed == {"deadline": 1}
    assert statistics(middleware) == (0, 0, 2, 0)


@pytest.mark.parametrize("jump", [0, 6])
@pytest.mark.parametrize("granted_first", [True, False])
def test_a_client_that_leaves_in_the_step_of_its_grant_loses_no_permit(
    clock: trio.testing.MockClock, jump: int, granted_first: bool
) -> None:
    app = App()
    app.go.set()
    middleware = Middleware(app, max_queued_requests=2)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            permit = middleware.limiter.acquire_nowait()
            (leaver,) = await Requests(middleware, tasks).come("/leaver", headers=asking(5))
            steps: list[Callable[[], object]]
            steps = [permit.release, partial(clock.jump, jump), partial(leaver.push, DISCONNECT)]
            for step in steps if granted_first else reversed(steps):
                step()
        assert statistics(middleware)[:2] == (0, 0)
        async with middleware.limiter:
            pass

    trio.run(main, clock=clock)


# While it runs.


@pytest.mark.parametrize(
    ("left", "timeout", "bound"),
    [(5, None, 5), (5, 1000, 5), (5, 5, 5), (5, 4, 4), (86400, 4, 4), (86400, None, 86400)],
)
@pytest.mark.parametrize("waits", [0, 3])
def test_the_smaller_of_both_ends_what_runs(
    in_virtual_time: Callable[..., Any],
    left: float,
    timeout: float | None,
    bound: float,
    waits: float,
) -> None:
    app = App()
    middleware = Middleware(app, request_timeout_s=timeout)

    async def main() -> None:
        start = trio.current_time()
        async with anyio.create_task_group() as tasks:
            if waits:
                tasks.start_soon(hold, middleware, waits)
                await settle()
            client = Client(middleware, headers=asking(left))
            await client.run()
        # From its arrival at the middleware, whatever it did since.
        assert trio.current_time() - start == pytest.approx(bound)
        assert client.status == 504
        detail = f"Request not done within request_timeout_s={float(bound)}."
        assert json.loads(client.body)["detail"] == detail.replace("=4.0.", "=4.")

    in_virtual_time(main)
    assert app.paths == ["/"]
    assert middleware.errors == []
    assert statistics(middleware)[:2] == (0, 0)


async def test_a_response_that_has_begun_is_broken_off() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep_forever()

    client = Client(Middleware(app), headers=asking(0.02))
    await client.run()
    assert isinstance(client.error, RequestTimeoutError)
    assert client.error.request_timeout_s == 0.02


@pytest.mark.parametrize("queued", [False, True])
def test_a_response_in_time_is_left_alone_and_so_is_its_background(
    in_virtual_time: Callable[..., Any], queued: bool
) -> None:
    ran = []

    async def background() -> None:
        await anyio.sleep(100)
        ran.append(True)

    middleware = Middleware(PlainTextResponse("ok", background=BackgroundTask(background)))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            if queued:
                tasks.start_soon(hold, middleware, 4)
                await settle()
            client = Client(middleware, headers=asking(5))
            await client.run()
        assert (client.status, client.error, ran) == (200, None, [True])

    in_virtual_time(main)


def test_back_pressure_from_inside_is_answered_as_ever(in_virtual_time: Callable[..., Any]) -> None:
    inner = ConcurrencyLimiter(1, 1, max_wait=2)
    middleware = Middleware(inner(App()))

    async def main() -> None:
        with inner.acquire_nowait():
            client = Client(middleware, headers=asking(5))
            await client.run()
        assert client.status == 503

    in_virtual_time(main)
    assert [error.reason for error in middleware.errors] == ["queue_timeout"]


@pytest.mark.parametrize("timeout", [None, 5, 1000])
def test_an_application_that_sheds_when_it_is_cancelled_was_cancelled_all_the_same(
    in_virtual_time: Callable[..., Any], timeout: float | None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise BackPressureError

    middleware = Middleware(app, request_timeout_s=timeout)

    async def main() -> None:
        client = Client(middleware, headers=asking(5))
        await client.run()
        assert isinstance(client.error, RequestTimeoutError)
        assert client.error.request_timeout_s == 5

    in_virtual_time(main)


# The answer to those who are shed.


async def never(scope: Any, receive: Any, send: Any) -> None:
    await anyio.sleep_forever()


@pytest.mark.parametrize(("left", "seconds"), [(0, 7), (5, 7), (6.5, 7.5), (7, 8), (8, 7)])
def test_an_answer_of_the_users_own_is_timed_by_request_timeout_s(
    in_virtual_time: Callable[..., Any], left: float, seconds: float
) -> None:
    middleware = Middleware(on_shed=lambda scope, error: never, request_timeout_s=7)

    async def main() -> None:
        with middleware.limiter.acquire_nowait():
            client = Client(middleware, headers=asking(left))
            start = trio.current_time()
            await client.run()
            assert trio.current_time() - start == pytest.approx(seconds)
        assert client.status == 504
        assert b"request_timeout_s=7." in client.body

    in_virtual_time(main)


@pytest.mark.parametrize("timeout", [None, 5])
def test_an_answer_of_the_users_own_may_take_a_moment(
    in_virtual_time: Callable[..., Any], timeout: float | None
) -> None:
    async def busy(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.5)
        await PlainTextResponse("busy", 429)(scope, receive, send)

    middleware = Middleware(on_shed=lambda scope, error: busy, request_timeout_s=timeout)

    async def main() -> None:
        with middleware.limiter.acquire_nowait():
            client = Client(middleware, headers=asking(5))
            await client.run()
        assert client.status == 429

    in_virtual_time(main)


# Who is believed, and what is counted.


IGNORED = [
    [(b"x-request-timeout-seconds", value)]
    for value in (b"", b"-1", b"nan", b"inf", b"1e3", b"soon", b"\xff", b"86401", b"9" * 5000)
]


@pytest.mark.parametrize("headers", [[], *IGNORED, [*asking(0), *asking(0)]])
async def test_what_is_not_a_deadline_changes_nothing(headers: Any) -> None:
    middleware = Middleware(answer, request_timeout_s=1000)
    client = Client(middleware, headers=headers)
    client.push(body())
    await client.run()
    assert client.status == 200
    expected = MiddlewareStatistics(deadlines=0, retries=0, ignored=len(headers))
    assert middleware.statistics() == expected


async def test_what_callers_say_is_counted() -> None:
    middleware = Middleware(answer)
    nothing = middleware.statistics()
    for headers in (
        asking(5),
        asking(5, (b"x-retry-attempt", b"2")),
        asking("x", (b"x-retry-attempt", b"1")),
        [(b"x-retry-attempt", b"0")],
        asking(0),
    ):
        client = Client(middleware, headers=headers)
        client.push(body())
        await client.run()
    assert nothing == MiddlewareStatistics(deadlines=0, retries=0, ignored=0)
    assert middleware.statistics() == MiddlewareStatistics(deadlines=3, retries=2, ignored=2)
    with pytest.raises(AttributeError):
        nothing.retries = 5  # type: ignore[misc]


async def test_without_headers_in_the_scope_nobody_has_said_anything() -> None:
    client = Client(Middleware(answer))
    client.push(body())
    del client.scope["headers"]
    await client.run()
    assert client.status == 200


@pytest.mark.parametrize("timeout", [None, 1000])
async def test_who_is_not_trusted_is_not_heard(timeout: float | None) -> None:
    middleware = Middleware(answer, trust_deadline=False, request_timeout_s=timeout)
    client = Client(middleware, headers=asking(0, (b"x-retry-attempt", b"x")))
    client.push(body())
    await client.run()
    assert client.status == 200
    assert middleware.statistics() == MiddlewareStatistics(deadlines=0, retries=0, ignored=0)


@pytest.mark.parametrize(("kind", "path"), [("http", "/healthz"), ("websocket", "/")])
async def test_exempt_requests_and_websockets_have_no_deadline(kind: str, path: str) -> None:
    app = App()
    app.go.set()
    middleware = Middleware(app, websockets=ConcurrencyLimiter(1))
    client = Client(middleware, kind, path, headers=asking(0))
    await client.run()
    assert app.paths == [path]
    assert middleware.statistics() == MiddlewareStatistics(deadlines=0, retries=0, ignored=0)


@pytest.mark.parametrize("value", [1, 0, None, "yes", math.nan])
def test_to_trust_is_yes_or_no(value: Any) -> None:
    with pytest.raises(ConfigError, match=f"trust_deadline must be True or False, not {value!r}"):
        LoadShedMiddleware(App(), max_ongoing_requests=1, trust_deadline=value)


class Stalling:
    """A clock that goes on by ten seconds once the request has arrived."""

    def __init__(self) -> None:
        self.looks = 0

    def now(self) -> float:
        self.looks += 1
        return anyio.current_time() - (10 if self.looks <= 2 else 0)


async def test_a_deadline_that_passes_while_a_request_arrives_is_a_shed_all_the_same() -> None:
    middleware = Middleware()
    permit = middleware.limiter.acquire_nowait()
    middleware.limiter._clock = Stalling()  # type: ignore[assignment]
    client = Client(middleware, headers=asking(10))
    client.push(body())
    await client.run()
    assert (client.status, middleware.shed) == (503, {"deadline": 1})
    permit.release()


# Cancelled at every await.


@pytest.mark.parametrize("timeout", [None, 500, 1000, 2000])
@pytest.mark.parametrize("situation", ["free", "queued", "shed", "late", "left", "expires"])
async def test_cancelling_at_any_await_loses_nothing(timeout: float | None, situation: str) -> None:
    n, cancelled = 0, True
    while cancelled:
        n += 1
        middleware = Middleware(
            answer,
            max_queued_requests=0 if situation == "shed" else 1,
            request_timeout_s=timeout,
        )
        permit = middleware.limiter.acquire_nowait()
        if situation == "free":
            permit.release()
        left = {"late": "0", "expires": "0.001"}.get(situation, "1000")
        client = Client(middleware, headers=asking(left))
        client.push(DISCONNECT if situation == "left" else body())
        scope = anyio.CancelScope()
        victim = CancelAt(middleware(client.scope, client.receive, client.send), n, scope.cancel)
        over = anyio.Event()

        async def run(scope: Any = scope, victim: Any = victim, over: Any = over) -> None:
            with scope:
                await victim
            over.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            if situation == "expires":
                await over.wait()
            await settle()
            permit.release()
        client.close()
        cancelled = victim.waits >= n
        assert statistics(middleware)[:2] == (0, 0)
        async with middleware.limiter:
            pass
    assert n > 1


async def granted_late(n: int) -> int:
    """Cancel at the n-th await a request whose deadline passes in the step of its grant.

    How often it waited.
    """
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    app = App()
    app.go.set()
    middleware = Middleware(app, max_queued_requests=2)
    scope = trio.CancelScope()
    permit = middleware.limiter.acquire_nowait()
    client = Client(middleware, headers=asking(5))
    victim = CancelAt(middleware(client.scope, client.receive, client.send), n, scope.cancel)

    async def run() -> None:
        with scope:
            await victim

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await settle()
        patient = Client(middleware, path="/patient")
        nursery.start_soon(patient.run)
        await settle()
        permit.release()
        clock.jump(6)
    client.close()
    assert (patient.status, app.paths) == (200, ["/patient"])
    assert statistics(middleware)[:2] == (0, 0)
    return victim.waits


def test_cancelling_one_that_is_granted_too_late_loses_nothing(
    in_virtual_time: Callable[..., Any],
) -> None:
    async def main() -> None:
        n = 1
        while await granted_late(n) >= n:
            n += 1
        assert n > 3

    in_virtual_time(main)
