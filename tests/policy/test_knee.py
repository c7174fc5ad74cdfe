"""KneeLimit against the terse form of its algorithm, and against services that are simulated."""

import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from math import exp, log, sqrt
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadshed._errors import ConfigError
from loadshed._policy.limits.knee import KneeLimit
from loadshed._policy.limits.limit import Limit

Sample = tuple[float, float, bool, float]
"""Now, seconds, ok, ongoing."""


def generator(seed: float) -> Random:
    return Random(seed)  # noqa: S311 - no secret


class Terse:
    """The algorithm as it was first written down, line by line and with its names.

    It is what the study of it was made with, so the limit has to be the same with each sample. Two
    rules are newer. 0: halving is undone; `lost` is the limit before it, `back` whether a part of
    it was undone. 5: where requests take far longer while others wait, it makes haste; `was` is how
    long they took before, while it does.
    """

    def __init__(
        self, limit: int = 10, lowest: int = 1, highest: int = 10_000, *, has_queue: bool = True
    ) -> None:
        self.lowest, self.highest, self.has_queue = lowest, highest, has_queue
        self.limit = limit
        self.phase = "REST"
        self.step, self.gap, self.left, self.failed = 1.6, 0, 0, 0
        self.rose = self.back = False
        self.lost = 0
        self.was = 0.0
        self.fast: float | None = None
        self.idle = self.last = 0.0
        self.ref = SimpleNamespace(limit=0, rate=0.0, n=0, mean=0.0, ok=0.0)
        self.rest = SimpleNamespace(mean=0.0, n=0, ok=1.0)
        self.taken: set[str] = set()  # which ways it took, so that a test can say that it took all

    def release(self, now: float, sec: float, ok: bool, ongoing: float) -> None:
        if self.fast is None:
            self.fast = sec
            self.open(now)
        self.fast += (sec - self.fast) / 64
        w = self.w
        if now < w.opens:
            return
        w.n += 1
        w.ok += ok
        w.full += ongoing >= self.limit
        w.sum += sec
        w.sumsq += sec * sec
        if not (w.n % 8 or w.n < 16):
            self.look(now)

    def look(self, now: float) -> None:  # noqa: PLR0911
        w, ref, rest, limit, fast = self.w, self.ref, self.rest, self.limit, self.fast
        assert fast is not None
        resting, up, down = (self.phase == each for each in ("REST", "UP", "DOWN"))
        n, mean, t = w.n, w.sum / w.n, now - w.opens
        if t < 0.5 or t < mean:
            return
        cv2 = max(0.1, w.sumsq / n / mean**2 - 1)
        done = sqrt(2 * cv2 / n) <= 0.25 * log(self.step) or n >= 600
        slots = limit if self.has_queue else min(limit, w.sum / t)
        rate = slots / mean * (w.ok + 0.5) / (n + 0.5)
        bound = w.full >= (0.8 if self.has_queue else 0.4) * n
        # 0. is it of use again?
        if not down and 2 * limit < self.lost and w.ok >= 0.5 * n:
            self.taken.add(f"back while {self.phase}")
            self.back = True
            self.step = 1.6
            self.last = mean
            self.forget()
            self.set(2 * limit, now)
            return
        # 1. did the world change?
        b, k, r = (rest.mean, rest.n, 1.0) if resting else (ref.mean, ref.n, limit / ref.limit)
        if b:
            d = max(log(fast / (b * max(1, r))), log(b * min(1, r) / fast))
            if d > 0.25 + 2 * sqrt(cv2 * (1 / 128 + 1 / k)):
                self.taken.add(f"changed while {self.phase}")
                to = limit if resting else ref.limit
                self.step = min(1.6, max(1.25, exp(d)))
                self.last = fast
                self.forget()
                self.set(to, now)
                if fast > b and bound:
                    self.hasten(b)
                return
        # 2. not limit-bound
        if not bound:
            if not done and not (resting and n >= 64):
                return
            rate *= min(1, w.sum / t / limit)
            self.last, to = mean, limit
            if down or (up and rate < ref.rate * (limit / ref.limit) ** 0.4):
                to = ref.limit
            if resting and w.full < 0.5 * n:
                if not self.idle:
                    self.idle = mean
                self.idle += (mean - self.idle) * (0.5 if mean < self.idle else 0.05)
            self.taken.add(f"free while {self.phase}, {to == limit}")
            self.step = 1.25
            self.forget()
            self.set(to, now)
            return
        # 5. requests take far longer now that there is a load
        if resting and not rest.mean and self.idle and mean > 2 * self.idle:
            self.taken.add("idle")
            self.hasten(self.idle)
            self.open(now)
            return
        # 3. a test is running
        if up or down:
            gain = log(rate / ref.rate)
            bar = (0.4 if up else 0.2) * log(limit / ref.limit)
            if not done and abs(gain - bar) < 2 * sqrt(cv2 * (1 / n + 1 / ref.n)):
                return
            self.last = mean
            self.lost = 0
            self.taken.add(f"{self.phase}, {self.rose}, {gain >= bar}")
            if gain >= bar:
                self.ref = SimpleNamespace(limit=limit, rate=rate, n=n, mean=mean, ok=w.ok / n)
                self.step = 2.0 if self.was else min(1.6, 1.4 * self.step)
                if up:
                    self.rose = True
                    self.set(max(limit + 1, limit * self.step), now)
                elif limit > self.lowest:
                    self.set(min(limit - 1, limit / self.step), now)
                else:
                    self.to_rest(limit, now, fail=False)
                return
            down_next = up and not self.rose and ref.limit > self.lowest and self.failed % 4 == 0
            if down_next and not self.was:
                self.phase = "DOWN"
                self.set(min(ref.limit - 1, ref.limit / self.step), now)
                return
            if self.was:
                self.taken.add(f"hasty, {self.rose}")
                self.was, self.step = 0.0, 1.6
                if not self.rose:
                    self.forget()
                    self.set(ref.limit, now)
                    return
            up_ended = up and self.rose
            if self.rose or down:
                self.step = max(1.25, sqrt(self.step))
            if up_ended:
                self.gap = 0
            self.to_rest(ref.limit, now, fail=True)
            if up_ended:
                self.failed = 0
            return
        # 4. resting, limit-bound
        if self.was and mean < 2 * self.was:
            self.taken.add("not hasty: chance")
            self.was, self.step = 0.0, 1.6
        done = sqrt(2 * cv2 / n) <= (0.35 if self.was else 0.25) * log(self.step) or n >= 600
        if n < 64 and not done:
            return
        if self.was and not done:
            self.taken.add("not hasty: too little")
            self.was, self.step = 0.0, 1.6
        rest.mean = (rest.mean * rest.n + w.sum) / (rest.n + n)
        rest.ok = (rest.ok * rest.n + w.ok) / (rest.n + n)
        rest.n = min(2000, rest.n + n)
        self.last = mean
        if w.ok < 0.05 * n:
            if not self.lost:
                self.lost = limit
            elif self.back:
                self.taken.add("lost on the way back")
                self.lost //= 2
            self.back = False
            self.was = 0.0
            self.taken.add("lost")
            self.ref = SimpleNamespace(limit=limit, rate=rate, n=n, mean=mean, ok=0)
            self.to_rest(limit / 2, now, fail=False)
            return
        self.left -= 1
        vague = sqrt(2 * cv2 / rest.n) > 0.25 * log(self.step) and rest.n < 600
        if not self.was and (self.left > 0 or vague):
            self.open(now)
            return
        self.ref = SimpleNamespace(
            limit=limit, rate=limit / rest.mean * rest.ok, n=rest.n, mean=rest.mean, ok=rest.ok
        )
        self.rose = False
        if rest.ok < 0.5 and limit > self.lowest:
            self.taken.add("distress")
            self.was = 0.0
            self.phase = "DOWN"
            self.step = max(1.5, self.step)
            self.set(min(limit - 1, limit / self.step), now)
            return
        self.phase = "UP"
        self.set(max(limit + 1, limit * self.step), now)

    def forget(self) -> None:
        self.phase, self.was = "REST", 0.0
        self.gap = self.left = self.failed = 0
        self.rest = SimpleNamespace(mean=0.0, n=0, ok=1.0)

    def hasten(self, was: float) -> None:
        self.was, self.idle = was, 0.0
        self.step = 2.0

    def to_rest(self, limit: float, now: float, *, fail: bool) -> None:
        self.phase = "REST"
        self.gap = min(16, max(1, 2 * self.gap)) if fail else 0
        self.left = self.gap
        self.failed = self.failed + 1 if fail else 0
        self.rest = SimpleNamespace(mean=self.ref.mean, n=self.ref.n, ok=self.ref.ok)
        self.set(limit, now)

    def set(self, limit: float, now: float) -> None:
        old = self.limit
        self.limit = math.floor(min(self.highest, max(self.lowest, limit)) + 0.5)
        wait = 1.5 * self.last * max(1, self.limit / old)
        self.open(now + wait if self.limit != old else now)

    def open(self, at: float) -> None:
        self.w = SimpleNamespace(opens=at, n=0, ok=0, full=0, sum=0.0, sumsq=0.0)


ALL_WAYS = {
    "idle",
    *(f"hasty, {rose}" for rose in (False, True)),
    "not hasty: chance",
    "not hasty: too little",
    "lost",
    "lost on the way back",
    *(f"back while {phase}" for phase in ("REST", "UP")),
    "distress",
    *(f"changed while {phase}" for phase in ("REST", "UP", "DOWN")),
    *(f"free while {way}" for way in ("REST, True", "UP, True", "UP, False", "DOWN, False")),
    *(f"UP, {rose}, {pays}" for rose in (False, True) for pays in (False, True)),
    *(f"DOWN, False, {pays}" for pays in (False, True)),
}


class Episode(SimpleNamespace):
    """For a while a service with `slots` is offered `load` times what it can do."""

    samples: int
    slots: float
    seconds: float
    load: float
    failing: float
    spread: str


DRAWS: dict[str, Callable[[Random], float]] = {
    "none": lambda _: 1.0,
    "exponential": lambda random: random.expovariate(1.0),
    "two kinds": lambda random: 9.1 if random.random() < 0.1 else 0.1,
    "coarse clock": lambda random: 0.0 if random.random() < 0.2 else 1.25,
}


def episodes() -> st.SearchStrategy[list[Episode]]:
    return st.lists(
        st.builds(
            Episode,
            samples=st.sampled_from([50, 300, 2000, 6000]),
            slots=st.sampled_from([1, 2, 5, 10, 30, 100, 1000]),
            seconds=st.sampled_from([0.001, 0.01, 0.1, 0.3, 5.0]),
            load=st.sampled_from([0.1, 0.9, 1.1, 3.0]),
            failing=st.sampled_from([0.0, 0.0, 0.1, 0.6, 0.97, 1.0]),
            spread=st.sampled_from(list(DRAWS)),
        ),
        min_size=1,
        max_size=6,
    )


def observations(plan: list[Episode], seed: int, limit: Callable[[], float]) -> Iterator[Sample]:
    """What ends at a service, roughly: beyond its slots each request takes longer in proportion."""
    random, now = generator(seed), 0.0
    for each in plan:
        for _ in range(each.samples):
            ongoing = min(limit(), max(1.0, math.floor(each.load * each.slots + random.random())))
            seconds = each.seconds * max(1.0, ongoing / each.slots) * DRAWS[each.spread](random)
            now += random.expovariate(ongoing / each.seconds / max(1.0, ongoing / each.slots))
            yield now, seconds, random.random() >= each.failing, ongoing


@settings(max_examples=60, deadline=None)
@given(
    plan=episodes(),
    seed=st.integers(0, 1000),
    initial=st.sampled_from([1, 2, 10, 40]),
    has_queue=st.booleans(),
    highest=st.sampled_from([40, 10_000]),
)
def test_it_is_the_terse_form_sample_by_sample(
    plan: list[Episode], seed: int, initial: int, has_queue: bool, highest: int
) -> None:
    compare(plan, seed, initial, highest=highest, has_queue=has_queue)


def compare(
    plan: list[Episode], seed: int, initial: int, *, highest: int = 10_000, has_queue: bool = True
) -> set[str]:
    """The ways that were taken."""
    terse = Terse(initial, highest=highest, has_queue=has_queue)
    knee = KneeLimit(initial, highest=highest)
    knee.has_queue = has_queue
    for number, sample in enumerate(observations(plan, seed, lambda: knee.limit)):
        terse.release(*sample)
        knee.observe(*sample)
        assert knee.limit == terse.limit, f"sample {number}: {sample}, {knee}"
    return terse.taken


def test_the_two_were_compared_on_all_ways() -> None:
    choose, taken = generator(0), set()
    for seed in range(60):
        plan = [
            Episode(
                samples=choose.choice([300, 2000, 4000]),
                slots=choose.choice([1, 5, 10, 30, 100]),
                seconds=choose.choice([0.01, 0.1, 0.3]),
                load=choose.choice([0.1, 0.9, 1.1, 3.0]),
                failing=choose.choice([0.0, 0.0, 0.1, 0.6, 0.97, 1.0]),
                spread=choose.choice(list(DRAWS)),
            )
            for _ in range(5)
        ]
        taken |= compare(plan, seed, 10)
    taken |= back_while_trying().terse.taken
    assert taken == ALL_WAYS


FINITE = st.floats(allow_nan=False, allow_infinity=False)
EDGES = st.sampled_from([0.0, -0.0, -1.0, 1e-320, 1e-9, 0.001, 0.1, 1.0, 1e9, 1e300, -1e300])


@settings(max_examples=300, deadline=None)
@given(
    samples=st.lists(
        st.tuples(
            FINITE | EDGES,
            FINITE | EDGES,
            st.booleans(),
            st.one_of(st.integers(-5, 20), EDGES, st.just(math.inf)),
            st.integers(1, 80),
        ),
        max_size=30,
    ),
    initial=st.integers(1, 100),
    more=st.integers(0, 100) | st.just(math.inf),
    has_queue=st.booleans(),
)
@example([(each, 1e-320, True, 10.0, 70) for each in (0.0, 1.0, 1e300, -1e300)], 10, 5, False)
def test_whatever_it_is_told_the_limit_is_a_whole_number_within_its_bounds(
    samples: list[tuple[float, float, bool, float, int]], initial: int, more: float, has_queue: bool
) -> None:
    lowest, highest = max(1, initial - 10), initial + more
    knee = KneeLimit(initial, lowest=lowest, highest=highest)
    knee.has_queue = has_queue
    for now, seconds, ok, ongoing, times in samples:
        for again in range(times):
            knee.observe(now + again * 0.1, seconds, ok, ongoing)
            assert type(knee.limit) is int
            assert lowest <= knee.limit <= highest
    assert (knee.reason == "") <= (knee.limit == initial)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.floats(-3, 30) | st.floats(0, 0.1),
            st.floats(0, 30) | st.floats(0, 0.1) | st.sampled_from([0.0, 0.1, 1e-9]),
            st.floats(0, 1),
            st.floats(0, 2),
            st.integers(1, 200),
        ),
        max_size=30,
    ),
    has_queue=st.booleans(),
    seed=st.integers(0, 100),
)
def test_where_time_jumps_back_and_forth_it_stays_within_its_bounds(
    steps: list[tuple[float, float, float, float, int]], has_queue: bool, seed: int
) -> None:
    random, now = generator(seed), 0.0
    knee = KneeLimit(highest=100)
    knee.has_queue = has_queue
    for step, seconds, ok, part, times in steps:
        for _ in range(times):
            now += step / times if random.random() < 0.99 else -step
            full = part * knee.limit
            knee.observe(now, seconds * 2 * random.random(), random.random() < ok, full)
            assert type(knee.limit) is int
            assert 1 <= knee.limit <= 100


def test_a_time_that_no_request_can_take_is_no_evidence() -> None:
    knee = KneeLimit()
    work(knee, 10, samples=40)
    before = [getattr(knee, name) for name in knee.__slots__]
    for seconds in (-1e-9, -1.0, 1.1e9, math.inf, -math.inf, math.nan):
        knee.observe(1.0, seconds, True, 10)
    assert [getattr(knee, name) for name in knee.__slots__] == before


def test_of_a_clock_too_coarse_for_its_requests_it_learns_nothing() -> None:
    knee = KneeLimit()
    for number in range(100_000):
        knee.observe(number / 1000, 0.0, True, 10)
    assert knee.limit == 10


def test_a_clock_of_coarse_steps_will_do_where_some_take_a_step() -> None:
    """A limit that starts at 1 has found ten slots, though most requests seem to take no time."""
    knee, random, now = KneeLimit(1), generator(0), 0.0
    for _ in range(20_000):
        seconds = 0.002 * max(1.0, knee.limit / 10)
        now += seconds / knee.limit
        knee.observe(now, 0.016 if random.random() < seconds / 0.016 else 0.0, True, knee.limit)
    assert 8 <= knee.limit <= 20


@pytest.mark.parametrize("begin", [-1e9, -1.0, 0.0, 0.7, 1e12])
def test_it_goes_on_where_a_clock_jumps(begin: float) -> None:
    knee = trying()
    assert "16 brought more: trying 26" in work(knee, 20, samples=400, begin=begin)


def test_what_ends_in_the_moment_of_a_move_began_under_the_limit_before() -> None:
    """Had it begun a window, what was under way would count for the limit that is tried."""
    knee = trying()
    moved_at, opens_at = knee._window.asked_at, knee._window.opens_at
    for _ in range(100):
        knee.observe(moved_at, 0.1, True, 16)
    assert (knee._window.opens_at, knee._window.count) == (opens_at, 0)
    assert opens_at == pytest.approx(moved_at + 1.5 * 0.1 * 1.6)


def work(
    knee: KneeLimit,
    slots: float,
    *,
    samples: int = 100_000,
    moves: float = math.inf,
    begin: float = 0.0,
    seconds: float = 0.1,
    useful: float = 1.0,
    ongoing: Callable[[], float] | None = None,
) -> list[str]:
    """Requests end that all take the same time, until the limit has moved so often: the reasons.

    Beyond its slots the service takes longer for each, in proportion.
    """
    random, now, reasons = generator(0), begin, list[str]()
    for _ in range(samples):
        before = knee.limit
        takes = seconds * max(1.0, before / slots)
        now += takes / before
        knee.observe(now, takes, random.random() < useful, ongoing() if ongoing else before)
        if knee.limit != before:
            reasons.append(knee.reason)
            if len(reasons) >= moves:
                break
    return reasons


def trying(limit: int = 16, slots: int = 20) -> KneeLimit:
    """One that has just begun to try 16 in place of 10, at 0.65 s."""
    knee = KneeLimit()
    work(knee, slots, moves=1)
    assert knee.limit == limit
    return knee


def test_it_says_why_it_moved() -> None:
    assert KneeLimit().reason == ""
    assert work(KneeLimit(), 10, moves=5) == [
        "trying 16: does more get through?",
        "trying 6: does as much get through?",
        "10 again: with 6 less got through",
        "trying 13: does more get through?",
        "10 again: 13 brought too little",
    ]
    assert work(KneeLimit(), 20, moves=4) == [
        "trying 16: does more get through?",
        "16 brought more: trying 26",
        "26 brought more: trying 42",
        "26 again: 42 brought too little",
    ]
    assert work(KneeLimit(), 4, moves=3)[1:] == [
        "trying 6: does as much get through?",
        "with 6 as much got through: trying 4",
    ]


def test_it_says_that_hardly_any_request_is_of_use() -> None:
    assert work(KneeLimit(), 10, moves=2, useful=0.01) == [
        "hardly any is of use: half of 10",
        "hardly any is of use: half of 5",
    ]
    assert work(KneeLimit(), 10, moves=1, useful=0.3) == ["most are of no use: trying 6"]


def test_it_undoes_step_by_step_what_it_halved_without_evidence() -> None:
    knee = KneeLimit()
    assert work(knee, 10, moves=4, useful=0)[-1] == "hardly any is of use: half of 2"
    assert work(knee, 10, begin=1000, moves=3) == [
        "of use again: back from 1 to 2",
        "of use again: back from 2 to 4",
        "of use again: back from 4 to 8",
    ]
    assert work(knee, 10, begin=2000, moves=1) == ["trying 13: does more get through?"]


def back_while_trying() -> "Checked":
    """One that got a few requests through after an outage, and tried 2 when all succeeded again."""
    knee = Checked()
    work(knee, 10, moves=4, useful=0)
    assert work(knee, 10, begin=1000, moves=1, useful=0.2) == ["trying 2: does more get through?"]
    assert work(knee, 10, begin=2000, moves=1) == ["of use again: back from 2 to 4"]
    return knee


def test_a_try_may_find_that_requests_are_of_use_again() -> None:
    assert work(back_while_trying(), 10, begin=3000, moves=1) == ["of use again: back from 4 to 8"]


def test_a_single_halving_is_not_undone_as_it_may_have_helped() -> None:
    knee = KneeLimit()
    work(knee, 10, moves=1, useful=0)
    assert work(knee, 10, begin=1000, moves=1) == ["most are of no use: trying 3"]


def test_a_limit_with_which_all_is_lost_is_not_restored_for_ever() -> None:
    """Nothing gets through with more than 12 at once: from 7 it is not 14 time and again."""
    knee, now, restored = KneeLimit(100), 0.0, list[str]()
    for _ in range(20_000):
        before = knee.limit
        now += 0.1 / before
        knee.observe(now, 0.1, before <= 12, before)
        if knee.limit != before and "again" in knee.reason:
            restored.append(knee.reason)
    assert restored[:3] == ["of use again: back from 7 to 14"] * 3
    assert not any("of use" in reason for reason in restored[3:])


def test_a_try_ends_where_the_service_becomes_another() -> None:
    slower, quicker = "the service became slower: 10 again", "the service became quicker: 10 again"
    assert work(trying(), 20, begin=0.65, moves=1, seconds=1.0) == [slower]
    assert work(trying(), 20, begin=0.65, moves=1, seconds=0.02) == [quicker]


def in_haste() -> KneeLimit:
    """One at 10 whose requests took 0.1 s, and now take four times as long, at 100 s."""
    knee = KneeLimit()
    assert work(knee, 10, moves=3)[-1] == "10 again: with 6 less got through"
    now = 50.0
    while not knee._took_before:
        work(knee, 40, begin=now, samples=1, seconds=0.4)
        now += 0.04
    assert knee._took_before == pytest.approx(0.1)
    assert now < 51
    return knee


def test_where_the_service_became_far_slower_it_makes_haste() -> None:
    """As many get through as before if four times as many are ongoing, and that is soon tried."""
    knee = in_haste()
    assert work(knee, 80, begin=100.0, moves=4, seconds=0.4) == [
        "trying 20: does more get through?",
        "20 brought more: trying 40",
        "40 brought more: trying 80",
        "80 brought more: trying 160",
    ]
    assert knee._window.asked_at < 106


def test_a_hasty_try_that_does_not_pay_is_no_evidence() -> None:
    """So it does not try down, but rests as ever, and tries up as ever."""
    assert work(in_haste(), 10, begin=100.0, moves=4, seconds=0.4) == [
        "trying 20: does more get through?",
        "10 again: 20 brought too little",
        "trying 16: does more get through?",
        "trying 6: does as much get through?",
    ]


def test_a_hasty_try_that_paid_once_ends_as_any_other() -> None:
    assert work(in_haste(), 20, begin=100.0, moves=4, seconds=0.4) == [
        "trying 20: does more get through?",
        "20 brought more: trying 40",
        "20 again: 40 brought too little",
        "trying 25: does more get through?",
    ]


def test_it_makes_no_haste_where_only_some_took_longer() -> None:
    assert work(in_haste(), 20, begin=100.0, moves=1) == ["trying 16: does more get through?"]


def test_it_makes_no_haste_where_few_requests_come() -> None:
    knee = in_haste()
    assert work(knee, 20, begin=100.0, samples=200, seconds=0.4, ongoing=lambda: 3) == []
    assert work(knee, 20, begin=200.0, moves=1, seconds=0.4) == [
        "trying 13: does more get through?"
    ]


def test_it_makes_no_haste_where_most_are_in_vain() -> None:
    assert work(in_haste(), 20, begin=100.0, moves=3, seconds=0.4, useful=0.3) == [
        "most are of no use: trying 5",
        "10 again: with 5 less got through",
        "most are of no use: trying 7",
    ]


def test_it_makes_no_haste_where_all_is_lost() -> None:
    knee = in_haste()
    assert work(knee, 20, begin=100.0, moves=1, seconds=0.4, useful=0) == [
        "hardly any is of use: half of 10",
    ]
    assert work(knee, 20, begin=200.0, moves=1, seconds=0.4) == [
        "trying 10: does more get through?"
    ]


@pytest.mark.parametrize(("before", "tried"), [(0.1, 20), (0.3, 13)])
def test_requests_that_take_far_longer_than_with_little_load_call_for_haste(
    before: float, tried: int
) -> None:
    knee = KneeLimit()
    assert work(knee, 10, samples=200, seconds=before, ongoing=lambda: 2) == []
    assert work(knee, 40, begin=1e3, moves=1, seconds=0.4) == [
        f"trying {tried}: does more get through?"
    ]


@pytest.mark.parametrize(("full_of_ten", "tried"), [(4, 20), (6, 13)])
def test_little_load_is_where_less_than_half_meet_the_limit(full_of_ten: int, tried: int) -> None:
    knee, number = KneeLimit(), itertools.count()
    assert work(knee, 10, samples=400, ongoing=lambda: 10 * (next(number) % 10 < full_of_ten)) == []
    assert work(knee, 40, begin=1e3, moves=1, seconds=0.4) == [
        f"trying {tried}: does more get through?"
    ]


def test_it_makes_no_haste_where_the_service_became_quicker() -> None:
    """The step is what it became quicker by, and not the boldest."""
    knee = KneeLimit()
    work(knee, 10, moves=3)
    assert work(knee, 10, begin=50.0, moves=1, seconds=0.07) == [
        "trying 13: does more get through?"
    ]


def test_a_try_ends_where_few_requests_come() -> None:
    knee = trying()
    for number in range(200):  # a tenth of what came before
        knee.observe(2 + number / 10, 0.1, True, 3)
    assert (knee.limit, knee.reason) == (10, "10 again: too few requests to judge 16")


def test_it_keeps_a_limit_that_does_for_all_who_come() -> None:
    """With 16 nobody waits any more, and more gets through than did with 10."""
    knee = trying()
    assert work(knee, 20, begin=0.65, samples=1000, ongoing=lambda: 15) == []
    assert knee.limit == 16


def test_its_representation_tells_where_it_stands() -> None:
    assert repr(KneeLimit(7)) == "KneeLimit(limit=7, reason='')"


def test_it_is_a_limit() -> None:
    assert isinstance(KneeLimit(), Limit)
    assert KneeLimit().has_queue


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"initial": 0}, "initial must be a whole number from 1 to 10000, not 0."),
        ({"initial": True}, "initial must be a whole number from 1 to 10000, not True."),
        ({"initial": 2.5}, "initial must be a whole number from 1 to 10000, not 2.5."),
        ({"initial": math.inf}, "initial must be a whole number from 1 to 10000, not inf."),
        ({"initial": "2"}, "initial must be a whole number from 1 to 10000, not '2'."),
        ({"initial": 5, "highest": 4}, "initial must be a whole number from 1 to 4, not 5."),
        ({"initial": 5, "lowest": 6}, "initial must be a whole number from 6 to 10000, not 5."),
        ({"lowest": 0}, "lowest must be a whole number >= 1, not 0."),
        ({"lowest": math.inf}, "lowest must be a whole number >= 1, not inf."),
        ({"highest": 0}, "highest must be a whole number >= 1, or math.inf, not 0."),
        ({"highest": 9.5}, "highest must be a whole number >= 1, or math.inf, not 9.5."),
        (
            {"lowest": 3, "highest": 2},
            "highest must be a whole number >= 3, or math.inf, not 2.",
        ),
        (
            {"initial": 0, "highest": math.inf},
            "initial must be a whole number >= 1, not 0.",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_told(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        KneeLimit(**wrong)
    assert str(raised.value) == message


@pytest.mark.parametrize("highest", [math.inf, 10**400, 2**53])
def test_without_a_bound_it_grows_as_far_as_numbers_go(highest: float) -> None:
    knee = KneeLimit(highest=highest)
    now, tops = 0.0, 0
    while tops < 3000:
        now += 0.01
        knee.observe(now, 0.1, True, math.inf)
        tops += knee.limit == 2**52
        assert type(knee.limit) is int


def test_a_limit_to_begin_with_may_be_larger_than_any_that_is_needed() -> None:
    assert KneeLimit(10**400, highest=math.inf).limit == 2**52


class Checked(KneeLimit):
    """One that is compared with the terse form on its way."""

    def __init__(self, initial: int = 10) -> None:
        super().__init__(initial)
        self.terse = Terse(initial)

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        super().observe(now, seconds, ok, ongoing)
        self.terse.release(now, seconds, ok, ongoing)
        assert self.limit == self.terse.limit


class Service:
    """Slots before which requests wait in vain, behind a limiter with a line; all in virtual time.

    The line goes newest first, and one leaves it at one's deadline; those who wait for a slot of
    the service hold one of the limiter's.
    """

    def __init__(self, knee: KneeLimit, slots: int, seconds: float, deadline: float) -> None:
        self.knee, self.slots, self.seconds, self.deadline = knee, slots, seconds, deadline
        self.least = 0.0
        """Seconds that a request takes at least."""
        self.limits: list[int] = []
        """One for each that ended."""
        self.useful = 0

    def run(self, rate: float, until: float, seed: int, begin: float = 0.0) -> None:
        random, now, ongoing = generator(seed), begin, 0
        slots = [now] * self.slots  # when each is free
        line: list[float] = []  # when each came
        ends: list[tuple[float, float, float]] = []  # when it ends, was admitted, came
        arrival = now + random.expovariate(rate)
        while now < until:
            if ends and ends[0][0] <= arrival:
                now, admitted, came = heapq.heappop(ends)
                ok = now - came <= self.deadline
                self.knee.observe(now, now - admitted, ok, self.knee.limit if line else ongoing)
                ongoing -= 1
                self.useful += ok
                self.limits.append(self.knee.limit)
            else:
                now = arrival
                arrival += random.expovariate(rate)
                line = [*line, now][-max(10, 2 * self.knee.limit) :]
            line = [came for came in line if came + self.deadline > now]
            while line and ongoing < self.knee.limit:
                begin = max(now, heapq.heappop(slots))
                end = begin + max(self.least, random.expovariate(1 / self.seconds))
                heapq.heappush(slots, end)
                heapq.heappush(ends, (end, now, line.pop()))
                ongoing += 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("load", [2, 5])
def test_it_finds_the_slots_of_a_service(load: float, seed: int) -> None:
    service = Service(Checked(), slots=10, seconds=0.1, deadline=0.5)
    service.run(load * 100, 120.0, seed)
    at_the_end = sorted(service.limits[len(service.limits) // 2 :])
    assert 9 <= at_the_end[len(at_the_end) // 2] <= 20
    assert service.useful / (120 * 100) >= 0.9


@pytest.mark.parametrize(("initial", "slots"), [(10, 1), (10, 64), (100, 10)])
def test_it_finds_them_from_afar(initial: int, slots: int) -> None:
    service = Service(Checked(initial), slots=slots, seconds=0.1, deadline=1.0)
    service.run(2 * slots / 0.1, 6000 / slots if slots == 1 else 90.0, seed=0)
    at_the_end = sorted(service.limits[len(service.limits) // 2 :])
    assert 0.8 * slots <= at_the_end[len(at_the_end) // 2] <= 2.5 * slots


def test_with_few_requests_it_does_not_move() -> None:
    service = Service(Checked(), slots=10, seconds=0.1, deadline=0.5)
    service.run(8 / 60, 30 * 60, seed=0)
    assert len(service.limits) > 200
    assert set(service.limits) == {10}


def test_a_service_that_becomes_slower_keeps_its_limit() -> None:
    """What compares latency with what it was cuts the limit, and makes it worse."""
    knee = Checked()
    service = Service(knee, slots=10, seconds=0.1, deadline=3.0)
    service.run(200, 60.0, seed=0)
    service.seconds = 0.4
    service.limits.clear()
    service.run(50, 180.0, seed=1, begin=60.0)
    assert min(service.limits[500:]) >= 5
    assert sum(service.limits) / len(service.limits) >= 8


def after_an_outage(slots: int) -> Service:
    """Ten slots, two minutes in which all take too long, and then two minutes with `slots`."""
    service = Service(Checked(), slots=10, seconds=0.1, deadline=0.5)
    service.run(200, 60.0, seed=0)
    service.least = 1.0
    service.run(200, 180.0, seed=1, begin=60.0)
    assert service.knee.limit <= 2
    service.least, service.slots = 0.0, slots
    service.useful = 0
    service.run(slots * 20, 300.0, seed=3, begin=180.0)
    return service


def test_after_an_outage_it_is_soon_back() -> None:
    assert after_an_outage(slots=10).useful / (120 * 100) >= 0.9


def test_an_outage_may_end_in_a_service_that_can_do_less() -> None:
    service = after_an_outage(slots=2)
    assert service.useful / (120 * 20) >= 0.8
    assert 2 <= service.knee.limit <= 5
