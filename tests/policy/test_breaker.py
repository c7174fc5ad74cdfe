"""Breaker against a naive model with the states of Polly's documentation."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loadshed._policy.breaker import BLOCKED, Breaker, Circuit

SAMPLING = 10.0
BREAK = 5.0


@dataclass(eq=False)
class Passed:
    """A request that may pass."""

    number: int
    """What the breaker gave it."""
    epoch: int
    """In which state of the model it passed."""


class BreakerMachine(RuleBasedStateMachine):
    @initialize(quarters=st.integers(1, 4), minimum=st.integers(1, 4))
    def make(self, quarters: int, minimum: int) -> None:
        self.ratio, self.minimum = quarters / 4, minimum
        self.breaker = Breaker(self.ratio, minimum, SAMPLING, BREAK)
        self.now = 0.0
        self.under_way: list[Passed] = []
        self.circuit = Circuit.CLOSED
        self.epoch = 0  # another one with each change
        self.open_until = 0.0
        self.outcomes: list[tuple[float, bool]] = []
        self.probe: Passed | None = None
        self.probes: list[float] = []  # when each was let through, since the breaker opened

    def change(self, circuit: Circuit, open_until: float = 0.0) -> None:
        self.circuit, self.open_until = circuit, open_until
        self.epoch += 1
        self.probe = None

    @rule()
    def enter(self) -> None:
        number = self.breaker.enter(self.now)
        if self.circuit is not Circuit.CLOSED:
            if self.now < self.open_until:
                assert number == BLOCKED
                return
            self.change(Circuit.HALF_OPEN, self.now + BREAK)
        assert number != BLOCKED
        passed = Passed(number, self.epoch)
        self.under_way.append(passed)
        if self.circuit is Circuit.HALF_OPEN:
            self.probe = passed
            self.probes.append(self.now)

    def end(self, passed: Passed, *, failed: bool) -> None:
        self.under_way.remove(passed)
        self.breaker.leave(passed.number, self.now, failed=failed)
        if passed.epoch != self.epoch:
            return  # stale: the invariants see that nothing came of it
        if self.circuit is Circuit.CLOSED:
            self.outcomes.append((self.now, failed))
            if failed and self.too_many_fail():
                self.change(Circuit.OPEN, self.now + BREAK)
            return
        assert passed is self.probe
        if failed:
            self.change(Circuit.OPEN, self.now + BREAK)
        else:
            self.outcomes.clear()
            self.probes.clear()
            self.change(Circuit.CLOSED)

    def too_many_fail(self) -> bool:
        second = math.floor(self.now)
        lately = [failed for time, failed in self.outcomes if second - math.floor(time) < SAMPLING]
        return len(lately) >= self.minimum and sum(lately) >= self.ratio * len(lately)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), failed=st.booleans())
    def leave(self, data: st.DataObject, failed: bool) -> None:
        self.end(data.draw(st.sampled_from(self.under_way)), failed=failed)

    @precondition(lambda self: self.under_way)
    @rule(failed=st.booleans())
    def all_leave(self, failed: bool) -> None:
        while self.under_way:
            self.end(self.under_way[0], failed=failed)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        passed = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(passed)
        self.breaker.forget(passed.number, self.now)
        if passed is self.probe:
            self.probes.pop()
            self.change(Circuit.HALF_OPEN, self.now)

    @rule(quarters=st.one_of(st.integers(1, 8), st.integers(20, 50)))
    def time_passes(self, quarters: int) -> None:
        self.now += quarters / 4

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        circuit = self.circuit
        if circuit is Circuit.OPEN and self.now >= self.open_until:
            circuit = Circuit.HALF_OPEN
        assert self.breaker.state(self.now) is circuit
        is_closed = circuit is Circuit.CLOSED
        blocked_for = 0.0 if is_closed else max(0.0, self.open_until - self.now)
        assert self.breaker.blocked_for(self.now) == blocked_for

    @invariant()
    def until_it_closes_one_passes_in_each_break_duration(self) -> None:
        """Those who were cancelled and said nothing don't count."""
        pairs = zip(self.probes, self.probes[1:], strict=False)
        assert all(later - earlier >= BREAK for earlier, later in pairs)


def test_it_agrees_with_the_model() -> None:
    run_state_machine_as_test(BreakerMachine)


def opened(*, ratio: float = 0.5, minimum: int = 2) -> Breaker:
    """A breaker that opened at 0."""
    breaker = Breaker(ratio, minimum, SAMPLING, BREAK)
    for _ in range(minimum):
        breaker.leave(breaker.enter(0), 0, failed=True)
    assert breaker.state(0) is Circuit.OPEN
    return breaker


def test_it_opens_at_the_minimum_throughput_and_not_before() -> None:
    breaker = Breaker(0.1, 100, 30, 5)
    for _ in range(99):
        breaker.leave(breaker.enter(0), 0, failed=True)
        assert breaker.state(0) is Circuit.CLOSED
    breaker.leave(breaker.enter(0), 0, failed=True)
    assert breaker.state(0) is Circuit.OPEN


@given(st.integers(1, 100), st.integers(1, 100))
def test_it_opens_at_exactly_its_ratio(hundredths: int, requests: int) -> None:
    """0.55 * 100 is more than 55."""
    failures = next(n for n in range(1, requests + 1) if 100 * n >= hundredths * requests)
    breaker = Breaker(hundredths / 100, requests, 10, 5)
    numbers = [breaker.enter(0) for _ in range(requests)]
    outcomes = [False] * (requests - failures) + [True] * failures
    for number, failed in zip(numbers, outcomes, strict=True):
        assert breaker.state(0) is Circuit.CLOSED
        breaker.leave(number, 0, failed=failed)
    assert breaker.state(0) is Circuit.OPEN


def test_below_its_ratio_it_stays_closed() -> None:
    breaker = Breaker(0.5, 2, 10, 5)
    for n in range(100):
        breaker.leave(breaker.enter(n / 50), n / 50, failed=n % 2 == 1 and n != 1)
        assert breaker.state(n / 50) is Circuit.CLOSED


def test_failures_long_past_do_not_count() -> None:
    breaker = Breaker(1, 2, 10, 5)
    breaker.leave(breaker.enter(0), 0, failed=True)
    breaker.leave(breaker.enter(10), 10, failed=True)
    assert breaker.state(10) is Circuit.CLOSED


def test_while_it_is_open_nothing_passes_and_it_says_how_long() -> None:
    breaker = opened()
    for now in (0, 1, 4.999):
        assert breaker.enter(now) == BLOCKED
        assert breaker.blocked_for(now) == BREAK - now
    assert breaker.blocked_for(5) == breaker.blocked_for(99) == 0


def test_of_many_that_come_when_it_is_over_one_passes() -> None:
    breaker = opened()
    assert breaker.state(5) is Circuit.HALF_OPEN
    assert [breaker.enter(5) != BLOCKED for _ in range(10)] == [True] + [False] * 9
    assert breaker.state(5) is Circuit.HALF_OPEN
    assert breaker.blocked_for(5) == BREAK


def test_a_probe_that_succeeds_closes_it_and_what_was_counted_before_is_forgotten() -> None:
    breaker = opened()
    breaker.leave(breaker.enter(5), 6, failed=False)
    assert breaker.state(6) is Circuit.CLOSED
    assert breaker.blocked_for(6) == 0
    breaker.leave(breaker.enter(6), 6, failed=True)
    assert breaker.state(6) is Circuit.CLOSED


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    breaker = opened()
    breaker.leave(breaker.enter(5), 7, failed=True)
    assert breaker.state(7) is Circuit.OPEN
    assert breaker.blocked_for(7) == BREAK


def test_a_probe_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    breaker = opened()
    breaker.forget(breaker.enter(5), 6)
    assert (breaker.state(6), breaker.blocked_for(6)) == (Circuit.HALF_OPEN, 0)
    assert [breaker.enter(6) != BLOCKED for _ in range(2)] == [True, False]


def test_a_probe_that_never_comes_back_is_given_up() -> None:
    breaker = opened()
    lost = breaker.enter(5)
    assert breaker.enter(9.9) == BLOCKED
    probe = breaker.enter(10)
    assert probe not in (BLOCKED, lost)
    breaker.leave(lost, 11, failed=False)
    assert breaker.state(11) is Circuit.HALF_OPEN
    breaker.forget(lost, 11)
    assert breaker.enter(11) == BLOCKED
    breaker.leave(probe, 11, failed=False)
    assert breaker.state(11) is Circuit.CLOSED


@pytest.mark.parametrize("when", [1, 5, 50])
def test_what_was_sent_before_it_opened_never_closes_it(when: float) -> None:
    breaker = Breaker(0.5, 2, SAMPLING, BREAK)
    slow = [breaker.enter(0) for _ in range(5)]
    for _ in range(2):
        breaker.leave(breaker.enter(0), 0, failed=True)
    before = breaker.state(when), breaker.blocked_for(when)
    for number in slow:
        breaker.leave(number, when, failed=False)
    assert (breaker.state(when), breaker.blocked_for(when)) == before


def test_what_was_sent_before_it_opened_does_not_lengthen_it() -> None:
    breaker = Breaker(0.5, 2, SAMPLING, BREAK)
    slow = breaker.enter(0)
    for _ in range(2):
        breaker.leave(breaker.enter(0), 0, failed=True)
    breaker.leave(slow, 4, failed=True)
    assert breaker.blocked_for(4) == 1


def test_who_is_cancelled_while_it_is_closed_does_not_count() -> None:
    breaker = Breaker(1, 1, SAMPLING, BREAK)
    breaker.forget(breaker.enter(0), 0)
    assert breaker.state(0) is Circuit.CLOSED
    breaker.leave(breaker.enter(0), 0, failed=True)
    assert breaker.state(0) is Circuit.OPEN
