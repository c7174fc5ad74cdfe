"""ConcurrencyLimiter where it learns: limits that move, the other order, classes, tenants, cost."""

import contextvars
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import anyio
import pytest
import trio.testing
from anyio.lowlevel import checkpoint

from loadshed import (
    AIMDLimit,
    BackPressureError,
    ConcurrencyLimiter,
    ConfigError,
    Criticality,
    FixedLimit,
    Gradient2Limit,
    KneeLimit,
    Limit,
    Permit,
    QueueFullError,
    RequestTimeoutError,
    VegasLimit,
)
from loadshed._blocks import _innermost

from .helpers import CancelAt, settle

pytestmark = pytest.mark.anyio

USE = Callable[[ConcurrencyLimiter, Callable[[], Awaitable[None]]], Awaitable[None]]


class Told:
    """A limit that notes what it is told, and is what it is set to."""

    reason = "told so"

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.outcomes: list[bool] = []
        self.ongoing: list[float] = []
        self.next: list[float] = []

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        assert seconds >= 0
        self.outcomes.append(ok)
        self.ongoing.append(ongoing)
        if self.next:
            self.limit = self.next.pop(0)


async def in_a_block(limiter: ConcurrencyLimiter, work: Callable[[], Awaitable[None]]) -> None:
    async with limiter:
        await work()


async def in_a_function(limiter: ConcurrencyLimiter, work: Callable[[], Awaitable[None]]) -> None:
    @limiter
    async def function() -> None:
        await work()

    await function()


async def in_a_generator(limiter: ConcurrencyLimiter, work: Callable[[], Awaitable[None]]) -> None:
    @limiter
    async def generator() -> AsyncGenerator[int, None]:
        yield 1
        await work()

    async with aclosing(generator()) as items:
        async for _ in items:
            pass


async def with_a_permit(limiter: ConcurrencyLimiter, work: Callable[[], Awaitable[None]]) -> None:
    with await limiter.acquire():
        await work()


async def with_another_permit(
    limiter: ConcurrencyLimiter, work: Callable[[], Awaitable[None]]
) -> None:
    with await limiter.acquire("sheddable", "a tenant", 2):
        await work()


async def as_often_as_one_likes(
    limiter: ConcurrencyLimiter, work: Callable[[], Awaitable[None]]
) -> None:
    permit = await limiter.acquire()
    try:
        await work()
    finally:
        permit.release()
        permit.release()
        assert permit.released
        assert "released" in repr(permit)


FORMS = [
    in_a_block,
    in_a_function,
    in_a_generator,
    with_a_permit,
    with_another_permit,
    as_often_as_one_likes,
]


def limiters() -> list[ConcurrencyLimiter]:
    return [
        ConcurrencyLimiter(),
        ConcurrencyLimiter(Told(2), 2, max_wait=1000),
        ConcurrencyLimiter(2, 2, order="adaptive_lifo"),
        ConcurrencyLimiter(2, 2, shares={Criticality.CRITICAL: 0.5}),
        ConcurrencyLimiter(2, 2),
    ]


@pytest.mark.parametrize("kind", range(len(limiters())))
@pytest.mark.parametrize("form", FORMS)
async def test_a_permit_comes_back_once_however_its_use_ends(form: USE, kind: int) -> None:
    limiter = limiters()[kind]

    async def fail() -> None:
        raise ValueError("it failed")

    await form(limiter, checkpoint)
    with pytest.raises(ValueError, match="it failed"):
        await form(limiter, fail)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await form(limiter, checkpoint)
    for n in range(1, 20):
        with anyio.CancelScope() as scope:
            cancelling = CancelAt(form(limiter, checkpoint), n, scope.cancel)
            await cancelling
        if cancelling.waits < n:
            break
    seen = limiter.statistics()
    assert (seen.ongoing, seen.slots, seen.queued) == (0, 0, 0)
    assert seen.admitted == seen.completed > 2


@pytest.mark.parametrize("kind", range(len(limiters())))
@pytest.mark.parametrize("form", FORMS)
async def test_whoever_waits_may_be_cancelled_at_each_step(form: USE, kind: int) -> None:
    for n in range(1, 20):
        limiter = limiters()[kind]
        busy = [limiter.acquire_nowait() for _ in range(int(limiter.max_ongoing_requests))]
        scope = anyio.CancelScope()
        waits = 0

        async def use(
            limiter: ConcurrencyLimiter = limiter, n: int = n, scope: anyio.CancelScope = scope
        ) -> None:
            nonlocal waits
            with scope:
                cancelling = CancelAt(form(limiter, checkpoint), n, scope.cancel)
                await cancelling
            waits = cancelling.waits

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use)
            await settle()
            for permit in busy:
                permit.release()
        seen = limiter.statistics()
        assert (seen.ongoing, seen.slots, seen.queued) == (0, 0, 0)
        assert seen.admitted == seen.completed
        if waits < n:
            return


async def test_the_permit_of_one_that_was_cancelled_as_its_turn_came_goes_to_the_next() -> None:
    limiter = ConcurrencyLimiter(Told(1), 5, order="fifo")
    first = await limiter.acquire()
    done: list[str] = []

    async def use(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            async with limiter:
                done.append(name)

    async with anyio.create_task_group() as tasks:
        scopes = [anyio.CancelScope(), anyio.CancelScope()]
        for name, scope in zip("ab", scopes, strict=True):
            tasks.start_soon(use, name, scope)
            await settle()
        scopes[0].cancel()
        first.release()
    assert done == ["b"]
    assert limiter.statistics().abandoned == 1
    assert limiter.statistics().ongoing == 0


# What it learns.


async def test_it_is_told_of_what_was_in_vain_and_what_was_not() -> None:
    limit = Told(10)
    limiter = ConcurrencyLimiter(limit)

    async def fail(error: Exception) -> None:
        raise error

    expected = []
    for form in FORMS:
        await form(limiter, checkpoint)
        expected.append(True)
        for error, ok in [
            (ValueError(), True),
            (TimeoutError(), False),
            (RequestTimeoutError(1), False),
            (BackPressureError(), False),
        ]:
            with pytest.raises(type(error)):
                await form(limiter, lambda error=error: fail(error))  # type: ignore[misc]
            expected.append(ok or form is as_often_as_one_likes)  # it does not tell of errors
        with anyio.CancelScope() as scope:
            scope.cancel()
            await form(limiter, checkpoint)
        expected.append(form is as_often_as_one_likes)
    assert limit.outcomes == expected


async def test_it_is_told_what_only_the_caller_knows() -> None:
    limit = Told(1)
    limiter = ConcurrencyLimiter(limit)
    with await limiter.acquire() as permit:
        permit.overloaded()
        assert limiter.statistics().ongoing == 1
    with await limiter.acquire() as permit:
        permit.ignore()
        assert limiter.statistics().ongoing == 1
    permit = limiter.acquire_nowait()
    permit.ignore()
    permit.__exit__(None, TimeoutError(), None)
    permit = limiter.acquire_nowait()
    permit.overloaded()
    permit.release()
    assert limit.outcomes == [False, False]
    assert limiter.statistics().completed == 4


async def test_a_limiter_that_learns_nothing_may_be_told_as_well() -> None:
    limiter = ConcurrencyLimiter(1)
    with await limiter.acquire() as permit:
        permit.overloaded()
        permit.ignore()
    assert limiter.statistics().completed == 1


async def test_somebody_who_waits_counts_as_a_full_house() -> None:
    limit = Told(4)
    limiter = ConcurrencyLimiter(limit)
    three = await limiter.acquire(cost=3)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(with_another_permit, limiter, checkpoint)
        await settle()
        assert limiter.statistics().queued == 2
        three.release()
    assert limit.ongoing[0] == 4


async def test_a_limit_that_rises_wakes_who_waits() -> None:
    limit = Told(1)
    limit.next = [3]
    limiter = ConcurrencyLimiter(limit)
    first = await limiter.acquire()
    async with anyio.create_task_group() as tasks:
        done = anyio.Event()
        for _ in range(4):
            tasks.start_soon(with_a_permit, limiter, done.wait)
        await settle()
        assert limiter.statistics().queued == 4
        first.release()
        await settle()
        seen = limiter.statistics()
        assert (seen.ongoing, seen.queued, seen.max_ongoing_requests) == (3, 1, 3)
        assert seen.limit_reason == "told so"
        done.set()
    assert limiter.statistics().ongoing == 0


async def test_a_limit_that_falls_drains() -> None:
    limit = Told(3)
    limit.next = [1]
    limiter = ConcurrencyLimiter(limit)
    permits = [limiter.acquire_nowait() for _ in range(3)]
    permits.pop().release()
    assert limiter.max_ongoing_requests == 1
    assert limiter.statistics().ongoing == 2
    with pytest.raises(QueueFullError):
        limiter.acquire_nowait()
    for permit in permits:
        permit.release()
    limiter.acquire_nowait().release()


async def test_the_queue_follows_the_limit() -> None:
    limiter = ConcurrencyLimiter(Told(20))
    assert limiter.max_queued_requests == 40
    limiter.max_ongoing_requests = FixedLimit(3)
    assert limiter.max_queued_requests == 10
    limiter.max_queued_requests = 7
    limiter.max_ongoing_requests = 30
    assert (limiter.max_ongoing_requests, limiter.max_queued_requests) == (30, 7)
    limiter.max_queued_requests = None
    assert limiter.max_queued_requests == 60
    assert isinstance(limiter.limit, FixedLimit)


async def test_who_has_no_queue_tells_the_limit() -> None:
    limit = KneeLimit()
    limiter = ConcurrencyLimiter(limit, 0)
    without = limit.has_queue
    limiter.max_queued_requests = 5
    assert (without, limit.has_queue) == (False, True)
    assert limiter.limit is limit


@pytest.mark.parametrize("form", FORMS[:-1])
async def test_permits_that_are_out_come_back_when_the_limiter_has_begun_to_learn(
    form: USE,
) -> None:
    limiter = ConcurrencyLimiter(3)
    async with anyio.create_task_group() as tasks:
        done = anyio.Event()
        tasks.start_soon(form, limiter, done.wait)  # type: ignore[arg-type]
        await settle()
        limiter.max_ongoing_requests = limit = Told(3)
        tasks.start_soon(form, limiter, done.wait)  # type: ignore[arg-type]
        await settle()
        done.set()
        await settle()
        limiter.max_ongoing_requests = 3
        tasks.start_soon(form, limiter, done.wait)  # type: ignore[arg-type]
    seen = limiter.statistics()
    assert (seen.ongoing, seen.slots, seen.admitted, seen.completed) == (0, 0, 3, 3)
    assert limit.outcomes.count(True) == len(limit.outcomes) >= 1


async def test_blocks_may_be_left_in_another_context_or_order() -> None:
    limit = Told(5)
    limiter, other = ConcurrencyLimiter(limit), ConcurrencyLimiter(Told(5))
    stack, stacks = AsyncExitStack(), [AsyncExitStack(), AsyncExitStack()]
    await stacks[1].enter_async_context(limiter)
    await stack.enter_async_context(limiter)
    await stacks[0].enter_async_context(other)
    await stack.aclose()
    await stacks[0].aclose()
    await stacks[1].aclose()
    assert limit.outcomes == [True, True]

    await limiter.__aenter__()

    async def leave() -> None:
        await limiter.__aexit__(None, None, None)

    steps = leave()
    with pytest.raises(StopIteration):
        contextvars.Context().run(steps.send, None)
    assert limit.outcomes == [True, True]  # it is not known how long it was held
    assert (limiter.statistics().completed, limiter.statistics().ongoing) == (3, 0)


async def test_a_block_that_is_left_in_another_context_wakes_who_waits() -> None:
    limiter = ConcurrencyLimiter(Told(1))
    await limiter.__aenter__()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_a_block, limiter, checkpoint)
        await settle()
        steps = limiter.__aexit__(None, None, None)
        with pytest.raises(StopIteration):
            contextvars.Context().run(steps.send, None)
    assert limiter.statistics().completed == 2


# The order.


class Line:
    """Callers that wait for the one permit of a limiter, and note in what order they get it."""

    def __init__(self, limiter: ConcurrencyLimiter, tasks: anyio.abc.TaskGroup) -> None:
        self.limiter = limiter
        self.tasks = tasks
        self.served: list[str] = []
        self.shed: dict[str, BackPressureError] = {}

    async def come(self, *names: str, **options: Any) -> None:
        for name in names:
            self.tasks.start_soon(self._use, name, options)
            await settle()

    async def _use(self, name: str, options: dict[str, Any]) -> None:
        try:
            with await self.limiter.acquire(**options):
                self.served.append(name)
        except BackPressureError as error:
            self.shed[name] = error


async def test_with_a_number_it_is_first_in_first_out() -> None:
    limiter = ConcurrencyLimiter(1, 3)
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        with await limiter.acquire():
            await line.come(*"abcd")
    assert line.served == ["a", "b", "c"]
    assert line.shed["d"].reason == "queue_full"


def test_a_line_that_was_busy_for_longer_than_a_request_takes_is_last_in_first_out() -> None:
    async def main() -> None:
        limiter = ConcurrencyLimiter(1, 3, order="adaptive_lifo")
        with await limiter.acquire():
            await anyio.sleep(1)  # that is how long a request takes
        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            with await limiter.acquire():
                await line.come(*"abcd")
                assert line.shed["d"].reason == "queue_full"  # it is not congested yet
                await anyio.sleep(2)
                await line.come("e")
                assert line.shed["a"].reason == "displaced"
                assert "reason=displaced" in str(line.shed["a"])
                assert isinstance(line.shed["a"], QueueFullError)
        assert line.served == ["e", "c", "b"]
        assert limiter.statistics().shed == {"queue_full": 1, "displaced": 1}

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_higher_classes_go_first_and_take_the_places_of_lower_ones() -> None:
    limiter = ConcurrencyLimiter(1, 4)
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        with await limiter.acquire():
            await line.come("s1", "s2", priority=Criticality.SHEDDABLE)
            await line.come("p1", priority="sheddable_plus")
            await line.come("c1")
            await line.come("c2", priority="CRITICAL")
            await line.come("cp", priority=Criticality.CRITICAL_PLUS)
            await line.come("s3", priority=Criticality.SHEDDABLE)
    assert line.served == ["cp", "c1", "c2", "p1"]
    assert {name: error.reason for name, error in line.shed.items()} == {
        "s1": "displaced",
        "s2": "displaced",
        "s3": "queue_full",
    }


async def test_tenants_take_turns() -> None:
    limiter = ConcurrencyLimiter(1, 10, tenant_share=0.4)
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        with await limiter.acquire():
            await line.come("a1", "a2", "a3", "a4", "a5", tenant="a")
            await line.come("b1", "b2", tenant="b")
            await line.come("c1", tenant=("c", 1))
    assert line.served == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    assert line.shed["a5"].reason == "queue_full"


async def test_what_costs_more_takes_more() -> None:
    limiter = ConcurrencyLimiter(4, 10)
    with await limiter.acquire(cost=3):
        assert limiter.statistics().slots == 3
        assert limiter.statistics().ongoing == 1
        assert "ongoing=3/4" in repr(limiter)
        with pytest.raises(QueueFullError):
            limiter.acquire_nowait(cost=2)
        with await limiter.acquire():
            pass
        async with anyio.create_task_group() as tasks:
            line = Line(limiter, tasks)
            await line.come("two", cost=2)
            await line.come("one")
            assert line.served == []  # the small one does not overtake
            with pytest.raises(QueueFullError):
                limiter.acquire_nowait()
            await line.come("important", priority="critical_plus")
            assert line.served == ["important"]
            tasks.cancel_scope.cancel()
    assert limiter.statistics().slots == 0
    with await limiter.acquire(cost=100):
        assert limiter.statistics().slots == 4


async def test_a_class_gets_its_share() -> None:
    limiter = ConcurrencyLimiter(2, 10, shares={"SHEDDABLE": 0.5})  # type: ignore[dict-item]
    permits = [await limiter.acquire() for _ in range(2)]  # all of it is lent
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        await line.come("c1", "c2")
        await line.come("s1", "s2", priority="sheddable")
        permits.pop().release()
        await settle()
        assert line.served[0] == "s1"
        permits.pop().release()
    assert sorted(line.served) == ["c1", "c2", "s1", "s2"]


# Settings.


@pytest.mark.parametrize(
    "limit", [AIMDLimit(), VegasLimit(), Gradient2Limit(), KneeLimit(), FixedLimit(3)]
)
async def test_every_limit_is_one(limit: Limit) -> None:
    assert isinstance(limit, Limit)
    limiter = ConcurrencyLimiter(limit)
    async with limiter:
        pass
    assert limiter.statistics().completed == 1
    assert limiter.max_ongoing_requests == limit.limit


async def test_bounds_hold_for_the_limit_that_is_found() -> None:
    assert ConcurrencyLimiter().max_ongoing_requests == 10
    assert ConcurrencyLimiter(lowest=20).max_ongoing_requests == 20
    assert ConcurrencyLimiter(highest=4).max_ongoing_requests == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_ongoing_requests": "many"}, "max_ongoing_requests must be .*a Limit.*'many'"),
        ({"max_ongoing_requests": 0}, "max_ongoing_requests must be a whole number >= 1.* not 0"),
        ({"max_ongoing_requests": KneeLimit}, "max_ongoing_requests must be"),
        ({"max_ongoing_requests": Told(0.5)}, "limit must be a whole number"),
        ({"order": "lifo"}, "order must be 'fifo' or 'adaptive_lifo', or None, not 'lifo'"),
        ({"order": []}, "order must be"),
        ({"shares": 0.5}, "shares must be a mapping"),
        ({"shares": {"CRITICAL": 0}}, "shares must be"),
        ({"shares": {"CRITICAL": True}}, "shares must be"),
        ({"shares": {"CRITICAL": math.nan}}, "shares must be"),
        ({"shares": {"URGENT": 0.5}}, "shares must be"),
        ({"shares": {5: 0.5}}, "shares must be"),
        ({"shares": {"CRITICAL": 0.6, "SHEDDABLE": 0.5}}, "shares must be"),
        ({"max_tenants": 0}, "max_tenants must be a whole number >= 1, not 0"),
        ({"tenant_share": 0}, "tenant_share must be"),
        ({"tenant_share": 1.5}, "tenant_share must be"),
        ({"lowest": 0}, "lowest must be"),
        ({"highest": "x"}, "highest must be"),
        ({"lowest": 5, "highest": 4}, "must be"),
        ({"max_ongoing_requests": 4, "lowest": 2}, "lowest must be left out"),
        ({"max_ongoing_requests": 4, "highest": 8}, "highest must be left out"),
    ],
)
def test_nonsense_is_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConcurrencyLimiter(**settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": "urgent"}, "priority must be a Criticality, .* not 'urgent'"),
        ({"priority": 2}, "priority must be"),
        ({"priority": None}, "priority must be"),
        ({"cost": 0}, "cost must be a whole number >= 1, not 0"),
        ({"cost": 1.5}, "cost must be"),
        ({"cost": math.inf}, "cost must be"),
    ],
)
async def test_nonsense_is_refused_and_takes_no_permit(
    options: dict[str, Any], message: str
) -> None:
    for limiter in (ConcurrencyLimiter(), ConcurrencyLimiter(1)):
        with pytest.raises(ConfigError, match=message):
            await limiter.acquire(**options)
        with pytest.raises(ConfigError, match=message):
            limiter.acquire_nowait(**options)
        with pytest.raises(ConfigError, match=r"tenant must be anything hashable, not \[\]"):
            await limiter.acquire(tenant=[])  # type: ignore[arg-type]
        assert limiter.statistics().admitted == 0


def test_no_number_is_no_number_to_set() -> None:
    limiter = ConcurrencyLimiter()
    with pytest.raises(ConfigError, match="max_ongoing_requests must be"):
        limiter.max_ongoing_requests = None  # type: ignore[assignment]


class Faulty(Told):
    """A limit with a mistake in it."""

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        super().observe(now, seconds, ok, ongoing)
        raise ZeroDivisionError


class Broken(Told):
    """A limit that can't be read any more."""

    @property
    def limit(self) -> float:
        if self.outcomes:
            raise ZeroDivisionError
        return 2

    @limit.setter
    def limit(self, limit: float) -> None:
        pass


@pytest.mark.parametrize("nonsense", [0, -1, math.nan, "ten", None, Faulty, Broken])
async def test_a_limit_with_a_mistake_costs_no_permit(
    nonsense: Any, caplog: pytest.LogCaptureFixture
) -> None:
    limit: Told = nonsense(2) if isinstance(nonsense, type) else Told(2)
    limit.next = [nonsense] * 10
    limiter = ConcurrencyLimiter(limit)
    assert limiter.limit is limit

    async def work() -> None:
        async with limiter:
            await checkpoint()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(work)
    seen = limiter.statistics()
    assert (seen.ongoing, seen.queued, seen.completed) == (0, 0, 8)
    assert seen.max_ongoing_requests == limiter.max_ongoing_requests == 2
    assert len(limit.outcomes) == 8
    (record,) = caplog.records
    assert "It stays as it was" in record.getMessage()
    assert repr(limit) in record.getMessage()


class Silent(Told):
    """A limit that can't say why any more."""

    @property
    def reason(self) -> str:
        if self.outcomes:
            raise ZeroDivisionError
        return "none"

    @reason.setter
    def reason(self, reason: str) -> None:
        pass


async def test_statistics_can_be_had_of_a_limit_that_can_not_say_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter = ConcurrencyLimiter(Silent(2))
    assert limiter.statistics().limit_reason == "none"
    async with limiter:
        pass
    for _ in range(2):
        assert limiter.statistics().limit_reason == ""
    (record,) = caplog.records
    assert "failed: ZeroDivisionError()" in record.getMessage()


async def test_a_task_that_waits_again_and_again_keeps_nothing_of_it() -> None:
    limiter = ConcurrencyLimiter(1)
    kept = []
    async with anyio.create_task_group() as tasks:

        async def wait_again_and_again() -> None:
            for _ in range(5):
                permit = await limiter.acquire()
                tasks.start_soon(release_soon, permit)
                async with limiter:
                    kept.append(_innermost.get())

        async def release_soon(permit: Permit) -> None:
            permit.release()

        tasks.start_soon(wait_again_and_again)
    assert kept == [kept[0]] * 5
    assert limiter.statistics().completed == 10


async def test_a_class_gets_its_slots_back_from_a_block_that_is_left_elsewhere() -> None:
    limiter = ConcurrencyLimiter(4, shares={Criticality.CRITICAL: 0.5})
    lane = limiter._admission.line.lane(Criticality.CRITICAL)

    async def elsewhere(step: Callable[[], Awaitable[None]]) -> None:
        await step()

    async def leave() -> None:
        await limiter.__aexit__(None, None, None)

    async with limiter:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere, limiter.__aenter__)
        assert lane.ongoing == 2
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere, leave)  # it finds the block around it all
        assert lane.ongoing == 1
    assert lane.ongoing == 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(elsewhere, limiter.__aenter__)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(elsewhere, leave)
    assert lane.ongoing == 0
    assert (limiter.statistics().ongoing, limiter.statistics().completed) == (0, 3)


@pytest.mark.parametrize("cost", [1000, 10**30, 10**400])
async def test_what_costs_more_than_there_is_counts_for_what_it_takes(cost: int) -> None:
    limiter = ConcurrencyLimiter(2, math.inf)
    async with anyio.create_task_group() as tasks:
        line = Line(limiter, tasks)
        with await limiter.acquire(cost=2):
            await line.come("huge", tenant="a", cost=cost)
            await line.come("a1", "a2", tenant="a")
            await line.come("b1", "b2", "b3", "b4", "b5", tenant="b")
    assert line.served[0] == "huge"
    assert line.served.index("a1") <= 4  # those who get theirs together run in any order on trio
    seen = limiter.statistics()
    assert (seen.ongoing, seen.slots, seen.queued, seen.completed) == (0, 0, 0, 9)


def test_somebody_elses_limit_is_shown_as_it_is() -> None:
    limit = Told(3)
    limiter = ConcurrencyLimiter(limit)
    assert limiter.limit is limit
    assert repr(limiter._admission.rule) == repr(limit)
