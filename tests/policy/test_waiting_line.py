"""The waiting line against a list."""

import math
import random
import weakref

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loadshed._policy.queue import WaitingLine


class Entry:
    def __init__(self, expires_at: float) -> None:
        self.expires_at = expires_at

    def __eq__(self, other: object) -> bool:
        raise AssertionError("entries are told apart by identity")

    __hash__ = None  # type: ignore[assignment]


EXPIRIES = st.one_of(st.just(math.inf), st.integers(0, 30).map(float))


class WaitingLineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.line: WaitingLine[Entry] = WaitingLine(5)
        self.model: list[Entry] = []
        self.gone: list[Entry] = []
        self.now = 0.0

    @rule(expires_at=EXPIRIES)
    def append(self, expires_at: float) -> None:
        entry = Entry(expires_at)
        self.line.append(entry)
        self.model.append(entry)

    @rule()
    def pop(self) -> None:
        popped = self.line.pop()
        assert popped is (self.model[0] if self.model else None)
        self.gone += self.model[:1]
        del self.model[:1]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.model) - 1))
        entry = self.model.pop(index)
        assert self.line.discard(entry)
        self.gone.append(entry)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def discard_one_that_has_gone(self, data: st.DataObject) -> None:
        assert not self.line.discard(data.draw(st.sampled_from(self.gone)))

    @rule(seconds=st.integers(0, 5))
    def expire(self, seconds: int) -> None:
        self.now += seconds
        expired = self.line.expire(self.now)
        dead = [entry for entry in self.model if entry.expires_at <= self.now]
        assert {id(entry) for entry in expired} == {id(entry) for entry in dead}
        assert [entry.expires_at for entry in expired] == sorted(e.expires_at for e in dead)
        self.model = [entry for entry in self.model if entry.expires_at > self.now]
        self.gone += dead

    @rule(bound=st.sampled_from([0, 1, 5, math.inf]))
    def resize(self, bound: float) -> None:
        self.line.bound = bound

    @invariant()
    def it_is_the_list(self) -> None:
        assert [id(entry) for entry in self.line.entries.values()] == [id(e) for e in self.model]
        assert len(self.line) == len(self.model)
        assert self.line.is_full == (len(self.model) >= self.line.bound)
        assert all(entry in self.line for entry in self.model)
        assert not any(entry in self.line for entry in self.gone)

    @invariant()
    def no_entry_expires_before_the_next_expiry(self) -> None:
        assert all(self.line.next_expiry <= entry.expires_at for entry in self.model)

    @invariant()
    def the_dead_do_not_pile_up(self) -> None:
        assert len(self.line._expiries.heap) <= 2 * len(self.model) + 16


TestWaitingLine = WaitingLineMachine.TestCase


def test_entries_of_the_same_expiry_expire_in_the_order_in_which_they_came() -> None:
    line: WaitingLine[Entry] = WaitingLine(math.inf)
    entries = [Entry(1.0) for _ in range(100)]
    for entry in entries:
        line.append(entry)
    assert [id(entry) for entry in line.expire(1.0)] == [id(entry) for entry in entries]


def test_it_keeps_nobody_alive_who_has_left() -> None:
    line: WaitingLine[Entry] = WaitingLine(math.inf)
    popped, discarded = Entry(1e9), Entry(1e9)
    line.append(popped)
    line.append(discarded)
    left = [weakref.ref(popped), weakref.ref(discarded)]
    assert line.pop() is popped
    assert line.discard(discarded)
    del popped, discarded
    assert [one() for one in left] == [None, None]


def test_waiters_that_come_and_go_leave_nothing_behind() -> None:
    line: WaitingLine[Entry] = WaitingLine(math.inf)
    choice = random.Random(1)  # noqa: S311
    waiting: list[Entry] = []
    for _ in range(10_000):
        entry = Entry(1e9)
        line.append(entry)
        waiting.append(entry)
        if len(waiting) > 20:
            assert line.discard(waiting.pop(choice.randrange(20)))
    assert len(line._expiries.heap) <= 2 * len(line) + 16
