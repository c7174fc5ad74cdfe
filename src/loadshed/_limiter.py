"""ConcurrencyLimiter: `Admission` for tasks of an event loop."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Hashable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

import anyio

from loadshed._around import around
from loadshed._blocks import Blocks
from loadshed._clock import Clock, FineClock
from loadshed._errors import ConfigError
from loadshed._guarded import unguarded
from loadshed._limits import A_LIMIT, limit_of, order_of, shares_of, standing_of
from loadshed._loop_turn import LoopTurn
from loadshed._outcome import was_of_use
from loadshed._permit import Held, Permit, TicketedPermit
from loadshed._policy.admission import Admission, Order
from loadshed._policy.criticality import Criticality
from loadshed._policy.deadline import Deadline
from loadshed._policy.limits.limit import Limit
from loadshed._policy.settings import positive_number, seconds, whole_number
from loadshed._policy.standing import USUAL, Standing
from loadshed._policy.ticket import State
from loadshed._sheds import Sheds
from loadshed._sleeper import Sleeper
from loadshed._statistics import Counts, LimiterStatistics
from loadshed._waiter import Waiter

P = ParamSpec("P")
R = TypeVar("R")
Y = TypeVar("Y")
S = TypeVar("S")

CRITICAL = Criticality.CRITICAL  # to look it up in its class takes longer than to ask for it


class ConcurrencyLimiter:
    """Bounds what runs and what waits for it; turns the rest away at once.

    Up to `max_ongoing_requests` callers hold a permit, up to `max_queued_requests` wait for one,
    and everybody else gets `QueueFullError`:

    ```python
    limiter = ConcurrencyLimiter()  # finds out by itself how many

    async with limiter:  # in a task
        ...

    @limiter  # around every call of an async function
    async def predict(x): ...
    ```

    A limiter can be made at import time, before there is an event loop, and serves asyncio and
    trio alike. It is meant for the tasks of one event loop at a time, not for several threads.
    Where a permit is free, taking it does not yield to the event loop and creates no task, no timer
    and no future; and nothing at all where the number is fixed and the order first in, first out.

    Args:
        max_ongoing_requests: How many run at once: a whole number >= 1, or `math.inf`; or a
            `Limit`, which finds the number by a rule. By default it is `KneeLimit()`.
        max_queued_requests: How many wait for their turn: a whole number >= 0 (0 sheds at once),
            or `math.inf`. By default it follows the limit: as many as run, so that a caller waits
            about as long as it is served; twice as many, and at least 10, where the order is
            "adaptive_lifo".
        max_wait: How many seconds a caller waits at most before it gets `QueueTimeoutError`. By
            default as long as it wants to.
        order: Who goes first. "fifo" is who came first. "adaptive_lifo" is the same until somebody
            has waited ever since for longer than a request usually takes: from then on it is who
            came last, and a newcomer takes the place of who came first, which gets `QueueFullError`
            with the reason "displaced". By default "fifo" with a number, else "adaptive_lifo".
        shares: The part of the limit that a class gets at least while it has work, by
            `Criticality`: above 0, together at most 1. It is rounded down to whole slots; for what
            is left a class gets a turn now and then. What it does not use is lent to others. By
            default none: the highest class first, and one of about twenty of a lower one that
            waits.
        max_tenants: How many tenants are told apart at most in a class: those that wait, or were
            the last to. Where more than that wait those that are too many take turns as one.
        tenant_share: The part of the queue that one tenant may take in a class, above 0, 1 at most.
        lowest: The least that the limit may be that is found where no number is given; 1.
        highest: The most; 10,000.
        name: What the limiter is called in the log and in its `repr`.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        max_ongoing_requests: float | Limit | None = None,
        max_queued_requests: float | None = None,
        *,
        max_wait: float | None = None,
        order: Order | None = None,
        shares: Mapping[Criticality, float] | None = None,
        max_tenants: int = 1000,
        tenant_share: float = 0.5,
        lowest: int | None = None,
        highest: float | None = None,
        name: str | None = None,
    ) -> None:
        limit = limit_of(max_ongoing_requests, lowest=lowest, highest=highest)
        self._max_queued = _queue_bound(max_queued_requests)
        self._admission: Admission[Waiter] = Admission(
            limit,
            self._max_queued,
            order=order_of(order, limit),
            shares=shares_of(shares),
            tenants=int(whole_number("max_tenants", max_tenants, at_least=1, infinite=False)),
            tenant_share=positive_number(
                "tenant_share", tenant_share, "a number above 0, and 1 at most", at_most=1
            ),
        )
        self._max_wait = seconds("max_wait", max_wait)
        self._name = name
        self._sheds = Sheds(name)
        self._blocks: Blocks[Waiter] = Blocks()
        # How long a request takes has to be told exactly; when it is over, in the loop's own time.
        self._clock = Clock() if self._admission.is_plain else FineClock()
        self._turn = LoopTurn(self._clock, self._end_turn)

    @property
    def name(self) -> str | None:
        """What the limiter is called."""
        return self._name

    @property
    def max_ongoing_requests(self) -> float:
        """How many run at once, as things stand.

        Setting it, to a number or a `Limit`, takes effect at once: more wakes waiters, fewer drains
        what runs. The order stays what it is.
        """
        return self._admission.limit

    @max_ongoing_requests.setter
    def max_ongoing_requests(self, value: float | Limit) -> None:
        if value is None:
            raise ConfigError("max_ongoing_requests", value, A_LIMIT)
        self._resize(limit_of(value), self._max_queued)

    @property
    def limit(self) -> Limit:
        """What finds `max_ongoing_requests`."""
        return unguarded(self._admission.rule)

    @property
    def max_queued_requests(self) -> float:
        """How many wait at most.

        Setting it takes effect for those who come; nobody who waits already is shed. None makes
        it follow `max_ongoing_requests` again.
        """
        return self._admission.line.bound

    @max_queued_requests.setter
    def max_queued_requests(self, value: float | None) -> None:
        self._resize(self._admission.rule, _queue_bound(value))

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
            ongoing=admission.permits,
            queued=len(admission.line),
            slots=admission.ongoing,
            max_ongoing_requests=admission.limit,
            max_queued_requests=admission.line.bound,
            limit_reason=admission.rule.reason,
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
        if admission.ongoing < admission.unticketed:
            admission.ongoing += 1
            return
        time = self._clock.now()
        if admission.turn_away(time):
            raise self._sheds.on_arrival(admission, time)
        waiter = self._join(time)
        if waiter.state is State.QUEUED:
            await self._wait(waiter)
        if not admission.is_plain:  # else it may be left with nobody looking for it
            self._blocks.entered(waiter)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        admission = self._admission
        if admission.watch:
            waiter = self._blocks.left()
            if admission.has_shares and not (waiter and waiter.counts_for_class):
                waiter = None  # what is found was another block's, and is released already
                admission.forget(CRITICAL)
            self._release(waiter, was_of_use(exc))
            return
        admission.ongoing -= 1
        admission.completed += 1

    # The options are not keyword-only: what Python takes for that is a quarter of a free permit.

    async def acquire(
        self,
        priority: Criticality | str = CRITICAL,
        tenant: Hashable = None,
        cost: int = 1,
    ) -> Permit:
        """Take a permit, waiting for it if need be.

        Args:
            priority: How much the request matters: a `Criticality`, or the name of one. Those of a
                higher class go first, and take the place of lower ones in a full queue.
            tenant: Whose request it is: anything hashable. Within a class tenants take turns,
                however many requests each of them has. None is one, like any other.
            cost: How many of `max_ongoing_requests` it takes: a whole number >= 1. One that costs
                more than there are takes all of them.

        Raises:
            QueueFullError: Too many wait already.
            QueueTimeoutError: `max_wait` passed.
            ConfigError: An argument is not what it may be.
        """
        if priority is not CRITICAL or tenant is not None or cost != 1:
            return await self._acquire_as(standing_of(priority, tenant, cost))
        admission = self._admission
        if admission.ongoing < admission.unticketed:
            admission.ongoing += 1
            return Permit(self)
        time = self._clock.now()
        if admission.turn_away(time):
            raise self._sheds.on_arrival(admission, time)
        waiter = self._join(time)
        if waiter.state is State.QUEUED:
            await self._wait(waiter)
        return TicketedPermit(self, waiter)

    async def _acquire_as(self, standing: Standing) -> Permit:
        waiter = self._join(self._clock.now(), None, standing)
        if waiter.state is State.QUEUED:
            await self._wait(waiter)
        return TicketedPermit(self, waiter)

    def acquire_nowait(
        self,
        priority: Criticality | str = CRITICAL,
        tenant: Hashable = None,
        cost: int = 1,
    ) -> Permit:
        """Take a permit if one is free, and never wait.

        Args:
            priority: As for `acquire`.
            tenant: As for `acquire`.
            cost: As for `acquire`.

        Raises:
            QueueFullError: None is free. It counts, and is logged, as a shed.
            ConfigError: An argument is not what it may be.
        """
        admission = self._admission
        if admission.is_plain and priority is CRITICAL and tenant is None and cost == 1:
            if self._enter():
                return Permit(self)
            admission.refuse("queue_full")
            raise self._sheds.on_arrival(admission, self._clock.now())
        standing = standing_of(priority, tenant, cost)
        time = self._clock.now()
        waiter = Waiter(time, None, None, standing)
        self._wake(admission.offer_nowait(waiter, time))
        if waiter.state is State.SHED:
            raise self._sheds.on_arrival(admission, time)
        return TicketedPermit(self, waiter)

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
        return around(self._around_call, function)

    def _around_call(self) -> AbstractAsyncContextManager[None]:
        """What a call enters: the limiter itself, or what holds the call's own permit."""
        return self if self._admission.is_plain else Held(self)

    # What follows is for the other modules of this package too.

    def _enter(self) -> bool:
        """Take a permit without a ticket, if one is free for that; `_release` gives it back."""
        admission = self._admission
        if admission.ongoing < admission.unticketed:
            admission.ongoing += 1
            return True
        return False

    def _has_room(self) -> bool:
        """Whether a request that comes now would be admitted."""
        admission = self._admission
        return admission.ongoing < admission.limit and not admission.line.entries

    def _deadline_in(self, seconds: float) -> Deadline:
        """The deadline of a request that has just come. Raises where that is now."""
        admission = self._admission
        time = self._clock.now()
        deadline = Deadline(time, seconds)
        if admission.turn_away_late(deadline.at, time):
            self._observe_arrival(time)
            raise self._sheds.on_arrival(admission, time, "deadline")
        return deadline

    def _queue_up(self, deadline: Deadline | None = None, standing: Standing = USUAL) -> Waiter:
        """Get a permit, or take a place in the queue; or raise.

        Where it is queued `_wait` follows; where it can't, `_abandon`.
        """
        time = self._clock.now()
        if standing is USUAL and self._admission.turn_away(time):
            raise self._sheds.on_arrival(self._admission, time)
        return self._join(time, deadline, standing)

    def _join(
        self, time: float, deadline: Deadline | None = None, standing: Standing = USUAL
    ) -> Waiter:
        """The rest of `_queue_up`, where nothing says at once that the queue is full."""
        admission = self._admission
        if admission.ongoing >= admission.limit:
            self._observe_arrival(time)
        if not admission.is_plain and self._turn.is_late(time):
            admission.close()
        waiter = Waiter(time, self._max_wait, deadline, standing)
        pace = 0 if deadline is None else self._sheds.retry_after.pace()
        settled = admission.offer(waiter, time, pace=pace)
        if waiter.state is State.QUEUED:
            waiter.sleeper = Sleeper()
        if settled:
            self._wake(settled)
        if waiter.reason is not None:  # late; or the place that seemed to be had by expiry is none
            raise self._sheds.on_arrival(admission, time, waiter.reason)
        return waiter

    def _end_turn(self) -> None:
        """The event loop's turn has ended: whoever was kept from making it longer may begin."""
        if self._admission.is_closed:
            self._wake(self._admission.open(self._clock.now()))

    def _observe_arrival(self, time: float) -> None:
        """Before the request changes anything: did those who are there already wait?"""
        admission = self._admission
        others_wait = len(admission.line) > 0
        self._sheds.retry_after.observe(time, admission.completed, busy=others_wait)

    async def _wait(self, waiter: Waiter) -> None:
        """Wait for the permit of `waiter`. Returns with it, or raises without it."""
        try:
            await self._until_settled(waiter)
            if waiter.state is State.ADMITTED and not self._admission.is_plain:
                has_time = await self._turn.until_there_is_time(
                    lambda: self._abandon(waiter), waiter.expires_at
                )
                if not has_time:
                    self._wake(self._admission.take_back(waiter, self._clock.now()))
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
            if waiter.reason == "displaced":
                raise self._sheds.on_arrival(self._admission, time, "displaced")
            raise self._sheds.from_queue(self._admission, time, waiter.reason, waiter.max_wait)

    async def _until_settled(self, waiter: Waiter) -> None:
        sleeper = waiter.sleeper
        assert sleeper is not None  # noqa: S101 - it is queued
        if waiter.max_wait is None:
            await sleeper.sleep()
            return
        with anyio.move_on_after(waiter.expires_at - self._clock.now()):
            await sleeper.sleep()
        if waiter.state is State.QUEUED:
            self._wake(self._admission.expire(max(self._clock.now(), waiter.expires_at)))

    def _abandon(self, waiter: Waiter) -> None:
        """Nobody waits for `waiter` any more, or wants the permit that it got."""
        self._wake(self._admission.abandon(waiter, self._clock.now()))

    def _release(self, waiter: Waiter | None = None, ok: bool | None = True) -> None:
        """A permit comes back: that of a ticket, or one without."""
        admission = self._admission
        if waiter is None and not admission.watch:
            admission.ongoing -= 1
            admission.completed += 1
            return
        time = self._clock.now()
        if admission.line.entries:
            self._sheds.retry_after.observe(time, admission.completed + 1, busy=True)
        if waiter is not None:
            settled = admission.release(waiter, time, ok)
        else:
            admission.leave()
            settled = admission.expire(time)
        if settled:
            self._wake(settled)

    def _wake(self, settled: list[Waiter]) -> None:
        for waiter in settled:
            sleeper = waiter.sleeper
            if sleeper is not None and not sleeper.wake():  # nobody is there: what it has goes on
                settled += self._admission.abandon(waiter, self._clock.now())

    def _dismiss(self, refusal: Callable[[], Exception]) -> None:
        """Turn away all that wait, each with an error of its own."""
        dismissed = self._admission.dismiss()
        for waiter in dismissed:
            waiter.refusal = refusal
        self._wake(dismissed)

    def _resize(
        self, limit: float | Limit, max_queued: float | None, order: Order | None = None
    ) -> None:
        self._max_queued = max_queued
        admission = self._admission
        self._wake(
            admission.resize(self._clock.now(), limit=limit, max_queued=max_queued, order=order)
        )
        self._choose_clock()

    def _arrange(
        self,
        *,
        order: Order,
        shares: Mapping[Criticality, float],
        max_tenants: int,
        tenant_share: float,
    ) -> None:
        """Set who goes first; these have been checked."""
        self._wake(
            self._admission.arrange(
                self._clock.now(),
                order=order,
                shares=shares,
                tenants=max_tenants,
                tenant_share=tenant_share,
            )
        )
        self._choose_clock()

    def _choose_clock(self) -> None:
        """A finer one from when it has to be told how long requests take."""
        if not (self._admission.is_plain or isinstance(self._clock, FineClock)):
            self._clock = FineClock()
            self._turn = LoopTurn(self._clock, self._end_turn)


def _queue_bound(value: object) -> float | None:
    if value is None:
        return None
    return whole_number("max_queued_requests", value, at_least=0)
