"""The waiting line: bounded, first in first out, every entry removable in one step."""

import heapq
import math
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Expiring(Protocol):
    """What can stand in a line: it says until when it is worth waiting for."""

    expires_at: float


EntryT = TypeVar("EntryT", bound=Expiring)


class WaitingLine(Generic[EntryT]):
    """A bounded line of entries, oldest first.

    Append, pop and discard take the same time however long the line is; an entry that expires
    costs O(log n) more, one that never does (`math.inf`) nothing. Entries are told apart by
    identity, so they need be neither equal nor hashable by value.

    Args:
        bound: How many may wait. It is not enforced by `append`: whoever appends asks `is_full`
            first, and decides what follows.

    Attributes:
        entries: Those who wait, oldest first.
        expiries: A heap of (expires_at, serial number, key in `entries`). The key of who leaves
            otherwise stays in it until it is reached, or until the dead outnumber the living; the
            key alone, as an entry may be large.
    """

    __slots__ = ("_serial", "bound", "entries", "expiries")

    def __init__(self, bound: float) -> None:
        self.bound = bound
        # An OrderedDict, not a dict: taking the first of a dict walks over all that left before.
        self.entries: OrderedDict[int, EntryT] = OrderedDict()
        self.expiries: list[tuple[float, int, int]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, entry: EntryT) -> bool:
        return self.entries.get(id(entry)) is entry

    @property
    def is_full(self) -> bool:
        """Whether there is no place left; entries that expired count until `expire`."""
        return len(self.entries) >= self.bound

    @property
    def next_expiry(self) -> float:
        """No entry expires before this time; `math.inf` where none ever will."""
        return self.expiries[0][0] if self.expiries else math.inf

    def append(self, entry: EntryT) -> None:
        """Put `entry` at the end."""
        self.entries[id(entry)] = entry
        if entry.expires_at < math.inf:
            self._serial += 1
            heapq.heappush(self.expiries, (entry.expires_at, self._serial, id(entry)))

    def pop(self) -> EntryT | None:
        """Take the oldest out; None where the line is empty."""
        if not self.entries:
            return None
        _, entry = self.entries.popitem(last=False)
        self._forget_the_dead()
        return entry

    def discard(self, entry: EntryT) -> bool:
        """Take `entry` out, wherever it stands; whether it was there."""
        if entry not in self:
            return False
        del self.entries[id(entry)]
        self._forget_the_dead()
        return True

    def expire(self, now: float) -> list[EntryT]:
        """Take out all whose time has come, the earliest first."""
        expired: list[EntryT] = []
        while self.expiries and self.expiries[0][0] <= now:
            *_, key = heapq.heappop(self.expiries)
            # The key of one who left may be another's by now.
            entry = self.entries.get(key)
            if entry is not None and entry.expires_at <= now:
                self.discard(entry)
                expired.append(entry)
        return expired

    def _forget_the_dead(self) -> None:
        """Keep the heap at most twice as long as the line: O(1), spread over who left."""
        if len(self.expiries) > 2 * len(self.entries) + 16:
            mortal = [(k, e.expires_at) for k, e in self.entries.items() if e.expires_at < math.inf]
            self._serial = len(mortal)
            self.expiries = [(time, serial, key) for serial, (key, time) in enumerate(mortal)]
            heapq.heapify(self.expiries)
