"""The one place where time is read."""

import asyncio
import time

import anyio

# `asyncio.get_running_loop` without the exception where there is none.
_running_loop = asyncio._get_running_loop


class Clock:
    """The time of the running event loop, as `anyio.current_time()` has it, and sooner.

    A test's virtual clock drives it, as it drives the loop. Where no loop runs (a permit released
    by a finalizer, say) it is `time.monotonic()`.

    An asyncio loop is remembered for as long as it runs, because asking which loop runs takes
    longer than asking it for the time (on Python 3.11, a system call). Whatever has a clock is
    used by one loop at a time, so the one that it remembers, if running, is the one.
    """

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def now(self) -> float:
        """Seconds, from an arbitrary point in the past."""
        loop = self._loop
        if loop is not None and loop.is_running():
            return loop.time()
        return self._look_up()

    def _look_up(self) -> float:
        self._loop = _running_loop()
        if self._loop is not None:
            return self._loop.time()
        try:
            return anyio.current_time()
        except Exception:  # noqa: BLE001 - no loop runs: anyio has a new type for that now and then
            return time.monotonic()
