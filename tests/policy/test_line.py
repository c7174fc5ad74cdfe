"""Who goes next, who may wait and who has to go: the rules, each in a sentence."""

import math
import sys
from collections.abc import Callable, Hashable, Iterable

import pytest

from loadshed._policy.admission import Admission, Order
from loadshed._policy.criticality import Criticality
from loadshed._policy.limits.limit import FixedLimit
from loadshed._policy.ticket import State, Ticket

CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS, SHEDDABLE = Criticality


class Door:
    """An admission with names for its tickets."""

    def __init__(self, admission: Admission[Ticket]) -> None:
        self.admission = admission
        self.names: dict[Ticket, str] = {}
        self.tickets: dict[str, Ticket] = {}
        self.now = 0.0

    def offer(
        self,
        name: str,
        criticality: Criticality = CRITICAL,
        *,
        tenant: Hashable = None,
        cost: int = 1,
        expires_at: float = math.inf,
    ) -> str:
        """What became of it, and of whom it took the place."""
        ticket = Ticket(expires_at, criticality=criticality, tenant=tenant, cost=cost)
        self.names[ticket], self.tickets[name] = name, ticket
        settled = self.admission.offer(ticket, self.now)
        return " ".join([ticket.reason or ticket.state.value, *self.described(settled)])

    def offer_all(self, names: str, criticality: Criticality = CRITICAL, **rest: Hashable) -> None:
        for name in names.split():
            self.offer(name, criticality, **rest)  # type: ignore[arg-type]

    def release(self, name: str) -> str:
        """Who goes next for it."""
        return " ".join(self.described(self.admission.release(self.tickets[name], self.now)))

    def described(self, settled: Iterable[Ticket]) -> list[str]:
        return [
            self.names[each] + (f":{each.reason}" if each.reason is not None else "")
            for each in settled
        ]

    def drain(self, name: str) -> str:
        """In what order they go, where one runs at a time, from the one that runs on."""
        order = []
        while name := self.release(name):
            order.append(name)
        return " ".join(order)

    @property
    def waiting(self) -> str:
        return " ".join(self.names[each] for each in self.admission.line.entries.values())


def test_with_no_line_at_all_a_free_slot_is_had_where_everybody_needs_a_ticket() -> None:
    """Whoever may not `enter` asks `turn_away` before `offer`."""
    admission: Admission[Ticket] = Admission(2, 0, shares={CRITICAL: 0.5})
    assert not admission.enter()
    assert not admission.turn_away(0)
    admission.offer(Ticket(), 0)
    assert not admission.turn_away(0)
    admission.offer(Ticket(), 0)
    assert admission.turn_away(0)


def test_it_takes_no_ticket_to_be_turned_away_unless_one_waits_that_might_have_to_go() -> None:
    door = Door(Admission(1, 1))
    door.offer_all("runs")
    for unusual in [Ticket(criticality=SHEDDABLE), Ticket(tenant="a")]:
        door.admission.offer(unusual, 0)
        assert not door.admission.turn_away(0)
        door.admission.abandon(unusual, 0)
    door.offer("usual", expires_at=5)
    assert door.admission.turn_away(4)
    assert not door.admission.turn_away(5)


def test_a_costly_one_that_waits_is_not_overtaken_without_a_ticket_after_a_resize() -> None:
    door = Door(Admission(4, 9))
    door.offer("runs", cost=3)
    assert door.offer("costly", cost=3) == "queued"
    assert not door.admission.enter()
    assert door.admission.resize(0, limit=5, max_queued=9) == []
    assert not door.admission.enter()
    assert door.release("runs") == "costly"
    assert door.admission.enter()


def test_a_class_that_newcomers_overtake_gets_its_turn_after_twenty_of_them() -> None:
    """They never waited, so nobody counted them."""
    door = Door(Admission(2, 9))
    door.offer("1")
    assert door.offer("costly", SHEDDABLE, cost=2) == "queued"
    for n in range(1, 21):
        assert door.offer(f"{n + 1}") == "admitted"
        assert door.release(f"{n}") == ""
    assert door.offer("22") == "queued"
    assert door.release("21") == "costly"
    assert door.release("costly") == "22"


def test_a_class_that_no_longer_waits_does_not_keep_how_often_it_was_passed_over() -> None:
    door = Door(Admission(1, 99))
    door.offer("0")
    for n in range(1, 50):
        door.offer(f"{n}")
    door.offer("first", SHEDDABLE)
    for n in range(15):
        assert door.release(f"{n}") == f"{n + 1}"
    door.admission.abandon(door.tickets["first"], 0)
    door.offer("second", SHEDDABLE)
    for n in range(15, 35):
        assert door.release(f"{n}") == f"{n + 1}"
    assert door.release("35") == "second"


def test_a_newcomer_whose_class_has_its_turn_by_its_share_needs_no_place_in_the_line() -> None:
    door = Door(Admission(4, 1, shares={SHEDDABLE: 0.25}))
    door.offer("runs", cost=3)
    assert door.offer("costly", cost=2) == "queued"
    assert door.offer("small", SHEDDABLE) == "admitted"


def test_a_class_takes_its_places_in_the_line_from_a_higher_one_until_it_has_them_all() -> None:
    door = Door(Admission(1, 4, shares={SHEDDABLE: 0.5}))
    door.offer("runs")
    door.offer_all("a b c d")
    assert door.offer("x", SHEDDABLE) == "queued a:displaced"
    assert door.offer("y", SHEDDABLE) == "queued b:displaced"
    assert door.offer("z", SHEDDABLE) == "queue_full"
    assert door.waiting == "c d x y"


def test_a_line_with_one_place_that_changes_hands_has_not_been_empty() -> None:
    door = Door(Admission(1, 1, order="adaptive_lifo"))
    door.offer("runs")
    door.now = 1
    door.release("runs")
    door.offer("runs")
    door.offer("a")
    door.now = 3
    assert door.offer("b") == "queued a:displaced"
    assert door.offer("c") == "queued b:displaced"


# Who came first, or last.


def test_with_one_class_and_one_tenant_whoever_came_first_goes_first() -> None:
    door = Door(Admission(1, 9))
    door.offer_all("runs a b c d e")
    assert door.drain("runs") == "a b c d e"


def busy(now: float) -> Door:
    """The newest goes first from 1 second after its row was empty; "runs" has the only slot."""
    door = Door(Admission(1, 4, order="adaptive_lifo"))
    door.offer("before")
    door.now = 1
    door.release("before")
    door.now = now
    door.offer("runs")
    return door


def test_the_newest_goes_first_where_its_row_was_busy_for_longer_than_a_request_takes() -> None:
    door = busy(10)
    door.offer_all("a b c")
    door.now = 11
    assert door.release("runs") == "a"
    door.now = 11.5
    assert door.release("a") == "c"


def test_the_oldest_goes_first_again_once_the_row_was_empty() -> None:
    door = busy(10)
    door.offer_all("a b")
    door.now = 15
    assert door.drain("runs") == "b a"
    door.offer_all("runs c d")
    assert door.drain("runs") == "c d"


def test_before_any_request_has_ended_none_is_known_to_take_long_and_the_oldest_goes_first() -> (
    None
):
    door = Door(Admission(2, 9, order="adaptive_lifo"))
    door.offer_all("runs too a b")
    door.now = 1e9
    door.admission.abandon(door.tickets["too"], 1e9)
    assert door.tickets["a"].state is State.ADMITTED


def test_rows_are_congested_each_by_itself() -> None:
    door = busy(10)
    door.offer_all("a b", tenant="old")
    door.now = 20
    door.offer_all("c d", tenant="new")
    assert door.drain("runs") == "b c a d"


def test_how_long_a_request_takes_is_averaged_over_64() -> None:
    admission: Admission[Ticket] = Admission(1, order="adaptive_lifo")
    for started, ended, typical in [(0, 2, 2), (10, 10, 2 - 2 / 64)]:
        ticket = Ticket()
        admission.offer(ticket, started)
        admission.release(ticket, ended)
        assert admission.typical == typical
    for ok, typical in [(None, 2 - 2 / 64), (False, (2 - 2 / 64) * 63 / 64 + 1)]:
        ticket = Ticket()
        admission.offer(ticket, 20)
        admission.release(ticket, 84, ok)
        assert admission.typical == typical


# Classes.


def test_a_higher_class_goes_first() -> None:
    door = Door(Admission(1, 9))
    door.offer("runs")
    for name, criticality in zip("dcba", reversed(Criticality), strict=True):
        door.offer(name, criticality)
    door.offer("later", CRITICAL)
    assert door.drain("runs") == "a b later c d"


def test_small_ones_overtake_no_costly_one_of_their_class_and_those_of_a_higher_class_do() -> None:
    door = Door(Admission(4, 9))
    door.offer_all("1 2 3")
    assert door.offer("costly", cost=2) == "queued"
    assert door.offer("small") == "queued"
    assert door.offer("lower", SHEDDABLE) == "queued"
    assert door.offer("higher", CRITICAL_PLUS) == "admitted"
    assert door.release("1") == ""
    assert door.release("2") == "costly"
    assert door.release("3") == "small"


def test_nobody_who_will_not_wait_overtakes_one_of_its_class() -> None:
    door = Door(Admission(4, 9))
    door.offer("runs", cost=3)
    door.offer("costly", cost=2)
    equal, higher = Ticket(), Ticket(criticality=CRITICAL_PLUS)
    assert door.admission.offer_nowait(equal, 0) == []
    assert door.admission.offer_nowait(higher, 0) == []
    assert (equal.reason, higher.state) == ("queue_full", State.ADMITTED)


def test_a_class_that_was_passed_over_twenty_times_in_a_row_gets_the_next_turn() -> None:
    door = Door(Admission(1, 99))
    door.offer("runs")
    door.offer_all(" ".join(f"+{n}" for n in range(45)), CRITICAL_PLUS)
    door.offer_all("a b c", SHEDDABLE)
    order = door.drain("runs").split()
    assert [order.index(name) for name in "abc"] == [20, 41, 47]


def test_of_two_classes_that_were_passed_over_too_often_the_higher_goes_first() -> None:
    door = Door(Admission(1, 99))
    door.offer("runs")
    door.offer_all(" ".join(f"+{n}" for n in range(30)), CRITICAL_PLUS)
    door.offer("low", SHEDDABLE)
    door.offer("middle", SHEDDABLE_PLUS)
    order = door.drain("runs").split()
    assert (order.index("middle"), order.index("low")) == (20, 21)


# Shares.


def test_a_class_gets_its_share_before_higher_ones_get_more() -> None:
    door = Door(Admission(4, 99, shares={SHEDDABLE: 0.5}))
    door.offer_all("1 2 3 4", CRITICAL_PLUS)
    door.offer_all("a b c", CRITICAL_PLUS)
    door.offer_all("x y z", SHEDDABLE)
    assert [door.release(name) for name in "1234"] == ["x", "y", "a", "b"]
    assert [door.release(name) for name in "xa"] == ["z", "c"]


def test_what_a_class_does_not_use_of_its_share_is_lent_to_others() -> None:
    door = Door(Admission(4, 99, shares={CRITICAL: 0.5, SHEDDABLE: 0.5}))
    door.offer_all("1 2 3 4", CRITICAL_PLUS)
    assert door.admission.ongoing == 4
    door.offer_all("a b", SHEDDABLE)
    door.offer_all("c d", CRITICAL)
    assert [door.release(name) for name in "1234"] == ["c", "d", "a", "b"]


@pytest.mark.parametrize(
    ("limit", "share", "order"),
    [
        (4, 0.5, "x x a a"),
        (4, 0.49, "x a a x"),
        (9, 0.2, "x a a a a x a a a"),
        (22, 15 / 22, " ".join(15 * "x" + 7 * "a")),  # 14.999999999999998
        (1, 0.9, "a"),
    ],
)
def test_a_share_is_so_many_whole_slots_and_turns_for_what_is_left(
    limit: int, share: float, order: str
) -> None:
    door = Door(Admission(limit, 999, shares={SHEDDABLE: share}))
    door.offer("runs", cost=limit)
    door.offer_all(" ".join(f"x{n}" for n in range(limit)), SHEDDABLE)
    door.offer_all(" ".join(f"a{n}" for n in range(limit)))
    assert [name[0] for name in door.release("runs").split()] == order.split()


def test_a_share_of_less_than_a_slot_is_one_of_so_many_turns() -> None:
    door = Door(Admission(1, 999, shares={SHEDDABLE: 0.2}))
    door.offer("runs")
    door.offer_all(" ".join(f"x{n}" for n in range(3)), SHEDDABLE)
    door.offer_all(" ".join(f"a{n}" for n in range(12)))
    assert "".join(name[0] for name in door.drain("runs").split()) == "aaaaxaaaaxaaaax"


def test_a_class_that_was_passed_over_twenty_times_goes_even_before_one_below_its_share() -> None:
    door = Door(Admission(1, 99, shares={CRITICAL: 1.0}))
    door.offer("runs")
    door.offer_all(" ".join(f"+{n}" for n in range(45)))
    door.offer_all("a b", SHEDDABLE)
    order = door.drain("runs").split()
    assert [order.index(name) for name in "ab"] == [20, 41]


def test_a_newcomer_with_a_share_does_not_overtake_its_own_class() -> None:
    door = Door(Admission(4, 9, shares={SHEDDABLE: 1.0}))
    door.offer("runs", cost=3)
    assert door.offer("costly", SHEDDABLE, cost=2) == "queued"
    assert door.offer("small", SHEDDABLE) == "queued"
    assert door.offer("higher", CRITICAL_PLUS) == "queued"
    assert door.release("runs") == "costly small higher"


def test_a_class_keeps_the_places_in_the_line_that_are_its_share() -> None:
    door = Door(Admission(1, 4, shares={SHEDDABLE: 0.5}))
    door.offer("runs")
    door.offer_all("x y z", SHEDDABLE)
    door.offer("a")
    assert door.offer("b") == "queued x:displaced"
    assert door.offer("c") == "queue_full"
    assert door.offer("d", CRITICAL_PLUS) == "queued a:displaced"
    assert door.waiting == "y z b d"


def test_a_class_that_waits_with_nobody_else_is_passed_over_by_nobody() -> None:
    door = Door(Admission(1, 99))
    door.offer_all(" ".join(str(n) for n in range(30)))
    door.drain("0")
    door.offer_all("runs a", CRITICAL)
    door.offer("first", CRITICAL_PLUS)
    assert door.drain("runs") == "first a"


# Tenants.


def test_tenants_take_turns_however_much_each_of_them_sends() -> None:
    door = Door(Admission(1, 99))
    door.offer("runs")
    door.offer_all("a1 a2 a3 a4", tenant="a")
    door.offer_all("b1 b2", tenant="b")
    door.offer_all("n1 n2")
    assert door.drain("runs") == "a1 b1 n1 a2 b2 n2 a3 a4"


def test_a_tenant_that_asks_for_more_slots_waits_for_more_turns_of_the_others() -> None:
    door = Door(Admission(2, 99))
    door.offer("runs", cost=2)
    door.offer_all("A1 A2", tenant="a", cost=2)
    door.offer_all("b1 b2 b3 b4", tenant="b", cost=1)
    assert door.release("runs") == "A1"
    assert door.release("A1") == "b1 b2"
    assert door.release("b1") == ""
    assert door.release("b2") == "A2"
    assert door.release("A2") == "b3 b4"


def test_a_tenant_that_comes_anew_has_saved_nothing_up() -> None:
    door = Door(Admission(1, 99))
    door.offer("runs")
    door.offer_all("a1 a2 a3 a4 a5 a6", tenant="a")
    assert [door.release("runs"), *map(door.release, ["a1", "a2"])] == ["a1", "a2", "a3"]
    door.offer_all("b1 b2 b3", tenant="b")
    assert door.drain("a3") == "b1 a4 b2 a5 b3 a6"


def test_a_tenant_that_comes_and_goes_gets_no_more_turns_than_one_that_stays() -> None:
    door = Door(Admission(1, 99))
    door.offer("runs")
    door.offer_all("a1 a2 a3 a4", tenant="a")
    door.offer("b0", tenant="b")
    order = []
    name = "runs"
    for n in range(1, 8):
        name = door.release(name)
        order.append(name)
        if name.startswith("b"):
            door.offer(f"b{n}", tenant="b")
    assert order == ["a1", "b0", "a2", "b2", "a3", "b4", "a4"]


def test_a_line_without_end_has_no_end_of_places_for_a_class_with_a_share_and_none_without() -> (
    None
):
    lane = Admission[Ticket](1, math.inf, shares={SHEDDABLE: 0.5}).line.lane
    assert lane(SHEDDABLE).places(math.inf) == math.inf
    assert lane(CRITICAL).places(math.inf) == 0


def test_a_tenant_that_leaves_and_comes_back_still_had_what_it_had() -> None:
    door = Door(Admission(11, 99))
    door.offer("runs", cost=11)
    door.offer("a1", tenant="a", cost=5)
    door.offer("b1", tenant="b", cost=6)
    door.offer("b2", tenant="b", cost=8)
    assert door.release("runs") == "a1 b1"
    assert door.release("a1") == ""  # it would be the turn of "a", and "b2" costs too much
    door.offer("a2", tenant="a", cost=8)
    door.offer("new", tenant="c", cost=8)
    assert door.release("b1") == "new"
    assert door.drain("new") == "a2 b2"


def test_in_a_tie_the_turn_that_was_there_first_is_taken() -> None:
    door = Door(Admission(1, 99))
    door.offer("runs")
    door.offer_all("a1 a2", tenant="a")
    door.offer_all("b1", tenant="b")
    assert door.release("runs") == "a1"
    door.offer("c1", tenant="c")
    assert door.drain("a1") == "b1 c1 a2"


def test_tenants_that_are_too_many_take_turns_as_one() -> None:
    door = Door(Admission(1, 99, tenants=2))
    door.offer("runs")
    for name in ["a1", "b1", "c1", "d1", "e1", "a2", "b2", "c2"]:
        door.offer(name, tenant=name[0])
    assert door.drain("runs") == "a1 b1 c1 a2 b2 d1 e1 c2"


def test_tenants_that_are_too_many_have_the_part_of_one_in_the_line() -> None:
    door = Door(Admission(1, 8, tenants=2, tenant_share=0.25))
    door.offer("runs")
    door.offer_all("a", tenant="a")
    door.offer_all("b", tenant="b")
    assert [door.offer(name, tenant=name) for name in "cde"] == ["queued", "queued", "queue_full"]
    assert door.offer("nobody's") == "queued"


# Who has to go.


def test_in_a_full_line_a_newcomer_takes_the_place_of_the_oldest_of_the_lowest_class() -> None:
    door = Door(Admission(1, 4))
    door.offer("runs")
    door.offer_all("a b", SHEDDABLE_PLUS)
    door.offer_all("x y", SHEDDABLE)
    assert door.offer("1") == "queued x:displaced"
    assert door.offer("2", SHEDDABLE_PLUS) == "queued y:displaced"
    assert door.offer("3", SHEDDABLE_PLUS) == "queue_full"
    assert door.offer("4", SHEDDABLE) == "queue_full"
    assert door.offer("5", CRITICAL_PLUS) == "queued a:displaced"
    assert door.tickets["x"].state is State.EXPIRED
    assert door.admission.shed["displaced"] == 3
    assert door.waiting == "b 1 2 5"


def test_of_a_lower_class_the_tenant_that_has_the_most_has_to_give_one() -> None:
    door = Door(Admission(1, 6))
    door.offer("runs")
    door.offer("a1", SHEDDABLE, tenant="a")
    door.offer_all("b1 b2", SHEDDABLE, tenant="b")
    door.offer_all("c1 c2 c3", SHEDDABLE, tenant="c")
    assert door.offer("1") == "queued c1:displaced"
    assert door.offer("2") == "queued b1:displaced"
    assert door.offer("3") == "queued c2:displaced"


def test_a_tenant_with_more_than_the_newcomers_would_have_gives_its_oldest() -> None:
    door = Door(Admission(1, 4, tenant_share=1.0))
    door.offer("runs")
    door.offer_all("a1 a2 a3 a4", tenant="a")
    assert door.offer("b1", tenant="b") == "queued a1:displaced"
    assert door.offer("b2", tenant="b") == "queued a2:displaced"
    assert door.offer("b3", tenant="b") == "queue_full"
    assert door.offer("c1", tenant="c") == "queued b1:displaced"
    assert door.offer("d1", tenant="d") == "queued a3:displaced"
    assert door.offer("e1", tenant="e") == "queue_full"


def test_a_tenant_with_as_many_as_the_newcomers_would_have_gives_none() -> None:
    door = Door(Admission(1, 3, tenant_share=1.0))
    door.offer("runs")
    door.offer_all("a1 a2", tenant="a")
    door.offer("b1", tenant="b")
    assert door.offer("b2", tenant="b") == "queue_full"


def test_a_newcomer_takes_the_place_of_the_oldest_of_its_own_row_where_that_is_congested() -> None:
    door = busy(10)
    door.offer_all("a b c d")
    assert door.offer("e") == "queue_full"
    door.now = 12
    assert door.offer("f") == "queued a:displaced"
    assert door.drain("runs") == "f d c b"


def test_the_newcomer_of_a_new_tenant_takes_a_place_in_a_row_of_one_where_that_is_congested() -> (
    None
):
    door = busy(10)
    for name in "abcd":
        door.offer(name, tenant=name)
    assert door.offer("e", tenant="e") == "queue_full"
    door.now = 12
    assert door.offer("f", tenant="f") == "queued a:displaced"


def test_a_tenant_has_no_more_than_its_part_of_the_line() -> None:
    door = Door(Admission(1, 8, tenant_share=0.25))
    door.offer("runs")
    assert [door.offer(name, tenant="a") for name in "123"] == ["queued", "queued", "queue_full"]
    assert door.offer("other class", CRITICAL_PLUS, tenant="a") == "queued"
    assert [door.offer(name) for name in "abc"] == ["queued"] * 3


def test_a_tenant_has_one_place_however_short_the_line() -> None:
    door = Door(Admission(1, 2, tenant_share=0.1))
    door.offer("runs")
    assert [door.offer(name, tenant="a") for name in "12"] == ["queued", "queue_full"]


def test_a_tenant_with_its_part_of_the_line_gives_its_own_oldest_where_its_row_is_congested() -> (
    None
):
    door = busy(10)
    door.offer_all("x", SHEDDABLE)
    door.offer_all("a b", tenant="a")
    assert door.offer("c", tenant="a") == "queue_full"
    door.now = 12
    assert door.offer("d", tenant="a") == "queued a:displaced"
    assert door.waiting == "x b d"


def test_one_that_takes_the_place_of_a_costly_one_goes_at_once_where_there_is_room_for_it() -> None:
    door = Door(Admission(4, 1, order="adaptive_lifo"))
    door.offer("runs", cost=3)
    door.offer("too")
    door.now = 1
    door.release("too")
    assert door.offer("costly", cost=2) == "queued"
    door.now = 3
    assert door.offer("small") == "admitted costly:displaced"


def test_a_line_that_is_to_be_none_runs_out_and_takes_nobody_in_the_place_of_another() -> None:
    door = busy(10)
    door.offer_all("x y", SHEDDABLE)
    door.offer_all("a b")
    door.now = 12
    assert door.admission.resize(12, limit=1, max_queued=0) == []
    for criticality in Criticality:
        assert door.offer("newcomer", criticality) == "queue_full"
    assert door.drain("runs") == "b a y x"


# Costs.


def test_one_that_costs_more_than_there_is_takes_everything_when_nothing_runs() -> None:
    door = Door(Admission(3, 9))
    assert door.offer("all", cost=5) == "admitted"
    assert (door.admission.ongoing, door.admission.permits) == (3, 1)
    assert door.offer("small") == "queued"
    assert door.offer("next", cost=5) == "queued"
    assert door.release("all") == "small"
    assert door.release("small") == "next"
    assert door.release("next") == ""
    assert (door.admission.ongoing, door.admission.permits, door.admission.completed) == (0, 0, 3)


def test_a_permit_gives_back_the_slots_that_it_took_whatever_the_limit_is_by_then() -> None:
    door = Door(Admission(3, 9))
    door.offer("all", cost=5)
    door.admission.resize(0, limit=8, max_queued=9)
    door.offer("six", cost=6)
    assert door.admission.ongoing == 3
    assert door.release("all") == "six"
    assert door.admission.ongoing == 6


# Limits that move.


class Moving:
    """A limit that becomes what a test wants when it is told of the next request that ended."""

    reason = ""

    def __init__(self, limit: float) -> None:
        self.limit = self.next = limit
        self.ongoing: list[float] = []

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        self.ongoing.append(ongoing)
        self.limit = self.next


def test_a_limit_that_rises_wakes_as_many_as_there_is_room_for_and_one_that_falls_drains() -> None:
    limit = Moving(1)
    door = Door(Admission(limit, 9))
    door.offer_all("1 2 3 4 5 6 7")
    limit.next = 3
    assert door.release("1") == "2 3 4"
    limit.next = 2
    assert [door.release(name) for name in "23"] == ["", "5"]
    limit.next = math.inf
    assert door.release("4") == "6 7"
    assert door.admission.permits == 3


def test_a_line_whose_bound_nobody_set_follows_the_limit() -> None:
    for order, bounds in [("fifo", [4, 6, math.inf]), ("adaptive_lifo", [10, 12, math.inf])]:
        limit = Moving(4)
        admission: Admission[Ticket] = Admission(limit, order=order)  # type: ignore[arg-type]
        seen = [admission.line.bound]
        for limit.next in [6, math.inf]:
            ticket = Ticket()
            admission.offer(ticket, 0)
            admission.release(ticket, 0)
            seen.append(admission.line.bound)
        assert seen == bounds


def test_a_bound_that_somebody_set_stays_until_none_takes_it_back() -> None:
    admission: Admission[Ticket] = Admission(4, 3)
    admission.resize(0, limit=9, max_queued=3)
    assert admission.line.bound == 3
    admission.resize(0, limit=9, max_queued=None)
    assert admission.line.bound == 9


def test_a_limit_is_told_that_all_was_taken_where_one_waited_for_more_than_was_free() -> None:
    limit = Moving(4)
    door = Door(Admission(limit, 9))
    door.offer_all("1 2")
    door.offer("costly", cost=4)
    door.release("1")
    door.release("2")
    door.release("costly")
    assert limit.ongoing == [4, 4, 4]
    door.offer_all("3 4")
    door.release("3")
    assert limit.ongoing[3:] == [2]


def test_a_limit_is_not_told_of_what_teaches_nothing() -> None:
    limit = Moving(4)
    admission: Admission[Ticket] = Admission(limit)
    for ok in [None, False, True]:
        ticket = Ticket()
        admission.offer(ticket, 0)
        admission.release(ticket, 0, ok)
    assert len(limit.ongoing) == 2


def test_a_limit_that_moves_gives_nothing_without_a_ticket_until_a_number_takes_its_place() -> None:
    admission: Admission[Ticket] = Admission(Moving(4))
    assert not admission.enter()
    assert admission.watch
    admission.resize(0, limit=4, max_queued=None)
    assert admission.enter()
    assert not admission.watch


def test_a_fixed_limit_says_what_it_is() -> None:
    assert repr(FixedLimit(4)) == "FixedLimit(4)"


# What it costs: in a line of 10,000, of 1,000 tenants, as much as in one of 100, or twice that
# where it grows by the logarithm.


class Time(float):
    """When a ticket expires, which counts how often it is compared, as in a heap."""

    compared = 0

    def __lt__(self, other: float) -> bool:
        Time.compared += 1
        return float(self) < float(other)


def steps(act: Callable[[], object]) -> int:
    """How many functions are called, in Python and in C, and how many times are compared."""
    count, compared = 0, Time.compared

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count + Time.compared - compared


class Crowd:
    """A full line: equally many of all classes, and of tenants that have two or three in each."""

    def __init__(self, size: int, order: Order, shares: dict[Criticality, float] | None) -> None:
        self.admission: Admission[Ticket] = Admission(
            1, size, order=order, shares=shares, tenants=size
        )
        self.tenants = size // 10
        self.running = Ticket()
        self.now = 0.0
        self.admission.offer(self.running, 0)
        self.admission.release(self.running, 0.5)
        self.admission.offer(self.running, 0.5)
        for n in range(size):
            self.offer(Criticality(n % 4), n // 4 % self.tenants, expires_at=2 + n * 7919 % size)
        assert len(self.admission.line) == size

    def offer(
        self, criticality: Criticality, tenant: Hashable, expires_at: float = 1e6
    ) -> tuple[Ticket, list[Ticket]]:
        ticket = Ticket(Time(expires_at), criticality=criticality, tenant=tenant)
        return ticket, self.admission.offer(ticket, self.now)

    def shed(self) -> None:
        ticket, _ = self.offer(SHEDDABLE, 0)
        assert ticket.reason == "queue_full"

    def displace_a_lower_class(self) -> None:
        _, (displaced,) = self.offer(CRITICAL, "new")
        assert displaced.criticality is SHEDDABLE

    def displace_a_longer_row(self) -> None:
        _, (displaced,) = self.offer(SHEDDABLE, object())
        assert displaced.reason == "displaced"

    def displace_the_oldest_of_a_row(self) -> None:
        self.now = 1.5
        _, (displaced,) = self.offer(SHEDDABLE, 0)
        assert (displaced.tenant, displaced.reason) == (0, "displaced")

    def go_and_come(self) -> None:
        (self.running,) = self.admission.release(self.running, self.now)
        self.offer(self.running.criticality, self.running.tenant)

    def expire_and_come(self) -> None:
        self.now = max(2, self.now + 1)
        (expired,) = self.admission.expire(self.now)
        self.offer(expired.criticality, expired.tenant)

    def leave_and_come(self) -> None:
        ticket, _ = self.offer(CRITICAL_PLUS, 1)
        assert self.admission.abandon(ticket, self.now) == []
        self.offer(SHEDDABLE, 1)


def ten_times(act: Callable[[Crowd], None], crowd: Crowd) -> None:
    for _ in range(10):
        act(crowd)


@pytest.mark.parametrize("shares", [None, {CRITICAL_PLUS: 0.25, SHEDDABLE: 0.125}])
@pytest.mark.parametrize(
    ("act", "order"),
    [
        (Crowd.shed, "fifo"),
        (Crowd.shed, "adaptive_lifo"),
        (Crowd.displace_a_lower_class, "fifo"),
        (Crowd.displace_a_longer_row, "fifo"),
        (Crowd.displace_the_oldest_of_a_row, "adaptive_lifo"),
        (Crowd.go_and_come, "fifo"),
        (Crowd.go_and_come, "adaptive_lifo"),
        (Crowd.expire_and_come, "fifo"),
        (Crowd.leave_and_come, "fifo"),
    ],
)
def test_no_step_takes_longer_in_a_longer_line(
    act: Callable[[Crowd], None], order: Order, shares: dict[Criticality, float] | None
) -> None:
    counts = []
    for size in [100, 10_000]:
        crowd = Crowd(size, order, shares)
        counts.append(steps(lambda crowd=crowd: ten_times(act, crowd)))  # type: ignore[misc]
    print(f"{act.__name__} {order}: {counts[0] / 10}, {counts[1] / 10} steps")
    assert counts[1] <= 2 * counts[0]
