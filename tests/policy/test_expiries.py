"""Whose time comes first, against a list."""

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loadshed._policy.expiries import Expiries


class Entry:
    def __init__(self, expires_at: float) -> None:
        self.expires_at = expires_at

    def __lt__(self, other: object) -> bool:
        raise AssertionError("entries are not compared")


class ExpiriesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[int, Entry] = {}
        self.expiries: Expiries[Entry] = Expiries(self.entries)
        self.now = 0.0

    @rule(seconds=st.one_of(st.just(math.inf), st.integers(0, 30).map(float)))
    def add(self, seconds: float) -> None:
        entry = Entry(self.now + seconds)
        self.entries[id(entry)] = entry
        self.expiries.add(entry)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.entries) - 1))
        del self.entries[list(self.entries)[index]]
        self.expiries.forget_the_dead()

    @rule(seconds=st.integers(0, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        due = [each for each in self.entries.values() if each.expires_at <= self.now]
        found = []
        while (entry := self.expiries.due(self.now)) is not None:
            del self.entries[id(entry)]
            self.expiries.forget_the_dead()
            found.append(entry)
        assert {id(each) for each in found} == {id(each) for each in due}
        assert [each.expires_at for each in found] == sorted(each.expires_at for each in due)

    @invariant()
    def nobody_is_due_before_the_next(self) -> None:
        assert all(self.expiries.next <= each.expires_at for each in self.entries.values())

    @invariant()
    def the_dead_do_not_pile_up(self) -> None:
        assert len(self.expiries.heap) <= 2 * len(self.entries) + 16


TestExpiries = ExpiriesMachine.TestCase


def of(*times: float) -> tuple[dict[int, Entry], Expiries[Entry], list[Entry]]:
    made = [Entry(time) for time in times]
    entries = {id(each): each for each in made}
    expiries = Expiries(entries)
    for each in made:
        expiries.add(each)
    return entries, expiries, made


def test_one_that_never_expires_takes_no_room() -> None:
    _, expiries, _ = of(math.inf, math.inf)
    assert expiries.heap == []
    assert expiries.next == math.inf
    assert expiries.due(1e9) is None


def test_one_expires_at_its_time_and_not_before() -> None:
    _, expiries, (entry,) = of(5)
    assert expiries.due(4.9) is None
    assert expiries.due(5) is entry


def test_entries_of_the_same_time_are_due_in_the_order_in_which_they_came_though_the_dead_go() -> (
    None
):
    entries, expiries, made = of(*[1.0] * 100)
    for entry in made[:90]:
        del entries[id(entry)]
        expiries.forget_the_dead()
    assert len(expiries.heap) < 100
    late = Entry(1.0)
    entries[id(late)] = late
    expiries.add(late)
    due = []
    while (found := expiries.due(1.0)) is not None:
        del entries[id(found)]
        due.append(found)
    assert due == [*made[90:], late]


def test_one_that_left_is_not_due_and_nor_is_another_that_has_its_key_by_now() -> None:
    entries, expiries, (gone, left) = of(1, 2)
    entries[id(gone)] = Entry(9)  # as where its memory is used again
    del entries[id(left)]
    assert expiries.due(5) is None
