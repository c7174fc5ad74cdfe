"""Admission against a naive model: the invariants that everything else stands on."""

import math
import os

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loadshed._policy.admission import Admission, State, Ticket

LIMITS = st.one_of(st.integers(1, 5), st.just(math.inf))
BOUNDS = st.one_of(st.integers(0, 5), st.just(math.inf))
WAITS = st.one_of(st.just(math.inf), st.integers(0, 6).map(float))
PACES = st.sampled_from([0, 0.5, 1, 3])


class Naive:
    """What `Admission` should come to, with lists and loops."""

    def __init__(self, limit: float, bound: float) -> None:
        self.limit, self.bound = limit, bound
        self.running = 0
        self.queue: list[Ticket] = []
        self.states: dict[Ticket, State] = {}
        self.waits: dict[Ticket, float] = {}  # until when each waits, whatever its deadline
        self.deadlines: dict[Ticket, float] = {}
        self.completed = self.abandoned = self.full = self.timeouts = self.late = 0

    def advance(self, now: float) -> set[Ticket]:
        late = {ticket for ticket in self.queue if self.deadlines[ticket] <= now}
        timed_out = {ticket for ticket in self.queue if self.waits[ticket] <= now}
        both = late & timed_out
        first = {ticket for ticket in both if self.waits[ticket] < self.deadlines[ticket]}
        self.late += len(late - first)
        self.timeouts += len(timed_out - (both - first))
        dead = late | timed_out
        self.queue = [ticket for ticket in self.queue if ticket not in dead]
        free = max(0, min(len(self.queue), self.limit - self.running))
        next_ones, self.queue = self.queue[: int(free)], self.queue[int(free) :]
        self.running += len(next_ones)
        self.states |= dict.fromkeys(dead, State.EXPIRED)
        self.states |= dict.fromkeys(next_ones, State.ADMITTED)
        return dead | set(next_ones)


class AdmissionMachine(RuleBasedStateMachine):
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.admission: Admission[Ticket] = Admission(2, 2)
        self.naive = Naive(2, 2)
        self.now = 0.0
        self.held = 0  # permits that somebody has, to release
        self.untaken: list[Ticket] = []  # granted, but their callers have not run since
        self.over = 0  # ongoing beyond the limit, after it was lowered

    def told(self, settled: list[Ticket], expected: set[Ticket]) -> None:
        """Exactly those who are told have been settled, each of them once."""
        assert len(settled) == len(set(settled))
        assert set(settled) == expected
        self.untaken += [ticket for ticket in settled if ticket.state is State.ADMITTED]

    @rule()
    def enter(self) -> None:
        has_room = self.naive.running < self.naive.limit
        assert self.admission.enter() is has_room
        if has_room:
            self.naive.running += 1
            self.held += 1

    @rule(wait=WAITS, left=WAITS, pace=PACES)
    def offer(self, wait: float, left: float, pace: float) -> None:
        ticket = Ticket(self.now + wait, deadline=self.now + left)
        self.naive.waits[ticket], self.naive.deadlines[ticket] = self.now + wait, self.now + left
        settled = self.admission.offer(ticket, self.now, pace=pace)
        self.told(settled, self.naive.advance(self.now))
        if left == 0:
            self.naive.states[ticket] = State.SHED
            self.naive.late += 1
        elif self.naive.running < self.naive.limit:
            self.naive.states[ticket] = State.ADMITTED
            self.naive.running += 1
            self.held += 1
        elif len(self.naive.queue) >= self.naive.bound:
            self.naive.states[ticket] = State.SHED
            self.naive.full += 1
        elif sum(pace for _ in [*self.naive.queue, ticket]) > left:
            self.naive.states[ticket] = State.SHED
            self.naive.late += 1
        else:
            self.naive.states[ticket] = State.QUEUED
            self.naive.queue.append(ticket)

    @precondition(lambda self: self.naive.running >= self.naive.limit)
    @rule()
    def turn_away(self) -> None:
        """It says yes only where an offer would be shed, and no only where it need not be."""
        living = sum(ticket.expires_at > self.now for ticket in self.naive.queue)
        would_shed = len(self.naive.queue) >= self.naive.bound and living == len(self.naive.queue)
        if self.admission.turn_away(self.now):
            assert would_shed
            self.naive.full += 1
        else:
            assert not would_shed or self.admission.line.next_expiry <= self.now

    @rule(left=st.integers(-1, 1))
    def turn_away_late(self, left: int) -> None:
        assert self.admission.turn_away_late(self.now + left, self.now) is (left <= 0)
        self.naive.late += left <= 0

    @precondition(lambda self: self.held)
    @rule(in_short=st.booleans())
    def release(self, in_short: bool) -> None:
        self.held -= 1
        self.naive.running -= 1
        self.naive.completed += 1
        if not in_short:
            settled = self.admission.release(self.now)
        elif self.admission.leave():
            settled = self.admission.expire(self.now)
        else:
            settled = []
        self.told(settled, self.naive.advance(self.now))

    @precondition(lambda self: self.untaken)
    @rule()
    def take(self) -> None:
        ticket = self.untaken.pop(0)
        settled = self.admission.claim(ticket, self.now)
        if self.naive.deadlines[ticket] > self.now:
            assert settled == []
            self.held += 1
        else:
            self.naive.states[ticket] = State.EXPIRED
            self.naive.late += 1
            self.naive.running -= 1
            self.told(settled, self.naive.advance(self.now))

    @precondition(lambda self: self.untaken)
    @rule(data=st.data())
    def abandon_in_the_step_of_the_grant(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.untaken))
        self.untaken.remove(ticket)
        self.naive.running -= 1
        self.naive.abandoned += 1
        self.naive.states[ticket] = State.ABANDONED
        settled = self.admission.abandon(ticket, self.now)
        self.told(settled, self.naive.advance(self.now))

    @precondition(lambda self: self.naive.queue)
    @rule(data=st.data())
    def abandon_while_queued(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.naive.queue))
        self.naive.queue.remove(ticket)
        self.naive.abandoned += 1
        self.naive.states[ticket] = State.ABANDONED
        settled = self.admission.abandon(ticket, self.now)
        self.told(settled, self.naive.advance(self.now))

    @rule(data=st.data())
    def abandon_when_it_is_over(self, data: st.DataObject) -> None:
        over = {State.EXPIRED, State.SHED, State.ABANDONED}
        tickets = [ticket for ticket, state in self.naive.states.items() if state in over]
        if tickets:
            assert self.admission.abandon(data.draw(st.sampled_from(tickets)), self.now) == []

    @rule(seconds=st.integers(0, 4))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.told(self.admission.expire(self.now), self.naive.advance(self.now))

    @rule(limit=LIMITS, bound=BOUNDS)
    def resize(self, limit: float, bound: float) -> None:
        self.naive.limit, self.naive.bound = limit, bound
        settled = self.admission.resize(self.now, limit=limit, max_queued=bound)
        self.told(settled, self.naive.advance(self.now))
        self.over = max(0, int(min(self.naive.running, 1e9) - min(limit, 1e9)))

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        type(self).steps += 1
        admission, naive = self.admission, self.naive
        assert list(admission.line.entries.values()) == naive.queue
        assert all(ticket.state is state for ticket, state in naive.states.items())
        assert admission.ongoing == naive.running == self.held + len(self.untaken)
        assert admission.completed == naive.completed
        assert admission.abandoned == naive.abandoned
        assert admission.shed == {
            "queue_full": naive.full,
            "queue_timeout": naive.timeouts,
            "deadline": naive.late,
            "unavailable": 0,
        }
        turned_away = {State.SHED, State.EXPIRED}
        for ticket, state in naive.states.items():
            assert (ticket.reason is not None) is (state in turned_away)

    @invariant()
    def admitted_is_completed_and_ongoing(self) -> None:
        assert self.admission.admitted == self.admission.completed + self.admission.ongoing

    @invariant()
    def ongoing_exceeds_the_limit_only_while_draining(self) -> None:
        over = max(0, self.admission.ongoing - self.admission.limit)
        assert over <= self.over
        self.over = min(self.over, int(over))

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        assert not (self.admission.line and self.admission.ongoing < self.admission.limit)


def test_it_agrees_with_the_model_however_long_it_goes_on() -> None:
    run_state_machine_as_test(AdmissionMachine)
    print(f"{AdmissionMachine.steps:,} steps of the state machine")
    soaking = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
    assert AdmissionMachine.steps >= (100_000 if soaking else 5_000)


def test_the_queue_is_first_in_first_out() -> None:
    admission: Admission[Ticket] = Admission(1, 10)
    assert admission.enter()
    tickets = [Ticket() for _ in range(10)]
    for ticket in tickets:
        admission.offer(ticket, 0)
    assert [admission.release(0) for _ in tickets] == [[ticket] for ticket in tickets]


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
    assert admission.release(5) == [late, patient]
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
    assert admission.release(4) == [late]
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
    assert admission.release(0) == [patient]
    assert admission.release(0) == []
    assert admission.enter()


def test_a_waiter_cancelled_in_the_step_of_its_grant_hands_its_permit_on() -> None:
    admission: Admission[Ticket] = Admission(1, 2)
    assert admission.enter()
    gone, patient = Ticket(), Ticket()
    admission.offer(gone, 0)
    admission.offer(patient, 0)
    assert admission.release(0) == [gone]
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
    assert [admission.release(0) for _ in range(2)] == [[], []]
    assert admission.release(0) == waiting[:1]
    assert admission.resize(0, limit=4, max_queued=4) == waiting[1:3]
    assert admission.release(0) == waiting[3:]
    for _ in range(4):
        admission.release(0)
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
