"""What keeps many requests together from doing harm: settings, origins, and threads."""

import copy
import dataclasses
import importlib
import importlib.util
import math
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from loadshed import ConfigError
from loadshed._clock import SharedClock
from loadshed._policy.breaker import BLOCKED
from loadshed.client import AdaptiveThrottle, CircuitBreaker, Hedge, RetryBudget
from loadshed.client._guards import MOST_PENDING, ThrottledError, origin_of

FAMILIES: list[ModuleType] = [httpx]
if importlib.util.find_spec("httpx2"):
    FAMILIES.append(importlib.import_module("httpx2"))

THREADS = 8
EACH = 1000
A, B = ("http", "a", None), ("http", "b", None)


def now() -> float:
    return SharedClock().now()


@pytest.fixture
def hammer() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Calls a function in many threads, which begin together and take turns as often as can be."""

    def in_threads(function: Callable[[], object]) -> None:
        together = threading.Barrier(THREADS)
        errors: list[BaseException] = []

        def run() -> None:
            together.wait()
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        threads = [threading.Thread(target=run) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield in_threads
    sys.setswitchinterval(interval)


# Settings.

SECONDS = "a number of seconds > 0"
NO_NUMBERS: list[Any] = ["1", True, None, math.nan, -1, -math.inf, 2j, [], 10**400]

WRONG: list[tuple[Any, str, str, list[Any]]] = [
    (RetryBudget, "ttl", SECONDS, [*NO_NUMBERS, 0, math.inf]),
    (RetryBudget, "min_retries_per_sec", "a number >= 0", [*NO_NUMBERS, math.inf]),
    (RetryBudget, "percent_can_retry", "a number >= 0", [*NO_NUMBERS, math.inf]),
    (CircuitBreaker, "failure_ratio", "a number > 0 and <= 1", [*NO_NUMBERS, 0, 1.1, math.inf]),
    (
        CircuitBreaker,
        "minimum_throughput",
        "a whole number >= 1",
        [*NO_NUMBERS[:-1], 0, 1.5, math.inf],
    ),
    (CircuitBreaker, "sampling_duration", SECONDS, [*NO_NUMBERS, 0, math.inf]),
    (CircuitBreaker, "break_duration", SECONDS, [*NO_NUMBERS, 0, math.inf]),
    (AdaptiveThrottle, "k", "a number >= 1", [*NO_NUMBERS, 0, 0.9, math.inf]),
    (AdaptiveThrottle, "window", SECONDS, [*NO_NUMBERS, 0, math.inf]),
    (Hedge, "delay", "a number >= 0", [*NO_NUMBERS, math.inf]),
    (Hedge, "max_hedged_attempts", "a whole number >= 1", [*NO_NUMBERS[:-1], 0, 1.5, math.inf]),
    (Hedge, "max_hedged_attempts", "a whole number from 1 to 10", [11, 10**400]),
]


@pytest.mark.parametrize(
    ("kind", "setting", "value", "expected"),
    [
        (kind, setting, value, expected)
        for kind, setting, expected, values in WRONG
        for value in values
    ],
)
def test_a_setting_that_is_wrong_is_named(
    kind: Any, setting: str, value: Any, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**{setting: value})
    assert str(caught.value) == f"{setting} must be {expected}, not {value!r}."
    assert caught.value.value is value


@pytest.mark.parametrize("kind", [RetryBudget, CircuitBreaker, AdaptiveThrottle, Hedge])
def test_settings_are_named(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind(1)


class Index:
    def __index__(self) -> int:
        return 2


def test_what_counts_as_a_whole_number_will_do() -> None:
    breaker = CircuitBreaker(minimum_throughput=Index(), failure_ratio=1)  # type: ignore[arg-type]
    for _ in range(2):
        breaker._leave(A, breaker._enter(A, now()), now(), failed=True)
    assert breaker.state("http://a") == "open"


# Reprs.


def test_what_they_look_like() -> None:
    budget = RetryBudget(ttl=5, percent_can_retry=0.5)
    assert repr(budget) == (
        "<RetryBudget ttl=5 min_retries_per_sec=10.0 percent_can_retry=0.5 origins=0>"
    )
    budget._withdraw(A, now())
    assert "origins=1" in repr(budget)

    throttle = AdaptiveThrottle(k=3)
    assert repr(throttle) == "<AdaptiveThrottle k=3 window=120.0 origins=0>"
    throttle._enter(A, now())
    assert "origins=1" in repr(throttle)

    breaker = CircuitBreaker()
    assert repr(breaker) == "<CircuitBreaker origins=0 open=0 half_open=0>"
    assert repr(Hedge(delay=1)) == "Hedge(delay=1, max_hedged_attempts=1)"


def test_a_breaker_tells_how_many_of_its_circuits_are_open() -> None:
    breaker = CircuitBreaker(minimum_throughput=1, break_duration=1e-6)
    patient = CircuitBreaker(minimum_throughput=1, break_duration=1e6)
    for each in (breaker, patient):
        each._enter(B, now())
        each._leave(A, each._enter(A, now()), now(), failed=True)
    assert repr(patient) == "<CircuitBreaker origins=2 open=1 half_open=0>"
    later = now() + 1
    while now() < later and breaker.state("http://a") == "open":
        pass  # for a microsecond
    assert repr(breaker) == "<CircuitBreaker origins=2 open=0 half_open=1>"


def test_a_hedge_is_a_value() -> None:
    assert Hedge() == Hedge(delay=2.0, max_hedged_attempts=1)
    assert {Hedge(): 1}[Hedge()] == 1
    assert pickle.loads(pickle.dumps(Hedge(delay=1))) == copy.copy(Hedge(delay=1))  # noqa: S301
    hedge: Any = Hedge()
    with pytest.raises(dataclasses.FrozenInstanceError):
        hedge.delay = 1
    assert Hedge(delay=0, max_hedged_attempts=10).max_hedged_attempts == 10


# Origins.

SAME = [
    ["http://a.example", "HTTP://A.Example/path?query#part", "http://user:word@a.example:80"],
    ["https://a.example", "https://a.example:443/"],
    ["https://a.example:80"],
    ["http://a.example:443"],
    ["http://a.example:8080"],
    ["http://127.0.0.1"],
    ["http://[::1]:8080/"],
    ["http://m\u00fcnchen.example", "http://xn--mnchen-3ya.example", "http://M\u00dcNCHEN.example"],
    ["a.example"],
]


@pytest.mark.parametrize("library", FAMILIES, ids=lambda library: library.__name__)
def test_urls_of_an_origin_have_one_state_and_that_is_the_one_of_its_requests(
    library: Any,
) -> None:
    budget = RetryBudget(min_retries_per_sec=0, percent_can_retry=1)
    for count, urls in enumerate(SAME, 1):
        for _ in range(count):
            budget._deposit(library.URL(urls[-1]), now())
    for count, urls in enumerate(SAME, 1):
        for url in urls:
            assert budget.balance(url) == count
            assert budget.balance(library.URL(url)) == count
            assert budget._budgets[origin_of(library.URL(url))].balance(now()) == count
    assert repr(budget).endswith(f"origins={len(SAME)}>")


def test_functions_have_a_budget_beside_those_of_the_origins() -> None:
    budget = RetryBudget(min_retries_per_sec=0, percent_can_retry=1, ttl=1000)
    budget._deposit(None, now())
    assert (budget.balance(), budget.balance(None), budget.balance("http://a")) == (1, 1, 0)
    assert not budget._withdraw(A, now())
    assert budget._withdraw(None, now())
    assert budget.balance() == 0


def test_what_one_origin_spends_the_others_keep() -> None:
    budget = RetryBudget(ttl=1000, min_retries_per_sec=0.003)
    assert [budget._withdraw(A, now()) for _ in range(4)] == [True] * 3 + [False]
    assert (budget.balance("http://a"), budget.balance("http://b")) == (0, 3)


def test_an_origin_that_fails_leaves_the_circuits_of_the_others_closed() -> None:
    breaker = CircuitBreaker(minimum_throughput=1, break_duration=1000)
    breaker._leave(A, breaker._enter(A, now()), now(), failed=True)
    assert (breaker.state("http://a"), breaker.state("http://b")) == ("open", "closed")
    assert breaker._enter(A, now()) == BLOCKED
    assert breaker._enter(B, now()) != BLOCKED
    assert breaker._blocked_for(A, now()) > 900
    assert breaker._blocked_for(B, now()) == 0


def test_an_origin_that_turns_requests_away_does_not_throttle_the_others() -> None:
    throttle = AdaptiveThrottle(window=1000)
    for _ in range(3):
        throttle._enter(A, now())
        throttle._enter(B, now())
        throttle._accept(B, now())
    assert (throttle.refusal("http://a"), throttle.refusal("http://b")) == (3 / 4, 0)


def test_no_more_than_a_thousand_origins_are_remembered() -> None:
    budget, breaker = RetryBudget(), CircuitBreaker(minimum_throughput=1, break_duration=1000)
    throttle = AdaptiveThrottle()
    breaker._leave(A, breaker._enter(A, now()), now(), failed=True)
    for n in range(1500):
        origin = ("http", str(n), None)
        budget._withdraw(origin, now())
        breaker._enter(A if n % 500 == 0 else origin, now())
        throttle._enter(origin, now())
    assert repr(budget).endswith("origins=1000>")
    assert repr(throttle).endswith("origins=1000>")
    assert repr(breaker) == "<CircuitBreaker origins=1000 open=1 half_open=0>"


# Time.


def test_time_passes_for_them_as_for_the_event_loop() -> None:
    budget = RetryBudget(ttl=10, min_retries_per_sec=0.1)
    breaker = CircuitBreaker(minimum_throughput=1, break_duration=5)
    throttle = AdaptiveThrottle(window=10)

    async def main() -> None:
        seen = []
        budget._withdraw(A, now())
        breaker._leave(A, breaker._enter(A, now()), now(), failed=True)
        throttle._enter(A, now())
        for seconds in (0, 6, 5):
            await trio.sleep(seconds)
            seen.append(
                (
                    budget.balance("http://a"),
                    breaker.state("http://a"),
                    throttle.refusal("http://a"),
                )
            )
        assert seen == [(0, "open", 0.5), (0, "half_open", 0.5), (1, "half_open", 0)]
        assert repr(breaker) == "<CircuitBreaker origins=1 open=0 half_open=1>"
        probe = breaker._enter(A, now())
        breaker._forget(A, probe, now())
        probe = breaker._enter(A, now())
        assert breaker._enter(A, now()) == BLOCKED
        breaker._leave(A, probe, now(), failed=False)
        assert breaker.state("http://a") == "closed"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# What the budget takes in late.


def test_requests_are_paid_in_when_somebody_asks() -> None:
    budget = RetryBudget(ttl=1000, min_retries_per_sec=0, percent_can_retry=0.5)
    for _ in range(5):
        budget._deposit(httpx.URL("http://a"), now())
    assert len(budget._pending) == 5
    assert budget._withdraw(A, now())
    assert not budget._pending
    assert budget.balance("http://a") == 1.5


def test_no_more_requests_are_kept_than_there_may_be() -> None:
    budget = RetryBudget(ttl=1000, min_retries_per_sec=0, percent_can_retry=1)
    for _ in range(10 * MOST_PENDING):
        budget._deposit(httpx.URL("http://a"), now())
        assert len(budget._pending) <= MOST_PENDING
    assert budget.balance("http://a") == 10 * MOST_PENDING


def test_a_request_counts_from_when_it_was_made_and_not_from_when_it_was_paid_in() -> None:
    budget = RetryBudget(ttl=10, min_retries_per_sec=0, percent_can_retry=1)
    budget._deposit(httpx.URL("http://a"), now() - 11)
    budget._deposit(httpx.URL("http://a"), now())
    assert budget.balance("http://a") == 1


# Threads.

Hammer = Callable[[Callable[[], object]], None]


def test_threads_that_share_a_budget_spend_it_to_the_last_retry_and_no_further(
    hammer: Hammer,
) -> None:
    budget = RetryBudget(ttl=1000, min_retries_per_sec=0.1, percent_can_retry=0.25)
    url, start = httpx.URL("http://a"), now()
    retries: list[int] = []

    def ask() -> None:
        count = 0
        for _ in range(EACH):
            budget._deposit(url, start)
            count += budget._withdraw(A, start)
        retries.append(count)

    hammer(ask)
    assert sum(retries) == 100 + THREADS * EACH // 4
    assert budget._budgets[A].balance(start) == 0
    assert not budget._pending


def test_no_request_of_any_thread_is_lost_on_its_way_into_the_budget(hammer: Hammer) -> None:
    budget = RetryBudget(ttl=1000, min_retries_per_sec=0, percent_can_retry=1)
    urls = [httpx.URL("http://a"), httpx.URL("http://b")]
    start = now()

    def ask() -> None:
        for n in range(EACH):
            budget._deposit(urls[n % 2], start)
            if n % 100 == 0:
                budget._pay_in()
                repr(budget)

    hammer(ask)
    half = THREADS * EACH // 2
    assert (budget.balance("http://a"), budget.balance("http://b")) == (half, half)


def test_threads_that_share_a_breaker_are_all_counted(hammer: Hammer) -> None:
    breaker = CircuitBreaker(
        failure_ratio=0.5, minimum_throughput=2 * THREADS * EACH, sampling_duration=1000
    )
    start = now()

    def ask() -> None:
        for n in range(EACH):
            passed = breaker._enter(A, start)
            breaker._leave(A, passed, start, failed=n % 4 == 0)
            assert breaker.state("http://a") == "closed"

    hammer(ask)
    counted = breaker._breakers[A]
    assert counted._passed.total(start) == THREADS * EACH
    assert counted._failures.total(start) == THREADS * EACH // 4


def test_of_many_threads_one_sends_the_probe(hammer: Hammer) -> None:
    breaker = CircuitBreaker(minimum_throughput=1, break_duration=5)
    opened_at = 100.0
    breaker._leave(A, breaker._enter(A, opened_at), opened_at, failed=True)
    passed: list[int] = []

    def ask() -> None:
        for n in range(EACH):
            moment = opened_at + 5 + 5 * (n // 100)  # ten of them
            number = breaker._enter(A, moment)
            if number != BLOCKED:
                passed.append(number)

    hammer(ask)
    # A thread that is late sees a probe of a later moment under way.
    assert len(passed) == len(set(passed)) == EACH // 100


def test_threads_that_share_a_throttle_are_all_counted(hammer: Hammer) -> None:
    throttle = AdaptiveThrottle(k=2, window=1000)
    start = now()

    def ask() -> None:
        for n in range(EACH):
            throttle._enter(A, start)
            if n % 4 == 0:
                throttle._accept(A, start)

    hammer(ask)
    requests = THREADS * EACH
    assert throttle.refusal("http://a") == (requests - 2 * requests / 4) / (requests + 1)


def test_threads_that_meet_many_origins_forget_no_more_than_they_have_to(hammer: Hammer) -> None:
    budget = RetryBudget(ttl=1000)
    start = now()

    def ask() -> None:
        for n in range(2 * EACH):
            budget._withdraw(("http", str(n), None), start)

    hammer(ask)
    assert repr(budget).endswith("origins=1000>")


# The throttle's error.


def test_a_throttled_request_is_told_why() -> None:
    error = ThrottledError(0, 0, "throttle", 1)
    assert (error.reason, error.retry_after) == ("throttle", 1)
    assert str(error) == (
        "Request dropped due to backpressure (reason=throttle): the server has turned away most of "
        "the latest requests."
    )
