"""ConcurrencyLimiter on asyncio, uvloop and trio."""

import asyncio
import dataclasses
import inspect
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import anyio
import pytest
import trio.testing
from anyio.lowlevel import checkpoint

from loadshed import (
    BackPressureError,
    ConcurrencyLimiter,
    ConfigError,
    Permit,
    QueueFullError,
    QueueTimeoutError,
)

from .helpers import CancelAt, settle

pytestmark = pytest.mark.anyio


def counts(limiter: ConcurrencyLimiter) -> tuple[int, int, int, int, int]:
    """Ongoing, queued, admitted, completed, abandoned; and that they add up."""
    seen = limiter.statistics()
    assert seen.admitted == seen.completed + seen.ongoing
    return seen.ongoing, seen.queued, seen.admitted, seen.completed, seen.abandoned


class Caller:
    """A task that takes a permit and holds it until it is told to go."""

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self.limiter = limiter
        self.done = anyio.Event()  # it may go
        self.over = anyio.Event()  # it has gone
        self.scope = anyio.CancelScope()
        self.state = "new"
        self.error: BackPressureError | None = None

    async def run(self) -> None:
        self.state = "waiting"
        try:
            with self.scope:
                async with self.limiter:
                    self.state = "running"
                    await self.done.wait()
                self.state = "done"
        except BackPressureError as error:
            self.state = "shed"
            self.error = error
        if self.scope.cancelled_caught:
            self.state = "cancelled"
        self.over.set()


class Callers:
    """A number of them, started one after the other."""

    def __init__(self, limiter: ConcurrencyLimiter, tasks: anyio.abc.TaskGroup) -> None:
        self.limiter = limiter
        self.tasks = tasks
        self.all: list[Caller] = []

    async def come(self, count: int) -> None:
        for _ in range(count):
            caller = Caller(self.limiter)
            self.all.append(caller)
            self.tasks.start_soon(caller.run)
            await settle()

    @property
    def states(self) -> list[str]:
        return [caller.state for caller in self.all]

    def __getitem__(self, index: int) -> Caller:
        return self.all[index]

    def all_go(self) -> None:
        for caller in self.all:
            caller.done.set()


async def test_some_run_some_wait_and_the_rest_is_shed_at_once() -> None:
    limiter = ConcurrencyLimiter(2, 2)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(9)
        assert callers.states == ["running"] * 2 + ["waiting"] * 2 + ["shed"] * 5
        error = callers[8].error
        assert isinstance(error, QueueFullError)
        assert (error.num_queued_requests, error.max_queued_requests) == (2, 2)
        assert (error.reason, error.retry_after) == ("queue_full", 1)
        callers.all_go()
    assert callers.states == ["done"] * 4 + ["shed"] * 5
    assert counts(limiter) == (0, 0, 4, 4, 0)
    assert limiter.statistics().shed == {"queue_full": 5}


async def test_waiters_go_in_the_order_in_which_they_came() -> None:
    limiter = ConcurrencyLimiter(1, 3)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(4)
        for n in range(4):
            assert callers.states == ["done"] * n + ["running"] + ["waiting"] * (3 - n)
            callers[n].done.set()
            await settle()
    assert callers.states == ["done"] * 4


async def test_no_queue_sheds_at_once() -> None:
    limiter = ConcurrencyLimiter(1, 0)
    async with limiter:
        with pytest.raises(QueueFullError):
            await limiter.acquire()
    async with limiter:
        pass


async def test_infinity_has_to_be_spelled_and_bounds_nothing() -> None:
    limiter = ConcurrencyLimiter(math.inf, math.inf)
    permits = [await limiter.acquire() for _ in range(1000)]
    limiter.max_ongoing_requests = 1
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(10)
        assert callers.states == ["waiting"] * 10
        callers.all_go()
        for permit in permits:
            permit.release()
    assert counts(limiter) == (0, 0, 1010, 1010, 0)


async def test_the_queue_is_as_long_as_the_limit_unless_it_is_set() -> None:
    limiter = ConcurrencyLimiter(3)
    assert limiter.max_queued_requests == 3
    limiter.max_ongoing_requests = 7
    assert limiter.max_queued_requests == 7
    limiter.max_queued_requests = 2
    limiter.max_ongoing_requests = 5
    assert limiter.max_queued_requests == 2
    limiter.max_queued_requests = None
    assert limiter.statistics().max_queued_requests == 5


async def test_acquire_nowait_never_queues() -> None:
    limiter = ConcurrencyLimiter(1, 5)
    permit = limiter.acquire_nowait()
    with pytest.raises(QueueFullError) as caught:
        limiter.acquire_nowait()
    assert caught.value.num_queued_requests == 0
    assert limiter.statistics().shed == {"queue_full": 1}
    permit.release()
    limiter.acquire_nowait().release()


async def test_a_permit_is_given_back_once_however_often_it_is_released() -> None:
    limiter = ConcurrencyLimiter(2)
    permit, other = await limiter.acquire(), await limiter.acquire()
    assert isinstance(permit, Permit)
    released = [permit.released]
    for _ in range(2):
        permit.release()
        released.append(permit.released)
    assert released == [False, True, True]
    assert counts(limiter) == (1, 0, 2, 1, 0)
    with other:
        pass
    other.release()
    assert counts(limiter) == (0, 0, 2, 2, 0)


async def test_a_permit_is_a_context_manager() -> None:
    limiter = ConcurrencyLimiter(1)
    with limiter.acquire_nowait() as permit:
        assert not permit.released
    with pytest.raises(LookupError), await limiter.acquire():
        raise LookupError
    assert counts(limiter) == (0, 0, 2, 2, 0)


async def test_an_error_in_the_block_gives_the_permit_back() -> None:
    limiter = ConcurrencyLimiter(1)
    with pytest.raises(LookupError):
        async with limiter:
            raise LookupError
    assert counts(limiter) == (0, 0, 1, 1, 0)


async def test_taking_a_free_permit_does_not_yield() -> None:
    limiter = ConcurrencyLimiter(2, 0)

    async def take_and_return() -> None:
        async with limiter:
            (await limiter.acquire()).release()

    coroutine = take_and_return()
    with pytest.raises(StopIteration):
        coroutine.send(None)


# Growing and shrinking.


async def test_a_higher_limit_wakes_waiters_at_once() -> None:
    limiter = ConcurrencyLimiter(1, 5)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(4)
        limiter.max_ongoing_requests = 3
        await settle()
        assert callers.states == ["running"] * 3 + ["waiting"]
        callers.all_go()


async def test_a_lower_limit_drains_what_runs() -> None:
    """ace-concurrency deadlocks when a limit shrinks under load."""
    limiter = ConcurrencyLimiter(4, 4)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(8)
        limiter.max_ongoing_requests = 2
        for n in range(2):
            callers[n].done.set()
        await settle()
        assert callers.states == ["done"] * 2 + ["running"] * 2 + ["waiting"] * 4
        callers[2].done.set()
        await settle()
        assert callers.states[3:5] == ["running"] * 2
        limiter.max_ongoing_requests = 4
        await settle()
        assert callers.states == ["done"] * 3 + ["running"] * 4 + ["waiting"]
        callers.all_go()
    assert counts(limiter) == (0, 0, 8, 8, 0)


async def test_a_shorter_queue_sheds_newcomers_and_nobody_else() -> None:
    limiter = ConcurrencyLimiter(1, 3)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(4)
        limiter.max_queued_requests = 1
        await callers.come(1)
        assert callers.states == ["running"] + ["waiting"] * 3 + ["shed"]
        callers.all_go()
    assert callers.states == ["done"] * 4 + ["shed"]


# Cancelling.


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    """hyx's bulkhead loses a slot for good."""
    limiter = ConcurrencyLimiter(1, 2)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(3)
        callers[1].scope.cancel()
        await settle()
        assert callers.states == ["running", "cancelled", "waiting"]
        assert counts(limiter) == (1, 1, 1, 0, 1)
        callers.all_go()
    assert callers.states == ["done", "cancelled", "done"]
    async with limiter:
        pass


@pytest.mark.parametrize("cancel_first", [False, True])
async def test_a_waiter_cancelled_in_the_step_of_its_grant_hands_its_permit_on(
    cancel_first: bool,
) -> None:
    limiter = ConcurrencyLimiter(1, 2)
    permit = await limiter.acquire()
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(2)
        steps = [permit.release, callers[0].scope.cancel]
        for step in reversed(steps) if cancel_first else steps:
            step()
        await settle()
        assert callers.states == ["cancelled", "running"]
        # A cancel that comes second comes too late for anyio and trio to interrupt the wait: the
        # permit is had for a moment then, and given back at the first await in the block.
        admitted = 2 if cancel_first else 3
        assert counts(limiter) == (1, 0, admitted, admitted - 1, 3 - admitted)
        callers.all_go()
    assert counts(limiter)[:2] == (0, 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("cancel_first", [False, True])
async def test_a_plain_asyncio_cancel_is_as_good(cancel_first: bool, anyio_backend: str) -> None:
    limiter = ConcurrencyLimiter(1, 2)
    permit = await limiter.acquire()
    first = asyncio.create_task(limiter.acquire())
    second = asyncio.create_task(limiter.acquire())
    await settle()
    if cancel_first:
        first.cancel()
        permit.release()
    else:
        permit.release()
        first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    (await second).release()
    assert counts(limiter) == (0, 0, 2, 2, 1)


async def use_block(limiter: ConcurrencyLimiter) -> None:
    async with limiter:
        await checkpoint()


async def use_permit(limiter: ConcurrencyLimiter) -> None:
    with await limiter.acquire():
        await checkpoint()


async def use_function(limiter: ConcurrencyLimiter) -> None:
    await limiter(checkpoint)()


async def use_generator(limiter: ConcurrencyLimiter) -> None:
    @limiter
    async def numbers() -> AsyncGenerator[int, None]:
        for n in range(2):
            await checkpoint()
            yield n

    async with aclosing(numbers()) as generator:
        async for _ in generator:
            await checkpoint()


@pytest.mark.parametrize("use", [use_block, use_permit, use_function, use_generator])
@pytest.mark.parametrize("max_wait", [None, 1000])
@pytest.mark.parametrize("crowded", [False, True])
async def test_cancelling_at_any_await_loses_nothing(
    use: Callable[[ConcurrencyLimiter], Any], max_wait: float | None, crowded: bool
) -> None:
    n = 0
    cancelled = True
    while cancelled:
        n += 1
        limiter = ConcurrencyLimiter(1, 2, max_wait=max_wait)
        holder = await limiter.acquire() if crowded else None
        scope = anyio.CancelScope()
        victim = CancelAt(use(limiter), n, scope.cancel)

        async def run(scope: anyio.CancelScope = scope, victim: Any = victim) -> None:
            with scope:
                await victim

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await settle()
            if holder is not None:
                holder.release()
            await settle()
        cancelled = victim.waits >= n
        ongoing, queued, *_ = counts(limiter)
        assert (ongoing, queued) == (0, 0)
        async with limiter:  # and it still works
            pass
    assert n > (2 if crowded else 1)


async def test_waiters_of_a_closed_event_loop_are_passed_over() -> None:
    limiter = ConcurrencyLimiter(1, 5000)
    permit = limiter.acquire_nowait()
    many = 3000  # more than Python calls may be nested

    acquiring = [limiter.acquire() for _ in range(many)]

    def leave_waiters_behind() -> list[asyncio.Task[Permit]]:
        loop = asyncio.new_event_loop()
        left = [loop.create_task(each) for each in acquiring]
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return left

    left = await anyio.to_thread.run_sync(leave_waiters_behind)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(1)
        permit.release()
        await settle()
        assert callers.states == ["running"]
        callers.all_go()
    assert counts(limiter) == (0, 0, 2, 2, many)
    for task, each in zip(left, acquiring, strict=True):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        each.close()
    assert counts(limiter) == (0, 0, 2, 2, many)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_release_in_another_thread_is_not_taken_for_a_closed_loop(
    anyio_backend: str,
) -> None:
    limiter = ConcurrencyLimiter(1, 5)
    permit = limiter.acquire_nowait()
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(1)
        with pytest.raises(RuntimeError, match="async context"):
            await anyio.to_thread.run_sync(permit.release)
        tasks.cancel_scope.cancel()


async def test_a_waiter_that_is_thrown_away_leaves_the_queue() -> None:
    limiter = ConcurrencyLimiter(1, 1)
    with limiter.acquire_nowait():
        waiting = limiter.acquire()
        if "trio" not in str(type(waiting.send(None))):
            waiting.close()
        else:
            with pytest.raises(GeneratorExit):
                waiting.throw(GeneratorExit)
    assert counts(limiter) == (0, 0, 1, 1, 1)


# Waiting at most so long.


async def test_a_waiter_gets_an_error_after_max_wait() -> None:
    limiter = ConcurrencyLimiter(1, 1, max_wait=0.01)
    async with limiter:
        with pytest.raises(QueueTimeoutError) as caught:
            await limiter.acquire()
    assert (caught.value.reason, caught.value.max_wait) == ("queue_timeout", 0.01)
    assert caught.value.num_queued_requests == 0
    assert counts(limiter) == (0, 0, 1, 1, 0)
    assert limiter.statistics().shed == {"queue_timeout": 1}


async def test_a_max_wait_of_zero_is_no_wait() -> None:
    limiter = ConcurrencyLimiter(1, 1, max_wait=0)
    async with limiter:
        with pytest.raises(QueueTimeoutError):
            await limiter.acquire()
    async with limiter:
        pass


async def test_a_permit_that_came_in_time_is_kept() -> None:
    limiter = ConcurrencyLimiter(1, 1, max_wait=1000)
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(2)
        callers.all_go()
    assert callers.states == ["done"] * 2


async def test_max_wait_can_be_set_for_those_who_come() -> None:
    limiter = ConcurrencyLimiter(1, 2)
    assert limiter.max_wait is None
    async with anyio.create_task_group() as tasks:
        callers = Callers(limiter, tasks)
        await callers.come(2)
        limiter.max_wait = 0
        await callers.come(1)
        await callers[2].over.wait()
        assert callers.states == ["running", "waiting", "shed"]
        callers.all_go()
    assert limiter.max_wait == 0


@pytest.fixture
def virtual_time() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture
def in_virtual_time(virtual_time: trio.testing.MockClock) -> Callable[..., Any]:
    return partial(trio.run, clock=virtual_time)


async def hold(limiter: ConcurrencyLimiter, seconds: float) -> None:
    async with limiter:
        await anyio.sleep(seconds)


def test_waiters_expire_each_at_its_time(in_virtual_time: Callable[..., Any]) -> None:
    limiter = ConcurrencyLimiter(1, 5, max_wait=10)
    left: list[float] = []

    async def impatient(comes_at: float) -> None:
        await anyio.sleep(comes_at)
        with pytest.raises(QueueTimeoutError):
            await limiter.acquire()
        left.append(trio.current_time())

    async def main() -> None:
        start = trio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, limiter, 3600)
            await settle()
            for comes_at in (1, 2, 3):
                tasks.start_soon(impatient, comes_at)
        assert [round(time - start, 6) for time in left] == [11, 12, 13]

    in_virtual_time(main)


def test_a_blocked_event_loop_does_not_make_late_waiters_lucky(
    virtual_time: trio.testing.MockClock,
) -> None:
    """Their time passes while nothing runs, and a permit comes back before their timers fire."""
    limiter = ConcurrencyLimiter(1, 2, max_wait=10)

    async def main() -> None:
        permit = await limiter.acquire()
        async with anyio.create_task_group() as tasks:
            callers = Callers(limiter, tasks)
            await callers.come(1)
            virtual_time.jump(11)
            permit.release()
            async with limiter:  # it is free for whoever comes now
                await settle()
                assert callers.states == ["shed"]

    trio.run(main, clock=virtual_time)


def test_a_newcomer_takes_the_place_of_one_whose_time_is_over(
    virtual_time: trio.testing.MockClock,
) -> None:
    limiter = ConcurrencyLimiter(1, 1, max_wait=10)

    async def main() -> None:
        async with limiter, anyio.create_task_group() as tasks:
            callers = Callers(limiter, tasks)
            await callers.come(1)
            virtual_time.jump(11)
            waiter = limiter._queue_up()  # before the timer of the other fires
            await settle()
            assert callers.states == ["shed"]
            assert counts(limiter) == (1, 1, 1, 0, 0)
            limiter._abandon(waiter)
        assert limiter.statistics().shed == {"queue_timeout": 1}

    trio.run(main, clock=virtual_time)


def test_a_full_queue_sheds_whatever_became_of_those_who_left_it(
    virtual_time: trio.testing.MockClock,
) -> None:
    limiter = ConcurrencyLimiter(1, 1, max_wait=10)

    async def main() -> None:
        async with limiter, anyio.create_task_group() as tasks:
            callers = Callers(limiter, tasks)
            await callers.come(1)
            callers[0].scope.cancel()
            await callers[0].over.wait()
            virtual_time.jump(5)
            await callers.come(1)
            virtual_time.jump(6)  # past the time of the one who left
            await callers.come(1)
            assert callers.states == ["cancelled", "waiting", "shed"]
            tasks.cancel_scope.cancel()
        assert limiter.statistics().shed == {"queue_full": 1}

    trio.run(main, clock=virtual_time)


def test_retry_after_tells_when_there_will_be_room(in_virtual_time: Callable[..., Any]) -> None:
    limiter = ConcurrencyLimiter(2, 8)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(hold, limiter, 4)
            await anyio.sleep(9)  # by now four were served, and two left the queue since
            for _ in range(4):
                tasks.start_soon(hold, limiter, 4)
            await settle()
            with pytest.raises(QueueFullError) as caught:
                await limiter.acquire()
            assert caught.value.retry_after == 21  # 9 at 4 in 9 seconds, rounded up

    in_virtual_time(main)


# The log.


SHED = "Request dropped due to backpressure (num_queued_requests=0, max_queued_requests=0)."


async def test_a_shed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    limiter = ConcurrencyLimiter(1, 0)
    async with limiter:
        with pytest.raises(QueueFullError):
            await limiter.acquire()
    assert caplog.record_tuples == [("loadshed", logging.WARNING, SHED)]


async def test_the_log_names_the_limiter(caplog: pytest.LogCaptureFixture) -> None:
    limiter = ConcurrencyLimiter(1, 1, max_wait=0, name="model")
    async with limiter:
        with pytest.raises(QueueTimeoutError):
            await limiter.acquire()
    (line,) = caplog.messages
    assert line == (
        "Request dropped due to backpressure "
        "(num_queued_requests=0, max_queued_requests=1, max_wait=0). Limiter: 'model'."
    )


def test_it_has_one_line_a_second_and_the_next_tells_of_the_rest(
    in_virtual_time: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    limiter = ConcurrencyLimiter(1, 0)

    async def shed(times: int) -> None:
        for _ in range(times):
            with pytest.raises(QueueFullError):
                limiter.acquire_nowait()

    async def main() -> None:
        async with limiter:
            await shed(100)
            await anyio.sleep(0.5)
            await shed(20)
            await anyio.sleep(0.5)
            await shed(1)
            await anyio.sleep(10)
            await shed(2)

    in_virtual_time(main)
    assert caplog.messages == [SHED, f"{SHED} 119 more since the last such line.", SHED]
    assert limiter.statistics().shed == {"queue_full": 123}


def test_after_a_quiet_hour_nobody_is_told_to_stay_away_for_long(
    in_virtual_time: Callable[..., Any],
) -> None:
    limiter = ConcurrencyLimiter(1, 1)
    told = []

    async def main() -> None:
        for pause in (0, 10, 60, 600, 3600):
            await anyio.sleep(pause)
            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(hold, limiter, 0.1)
                await settle()
                with pytest.raises(QueueFullError) as caught:
                    await limiter.acquire()
                told.append(caught.value.retry_after)

    in_virtual_time(main)
    assert told == [1] * 5


def test_sheds_at_the_same_time_are_told_the_same_and_each_is_counted(
    in_virtual_time: Callable[..., Any],
) -> None:
    limiter = ConcurrencyLimiter(1, 0)
    answers: list[int] = []

    async def main() -> None:
        async with limiter:
            for _ in range(40):
                for _ in range(10):
                    with pytest.raises(QueueFullError) as caught:
                        await limiter.acquire()
                answers.append(caught.value.retry_after)
                await anyio.sleep(1)

    in_virtual_time(main)
    assert answers == sorted(answers)
    assert set(answers) == {1, 2, 4, 8, 16, 32}


# As a decorator.


async def test_it_limits_an_async_function() -> None:
    limiter = ConcurrencyLimiter(1, 0)

    @limiter
    async def double(x: int, *, plus: int = 0) -> int:
        """Twice."""
        assert counts(limiter)[0] == 1
        return 2 * x + plus

    assert await double(3, plus=1) == 7
    assert inspect.iscoroutinefunction(double)
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    async with limiter:
        with pytest.raises(QueueFullError):
            await double(1)
    assert counts(limiter) == (0, 0, 2, 2, 0)


async def test_it_limits_methods_partials_and_callable_objects() -> None:
    limiter = ConcurrencyLimiter(1, 0)

    class Model:
        @limiter
        async def predict(self, x: int) -> int:
            return x + counts(limiter)[0]

        async def __call__(self, x: int) -> int:
            return x + counts(limiter)[0]

    assert await Model().predict(1) == 2
    assert await limiter(Model())(1) == 2
    assert await limiter(partial(Model().__call__, 5))() == 6


@pytest.mark.parametrize("thing", [lambda x: x, int, staticmethod(len), [], ConcurrencyLimiter])
async def test_anything_else_is_refused_with_what_to_do(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"is not async.*anyio\.to_thread"):
        ConcurrencyLimiter(1)(thing)


async def test_it_limits_an_async_generator_from_its_first_item_to_its_end() -> None:
    limiter = ConcurrencyLimiter(1, 0)

    @limiter
    async def numbers(n: int) -> AsyncGenerator[int, None]:
        """Count."""
        for i in range(n):
            yield i

    generator = numbers(3)
    assert counts(limiter)[0] == 0
    seen = []
    async for n in generator:
        seen.append(n)
        assert counts(limiter)[0] == 1
    assert seen == [0, 1, 2]
    assert counts(limiter) == (0, 0, 1, 1, 0)
    assert inspect.isasyncgenfunction(numbers)
    assert numbers.__doc__ == "Count."


async def test_a_generator_that_is_closed_early_gives_its_permit_back() -> None:
    limiter = ConcurrencyLimiter(1, 0)
    closed = []

    @limiter
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            while True:
                yield 1
        finally:
            await checkpoint()
            closed.append(counts(limiter)[0])

    async with aclosing(numbers()) as generator:
        await anext(generator)
    assert closed == [1]
    assert counts(limiter) == (0, 0, 1, 1, 0)


async def test_a_generator_is_sent_and_thrown_into_as_without_a_limiter() -> None:
    limiter = ConcurrencyLimiter(1, 0)

    @limiter
    async def echo() -> AsyncGenerator[object, object]:
        said: object = "hello"
        while True:
            try:
                said = yield said
            except LookupError as error:
                said = error

    async with aclosing(echo()) as generator:
        assert await anext(generator) == "hello"
        assert await generator.asend("one") == "one"
        error = LookupError()
        assert await generator.athrow(error) is error
        with pytest.raises(ZeroDivisionError):
            await generator.athrow(ZeroDivisionError())
    assert counts(limiter) == (0, 0, 1, 1, 0)


async def test_a_generator_is_shed_at_its_first_item() -> None:
    limiter = ConcurrencyLimiter(1, 0)

    @limiter
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async with limiter:
        with pytest.raises(QueueFullError):
            await anext(numbers())


# What can be seen.


async def test_its_repr_tells_its_state() -> None:
    limiter = ConcurrencyLimiter(2, math.inf, name="db")
    assert limiter.name == "db"
    permit = await limiter.acquire()
    assert repr(limiter) == "<ConcurrencyLimiter 'db' ongoing=1/2 queued=0/inf>"
    assert repr(permit) == f"<Permit held of {limiter!r}>"
    permit.release()
    assert repr(permit) == "<Permit released of <ConcurrencyLimiter 'db' ongoing=0/2 queued=0/inf>>"
    assert repr(ConcurrencyLimiter(1)) == "<ConcurrencyLimiter ongoing=0/1 queued=0/1>"


async def test_statistics_are_a_frozen_snapshot() -> None:
    limiter = ConcurrencyLimiter(2, 3)
    before = limiter.statistics()
    await limiter.acquire()
    assert before.ongoing == 0
    assert (before.max_ongoing_requests, before.max_queued_requests) == (2, 3)
    assert before.shed["queue_full"] == 0
    assert dataclasses.asdict(limiter.statistics())["shed"] == {}
    with pytest.raises(AttributeError):
        before.ongoing = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_ongoing_requests", 0),
        ("max_ongoing_requests", 2.5),
        ("max_ongoing_requests", "2"),
        ("max_ongoing_requests", True),
        ("max_queued_requests", -1),
        ("max_queued_requests", False),
        ("max_wait", -1),
        ("max_wait", "soon"),
    ],
)
async def test_nonsense_is_refused_by_name_and_changes_nothing(setting: str, value: Any) -> None:
    message = rf"{setting} must be .*, not {value!r}\."
    with pytest.raises(ConfigError, match=message):
        ConcurrencyLimiter(**{"max_ongoing_requests": 1, setting: value})
    limiter = ConcurrencyLimiter(1, 1, max_wait=1)
    with pytest.raises(ConfigError, match=message):
        setattr(limiter, setting, value)
    assert getattr(limiter, setting) == 1


# Where and when it is made and used.


MADE_AT_IMPORT = ConcurrencyLimiter(1, 1, max_wait=1000)


def test_one_made_before_any_event_loop_serves_one_after_the_other() -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            callers = Callers(MADE_AT_IMPORT, tasks)
            await callers.come(3)
            assert callers.states == ["running", "waiting", "shed"]
            callers.all_go()

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(main, backend=backend)
        assert counts(MADE_AT_IMPORT)[:2] == (0, 0)


def test_without_any_event_loop_permits_can_be_had_and_given_back() -> None:
    limiter = ConcurrencyLimiter(1)
    with limiter.acquire_nowait(), pytest.raises(QueueFullError):
        limiter.acquire_nowait()
    assert counts(limiter) == (0, 0, 1, 1, 0)
