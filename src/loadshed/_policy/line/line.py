"""Line: all those who wait for their turn."""

import math
from collections.abc import Mapping
from typing import Generic

from loadshed._policy.criticality import Criticality
from loadshed._policy.expiries import Expiries
from loadshed._policy.line.lane import Lane
from loadshed._policy.ticket import TicketT

PATIENCE_OF_A_CLASS = 20
"""How many turns others have, one after the other, before a class that waits gets one whatever its
rank and share: so none that has a place in the line starves, and the others lose a twentieth."""


class Line(Generic[TicketT]):
    """Those who wait: strictly by class, within a class tenants in turn, within a tenant by age.

    Every step takes the same time however long the line is, but O(log n) for one that expires, and
    O(log m) for a turn among m tenants.

    Args:
        bound: How many may wait. It is not enforced by `append`: whoever appends asks `is_full`
            first, and decides what follows.
        shares: The part of all slots that a class gets at least, while it has work: whole ones, and
            turns for what is left of it.
        tenants: How many tenants are told apart at most.
        tenant_share: The part of the line that one tenant may take, where tenants are told apart.

    Attributes:
        entries: All who wait, oldest first, by `id`.
        expiries: When they expire.
        unusual: How many of them have another class than most, or a tenant.
    """

    __slots__ = ("_lanes", "_tenant_share", "bound", "entries", "expiries", "unusual")

    def __init__(
        self,
        bound: float,
        *,
        shares: Mapping[Criticality, float] | None = None,
        tenants: int = 1000,
        tenant_share: float = 0.5,
    ) -> None:
        self.bound = bound
        self.entries: dict[int, TicketT] = {}
        self.expiries: Expiries[TicketT] = Expiries(self.entries)
        self.unusual = 0
        given = shares or {}
        self._lanes: list[Lane[TicketT]] = [
            Lane(each, given.get(each, 0.0), tenants) for each in Criticality
        ]
        self._tenant_share = tenant_share

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, ticket: TicketT) -> bool:
        return self.entries.get(id(ticket)) is ticket

    @property
    def is_full(self) -> bool:
        """Whether there is no place left; tickets that expired count until `expire`."""
        return len(self.entries) >= self.bound

    def lane(self, criticality: Criticality) -> Lane[TicketT]:
        """Those of one class."""
        return self._lanes[criticality]

    def arrange(
        self, *, shares: Mapping[Criticality, float], tenants: int, tenant_share: float
    ) -> None:
        """Let turns go by this, as if the line had been made with it. Who waits keeps its place."""
        for lane in self._lanes:
            lane.arrange(shares.get(lane.criticality, 0.0), tenants)
        self._tenant_share = tenant_share

    def append(self, ticket: TicketT, now: float) -> None:
        """Put it behind the others of its class and tenant."""
        self.entries[id(ticket)] = ticket
        self.expiries.add(ticket)
        self.unusual += _is_unusual(ticket)
        self._lanes[ticket.criticality].append(ticket, now)

    def next_lane(self, limit: float, newcomers: Lane[TicketT] | None = None) -> Lane[TicketT]:
        """The class whose turn it is; there have to be some who wait, or one that has a newcomer.

        One that was passed over for too long; else one that is owed a slot by its share; else the
        highest.
        """
        lanes = [lane for lane in self._lanes if lane.waiting or lane is newcomers]
        if len(lanes) > 1:
            for lane in lanes:
                if lane.passed_over >= PATIENCE_OF_A_CLASS:
                    return lane
            for lane in lanes:
                if lane.is_owed_a_slot(limit):
                    return lane
        return lanes[0]

    def serve(self, ticket: TicketT, limit: float = math.inf) -> None:
        """Take out the first of the class whose turn it is."""
        self._lanes[ticket.criticality].serve(ticket, limit)
        self._forget(ticket)

    def pass_over(self, ticket: TicketT) -> None:
        """The classes that wait were passed over by this one, from the line or at once."""
        served = self._lanes[ticket.criticality]
        if len(self.entries) > served.waiting:
            for lane in self._lanes:
                if lane.waiting:
                    lane.passed_over += 1
        served.passed_over = 0

    def discard(self, ticket: TicketT) -> bool:
        """Take it out, wherever it stands; whether it was there."""
        if ticket not in self:
            return False
        self._lanes[ticket.criticality].remove(ticket)
        self._forget(ticket)
        return True

    def expire(self, now: float) -> list[TicketT]:
        """Take out all whose time has come, the earliest first."""
        expired: list[TicketT] = []
        while (ticket := self.expiries.due(now)) is not None:
            self.discard(ticket)
            expired.append(ticket)
        return expired

    def goes_first(self, newcomer: TicketT, limit: float) -> bool:
        """Whether a newcomer goes before all that wait."""
        if not self.entries:
            return True
        own = self._lanes[newcomer.criticality]
        return not own.waiting and self.next_lane(limit, own) is own

    def ahead_of(self, newcomer: TicketT) -> int:
        """How many go before a newcomer, where the oldest goes first and all have the same cost."""
        return sum(lane.waiting for lane in self._lanes[: newcomer.criticality + 1])

    def has_place_for(self, newcomer: TicketT) -> bool:
        """Whether a newcomer may wait, with nobody going for it."""
        return not self.is_full and not self._has_too_many(newcomer)

    def displaced_by(self, newcomer: TicketT, now: float, patience: float) -> TicketT | None:
        """Who has to go for a newcomer for which there is no place; None: nobody.

        One of its tenant, if that has too many. Else one of the lowest class that is not above the
        newcomer's, and has more in the line than its share of it; or, if the newcomer's class has
        less than that, of the lowest that has more.
        """
        own = self._lanes[newcomer.criticality]
        has_less = own.waiting + 1 <= own.places(self.bound)
        if self._has_too_many(newcomer):
            return own.oldest_of(newcomer.tenant, now, patience)
        for lane in reversed(self._lanes):
            if lane is own and lane.waiting and not has_less:
                return own.displaced_by(newcomer, now, patience)
            if lane.waiting <= lane.places(self.bound):
                continue
            if lane.criticality > own.criticality or has_less:
                return lane.oldest
        return None

    def _has_too_many(self, newcomer: TicketT) -> bool:
        if newcomer.tenant is None:
            return False
        length = self._lanes[newcomer.criticality].length_of(newcomer.tenant)
        return length + 1 > max(1, self._tenant_share * self.bound)

    def _forget(self, ticket: TicketT) -> None:
        del self.entries[id(ticket)]
        self.unusual -= _is_unusual(ticket)
        self.expiries.forget_the_dead()


def _is_unusual(ticket: TicketT) -> bool:
    return ticket.tenant is not None or ticket.criticality is not Criticality.CRITICAL
