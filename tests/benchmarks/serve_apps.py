"""What the benchmark of `loadshed run` has served: by it, by Ray Serve, and by a bare uvicorn.

It imports neither of them, so that a replica holds no more than what serves it needs.
"""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadshed.serve import Application

NAP = 0.05
REPLICAS = 2


class Hello:
    async def __call__(self, request: Any) -> str:
        return "hello"


class Nap:
    async def __call__(self, request: Any) -> str:
        await asyncio.sleep(NAP)
        return "rested"


SETTINGS: dict[type, dict[str, Any]] = {
    Hello: {"max_ongoing_requests": 100, "max_queued_requests": 1000},
    Nap: {"max_ongoing_requests": 2, "max_queued_requests": 8},
}
"""Of their deployments, on each engine."""

CAPACITY = REPLICAS * SETTINGS[Nap]["max_ongoing_requests"] / NAP
"""How many requests a second the naps can serve at most."""


def hello() -> "Application":
    """What `loadshed run` serves."""
    return _bound(Hello)


def nap() -> "Application":
    """What `loadshed run` serves."""
    return _bound(Nap)


def _bound(code: type) -> "Application":
    from loadshed.serve import deployment  # noqa: PLC0415

    return deployment(**SETTINGS[code])(code).bind()


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """What uvicorn serves: an ASGI application that does as little as it can."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})
