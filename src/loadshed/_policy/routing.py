"""Which replica takes the next request."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

DECAY = 10.0
"""Seconds in which the weight of what was seen falls to 1/e."""


class Latency:
    """How long a replica takes lately: a peak-EWMA, as Twitter's Finagle has it.

    A request that took longer than the average is believed at once, one that was quicker only by
    and by. So a replica that has become slow is avoided from its first slow answer on.
    (`twitter/finagle: finagle-core/src/main/scala/com/twitter/finagle/loadbalancer/PeakEwma.scala`)
    """

    __slots__ = ("_average", "_seen_at")

    def __init__(self) -> None:
        self._average: float | None = None
        self._seen_at = 0.0

    @property
    def seconds(self) -> float | None:
        """The average; None where nothing has been seen."""
        return self._average

    def observe(self, seconds: float, now: float) -> None:
        """A request took so long."""
        average = self._average
        if average is None or seconds >= average:
            self._average = seconds
        else:
            age = now - self._seen_at
            weight = math.exp(-age / DECAY) if age > 0 else 1.0
            self._average = average * weight + seconds * (1 - weight)
        self._seen_at = now

    def expected(self, now: float) -> float:
        """Seconds to reckon with in a choice: the average, which fades while nothing is seen.

        0 where nothing has been seen. As in Finagle, it fades to 0, or a replica that was slow once
        would never be chosen again while others are free, and never be seen to be quick.
        `seconds`, for people, does not fade: a replica that rests has not become quicker.
        """
        if self._average is None:
            return 0.0
        age = now - self._seen_at
        return self._average * math.exp(-age / DECAY) if age > 0 else self._average


class Candidate(Protocol):
    """What can take a request."""

    ongoing: int
    max_ongoing_requests: float
    latency: Latency


CandidateT = TypeVar("CandidateT", bound=Candidate)


def choose(
    candidates: Sequence[CandidateT], now: Callable[[], float], random: Callable[[], float]
) -> CandidateT | None:
    """The one that takes the next request; None where all are full.

    The power of two choices: of two that are drawn, the one with less to do. That is nearly as even
    as to compare all, and those who choose at the same time do not all choose the same
    (Mitzenmacher, "The power of two choices in randomized load balancing", 2001). Where both have
    as much to do, it is the one that was quicker lately; one of which nothing is known is tried
    first.

    Args:
        candidates: All of them.
        now: Reads the clock of their latencies.
        random: Draws a number from 0 to 1, without 1.
    """
    free = [each for each in candidates if each.ongoing < each.max_ongoing_requests]
    count = len(free)
    if count < 2:
        return free[0] if free else None
    first = int(random() * count)
    second = int(random() * (count - 1))
    if second >= first:
        second += 1
    one, other = free[first], free[second]
    if one.ongoing != other.ongoing:
        return one if one.ongoing < other.ongoing else other
    time = now()
    return one if one.latency.expected(time) <= other.latency.expected(time) else other
