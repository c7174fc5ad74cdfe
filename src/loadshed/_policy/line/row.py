"""Row: the requests of one tenant, in one class, that wait."""

from collections import OrderedDict
from typing import Generic

from loadshed._policy.ticket import TicketT


class Row(Generic[TicketT]):
    """The requests of one tenant, in one class, that wait, by age.

    Usually the oldest goes first. Where the row has not been empty for longer than a request
    usually holds its slot, it is congested: what stands in it does not come from chance, it is what
    is too much. Then whoever came first has waited long and may not wait any more, and the newest
    goes first: what is served is served in time, and what is not served would not have been.
    (Facebook's adaptive LIFO: Maurer, "Fail at scale", ACM Queue 13(8), 2015.)

    Attributes:
        tickets: Those who wait, oldest first.
        since: The time since when the row has not been empty.
        turn: When its next turn is, in the lane's reckoning.
        serial: The number that its next turn has among all of the lane; 0 where it is empty.
    """

    __slots__ = ("serial", "since", "tickets", "turn")

    def __init__(self) -> None:
        self.turn = 0.0
        self.serial = 0
        self.since = 0.0
        # An OrderedDict, not a dict: taking the first of a dict walks over all that left before.
        self.tickets: OrderedDict[int, TicketT] = OrderedDict()

    def __len__(self) -> int:
        return len(self.tickets)

    def is_congested(self, now: float, patience: float) -> bool:
        """Whether it has not been empty for longer than `patience` seconds."""
        return now - self.since > patience

    def first(self, now: float, patience: float) -> TicketT:
        """Who goes first."""
        if len(self.tickets) > 1 and self.is_congested(now, patience):
            return next(reversed(self.tickets.values()))
        return self.oldest

    @property
    def oldest(self) -> TicketT:
        """Who came first."""
        return next(iter(self.tickets.values()))


class Lengths(Generic[TicketT]):
    """Which row is the longest, in the same time however many there are.

    A row's length changes by one at a time. So where no row is as long as the longest was, one is
    shorter by one, or there is none.
    """

    __slots__ = ("_longest", "_of_length")

    def __init__(self) -> None:
        self._of_length: dict[int, OrderedDict[Row[TicketT], None]] = {}
        self._longest = 0

    def changed(self, row: Row[TicketT], before: int) -> None:
        """A row is longer, or shorter, by one than `before`."""
        length = len(row)
        if before:
            peers = self._of_length[before]
            del peers[row]
            if not peers:
                del self._of_length[before]
        if length:
            self._of_length.setdefault(length, OrderedDict())[row] = None
        if length > self._longest or self._longest not in self._of_length:
            self._longest = length

    @property
    def longest(self) -> Row[TicketT]:
        """The longest row; of several the one that has been so long for the longest time."""
        return next(iter(self._of_length[self._longest]))
