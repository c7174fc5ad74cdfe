"""A request that takes long is sent a second time, and the first answer counts."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from trio.testing import MockClock

from loadshed import CircuitOpenError, ConfigError
from loadshed.client import (
    AsyncClient,
    AsyncRetryTransport,
    Attempt,
    CircuitBreaker,
    Event,
    Hedge,
    Retry,
    RetryBudget,
    RetryTransport,
)
from tests.client.network import Answer, Connect, Server, async_transport, serves
from tests.helpers import CancelAt

pytestmark = pytest.mark.anyio

URL = "http://server/"
UNIT = 0.02  # seconds: on trio they pass in no time
NEVER = Answer(wait=math.inf)
QUICK = Retry(backoff_factor=UNIT, jitter="none")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    if request.param == "asyncio":
        return ("asyncio", {"use_uvloop": False})
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


def after(units: float, status: int | None = 200, **more: Any) -> Answer:
    return Answer(status, wait=units * UNIT, **more)


class Sending:
    """A client with hedges, and the server that it speaks to."""

    def __init__(self, *answers: Answer, hedge: Hedge, ready: bool = True, **more: Any) -> None:
        self.server = Server(
            connects=list(more.pop("connects", ())),
            answers=list(answers),
        )
        self.inner = async_transport(self.server, connections=5)
        options: Any = {"retry": QUICK, "hedge": hedge, **more}
        if ready:
            self.client: httpx.AsyncClient = AsyncClient(transport=self.inner, **options)
        else:
            transport = AsyncRetryTransport(self.inner, **options)
            self.client = httpx.AsyncClient(transport=transport)

    async def get(self, **more: Any) -> httpx.Response:
        response = await self.client.get(URL, **more)
        await self.nothing_is_open()
        return response

    async def nothing_is_open(self) -> None:
        idle = [one for one in self.inner._pool.connections if one.is_idle()]
        assert idle == self.inner._pool.connections
        assert self.inner._pool._requests == []
        assert self.server.open == len(idle)
        self.server.answers.clear()
        await serves(self.inner, at_a_time=5)


def came_to(response: Any) -> list[object]:
    """The statuses of the attempts, and the types of their errors."""
    attempts: tuple[Attempt, ...] = response.extensions["loadshed"].attempts
    return [one.status if one.error is None else type(one.error) for one in attempts]


@pytest.mark.parametrize("ready", [True, False])
async def test_the_second_answers_and_the_first_is_cancelled(ready: bool) -> None:
    sending = Sending(NEVER, after(0), hedge=Hedge(delay=UNIT), ready=ready)

    response = await sending.get()

    assert response.status_code == 200
    assert response.content == b"done"
    assert len(sending.server.requests) == 2 + 5
    assert sorted(map(str, came_to(response))) == ["200", "None"]
    assert response.extensions["loadshed"].stopped == "success"


async def test_the_first_answers_and_the_second_is_cancelled() -> None:
    sending = Sending(after(3), NEVER, hedge=Hedge(delay=UNIT))

    response = await sending.get()

    assert response.status_code == 200
    assert sorted(map(str, came_to(response))) == ["200", "None"]


async def test_a_quick_answer_is_never_hedged() -> None:
    sending = Sending(hedge=Hedge(delay=60))

    response = await sending.client.get(URL)

    assert came_to(response) == [200]
    assert len(sending.server.requests) == 1


async def test_no_delay_sends_both_at_once() -> None:
    sending = Sending(NEVER, NEVER, after(1), hedge=Hedge(delay=0, max_hedged_attempts=2))

    response = await sending.get()

    assert response.status_code == 200
    assert len(came_to(response)) == 3


async def test_one_after_the_other_is_sent_until_one_answers() -> None:
    hedge = Hedge(delay=UNIT, max_hedged_attempts=3)
    sending = Sending(NEVER, NEVER, NEVER, after(0), hedge=hedge)

    response = await sending.get()

    assert response.status_code == 200
    assert sorted(map(str, came_to(response))) == ["200", "None", "None", "None"]


async def test_no_more_are_sent_than_there_may_be() -> None:
    hedge = Hedge(delay=UNIT, max_hedged_attempts=2)
    sending = Sending(after(8), NEVER, NEVER, NEVER, hedge=hedge)

    response = await sending.get()

    assert len(came_to(response)) == 3


async def test_a_failure_before_the_delay_is_a_matter_of_the_retry() -> None:
    sending = Sending(after(0, 503), after(0), hedge=Hedge(delay=60))

    response = await sending.client.get(URL)

    assert came_to(response) == [503, 200]
    retries = [request.headers.get("x-retry-attempt") for request in sending.server.requests]
    assert retries == [None, "1"]


async def test_a_failure_after_a_hedge_was_sent_waits_for_that() -> None:
    sending = Sending(after(2, 503), after(3), hedge=Hedge(delay=UNIT))

    response = await sending.client.get(URL)

    assert came_to(response) == [503, 200]
    assert len(sending.server.requests) == 2
    assert all("x-retry-attempt" not in request.headers for request in sending.server.requests)
    await sending.nothing_is_open()


async def test_a_timeout_after_a_hedge_was_sent_waits_for_that() -> None:
    policy = Retry(attempt_timeout=4 * UNIT, total=0)
    sending = Sending(NEVER, after(3), hedge=Hedge(delay=2 * UNIT), retry=policy)

    response = await sending.get()

    assert came_to(response) == [httpx.ReadTimeout, 200]


async def test_where_all_fail_it_is_tried_again() -> None:
    budget = RetryBudget(min_retries_per_sec=1)
    sending = Sending(
        after(2, 503), after(2, 500), after(0), hedge=Hedge(delay=UNIT), budget=budget
    )

    response = await sending.client.get(URL)

    assert came_to(response) == [503, 500, 200]
    retries = [request.headers.get("x-retry-attempt") for request in sending.server.requests]
    assert retries == [None, None, "1"]
    assert budget.balance(URL) == pytest.approx(10 + 0.2 - 2)
    await sending.nothing_is_open()


async def test_a_retry_is_hedged_too() -> None:
    sending = Sending(after(0, 503), NEVER, after(0), hedge=Hedge(delay=UNIT))

    response = await sending.get()

    assert response.status_code == 200
    assert sorted(map(str, came_to(response))) == ["200", "503", "None"]


async def test_where_all_fail_for_good_the_last_response_is_given() -> None:
    policy = Retry(total=0)
    sending = Sending(
        after(2, 503), after(2, 500), hedge=Hedge(delay=UNIT), retry=policy, ready=False
    )

    response = await sending.get()

    assert response.status_code == 500
    assert response.content == b"done"
    assert came_to(response) == [503, 500]
    assert response.extensions["loadshed"].stopped == "total"


async def test_an_exception_is_better_than_none_and_no_better_than_a_response() -> None:
    policy = Retry(total=0)
    sending = Sending(
        after(2, None),
        after(2, 500),
        hedge=Hedge(delay=UNIT),
        retry=policy,
    )

    response = await sending.get()

    assert response.status_code == 500
    assert came_to(response) == [httpx.RemoteProtocolError, 500]


@pytest.mark.parametrize("ready", [True, False])
async def test_the_body_belongs_to_the_race_where_it_is_read_at_once(ready: bool) -> None:
    answers = (Answer(pause=math.inf), after(0))
    sending = Sending(*answers, hedge=Hedge(delay=2 * UNIT), ready=ready)

    request = sending.client.build_request("GET", URL)
    response = await sending.client.send(request, stream=not ready)

    assert len(sending.server.requests) == (2 if ready else 1)
    await response.aclose()
    await sending.nothing_is_open()


async def test_a_streamed_answer_outlives_the_race() -> None:
    sending = Sending(NEVER, Answer(pause=2 * UNIT), hedge=Hedge(delay=UNIT), ready=False)

    async with sending.client.stream("GET", URL) as response:
        assert [part async for part in response.aiter_bytes(2)] == [b"do", b"ne"]

    await sending.nothing_is_open()


class Chunks:
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield b"chunk"


@pytest.mark.parametrize(
    ("hedged", "request_"),
    [
        (True, {"method": "GET"}),
        (True, {"method": "PUT", "content": b"bytes"}),
        (True, {"method": "POST", "headers": {"Idempotency-Key": "1"}}),
        (True, {"method": "POST", "extensions": {"retry": Retry(allowed_methods=None)}}),
        (False, {"method": "POST"}),
        (False, {"method": "PATCH", "content": b"bytes"}),
        (False, {"method": "PUT", "content": Chunks()}),
    ],
)
async def test_only_what_may_be_sent_twice_at_once_is_hedged(
    hedged: bool, request_: dict[str, Any]
) -> None:
    sending = Sending(after(2), NEVER, hedge=Hedge(delay=UNIT))

    response = await sending.client.request(url=URL, **request_)

    assert response.status_code == 200
    assert len(sending.server.requests) == 1 + hedged
    await sending.nothing_is_open()


async def test_a_hedge_has_the_time_that_is_left() -> None:
    policy = Retry(deadline=10 * UNIT)
    sending = Sending(NEVER, NEVER, hedge=Hedge(delay=4 * UNIT), retry=policy)

    with pytest.raises(httpx.ReadTimeout) as caught:
        await sending.client.get(URL)

    assert caught.value.request.extensions["loadshed"].stopped == "deadline"
    times = [
        float(request.headers["x-request-timeout-seconds"]) for request in sending.server.requests
    ]
    assert len(times) == 2
    assert times[0] <= 10 * UNIT
    assert times[1] <= 6 * UNIT + 0.001
    await sending.nothing_is_open()


async def test_no_hedge_begins_after_the_deadline() -> None:
    policy = Retry(deadline=2 * UNIT)
    sending = Sending(NEVER, hedge=Hedge(delay=60), retry=policy)

    with pytest.raises(httpx.ReadTimeout):
        await sending.client.get(URL)

    assert len(sending.server.requests) == 1
    await sending.nothing_is_open()


async def test_a_hedge_is_paid_for() -> None:
    budget = RetryBudget(min_retries_per_sec=0.1, percent_can_retry=0)
    sending = Sending(after(3), NEVER, NEVER, hedge=Hedge(delay=UNIT), budget=budget)
    events: list[Event] = []

    assert budget.balance(URL) == 1
    await sending.client.get(URL)
    assert budget.balance(URL) == 0

    sending = Sending(after(3), hedge=Hedge(delay=UNIT), budget=budget, on_event=events.append)
    assert came_to(await sending.get()) == [200]
    assert events == []


async def test_no_hedge_is_sent_where_the_breaker_is_open() -> None:
    breaker = CircuitBreaker(failure_ratio=1, minimum_throughput=1, break_duration=60)
    sending = Sending(after(0, 500), hedge=Hedge(delay=0), breaker=breaker, retry=Retry(total=0))
    await sending.client.get(URL)
    requests = len(sending.server.requests)

    with pytest.raises(CircuitOpenError):
        await sending.client.get(URL)

    assert len(sending.server.requests) == requests


@pytest.mark.parametrize("delay", [0, UNIT])
async def test_the_probe_of_a_breaker_is_not_hedged(delay: float) -> None:
    for _ in range(10):  # trio takes its tasks in any order
        breaker = CircuitBreaker(failure_ratio=1, minimum_throughput=1, break_duration=60)
        sending = Sending(
            Answer(500), hedge=Hedge(delay=delay), breaker=breaker, retry=Retry(total=0)
        )
        await sending.client.get(URL)
        assert breaker.state(URL) == "open"
        for each in breaker._breakers:
            each._blocked_until = 0.0  # it has been open for long
        sending.server.answers[:] = [after(2)]
        requests = len(sending.server.requests)

        response = await sending.client.get(URL)

        assert response.status_code == 200
        assert len(sending.server.requests) == requests + 1
        assert breaker.state(URL) == "closed"


async def test_a_hedge_is_told_of_before_it_is_sent() -> None:
    events: list[Event] = []
    sending = Sending(NEVER, after(0), hedge=Hedge(delay=UNIT), on_event=events.append)

    await sending.client.get(URL)

    assert [event.kind for event in events] == ["hedge", "stop"]
    assert events[0].attempt is None
    assert events[0].subject.url == URL


class HookError(Exception):
    pass


def raising(kind: str) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if event.kind == kind:
            raise HookError

    return on_event


@pytest.mark.parametrize("kind", ["hedge", "retry", "stop"])
async def test_what_a_hook_raises_comes_out_as_it_is(kind: str) -> None:
    answers = (after(2, 503), after(3, 503), after(0))
    sending = Sending(*answers, hedge=Hedge(delay=UNIT), on_event=raising(kind))

    with pytest.raises(HookError):
        await sending.client.get(URL)

    await sending.nothing_is_open()


async def test_what_a_predicate_raises_comes_out_as_it_is() -> None:
    def retry_on(_: Exception) -> bool:
        raise HookError

    answers = (after(2, None), NEVER)
    sending = Sending(*answers, hedge=Hedge(delay=UNIT), retry=Retry(retry_on=retry_on))

    with pytest.raises(HookError):
        await sending.client.get(URL)

    await sending.nothing_is_open()


class Stop(BaseException):
    pass


class Stopping(httpx.AsyncBaseTransport):
    """Answers nobody, and raises what is no Exception at the second request."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.requests = self.cancelled = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests == 2:
            await checkpoint()
            raise self.error
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled += 1
        raise AssertionError


async def test_what_is_no_exception_comes_out_as_it_is() -> None:
    inner = Stopping(Stop())
    client = AsyncClient(transport=inner, hedge=Hedge(delay=UNIT))
    with pytest.raises(Stop):
        await client.get(URL)
    assert (inner.requests, inner.cancelled) == (2, 1)


async def test_a_predicate_may_raise_what_is_no_exception() -> None:
    def retry_on(_: Exception) -> bool:
        raise Stop

    answers = (after(2, None), NEVER)
    sending = Sending(*answers, hedge=Hedge(delay=UNIT), retry=Retry(retry_on=retry_on))
    with pytest.raises(Stop):
        await sending.client.get(URL)
    await sending.nothing_is_open()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_of_the_transports_own_comes_out_too() -> None:
    inner = Stopping(asyncio.CancelledError())
    client = AsyncClient(transport=inner, hedge=Hedge(delay=UNIT))
    with anyio.fail_after(30), pytest.raises(asyncio.CancelledError):
        await client.get(URL)
    assert (inner.requests, inner.cancelled) == (2, 1)


async def test_what_is_not_tried_again_does_not_wait_for_the_hedge() -> None:
    policy = Retry(retry_on=httpx.ConnectError)
    sending = Sending(
        after(2, None),
        NEVER,
        hedge=Hedge(delay=UNIT),
        retry=policy,
    )

    with pytest.raises(httpx.RemoteProtocolError):
        await sending.client.get(URL)

    await sending.nothing_is_open()


async def test_a_slow_connection_is_hedged() -> None:
    sending = Sending(connects=[Connect(seconds=math.inf)], hedge=Hedge(delay=UNIT), ready=False)

    response = await sending.get()

    assert response.status_code == 200


# Answers in the same step


class Body(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"done"

    async def aclose(self) -> None:
        self.closed += 1
        await checkpoint()


class Together(httpx.AsyncBaseTransport):
    """A transport whose answers all come in one step."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.open = anyio.Event()
        self.arrived = 0
        self.bodies: list[Body] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.arrived += 1
        status = self.statuses.pop(0)
        if self.arrived == 2:
            self.open.set()
        await self.open.wait()
        self.bodies.append(Body())
        return httpx.Response(status, stream=self.bodies[-1])


@pytest.mark.parametrize("statuses", [(200, 200), (503, 200), (200, 503), (503, 503)])
async def test_of_two_answers_in_one_step_one_is_closed(statuses: tuple[int, int]) -> None:
    inner = Together(*statuses)
    transport = AsyncRetryTransport(inner, hedge=Hedge(delay=0), retry=Retry(total=0))

    response = await transport.handle_async_request(httpx.Request("GET", URL))

    assert sorted(body.closed for body in inner.bodies) == [0, 1]
    assert response.stream in [body for body in inner.bodies if not body.closed]
    assert (response.status_code == 200) == (200 in statuses)
    await response.aclose()
    assert [body.closed for body in inner.bodies] == [1, 1]


@pytest.mark.parametrize("statuses", [(200, 200), (503, 200), (503, 503)])
async def test_two_answers_in_one_step_are_closed_whoever_is_cancelled(
    statuses: tuple[int, int],
) -> None:
    n = 0
    cancelled = True
    while cancelled:
        n += 1
        inner = Together(*statuses)
        transport = AsyncRetryTransport(inner, hedge=Hedge(delay=0), retry=Retry(total=0))
        with anyio.CancelScope() as scope:
            sending = transport.handle_async_request(httpx.Request("GET", URL))
            response = await CancelAt(sending, n, scope.cancel)
            await response.aclose()
            await checkpoint()
        cancelled = scope.cancelled_caught

        assert all(body.closed for body in inner.bodies)
    assert n > 2


async def test_a_cancellation_from_without_reaches_all() -> None:
    sending = Sending(*[NEVER] * 4, hedge=Hedge(delay=UNIT, max_hedged_attempts=3))

    with anyio.move_on_after(6 * UNIT) as scope:
        await sending.client.get(URL)

    assert scope.cancelled_caught
    assert len(sending.server.requests) == 4
    await sending.nothing_is_open()


def test_threads_have_no_hedges() -> None:
    with pytest.raises(ConfigError, match="hedge must be None"):
        RetryTransport(hedge=Hedge())
