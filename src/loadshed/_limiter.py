"""ConcurrencyLimiter: `Admission` for tasks of an event loop."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
)
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

import anyio

from loadshed._around import around
from loadshed._clock import Clock
from loadshed._policy.admission import Admission, State
from loadshed._policy.deadline import Deadline
from loadshed._policy.settings import seconds, whole_number
from loadshed._sheds import Sheds
from loadshed._statistics import Counts, LimiterStatistics
from loadshed._waiter import Waiter

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")
S = TypeVar("S")


class ConcurrencyLimiter:
    """Bounds what runs and what waits for it; turns the rest away at once.

    Up to `max_ongoing_requests` callers hold a permit, up to `max_queued_requests` wait in the
    order in which they came, and everybody else gets `QueueFullError`:

    ```python
    limiter = ConcurrencyLimiter(max_ongoing_requests=8)

    async with limiter:  # in a task
        ...

    @limiter  # around every call of an async function
    async def predict(x): ...
    ```

    A limiter can be made at import time, before there is an event loop, and serves asyncio and
    trio alike. It is meant for the tasks of one event loop at a time, not for several threads.
    Where a permit is free, taking it does not yield to the event loop and creates nothing: no
    task, no timer, no future.

    Args:
        max_ongoing_requests: How many run at once: a whole number >= 1, or `math.inf`.
        max_queued_requests: How many wait for their turn: a whole number >= 0 (0 sheds at once),
            or `math.inf`. By default as many as run, whatever that is set to later: a caller then
            waits about as long as it is served.
        max_wait: How many seconds a caller waits at most before it gets `QueueTimeoutError`. By
            default as long as it wants to.
        name: What the limiter is called in the log and in its `repr`.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        max_ongoing_requests: float,
        max_queued_requests: float | None = None,
        *,
        max_wait: float | None = None,
        name: str | None = None,
    ) -> None:
        limit = whole_number("max_ongoing_requests", max_ongoing_requests, at_least=1)
        self._max_queued = _queue_bound(max_queued_requests)
        self._admission: Admission[Waiter] = Admission(
            limit, limit if self._max_queued is None else self._max_queued
        )
        self._max_wait = seconds("max_wait", max_wait)
        self._name = name
        self._sheds = Sheds(name)
        self._clock = Clock()

    @property
    def name(self) -> str | None:
        """What the limiter is called."""
        return self._name

    @property
    def max_ongoing_requests(self) -> float:
        """How many run at once.

        Setting it takes effect at once: more wakes waiters, fewer drains what runs.
        """
        return self._admission.limit

    @max_ongoing_requests.setter
    def max_ongoing_requests(self, value: float) -> None:
        limit = whole_number("max_ongoing_requests", value, at_least=1)
        self._resize(limit, self._max_queued)

    @property
    def max_queued_requests(self) -> float:
        """How many wait at most.

        Setting it takes effect for those who come; nobody who waits already is shed. None makes
        it follow `max_ongoing_requests` again.
        """
        return self._admission.line.bound

    @max_queued_requests.setter
    def max_queued_requests(self, value: float | None) -> None:
        self._resize(self._admission.limit, _queue_bound(value))

    @property
    def max_wait(self) -> float | None:
        """How many seconds a caller waits at most; setting it is for those who come."""
        return self._max_wait

    @max_wait.setter
    def max_wait(self, value: float | None) -> None:
        self._max_wait = seconds("max_wait", value)

    def statistics(self) -> LimiterStatistics:
        """What happened so far and what is going on: a snapshot."""
        admission = self._admission
        return LimiterStatistics(
            ongoing=admission.ongoing,
            queued=len(admission.line),
            max_ongoing_requests=admission.limit,
            max_queued_requests=admission.line.bound,
            admitted=admission.admitted,
            completed=admission.completed,
            shed=Counts({why: n for why, n in admission.shed.items() if n}),
            abandoned=admission.abandoned,
        )

    def __repr__(self) -> str:
        admission = self._admission
        name = "" if self._name is None else f" {self._name!r}"
        return (
            f"<{type(self).__name__}{name} ongoing={admission.ongoing}/{admission.limit} "
            f"queued={len(admission.line)}/{admission.line.bound}>"
        )

    # Taking a free permit and giving it back are `Admission.enter` and `leave` written out, in this
    # class alone: a method call more on each side costs as much as all that they do. `_queue_up`
    # is written out for the same reason: each frame that an error passes is a tenth of its cost.

    async def __aenter__(self) -> None:
        admission = self._admission
        if admission.ongoing < admission.limit:
            admission.ongoing += 1
            return
        time = self._clock.now()
        if admission.turn_away(time):
            raise self._sheds.on_arrival(admission, time)
        await self._wait(self._join(time))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        admission = self._admission
        admission.ongoing -= 1
        admission.completed += 1
        if admission.line.entries:
            self._settle()

    async def acquire(self) -> "Permit":
        """Take a permit, waiting for it if need be.

        Raises:
            QueueFullError: Too many wait already.
            QueueTimeoutError: `max_wait` passed.
        """
        admission = self._admission
        if admission.ongoing < admission.limit:
            admission.ongoing += 1
            return Permit(self)
        time = self._clock.now()
        if admission.turn_away(time):
            raise self._sheds.on_arrival(admission, time)
        await self._wait(self._join(time))
        return Permit(self)

    def acquire_nowait(self) -> "Permit":
        """Take a permit if one is free, and never wait.

        Raises:
            QueueFullError: None is free. It counts, and is logged, as a shed.
        """
        if not self._enter():
            self._admission.refuse("queue_full")
            raise self._sheds.on_arrival(self._admission, self._clock.now())
        return Permit(self)

    @overload
    def __call__(
        self, function: Callable[P, AsyncGenerator[Y, S]], /
    ) -> Callable[P, AsyncGenerator[Y, S]]: ...
    @overload
    def __call__(
        self, function: Callable[P, AsyncIterator[Y]], /
    ) -> Callable[P, AsyncIterator[Y]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Awaitable[R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...

    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """Make every call of an async function, or of an async generator, hold a permit.

        A generator takes it when its first item is asked for and holds it until it ends or is
        closed; a consumer that may leave early closes it (`contextlib.aclosing`).

        Raises:
            TypeError: The function is not async.
        """
        return around(self, function)

    # What follows is for the other modules of this package too.

    def _enter(self) -> bool:
        """Take a permit if one is free; `_release` gives it back."""
        admission = self._admission
        if admission.ongoing < admission.limit:
            admission.ongoing += 1
            return True
        return False

    def _has_room(self) -> bool:
        """Whether `_enter` would succeed."""
        return self._admission.ongoing < self._admission.limit

    def _deadline_in(self, seconds: float) -> Deadline:
        """The deadline of a request that has just come. Raises where that is now."""
        admission = self._admission
        time = self._clock.now()
        deadline = Deadline(time, seconds)
        if admission.turn_away_late(deadline.at, time):
            self._observe_arrival(time)
            raise self._sheds.on_arrival(admission, time, "deadline")
        return deadline

    def _queue_up(self, deadline: Deadline | None = None) -> Waiter:
        """Take a place in the queue, or raise. `_wait` follows; where it can't, `_abandon`."""
        time = self._clock.now()
        if self._admission.turn_away(time):
            raise self._sheds.on_arrival(self._admission, time)
        return self._join(time, deadline)

    def _join(self, time: float, deadline: Deadline | None = None) -> Waiter:
        """The rest of `_queue_up`, where nothing says at once that the queue is full."""
        admission = self._admission
        self._observe_arrival(time)
        waiter = Waiter(time, self._max_wait, deadline)
        pace = 0 if deadline is None else self._sheds.retry_after.pace()
        self._wake(admission.offer(waiter, time, pace=pace))
        if waiter.reason is not None:  # late; or the place that seemed to be had by expiry is none
            raise self._sheds.on_arrival(admission, time, waiter.reason)
        return waiter

    def _observe_arrival(self, time: float) -> None:
        """Before the request changes anything: did those who are there already wait?"""
        admission = self._admission
        others_wait = len(admission.line) > 0
        self._sheds.retry_after.observe(time, admission.completed, busy=others_wait)

    async def _wait(self, waiter: Waiter) -> None:
        """Wait for the permit of `waiter`. Returns with it, or raises without it."""
        try:
            await self._until_settled(waiter)
        except BaseException:
            # Perhaps it was granted in this very step: then the permit goes to the next.
            self._abandon(waiter)
            raise
        self._raise_if_expired(waiter)

    def _claim(self, waiter: Waiter) -> None:
        """Use the permit that `_wait` returned with, or raise where the deadline has passed since.

        Between the grant and this other tasks ran, for as long as they liked.
        """
        self._wake(self._admission.claim(waiter, self._clock.now()))
        self._raise_if_expired(waiter)

    def _raise_if_expired(self, waiter: Waiter) -> None:
        if waiter.reason is not None:
            if waiter.refusal is not None:
                raise waiter.refusal()
            time = self._clock.now()
            raise self._sheds.from_queue(self._admission, time, waiter.reason, waiter.max_wait)

    async def _until_settled(self, waiter: Waiter) -> None:
        if waiter.max_wait is None:
            await waiter.sleeper.sleep()
            return
        with anyio.move_on_after(waiter.expires_at - self._clock.now()):
            await waiter.sleeper.sleep()
        if waiter.state is State.QUEUED:
            self._wake(self._admission.expire(max(self._clock.now(), waiter.expires_at)))

    def _abandon(self, waiter: Waiter) -> None:
        """Nobody waits for `waiter` any more, or wants the permit that it got."""
        self._wake(self._admission.abandon(waiter, self._clock.now()))

    def _release(self) -> None:
        admission = self._admission
        admission.ongoing -= 1
        admission.completed += 1
        if admission.line.entries:
            self._settle()

    def _settle(self) -> None:
        """A permit came back and somebody waits for it."""
        time = self._clock.now()
        self._sheds.retry_after.observe(time, self._admission.completed, busy=True)
        self._wake(self._admission.expire(time))

    def _wake(self, settled: list[Waiter]) -> None:
        for waiter in settled:
            if not waiter.sleeper.wake():  # nobody is there: what it has goes to the next
                settled += self._admission.abandon(waiter, self._clock.now())

    def _dismiss(self, refusal: Callable[[], Exception]) -> None:
        """Turn away all that wait, each with an error of its own."""
        dismissed = self._admission.dismiss()
        for waiter in dismissed:
            waiter.refusal = refusal
        self._wake(dismissed)

    def _resize(self, limit: float, max_queued: float | None) -> None:
        self._max_queued = max_queued
        bound = limit if max_queued is None else max_queued
        self._wake(self._admission.resize(self._clock.now(), limit=limit, max_queued=bound))


class Permit:
    """The right to run one request, until it is released.

    ```python
    permit = await limiter.acquire()
    try:
        ...
    finally:
        permit.release()
    ```

    or, which is the same, `with await limiter.acquire(): ...`.
    """

    __slots__ = ("_limiter", "_released")

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self._limiter = limiter
        self._released = False

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._released

    def release(self) -> None:
        """Give it back. Never waits; more than once is as good as once."""
        if not self._released:
            self._released = True
            self._limiter._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "released" if self._released else "held"
        return f"<{type(self).__name__} {state} of {self._limiter!r}>"


def _queue_bound(value: object) -> float | None:
    if value is None:
        return None
    return whole_number("max_queued_requests", value, at_least=0)
