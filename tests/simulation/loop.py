"""The loop: virtual time, and what happens in it, one event after the other."""

import heapq
from collections.abc import Callable
from typing import Any

Action = Callable[[float, Any], None]
"""What happens at a time: it is told the time, and what it is about."""


class Loop:
    """A heap of events. One that is due at the same time as another happens in turn.

    Attributes:
        count: How many events have happened.
    """

    __slots__ = ("_events", "_serial", "count")

    def __init__(self) -> None:
        self._events: list[tuple[float, int, Action, Any]] = []
        self._serial = 0
        self.count = 0

    def at(self, time: float, action: Action, about: Any = None) -> None:
        """Let `action(time, about)` happen."""
        self._serial += 1
        heapq.heappush(self._events, (time, self._serial, action, about))

    def run(self, until: float) -> None:
        """Let everything happen that is due before this time."""
        events, pop = self._events, heapq.heappop
        before = self._serial - len(events)
        while events and events[0][0] < until:
            time, _, action, about = pop(events)
            action(time, about)
        self.count += self._serial - len(events) - before
