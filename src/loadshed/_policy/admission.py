"""Admission: what runs, what waits, what is turned away, and who goes next."""

import math
from enum import Enum
from typing import Generic, TypeVar

from loadshed._policy.queue import WaitingLine


class State(Enum):
    """Where a ticket stands."""

    NEW = "new"
    """Not offered yet."""
    QUEUED = "queued"
    """In the line: some later step settles it."""
    ADMITTED = "admitted"
    """It holds a permit and has to release it."""
    SHED = "shed"
    """Turned away on arrival: the queue was full."""
    EXPIRED = "expired"
    """Turned away from the queue: `expires_at` came before its turn."""
    ABANDONED = "abandoned"
    """Its caller left before it had, or could use, a permit."""


class Ticket:
    """One request on its way through an `Admission`.

    What a policy asks of a request is a field here: its deadline now; a class or a cost, where
    there is one.

    Args:
        expires_at: The time after which it is not worth admitting; `math.inf` is never.
    """

    __slots__ = ("expires_at", "state")

    def __init__(self, expires_at: float = math.inf) -> None:
        self.expires_at = expires_at
        self.state = State.NEW


TicketT = TypeVar("TicketT", bound=Ticket)


class Admission(Generic[TicketT]):
    """At most `limit` requests ongoing, at most `line.bound` waiting, first come first served.

    Each step changes the state at once and returns the *other* tickets that it settled, whose
    callers have to be told; the state of the ticket it was about is in the ticket. Every step that
    could make room ends in `_settle`, so nobody waits while there is room:

    >>> admission = Admission(limit=1, max_queued=1)
    >>> admission.enter()
    True
    >>> second, third = Ticket(), Ticket()
    >>> admission.offer(second, now=0.0), second.state
    ([], <State.QUEUED: 'queued'>)
    >>> admission.offer(third, now=0.0), third.state
    ([], <State.SHED: 'shed'>)
    >>> admission.release(now=1.0) == [second], second.state
    (True, <State.ADMITTED: 'admitted'>)

    Attributes:
        limit: How many may be ongoing: a whole number >= 1, or `math.inf`.
        line: Those who wait.
        ongoing: How many permits are out. Above `limit` only while draining after a `resize`.
        completed: How many permits were returned.
        abandoned: How many callers left while they waited.
        shed: How many were turned away, by reason.
    """

    __slots__ = ("abandoned", "completed", "limit", "line", "ongoing", "shed")

    def __init__(self, limit: float, max_queued: float) -> None:
        self.limit = limit
        self.line: WaitingLine[TicketT] = WaitingLine(max_queued)
        self.ongoing = 0
        self.completed = 0
        self.abandoned = 0
        self.shed = {"queue_full": 0, "queue_timeout": 0}

    @property
    def admitted(self) -> int:
        """How many got a permit so far."""
        return self.completed + self.ongoing

    def enter(self) -> bool:
        """Take a permit if one is free: the whole of the uncontended path, with no ticket.

        Where somebody waits there is none free, so nobody is overtaken.
        """
        if self.ongoing < self.limit:
            self.ongoing += 1
            return True
        return False

    def refuse(self, reason: str) -> None:
        """Count a request that is turned away without being offered."""
        self.shed[reason] += 1

    def turn_away(self, now: float) -> bool:
        """Shed a request that did not `enter` if there is no place for it: `offer`, in short.

        It needs no ticket; where it says no, `offer` decides.
        """
        line = self.line
        if len(line.entries) >= line.bound and (not line.expiries or line.expiries[0][0] > now):
            self.shed["queue_full"] += 1
            return True
        return False

    def offer(self, ticket: TicketT, now: float) -> list[TicketT]:
        """A request arrives: it is admitted, queued, or shed."""
        settled = self._settle(now)  # whoever has expired holds no place against a newcomer
        if self.enter():
            ticket.state = State.ADMITTED
        elif self.line.is_full:
            ticket.state = State.SHED
            self.refuse("queue_full")
        else:
            ticket.state = State.QUEUED
            self.line.append(ticket)
        return settled

    def leave(self) -> bool:
        """Give a permit back, without the time; whether somebody waits, who needs `settle`."""
        self.ongoing -= 1
        self.completed += 1
        return bool(self.line.entries)

    def release(self, now: float) -> list[TicketT]:
        """A permit comes back."""
        self.leave()
        return self._settle(now)

    def abandon(self, ticket: TicketT, now: float) -> list[TicketT]:
        """The caller of a ticket that was queued has gone.

        It may have been granted in this very step, and nobody will use that permit: it is handed
        on, and the ticket counts as abandoned, not as admitted.
        """
        if ticket.state is State.ADMITTED:
            self.ongoing -= 1
        elif not self.line.discard(ticket):
            return []  # it was shed before it left, and has been counted as that
        ticket.state = State.ABANDONED
        self.abandoned += 1
        return self._settle(now)

    def expire(self, now: float) -> list[TicketT]:
        """Time has passed."""
        return self._settle(now)

    def resize(self, now: float, *, limit: float, max_queued: float) -> list[TicketT]:
        """Set both bounds. Fewer ongoing drain; nobody who waits already is shed."""
        self.limit = limit
        self.line.bound = max_queued
        return self._settle(now)

    def _settle(self, now: float) -> list[TicketT]:
        """Who may go now, and whose time is over: the end of every step."""
        if not self.line.entries:
            return []
        settled = self.line.expire(now)
        for expired in settled:
            expired.state = State.EXPIRED
            self.refuse("queue_timeout")
        while self.ongoing < self.limit and (next_one := self.line.pop()) is not None:
            next_one.state = State.ADMITTED
            self.ongoing += 1
            settled.append(next_one)
        return settled
