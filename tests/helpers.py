"""What several test modules need."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint

T = TypeVar("T")


class CancelAt(Awaitable[T]):
    """Awaits a coroutine, and calls `cancel` at its n-th wait for the event loop (from 1)."""

    def __init__(self, awaitable: Awaitable[T], n: int, cancel: Callable[[], object]) -> None:
        self.awaitable = awaitable
        self.n = n
        self.cancel = cancel
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self.awaitable.__await__()
        step: Callable[[], Any] = lambda: next(inner)  # noqa: E731
        while True:
            try:
                trap = step()
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            self.waits += 1
            if self.waits == self.n:
                self.cancel()
            try:
                value = yield trap
            except BaseException as error:  # noqa: BLE001
                step = _thrower(inner, error)
            else:
                step = _sender(inner, value)


def _sender(inner: Generator[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: inner.send(value)


def _thrower(inner: Generator[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: inner.throw(error)


async def settle() -> None:
    """Let every other task run until all of them wait."""
    for _ in range(10):  # on asyncio, anyio looks ten times a second: mostly once is enough then
        await checkpoint()
    await anyio.wait_all_tasks_blocked()
