"""Steps: a number that changes at given times."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from random import Random


class Steps:
    """A number that is `first` from the start, and another from each change on.

    >>> slots = Steps(10, (60, 5), (150, 10))
    >>> slots.at(59.9), slots.at(60)
    (10, 5)

    Args:
        first: The number at time 0.
        changes: (time, number), the earliest first.
    """

    __slots__ = ("changes", "first")

    def __init__(self, first: float, *changes: tuple[float, float]) -> None:
        self.first = first
        self.changes = changes

    def at(self, time: float) -> float:
        """The number at this time."""
        index = bisect_right(self.changes, (time, math.inf))
        return self.changes[index - 1][1] if index else self.first

    def pieces(self) -> Iterator[tuple[float, float, float]]:
        """(from, to, number) for each; the last one ends never."""
        ends = [time for time, _ in self.changes] + [math.inf]
        for (start, number), end in zip([(0.0, self.first), *self.changes], ends, strict=True):
            yield start, end, number

    def times(self, factor: float) -> "Steps":
        """The same, each number multiplied."""
        changes = [(time, number * factor) for time, number in self.changes]
        return Steps(self.first * factor, *changes)


def bursts(low: float, high: float, *, on: float, off: float, until: float) -> Steps:
    """A load that is on and off by turns, for times that are exponential, in whole seconds.

    Args:
        low: The load while it is off.
        high: The load while it is on.
        on: How many seconds it is on, on average.
        off: How many seconds it is off, on average.
        until: When it has ended.
    """
    random, time = Random(1), 0  # noqa: S311
    changes: list[tuple[float, float]] = []
    while time < until:
        is_on = len(changes) % 2 == 1
        time += max(1, round(random.expovariate(1 / (on if is_on else off))))
        changes.append((time, low if is_on else high))
    return Steps(low, *changes)
