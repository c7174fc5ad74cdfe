"""A circuit breaker: while a service fails, it is left alone."""

import math
from enum import Enum

from loadshed._policy.window import Window

BLOCKED = 0
"""What a request gets that may not pass."""


class Circuit(Enum):
    """The states of a breaker."""

    CLOSED = "closed"
    """Requests pass, and are counted."""
    OPEN = "open"
    """None passes until `break_duration` is over."""
    HALF_OPEN = "half_open"
    """One is let through to see whether it works again; it decides."""


class Breaker:
    """Polly's: it opens on the ratio of failures in the last `sampling_duration` seconds.

    A request that may pass gets a number, and gives it back with its outcome. The number says
    in which state it passed, so that what was sent before the breaker opened can't close it.

    >>> breaker = Breaker(failure_ratio=0.5, minimum_throughput=2, sampling_duration=30,
    ...                   break_duration=5)
    >>> for _ in range(2):
    ...     breaker.leave(breaker.enter(now=0.0), now=0.0, failed=True)
    >>> breaker.enter(now=1.0) == BLOCKED, breaker.state(now=1.0)
    (True, <Circuit.OPEN: 'open'>)
    >>> [breaker.enter(now=5.0) != BLOCKED for _ in range(2)]
    [True, False]

    Args:
        failure_ratio: The part of the requests that has to fail before it opens.
        minimum_throughput: How many requests there have to be before the ratio counts.
        sampling_duration: Seconds for which a request counts.
        break_duration: Seconds for which it stays open, and after which one that was let through
            is given up, and another one is.
    """

    __slots__ = (
        "_blocked_until",
        "_break_duration",
        "_failures",
        "_minimum",
        "_passed",
        "_probing",
        "_ratio",
        "_sampling",
        "_state",
    )

    def __init__(
        self,
        failure_ratio: float,
        minimum_throughput: float,
        sampling_duration: float,
        break_duration: float,
    ) -> None:
        self._ratio = failure_ratio
        self._minimum = minimum_throughput
        self._sampling = sampling_duration
        self._break_duration = break_duration
        self._passed = Window(sampling_duration)
        self._failures = Window(sampling_duration)
        self._blocked_until = -math.inf  # so that it is closed
        self._probing = False
        self._state = 1  # a new number with every change

    def state(self, now: float) -> Circuit:
        """Where it stands."""
        if self._blocked_until == -math.inf:
            return Circuit.CLOSED
        blocked = now < self._blocked_until and not self._probing
        return Circuit.OPEN if blocked else Circuit.HALF_OPEN

    def blocked_for(self, now: float) -> float:
        """Seconds until a request may pass, unless it closes before; 0 if one may now."""
        return max(0.0, self._blocked_until - now)

    def enter(self, now: float) -> int:
        """A request wants to pass: a number for `leave` or `forget`, or `BLOCKED`."""
        if self._blocked_until != -math.inf:
            if now < self._blocked_until:
                return BLOCKED
            self._probing = True
            self._change(blocked_until=now + self._break_duration)
        return self._state

    def leave(self, state: int, now: float, *, failed: bool) -> None:
        """A request that had passed is over."""
        if state != self._state:
            return  # it passed long ago, and says nothing of what is now
        if self._probing:
            self._probing = False
            if failed:
                self._change(blocked_until=now + self._break_duration)
            else:
                self._passed, self._failures = Window(self._sampling), Window(self._sampling)
                self._change(blocked_until=-math.inf)
            return
        self._passed.add(now)
        if failed:
            self._failures.add(now)
            passed = self._passed.total(now)
            # Divided, as 0.55 * 100 is more than 55.
            if passed >= self._minimum and self._failures.total(now) / passed >= self._ratio:
                self._change(blocked_until=now + self._break_duration)

    def forget(self, state: int, now: float) -> None:
        """A request that had passed came to nothing, a cancelled one say: the next may try."""
        if state == self._state and self._probing:
            self._probing = False
            self._change(blocked_until=now)

    def _change(self, *, blocked_until: float) -> None:
        self._blocked_until = blocked_until
        self._state += 1
