"""The waiting line: bounded, first in first out, every entry removable in one step."""

from collections import OrderedDict
from typing import Generic

from loadshed._policy.expiries import EntryT, Expiries


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
    """

    __slots__ = ("_expiries", "bound", "entries")

    def __init__(self, bound: float) -> None:
        self.bound = bound
        # An OrderedDict, not a dict: taking the first of a dict walks over all that left before.
        self.entries: OrderedDict[int, EntryT] = OrderedDict()
        self._expiries: Expiries[EntryT] = Expiries(self.entries)

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
        return self._expiries.next

    def append(self, entry: EntryT) -> None:
        """Put `entry` at the end."""
        self.entries[id(entry)] = entry
        self._expiries.add(entry)

    def pop(self) -> EntryT | None:
        """Take the oldest out; None where the line is empty."""
        if not self.entries:
            return None
        _, entry = self.entries.popitem(last=False)
        self._expiries.forget_the_dead()
        return entry

    def discard(self, entry: EntryT) -> bool:
        """Take `entry` out, wherever it stands; whether it was there."""
        if entry not in self:
            return False
        del self.entries[id(entry)]
        self._expiries.forget_the_dead()
        return True

    def expire(self, now: float) -> list[EntryT]:
        """Take out all whose time has come, the earliest first."""
        expired: list[EntryT] = []
        while (entry := self._expiries.due(now)) is not None:
            self.discard(entry)
            expired.append(entry)
        return expired
