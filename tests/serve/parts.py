"""Deployments that other processes import, and what makes them."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from loadshed.serve import deployment


@deployment
class Model:
    """Multiplies."""

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x


@deployment(name="other", max_ongoing_requests=2)
def double(x: int) -> int:
    return 2 * x


class Plain:
    """No deployment."""

    class Inner:
        """One in another."""


Bound = Model.bind(3)  # type: ignore[attr-defined]
renamed = Model.options(name="Renamed", num_replicas=2)  # type: ignore[attr-defined]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"from asgi"})


class Application:
    """An ASGI application that is an object."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope, receive, send)


application = Application()


def build() -> Any:
    return Model.bind(4)  # type: ignore[attr-defined]


def build_with(args: dict[str, Any]) -> Any:
    return Model.bind(args.get("factor", 5))  # type: ignore[attr-defined]


def build_asgi() -> Any:
    return application


def build_nonsense() -> int:
    return 3


number = 3


@deployment
class Reconfigurable:
    def reconfigure(self, config: Any) -> None:
        self.config = config


@deployment
class Silent:
    """It can't be called."""


def items() -> Iterator[str]:
    yield from ("a", "b")


async def items_async() -> AsyncIterator[bytes]:
    for each in (b"c", b"d"):
        await asyncio.sleep(0)
        yield each


def pid() -> int:
    return os.getpid()
