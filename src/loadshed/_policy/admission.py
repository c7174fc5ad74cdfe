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
    """Turned away on arrival: the queue was full, or its deadline could not be met."""
    EXPIRED = "expired"
    """Turned away from the queue: `expires_at` came before its turn, or its deadline before its
    caller could use the permit."""
    ABANDONED = "abandoned"
    """Its caller left before it had, or could use, a permit."""


class Ticket:
    """One request on its way through an `Admission`.

    What a policy asks of a request is a field here: its deadline now; a class or a cost, where
    there is one.

    Args:
        expires_at: The time after which it is not worth admitting; `math.inf` is never.
        deadline: The time after which its caller has no use for an answer; `math.inf` is never.

    Attributes:
        expires_at: The time at which it leaves the line: the earlier of the two.
        reason: Why it was turned away; None where it was not.
    """

    __slots__ = ("deadline", "expires_at", "reason", "state")

    def __init__(self, expires_at: float = math.inf, *, deadline: float = math.inf) -> None:
        self.expires_at = min(expires_at, deadline)
        self.deadline = deadline
        self.reason: str | None = None
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
        self.shed = {"queue_full": 0, "queue_timeout": 0, "deadline": 0, "unavailable": 0}

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

    def turn_away_late(self, deadline: float, now: float) -> bool:
        """Shed a request that comes when its deadline has passed, even where a permit is free."""
        if deadline <= now:
            self.shed["deadline"] += 1
            return True
        return False

    def offer(self, ticket: TicketT, now: float, *, pace: float = 0) -> list[TicketT]:
        """A request arrives: it is admitted, queued, or shed.

        Args:
            ticket: The request.
            now: The time.
            pace: Seconds from one permit that comes back to the next, as far as can be told: a
                request whose deadline comes before its turn at that pace need not begin to wait.
                0 where it isn't known, and no such request is shed.
        """
        settled = self._settle(now)  # whoever has expired holds no place against a newcomer
        if ticket.deadline <= now:
            self._turn_away(ticket, State.SHED, "deadline")
        elif self.enter():
            ticket.state = State.ADMITTED
        elif self.line.is_full:
            self._turn_away(ticket, State.SHED, "queue_full")
        elif (len(self.line) + 1) * pace > ticket.deadline - now:
            self._turn_away(ticket, State.SHED, "deadline")
        else:
            ticket.state = State.QUEUED
            self.line.append(ticket)
        return settled

    def claim(self, ticket: TicketT, now: float) -> list[TicketT]:
        """The caller of a ticket that was admitted from the line is about to use its permit.

        If its deadline has passed since it was admitted, the permit is handed on instead: the
        ticket expires, and counts as shed, not as admitted.
        """
        if ticket.deadline > now:
            return []
        self.ongoing -= 1
        self._turn_away(ticket, State.EXPIRED, "deadline")
        return self._settle(now)

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

    def dismiss(self) -> list[TicketT]:
        """Nobody will be admitted any more: all that wait are turned away."""
        dismissed: list[TicketT] = []
        while (ticket := self.line.pop()) is not None:
            self._turn_away(ticket, State.EXPIRED, "unavailable")
            dismissed.append(ticket)
        return dismissed

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
            is_late = expired.deadline <= expired.expires_at
            self._turn_away(expired, State.EXPIRED, "deadline" if is_late else "queue_timeout")
        while self.ongoing < self.limit and (next_one := self.line.pop()) is not None:
            next_one.state = State.ADMITTED
            self.ongoing += 1
            settled.append(next_one)
        return settled

    def _turn_away(self, ticket: TicketT, state: State, reason: str) -> None:
        ticket.state = state
        ticket.reason = reason
        self.refuse(reason)
