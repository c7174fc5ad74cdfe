"""Expiries: whose time comes first."""

import heapq
import math
from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar


class Expiring(Protocol):
    """What can stand in a line: it says until when it is worth waiting for."""

    expires_at: float


EntryT = TypeVar("EntryT", bound=Expiring)


class Expiries(Generic[EntryT]):
    """A heap of when the entries of a line expire.

    To add one costs O(log n), one that never expires (`math.inf`) nothing. Whoever leaves the line
    is not looked for: it stays in the heap until it is reached, or until the dead outnumber the
    living.

    Args:
        entries: Those in the line, by `id`.

    Attributes:
        heap: (expires_at, serial number, key in `entries`); the key alone, as an entry may be
            large.
    """

    __slots__ = ("_entries", "_serial", "heap")

    def __init__(self, entries: Mapping[int, EntryT]) -> None:
        self._entries = entries
        self._serial = 0
        self.heap: list[tuple[float, int, int]] = []

    @property
    def next(self) -> float:
        """No entry expires before this time; `math.inf` where none ever will."""
        return self.heap[0][0] if self.heap else math.inf

    def add(self, entry: EntryT) -> None:
        """It has come into the line."""
        if entry.expires_at < math.inf:
            self._serial += 1
            heapq.heappush(self.heap, (entry.expires_at, self._serial, id(entry)))

    def due(self, now: float) -> EntryT | None:
        """The first whose time has come, which has to be taken out of the line; None: no more."""
        while self.heap and self.heap[0][0] <= now:
            *_, key = heapq.heappop(self.heap)
            # The key of one who left may be another's by now.
            entry = self._entries.get(key)
            if entry is not None and entry.expires_at <= now:
                return entry
        return None

    def forget_the_dead(self) -> None:
        """Keep the heap at most twice as long as the line: O(1), spread over who left."""
        if len(self.heap) > 2 * len(self._entries) + 16:
            mortal = [
                (key, entry.expires_at)
                for key, entry in self._entries.items()
                if entry.expires_at < math.inf
            ]
            self.heap = [(time, serial, key) for serial, (key, time) in enumerate(mortal)]
            heapq.heapify(self.heap)
