"""The one place where time is read."""

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    import anyio


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

    @property
    def loop(self) -> "asyncio.AbstractEventLoop | None":
        """The asyncio loop by which it has just told the time; None where that was no such loop."""
        return self._loop

    def now(self) -> float:
        """Seconds, from an arbitrary point in the past."""
        loop = self._loop
        if loop is not None and loop.is_running():
            return loop.time()
        return self._look_up()

    def _look_up(self) -> float:
        # What nobody has imported does not run; a client that is not async needs neither of them.
        if (asyncio := sys.modules.get("asyncio")) is not None:
            self._loop = asyncio._get_running_loop()  # None where there is none
            if self._loop is not None:
                return self._loop.time()
        if (anyio := sys.modules.get("anyio")) is None:
            return thread_time()
        try:
            now: float = anyio.current_time()
        except Exception:  # noqa: BLE001 - no loop runs: anyio has a new type for that now and then
            return thread_time()
        return self._of_another_loop(now)

    def _of_another_loop(self, current_time: float) -> float:
        return current_time


class FineClock(Clock):
    """A clock for what may take less than a millisecond, which is all that uvloop's time can tell.

    What it says is compared with what itself, or another one of its kind, has said before.
    """

    __slots__ = ("_time",)

    def __init__(self) -> None:
        super().__init__()
        self._time = thread_time

    def now(self) -> float:
        loop = self._loop
        if loop is not None and loop.is_running():
            return self._time()
        now = super().now()
        if self._loop is None:
            return now
        is_coarse = type(self._loop).__module__.partition(".")[0] == "uvloop"
        self._time = thread_time if is_coarse else self._loop.time
        return self._time()


_kept: dict[str, Any] = {}
"""What is made once, when it is needed: the variable with a loop's lead, and the class that
`anyio.CancelScope` makes where asyncio runs."""


class SharedClock(Clock):
    """A clock for what threads and event loops share: `time.monotonic()` in all of them.

    asyncio and uvloop count from there anyway. trio counts from elsewhere; here its time begins
    where the thread's was when it was first asked, and goes on at trio's pace, which in a test is
    that of a virtual clock.
    """

    __slots__ = ()

    def move_on_after(self, seconds: float) -> "anyio.CancelScope":
        """A cancel scope that ends by then: anyio's, for two thirds of what that costs.

        anyio looks up in each call which library runs; here that is known.
        """
        loop = self._loop
        if loop is None or not loop.is_running():
            return sys.modules["anyio"].move_on_after(seconds)  # type: ignore[no-any-return]
        if "scope" not in _kept:
            _kept["scope"] = type(sys.modules["anyio"].CancelScope())
        return _kept["scope"](deadline=loop.time() + seconds)  # type: ignore[no-any-return]

    def _of_another_loop(self, current_time: float) -> float:
        if "lead" not in _kept:
            lowlevel = importlib.import_module("anyio.lowlevel")
            _kept["lead"] = lowlevel.RunVar("loadshed.lead")
        try:
            return current_time + _kept["lead"].get()  # type: ignore[no-any-return]
        except LookupError:
            lead = thread_time() - current_time
            _kept["lead"].set(lead)
            return current_time + lead


# What follows is for code that is not async, and is called as this module's attribute, where a test
# can put a virtual clock.

thread_time = time.monotonic


def thread_sleep(seconds: float) -> None:
    """Let the thread wait."""
    time.sleep(seconds)


def wall_time() -> float:
    """Seconds since 1970, for what others say in dates."""
    return time.time()
