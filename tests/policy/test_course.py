"""Course against a naive model: when a failure is tried again, and what for."""

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loadshed._policy.course import SUCCESS, Attempt, Course, Failure, History

REASONS = {"total", "deadline", "budget", "method", "body", "retry_after", "breaker"}
LIMITS = st.one_of(st.integers(0, 4), st.just(math.inf))
TIMES = st.one_of(st.integers(0, 40).map(lambda quarters: quarters / 4), st.just(math.inf))
SECONDS = st.integers(0, 12).map(lambda quarters: quarters / 4)
FAILURES = st.builds(
    Failure,
    obstacle=st.sampled_from([None, None, None, None, "method", "body"]),
    retry_after=st.one_of(st.none(), SECONDS),
    blocked_for=st.one_of(st.just(0.0), SECONDS),
)


class Delays:
    """A backoff that is told what to say, and remembers what it was asked."""

    def __init__(self) -> None:
        self.next: float | None = 0.0
        self.asked: list[tuple[int, float | None, float | None]] = []

    def __call__(self, n: int, retry_after: float | None, previous: float | None) -> float | None:
        self.asked.append((n, retry_after, previous))
        return self.next


class Purse:
    """A budget with so many retries."""

    def __init__(self, retries: float) -> None:
        self.retries = retries
        self.paid = 0

    def pay(self) -> bool:
        if self.retries < 1:
            return False
        self.retries -= 1
        self.paid += 1
        return True


class CourseMachine(RuleBasedStateMachine):
    now = 0.0
    stopped: str | None = None

    @precondition(lambda self: self.stopped is not None)
    @rule(total=LIMITS, left=TIMES, retries=LIMITS)
    def another_request_comes(self, total: float, left: float, retries: float) -> None:
        self.begin(total, left, retries)

    @initialize(total=LIMITS, left=TIMES, retries=LIMITS)
    def begin(self, total: float, left: float, retries: float) -> None:
        self.total, self.deadline = total, self.now + left
        self.delays, self.purse = Delays(), Purse(retries)
        self.course = Course(total, self.deadline, self.delays)
        self.waits: list[float] = []
        self.stopped = None

    def reason(self, failure: Failure, wait: float | None) -> str | None:
        """Why it is over, for a reader."""
        if failure.obstacle:
            return failure.obstacle
        if len(self.waits) == self.total:
            return "total"
        if wait is None:
            return "retry_after"
        if self.now + wait >= self.deadline:
            return "deadline"
        if wait < failure.blocked_for:
            return "breaker"
        return None if self.purse.retries >= 1 else "budget"

    @precondition(lambda self: self.stopped is None)
    @rule(took=SECONDS, failure=FAILURES, wait=st.one_of(SECONDS, SECONDS, SECONDS, st.none()))
    def an_attempt_fails(self, took: float, failure: Failure, wait: float | None) -> None:
        self.now += took
        self.delays.next = wait
        self.stopped = self.reason(failure, wait)
        asked = len(self.delays.asked)
        result = self.course.failed(self.now, failure, self.purse.pay)
        if self.stopped is not None:
            assert result is None
            return
        assert result is not None
        assert result == wait
        previous = self.waits[-1] if self.waits else None
        self.waits.append(result)
        expected = (len(self.waits), failure.retry_after, previous)
        assert self.delays.asked[asked:] == [expected]
        self.now += result
        assert self.now < self.deadline, "a retry would begin after the deadline"

    @invariant()
    def it_agrees_with_the_model(self) -> None:
        assert self.course.stopped == self.stopped
        assert self.course.stopped in REASONS | {None}
        assert self.course.retries == len(self.waits)
        assert self.course.wait == (self.waits[-1] if self.waits else 0.0)

    @invariant()
    def there_are_never_more_retries_than_the_total(self) -> None:
        assert self.course.retries <= self.total

    @invariant()
    def it_pays_once_for_each_retry_that_happens_and_for_no_other(self) -> None:
        assert self.purse.paid == self.course.retries

    @invariant()
    def the_time_of_the_next_attempt_is_before_the_deadline(self) -> None:
        assert not self.waits or self.stopped is not None or self.now < self.deadline


def test_it_agrees_with_the_model() -> None:
    run_state_machine_as_test(CourseMachine)


def course(*, total: float = 9, deadline: float = math.inf, wait: float | None = 1.0) -> Course:
    return Course(total, deadline, lambda n, retry_after, previous: wait)


def unpaid() -> bool:
    raise AssertionError("nothing is to be paid for")


@pytest.mark.parametrize(
    ("failing", "failure", "stopped"),
    [
        (course(total=0), Failure(obstacle="method"), "method"),
        (course(total=0), Failure(obstacle="body"), "body"),
        (course(total=0, wait=None), Failure(), "total"),
        (course(deadline=0, wait=None), Failure(), "retry_after"),
        (course(deadline=1), Failure(blocked_for=2), "deadline"),
        (course(), Failure(blocked_for=1.1), "breaker"),
        (course(wait=math.inf), Failure(), "deadline"),
    ],
)
def test_the_first_reason_counts_and_costs_nothing(
    failing: Course, failure: Failure, stopped: str
) -> None:
    assert failing.failed(0, failure, unpaid) is None
    assert failing.stopped == stopped
    assert (failing.retries, failing.wait) == (0, 0.0)


def test_the_budget_is_asked_last() -> None:
    failing = course()
    assert failing.failed(0, Failure(), lambda: False) is None
    assert failing.stopped == "budget"


def test_a_wait_that_ends_when_the_breaker_lets_one_pass_is_long_enough() -> None:
    failing = course()
    assert failing.failed(0, Failure(blocked_for=1), lambda: True) == 1


def test_a_retry_may_begin_just_before_the_deadline_and_not_at_it() -> None:
    failing = course(deadline=2)
    assert failing.failed(0.999, Failure(), lambda: True) == 1
    assert failing.failed(1, Failure(), unpaid) is None
    assert (failing.stopped, failing.retries) == ("deadline", 1)


def test_without_end_there_is_always_another() -> None:
    failing = course(total=math.inf)
    for n in range(1, 2000):
        assert failing.failed(n, Failure(), lambda: True) == 1
        assert failing.retries == n


def test_the_backoff_is_told_the_number_what_was_asked_for_and_the_wait_before() -> None:
    delays = Delays()
    failing = Course(9, math.inf, delays)
    for wait, retry_after in [(0.0, None), (3.0, 2.5), (1.0, None)]:
        delays.next = wait
        failing.failed(0, Failure(retry_after=retry_after), lambda: True)
    assert delays.asked == [(1, None, None), (2, 2.5, 0.0), (3, None, 3.0)]


def test_what_came_of_it_can_be_taken_apart() -> None:
    attempt = Attempt(503, None, 0.5, 0.0)
    history = History((attempt, attempt), SUCCESS)
    (first, _), stopped = history
    status, error, elapsed, delay = first
    assert (status, error, elapsed, delay, stopped) == (503, None, 0.5, 0.0, "success")
