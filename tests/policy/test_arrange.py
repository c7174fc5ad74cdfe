"""Admission, when who goes first is changed while requests run and wait."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loadshed._policy.admission import Admission, Order
from loadshed._policy.criticality import Criticality
from loadshed._policy.ticket import State, Ticket

CRITICAL, SHEDDABLE = Criticality.CRITICAL, Criticality.SHEDDABLE
NONE: Mapping[Criticality, float] = {}


def arrange(admission: Admission[Ticket], now: float = 0, **changes: Any) -> list[Ticket]:
    usual: dict[str, Any] = {"order": "fifo", "shares": NONE, "tenants": 9, "tenant_share": 1}
    return admission.arrange(now, **usual | changes)


def offered(admission: Admission[Ticket], now: float = 0, **more: Any) -> Ticket:
    ticket = Ticket(**more)
    admission.offer(ticket, now)
    return ticket


def next_of(admission: Admission[Ticket], ongoing: Ticket, now: float = 1) -> Ticket:
    """Who gets the permit of one that ends."""
    (admitted,) = admission.release(ongoing, now)
    return admitted


def test_those_who_wait_go_by_the_new_order() -> None:
    admission = Admission[Ticket](1, 10)
    running = offered(admission)
    first, second, third = (offered(admission) for _ in range(3))
    assert arrange(admission, order="adaptive_lifo") == []
    ongoing = next_of(admission, running, now=1)  # nobody knows yet how long a request takes
    assert ongoing is first
    assert next_of(admission, ongoing, now=2.5) is third
    arrange(admission, order="fifo")
    assert next_of(admission, third, now=3) is second


def test_a_permit_from_before_there_were_shares_counts_for_no_class() -> None:
    admission = Admission[Ticket](4, 10)
    assert admission.enter()  # without a ticket
    before = offered(admission, criticality=SHEDDABLE)
    arrange(admission, shares={SHEDDABLE: 0.5})
    lane = admission.line.lane(SHEDDABLE)
    assert (admission.ongoing, lane.ongoing) == (2, 0)
    under = offered(admission, criticality=SHEDDABLE)
    assert lane.ongoing == 1
    admission.release(before, 1)
    admission.leave()
    assert (admission.ongoing, lane.ongoing) == (1, 1)
    admission.release(under, 1)
    assert (admission.ongoing, lane.ongoing) == (0, 0)


def test_a_permit_from_under_shares_is_counted_off_when_there_are_none_any_more() -> None:
    admission = Admission[Ticket](4, 10, shares={SHEDDABLE: 0.5})
    under = offered(admission, criticality=SHEDDABLE)
    arrange(admission)
    admission.release(under, 1)
    arrange(admission, shares={SHEDDABLE: 0.5})
    assert admission.line.lane(SHEDDABLE).ongoing == 0


def test_a_share_that_is_given_is_kept_from_then_on() -> None:
    admission = Admission[Ticket](2, 10)
    running = [offered(admission) for _ in range(2)]
    waiting = [offered(admission, criticality=each) for each in (CRITICAL, SHEDDABLE)]
    arrange(admission, shares={SHEDDABLE: 0.5})
    assert next_of(admission, running[0]) is waiting[1]
    assert next_of(admission, running[1]) is waiting[0]


def test_a_class_that_has_no_share_any_more_comes_last_again() -> None:
    admission = Admission[Ticket](2, 10, shares={SHEDDABLE: 0.5})
    running = [offered(admission) for _ in range(2)]
    sheddable, critical = (offered(admission, criticality=each) for each in (SHEDDABLE, CRITICAL))
    arrange(admission)
    assert next_of(admission, running[0]) is critical
    assert next_of(admission, running[1]) is sheddable


def test_a_tenant_may_have_another_part_of_the_line_from_then_on() -> None:
    admission = Admission[Ticket](1, 4)
    offered(admission)
    assert [offered(admission, tenant="a").state for _ in range(2)] == [State.QUEUED] * 2
    arrange(admission, tenant_share=0.5)
    assert offered(admission, tenant="a").state is State.SHED
    arrange(admission, tenant_share=1)
    assert offered(admission, tenant="a").state is State.QUEUED


def test_fewer_tenants_are_remembered_from_then_on() -> None:
    admission = Admission[Ticket](1, 100, tenant_share=1)
    running = offered(admission)
    waiting = [offered(admission, tenant=n) for n in range(8)]
    waiting += [offered(admission, tenant=9) for _ in range(3)]
    for _ in waiting:
        running = next_of(admission, running)
    lane = admission.line.lane(CRITICAL)
    assert len(lane._rows) > 2
    arrange(admission, tenants=2)
    assert len(lane._rows) == 2
    rows = [offered(admission, tenant=n).row for n in range(5)]
    assert rows[-1] is rows[-2] is lane._others


def test_who_waits_for_more_slots_is_not_overtaken_when_the_bounds_are_set_again() -> None:
    admission = Admission[Ticket](2, 10)
    running = offered(admission)
    large = offered(admission, cost=2)
    assert large.state is State.QUEUED
    admission.resize(0, limit=2, max_queued=10)
    assert not admission.enter()
    assert next_of(admission, running) is large
    admission.release(large, 2)
    assert admission.enter()  # and no ticket is needed any more


@pytest.mark.parametrize("order", ["fifo", "adaptive_lifo"])
def test_whoever_has_room_by_the_new_order_goes_at_once(order: Order) -> None:
    admission = Admission[Ticket](2, 10, shares={SHEDDABLE: 0.5})
    offered(admission)
    large = offered(admission, cost=2, criticality=SHEDDABLE)
    small = offered(admission)
    assert (large.state, small.state) == (State.QUEUED, State.QUEUED)
    assert arrange(admission, order=order) == [small]


class ArrangeMachine(RuleBasedStateMachine):
    """Whatever is changed when: nobody waits while there is room, and all counts come to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission[Ticket](3, 5)
        self.now = 0.0
        self.tickets: list[Ticket] = []
        self.without = 0

    def of(self, state: State) -> list[Ticket]:
        return [each for each in self.tickets if each.state is state]

    @rule(
        criticality=st.sampled_from(Criticality),
        tenant=st.sampled_from([None, "a", "b"]),
        cost=st.integers(1, 3),
    )
    def come(self, criticality: Criticality, tenant: str | None, cost: int) -> None:
        ticket = Ticket(self.now + 5, criticality=criticality, tenant=tenant, cost=cost)
        self.admission.offer(ticket, self.now)
        self.tickets.append(ticket)

    @rule()
    def enter(self) -> None:
        self.without += self.admission.enter()

    @precondition(lambda self: self.without)
    @rule()
    def leave(self) -> None:
        self.without -= 1
        self.admission.leave()
        self.admission.expire(self.now)

    @precondition(lambda self: self.of(State.ADMITTED))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.of(State.ADMITTED)))
        self.tickets.remove(ticket)
        self.admission.release(ticket, self.now)

    @rule(
        order=st.sampled_from(["fifo", "adaptive_lifo"]),
        shares=st.dictionaries(st.sampled_from(Criticality), st.sampled_from([0.1, 0.25])),
        tenants=st.integers(1, 3),
        tenant_share=st.sampled_from([0.2, 1]),
    )
    def arrange(self, **changes: Any) -> None:
        self.admission.arrange(self.now, **changes)

    @rule(limit=st.integers(1, 4), bound=st.none() | st.integers(0, 5))
    def resize(self, limit: int, bound: int | None) -> None:
        self.admission.resize(self.now, limit=limit, max_queued=bound)

    @rule(seconds=st.sampled_from([0.1, 3]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.admission.expire(self.now)

    @invariant()
    def it_counts_what_is_out(self) -> None:
        admitted = self.of(State.ADMITTED)
        slots = sum(each.slots for each in admitted)
        assert self.admission.ongoing == slots + self.without
        for criticality in Criticality:
            counted = [each for each in admitted if each.counts_for_class]
            mine = sum(each.slots for each in counted if each.criticality is criticality)
            assert self.admission.line.lane(criticality).ongoing == mine

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        admission = self.admission
        if admission.line.entries and admission.ongoing < admission.limit:
            lane = admission.line.next_lane(admission.limit)
            first = lane.first(self.now, admission._patience)
            assert first.cost > admission.limit - admission.ongoing > 0
            assert admission.ongoing  # else it would begin, whatever it costs
            assert not admission.enter()

    def teardown(self) -> None:
        self.admission.dismiss()
        for ticket in self.of(State.ADMITTED):
            self.admission.release(ticket, self.now)
        for _ in range(self.without):
            self.admission.leave()
        assert self.admission.ongoing == self.admission.permits == 0
        assert not any(self.admission.line.lane(each).ongoing for each in Criticality)


TestWhateverIsChanged = ArrangeMachine.TestCase
TestWhateverIsChanged.settings = hypothesis_settings(max_examples=100, deadline=None)
