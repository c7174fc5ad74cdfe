"""Which replica takes the next request."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.routing import DECAY, Latency, choose


class Place:
    def __init__(self, ongoing: int, most: float, seconds: float | None = None) -> None:
        self.ongoing = ongoing
        self.max_ongoing_requests = most
        self.latency = Latency()
        if seconds is not None:
            self.latency.observe(seconds, 0.0)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 3, math.inf])), max_size=6),
    st.integers(),
)
def test_it_has_room_wherever_there_is_some(places: list[tuple[int, float]], seed: int) -> None:
    candidates = [Place(*each) for each in places]
    chosen = choose(candidates, random.Random(seed).random)  # noqa: S311
    free = [each for each in candidates if each.ongoing < each.max_ongoing_requests]
    assert (chosen in free) if free else chosen is None
    if len(free) > 1:  # of two different ones, so never the one with most to do
        assert chosen is not None
        busiest = max(each.ongoing for each in free)
        assert chosen.ongoing < busiest or sum(e.ongoing == busiest for e in free) > 1


@pytest.mark.parametrize("first", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("second", [0.0, 0.6])
def test_of_two_the_one_with_less_to_do_is_taken(first: float, second: float) -> None:
    places = [Place(2, 5), Place(1, 5)]
    numbers = iter([first, second])
    assert choose(places, lambda: next(numbers)) is places[1]


@pytest.mark.parametrize(
    ("one", "other", "taken"), [(0.2, 0.1, 1), (0.1, 0.2, 0), (0.1, 0.1, 0), (None, 0.1, 0)]
)
def test_who_was_quicker_lately_is_taken_where_both_have_as_much_to_do(
    one: float | None, other: float, taken: int
) -> None:
    places = [Place(1, 5, one), Place(1, 5, other)]
    numbers = iter([0.0, 0.0])  # the first, and then the other one
    assert choose(places, lambda: next(numbers)) is places[taken]


def test_every_pair_is_drawn() -> None:
    generator = random.Random(1)  # noqa: S311
    places = [Place(0, 5) for _ in range(4)]
    taken = Counter(id(choose(places, generator.random)) for _ in range(400))
    assert len(taken) == 4
    assert min(taken.values()) > 60


def test_a_peak_is_believed_at_once_and_forgotten_by_and_by() -> None:
    assert Latency().seconds is None
    latency = Latency()
    latency.observe(1.0, 100.0)
    latency.observe(3.0, 101.0)
    assert latency.seconds == 3.0
    latency.observe(1.0, 101.0 + DECAY)
    assert latency.seconds == pytest.approx(1.0 + 2.0 / math.e)
    latency.observe(0.0, 50.0)  # another event loop, another clock
    assert latency.seconds == pytest.approx(1.0 + 2.0 / math.e)
    latency.observe(1.0, 50.0 + DECAY)
    assert latency.seconds == pytest.approx(1.0 + 2.0 / math.e**2)
