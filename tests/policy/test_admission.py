"""Admission against a naive model: the invariants that everything else stands on."""

import math
import os
from collections.abc import Callable, Hashable
from fractions import Fraction

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loadshed._policy.admission import Admission, Order
from loadshed._policy.criticality import Criticality
from loadshed._policy.limits.limit import Limit
from loadshed._policy.ticket import State, Ticket

CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE = Criticality
PATIENCE = 3  # turns that others have before a class gets one whatever its rank: few, for once

LIMITS = st.sampled_from([1, 1, 2, 2, 3, 4, 5, 8, math.inf])
BOUNDS = st.one_of(st.integers(0, 4), st.integers(5, 20), st.just(math.inf), st.none())
WAITS = st.sampled_from([math.inf, math.inf, math.inf, 0.0, 1.0, 3.0, 6.0, 12.0])
PACES = st.sampled_from([0, 0.5, 1, 3])
SHARES: list[dict[Criticality, float]] = [
    {},
    {},
    {SHEDDABLE: 0.25},
    {CRITICAL_PLUS: 0.5, CRITICAL: 0.25, SHEDDABLE: 0.25},
    {CRITICAL: 0.3, SHEDDABLE_PLUS: 0.7},
]
PAUSES = st.sampled_from([0, 0, 0.25, 1])
MOVES = st.one_of(st.none(), st.integers(1, 8))

CLASSES = st.sampled_from([[CRITICAL], [CRITICAL, SHEDDABLE], list(Criticality)])
TENANTS = st.sampled_from([[None], [None, "a"], [None, "a", "b", "c"], [None, *"abcdef"]])
KNOWN = st.sampled_from([1, 2, 3, 1000])

Kind = tuple[int, int, int, float, float]
"""Which class and tenant of those there are, a cost, and how long it waits and lives."""

KINDS = st.tuples(
    st.integers(0, 3),
    st.integers(0, 6),
    st.sampled_from([1, 1, 1, 2, 3, 4]),
    WAITS,
    WAITS,
)

Row = tuple[Criticality, Hashable]
"""A class and a tenant."""

USUAL: Row = (CRITICAL, None)
OTHERS = "others"
"""The tenant of those that are too many to tell apart."""


class Scripted:
    """A limit that becomes what a test wants when it is told of the next request that ended."""

    reason = "the test says so"

    def __init__(self, limit: float) -> None:
        self.limit = self.next = limit
        self.seen: list[tuple[float, float, bool, float]] = []

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        self.seen.append((now, seconds, ok, ongoing))
        self.limit = self.next


class Naive:
    """What `Admission` should come to, with lists and loops."""

    def __init__(
        self,
        limit: Limit | float,
        bound: float | None,
        order: Order,
        shares: dict[Criticality, float],
        *,
        tenants: int,
        tenant_share: float,
    ) -> None:
        self.order, self.shares = order, shares
        self.tenants, self.tenant_share = tenants, tenant_share
        self.is_closed = False
        self.loose = 0  # slots that are taken without a ticket
        self.running: dict[Ticket, float] = {}
        self.queue: list[Ticket] = []
        self.states: dict[Ticket, State] = {}
        self.waits: dict[Ticket, float] = {}  # until when each waits, whatever its deadline
        self.started: dict[Ticket, float] = {}
        self.completed = self.abandoned = 0
        self.shed: dict[str, int] = {}
        self.typical = math.inf
        self.passed_over = dict.fromkeys(Criticality, 0)
        self.stamps = 0
        self.clock = dict.fromkeys(Criticality, 0.0)  # the time of the turn that is on
        self.known: set[Row] = set()  # of the tenants that are told apart
        self.place: dict[Ticket, Row] = {}  # where each waits
        self.times: dict[Row, float] = {}  # each tenant's own
        self.turns: dict[Row, tuple[float, int]] = {}  # that are to come: when, and since when
        self.changed: dict[Row, int] = {}  # when a row last became longer or shorter
        self.since: dict[Row, float] = {}  # when it was last empty
        self.resize(limit, bound)

    def resize(self, limit: Limit | float, bound: float | None) -> None:
        self.rule, self.given = limit, bound

    @property
    def limit(self) -> float:
        return self.rule if isinstance(self.rule, int | float) else self.rule.limit

    @property
    def bound(self) -> float:
        if self.given is not None:
            return self.given
        return self.limit if self.order == "fifo" else max(10, 2 * self.limit)

    @property
    def is_plain(self) -> bool:
        return isinstance(self.rule, int | float) and self.order == "fifo" and not self.shares

    # What is there.

    @property
    def ongoing(self) -> float:
        return self.loose + sum(self.running.values())

    def slots_of(self, criticality: Criticality) -> float:
        return sum(n for each, n in self.running.items() if each.criticality is criticality)

    def of(self, criticality: Criticality) -> list[Ticket]:
        return [each for each in self.queue if each.criticality is criticality]

    def row(self, row: Row) -> list[Ticket]:
        return [each for each in self.queue if self.place[each] == row]

    def rows(self, criticality: Criticality) -> set[Row]:
        return {self.place[each] for each in self.of(criticality)}

    def row_for(self, newcomer: Ticket) -> Row:
        """Where it would wait."""
        own = newcomer.criticality, newcomer.tenant
        if own in self.known or len(self.told_apart(own[0])) < self.tenants:
            return own
        return own if self.to_forget(own[0]) else (own[0], OTHERS)

    def told_apart(self, criticality: Criticality) -> list[Row]:
        return [row for row in self.known if row[0] is criticality]

    def to_forget(self, criticality: Criticality) -> list[Row]:
        """Those that have nobody who waits, the one that has had nobody for the longest first."""
        empty = [row for row in self.told_apart(criticality) if not self.row(row)]
        return sorted(empty, key=self.changed.__getitem__)

    def fits(self, ticket: Ticket) -> bool:
        if ticket.cost > self.limit:
            return self.ongoing == 0
        return self.ongoing + ticket.cost <= self.limit

    def is_congested(self, row: Row, now: float) -> bool:
        patience = math.inf if self.order == "fifo" else self.typical
        return now - self.since[row] > patience

    def is_below_its_share(self, criticality: Criticality) -> bool:
        share = Fraction(self.shares.get(criticality, 0)).limit_denominator(1000)
        if self.limit == math.inf:
            return share > 0
        taken, part = self.slots_of(criticality), share * int(self.limit)
        has_turn = share > 0 and self.passed_over[criticality] + 1 >= 1 / share
        return taken + 1 <= part or (taken < part and has_turn)

    def places(self, criticality: Criticality) -> float:
        """How many of a class nobody of another may displace; a line without end is never full."""
        share = Fraction(self.shares.get(criticality, 0)).limit_denominator(1000)
        return math.floor(share * int(self.bound))

    # Whose turn it is.

    def class_in_turn(self, newcomer: Ticket | None = None) -> Criticality:
        classes = {each.criticality for each in self.queue}
        if newcomer is not None:
            classes.add(newcomer.criticality)
        below = [each for each in classes if self.is_below_its_share(each)]
        tired = [each for each in classes if self.passed_over[each] >= PATIENCE]
        return min(tired or below or classes)

    def first_of(self, criticality: Criticality, now: float) -> Ticket:
        row = min(self.rows(criticality), key=self.turns.__getitem__)
        return self.row(row)[-1 if self.is_congested(row, now) else 0]

    def who_may_go(self, now: float) -> Ticket | None:
        """Whose turn it is, if there is room."""
        if not self.queue or self.ongoing >= self.limit or self.is_closed:
            return None
        first = self.first_of(self.class_in_turn(), now)
        return first if self.fits(first) else None

    def is_kept_out(self, ticket: Ticket) -> bool:
        return self.is_closed and self.fits(ticket)

    def goes_at_once(self, newcomer: Ticket) -> bool:
        if not self.fits(newcomer) or self.of(newcomer.criticality):
            return False
        return not self.queue or self.class_in_turn(newcomer) is newcomer.criticality

    # Who has to go.

    def has_too_many(self, ticket: Ticket) -> bool:
        most = max(1, self.tenant_share * self.bound)
        return ticket.tenant is not None and len(self.row(self.row_for(ticket))) + 1 > most

    def has_place(self, ticket: Ticket) -> bool:
        return len(self.queue) < self.bound and not self.has_too_many(ticket)

    def longest(self, criticality: Criticality) -> Row:
        rows = self.rows(criticality)
        most = max(len(self.row(row)) for row in rows)
        return min((r for r in rows if len(self.row(r)) == most), key=self.changed.__getitem__)

    def displaced_by(self, newcomer: Ticket, now: float) -> Ticket | None:
        own, row = newcomer.criticality, self.row_for(newcomer)
        if self.has_too_many(newcomer):
            return self.row(row)[0] if self.is_congested(row, now) else None
        has_more = [each for each in Criticality if len(self.of(each)) > self.places(each)]
        lower = [each for each in has_more if each > own]
        if lower:
            return self.row(self.longest(max(lower)))[0]
        if len(self.of(own)) < self.places(own):
            return self.row(self.longest(max(has_more)))[0]
        if not self.of(own):
            return None
        longest = self.longest(own)
        if len(self.row(longest)) > len(self.row(row)) + 1:
            return self.row(longest)[0]
        of_whom = row if self.row(row) else longest
        return self.row(of_whom)[0] if self.is_congested(of_whom, now) else None

    # What happens: each returns who else was settled by it, in order.

    def settle(self, now: float) -> list[Ticket]:
        settled = sorted((each for each in self.queue if self.ends(each) <= now), key=self.ends)
        for ticket in settled:
            self.leaves(ticket)
            is_late = ticket.deadline <= self.waits[ticket]
            self.turn_away(ticket, State.EXPIRED, "deadline" if is_late else "queue_timeout")
        while (next_one := self.who_may_go(now)) is not None:
            row = self.place[next_one]
            time, _ = self.turns[row]
            self.clock[next_one.criticality] = time
            self.times[row] = time + min(next_one.cost, self.limit)
            self.turns[row] = time + min(next_one.cost, self.limit), self.stamp()
            self.leaves(next_one)
            self.admit(next_one, now)
            settled.append(next_one)
        return settled

    def offer(self, ticket: Ticket, now: float, pace: float) -> list[Ticket]:
        settled = self.settle(now)
        if ticket.deadline <= now:
            self.turn_away(ticket, State.SHED, "deadline")
        elif self.goes_at_once(ticket) and not self.is_closed:
            self.admit(ticket, now)
        elif self.is_hopeless(ticket, now, pace):
            full = not self.has_place(ticket)
            self.turn_away(ticket, State.SHED, "queue_full" if full else "deadline")
        else:
            settled += self.queue_up(ticket, now)
        return settled

    def queue_up(self, ticket: Ticket, now: float) -> list[Ticket]:
        displaced = []
        if not self.has_place(ticket):
            victim = self.displaced_by(ticket, now) if self.bound else None
            if victim is None:
                kept_out = self.is_kept_out(ticket)
                self.turn_away(ticket, State.SHED, "loop_lag" if kept_out else "queue_full")
                return []
            displaced = [victim]
        row = self.row_for(ticket)
        if row not in self.known and row[1] != OTHERS:
            if len(self.told_apart(row[0])) == self.tenants:
                forgotten = self.to_forget(row[0])[0]
                self.known.remove(forgotten)
                self.times.pop(forgotten, None)
            self.known.add(row)
        if not self.row(row):
            self.since[row] = now
            self.turns[row] = max(self.clock[row[0]], self.times.get(row, 0.0)), self.stamp()
        self.queue.append(ticket)
        self.place[ticket] = row
        self.changed[row] = self.stamp()
        self.states[ticket] = State.QUEUED
        for victim in displaced:
            self.leaves(victim)
            self.turn_away(victim, State.EXPIRED, "displaced")
        if self.ongoing < self.limit:  # else one that would not wait at all is seen to later
            displaced += [each for each in self.settle(now) if each is not ticket]
        return displaced

    def offer_nowait(self, ticket: Ticket, now: float) -> list[Ticket]:
        settled = self.settle(now)
        if self.goes_at_once(ticket):
            self.admit(ticket, now)
        else:
            self.turn_away(ticket, State.SHED, "queue_full")
        return settled

    def release(self, ticket: Ticket, now: float, ok: bool | None) -> list[Ticket]:
        del self.running[ticket]
        self.completed += 1
        if ok is not None and not self.is_plain:
            seconds = now - self.started[ticket]
            known = self.typical < math.inf
            self.typical = self.typical + (seconds - self.typical) / 64 if known else seconds
        if ok is not None and isinstance(self.rule, Scripted):
            self.rule = Scripted(self.rule.next)
        return self.settle(now)

    # The parts of that.

    def admit(self, ticket: Ticket, now: float) -> None:
        self.running[ticket] = min(ticket.cost, self.limit)
        self.started[ticket] = now
        self.states[ticket] = State.ADMITTED
        for other in {each.criticality for each in self.queue}:
            self.passed_over[other] += 1
        self.passed_over[ticket.criticality] = 0

    def leaves(self, ticket: Ticket) -> None:
        self.queue.remove(ticket)
        self.changed[self.place[ticket]] = self.stamp()
        if not self.of(ticket.criticality):
            self.passed_over[ticket.criticality] = 0

    def turn_away(self, ticket: Ticket, state: State, reason: str) -> None:
        self.states[ticket] = state
        self.count(reason)

    def count(self, reason: str) -> None:
        self.shed[reason] = self.shed.get(reason, 0) + 1

    def is_hopeless(self, ticket: Ticket, now: float, pace: float) -> bool:
        if self.order != "fifo" or not pace or self.is_kept_out(ticket):
            return False
        ahead = [each for each in self.queue if each.criticality <= ticket.criticality]
        return (len(ahead) + 1) * pace > ticket.deadline - now

    def ends(self, ticket: Ticket) -> float:
        return min(self.waits[ticket], ticket.deadline)

    def stamp(self) -> int:
        self.stamps += 1
        return self.stamps


class AdmissionMachine(RuleBasedStateMachine):
    """Everything at once: classes, tenants, costs, both orders, shares, limits that move."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.classes: list[Criticality] = []  # those of this run
        self.tenants: list[Hashable] = []
        self.held: list[Ticket] = []  # permits that somebody has, to release
        self.untaken: list[Ticket] = []  # granted, but their callers have not run since
        self.most_ongoing = self.most_queued = math.inf  # what may be above a bound that fell
        self.most_of: dict[Row, float] = {}

    @initialize(
        limit=LIMITS,
        moves=st.booleans(),
        bound=BOUNDS,
        order=st.sampled_from(["fifo", "adaptive_lifo"]),
        shares=st.sampled_from(SHARES),
        known=KNOWN,
        tenant_share=st.sampled_from([0.25, 0.5, 1.0]),
        classes=CLASSES,
        tenants=TENANTS,
    )
    def begin(  # noqa: PLR0917
        self,
        limit: float,
        moves: bool,
        bound: float | None,
        order: Order,
        shares: dict[Criticality, float],
        known: int,
        tenant_share: float,
        classes: list[Criticality],
        tenants: list[Hashable],
    ) -> None:
        self.classes, self.tenants = classes, tenants
        self.admission: Admission[Ticket] = Admission(
            Scripted(limit) if moves else limit,
            bound,
            order=order,
            shares=shares or None,
            tenants=known,
            tenant_share=tenant_share,
        )
        self.naive = Naive(
            Scripted(limit) if moves else limit,
            bound,
            order,
            shares,
            tenants=known,
            tenant_share=tenant_share,
        )

    def new(self, criticality: int, tenant: int, cost: int, wait: float, left: float) -> Ticket:
        ticket = Ticket(
            self.now + wait,
            deadline=self.now + left,
            criticality=self.classes[criticality % len(self.classes)],
            tenant=self.tenants[tenant % len(self.tenants)],
            cost=cost,
        )
        self.naive.waits[ticket] = self.now + wait
        return ticket

    def told(self, settled: list[Ticket], expected: list[Ticket]) -> None:
        """Exactly those who are told have been settled, each of them once."""
        assert len(settled) == len(set(settled))
        assert settled == expected
        self.untaken += [ticket for ticket in settled if ticket.state is State.ADMITTED]

    @precondition(lambda self: self.naive.is_plain)
    @rule()
    def enter(self) -> None:
        naive = self.naive
        has_room = naive.ongoing < naive.limit and not naive.queue and not naive.is_closed
        assert self.admission.enter() is has_room
        self.naive.loose += has_room

    @precondition(lambda self: self.naive.loose)
    @rule()
    def leave(self) -> None:
        self.naive.loose -= 1
        self.naive.completed += 1
        if self.naive.is_plain:
            assert bool(self.admission.watch) is bool(self.naive.queue)
        settled = self.admission.expire(self.now) if self.admission.leave() else []
        self.told(settled, self.naive.settle(self.now))

    @rule(kinds=st.lists(KINDS, min_size=1, max_size=8), pause=PAUSES, pace=PACES)
    def offer(self, kinds: list[Kind], pause: float, pace: float) -> None:
        for kind in kinds:
            self.now += pause
            ticket = self.new(*kind)
            settled = self.admission.offer(ticket, self.now, pace=pace)
            self.told(settled, self.naive.offer(ticket, self.now, pace))
            if ticket.state is State.ADMITTED:
                self.held.append(ticket)

    @rule(kind=KINDS)
    def offer_nowait(self, kind: Kind) -> None:
        ticket = self.new(*kind[:3], math.inf, math.inf)
        settled = self.admission.offer_nowait(ticket, self.now)
        self.told(settled, self.naive.offer_nowait(ticket, self.now))
        assert ticket.state in {State.ADMITTED, State.SHED}
        if ticket.state is State.ADMITTED:
            self.held.append(ticket)

    @rule()
    def turn_away(self) -> None:
        """It says yes only where an offer would be shed, and no only where that is not plain."""
        naive, usual = self.naive, Ticket()
        all_alive = all(naive.ends(each) > self.now for each in naive.queue)
        would_shed = (
            all_alive
            and not naive.goes_at_once(usual)
            and not naive.has_place(usual)
            and (not naive.bound or naive.displaced_by(usual, self.now) is None)
        )
        is_plain = (
            naive.order == "fifo"
            and naive.ongoing >= naive.limit
            and all((each.criticality, each.tenant) == USUAL for each in naive.queue)
            and self.admission.line.expiries.next > self.now
        )
        if self.admission.turn_away(self.now):
            assert would_shed
            naive.count("queue_full")
        else:
            assert not (would_shed and is_plain)

    @rule(left=st.integers(-1, 1))
    def turn_away_late(self, left: int) -> None:
        assert self.admission.turn_away_late(self.now + left, self.now) is (left <= 0)
        if left <= 0:
            self.naive.count("deadline")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), ok=st.sampled_from([True, True, False, None]), limit=MOVES)
    def release(self, data: st.DataObject, ok: bool | None, limit: int | None) -> None:
        self.release_one(data.draw(st.sampled_from(self.held)), ok, limit)

    @rule(times=st.integers(2, 6), pause=PAUSES)
    def take_and_release(self, times: int, pause: float) -> None:
        for _ in range(times):
            self.now += pause
            if self.untaken:
                self.take()
            if self.held:
                self.release_one(self.held[0], True, None)

    def release_one(self, ticket: Ticket, ok: bool | None, limit: int | None) -> None:
        self.held.remove(ticket)
        naive, rule = self.naive, self.admission.rule
        before, waiting, closed = naive.ongoing, bool(naive.queue), naive.is_closed
        if isinstance(rule, Scripted):
            assert isinstance(naive.rule, Scripted)
            rule.next = naive.rule.next = rule.limit if limit is None else limit
            rule.seen.clear()
        seconds = self.now - naive.started[ticket]
        old = naive.limit
        settled = self.admission.release(ticket, self.now, ok)
        self.told(settled, naive.release(ticket, self.now, ok))
        if isinstance(rule, Scripted):
            evidence = max(before, old) if waiting and not closed else before
            assert rule.seen == ([] if ok is None else [(self.now, seconds, ok, evidence)])

    @precondition(lambda self: self.untaken)
    @rule()
    def take_next(self) -> None:
        self.take()

    def take(self) -> None:
        ticket = self.untaken.pop(0)
        settled = self.admission.claim(ticket, self.now)
        if ticket.deadline > self.now:
            assert settled == []
            self.held.append(ticket)
        else:
            del self.naive.running[ticket]
            self.naive.turn_away(ticket, State.EXPIRED, "deadline")
            self.told(settled, self.naive.settle(self.now))

    def abandon(self, ticket: Ticket, gone: Callable[[Ticket], object]) -> None:
        gone(ticket)
        self.naive.abandoned += 1
        self.naive.states[ticket] = State.ABANDONED
        settled = self.admission.abandon(ticket, self.now)
        self.told(settled, self.naive.settle(self.now))

    @precondition(lambda self: self.untaken)
    @rule(data=st.data())
    def abandon_in_the_step_of_the_grant(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.untaken))
        self.untaken.remove(ticket)
        self.abandon(ticket, self.naive.running.pop)

    @precondition(lambda self: self.naive.queue)
    @rule(data=st.data())
    def abandon_while_queued(self, data: st.DataObject) -> None:
        self.abandon(data.draw(st.sampled_from(self.naive.queue)), self.naive.leaves)

    @rule(data=st.data())
    def abandon_when_it_is_over(self, data: st.DataObject) -> None:
        over = {State.EXPIRED, State.SHED, State.ABANDONED}
        tickets = [ticket for ticket, state in self.naive.states.items() if state in over]
        if tickets:
            assert self.admission.abandon(data.draw(st.sampled_from(tickets)), self.now) == []

    @precondition(lambda self: len(self.naive.queue) > 3)
    @rule()
    def dismiss(self) -> None:
        waiting = list(self.naive.queue)
        for ticket in waiting:
            self.naive.leaves(ticket)
            self.naive.turn_away(ticket, State.EXPIRED, "unavailable")
        self.told(self.admission.dismiss(), waiting)
        self.told(self.admission.expire(self.now), [])

    @precondition(lambda self: not self.naive.is_closed)
    @rule()
    def close(self) -> None:
        self.naive.is_closed = True
        self.admission.close()

    @precondition(lambda self: self.naive.is_closed)
    @rule()
    def open(self) -> None:
        self.naive.is_closed = False
        self.told(self.admission.open(self.now), self.naive.settle(self.now))

    @rule(seconds=st.integers(0, 4))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.told(self.admission.expire(self.now), self.naive.settle(self.now))

    @rule(limit=LIMITS, moves=st.booleans(), bound=BOUNDS)
    def resize(self, limit: float, moves: bool, bound: float | None) -> None:
        self.naive.resize(Scripted(limit) if moves else limit, bound)
        settled = self.admission.resize(
            self.now, limit=Scripted(limit) if moves else limit, max_queued=bound
        )
        self.told(settled, self.naive.settle(self.now))

    # It agrees with the model.

    @invariant()
    def the_same_wait_and_all_stand_where_they_should(self) -> None:
        type(self).steps += 1
        assert list(self.admission.line.entries.values()) == self.naive.queue
        assert all(ticket.state is state for ticket, state in self.naive.states.items())

    @invariant()
    def its_counts_are_right(self) -> None:
        admission, naive = self.admission, self.naive
        assert admission.ongoing == naive.ongoing
        assert admission.permits == len(self.held) + len(self.untaken) + naive.loose
        assert admission.admitted == admission.completed + admission.permits
        assert (admission.completed, admission.abandoned) == (naive.completed, naive.abandoned)
        assert {why: n for why, n in admission.shed.items() if n} == naive.shed

    @invariant()
    def whoever_was_turned_away_can_say_why_and_nobody_else(self) -> None:
        for ticket, state in self.naive.states.items():
            assert (ticket.reason is not None) is (state in {State.SHED, State.EXPIRED})

    @invariant()
    def the_bounds_are_what_the_settings_say(self) -> None:
        admission, naive = self.admission, self.naive
        assert (admission.limit, admission.line.bound) == (naive.limit, naive.bound)
        assert admission.is_plain is naive.is_plain
        assert admission.typical == naive.typical

    # What holds whatever the model says.

    @invariant()
    def ongoing_exceeds_the_limit_only_while_draining(self) -> None:
        ongoing, limit = self.admission.ongoing, self.admission.limit
        assert ongoing <= max(limit, self.most_ongoing)
        self.most_ongoing = ongoing

    @invariant()
    def the_line_exceeds_its_bound_only_where_that_was_lowered(self) -> None:
        queued = len(self.admission.line)
        assert queued <= max(self.admission.line.bound, self.most_queued)
        self.most_queued = queued

    @invariant()
    def a_tenant_has_no_more_than_its_part_of_the_line_unless_the_bound_was_lowered(self) -> None:
        most = max(1, self.naive.tenant_share * self.admission.line.bound)
        entries = self.admission.line.entries.values()
        rows = [self.naive.place[each] for each in entries if each.tenant is not None]
        for row in rows:
            assert rows.count(row) <= max(most, self.most_of.get(row, 0))
        self.most_of = {row: rows.count(row) for row in rows}

    @invariant()
    def nobody_waits_while_there_is_room_for_the_one_whose_turn_it_is(self) -> None:
        admission, line = self.admission, list(self.admission.line.entries.values())
        free = admission.limit - admission.ongoing
        if line and free > 0 and not admission.is_closed:
            assert admission.ongoing > 0
            assert max(each.cost for each in line) > free

    @invariant()
    def nobody_is_kept_out_once_it_is_open(self) -> None:
        assert self.admission.is_closed is self.naive.is_closed
        assert self.admission.is_closed or self.naive.who_may_go(self.now) is None

    @invariant()
    def the_highest_class_waits_only_for_room_or_for_who_has_a_claim(self) -> None:
        admission, naive = self.admission, self.naive
        if naive.queue and admission.ongoing < admission.limit and not admission.is_closed:
            highest = min(each.criticality for each in naive.queue)
            has_claim = naive.class_in_turn()
            assert has_claim is highest or (
                naive.is_below_its_share(has_claim) or naive.passed_over[has_claim] >= PATIENCE
            )

    @invariant()
    def a_class_below_its_share_waits_only_for_one_that_is_as_well(self) -> None:
        admission, naive = self.admission, self.naive
        free = admission.limit - admission.ongoing
        tired = max(naive.passed_over.values()) >= PATIENCE
        if not naive.queue or free <= 0 or tired or admission.is_closed:
            return
        below = [each for each in Criticality if naive.of(each) and naive.is_below_its_share(each)]
        if below:
            assert not naive.fits(naive.first_of(below[0], self.now))

    @invariant()
    def no_class_is_passed_over_for_ever(self) -> None:
        """Each of the others may be due at the same time."""
        assert max(self.naive.passed_over.values()) < PATIENCE + len(Criticality)

    @invariant()
    def a_slot_is_had_without_a_ticket_only_where_nobody_is_overtaken(self) -> None:
        admission = self.admission
        if admission.ongoing < admission.unticketed:
            assert admission.is_plain
            assert not admission.line.entries
            assert not admission.is_closed


class FixedMachine(AdmissionMachine):
    """A fixed limit, first in first out, no shares: a slot may be had without a ticket."""

    steps = 0

    @initialize(limit=LIMITS, bound=BOUNDS, known=KNOWN, classes=CLASSES, tenants=TENANTS)
    def begin(
        self,
        limit: float,
        bound: float | None,
        known: int,
        classes: list[Criticality],
        tenants: list[Hashable],
    ) -> None:
        self.classes, self.tenants = classes, tenants
        self.admission = Admission(limit, bound, tenants=known)
        self.naive = Naive(limit, bound, "fifo", {}, tenants=known, tenant_share=0.5)

    @rule(limit=LIMITS, bound=BOUNDS)
    def resize(self, limit: float, bound: float | None) -> None:
        super().resize(limit, False, bound)


class PlainMachine(FixedMachine):
    """The same with one class, one tenant, one slot each: strictly first in, first out."""

    steps = 0
    last: Ticket | None = None

    def new(self, criticality: int, tenant: int, cost: int, wait: float, left: float) -> Ticket:
        self.classes, self.tenants = [CRITICAL], [None]
        return super().new(criticality, tenant, 1, wait, left)

    def told(self, settled: list[Ticket], expected: list[Ticket]) -> None:
        super().told(settled, expected)
        arrivals = list(self.naive.waits)
        admitted = [each for each in settled if each.state is State.ADMITTED]
        order = [arrivals.index(each) for each in [self.last, *admitted] if each is not None]
        assert order == sorted(order)
        if admitted:
            self.last = admitted[-1]

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        has_room = self.admission.ongoing < self.admission.limit
        assert not (self.admission.line and has_room) or self.admission.is_closed


@pytest.mark.parametrize("machine", [AdmissionMachine, FixedMachine, PlainMachine])
def test_it_agrees_with_the_model_however_long_it_goes_on(
    machine: type[AdmissionMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadshed._policy.line.line.PATIENCE_OF_A_CLASS", PATIENCE)
    run_state_machine_as_test(machine)
    print(f"{machine.steps:,} steps of {machine.__name__}")
    soaking = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
    assert machine.steps >= (100_000 if soaking else 4_000)


def passes_on(admission: Admission[Ticket], now: float) -> list[Ticket]:
    """A permit that was taken without a ticket comes back."""
    return admission.expire(now) if admission.leave() else []


def test_the_queue_is_first_in_first_out() -> None:
    admission: Admission[Ticket] = Admission(1, 10)
    assert admission.enter()
    tickets = [Ticket() for _ in range(10)]
    for ticket in tickets:
        admission.offer(ticket, 0)
    assert passes_on(admission, 0) == tickets[:1]
    assert [admission.release(each, 0) for each in tickets] == [
        *([ticket] for ticket in tickets[1:]),
        [],
    ]


def test_a_waiter_past_its_expiry_makes_room_for_a_newcomer() -> None:
    admission: Admission[Ticket] = Admission(1, 1)
    assert admission.enter()
    late, newcomer = Ticket(expires_at=1), Ticket()
    admission.offer(late, 0)
    assert not admission.turn_away(1)
    assert admission.offer(newcomer, 1) == [late]
    assert late.state is State.EXPIRED
    assert newcomer.state is State.QUEUED


def test_a_permit_is_never_given_to_a_waiter_past_its_expiry() -> None:
    admission: Admission[Ticket] = Admission(1, 2)
    assert admission.enter()
    late, patient = Ticket(expires_at=1), Ticket()
    admission.offer(late, 0)
    admission.offer(patient, 0)
    assert passes_on(admission, 5) == [late, patient]
    assert (late.state, patient.state) == (State.EXPIRED, State.ADMITTED)


def test_a_request_that_comes_at_its_deadline_takes_no_free_permit() -> None:
    admission: Admission[Ticket] = Admission(1, 1)
    ticket = Ticket(deadline=5)
    assert admission.offer(ticket, 5) == []
    assert (ticket.state, ticket.reason) == (State.SHED, "deadline")
    assert admission.turn_away_late(5, 5)
    assert (admission.ongoing, admission.shed["deadline"]) == (0, 2)


def test_a_deadline_that_the_pace_cannot_meet_is_shed_on_arrival_and_one_that_it_can_waits() -> (
    None
):
    admission: Admission[Ticket] = Admission(1, 9)
    assert admission.enter()
    admission.offer(Ticket(), 0)
    for left, state in [(3.9, State.SHED), (4, State.QUEUED), (math.inf, State.QUEUED)]:
        ticket = Ticket(deadline=left)
        admission.offer(ticket, 0, pace=2)
        assert ticket.state is state
    assert admission.shed["deadline"] == 1


def test_with_a_free_permit_no_pace_sheds_anybody() -> None:
    admission: Admission[Ticket] = Admission(1, 9)
    ticket = Ticket(deadline=1)
    admission.offer(ticket, 0, pace=1000)
    assert ticket.state is State.ADMITTED


def test_whoever_has_expired_does_not_count_in_the_estimate_for_a_newcomer() -> None:
    admission: Admission[Ticket] = Admission(1, 9)
    assert admission.enter()
    admission.offer(Ticket(expires_at=1), 0)
    ticket = Ticket(deadline=3)
    admission.offer(ticket, 1, pace=2)
    assert ticket.state is State.QUEUED


def test_a_queue_that_is_full_is_said_to_be_full_whatever_the_deadline() -> None:
    admission: Admission[Ticket] = Admission(1, 0)
    assert admission.enter()
    ticket = Ticket(deadline=1)
    admission.offer(ticket, 0, pace=1000)
    assert (ticket.state, ticket.reason) == (State.SHED, "queue_full")


def test_what_ends_a_wait_is_named_and_at_the_same_instant_it_is_the_deadline() -> None:
    admission: Admission[Ticket] = Admission(1, 9)
    assert admission.enter()
    tickets = [Ticket(2, deadline=3), Ticket(3, deadline=2), Ticket(2, deadline=2)]
    for ticket in tickets:
        admission.offer(ticket, 0)
    admission.expire(3)
    assert [ticket.reason for ticket in tickets] == ["queue_timeout", "deadline", "deadline"]


def test_a_permit_that_is_claimed_after_the_deadline_goes_to_the_next() -> None:
    admission: Admission[Ticket] = Admission(1, 9)
    assert admission.enter()
    late, patient = Ticket(deadline=5), Ticket()
    admission.offer(late, 0)
    admission.offer(patient, 0)
    assert passes_on(admission, 4) == [late]
    assert admission.claim(late, 5) == [patient]
    assert (late.state, late.reason) == (State.EXPIRED, "deadline")
    assert admission.claim(patient, 5) == []
    assert (admission.ongoing, admission.admitted) == (1, 2)


# Failures that peers have, as traces of their own.


def test_cancelling_a_queued_waiter_loses_no_slot() -> None:
    """hyx's bulkhead loses one for good."""
    admission: Admission[Ticket] = Admission(1, 2)
    assert admission.enter()
    gone, patient = Ticket(), Ticket()
    admission.offer(gone, 0)
    admission.offer(patient, 0)
    admission.abandon(gone, 0)
    assert passes_on(admission, 0) == [patient]
    assert passes_on(admission, 0) == []
    assert admission.enter()


def test_a_waiter_cancelled_in_the_step_of_its_grant_hands_its_permit_on() -> None:
    admission: Admission[Ticket] = Admission(1, 2)
    assert admission.enter()
    gone, patient = Ticket(), Ticket()
    admission.offer(gone, 0)
    admission.offer(patient, 0)
    assert passes_on(admission, 0) == [gone]
    assert admission.abandon(gone, 0) == [patient]
    assert (gone.state, patient.state) == (State.ABANDONED, State.ADMITTED)
    assert (admission.ongoing, admission.admitted, admission.abandoned) == (1, 2, 1)


def test_shrinking_the_limit_under_load_and_growing_it_again_strands_nobody() -> None:
    """ace-concurrency deadlocks."""
    admission: Admission[Ticket] = Admission(4, 4)
    assert all(admission.enter() for _ in range(4))
    waiting = [Ticket() for _ in range(4)]
    for ticket in waiting:
        admission.offer(ticket, 0)
    assert admission.resize(0, limit=2, max_queued=4) == []
    assert [passes_on(admission, 0) for _ in range(2)] == [[], []]
    assert passes_on(admission, 0) == waiting[:1]
    assert admission.resize(0, limit=4, max_queued=4) == waiting[1:3]
    assert passes_on(admission, 0) == waiting[3:]
    for _ in range(4):
        passes_on(admission, 0)
    assert admission.ongoing == 0


def test_all_that_wait_can_be_dismissed() -> None:
    admission: Admission[Ticket] = Admission(limit=1, max_queued=2)
    assert admission.enter()
    waiting = [Ticket(), Ticket(expires_at=5.0)]
    for ticket in waiting:
        admission.offer(ticket, now=0.0)
    assert admission.dismiss() == waiting
    assert [ticket.state for ticket in waiting] == [State.EXPIRED] * 2
    assert admission.shed["unavailable"] == 2
    assert (len(admission.line), admission.ongoing) == (0, 1)
    assert admission.dismiss() == []


# While it is closed.


def test_while_it_is_closed_whoever_comes_waits_though_slots_are_free_and_then_all_begin() -> None:
    for shares in [None, {Criticality.CRITICAL: 0.5}]:  # with a ticket only where one is needed
        admission: Admission[Ticket] = Admission(3, 9, shares=shares)
        admission.close()
        assert not admission.enter()
        tickets = [Ticket() for _ in range(4)]
        for ticket in tickets:
            assert admission.offer(ticket, 0, pace=1) == []
            assert ticket.state is State.QUEUED
        assert admission.expire(1) == []
        assert admission.open(1) == tickets[:3]
        assert admission.release(tickets[0], 2) == tickets[3:]
        assert not admission.is_closed


def test_a_slot_that_comes_back_while_it_is_closed_is_had_when_it_is_open() -> None:
    admission: Admission[Ticket] = Admission(1, 9)
    assert admission.enter()
    patient, hasty = Ticket(), Ticket(expires_at=1)
    admission.offer(patient, 0)
    admission.offer(hasty, 0)
    admission.close()
    assert passes_on(admission, 0) == []
    assert admission.expire(1) == [hasty]
    assert admission.resize(1, limit=2, max_queued=9) == []
    assert not admission.enter()
    assert admission.open(1) == [patient]
    assert admission.enter()


def test_whoever_finds_no_place_while_it_is_closed_hears_why_it_could_not_begin() -> None:
    admission: Admission[Ticket] = Admission(1, 1)
    admission.close()
    kept_out, full = Ticket(), Ticket()
    admission.offer(Ticket(), 0)
    admission.offer(kept_out, 0)
    assert admission.offer_nowait(Ticket(criticality=CRITICAL_PLUS), 0) == []
    admission.offer(full, 0)
    assert (kept_out.reason, full.reason) == ("loop_lag", "queue_full")


def test_a_deadline_that_no_pace_could_meet_is_waited_for_where_only_the_loop_is_late() -> None:
    admission: Admission[Ticket] = Admission(1, 9)
    admission.close()
    ticket = Ticket(deadline=1)
    admission.offer(ticket, 0, pace=1000)
    assert admission.open(0.5) == [ticket]


def test_whoever_will_not_wait_is_let_in_while_it_is_closed() -> None:
    admission: Admission[Ticket] = Admission(1, 0)
    admission.close()
    ticket, late = Ticket(), Ticket()
    assert admission.offer_nowait(ticket, 0) == []
    assert ticket.state is State.ADMITTED
    assert admission.open(0) == []
    admission.offer(late, 0)
    assert late.reason == "queue_full"
