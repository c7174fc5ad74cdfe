"""What a user would write, for mypy to check: nothing here runs."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, assert_type

import loadshed
from loadshed import (
    BackPressureError,
    BoundedQueue,
    ConcurrencyLimiter,
    Entry,
    LimiterStatistics,
    Permit,
    QueueStatistics,
    QueueTimeoutError,
)
from loadshed.asgi import LoadShedMiddleware, MiddlewareStatistics

limiter = ConcurrencyLimiter(2)
ConcurrencyLimiter(max_ongoing_requests=2, max_queued_requests=0, max_wait=0.5, name="db")
ConcurrencyLimiter(math.inf, math.inf)


@limiter
async def predict(x: int, *, scale: float = 1.0) -> str:
    return str(x * scale)


@limiter
async def numbers(n: int) -> AsyncGenerator[int, str]:
    for i in range(n):
        yield i


@limiter
async def letters() -> AsyncIterator[str]:
    yield "a"


class Model:
    @limiter
    async def predict(self, x: int) -> bytes:
        return bytes(x)


async def use_the_limiter() -> None:
    async with limiter as nothing:
        assert_type(nothing, None)
    permit = await limiter.acquire()
    assert_type(permit, Permit)
    assert_type(permit.released, bool)
    permit.release()
    with limiter.acquire_nowait() as same:
        assert_type(same, Permit)
    limiter.max_ongoing_requests = 4
    limiter.max_queued_requests = None
    limiter.max_wait = None
    seen = limiter.statistics()
    assert_type(seen, LimiterStatistics)
    assert_type(seen.shed["queue_full"], int)


async def use_what_it_decorates() -> None:
    coroutine: Coroutine[Any, Any, str] = predict(1, scale=2.0)
    assert_type(await coroutine, str)
    assert_type(await Model().predict(1), bytes)
    generator = numbers(3)
    assert_type(generator, AsyncGenerator[int, str])
    assert_type(await generator.asend("x"), int)
    async for letter in letters():
        assert_type(letter, str)
    await predict("1")  # type: ignore[arg-type]


async def use_the_queue() -> None:
    queue = BoundedQueue[str](10)
    entry = queue.put_nowait("x", expires_at=12.5)
    assert_type(entry, Entry[str])
    assert_type(queue.discard(entry), bool)
    assert_type(await queue.get(), str)
    assert_type(queue.get_nowait(), str)
    assert_type(queue.statistics(), QueueStatistics)
    assert_type(len(queue), int)


def use_the_errors(error: BackPressureError) -> None:
    assert_type(error.retry_after, int)
    assert_type(error.reason, str)
    assert_type(error.num_queued_requests, int)
    assert_type(error.max_queued_requests, float)
    if isinstance(error, QueueTimeoutError):
        assert_type(error.max_wait, float | None)
    BackPressureError(num_queued_requests=1, max_queued_requests=2, retry_after=3)
    assert_type(loadshed.__version__, str)


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def refuse(scope: Any, error: BackPressureError) -> None: ...


LoadShedMiddleware(app, max_ongoing_requests=8)
LoadShedMiddleware(
    app,
    limiter=limiter,
    websockets=limiter,
    request_timeout_s=30,
    exempt=lambda scope: scope["path"] == "/",
    on_shed=refuse,
    trust_deadline=True,
)
assert_type(LoadShedMiddleware(app, limiter=limiter).statistics(), MiddlewareStatistics)
assert_type(LoadShedMiddleware(app, limiter=limiter).statistics().deadlines, int)
