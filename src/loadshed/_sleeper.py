"""Sleeper: a task that sleeps until it is woken, on asyncio and trio."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import anyio


class Sleeper:
    """Made by the task that is going to sleep; woken by another task of the same event loop."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._loop = asyncio._get_running_loop()

    async def sleep(self) -> None:
        """Sleep until woken: at once, if that has happened already."""
        await self._event.wait()

    def wake(self) -> bool:
        """Wake the task up; False where its event loop was closed under it, so it never will.

        Raises:
            RuntimeError: This is not the thread of its event loop.
        """
        try:
            self._event.set()
        except RuntimeError:
            if self._loop is None or not self._loop.is_closed():
                raise
            return False
        return True


class FutureSleeper:
    """The same for asyncio alone, and faster: no event, and no turn of the loop more."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future = loop.create_future()

    def sleep(self) -> Awaitable[None]:
        """Sleep until woken: at once, if that has happened already."""
        return self._future

    def wake(self) -> bool:
        """Wake the task up; False where its event loop was closed under it, so it never will."""
        if self._future.done():
            return True
        try:
            self._future.set_result(None)
        except RuntimeError:
            return False
        return True


def sleepers() -> Callable[[], Sleeper | FutureSleeper]:
    """Makes the best ones for the event loop that runs."""
    if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
        return Sleeper
    # Kept: to ask for it takes a system call on Python 3.11.
    return partial(FutureSleeper, asyncio.get_running_loop())
