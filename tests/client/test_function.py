"""`retry` around functions, async and not."""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio.lowlevel import checkpoint

from loadshed import (
    BackPressureError,
    ConcurrencyLimiter,
    ConfigError,
    QueueFullError,
    RetryError,
    _clock,
)
from loadshed.client import Attempt, Event, Retry, RetryBudget, deadline, retry

AT_ONCE: Any = {"backoff_factor": 0}


class Time:
    """A thread's time in which to sleep takes none."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    time = Time()
    monkeypatch.setattr(_clock, "thread_time", lambda: time.now)
    monkeypatch.setattr(_clock, "thread_sleep", time.sleep)
    return time  # type: ignore[return-value]


class Failing:
    """A function that raises each of these, and then returns what it was called with."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = [*errors]
        self.calls = 0

    def __call__(self, value: Any = "done", **_: Any) -> Any:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return value

    def as_async(self) -> Callable[..., Any]:
        async def function(value: Any = "done") -> Any:
            return self(value)

        return function


def test_a_function_that_works_is_called_once(time: Time) -> None:
    function = Failing()
    assert retry(function)("x") == "x"
    assert (function.calls, time.sleeps) == (1, [])


def test_what_a_limiter_has_turned_away_is_tried_again_not_before_its_time(time: Time) -> None:
    function = Failing(QueueFullError(2, 2, retry_after=3), QueueFullError(2, 2, retry_after=7))
    assert retry(function)() == "done"
    first, second = time.sleeps
    assert 3 <= first <= 3 * 1.1
    assert 7 <= second <= 7 * 1.1


def test_a_wait_that_is_too_long_ends_with_the_limiters_error(time: Time) -> None:
    error = BackPressureError(retry_after=32)
    with pytest.raises(BackPressureError) as caught:
        retry(retry_after_max=30)(Failing(error))()
    assert caught.value is error
    assert time.sleeps == []


def test_without_retry_on_nothing_else_is_tried_again(time: Time) -> None:
    function = Failing(OSError("no"))
    with pytest.raises(OSError, match="no"):
        retry(function)()
    assert function.calls == 1


def test_what_retry_on_names_is_tried_again_with_the_policys_waits(time: Time) -> None:
    function = Failing(OSError(), ConnectionError(), OSError())
    decorated = retry(total=3, retry_on=(OSError,), jitter="none")(function)
    assert decorated() == "done"
    assert time.sleeps == [1, 2, 4]


def test_retry_on_may_be_a_function(time: Time) -> None:
    asked: list[Exception] = []

    def is_retried(error: Exception) -> bool:
        asked.append(error)
        return "again" in str(error)

    function = Failing(ValueError("again"), ValueError("enough"))
    with pytest.raises(ValueError, match="enough"):
        retry(retry_on=is_retried, jitter="none")(function)()
    assert [str(error) for error in asked] == ["again", "enough"]


def test_when_it_is_over_the_last_exception_is_raised_as_it_is(time: Time) -> None:
    last = OSError("the last")
    function = Failing(OSError("the first"), last)
    with pytest.raises(OSError, match="the last") as caught:
        retry(total=1, retry_on=OSError)(function)()
    assert caught.value is last


def test_or_an_error_that_has_all_of_them_if_asked_for(time: Time) -> None:
    errors = [OSError("one"), OSError("two")]
    with pytest.raises(RetryError) as caught:
        retry(total=1, retry_on=OSError, raise_on_exhausted=True, jitter="none")(Failing(*errors))()
    assert caught.value.history == (
        Attempt(None, errors[0], 0.0, 0.0),
        Attempt(None, errors[1], 0.0, 1.0),
    )
    assert caught.value.last is errors[1]
    assert caught.value.__cause__ is errors[1]


def test_which_is_not_raised_for_what_is_never_tried_again(time: Time) -> None:
    with pytest.raises(KeyError):
        retry(retry_on=OSError, raise_on_exhausted=True)(Failing(KeyError()))()


def test_a_policy_can_be_given(time: Time) -> None:
    policy = Retry(retry_on=OSError, jitter="none", first_delay=0, attempt_timeout=None)
    assert retry(policy)(Failing(OSError(), OSError()))() == "done"
    assert time.sleeps == [0, 2]


def test_a_method_and_an_object_that_is_called_can_be_decorated(time: Time) -> None:
    class Sensor:
        errors = Failing(OSError())

        @retry(retry_on=OSError)
        def read(self, value: int) -> int:
            return self.errors(value)  # type: ignore[no-any-return]

    assert Sensor().read(3) == 3
    assert retry(retry_on=OSError)(functools.partial(Failing(OSError()), 4))() == 4


def test_an_exception_that_is_returned_is_a_result(time: Time) -> None:
    error = OSError()
    assert retry(retry_on=OSError)(Failing())(error) is error


def test_what_is_no_exception_is_never_caught(time: Time) -> None:
    function = Failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        retry(retry_on=lambda _: True)(function)()
    assert function.calls == 1
    function = Failing(OSError(), SystemExit())
    with pytest.raises(SystemExit):
        retry(retry_on=lambda _: True)(function)()
    assert function.calls == 2


def test_no_retry_begins_after_the_deadline(time: Time) -> None:
    function = Failing(*[OSError()] * 9)
    decorated = retry(total=9, retry_on=OSError, deadline=6, jitter="none")(function)
    with pytest.raises(OSError, match=r"^$"):
        decorated()
    assert time.sleeps == [1, 2]  # and 4 would be 7


def test_the_deadline_around_counts_too(time: Time) -> None:
    with deadline(2), pytest.raises(OSError, match=r"^$"):
        retry(retry_on=OSError, jitter="none")(Failing(*[OSError()] * 9))()
    assert time.sleeps == [1]


def test_after_the_deadline_it_is_not_called_at_all(time: Time) -> None:
    function = Failing()
    with deadline(0), pytest.raises(TimeoutError, match="before the call"):
        retry(function)()
    assert function.calls == 0


def test_a_wait_that_takes_longer_than_it_should_ends_with_the_last_failure(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clock, "thread_sleep", lambda seconds: time.sleep(seconds + 100))
    error = OSError("the only one")
    function = Failing(error)
    with pytest.raises(OSError, match="the only one"):
        retry(retry_on=OSError)(function)()
    assert function.calls == 1


def test_a_function_that_is_retried_inside_has_the_same_deadline(time: Time) -> None:
    left: list[float] = []

    @retry(deadline=None, retry_on=OSError, jitter="none")
    def inner() -> None:
        time.now += 3
        left.append(time.now)
        raise OSError

    with pytest.raises(OSError, match=r"^$"):
        retry(deadline=8)(inner)()
    assert left == [1003, 1007]


def test_each_function_has_a_budget_of_its_own(time: Time) -> None:
    always = [OSError()] * 1000

    def retries(function: Failing, **settings: Any) -> int:
        decorated = retry(retry_on=OSError, total=3, **AT_ONCE, **settings)(function)
        for _ in range(100):
            with pytest.raises(OSError, match=r"^$"):
                decorated()
        return function.calls - 100

    assert retries(Failing(*always)) == 100 + 0.2 * 100  # the reserve, and a fifth
    assert retries(Failing(*always)) == 120
    shared = RetryBudget(min_retries_per_sec=1)
    assert retries(Failing(*always), budget=shared) == 30
    assert retries(Failing(*always), budget=shared) == 20
    assert retries(Failing(*always), budget=None) == 300
    assert shared.balance() < 1


def test_events_tell_what_happens(time: Time) -> None:
    events: list[Event] = []
    function = Failing(OSError("one"))
    retry(retry_on=OSError, jitter="none", on_event=events.append)(function)()
    assert [(event.kind, event.delay, event.stopped) for event in events] == [
        ("retry", 1.0, ""),
        ("stop", 0.0, "success"),
    ]
    assert all(event.subject is function for event in events)
    events.clear()
    with pytest.raises(KeyError):
        retry(on_event=events.append)(Failing(KeyError()))()
    assert [(event.kind, event.stopped) for event in events] == [("stop", "error")]


def test_the_log_is_silent_unless_it_is_asked(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    function = Failing(OSError("one"), OSError("two"))
    retry(retry_on=OSError, jitter="none")(function)()
    assert caplog.records == []
    caplog.set_level(logging.INFO, "loadshed.client")
    function.errors = [OSError("one")]
    retry(retry_on=OSError, jitter="none")(function)()
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert "again in 1.000 s after OSError('one')" in caplog.messages[0]
    assert caplog.messages[1].endswith("success.")


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"total": -1}, "total"),
        ({"budget": 1}, "budget"),
        ({"on_event": 1}, "on_event"),
        ({"attempt_timeout": 1}, "attempt_timeout"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        retry(**settings)(Failing())
    assert caught.value.setting == setting


def test_a_policy_and_settings_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match=r"^total must be left out where a policy is given"):
        retry(Retry(), total=1)


def test_a_function_that_is_not_async_cannot_have_an_attempt_timeout() -> None:
    with pytest.raises(ConfigError, match=r"^attempt_timeout must be None, .* not 10"):
        retry(Retry())(Failing())


def generates() -> Iterator[int]:
    yield 1


async def generates_async() -> Any:
    yield 1


class GeneratesWhenCalled:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize("function", [generates, generates_async, GeneratesWhenCalled()])
def test_what_yields_cannot_be_retried(function: Any) -> None:
    with pytest.raises(TypeError, match="yields"):
        retry(function)


def test_the_other_decorator_of_a_static_or_class_method_goes_above() -> None:
    others: tuple[Any, ...] = (staticmethod, classmethod)
    for other in others:
        with pytest.raises(TypeError, match="goes below the other"):
            retry(other(Failing()))


def test_a_function_that_returns_a_coroutine_is_told_of(time: Time) -> None:
    async def work() -> None: ...

    with pytest.raises(TypeError, match="returned a coroutine: make it an async function"):
        _ = retry(lambda: work())()  # noqa: PLW0108 - a function that is not async


@pytest.mark.anyio
async def test_a_partial_of_an_object_that_is_async_when_called_is_async() -> None:
    class Sensor:
        calls = 0

        async def __call__(self, value: int) -> int:
            self.calls += 1
            if self.calls < 2:
                raise OSError
            return value

    decorated = retry(retry_on=OSError, **AT_ONCE)(functools.partial(Sensor(), 3))
    assert await decorated() == 3


def test_a_task_that_a_call_has_started_is_free_of_its_deadline(
    virtual: Callable[..., Any],
) -> None:
    async def check() -> None:
        results: list[str] = []

        async def poll_later() -> None:
            await anyio.sleep(2)
            results.append(await retry(Failing().as_async())("done"))

        async with anyio.create_task_group() as tasks:

            @retry(deadline=1)
            async def start() -> None:
                tasks.start_soon(poll_later)

            await start()
        assert results == ["done"]

    virtual(check)


def test_what_is_no_function_cannot_be_retried() -> None:
    with pytest.raises(TypeError, match="takes a function, or a Retry, not 3"):
        retry(3)  # type: ignore[call-overload]


@pytest.mark.anyio
async def test_an_async_function_is_tried_again() -> None:
    function = Failing(OSError(), BackPressureError(retry_after=0), OSError())
    decorated = retry(retry_on=OSError, **AT_ONCE)(function.as_async())
    assert await decorated("x") == "x"
    assert function.calls == 4


@pytest.mark.anyio
async def test_the_limiter_and_the_retry_work_together() -> None:
    limiter = ConcurrencyLimiter(1, 0)
    permit = limiter.acquire_nowait()

    def release(_: Event) -> None:
        permit.release()

    @retry(Retry(respect_retry_after=False, **AT_ONCE), on_event=release)
    @limiter
    async def predict(x: int) -> int:
        return x

    assert await predict(1) == 1
    assert limiter.statistics().shed["queue_full"] == 1


def test_an_attempt_that_takes_too_long_is_cancelled_and_tried_again(
    virtual: Callable[..., Any],
) -> None:
    async def check() -> None:
        began: list[float] = []

        @retry(retry_on=TimeoutError, attempt_timeout=5, jitter="none")
        async def hang_twice() -> str:
            began.append(trio.current_time())
            if len(began) < 3:
                await anyio.sleep_forever()
            return "done"

        assert await hang_twice() == "done"
        assert began == pytest.approx([0, 6, 13])

    virtual(check)


def test_which_is_not_tried_again_where_retry_on_does_not_have_it(
    virtual: Callable[..., Any],
) -> None:
    async def check() -> None:
        with pytest.raises(TimeoutError):
            await retry(attempt_timeout=5)(anyio.sleep_forever)()
        assert trio.current_time() == pytest.approx(5)

    virtual(check)


def test_the_deadline_cancels_an_attempt(virtual: Callable[..., Any]) -> None:
    async def check() -> None:
        decorated = retry(retry_on=TimeoutError, attempt_timeout=None)(anyio.sleep_forever)
        with deadline(7), pytest.raises(TimeoutError):
            await decorated()
        assert trio.current_time() == pytest.approx(7)
        with deadline(0), pytest.raises(TimeoutError, match="before the call"):
            await decorated()
        assert trio.current_time() == pytest.approx(7)

    virtual(check)


def test_waits_take_the_time_of_the_event_loop(virtual: Callable[..., Any]) -> None:
    async def check() -> None:
        function = Failing(*[OSError()] * 5)
        decorated = retry(retry_on=OSError, first_delay=0, jitter="none")(function.as_async())
        await decorated()
        assert trio.current_time() == pytest.approx(0 + 2 + 4 + 8 + 16)

    virtual(check)


@pytest.fixture
def virtual() -> Callable[..., Any]:
    def run(check: Callable[[], Any]) -> None:
        trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))

    return run


@pytest.mark.anyio
async def test_a_cancellation_is_never_tried_again() -> None:
    function = Failing()
    started = anyio.Event()

    @retry(retry_on=lambda _: True, **AT_ONCE)
    async def hang() -> None:
        function()
        started.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        await started.wait()
        tasks.cancel_scope.cancel()
    assert function.calls == 1


def test_a_cancelled_error_of_asyncio_goes_its_way() -> None:
    function = Failing(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(retry(retry_on=lambda _: True)(function.as_async())())
    assert function.calls == 1


@pytest.mark.anyio
async def test_tasks_that_share_a_function_do_not_share_attempts() -> None:
    calls: dict[int, int] = {}

    @retry(retry_on=OSError, total=3, budget=None, **AT_ONCE)
    async def fail_three_times(n: int) -> int:
        calls[n] = calls.get(n, 0) + 1
        await checkpoint()
        if calls[n] < 4:
            raise OSError
        return n

    results: list[int] = []

    async def call(n: int) -> None:
        results.append(await fail_three_times(n))

    async with anyio.create_task_group() as tasks:
        for n in range(50):
            tasks.start_soon(call, n)
    assert sorted(results) == [*range(50)]
    assert set(calls.values()) == {4}
