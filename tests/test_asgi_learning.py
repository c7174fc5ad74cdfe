"""LoadShedMiddleware where its limiter learns; classes, tenants and cost of requests."""

import math
from typing import Any

import anyio
import pytest
import trio.testing
from anyio.lowlevel import checkpoint
from starlette.responses import PlainTextResponse, StreamingResponse

from loadshed import ConcurrencyLimiter, ConfigError, Criticality, KneeLimit
from loadshed.asgi import LoadShedMiddleware

from .helpers import settle
from .test_asgi import DISCONNECT, App, Client, Requests, body
from .test_limiter_learning import Told

pytestmark = pytest.mark.anyio


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


async def test_without_a_number_it_finds_one() -> None:
    middleware = LoadShedMiddleware(answer)
    client = Client(middleware)
    await client.run()
    assert client.status == 200
    assert isinstance(middleware.limiter.limit, KneeLimit)
    seen = middleware.limiter.statistics()
    assert (seen.max_ongoing_requests, seen.max_queued_requests) == (10, 20)
    assert (seen.completed, seen.ongoing) == (1, 0)


async def test_the_limiters_settings_are_the_middlewares_too() -> None:
    middleware = LoadShedMiddleware(
        answer,
        max_ongoing_requests=Told(2),
        order="fifo",
        shares={Criticality.CRITICAL: 0.5},
        max_tenants=3,
        tenant_share=0.1,
        name="the service",
    )
    assert middleware.limiter.name == "the service"
    assert middleware.limiter.max_queued_requests == 2


class Ended(App):
    """Ends as it is told to."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.end = end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go.wait()
        await self.end(scope, receive, send)


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("it failed")


async def runs_out_of_time(scope: Any, receive: Any, send: Any) -> None:
    raise TimeoutError


async def is_shed_by_another(scope: Any, receive: Any, send: Any) -> None:
    ConcurrencyLimiter(1, 0).acquire_nowait()
    limiter = ConcurrencyLimiter(1, 0)
    limiter.acquire_nowait()
    await limiter.acquire()


async def says_it_failed(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("oh", status_code=500)(scope, receive, send)


async def sees_that_the_client_has_left(scope: Any, receive: Any, send: Any) -> None:
    async def body() -> Any:
        yield b"a"
        await anyio.sleep_forever()

    await StreamingResponse(body())(scope, receive, send)


async def is_told_that_the_client_has_left(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise_when_sent = {"type": "http.response.body", "body": b"last"}
    await send(raise_when_sent)


async def is_told_in_the_middle_and_wraps_it(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        await send({"type": "http.response.body", "body": b"middle", "more_body": True})
    except OSError:
        raise ValueError("as Starlette does") from None


class Gone(Client):
    """Its server raises where somebody sends to a client that has left."""

    async def send(self, message: Any) -> None:
        if message.get("body") in {b"middle", b"last"}:
            raise OSError("the client has left")
        await super().send(message)


@pytest.mark.parametrize(
    ("end", "client", "of_use"),
    [
        (answer, Client, True),
        (says_it_failed, Client, True),
        (fails, Client, True),
        (runs_out_of_time, Client, False),
        (is_shed_by_another, Client, False),
        (sees_that_the_client_has_left, Client, False),
        (is_told_that_the_client_has_left, Gone, False),
        (is_told_in_the_middle_and_wraps_it, Gone, False),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
async def test_it_reports_what_became_of_a_request(
    end: Any, client: type[Client], of_use: bool, waits: bool
) -> None:
    limit = Told(1)
    app = Ended(end)
    middleware = LoadShedMiddleware(app, max_ongoing_requests=limit)
    async with anyio.create_task_group() as tasks:
        first = middleware.limiter.acquire_nowait() if waits else None
        request = client(middleware)
        request.push(body())
        tasks.start_soon(request.run)
        await settle()
        if first is not None:
            first.ignore()
            first.release()
        app.go.set()
        if end is sees_that_the_client_has_left:
            await settle()
            request.push(DISCONNECT)
    assert limit.outcomes == [of_use]
    assert middleware.limiter.statistics().ongoing == 0


async def test_a_client_that_leaves_while_its_request_runs_is_reported_if_it_has_waited() -> None:
    limit = Told(1)
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=limit)
    async with anyio.create_task_group() as tasks:
        first = middleware.limiter.acquire_nowait()
        (client,) = await Requests(middleware, tasks).come("/")
        client.push(body())
        await settle()
        first.ignore()
        first.release()
        await settle()
        assert app.paths == ["/"]
        client.push(DISCONNECT)
        await settle()
        app.go.set()
    assert limit.outcomes == [False]


def test_a_request_that_takes_too_long_was_in_vain() -> None:
    async def main() -> None:
        limit = Told(1)
        middleware = LoadShedMiddleware(App(), max_ongoing_requests=limit, request_timeout_s=1)
        client = Client(middleware)
        await client.run()
        assert client.status == 504
        assert limit.outcomes == [False]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_request_that_is_cancelled_was_in_vain() -> None:
    limit = Told(1)
    middleware = LoadShedMiddleware(App(), max_ongoing_requests=limit)
    async with anyio.create_task_group() as tasks:
        await Requests(middleware, tasks).come("/")
        tasks.cancel_scope.cancel()
    assert limit.outcomes == [False]


async def test_a_websocket_that_ends_was_none() -> None:
    limit = Told(1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await checkpoint()

    middleware = LoadShedMiddleware(app, websockets=ConcurrencyLimiter(limit))
    await Client(middleware, "websocket").run()
    assert limit.outcomes == [True]


# What requests are.


def header(value: bytes) -> dict[str, Any]:
    return {"headers": [(b"x-request-criticality", value)]}


async def test_requests_go_by_what_they_say_where_that_is_believed() -> None:
    app = App()
    middleware = LoadShedMiddleware(
        app, max_ongoing_requests=1, max_queued_requests=2, trust_criticality=True
    )
    async with anyio.create_task_group() as tasks:
        requests = Requests(middleware, tasks)
        await requests.come("/first")
        (low,) = await requests.come("/low", **header(b"SHEDDABLE"))
        await requests.come("/nonsense", **header(b"URGENT"))
        await requests.come("/high", **header(b"critical_plus"))
        assert low.status == 503
        app.go.set()
    assert app.paths == ["/first", "/high", "/nonsense"]
    seen = middleware.statistics()
    assert (seen.criticalities, seen.ignored) == (2, 1)
    assert middleware.limiter.statistics().shed == {"displaced": 1}


async def test_what_they_say_is_not_believed_unless_it_is_told_to() -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=1, max_queued_requests=2)
    async with anyio.create_task_group() as tasks:
        requests = Requests(middleware, tasks)
        await requests.come("/first", "/second")
        await requests.come("/third", **header(b"CRITICAL_PLUS"))
        app.go.set()
    assert app.paths == ["/first", "/second", "/third"]
    assert middleware.statistics().criticalities == 0


async def test_the_service_may_say_it_and_comes_before_the_header() -> None:
    app = App()

    def priority(scope: Any) -> str | None:
        return {"/batch": "sheddable", "/alarm": "critical_plus"}.get(scope["path"])

    middleware = LoadShedMiddleware(
        app,
        max_ongoing_requests=1,
        max_queued_requests=9,
        priority=priority,
        trust_criticality=True,
    )
    async with anyio.create_task_group() as tasks:
        requests = Requests(middleware, tasks)
        await requests.come("/first")
        await requests.come("/batch", **header(b"CRITICAL_PLUS"))
        await requests.come("/plus", **header(b"SHEDDABLE_PLUS"))
        await requests.come("/usual", "/alarm")
        app.go.set()
    assert app.paths == ["/first", "/alarm", "/usual", "/plus", "/batch"]


async def test_tenants_take_turns() -> None:
    app = App()
    middleware = LoadShedMiddleware(
        app,
        max_ongoing_requests=1,
        max_queued_requests=9,
        tenant=lambda scope: scope["path"][1],
    )
    async with anyio.create_task_group() as tasks:
        await Requests(middleware, tasks).come("/a0", "/a1", "/a2", "/a3", "/b1", "/b2")
        app.go.set()
    assert app.paths == ["/a0", "/a1", "/b1", "/a2", "/b2", "/a3"]


@pytest.mark.parametrize("cost", [2, lambda scope: len(scope["path"]) - 1])
async def test_a_request_takes_as_many_slots_as_it_costs(cost: Any) -> None:
    app = App()
    middleware = LoadShedMiddleware(app, max_ongoing_requests=5, cost=cost)
    async with anyio.create_task_group() as tasks:
        await Requests(middleware, tasks).come("/12", "/34", "/56")
        seen = middleware.limiter.statistics()
        assert (seen.ongoing, seen.slots, seen.queued) == (2, 4, 1)
        app.go.set()
    assert middleware.limiter.statistics().slots == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priority": "critical"}, "priority must be a callable that is not async, or None"),
        ({"priority": checkpoint}, "priority must be a callable that is not async"),
        ({"tenant": "x"}, "tenant must be a callable that is not async, or None"),
        ({"cost": 0}, "cost must be a whole number >= 1, not 0"),
        ({"cost": math.inf}, "cost must be"),
        ({"cost": checkpoint}, "cost must be"),
        ({"trust_criticality": 1}, "trust_criticality must be True or False, not 1"),
        ({"order": "lifo"}, "order must be"),
        ({"limiter": ConcurrencyLimiter(1), "order": "fifo"}, "order must be left out"),
        ({"limiter": ConcurrencyLimiter(1), "name": "x"}, "name must be left out"),
    ],
)
def test_nonsense_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoadShedMiddleware(answer, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priority": lambda _: "urgent"}, "priority must be a Criticality"),
        ({"tenant": lambda _: []}, "tenant must be anything hashable"),
        ({"cost": lambda _: "many"}, "cost must be a whole number"),
    ],
)
async def test_nonsense_that_a_callable_returns_is_an_error_and_takes_no_permit(
    settings: dict[str, Any], message: str
) -> None:
    middleware = LoadShedMiddleware(answer, **settings)
    client = Client(middleware)
    await client.run()
    assert isinstance(client.error, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise client.error
    assert middleware.limiter.statistics().ongoing == 0
