"""The two applications that the demo serves."""

import asyncio
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from loadshed import ConcurrencyLimiter
from loadshed.asgi import LoadShedMiddleware

STATE = "/state"
"""Where the experiment's application tells how many requests are ongoing and queued."""


def slow_service(
    *, service_time: float, max_ongoing_requests: int, max_queued_requests: int
) -> Starlette:
    """The experiment's application: every request sleeps.

    Args:
        service_time: How long a request sleeps, in seconds.
        max_ongoing_requests: How many may do so at once.
        max_queued_requests: How many more may wait for their turn.
    """
    limiter = ConcurrencyLimiter(
        max_ongoing_requests=max_ongoing_requests, max_queued_requests=max_queued_requests
    )

    async def sleep(_: Request) -> Response:
        await asyncio.sleep(service_time)
        return PlainTextResponse("done\n")

    async def state(_: Request) -> Response:
        statistics = limiter.statistics()
        return JSONResponse({"ongoing": statistics.ongoing, "queued": statistics.queued})

    return Starlette(
        routes=[Route("/", sleep), Route(STATE, state)],
        middleware=[Middleware(LoadShedMiddleware, limiter=limiter, exempt=(STATE,))],
    )


def database_service(*, service_time: float, slots: int, protected: bool) -> Starlette:
    """The overload's application: every request needs one of a few database connections.

    Args:
        service_time: How long a request holds its connection, in seconds.
        slots: How many connections there are.
        protected: Whether the middleware stands in front; it lets `slots` requests in, and as
            many wait.
    """
    connections = asyncio.Semaphore(slots)

    async def query(_: Request) -> Response:
        async with connections:
            await asyncio.sleep(service_time)
        return PlainTextResponse("done\n")

    shedding = Middleware(LoadShedMiddleware, max_ongoing_requests=slots, max_queued_requests=slots)
    return Starlette(routes=[Route("/", query)], middleware=[shedding] if protected else [])


APPS: dict[str, Callable[..., Starlette]] = {
    "slow_service": slow_service,
    "database_service": database_service,
}
"""What a child process can be asked to serve."""
