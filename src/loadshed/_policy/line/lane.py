"""Lane: the requests of one class that wait, with fair turns for their tenants."""

import heapq
import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic

from loadshed._policy.criticality import Criticality
from loadshed._policy.line.row import Lengths, Row
from loadshed._policy.ticket import TicketT

ROUNDING = 1e-9
"""By how much a share of a number may come out too small: 15 / 22 of 22 is 14.999999999999998."""


class Lane(Generic[TicketT]):
    """The requests of one class that wait: a row for each tenant, and whose turn it is.

    Tenants take turns, whoever of them sends how much, and who asks for more slots at once waits
    for more turns of the others. That is what deficit round robin does (Shreedhar and Varghese,
    1995), here in the form of start-time fair queueing (Goyal, Vin and Cheng, 1996), which needs no
    quantum and for the next turn no walk over all tenants: each has a time of its own, which goes
    on by the slots that it was given, and the one whose time is the earliest is next. One that
    comes anew begins at the time of the turn that is on, so it can't save up what it did not use.

    Args:
        criticality: The class.
        share: The part of all slots that it gets at least, while it has work: whole ones, and turns
            for what is left of it.
        tenants: How many tenants are told apart at most. For one that is new, the one that has
            waited for nothing for the longest is forgotten; where all of them wait, those that are
            too many take turns as one.

    Attributes:
        waiting: How many wait in it.
        ongoing: How many slots are taken for it; it is counted only where there are shares.
        passed_over: How many turns others had, one after the other, while somebody waited here.
    """

    __slots__ = (
        "_empty",
        "_lengths",
        "_now",
        "_others",
        "_rows",
        "_serial",
        "_tenants",
        "_turns",
        "criticality",
        "ongoing",
        "passed_over",
        "share",
        "waiting",
    )

    def __init__(self, criticality: Criticality, share: float, tenants: int) -> None:
        self.criticality = criticality
        self.share = share
        self.waiting = 0
        self.ongoing: float = 0
        self.passed_over = 0
        self._tenants = tenants
        self._rows: dict[Hashable, Row[TicketT]] = {}
        # Those of them that are empty, the one that has been so for the longest first. (An
        # OrderedDict, not a dict: taking the first of a dict walks over all that left before.)
        self._empty: OrderedDict[Hashable, None] = OrderedDict()
        self._others: Row[TicketT] = Row()  # of those that are too many to tell apart
        self._lengths: Lengths[TicketT] = Lengths()
        # (its time, serial number, row) of every row that is not empty; and of some that were, and
        # are skipped: the number is not the row's any more.
        self._turns: list[tuple[float, int, Row[TicketT]]] = []
        self._serial = 0
        self._now = 0.0  # the time of the turn that is on

    def is_owed_a_slot(self, limit: float) -> bool:
        """Whether it has less than its share of so many.

        It is owed whole slots: to round up would give it all where its share is a fifth of one
        slot. What its share is beyond whole slots it gets as turns: that fifth after four others.
        """
        if not self.share:
            return False
        part = self.share * limit
        if self.ongoing + 1 <= part + ROUNDING:
            return True
        return self.ongoing + ROUNDING < part and self.passed_over + 1 >= 1 / self.share

    def places(self, bound: float) -> float:
        """How many may wait in it with nobody of another class taking their places."""
        return self.share * bound + ROUNDING if self.share else 0

    def arrange(self, share: float, tenants: int) -> None:
        """Have another share, and tell so many tenants apart. Rows that are there stay."""
        self.share = share
        self._tenants = tenants
        while self._empty and len(self._rows) > tenants:
            self._forget_the_first()

    def append(self, ticket: TicketT, now: float) -> None:
        """Put it at the end of its tenant's row."""
        row = self._row(ticket.tenant)
        if row is None:
            row = self._open(ticket.tenant)
        length = len(row.tickets)
        if not length:
            self._empty.pop(ticket.tenant, None)
            row.since = now
            row.turn = max(self._now, row.turn)
            heapq.heappush(self._turns, self._entry(row))
        ticket.row = row
        row.tickets[id(ticket)] = ticket
        self._lengths.changed(row, length)
        self.waiting += 1

    def remove(self, ticket: TicketT) -> None:
        """Take it out, wherever it stands."""
        if not self._take_out(ticket).tickets:
            self._forget_the_dead()

    def first(self, now: float, patience: float) -> TicketT:
        """Who goes first of those who wait; there have to be some."""
        turns = self._turns
        while (entry := turns[0])[1] != entry[2].serial:
            heapq.heappop(turns)
        return entry[2].first(now, patience)

    def serve(self, ticket: TicketT, limit: float = math.inf) -> None:
        """Take out the one that goes first: its tenant has had its turn.

        The turn counts for what it takes, which is no more than all the slots there are.
        """
        row = self._take_out(ticket)
        self._now = row.turn
        row.turn += min(ticket.cost, limit)
        if row.tickets:
            heapq.heapreplace(self._turns, self._entry(row))
        else:
            heapq.heappop(self._turns)

    def length_of(self, tenant: Hashable) -> int:
        """How many wait in the row of a tenant."""
        row = self._row(tenant)
        return 0 if row is None else len(row.tickets)

    def displaced_by(self, newcomer: TicketT, now: float, patience: float) -> TicketT | None:
        """Who has to go for one of the same class; None: nobody.

        The oldest of the tenant that has the most, if it has more than the newcomer's would have;
        else the oldest of the newcomer's own row, if that is congested.
        """
        longest = self._lengths.longest
        own = self._row(newcomer.tenant)
        if own is None or not own.tickets:
            own, length = longest, 1
        else:
            length = len(own.tickets) + 1
        if len(longest.tickets) > length:
            return longest.oldest
        return own.oldest if own.is_congested(now, patience) else None

    def oldest_of(self, tenant: Hashable, now: float, patience: float) -> TicketT | None:
        """Who of a tenant that waits has to go for one of the same tenant; None: nobody."""
        row = self._row(tenant)
        assert row is not None  # noqa: S101 - it waits here
        return row.oldest if row.is_congested(now, patience) else None

    @property
    def oldest(self) -> TicketT:
        """Who has to go for one of a higher class: the oldest of the tenant that has the most."""
        return self._lengths.longest.oldest

    def _row(self, tenant: Hashable) -> Row[TicketT] | None:
        """Where those of a tenant wait; None: it would have a new row."""
        row = self._rows.get(tenant)
        if row is None and len(self._rows) >= self._tenants and not self._empty:
            return self._others
        return row

    def _open(self, tenant: Hashable) -> Row[TicketT]:
        if len(self._rows) >= self._tenants:
            self._forget_the_first()
        row = self._rows[tenant] = Row()
        return row

    def _forget_the_first(self) -> None:
        """The tenant that has had nobody here for the longest time is as good as new."""
        tenant, _ = self._empty.popitem(last=False)
        del self._rows[tenant]

    def _entry(self, row: Row[TicketT]) -> tuple[float, int, Row[TicketT]]:
        """Its next turn; of two at the same time the one that was known first comes first."""
        self._serial += 1
        row.serial = self._serial
        return row.turn, row.serial, row

    def _take_out(self, ticket: TicketT) -> Row[TicketT]:
        row = ticket.row
        assert row is not None  # noqa: S101 - it waits here
        ticket.row = None
        del row.tickets[id(ticket)]
        self._lengths.changed(row, len(row.tickets) + 1)
        self.waiting -= 1
        if not self.waiting:
            self.passed_over = 0
        if not row.tickets:
            row.serial = 0
            if row is not self._others:
                self._empty[ticket.tenant] = None
        return row

    def _forget_the_dead(self) -> None:
        """Keep the heap at most twice as long as there are rows that are not empty."""
        living = len(self._rows) - len(self._empty) + 1  # one for the others'
        if len(self._turns) > 2 * living + 16:
            self._turns = [entry for entry in self._turns if entry[1] == entry[2].serial]
            heapq.heapify(self._turns)
