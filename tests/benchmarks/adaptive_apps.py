"""The services of the benchmark of limits that nobody chose: each a uvicorn of its own.

It tells its port on its standard output, and ends when its standard input does.
"""

import asyncio
import json
import logging
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import loadshed
from loadshed.asgi import LoadShedMiddleware

CALIBRATIONS = 15


def burn(count: int) -> None:
    """Work that takes a processor, always the same for the same count."""
    number = 1
    for _ in range(count):
        number = number * 69069 % 4294967296


def calibrated(seconds: float) -> int:
    """How much work takes so long where nobody disturbs it."""
    count = 20_000
    times = []
    for _ in range(CALIBRATIONS):
        start = time.perf_counter()
        burn(count)
        times.append(time.perf_counter() - start)
    return round(count * seconds / min(times))


# What they do for a request.


def slots(number: int, seconds: float) -> Any:
    """A dependency that works on so many at once."""
    dependency = asyncio.Semaphore(number)
    chance = random.Random(1)  # noqa: S311

    async def serve(_: Request) -> Response:
        async with dependency:
            await asyncio.sleep(chance.expovariate(1 / seconds))
        return PlainTextResponse("done")

    return serve


def computing(count: int, awaiting: float = 0) -> Any:
    """It never awaits, unless told to, so that the event loop does nothing else meanwhile."""

    async def serve(_: Request) -> Response:
        burn(count)
        if awaiting:
            await asyncio.sleep(awaiting)
        return PlainTextResponse("done")

    return serve


def threads(number: int, seconds: float) -> Any:
    """It blocks one of so many threads."""

    def serve(_: Request) -> Response:
        if (limiter := _threads()).total_tokens != number:
            limiter.total_tokens = number
        time.sleep(seconds)
        return PlainTextResponse("done")

    return serve


def _threads() -> anyio.CapacityLimiter:
    return anyio.from_thread.run_sync(anyio.to_thread.current_default_thread_limiter)


def stepping(number: int, seconds: float, factor: int, after: float) -> Any:
    """A dependency that after a while takes longer by a factor, for so many more at once."""
    dependency = asyncio.Semaphore(number)
    chance = random.Random(1)  # noqa: S311
    steps_at = 0.0

    async def serve(_: Request) -> Response:
        nonlocal seconds, steps_at
        now = time.monotonic()
        steps_at = steps_at or now + after
        if now > steps_at:
            steps_at = float("inf")
            seconds *= factor
            for _more in range(number * (factor - 1)):
                dependency.release()
        async with dependency:
            await asyncio.sleep(chance.expovariate(1 / seconds))
        return PlainTextResponse("done")

    return serve


SERVICES: dict[str, Callable[..., Any]] = {
    "slots": slots,
    "computing": computing,
    "threads": threads,
    "stepping": stepping,
}

RULES = ["VegasLimit", "Gradient2Limit"]


def shedding(limit: str | int | None) -> list[Middleware]:
    """The middleware with a number, a rule, or, as most will have it, nothing said."""
    if limit == "none":
        return []
    given = getattr(loadshed, limit)() if isinstance(limit, str) else limit
    return [Middleware(LoadShedMiddleware, max_ongoing_requests=given)]


def app(service: str, settings: dict[str, Any], limit: str | int | None) -> Any:
    return Starlette(routes=[Route("/", SERVICES[service](**settings))], middleware=shedding(limit))


def serve(made: Any, loop: Any = "uvloop") -> None:
    logging.getLogger("loadshed").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        made,
        loop=loop,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="critical",
        timeout_graceful_shutdown=0,
    )
    server = uvicorn.Server(config)

    def end_with_parent() -> None:
        os.read(0, 1)
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    # With the protocol named, as asyncio looks at it before it turns Nagle's algorithm off.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        print(listener.getsockname()[1], flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    serve(app(*json.loads(sys.argv[1])))
