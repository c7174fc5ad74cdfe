"""Admission: what runs, what waits, what is turned away, and who goes next."""

import math
from collections.abc import Mapping
from typing import Generic, Literal

from loadshed._policy.criticality import Criticality
from loadshed._policy.limits.knee import KneeLimit
from loadshed._policy.limits.limit import FixedLimit, Limit
from loadshed._policy.line.line import Line
from loadshed._policy.ticket import State, TicketT

__all__ = ["Admission", "Order"]

Order = Literal["fifo", "adaptive_lifo"]
"""Who of the same class and tenant goes first: the one who came first, always; or the one who came
last, where the line has been busy for longer than a request usually takes."""

SHORTEST_LINE = 10
"""How many may wait at least where the line follows a limit that moves: with fewer, requests that
come at the same time by chance are turned away."""

MEMORY = 64
"""Requests over which it is averaged how long one holds its slot."""


def length_of_line(limit: float, order: Order) -> float:
    """How many may wait where nobody says it."""
    return limit if order == "fifo" else max(SHORTEST_LINE, 2 * limit)


class Admission(Generic[TicketT]):
    """At most `limit` slots taken, at most `line.bound` waiting, and who goes next.

    Each step changes the state at once and returns the *other* tickets that it settled, whose
    callers have to be told; the state of the ticket it was about is in the ticket. Every step that
    could make room ends in `_settle`, so nobody waits while there is room:

    >>> from loadshed._policy.ticket import Ticket
    >>> admission = Admission(limit=1, max_queued=1)
    >>> first, second, third = Ticket(), Ticket(), Ticket()
    >>> admission.offer(first, now=0.0), first.state
    ([], <State.ADMITTED: 'admitted'>)
    >>> admission.offer(second, now=0.0), second.state
    ([], <State.QUEUED: 'queued'>)
    >>> admission.offer(third, now=0.0), third.state
    ([], <State.SHED: 'shed'>)
    >>> admission.release(first, now=1.0) == [second], second.state
    (True, <State.ADMITTED: 'admitted'>)

    Where the limit is fixed, the order is first in, first out, and no class has a share, a request
    that finds a slot free needs no ticket, and nobody reads a clock for it: `enter` and `leave`.

    Args:
        limit: How many slots there are: a number >= 1 or `math.inf`, or a rule that finds it.
        max_queued: How many may wait. None follows the limit: as many, or, in the order that copes
            with a longer line, twice as many and at least `SHORTEST_LINE`.
        order: Who goes first.
        shares: The part of all slots that a class gets at least, while it has work: whole ones, and
            turns for what is left of it.
        tenants: How many tenants are told apart at most.
        tenant_share: The part of the line that one tenant may take.

    Attributes:
        rule: What finds the limit.
        limit: How many slots there are now.
        line: Those who wait.
        ongoing: How many slots are taken. Above `limit` only while draining after it was lowered.
        completed: How many permits were returned.
        has_shares: Whether a class has a share, and it is counted how many slots each of them has.
        is_closed: Whether nobody may begin for the moment, whatever is free: see `close`.
        abandoned: How many callers left while they waited.
        shed: How many were turned away, by reason.
        is_plain: Whether a request may do without a ticket: the limit is fixed, the order first in,
            first out, and no class has a share.
        unticketed: How many slots may be taken for one without a ticket to `enter`: `limit`, or 0
            where every request needs one, or one waits that costs more or has seen a resize.
        watch: False, in a test, where whoever leaves has nothing to see to but the count.
        typical: Seconds that requests held their slots lately, on average; infinite, or rather not
            known, before any did, and where the order does not ask for it.
    """

    __slots__ = (
        "_bound",
        "_costs",
        "_order",
        "abandoned",
        "completed",
        "has_shares",
        "is_closed",
        "is_plain",
        "limit",
        "line",
        "ongoing",
        "rule",
        "shed",
        "typical",
        "unticketed",
        "watch",
    )

    def __init__(
        self,
        limit: Limit | float,
        max_queued: float | None = None,
        *,
        order: Order = "fifo",
        shares: Mapping[Criticality, float] | None = None,
        tenants: int = 1000,
        tenant_share: float = 0.5,
    ) -> None:
        self._order = order
        self.has_shares = bool(shares)
        self.line: Line[TicketT] = Line(
            0, shares=shares, tenants=tenants, tenant_share=tenant_share
        )
        self.ongoing: float = 0
        self._costs: float = 0  # slots taken beyond one for each permit
        self.completed = 0
        self.abandoned = 0
        self.shed = dict.fromkeys(
            ("queue_full", "queue_timeout", "deadline", "displaced", "loop_lag", "unavailable"), 0
        )
        self.typical = math.inf
        self.is_closed = False
        self.unticketed: float = 0
        self._take(limit, max_queued)

    @property
    def permits(self) -> int:
        """How many permits are out."""
        return int(self.ongoing - self._costs)

    @property
    def admitted(self) -> int:
        """How many got a permit so far."""
        return self.completed + self.permits

    # Without a ticket.

    def enter(self) -> bool:
        """Take a slot if one is free, without a ticket, where none is needed.

        Where somebody waits there is none free, so nobody is overtaken.
        """
        if self.ongoing < self.unticketed:
            self.ongoing += 1
            return True
        return False

    def leave(self) -> bool:
        """Give it back, without the time; whether somebody waits, who needs `expire`."""
        self.ongoing -= 1
        self.completed += 1
        return bool(self.line.entries)

    def forget(self, criticality: Criticality) -> None:
        """A permit is about to `leave` that has a ticket of this class, which nobody can find."""
        self.line.lane(criticality).ongoing -= 1

    def refuse(self, reason: str) -> None:
        """Count a request that is turned away without being offered."""
        self.shed[reason] += 1

    def turn_away(self, now: float) -> bool:
        """Shed a request that did not `enter` if there is no place for it: `offer`, in short.

        It needs no ticket; where it says no, `offer` decides: where every request needs a ticket
        there may be room for it. It is for requests of the usual class and no tenant, and never the
        answer where such a one might displace another.
        """
        line = self.line
        if (
            len(line.entries) >= line.bound
            and self.ongoing >= self.limit
            and not line.unusual
            and self._order == "fifo"
            and (not line.expiries.heap or line.expiries.heap[0][0] > now)
        ):
            self.shed["queue_full"] += 1
            return True
        return False

    def turn_away_late(self, deadline: float, now: float) -> bool:
        """Shed a request that comes when its deadline has passed, even where a slot is free."""
        if deadline <= now:
            self.shed["deadline"] += 1
            return True
        return False

    # With one.

    def offer(self, ticket: TicketT, now: float, *, pace: float = 0) -> list[TicketT]:
        """A request arrives: it is admitted, queued, or shed.

        Args:
            ticket: The request.
            now: The time.
            pace: Seconds from one permit that comes back to the next, as far as can be told: a
                request whose deadline comes before its turn at that pace need not begin to wait.
                0 where it isn't known, and no such request is shed.
        """
        has_room = not self.line.entries and self.ongoing + ticket.cost <= self.limit
        if has_room and ticket.deadline > now and not self.is_closed:  # mostly; in short
            self._admit(ticket, now)
            return []
        settled = self._settle(now)  # whoever has expired holds no place against a newcomer
        if ticket.deadline <= now:
            self._turn_away(ticket, State.SHED, "deadline")
        elif (
            not self.is_closed
            and self._is_free_for(ticket)
            and self.line.goes_first(ticket, self.limit)
        ):
            self._admit(ticket, now)
        elif self._is_hopeless(ticket, now, pace):
            full = not self.line.has_place_for(ticket)
            self._turn_away(ticket, State.SHED, "queue_full" if full else "deadline")
        else:
            self._queue(ticket, now, settled)
        return settled

    def offer_nowait(self, ticket: TicketT, now: float) -> list[TicketT]:
        """A request arrives that will not wait: it is admitted, even where closed, or shed."""
        settled = self._settle(now)
        if self._is_free_for(ticket) and self.line.goes_first(ticket, self.limit):
            self._admit(ticket, now)
        else:
            self._turn_away(ticket, State.SHED, "queue_full")
        return settled

    def claim(self, ticket: TicketT, now: float) -> list[TicketT]:
        """The caller of a ticket that was admitted from the line is about to use its permit.

        If its deadline has passed since it was admitted, the permit is handed on instead: the
        ticket expires, and counts as shed, not as admitted.
        """
        return [] if ticket.deadline > now else self.take_back(ticket, now)

    def take_back(self, ticket: TicketT, now: float) -> list[TicketT]:
        """The time of a ticket that was admitted from the line was over before it could begin."""
        self._give_back(ticket)
        is_late = ticket.deadline <= now
        self._turn_away(ticket, State.EXPIRED, "deadline" if is_late else "queue_timeout")
        return self._settle(now)

    def release(self, ticket: TicketT, now: float, ok: bool | None = True) -> list[TicketT]:
        """A permit comes back.

        Args:
            ticket: Whose it was.
            now: The time.
            ok: False where it was of no use, for a reason that fewer at once would help (see
                `Limit.observe`); None where nothing is to be learnt from it.
        """
        before = self.ongoing
        self._give_back(ticket)
        self.completed += 1
        if ok is not None and not self.is_plain:
            seconds = now - ticket.started_at
            if self.typical < math.inf:
                self.typical += (seconds - self.typical) / MEMORY
            else:
                self.typical = seconds
            if self.line.entries and before < self.limit and not self.is_closed:
                before = self.limit  # what is free is too little for the next one
            rule = self.rule
            rule.observe(now, seconds, ok, before)
            if rule.limit != self.limit:
                self._follow()
        return self._settle(now)

    def abandon(self, ticket: TicketT, now: float) -> list[TicketT]:
        """The caller of a ticket that was queued has gone.

        It may have been granted in this very step, and nobody will use that permit: it is handed
        on, and the ticket counts as abandoned, not as admitted.
        """
        if ticket.state is State.ADMITTED:
            self._give_back(ticket)
        elif not self.line.discard(ticket):
            return []  # it was shed before it left, and has been counted as that
        ticket.state = State.ABANDONED
        self.abandoned += 1
        return self._settle(now)

    def dismiss(self) -> list[TicketT]:
        """Nobody will be admitted any more: all that wait are turned away."""
        dismissed = list(self.line.entries.values())
        for ticket in dismissed:
            self.line.discard(ticket)
            self._turn_away(ticket, State.EXPIRED, "unavailable")
        return dismissed

    def close(self) -> None:
        """Let nobody begin until it is opened, though slots are free: whoever comes has to wait.

        Whoever finds no place then, but for that would have begun, is shed with the reason
        "loop_lag".
        """
        self.is_closed = True
        self.unticketed = 0

    def open(self, now: float) -> list[TicketT]:
        """Let those begin again for whom there is room."""
        self.is_closed = False
        return self._settle(now)

    def expire(self, now: float) -> list[TicketT]:
        """Time has passed."""
        return self._settle(now)

    def resize(
        self,
        now: float,
        *,
        limit: Limit | float,
        max_queued: float | None,
        order: Order | None = None,
    ) -> list[TicketT]:
        """Set both bounds, and the order. Fewer slots drain; nobody who waits already is shed."""
        self._order = order or self._order
        self._take(limit, max_queued)
        return self._settle(now)

    def arrange(
        self,
        now: float,
        *,
        order: Order,
        shares: Mapping[Criticality, float],
        tenants: int,
        tenant_share: float,
    ) -> list[TicketT]:
        """Set who goes first, of those who wait already as well.

        Permits that are out when the first shares are set count for no class, as those without a
        ticket never said theirs: until they are back, classes seem to have less than they do.
        """
        self._order = order
        self.has_shares = bool(shares)
        self.line.arrange(shares=shares, tenants=tenants, tenant_share=tenant_share)
        self._follow()
        return self._settle(now)

    def _take(self, limit: Limit | float, max_queued: float | None) -> None:
        """These are the bounds from now on."""
        self.rule = FixedLimit(limit) if isinstance(limit, int | float) else limit
        self._bound = max_queued
        self._follow()

    def _follow(self) -> None:
        """The rule may have found another limit."""
        limit = self.limit = self.rule.limit
        if self._bound is not None:
            self.line.bound = self._bound
        else:
            self.line.bound = length_of_line(limit, self._order)
        self.is_plain = (
            isinstance(self.rule, FixedLimit) and self._order == "fifo" and not self.has_shares
        )
        if isinstance(self.rule, KneeLimit):
            self.rule.has_queue = self.line.bound > 0
        self.unticketed = 0
        self._unlock()
        self.watch = self.line.entries if self.is_plain else True

    def _settle(self, now: float) -> list[TicketT]:
        """Who may go now, and whose time is over: the end of every step."""
        line = self.line
        if not line.entries:
            self._unlock()
            return []
        settled = line.expire(now)
        for expired in settled:
            is_late = expired.deadline <= expired.expires_at
            self._turn_away(expired, State.EXPIRED, "deadline" if is_late else "queue_timeout")
        while self.ongoing < self.limit and line.entries and not self.is_closed:
            next_one = line.next_lane(self.limit).first(now, self._patience)
            if not self._is_free_for(next_one):
                break
            line.serve(next_one, self.limit)
            self._admit(next_one, now)
            settled.append(next_one)
        self._unlock()
        return settled

    def _unlock(self) -> None:
        """Let those have a slot without a ticket who overtake nobody by that."""
        if self.is_plain and not self.line.entries and not self.is_closed:
            self.unticketed = self.limit

    @property
    def _patience(self) -> float:
        """Seconds for which a line may be busy before the newest goes first."""
        return math.inf if self._order == "fifo" else self.typical

    def _is_free_for(self, ticket: TicketT) -> bool:
        """Whether its slots are free. One that costs more than there are takes all of them."""
        free = self.limit - self.ongoing
        return free > 0 and (ticket.cost <= free or self.ongoing == 0)

    def _admit(self, ticket: TicketT, now: float) -> None:
        ticket.state = State.ADMITTED
        ticket.started_at = now
        if self.line.entries:
            self.line.pass_over(ticket)
        slots = ticket.slots = min(ticket.cost, self.limit)
        self.ongoing += slots
        if slots != 1:
            self._costs += slots - 1
        if self.has_shares:
            ticket.counts_for_class = True
            self.line.lane(ticket.criticality).ongoing += slots

    def _give_back(self, ticket: TicketT) -> None:
        slots = ticket.slots
        self.ongoing -= slots
        if slots != 1:
            self._costs -= slots - 1
        if ticket.counts_for_class:  # though there may be no shares any more, or others
            ticket.counts_for_class = False
            self.line.lane(ticket.criticality).ongoing -= slots

    def _is_kept_out(self, ticket: TicketT) -> bool:
        """Whether its slots are free, and it can't begin because this is closed."""
        return self.is_closed and self._is_free_for(ticket)

    def _is_hopeless(self, ticket: TicketT, now: float, pace: float) -> bool:
        """Whether its deadline comes before its turn, at this pace and in the order of arrival."""
        if not pace or self._order != "fifo" or self._is_kept_out(ticket):
            return False
        return (self.line.ahead_of(ticket) + 1) * pace > ticket.deadline - now

    def _queue(self, ticket: TicketT, now: float, settled: list[TicketT]) -> None:
        """Let it wait, if need be in the place of another, which is settled by that."""
        line = self.line
        displaced = None
        if not line.has_place_for(ticket):
            if line.bound:  # where nobody may wait, nobody may who takes the place of another
                displaced = line.displaced_by(ticket, now, self._patience)
            if displaced is None:
                reason = "loop_lag" if self._is_kept_out(ticket) else "queue_full"
                self._turn_away(ticket, State.SHED, reason)
                return
        ticket.state = State.QUEUED
        line.append(ticket, now)
        if displaced is not None:  # after that: where they are of one row it was never empty
            line.discard(displaced)
            self._turn_away(displaced, State.EXPIRED, "displaced")
            settled.append(displaced)
        if ticket.cost != 1:
            self.unticketed = 0  # a slot may be free while it waits, and is not for others
        if self.ongoing < self.limit:  # one that costs more than that was first, and isn't any more
            settled += [each for each in self._settle(now) if each is not ticket]

    def _turn_away(self, ticket: TicketT, state: State, reason: str) -> None:
        ticket.state = state
        ticket.reason = reason
        self.refuse(reason)
