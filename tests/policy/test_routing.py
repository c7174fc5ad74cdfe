"""Which replica takes the next request."""

import itertools
import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.routing import DECAY, Latency, choose

ALMOST_ONE = math.nextafter(1, 0)
"""The largest number that `random.random()` has."""


class Place:
    def __init__(self, ongoing: int, most: float, seconds: float | None = None) -> None:
        self.ongoing = ongoing
        self.max_ongoing_requests = most
        self.latency = Latency()
        if seconds is not None:
            self.latency.observe(seconds, 0.0)


def chosen(places: list[Place], *numbers: float, now: float = 0.0) -> Place | None:
    """The one that is chosen when these numbers are drawn, and no more than these."""
    return choose(places, lambda: now, iter(numbers).__next__)


def winners(places: list[Place]) -> Counter[int]:
    """How often each is chosen when each two are drawn once in each order."""
    count = len(places)
    draws = itertools.product(range(count), range(count - 1))
    taken = [chosen(places, (i + 0.5) / count, (j + 0.5) / (count - 1)) for i, j in draws]
    return Counter(places.index(each) for each in taken if each is not None)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 3, math.inf])), max_size=6),
    st.randoms(),
)
def test_it_has_room_wherever_there_is_some(
    places: list[tuple[int, float]], generator: Random
) -> None:
    candidates = [Place(*each) for each in places]
    one = choose(candidates, lambda: 0.0, generator.random)
    free = [each for each in candidates if each.ongoing < each.max_ongoing_requests]
    assert (one in free) if free else one is None
    if len(free) > 1:  # of two different ones, so never the one with most to do
        assert one is not None
        busiest = max(each.ongoing for each in free)
        assert one.ongoing < busiest or sum(e.ongoing == busiest for e in free) > 1


def test_nothing_is_drawn_where_there_is_no_choice() -> None:
    free, full, stopping = Place(4, 5), Place(5, 5), Place(0, 0)
    assert chosen([]) is None
    assert chosen([full, stopping]) is None
    assert chosen([free]) is free
    assert chosen([full, free, stopping]) is free


def test_one_that_has_more_than_it_may_have_is_full() -> None:
    assert chosen([Place(3, 2)]) is None


@pytest.mark.parametrize("first", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("second", [0.0, 0.6])
def test_of_two_the_one_with_less_to_do_is_taken_however_slow(first: float, second: float) -> None:
    places = [Place(2, 5, 0.1), Place(1, 5, 9.0)]
    assert chosen(places, first, second) is places[1]


@pytest.mark.parametrize(
    ("one", "other", "taken"),
    [(0.2, 0.1, 1), (0.1, 0.2, 0), (None, 0.1, 0), (0.1, None, 1)],
)
@pytest.mark.parametrize("first", [0.0, 0.5])
def test_who_was_quicker_lately_is_taken_where_both_have_as_much_to_do(
    one: float | None, other: float | None, taken: int, first: float
) -> None:
    places = [Place(1, 5, one), Place(1, 5, other)]
    assert chosen(places, first, 0.0) is places[taken]


@pytest.mark.parametrize("seconds", [None, 0.1])
def test_of_two_alike_the_first_that_is_drawn_is_taken(seconds: float | None) -> None:
    places = [Place(1, 5, seconds), Place(1, 5, seconds)]
    assert [chosen(places, first, 0.0) for first in (0.0, 0.5)] == places


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_each_two_are_drawn_equally_often(count: int) -> None:
    """The one with the least wins against all others, the next against all but one, and so on."""
    unlike = winners([Place(ongoing, 100) for ongoing in range(count)])
    assert unlike == Counter({i: 2 * (count - 1 - i) for i in range(count - 1)})
    assert winners([Place(0, 5) for _ in range(count)]) == dict.fromkeys(range(count), count - 1)


def test_the_largest_and_the_smallest_number_draw_a_replica_too() -> None:
    for count in range(2, 100):
        places = [Place(0, 5) for _ in range(count)]
        assert chosen(places, ALMOST_ONE, ALMOST_ONE) is places[-1]
        assert chosen(places, 0.0, 0.0) is places[0]


def test_what_a_request_took_is_believed_at_once_where_it_is_more() -> None:
    latency = Latency()
    assert latency.seconds is None
    for seconds in (0.0, 1.0, 3.0):
        latency.observe(seconds, 100.0)
        assert latency.seconds == seconds


def test_what_it_took_is_believed_by_and_by_where_it_is_less() -> None:
    assert DECAY == 10
    latency = Latency()
    latency.observe(3.0, 101.0)
    latency.observe(1.0, 101.0)  # in the same moment
    assert latency.seconds == 3.0
    latency.observe(1.0, 101.0 + DECAY)
    assert latency.seconds == pytest.approx(1.0 + 2.0 / math.e)
    latency.observe(1.0, 101.0 + 2 * DECAY)
    assert latency.seconds == pytest.approx(1.0 + 2.0 / math.e**2)
    latency.observe(1.0, 1e9)
    assert latency.seconds == 1.0


def test_a_peak_counts_from_when_it_was_seen() -> None:
    latency = Latency()
    for seconds, now in ((1.0, 0.0), (3.0, 50.0), (1.0, 50.0 + DECAY)):
        latency.observe(seconds, now)
    assert latency.seconds == pytest.approx(1.0 + 2.0 / math.e)


@pytest.mark.parametrize("back", [0.5, 950.0])
@pytest.mark.parametrize("on", [0.5, DECAY])
def test_time_that_goes_back_stands_still_and_goes_on_from_there(back: float, on: float) -> None:
    """Another event loop, another clock."""
    latency = Latency()
    latency.observe(3.0, 1000.0)
    latency.observe(1.0, 1000.0 - back)
    assert latency.seconds == 3.0
    latency.observe(1.0, 1000.0 - back + on)
    assert latency.seconds == pytest.approx(1.0 + 2.0 * math.exp(-on / DECAY))


@pytest.mark.parametrize(
    ("now", "seconds"),
    [(99.0, 3.0), (99.9, 3.0), (100.0, 3.0), (100.5, 3.0 * math.exp(-0.05)), (110.0, 3.0 / math.e)],
)
def test_what_to_reckon_with_fades_and_what_was_seen_does_not(now: float, seconds: float) -> None:
    latency = Latency()
    assert latency.expected(now) == 0.0
    latency.observe(3.0, 100.0)
    assert latency.expected(now) == pytest.approx(seconds)
    assert latency.expected(1e9) == 0.0
    assert latency.seconds == 3.0


def test_one_that_was_slow_once_is_tried_again_when_that_is_long_ago() -> None:
    slow, quick = places = [Place(0, 5, 1.0), Place(0, 5)]
    for now, taken in ((20.0, quick), (25.0, slow)):  # 1 s fades to 0.1 s in 23 s
        quick.latency = Latency()
        quick.latency.observe(0.1, now)
        assert chosen(places, 0.0, 0.0, now=now) is taken
        assert chosen(places, 0.5, 0.0, now=now) is taken


def test_one_whose_first_request_was_slow_takes_its_part_of_the_quick_ones_that_follow() -> None:
    """One request at a time, so that the latency alone decides."""
    places = [Place(0, 5, 0.05), Place(0, 5, 2.0)]
    taken: Counter[int] = Counter()
    for tenth in range(6000):
        one = chosen(places, tenth % 2 / 2, 0.0, now=tenth / 10)
        assert one is not None
        one.latency.observe(0.05, tenth / 10)
        taken[places.index(one)] += 1
    assert taken[1] > 2000


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(-1e6, 1e6)), min_size=1, max_size=30))
def test_it_is_between_what_was_seen_last_and_the_worst(seen: list[tuple[int, float]]) -> None:
    latency = Latency()
    for seconds, now in seen:
        latency.observe(float(seconds), now)
    assert latency.seconds is not None
    worst = max(seconds for seconds, _ in seen)
    assert seen[-1][0] * (1 - 1e-9) <= latency.seconds <= worst * (1 + 1e-9)
