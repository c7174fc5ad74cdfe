"""The quantiles of latencies, against those of a list that keeps all of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.latencies import BUCKETS, LEAST, STEPS, WINDOW, Latencies

PARTS = st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]) | st.floats(0, 1)
LONGEST = LEAST * 2 ** (BUCKETS / STEPS)
"""Seconds above which all are alike."""


def exact(seconds: list[float], part: float) -> float:
    """The smallest of them that this part does not exceed."""
    return sorted(seconds)[max(1, math.ceil(part * len(seconds))) - 1]


def seen(seconds: list[float], now: float = 0.0) -> Latencies:
    latencies = Latencies()
    for each in seconds:
        latencies.observe(each, now)
    return latencies


@given(st.lists(st.floats(LEAST, 1e6, exclude_min=True), min_size=1, max_size=60), PARTS)
def test_a_quantile_is_at_most_5_percent_off(seconds: list[float], part: float) -> None:
    found = seen(seconds).quantile(part, 0.0)
    assert found == pytest.approx(exact(seconds, part), rel=0.05)


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_where_there_was_none_there_is_no_quantile(part: float) -> None:
    assert Latencies().quantile(part, 0.0) is None
    assert Latencies().quantile(part, 1e9) is None


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9, LEAST, math.nextafter(LEAST, 1)])
def test_what_takes_no_time_at_all_counts_as_a_millionth_of_a_second(seconds: float) -> None:
    found = seen([seconds]).quantile(0.5, 0.0)
    assert found == pytest.approx(LEAST, rel=0.05)


@pytest.mark.parametrize("seconds", [LONGEST, 2 * LONGEST, 1e300])
def test_what_takes_for_ever_counts_as_the_longest(seconds: float) -> None:
    assert LONGEST > 12 * 24 * 3600
    found = seen([seconds]).quantile(1.0, 0.0)
    assert found == pytest.approx(LONGEST, rel=0.05)


def test_the_slow_ones_show_in_the_tail_alone() -> None:
    latencies = seen([0.01] * 98 + [3.0] * 2)
    assert latencies.quantile(0.5, 0.0) == pytest.approx(0.01, rel=0.05)
    assert latencies.quantile(0.98, 0.0) == pytest.approx(0.01, rel=0.05)
    assert latencies.quantile(0.99, 0.0) == pytest.approx(3.0, rel=0.05)


def test_this_window_and_the_one_before_count() -> None:
    latencies = seen([1.0], 100.0)
    latencies.observe(4.0, 100.0 + WINDOW)
    for now in (100.0 + WINDOW, 100.0 + 2 * WINDOW - 0.001):
        assert latencies.quantile(0.5, now) == pytest.approx(1.0, rel=0.05)
        assert latencies.quantile(1.0, now) == pytest.approx(4.0, rel=0.05)
    assert latencies.quantile(0.0, 100.0 + 2 * WINDOW) == pytest.approx(4.0, rel=0.05)
    assert latencies.quantile(0.0, 100.0 + 3 * WINDOW) is None


def test_what_came_before_a_long_silence_is_forgotten_at_once() -> None:
    latencies = seen([1.0], 100.0)
    assert latencies.quantile(0.5, 100.0 + 2 * WINDOW - 0.001) == pytest.approx(1.0, rel=0.05)
    latencies = seen([1.0], 100.0)
    latencies.observe(4.0, 100.0 + 2 * WINDOW)
    assert latencies.quantile(0.0, 100.0 + 2 * WINDOW) == pytest.approx(4.0, rel=0.05)


@given(st.lists(st.tuples(st.floats(0.001, 100), st.floats(0, 3 * WINDOW)), min_size=1), PARTS)
def test_what_is_new_always_counts_and_what_is_older_than_three_windows_never(
    seen_after: list[tuple[float, float]], part: float
) -> None:
    latencies, now = Latencies(), 50.0
    all_of_them: list[tuple[float, float]] = []
    for seconds, after in seen_after:
        now += after
        latencies.observe(seconds, now)
        all_of_them.append((now, seconds))
    found = latencies.quantile(part, now)
    assert found is not None
    recent = [seconds for at, seconds in all_of_them if at > now - 3 * WINDOW]
    assert min(recent) * 0.95 <= found <= max(recent) * 1.05
    certain = [seconds for at, seconds in all_of_them if at == now]
    assert latencies.quantile(0.0, now) <= min(certain) * 1.05  # type: ignore[operator]
    assert latencies.quantile(1.0, now) >= max(certain) * 0.95  # type: ignore[operator]


def test_time_that_goes_back_does_not_keep_what_is_long_gone() -> None:
    """Another event loop, another clock: trio's begins anywhere, asyncio's when the machine did."""
    latencies = seen([9.0], 1e6)
    now = 10.0
    for _ in range(3):
        latencies.observe(0.1, now)
        now += WINDOW
    assert latencies.quantile(1.0, now - WINDOW) == pytest.approx(0.1, rel=0.05)
