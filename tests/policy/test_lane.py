"""A lane and its lengths, against lists: more tenants than are told apart, and what is kept."""

from collections.abc import Hashable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loadshed._policy.criticality import Criticality
from loadshed._policy.line.lane import Lane
from loadshed._policy.line.row import Lengths, Row
from loadshed._policy.ticket import Ticket


class LaneMachine(RuleBasedStateMachine):
    """Whatever row a tenant is in, nobody is lost, and what is kept is bounded."""

    @initialize(tenants=st.integers(1, 4))
    def begin(self, tenants: int) -> None:
        self.tenants = tenants
        self.lane: Lane[Ticket] = Lane(Criticality.CRITICAL, 0.0, tenants)
        self.waiting: list[Ticket] = []
        self.patience = 5.0
        self.now = 0.0

    @rule(tenant=st.integers(0, 8), cost=st.integers(1, 4))
    def append(self, tenant: int, cost: int) -> None:
        ticket = Ticket(tenant=tenant, cost=cost)
        self.waiting.append(ticket)
        self.lane.append(ticket, self.now)
        assert self.lane.length_of(tenant) > 0

    @precondition(lambda self: self.waiting)
    @rule()
    def look_who_is_first_and_serve_it(self) -> None:
        first = self.lane.first(self.now, self.patience)
        assert self.lane.first(self.now, self.patience) is first
        self.lane.serve(first)
        self.waiting.remove(first)
        assert first.row is None

    @precondition(lambda self: self.waiting)
    @rule()
    def look_who_is_first(self) -> None:
        assert self.lane.first(self.now, self.patience) in self.waiting

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(ticket)
        self.lane.remove(ticket)
        assert ticket.row is None

    @precondition(lambda self: self.waiting)
    @rule(tenant=st.integers(0, 8))
    def ask_who_has_to_go(self, tenant: int) -> None:
        newcomer = Ticket(tenant=tenant)
        assert self.lane.oldest in self.waiting
        displaced = self.lane.displaced_by(newcomer, self.now, self.patience)
        assert displaced is None or displaced in self.waiting
        if self.lane.length_of(tenant):
            displaced = self.lane.oldest_of(tenant, self.now, self.patience)
            assert displaced is None or displaced in self.waiting

    @rule(seconds=st.integers(0, 4))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def all_that_wait_are_in_its_rows_each_once(self) -> None:
        rows = [*self.lane._rows.values(), self.lane._others]
        tickets = [each for row in rows for each in row.tickets.values()]
        assert len(tickets) == self.lane.waiting == len(self.waiting)
        assert set(tickets) == set(self.waiting)

    @invariant()
    def the_oldest_of_the_longest_row_has_to_go_for_a_higher_class(self) -> None:
        if self.waiting:
            row = self.lane.oldest.row
            assert row is not None
            assert len(row) == max(map(len, [*self.lane._rows.values(), self.lane._others]))

    @invariant()
    def no_more_is_kept_than_there_are_tenants_told_apart_and_the_others(self) -> None:
        lane = self.lane
        rows = [row for row in [*lane._rows.values(), lane._others] if row.tickets]
        empty = [tenant for tenant, row in lane._rows.items() if not row.tickets]
        assert len(lane._rows) <= self.tenants
        assert set(lane._empty) == set(empty)
        assert len(lane._turns) <= 2 * len(rows) + 18
        assert sum(map(len, lane._lengths._of_length.values())) == len(rows)


TestLane = LaneMachine.TestCase


class LengthsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lengths: Lengths[Ticket] = Lengths()
        self.rows: list[Row[Ticket]] = [Row() for _ in range(4)]
        self.order: list[Row[Ticket]] = []  # whose length changed last comes last

    def changed(self, row: Row[Ticket], before: int) -> None:
        self.lengths.changed(row, before)
        self.order = [each for each in self.order if each is not row] + [row]

    @rule(n=st.integers(0, 3))
    def one_comes(self, n: int) -> None:
        ticket, row = Ticket(), self.rows[n]
        row.tickets[id(ticket)] = ticket
        self.changed(row, len(row) - 1)

    @rule(n=st.integers(0, 3))
    def one_goes(self, n: int) -> None:
        row = self.rows[n]
        if len(row):
            row.tickets.popitem()
            self.changed(row, len(row) + 1)

    @invariant()
    def the_longest_is_the_one_that_has_been_so_long_for_the_longest_time(self) -> None:
        if any(map(len, self.rows)):
            assert self.lengths.longest is max(self.order, key=len)


TestLengths = LengthsMachine.TestCase


def lane_of(tenants: int) -> Lane[Ticket]:
    return Lane(Criticality.CRITICAL, 0.0, tenants)


def come(lane: Lane[Ticket], tenant: Hashable, cost: int = 1) -> Ticket:
    ticket = Ticket(tenant=tenant, cost=cost)
    lane.append(ticket, 0)
    return ticket


def go(lane: Lane[Ticket]) -> Hashable:
    first = lane.first(0, 1)
    lane.serve(first)
    return first.tenant


def test_for_a_new_tenant_the_one_is_forgotten_that_has_waited_for_nothing_for_the_longest() -> (
    None
):
    lane = lane_of(tenants=3)
    for tenant in "abcadbe":
        come(lane, tenant)
        go(lane)
    assert set(lane._rows) == set("dbe")


def test_a_tenant_that_waits_is_not_forgotten_and_those_that_are_too_many_share_a_row() -> None:
    lane = lane_of(tenants=2)
    for tenant in "abcdc":
        come(lane, tenant)
    assert [lane.length_of(tenant) for tenant in "abcx"] == [1, 1, 3, 3]
    assert go(lane) == "a"
    assert lane.length_of("x") == 0  # it would have the row of "a"
    come(lane, "x")
    assert [lane.length_of(tenant) for tenant in "xbca"] == [1, 1, 3, 3]
    assert [go(lane) for _ in range(5)] == ["b", "c", "x", "d", "c"]


def test_a_tenant_that_is_remembered_still_had_what_it_had_and_one_that_was_forgotten_did_not() -> (
    None
):
    for others, order in [("", ["b", "a"]), ("xyz", ["a", "b"])]:
        lane = lane_of(tenants=3)
        come(lane, "a", cost=9)
        assert go(lane) == "a"
        for tenant in others:
            come(lane, tenant)
            go(lane)
        come(lane, "a")
        come(lane, "b")
        assert [go(lane), go(lane)] == order


def test_turns_of_those_who_left_do_not_pile_up() -> None:
    lane = lane_of(tenants=1000)
    come(lane, "waits")
    for n in range(1000):
        lane.remove(come(lane, n))
        assert len(lane._turns) <= 20
    assert go(lane) == "waits"
