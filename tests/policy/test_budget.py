"""Budget against a naive model, and against its promise."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from loadshed._policy.budget import Budget

TTL = 10.0
A_SECOND = ["0", "0.1", "0.3", "0.5", "1"]
PERCENT = ["0", "0.1", "0.2", "0.35", "1", "1.5"]


class BudgetMachine(RuleBasedStateMachine):
    """With exact numbers and lists of times."""

    @initialize(a_second=st.sampled_from(A_SECOND), percent=st.sampled_from(PERCENT))
    def make(self, a_second: str, percent: str) -> None:
        self.budget = Budget(TTL, float(a_second), float(percent))
        self.reserve, self.percent = Fraction(a_second) * 10, Fraction(percent)
        self.now = 0.0
        self.requests: list[float] = []
        self.retries: list[float] = []

    def balance(self) -> Fraction:
        """Times are told apart by the second, the tenth part of the ttl."""
        requests = sum(math.floor(self.now) - math.floor(time) < 10 for time in self.requests)
        retries = sum(math.floor(self.now) - math.floor(time) < 10 for time in self.retries)
        return self.reserve + self.percent * requests - retries

    @rule(count=st.integers(1, 20))
    def deposit(self, count: int) -> None:
        for _ in range(count):
            self.budget.deposit(self.now)
        self.requests += [self.now] * count

    @rule(count=st.integers(1, 10))
    def withdraw(self, count: int) -> None:
        for _ in range(count):
            there_is_one = self.balance() >= 1
            assert self.budget.withdraw(self.now) is there_is_one
            if there_is_one:
                self.retries.append(self.now)

    @rule()
    def withdraw_all(self) -> None:
        for _ in range(max(0, math.floor(self.balance()))):
            assert self.budget.withdraw(self.now)
            self.retries.append(self.now)
        assert not self.budget.withdraw(self.now)

    @rule(quarters=st.one_of(st.integers(1, 8), st.integers(30, 60)))
    def time_passes(self, quarters: int) -> None:
        self.now += quarters / 4

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        assert self.budget.balance(self.now) == pytest.approx(float(self.balance()), abs=1e-6)

    @invariant()
    def the_retries_of_a_ttl_are_bounded_by_the_requests_and_the_reserve(self) -> None:
        """Within what `Window` cannot tell apart: a tenth of the ttl.

        Of the retries in any nine tenths of it, the last was paid for by what came in the ttl
        before it.
        """
        if not self.retries:
            return
        last = self.retries[-1]
        retries = sum(last - time <= 0.9 * TTL for time in self.retries)
        requests = sum(0 <= last - time < TTL for time in self.requests)
        assert retries <= self.reserve + self.percent * requests

    @invariant()
    def no_request_ever_pays_twice(self) -> None:
        ttls = math.floor(self.now / TTL) + 1
        bound = self.percent * len(self.requests) + self.reserve * ttls
        assert len(self.retries) <= bound


def test_it_agrees_with_the_model() -> None:
    run_state_machine_as_test(BudgetMachine)


def test_a_thousand_requests_pay_for_two_hundred_retries_beyond_the_reserve() -> None:
    budget = Budget(10, 10, 0.2)
    for _ in range(1000):
        budget.deposit(0)
    assert sum(budget.withdraw(0) for _ in range(5000)) == 300


def test_without_a_reserve_there_is_no_retry_before_it_is_paid_for() -> None:
    budget = Budget(10, 0, 0.25)
    for _ in range(3):
        budget.deposit(0)
        assert not budget.withdraw(0)
    budget.deposit(0)
    assert [budget.withdraw(0) for _ in range(2)] == [True, False]


def test_a_retry_that_was_refused_costs_nothing() -> None:
    budget = Budget(10, 0, 0.5)
    budget.deposit(0)
    for _ in range(10):
        assert not budget.withdraw(0)
    assert budget.balance(0) == 0.5
    budget.deposit(0)
    assert budget.withdraw(0)


def test_what_is_paid_in_is_forgotten() -> None:
    budget = Budget(10, 0, 1)
    for _ in range(5):
        budget.deposit(0)
    assert [budget.balance(now) for now in (0, 9.9, 10)] == [5, 5, 0]


def test_retries_outlast_the_requests_that_paid_for_them() -> None:
    """So that the reserve is not there anew when the requests are forgotten."""
    budget = Budget(10, 0.1, 1)
    for _ in range(5):
        budget.deposit(0)
    assert sum(budget.withdraw(9) for _ in range(10)) == 6
    assert budget.balance(10) == -5
    assert not budget.withdraw(18)
    assert budget.withdraw(19)


@given(
    st.integers(1, 60),
    st.integers(0, 300),
    st.integers(0, 100),
    st.integers(0, 200),
)
def test_a_budget_in_hundredths_is_exact(ttl: int, a_second: int, percent: int, n: int) -> None:
    """0.18 * 5 + 0.1 is less than 1, and 0.29 * 100 less than 29."""
    budget = Budget(ttl, a_second / 100, percent / 100)
    for _ in range(n):
        budget.deposit(0)
    expected = (a_second * ttl + percent * n) // 100
    assert sum(budget.withdraw(0) for _ in range(expected + 5)) == expected


def test_absurd_settings_are_no_bound_and_no_error() -> None:
    budget = Budget(1.7e308, 1.7e308, 1.7e308)
    for _ in range(10):
        budget.deposit(0)
    assert all(budget.withdraw(0) for _ in range(100))
