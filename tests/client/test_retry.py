"""Retry: the policy, its waits, and those of urllib3."""

import copy
import dataclasses
import http
import itertools
import math
import pickle
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import tenacity
import urllib3
from hypothesis import example, given
from hypothesis import strategies as st

from loadshed import ConfigError
from loadshed.client import Retry
from loadshed.client._retry import AddedJitter


def always(draw: float) -> Callable[[], float]:
    return lambda: draw


def never() -> float:
    raise AssertionError("nothing is drawn")


def is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError)


async def asked_later(error: Exception) -> bool:
    raise NotImplementedError


class AsksLater:
    async def __call__(self, state: tenacity.RetryCallState) -> float:
        raise NotImplementedError


def waits(retry: Retry, count: int, **options: Any) -> list[float | None]:
    return [retry.delay(n, **options) for n in range(1, count + 1)]


# The documented policy, both ways in which it is written down.


def test_the_documented_policy_as_prose() -> None:
    retry = Retry(backoff_factor=0.1, backoff_base=4, jitter="none")
    assert waits(retry, 5) == [0.1, 0.4, 1.6, 6.4, 25.6]


def test_the_documented_policy_as_code() -> None:
    assert waits(Retry(first_delay=0, jitter="none"), 5) == [0, 2, 4, 8, 16]


def test_the_defaults() -> None:
    retry = Retry()
    assert retry.total == 5
    assert retry.status_forcelist == {429, 500, 501, 502, 503, 504}
    assert retry.allowed_methods == {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"}
    assert retry.retry_on is None
    assert (retry.backoff_factor, retry.backoff_base, retry.backoff_max) == (1, 2, 120)
    assert (retry.first_delay, retry.jitter, retry.wait) == (None, "full", None)
    assert (retry.respect_retry_after, retry.retry_after_max) == (True, 60)
    assert (retry.attempt_timeout, retry.deadline) == (10, 60)


# The object.

FULL = Retry(
    total=math.inf,
    status_forcelist=[503],
    allowed_methods=["get"],
    retry_on=is_timeout,
    first_delay=0.5,
    wait=tenacity.wait_fixed(3),
    attempt_timeout=None,
    deadline=math.inf,
)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Retry)])
def test_it_is_frozen(field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(Retry(), field, 1)


def test_it_takes_nothing_by_position_and_no_other_names() -> None:
    policy: Any = Retry
    with pytest.raises(TypeError):
        policy(3)
    with pytest.raises(TypeError):
        policy(retries=3)


def test_equal_policies_are_one_key() -> None:
    a, b = (
        Retry(total=3, allowed_methods=["GET", "PUT"]),
        Retry(total=3, allowed_methods=["PUT", "GET"]),
    )
    assert a == b
    assert {a: 1}[b] == 1
    assert a != Retry(total=4, allowed_methods=["GET", "PUT"])
    assert len({FULL, Retry(), Retry()}) == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_survives_pickling_and_copying(protocol: int) -> None:
    retry = dataclasses.replace(FULL, wait=None)
    assert pickle.loads(pickle.dumps(retry, protocol)) == retry  # noqa: S301
    assert copy.deepcopy(FULL).delay(1) == copy.copy(FULL).delay(1) == 3
    twin = pickle.loads(pickle.dumps(FULL, protocol))  # noqa: S301
    assert twin.delay(1) == 3
    assert dataclasses.replace(twin, wait=None) == retry


def test_a_changed_copy_is_checked_too() -> None:
    assert dataclasses.replace(Retry(), total=1) == Retry(total=1)
    with pytest.raises(ConfigError, match="total"):
        dataclasses.replace(Retry(), total=-1)


# The settings.


class Index:
    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("total", 0, 0),
        ("total", math.inf, math.inf),
        ("total", Index(), 7),
        ("status_forcelist", [], frozenset()),
        ("status_forcelist", (100, 599, 599), {100, 599}),
        ("status_forcelist", [http.HTTPStatus.BAD_GATEWAY], {502}),
        ("status_forcelist", range(500, 503), {500, 501, 502}),
        ("status_forcelist", iter([503]), {503}),
        ("allowed_methods", None, None),
        ("allowed_methods", [], frozenset()),
        ("allowed_methods", ["get", "PATCH", "x-mine"], {"GET", "PATCH", "X-MINE"}),
        ("retry_on", None, None),
        ("retry_on", OSError, (OSError,)),
        ("retry_on", [OSError, ValueError], (OSError, ValueError)),
        ("retry_on", (), ()),
        ("retry_on", is_timeout, is_timeout),
        ("backoff_factor", 0, 0),
        ("backoff_base", 1, 1),
        ("backoff_max", 0, 0),
        ("backoff_max", math.inf, math.inf),
        ("first_delay", None, None),
        ("first_delay", 0, 0),
        ("jitter", "decorrelated", "decorrelated"),
        ("wait", None, None),
        ("wait", always, always),
        ("respect_retry_after", False, False),
        ("retry_after_max", 0, 0),
        ("retry_after_max", math.inf, math.inf),
        ("attempt_timeout", None, None),
        ("attempt_timeout", math.inf, None),
        ("attempt_timeout", 0.001, 0.001),
        ("deadline", None, None),
        ("deadline", math.inf, None),
        ("deadline", 3600, 3600),
    ],
)
def test_what_a_setting_may_be(field: str, value: Any, kept: object) -> None:
    found = getattr(Retry(**{field: value}), field)
    assert found == kept
    if field in ("status_forcelist", "allowed_methods"):
        assert found is None or type(found) is frozenset


STATUSES = "statuses from 100 to 599"
METHODS = 'methods of HTTP, like "GET"'
TYPES = "exception types, or a function that is not async and says which"
NO_NUMBERS: list[Any] = ["1", True, False, math.nan, -1, -math.inf, 2j, [], 10**400]
NO_TYPES: list[Any] = [1, "OSError", int, KeyboardInterrupt, BaseException, asked_later, OSError()]
NO_STRATEGIES: list[Any] = [1, "wait_fixed", tenacity.wait_fixed, AsksLater()]

WRONG: list[tuple[str, str, list[Any]]] = [
    ("total", "a whole number >= 0, or math.inf", [-1, True, 2.5, "3", None, math.nan, []]),
    ("status_forcelist", f"a collection of {STATUSES}", [None, 503, "503", b"503"]),
    ("allowed_methods", f"a collection of {METHODS}, or None for any", [1, "GET", b"GET", True]),
    ("retry_on", TYPES, NO_TYPES),
    ("backoff_factor", "a number >= 0", [*NO_NUMBERS, None, math.inf]),
    ("backoff_base", "a number >= 1", [*NO_NUMBERS, None, math.inf, 0.9]),
    ("backoff_max", "a number >= 0, or math.inf", [*NO_NUMBERS, None]),
    ("first_delay", "a number >= 0, or None", [*NO_NUMBERS, math.inf]),
    (
        "jitter",
        '"none" or "full" or "equal" or "decorrelated"',
        [None, "Full", "", True, [], 0.5],
    ),
    ("wait", "one of tenacity's wait strategies, or None", NO_STRATEGIES),
    ("respect_retry_after", "True or False", [None, 1, "yes"]),
    ("retry_after_max", "a number >= 0, or math.inf", [*NO_NUMBERS, None]),
    ("attempt_timeout", "a number of seconds > 0, or None", [*NO_NUMBERS, 0]),
    ("deadline", "a number of seconds > 0, or None", [*NO_NUMBERS, 0, 0.0]),
]


def test_every_setting_is_tried_wrong() -> None:
    assert [field for field, _, _ in WRONG] == [field.name for field in dataclasses.fields(Retry)]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [(field, value, expected) for field, expected, values in WRONG for value in values],
)
def test_what_a_setting_may_not_be(field: str, value: Any, expected: str) -> None:
    """The error is a `ValueError` that names the field, the value, and what it may be."""
    with pytest.raises(ValueError, match=field) as caught:
        Retry(**{field: value})
    error = caught.value
    assert isinstance(error, ConfigError)
    assert error.value is value
    assert (error.setting, error.expected) == (field, expected)
    assert str(error) == f"{field} must be {expected}, not {value!r}."


@pytest.mark.parametrize(
    ("field", "value", "wrong", "expected"),
    [
        ("status_forcelist", [503, 99], 99, STATUSES),
        ("status_forcelist", [600], 600, STATUSES),
        ("status_forcelist", ["503"], "503", STATUSES),
        ("status_forcelist", [True], True, STATUSES),
        ("status_forcelist", [503.0], 503.0, STATUSES),
        ("allowed_methods", ["GET", ""], "", METHODS),
        ("allowed_methods", [b"GET"], b"GET", METHODS),
        ("allowed_methods", [None], None, METHODS),
        ("retry_on", [OSError, 1], 1, TYPES),
        ("retry_on", (OSError, OSError()), ..., TYPES),
        ("retry_on", [OSError, SystemExit], SystemExit, TYPES),
        ("retry_on", {"OSError": 1}, "OSError", TYPES),
    ],
)
def test_of_several_the_one_that_is_wrong_is_named(
    field: str, value: Any, wrong: object, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Retry(**{field: value})
    assert wrong is ... or caught.value.value == wrong
    assert (caught.value.setting, caught.value.expected) == (field, expected)


# The wait before a retry.


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [
        ("none", [0.5, 1, 2, 4, 5, 5]),
        ("full", [0.125, 0.25, 0.5, 1, 1.25, 1.25]),
        ("equal", [0.3125, 0.625, 1.25, 2.5, 3.125, 3.125]),
    ],
)
def test_every_jitter_is_drawn_from_what_is_given(jitter: str, expected: list[float]) -> None:
    retry = Retry(backoff_factor=0.5, backoff_max=5, jitter=jitter)
    assert waits(retry, 6, random=always(0.25)) == expected


def test_decorrelated_jitter_goes_by_the_wait_before() -> None:
    retry = Retry(backoff_factor=0.5, backoff_max=5, jitter="decorrelated")
    assert retry.delay(1, random=always(0)) == 0.5
    assert retry.delay(1, random=always(0.5)) == 1  # before the first it is the factor
    assert retry.delay(2, previous=1, random=always(0.5)) == 1.75
    assert retry.delay(3, previous=3, random=always(0.5)) == 4.75
    assert retry.delay(4, previous=4, random=always(0.5)) == 5
    assert retry.delay(2, previous=0, random=always(0.5)) == 0.5


def test_a_generator_of_random_numbers_will_do_as_well_as_a_function() -> None:
    retry = Retry()
    drawn = random.Random(7)  # noqa: S311
    found = [retry.delay(n, random=drawn) for n in range(1, 6)]
    again = random.Random(7)  # noqa: S311
    assert found == [2 ** (n - 1) * again.random() for n in range(1, 6)]
    assert found == waits(retry, 5, random=random.Random(7).random)  # noqa: S311
    assert retry.delay(1, random=random) is not None


def test_by_default_it_is_drawn_at_random() -> None:
    found = {Retry().delay(5) for _ in range(20)}
    assert len(found) > 1
    assert all(wait is not None and 0 <= wait < 16 for wait in found)


def test_without_jitter_nothing_is_drawn() -> None:
    retry = Retry(jitter="none")
    assert retry.delay(3, 10, random=never) == 10
    assert retry.delay(3, 1, random=never) == 4


@pytest.mark.parametrize("jitter", ["none", "full", "equal", "decorrelated"])
def test_the_first_delay_is_in_the_place_of_the_factor_before_retry_1(jitter: str) -> None:
    retry = Retry(first_delay=0, jitter=jitter)
    assert retry.delay(1, random=always(0.5)) == 0
    assert retry.delay(2, previous=0, random=always(0.5)) in (1, 1.5, 2)
    later = Retry(first_delay=8, jitter=jitter, backoff_max=1)
    expected = {"none": 8, "full": 4, "equal": 6, "decorrelated": 8}
    assert later.delay(1, random=always(0.5)) == expected[jitter]


@pytest.mark.parametrize("n", [1025, 10**6, 10**18, 10**300])
@pytest.mark.parametrize("base", [2, 2.0, 1.5])
def test_a_huge_number_of_a_retry_is_no_overflow(n: int, base: float) -> None:
    retry = Retry(total=math.inf, backoff_base=base, jitter="none")
    assert retry.delay(n) == 120
    endless = dataclasses.replace(retry, backoff_max=math.inf, jitter="full")
    wait = endless.delay(n, random=always(0))
    assert wait in (0, math.inf)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, None, "1", math.inf, math.nan])
def test_a_retry_has_a_number_from_1(n: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Retry().delay(n)
    assert str(caught.value) == f"n must be a whole number >= 1, not {n!r}."


# Retry-After.


def test_what_the_server_asks_for_is_a_floor() -> None:
    retry = Retry(jitter="none")
    assert [retry.delay(n, 3) for n in range(1, 5)] == [3, 3, 4, 8]


@pytest.mark.parametrize("jitter", ["full", "equal", "decorrelated"])
def test_a_tenth_at_most_is_added_so_that_they_do_not_come_back_together(jitter: str) -> None:
    retry = Retry(jitter=jitter, backoff_factor=0)
    assert retry.delay(1, 30, random=always(0)) == 30
    assert retry.delay(1, 30, random=always(0.5)) == pytest.approx(31.5)
    found = {retry.delay(1, 30) for _ in range(50)}
    assert len(found) > 1
    assert all(wait is not None and 30 <= wait <= 33 for wait in found)


def test_the_backoff_counts_where_it_is_longer_than_what_is_asked_for() -> None:
    assert Retry(jitter="equal").delay(5, 2, random=always(0)) == 8


def test_more_than_the_maximum_is_not_waited_for_and_not_clipped() -> None:
    retry = Retry(retry_after_max=60, jitter="none")
    assert retry.delay(1, 60) == 60
    assert retry.delay(1, 60.001) is None
    assert retry.delay(1, math.inf) is None
    assert Retry(retry_after_max=0).delay(1, 1) is None


def test_without_a_maximum_anything_is_waited_for() -> None:
    retry = Retry(retry_after_max=math.inf, jitter="none")
    assert retry.delay(1, 1e9) == 1e9
    assert retry.delay(1, math.inf) == math.inf


def test_a_policy_that_does_not_respect_it_waits_as_if_nothing_was_said() -> None:
    retry = Retry(respect_retry_after=False, jitter="none", retry_after_max=5)
    assert retry.delay(1, 3) == retry.delay(1, 10**6) == 1


@pytest.mark.parametrize("retry_after", [0, -5])
def test_what_asks_for_nothing_is_no_floor(retry_after: float) -> None:
    assert Retry(jitter="none").delay(2, retry_after) == 2


# tenacity's strategies.


class ByException(tenacity.wait.wait_base):
    """What newer versions of tenacity have as `wait_exception`."""

    def __init__(self, predicate: Callable[[BaseException | None], float]) -> None:
        self.predicate = predicate

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        assert retry_state.outcome is not None
        return self.predicate(retry_state.outcome.exception())


BY_EXCEPTION = {ByException, getattr(tenacity, "wait_exception", ByException)}


def delay_after(retry: Retry, outcome: object, n: int = 1) -> float | None:
    return retry._delay_after(outcome, n, None, None)


def test_a_strategy_of_tenacity_takes_the_place_of_the_backoff() -> None:
    retry = Retry(wait=tenacity.wait_fixed(7), backoff_factor=99, first_delay=99, backoff_max=1)
    assert waits(retry, 3, random=never) == [7, 7, 7]
    retry = Retry(wait=tenacity.wait_exponential(multiplier=1, min=4, max=10))
    assert waits(retry, 6) == [4, 4, 4, 8, 10, 10]
    chain = tenacity.wait_chain(*[tenacity.wait_fixed(n) for n in (1, 5, 9)])
    assert waits(Retry(wait=chain), 5) == [1, 5, 9, 9, 9]
    both = tenacity.wait_fixed(3) + tenacity.wait_random(0, 2)
    assert all(wait is not None and 3 <= wait <= 5 for wait in waits(Retry(wait=both), 20))


def test_what_is_asked_for_is_the_floor_of_a_strategy_too() -> None:
    retry = Retry(wait=tenacity.wait_fixed(7))
    assert retry.delay(1, 30, random=always(0.5)) == pytest.approx(31.5)
    assert retry.delay(1, 61) is None
    quiet = dataclasses.replace(retry, jitter="none")
    assert [quiet.delay(1, seconds, random=never) for seconds in (5, 30)] == [7, 30]


def test_a_strategy_may_look_at_what_an_attempt_came_to() -> None:
    def by_outcome(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        if not state.outcome.failed:
            return float(state.outcome.result())
        return 3.0 if isinstance(state.outcome.exception(), TimeoutError) else 4.0

    retry = Retry(wait=by_outcome)
    outcomes = [TimeoutError(), OSError(), 5]
    assert [delay_after(retry, outcome) for outcome in outcomes] == [3, 4, 5]


@pytest.mark.parametrize("strategy", BY_EXCEPTION)
def test_a_strategy_may_go_by_the_exception(strategy: Any) -> None:
    retry = Retry(wait=strategy(lambda error: len(str(error))))
    assert delay_after(retry, OSError("four")) == 4


@pytest.mark.parametrize(("said", "wait"), [(-1, 0), (0, 0), (2, 2), (math.nan, 0)])
def test_a_strategy_that_says_nonsense_waits_for_nothing(said: float, wait: float) -> None:
    assert Retry(wait=lambda _: said).delay(1) == wait


def test_the_outcome_makes_no_difference_to_the_backoff() -> None:
    retry = Retry(jitter="none", retry_after_max=5)
    assert retry._delay_after(OSError(), 3, None, 2.0) == 4
    assert retry._delay_after(OSError(), 3, 4.5, 2.0) == 4.5
    assert retry._delay_after(OSError(), 3, 6, 2.0) is None


# Whatever the settings.

NUMBERS = st.one_of(st.integers(0, 1000), st.floats(0, 1e6))
POLICIES = st.builds(
    Retry,
    total=st.one_of(st.integers(0, 100), st.just(math.inf)),
    status_forcelist=st.frozensets(st.integers(100, 599), max_size=5),
    allowed_methods=st.one_of(st.none(), st.lists(st.text("abcXYZ", min_size=1), max_size=3)),
    backoff_factor=NUMBERS,
    backoff_base=NUMBERS.map(lambda number: number + 1),
    backoff_max=st.one_of(NUMBERS, st.just(math.inf)),
    first_delay=st.one_of(st.none(), NUMBERS),
    jitter=st.sampled_from(["none", "full", "equal", "decorrelated"]),
    respect_retry_after=st.booleans(),
    retry_after_max=st.one_of(NUMBERS, st.just(math.inf)),
    attempt_timeout=st.one_of(st.none(), NUMBERS.map(lambda number: number + 0.001)),
    deadline=st.one_of(st.none(), NUMBERS.map(lambda number: number + 0.001)),
)


@given(
    POLICIES,
    st.one_of(st.integers(1, 30), st.integers(1, 10**12)),
    st.one_of(st.none(), NUMBERS),
    st.one_of(st.none(), NUMBERS),
    st.floats(0, 1, exclude_max=True),
)
@example(Retry(backoff_max=math.inf), 10**6, None, None, 0.0)
def test_whatever_the_settings_a_wait_keeps_to_its_bounds(
    retry: Retry, n: int, retry_after: float | None, previous: float | None, draw: float
) -> None:
    wait = retry.delay(n, retry_after, previous=previous, random=always(draw))
    most = max(retry.backoff_max, retry.first_delay or 0)
    if retry_after is None or not retry.respect_retry_after:
        assert wait is not None
        assert 0 <= wait <= most
    elif retry_after > retry.retry_after_max:
        assert wait is None
    else:
        assert wait is not None
        assert retry_after <= wait <= max(most, retry_after) * 1.1
    assert pickle.loads(pickle.dumps(retry)) == retry  # noqa: S301
    assert hash(copy.deepcopy(retry)) == hash(retry)


@given(POLICIES)
def test_a_policy_made_of_a_policys_own_fields_is_the_same(retry: Retry) -> None:
    fields = {field.name: getattr(retry, field.name) for field in dataclasses.fields(Retry)}
    assert Retry(**fields) == retry
    assert eval(repr(retry), {"Retry": Retry, "inf": math.inf}) == retry  # noqa: S307


# urllib3's.

DOCUMENTED = urllib3.Retry(total=5, backoff_factor=1, status_forcelist=[500, 501, 502, 503, 504])


def urllib3s_waits(retry: urllib3.Retry, count: int) -> list[float]:
    """What urllib3 itself says, failure by failure."""
    found = []
    for _ in range(count):
        retry = retry.increment("GET", "/", response=urllib3.HTTPResponse(status=503))
        found.append(retry.get_backoff_time())
    return found


def test_the_documented_object_of_urllib3_is_taken_over() -> None:
    retry = Retry.from_urllib3(DOCUMENTED)
    assert waits(retry, 5) == urllib3s_waits(DOCUMENTED, 5) == [0, 2, 4, 8, 16]
    assert retry.total == 5
    assert retry.status_forcelist == {500, 501, 502, 503, 504}
    assert retry.allowed_methods == {"HEAD", "GET", "PUT", "DELETE", "OPTIONS", "TRACE"}
    assert (retry.jitter, retry.respect_retry_after, retry.wait) == ("none", True, None)
    unsaid = Retry()
    assert (retry.attempt_timeout, retry.deadline) == (unsaid.attempt_timeout, unsaid.deadline)
    assert retry.retry_after_max == unsaid.retry_after_max


@pytest.mark.parametrize("factor", [0, 0.1, 0.3, 1, 2, 7.5])
@pytest.mark.parametrize("most", [0, 1, 5.5, 120])
@pytest.mark.parametrize("jitter", [0.0, 0.5, 3])
@pytest.mark.parametrize("draw", [0.0, 0.25, 0.999])
def test_its_waits_are_urllib3s_own(
    factor: float, most: float, jitter: float, draw: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", always(draw))
    theirs = urllib3.Retry(total=12, backoff_factor=factor, backoff_max=most, backoff_jitter=jitter)
    ours = Retry.from_urllib3(theirs)
    assert waits(ours, 12) == urllib3s_waits(theirs, 12)
    assert [delay_after(ours, OSError(), n) for n in range(1, 13)] == waits(ours, 12)


def test_its_jitter_is_drawn_anew_for_each_wait() -> None:
    retry = Retry.from_urllib3(urllib3.Retry(backoff_factor=1, backoff_jitter=0.5))
    found = {retry.delay(3) for _ in range(20)}
    assert len(found) > 1
    assert all(wait is not None and 4 <= wait < 4.5 for wait in found)
    assert retry.delay(1) == 0


def test_with_its_jitter_the_policy_can_still_be_pickled_and_compared() -> None:
    theirs = urllib3.Retry(backoff_factor=1, backoff_jitter=0.5)
    retry = Retry.from_urllib3(theirs)
    assert retry == Retry.from_urllib3(theirs)
    assert hash(retry) == hash(Retry.from_urllib3(theirs))
    assert pickle.loads(pickle.dumps(retry)) == retry  # noqa: S301
    assert retry.wait == AddedJitter(factor=1, jitter=0.5, most=120)
    assert retry.delay(1, 30, random=always(0.5)) == pytest.approx(31.5)


@pytest.mark.parametrize("n", [1025, 5000, 10**9])
def test_its_jitter_overflows_no_more_than_the_rest(n: int) -> None:
    theirs = urllib3.Retry(total=10**6, backoff_factor=1, backoff_jitter=0.5)
    assert Retry.from_urllib3(theirs).delay(n) == 120


@pytest.mark.parametrize(
    ("theirs", "total"),
    [
        (urllib3.Retry(), 10),
        (urllib3.Retry(0), 0),
        (urllib3.Retry(total=False), 0),
        (urllib3.Retry(total=True), 1),
        (urllib3.Retry(total=3, connect=7), 3),
        (urllib3.Retry(total=None, connect=2), 2),
        (urllib3.Retry(total=None, connect=1, read=4, redirect=3, status=2), 4),
        (urllib3.Retry(total=None, other=6, status=0), 6),
        (urllib3.Retry(total=None, redirect=False), 0),
    ],
)
def test_its_total_or_else_the_largest_of_its_counters_is_the_total(
    theirs: urllib3.Retry, total: int
) -> None:
    found = Retry.from_urllib3(theirs).total
    assert found == total
    assert type(found) is int


def test_without_any_bound_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="total must be a whole number") as caught:
        Retry.from_urllib3(urllib3.Retry(total=None))
    assert (caught.value.setting, caught.value.value) == ("total", None)


def test_unless_one_is_given_beside_it() -> None:
    assert Retry.from_urllib3(urllib3.Retry(total=None), total=4).total == 4


def test_any_method_is_any_method() -> None:
    retry = Retry.from_urllib3(urllib3.Retry(allowed_methods=None))
    assert retry.allowed_methods is None
    some = Retry.from_urllib3(urllib3.Retry(allowed_methods=["GET", "POST"]))
    assert some.allowed_methods == {"GET", "POST"}


def test_without_statuses_there_are_none() -> None:
    assert Retry.from_urllib3(urllib3.Retry()).status_forcelist == frozenset()


@pytest.mark.parametrize("respect", [True, False])
def test_whether_it_respects_retry_after_is_taken_over(respect: bool) -> None:
    retry = Retry.from_urllib3(urllib3.Retry(respect_retry_after_header=respect))
    assert retry.respect_retry_after is respect
    assert retry.delay(1, 30) == (30 if respect else 0)


def test_settings_beside_it_override() -> None:
    retry = Retry.from_urllib3(
        DOCUMENTED, total=2, deadline=5, jitter="full", first_delay=None, allowed_methods=["POST"]
    )
    assert (retry.total, retry.deadline, retry.jitter) == (2, 5, "full")
    assert retry.allowed_methods == {"POST"}
    assert retry.delay(1, random=always(0.5)) == 0.5
    jittered = urllib3.Retry(backoff_factor=1, backoff_jitter=0.5)
    assert Retry.from_urllib3(jittered, wait=None, jitter="none").delay(3) == 4
    with pytest.raises(ConfigError, match="deadline"):
        Retry.from_urllib3(DOCUMENTED, deadline=-1)


def test_a_version_of_urllib3_that_knows_less_will_do() -> None:
    """1.26 has no jitter, its maximum elsewhere, and for any method an empty collection."""
    old = SimpleNamespace(
        total=None,
        connect=2,
        read=None,
        redirect=None,
        status=3,
        allowed_methods=frozenset(),
        status_forcelist={503},
        backoff_factor=1,
        respect_retry_after_header=True,
    )
    retry = Retry.from_urllib3(old)
    assert (retry.total, retry.allowed_methods, retry.backoff_max) == (3, None, 120)
    assert list(itertools.islice(waits(retry, 9), 9)) == [0, 2, 4, 8, 16, 32, 64, 120, 120]


# Which exceptions are tried again.


@pytest.mark.parametrize(
    ("retry_on", "is_retried"),
    [
        (None, {ValueError}),
        (OSError, {OSError, TimeoutError}),
        ([TimeoutError, ValueError], {TimeoutError, ValueError}),
        ([], set()),
        (is_timeout, {TimeoutError}),
        (lambda error: error.args, {OSError, TimeoutError, ValueError, KeyError}),
    ],
)
def test_types_or_a_function_say_what_is_tried_again(
    retry_on: Any, is_retried: set[type[Exception]]
) -> None:
    retry = Retry(retry_on=retry_on)
    found = {
        kind
        for kind in (OSError, TimeoutError, ValueError, KeyError)
        if retry._is_retried(kind("x"), (ValueError,)) is True
    }
    assert found == is_retried
