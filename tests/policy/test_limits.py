"""The fixed limit, and Netflix' three against values worked out by hand from its Java code."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._errors import ConfigError
from loadshed._policy.limits.aimd import AIMDLimit
from loadshed._policy.limits.gradient2 import Gradient2Limit
from loadshed._policy.limits.limit import FixedLimit, Limit
from loadshed._policy.limits.vegas import VegasLimit, digits

ALMOST_ONE = math.nextafter(1, 0)
"""The largest number that `random.random()` has."""

MAKERS: list[Callable[..., Limit]] = [AIMDLimit, VegasLimit, Gradient2Limit]
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SAMPLES = st.lists(
    st.tuples(
        FINITE,
        FINITE | st.sampled_from([0.0, -1.0, 1e-320, 0.01, 0.1, 1.0, 6.0, 1e300]),
        st.booleans(),
        st.integers(-5, 400) | st.just(math.inf),
        st.integers(1, 100),
    ),
    max_size=30,
)


def seen(limit: Limit, *samples: tuple[float, bool, float]) -> list[float]:
    """The limit after each of these: seconds, whether it was of use, how many were ongoing."""
    limits = []
    for number, (seconds, ok, ongoing) in enumerate(samples):
        limit.observe(float(number), seconds, ok, ongoing)
        limits.append(limit.limit)
    return limits


def test_a_fixed_limit_stays_what_it_is() -> None:
    limit = FixedLimit(3)
    assert seen(limit, (0.1, True, 3), (9.0, False, 3)) == [3, 3]
    assert limit.reason == ""
    assert repr(limit) == "FixedLimit(3)"


@pytest.mark.parametrize("make", MAKERS)
@given(samples=SAMPLES, initial=st.integers(1, 300), less=st.integers(0, 50), more=st.integers(0))
def test_whatever_it_is_told_the_limit_is_a_whole_number_within_its_bounds(
    make: Callable[..., Limit],
    samples: list[tuple[float, float, bool, float, int]],
    initial: int,
    less: int,
    more: int,
) -> None:
    lowest, highest = max(1, initial - less), initial + more
    limit = make(initial, lowest=lowest, highest=highest)
    assert limit.reason == ""
    for now, seconds, ok, ongoing, times in samples:
        for _ in range(times):
            limit.observe(now, seconds, ok, ongoing)
            assert type(limit.limit) is int
            assert lowest <= limit.limit <= highest
            if limit.reason:
                assert limit.reason.startswith(f"{limit.limit}: ")


@pytest.mark.parametrize("make", MAKERS)
def test_it_is_a_limit(make: Callable[..., Limit]) -> None:
    limit = make()
    assert isinstance(limit, Limit)
    assert limit.limit == 20
    assert repr(limit) == f"{make.__name__}(limit=20, reason='')"


@pytest.mark.parametrize("make", MAKERS)
def test_without_a_bound_it_grows_as_far_as_numbers_go(make: Callable[..., Limit]) -> None:
    limit = make(2**52 - 3, highest=math.inf)
    for _ in range(100):
        limit.observe(0.0, 0.1, True, math.inf)
    assert limit.limit == 2**52


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (AIMDLimit, {"initial": 19}, "initial must be a whole number from 20 to 200, not 19."),
        (AIMDLimit, {"initial": 201}, "initial must be a whole number from 20 to 200, not 201."),
        (
            AIMDLimit,
            {"backoff_ratio": 0.4},
            "backoff_ratio must be a number >= 0.5 and < 1, not 0.4.",
        ),
        (AIMDLimit, {"backoff_ratio": 1}, "backoff_ratio must be a number >= 0.5 and < 1, not 1."),
        (
            AIMDLimit,
            {"backoff_ratio": "1"},
            "backoff_ratio must be a number >= 0.5 and < 1, not '1'.",
        ),
        (AIMDLimit, {"timeout": 0}, "timeout must be a number of seconds > 0, or None, not 0."),
        (
            VegasLimit,
            {"highest": 0.5},
            "highest must be a whole number >= 1, or math.inf, not 0.5.",
        ),
        (VegasLimit, {"smoothing": 0}, "smoothing must be a number > 0 and <= 1, not 0."),
        (VegasLimit, {"smoothing": 1.1}, "smoothing must be a number > 0 and <= 1, not 1.1."),
        (VegasLimit, {"probe_multiplier": 0}, "probe_multiplier must be a number >= 1, not 0."),
        (Gradient2Limit, {"lowest": 0}, "lowest must be a whole number >= 1, not 0."),
        (Gradient2Limit, {"smoothing": -1}, "smoothing must be a number > 0 and <= 1, not -1."),
        (Gradient2Limit, {"queue_size": -1}, "queue_size must be a whole number >= 0, not -1."),
        (Gradient2Limit, {"rtt_tolerance": 0.9}, "rtt_tolerance must be a number >= 1, not 0.9."),
        (Gradient2Limit, {"long_window": 0}, "long_window must be a whole number >= 1, not 0."),
    ],
)
def test_a_setting_that_is_wrong_is_told(
    make: Callable[..., Limit], wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        make(**wrong)
    assert str(raised.value) == message


class TestAIMD:
    def test_it_grows_by_one_where_half_of_it_is_in_use(self) -> None:
        limit = AIMDLimit()
        samples = [(0.1, True, ongoing) for ongoing in (9, 10, 10, 11)]
        assert seen(limit, *samples) == [20, 21, 21, 22]
        assert limit.reason == "22: half of the limit was in use, and nothing failed"

    def test_it_falls_by_a_tenth_with_what_is_of_no_use(self) -> None:
        limit = AIMDLimit(100)
        assert seen(limit, *[(0.1, False, 1)] * 4) == [90, 81, 72, 64]
        assert limit.reason == "64: a request was of no use"

    def test_it_falls_with_what_takes_longer_than_the_timeout(self) -> None:
        limit = AIMDLimit(100)
        assert seen(limit, (5.0, True, 1), (5.1, True, 100)) == [100, 90]
        assert limit.reason == "90: a request took too long"
        assert seen(AIMDLimit(100, timeout=0.1), (0.2, True, 1)) == [90]
        assert seen(AIMDLimit(100, timeout=None), (1e9, True, 1)) == [100]

    def test_it_keeps_within_its_bounds(self) -> None:
        assert seen(AIMDLimit(200), (0.1, True, 200)) == [200]
        assert seen(AIMDLimit(21), *[(0.1, False, 21)] * 2) == [20, 20]
        assert seen(AIMDLimit(2, lowest=1), *[(0.1, False, 21)] * 2) == [1, 1]

    def test_the_ratio_can_be_chosen(self) -> None:
        assert seen(AIMDLimit(100, backoff_ratio=0.5), (0.1, False, 1)) == [50]


def vegas(
    initial: int, *, draw: Callable[[], float] = lambda: ALMOST_ONE, **settings: object
) -> Limit:
    """One that has seen that nothing takes less than 0.1 s, and does not probe soon."""
    limit = VegasLimit(initial, random=draw, **settings)  # type: ignore[arg-type]
    assert seen(limit, (0.1, True, initial)) == [initial]
    return limit


class TestVegas:
    @pytest.mark.parametrize(
        ("seconds", "after"),
        [
            (0.1, 112),  # none waits: by beta
            (0.1 / 0.985, 112),  # 2 do, as many as the threshold
            (0.1 / 0.975, 102),  # 3, fewer than alpha
            (0.1 / 0.945, 100),  # 6, as many as alpha
            (0.1 / 0.885, 100),  # 12, as many as beta
            (0.1 / 0.875, 98),  # 13, more than beta
            (10.0, 98),
        ],
    )
    def test_it_moves_by_how_many_wait(self, seconds: float, after: int) -> None:
        """With 100 the logarithm is 2, the threshold as much, alpha 6, and beta 12."""
        assert seen(vegas(100), (seconds, True, 100)) == [after]

    def test_it_falls_with_what_is_of_no_use(self) -> None:
        limit = vegas(100)
        assert seen(limit, (0.1, False, 1)) == [98]
        assert limit.reason == "98: a request was of no use"

    def test_it_stays_where_less_than_half_of_it_is_in_use(self) -> None:
        assert seen(vegas(100), (0.1, True, 49), (0.1, True, 50)) == [100, 112]

    def test_it_says_why_it_moved(self) -> None:
        limit = vegas(100)
        reasons = []
        for seconds in (0.1, 0.103, 0.2):
            limit.observe(0.0, seconds, True, 100)
            reasons.append(limit.reason)
        assert reasons == ["112: hardly any wait", "114: few wait", "112: many wait"]

    def test_what_is_shorter_than_all_before_moves_nothing(self) -> None:
        limit = vegas(100)
        assert seen(limit, (0.05, True, 100), (0.1, True, 100)) == [100, 98]

    def test_it_keeps_within_its_bounds(self) -> None:
        assert seen(vegas(995), (0.1, True, 995), (0.1, True, 995)) == [1000, 1000]
        assert seen(vegas(2), *[(0.1, False, 1)] * 3) == [1, 1, 1]

    def test_a_part_of_a_change_is_made_at_once_where_it_is_smoothed(self) -> None:
        # By a quarter of 2: 20.5, 21, 21.5, 22
        limit = vegas(20, smoothing=0.25, beta=lambda _: 2)
        assert seen(limit, *[(0.1, True, 20)] * 4) == [20, 21, 21, 22]

    def test_what_waits_can_be_judged_otherwise(self) -> None:
        limit = vegas(
            100, alpha=lambda _: 40, beta=lambda _: 60, threshold=lambda _: 20, change=lambda _: 5
        )
        used = [(0.1, True, 100), (0.16, True, 160), (0.25, True, 160), (0.5, True, 160)]
        # none of 100; 60 of 160 is neither < 40 nor > 60; 96 of 160; 124 of 155
        assert seen(limit, *used) == [160, 160, 155, 150]

    @pytest.mark.parametrize(("draw", "samples"), [(0.0, 150), (ALMOST_ONE, 300)])
    def test_it_looks_for_the_shortest_time_anew_by_and_by(self, draw: float, samples: int) -> None:
        """After 30 times the limit of 10, of which a part is drawn, from a half up."""
        limit = vegas(10, draw=lambda: draw)
        used = [*[(0.1, True, 1)] * (samples - 2), (0.2, True, 1), (0.2, True, 10)]
        assert seen(limit, *used)[-1] == 16  # as if 0.2 were the shortest, so that none waits
        earlier = [*[(0.1, True, 1)] * (samples - 3), (0.2, True, 1), (0.2, True, 10)]
        assert seen(vegas(10, draw=lambda: draw), *earlier)[-1] == 10  # 0.2 is what it starts from

    def test_a_time_that_is_none_says_nothing(self) -> None:
        limit = vegas(100)
        assert (
            seen(limit, *[(each, False, 100) for each in (0.0, -1.0, math.inf, math.nan)])
            == [100] * 4
        )

    def test_without_a_generator_probes_are_spread_evenly(self) -> None:
        limit = VegasLimit(10, highest=10)
        assert isinstance(limit, Limit)
        probes, seconds = [], 1.0
        for number in range(20_000):
            before = limit._shortest
            seconds += 0.001
            limit.observe(0.0, seconds, True, 1)
            if limit._shortest != before:
                probes.append(number)
        gaps = [later - earlier for earlier, later in pairwise(probes[1:])]
        assert 150 <= min(gaps) < 160
        assert 290 < max(gaps) <= 300
        assert 220 < sum(gaps) / len(gaps) < 230

    @pytest.mark.parametrize(
        ("limit", "logarithm"),
        [(1, 1), (9, 1), (99, 1), (100, 2), (999, 2), (1000, 3), (2**52, 15)],
    )
    def test_what_it_moves_by_is_the_logarithm(self, limit: int, logarithm: int) -> None:
        assert digits(limit) == logarithm


class TestGradient2:
    def test_it_grows_by_the_queue_where_nothing_takes_longer(self) -> None:
        """By a fifth of 4 each."""
        limit = Gradient2Limit()
        assert seen(limit, *[(0.1, True, 20)] * 6) == [20, 21, 22, 23, 24, 24]
        assert limit.reason == "24: requests take hardly longer than they mostly do"

    def test_it_falls_by_half_at_most_where_a_request_takes_longer(self) -> None:
        limit = Gradient2Limit(100, lowest=1)
        idle = [(0.1, True, 1)] * 10
        # 100 * 0.8 + (100 * 0.5 + 4) * 0.2 = 90.8, and 90.8 * 0.9 + 0.8 = 82.52
        assert seen(limit, *idle, (10.0, True, 100), (10.0, True, 100))[-2:] == [90, 82]
        assert limit.reason == "82: requests take longer than they mostly do"

    def test_it_falls_in_proportion(self) -> None:
        limit = Gradient2Limit(100, lowest=1)
        used = [*[(0.1, True, 1)] * 9, (0.2, True, 100)]
        # The average of ten is 0.11, the gradient 1.5 * 0.11 / 0.2 = 0.825: 80 + 86.5 * 0.2
        assert seen(limit, *used)[-1] == 97
        # 0.11 * 599/601 + 0.2 * 2/601 = 0.1103: * 1.5 / 0.2 = 0.8272; 97.3 * 0.9654 + 0.8 = 94.7
        assert seen(limit, (0.2, True, 100)) == [94]

    def test_a_tolerance_of_1_tolerates_nothing(self) -> None:
        limit = Gradient2Limit(100, lowest=1, rtt_tolerance=1.0)
        # 0.11 / 0.2 = 0.55: 80 + 59 * 0.2
        assert seen(limit, *[(0.1, True, 1)] * 9, (0.2, True, 100))[-1] == 91

    def test_it_stays_where_less_than_half_of_it_is_in_use(self) -> None:
        assert seen(Gradient2Limit(), *[(0.1, True, 9)] * 3) == [20, 20, 20]

    def test_whether_a_request_was_of_use_it_does_not_ask(self) -> None:
        assert seen(Gradient2Limit(), *[(0.1, False, 20)] * 2) == [20, 21]

    def test_after_an_overload_the_average_is_helped_down(self) -> None:
        limit = Gradient2Limit(100, lowest=1, long_window=10**9)  # so that nothing else moves it
        used = [*[(1.0, True, 1)] * 10, *[(0.1, True, 1)] * 30]
        seen(limit, *used)
        # 0.95 ** 30 = 0.2146 s; of 0.4 s the gradient is 1.5 * 0.2146 / 0.4 = 0.805
        assert seen(limit, (0.4, True, 100)) == [96]  # 100 * (0.8 + 0.161) + 0.8 = 96.9
        assert seen(limit, *[(0.1, True, 1)] * 3, (0.4, True, 100))[-1] == 92  # 0.184: 0.69

    def test_what_is_helped_down_among_the_first_ten_is_forgotten(self) -> None:
        """As in Java: their average is the plain one."""
        limit = Gradient2Limit(100, lowest=1)
        used = [(1.0, True, 1), *[(0.1, True, 1)] * 8, (0.76, True, 100)]
        # (1 + 0.8 + 0.76) / 10 = 0.256; * 1.5 / 0.76 = 0.505: 80 + 54.5 * 0.2
        assert seen(limit, *used)[-1] == 90
        assert seen(limit, (0.384, True, 100)) == [91]  # 0.2564 is all of it: 1: 90.9 + 0.8

    def test_it_keeps_within_its_bounds(self) -> None:
        assert seen(Gradient2Limit(199), *[(0.1, True, 199)] * 3) == [199, 200, 200]
        slow = [*[(0.1, True, 1)] * 10, *[(9.0, True, 20)] * 3]
        assert seen(Gradient2Limit(), *slow)[-3:] == [20, 20, 20]

    def test_a_time_that_is_none_says_nothing(self) -> None:
        limit = Gradient2Limit()
        none = [(each, True, 20) for each in (0.0, -1.0, math.inf, math.nan)]
        assert seen(limit, *none) == [20] * 4


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.booleans(), st.integers(1, 300)), max_size=300),
    st.floats(0.1, 1),
    st.integers(1, 300),
)
def test_they_are_what_java_says(
    samples: list[tuple[float, bool, int]], smoothing: float, initial: int
) -> None:
    for java, limit in (
        (JavaVegas(initial, smoothing), vegas_like(initial, smoothing)),
        (JavaGradient2(initial, smoothing), gradient2_like(initial, smoothing)),
    ):
        for rtt, ok, inflight in samples:
            expected = java.update(rtt, inflight, not ok)
            limit.observe(0.0, rtt, ok, inflight)
            assert limit.limit == expected


def vegas_like(initial: int, smoothing: float) -> Limit:
    return VegasLimit(initial, smoothing=smoothing, random=lambda: 0.5, probe_multiplier=1)


def gradient2_like(initial: int, smoothing: float) -> Limit:
    return Gradient2Limit(initial, lowest=1, highest=1000, smoothing=smoothing)


class JavaVegas:
    """`VegasLimit.java`, with its names; its jitter is 0.75."""

    def __init__(self, initial: int, smoothing: float) -> None:
        self.estimated = float(initial)
        self.smoothing = smoothing
        self.rtt_noload = 0.0
        self.probes = 0

    def update(self, rtt: float, inflight: int, did_drop: bool) -> int:
        self.probes += 1
        if 0.75 * self.estimated <= self.probes:
            self.probes = 0
            self.rtt_noload = rtt
        elif self.rtt_noload in {0.0} or rtt < self.rtt_noload:
            self.rtt_noload = rtt
        else:
            self.estimate(rtt, inflight, did_drop)
        return int(self.estimated)

    def estimate(self, rtt: float, inflight: int, did_drop: bool) -> None:
        queue = math.ceil(self.estimated * (1 - self.rtt_noload / rtt))
        log10 = max(1, int(math.log10(int(self.estimated))))
        if did_drop:
            new = self.estimated - log10
        elif inflight * 2 < self.estimated:
            return
        elif queue <= log10:
            new = self.estimated + 6 * log10
        elif queue < 3 * log10:
            new = self.estimated + log10
        elif queue > 6 * log10:
            new = self.estimated - log10
        else:
            return
        new = max(1, min(1000, new))
        self.estimated = (1 - self.smoothing) * self.estimated + self.smoothing * new


class JavaGradient2:
    """`Gradient2Limit.java` and `ExpAvgMeasurement.java`, with their names."""

    def __init__(self, initial: int, smoothing: float) -> None:
        self.estimated = float(initial)
        self.smoothing = smoothing
        self.value = self.sum = 0.0
        self.count = 0

    def update(self, rtt: float, inflight: int, did_drop: bool) -> int:
        if self.count < 10:
            self.count += 1
            self.sum += rtt
            self.value = self.sum / self.count
        else:
            factor = 2.0 / (600 + 1)
            self.value = self.value * (1 - factor) + rtt * factor
        long_rtt = self.value
        if long_rtt / rtt > 2:
            self.value *= 0.95
        if inflight < self.estimated / 2:
            return int(self.estimated)
        gradient = max(0.5, min(1.0, 1.5 * long_rtt / rtt))
        new = self.estimated * gradient + 4
        new = self.estimated * (1 - self.smoothing) + new * self.smoothing
        self.estimated = max(1, min(1000, new))
        return int(self.estimated)
