"""Throttle against a naive model, and what it comes to."""

import math
import random
from fractions import Fraction

import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from loadshed._policy.throttle import Throttle

WINDOW = 10.0


def never() -> float:
    raise AssertionError("there is nothing to decide")


class ThrottleMachine(RuleBasedStateMachine):
    """With exact numbers and lists of times."""

    @initialize(k=st.sampled_from(["1", "1.1", "2", "3"]))
    def make(self, k: str) -> None:
        self.throttle = Throttle(float(k), WINDOW)
        self.k = Fraction(k)
        self.now = 0.0
        self.requests: list[float] = []
        self.accepts: list[float] = []

    def lately(self, times: list[float]) -> int:
        return sum(math.floor(self.now) - math.floor(time) < 10 for time in times)

    def refusal(self) -> Fraction:
        requests, accepts = self.lately(self.requests), self.lately(self.accepts)
        return max(Fraction(0), (requests - self.k * accepts) / (requests + 1))

    @rule(draw=st.floats(0, 1, exclude_max=True), is_accepted=st.booleans())
    def ask(self, draw: float, is_accepted: bool) -> None:
        refusal = self.refusal()
        assume(abs(draw - refusal) > 1e-9 or refusal == 0)
        may = self.throttle.enter(self.now, lambda: draw)
        assert may is (draw >= refusal)
        self.requests.append(self.now)
        if may and is_accepted:
            self.throttle.accept(self.now)
            self.accepts.append(self.now)

    @rule(count=st.integers(1, 20))
    def be_turned_away(self, count: int) -> None:
        for _ in range(count):
            self.throttle.enter(self.now, lambda: 0.99)
        self.requests += [self.now] * count

    @rule(quarters=st.one_of(st.integers(1, 8), st.integers(30, 60)))
    def time_passes(self, quarters: int) -> None:
        self.now += quarters / 4

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        assert self.throttle.refusal(self.now) == pytest.approx(float(self.refusal()), abs=1e-9)

    @invariant()
    def no_refusal_is_certain(self) -> None:
        """Or the client would never see that the server has recovered."""
        assert 0 <= self.throttle.refusal(self.now) < 1


def test_it_agrees_with_the_model() -> None:
    run_state_machine_as_test(ThrottleMachine)


def test_while_one_in_k_is_accepted_nothing_is_refused_nor_drawn() -> None:
    throttle = Throttle(2, 120)
    for _ in range(1000):
        assert throttle.enter(0, never)
        throttle.accept(0)
        assert throttle.enter(0, never)


def test_refused_requests_count_as_requests() -> None:
    throttle = Throttle(2, 120)
    assert throttle.enter(0, never)
    refusals = []
    for _ in range(3):
        refusals.append(throttle.refusal(0))
        assert not throttle.enter(0, lambda: 0.0)
    assert refusals == [1 / 2, 2 / 3, 3 / 4]


def test_it_refuses_with_that_probability_and_no_other() -> None:
    throttle = Throttle(2, 120)
    assert throttle.enter(0, never)
    assert throttle.enter(0, lambda: 0.5)
    assert not throttle.enter(0, lambda: 0.66)


def test_of_a_service_that_takes_one_a_second_it_asks_about_k_times_what_is_taken() -> None:
    throttle = Throttle(2, 120)
    draw = random.Random(7).random  # noqa: S311
    sent = accepted = 0
    for second in range(1200):
        sent_now = sum(throttle.enter(second, draw) for _ in range(100))
        if sent_now:
            throttle.accept(second)
        if second >= 300:
            sent += sent_now
            accepted += sent_now > 0
    assert accepted > 500
    assert 1.7 <= sent / accepted <= 2.3


def test_when_the_service_is_back_all_is_sent_again() -> None:
    throttle = Throttle(2, 120)
    draw = random.Random(7).random  # noqa: S311
    for second in range(300):
        for _ in range(10):
            throttle.enter(second, draw)
    assert throttle.refusal(300) > 0.99
    for second in range(300, 1500):
        for _ in range(10):
            if throttle.enter(second, draw):
                throttle.accept(second)
    assert throttle.refusal(1500) == 0
