"""LoopTurn: no more begins in a turn of the event loop than it can bear."""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Any

from loadshed._clock import Clock
from loadshed._sleeper import Sleeper

LONGEST = 0.02
"""Seconds that a turn of the event loop may last before newcomers have to wait for the next. What
arrives then is answered some six turns later: it has to be read, to come to its limiter, to get a
permit and to be woken."""

DEAR = 0.001
"""Seconds that the requests of the turn must have taken on average. To let one wait, or to turn it
away, takes the loop a fifth of that: what takes less is out of the way soonest if it is served."""

AT_ONCE = 64
"""How many that wait for a turn are woken in each: to wake one takes time, too, and so dear as they
are there is no time for more than a third of them."""


class _Postponed:
    """One who waits for a turn to begin in."""

    __slots__ = ("lost", "sleeper")

    def __init__(self, lost: Callable[[], None]) -> None:
        self.lost = lost
        self.sleeper = Sleeper()


class LoopTurn:
    """The turn of the event loop that is on, from when the first request began in it.

    In a turn the loop lets each task run that can, until it waits. Requests whose handlers compute,
    and never wait, run one after the other, so no limit on how many run at once holds any of them
    up; and while they do, others arrive that nobody reads yet, for a still longer turn. So after
    some time in one turn no more may begin in it: they wait for the next, in order.

    There is no timer. Each turn in which a request comes schedules its own end, which the loop runs
    among the first of the next.

    Args:
        clock: Tells the time, and which loop runs.
        ended: Called at the end of each turn in which a request came.
    """

    __slots__ = (
        "_began",
        "_clock",
        "_count",
        "_ended",
        "_first_may_begin",
        "_loop",
        "_postponed",
    )

    def __init__(self, clock: Clock, ended: Callable[[], None]) -> None:
        self._clock = clock
        self._ended = ended
        self._began: float | None = None
        self._count = 0  # requests that began in it
        self._loop: Any = None
        self._postponed: OrderedDict[_Postponed, None] = OrderedDict()
        self._first_may_begin = False  # however late it is: one in each turn

    def is_late(self, now: float) -> bool:
        """Whether a request may not begin now, but has to wait; if it may, it does."""
        if self._is_long(now) or self._postponed:  # in this order: that sees whether they are dead
            return True
        self._count += 1
        return False

    async def until_there_is_time(
        self, lost: Callable[[], None], expires_at: float = math.inf
    ) -> bool:
        """Wait for a turn to begin in, behind those who do so already.

        Args:
            lost: Called if that turn never comes, as the loop was closed meanwhile.
            expires_at: The time from which on it is no use any more.

        Returns:
            Whether it came before that.
        """
        if not self.is_late(self._clock.now()):
            return True
        me = _Postponed(lost)
        self._postponed[me] = None
        try:
            while True:
                await me.sleeper.sleep()
                if me not in self._postponed:
                    return True  # another loop has run meanwhile, and did not wait for this
                if self._clock.now() >= expires_at:
                    return False
                if next(iter(self._postponed)) is me and self._has_time():
                    return True
                me.sleeper = Sleeper()  # in the same place
        finally:
            self._postponed.pop(me, None)

    def _has_time(self) -> bool:
        if self._first_may_begin or not self._is_long(self._clock.now()):
            self._first_may_begin = False
            self._count += 1
            return True
        return False

    def _is_long(self, now: float) -> bool:
        age = self._age(now)
        return age > LONGEST and age > DEAR * self._count

    def _age(self, now: float) -> float:
        """How many seconds it has lasted, at least."""
        loop: Any = self._clock.loop
        if loop is None:
            loop = _trio_token()
            if loop is None:
                return 0.0  # no loop runs: who drives this by hand has its own turns
        if self._began is None or loop is not self._loop:
            if self._postponed and loop is not self._loop:
                self._forget_those_of_another_loop()
            self._began, self._loop, self._count = now, loop, 0
            soon = loop.run_sync_soon if self._clock.loop is None else loop.call_soon
            soon(self._end, loop)
            return 0.0
        return now - self._began

    def _forget_those_of_another_loop(self) -> None:
        """They would hold up everybody here, and never begin if theirs was closed."""
        postponed, self._postponed = self._postponed, OrderedDict()
        for each in postponed:
            if not each.sleeper.wake():
                each.lost()

    def _end(self, loop: Any) -> None:
        if loop is not self._loop:
            return  # another one has begun since
        self._began = None
        self._first_may_begin = True
        for each in islice(self._postponed, AT_ONCE):
            each.sleeper.wake()
        if self._postponed:
            self._age(self._clock.now())  # so that this one ends, too, should none of them begin
        self._ended()


def _trio_token() -> Any:
    """What stands for trio's loop; None where it does not run."""
    if (trio := sys.modules.get("trio")) is None:
        return None
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
