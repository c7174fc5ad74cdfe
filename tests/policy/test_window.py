"""Window against a list of what happened."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from loadshed._policy.window import STEPS, Window

SECONDS = 10.0
STEP = SECONDS / STEPS


class WindowMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.window = Window(SECONDS)
        self.now = 0.0
        self.latest = 0.0
        self.times: list[float] = []

    def see(self) -> None:
        """Time that goes back stands still."""
        self.latest = max(self.latest, self.now)

    @rule(count=st.integers(1, 5))
    def add(self, count: int) -> None:
        self.see()
        for _ in range(count):
            self.window.add(self.now)
            self.times.append(self.latest)

    @rule(quarters=st.one_of(st.integers(0, 12), st.integers(30, 50)))
    def time_passes(self, quarters: int) -> None:
        self.now += quarters * STEP / 4

    @rule(quarters=st.integers(1, 60))
    def time_goes_back(self, quarters: int) -> None:
        self.now = max(0, self.now - quarters * STEP / 4)

    @invariant()
    def it_counts_what_happened_in_this_step_and_the_nine_before(self) -> None:
        self.see()
        steps = [math.floor(self.latest / STEP) - math.floor(time / STEP) for time in self.times]
        assert self.window.total(self.now) == sum(step < STEPS for step in steps)

    @invariant()
    def it_reaches_back_between_nine_tenths_and_the_whole_of_its_length(self) -> None:
        self.see()
        ages = [self.latest - time for time in self.times]
        total = self.window.total(self.now)
        assert sum(age <= 0.9 * SECONDS for age in ages) <= total
        assert total <= sum(age < SECONDS for age in ages)


def test_it_agrees_with_the_model() -> None:
    run_state_machine_as_test(WindowMachine)


def test_nothing_has_happened_in_the_beginning() -> None:
    assert Window(10).total(0) == Window(10).total(1e9) == 0


def test_what_happened_before_time_began_is_forgotten_too() -> None:
    window = Window(10)
    window.add(-5)
    assert [window.total(now) for now in (-5, 0, 8.9, 9)] == [1, 1, 1, 0]


def test_after_a_long_silence_all_is_forgotten_at_once() -> None:
    window = Window(10)
    for second in range(10):
        window.add(second)
    assert window.total(10) == 9
    assert window.total(1e15) == 0


@pytest.mark.parametrize("seconds", [5e-324, 1e-300, 1e-9, 1e-3, 1e9, 1.7e308])
def test_any_length_can_be_counted_with(seconds: float) -> None:
    window = Window(seconds)
    window.add(1e9)
    assert window.total(1e9) == 1


@given(st.floats(1e-3, 1e6), st.lists(st.floats(0, 1e9), max_size=20))
def test_the_total_is_never_negative_nor_more_than_was_added(
    seconds: float, times: list[float]
) -> None:
    window = Window(seconds)
    for count, now in enumerate(times, 1):
        window.add(now)
        assert 1 <= window.total(now) <= count
    assert 0 <= window.total(2e9) <= len(times)
