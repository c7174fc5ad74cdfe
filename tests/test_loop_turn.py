"""LoopTurn: where handlers compute and never wait, on asyncio and trio, in virtual time."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio.lowlevel import checkpoint

from loadshed import BackPressureError, ConcurrencyLimiter, QueueFullError
from loadshed._clock import FineClock
from loadshed._loop_turn import AT_ONCE, DEAR, LONGEST, LoopTurn
from loadshed._sleeper import Sleeper

from .helpers import settle
from .simulation.event_loop import VirtualLoop, run

Compute = Callable[[float], None]
Main = Callable[[Compute], Awaitable[None]]


def on_asyncio(main: Main) -> None:
    async def in_loop(loop: Any) -> None:
        await main(loop.compute)

    run(in_loop)


def on_trio(main: Main) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, clock.jump, clock=clock)


@pytest.fixture(params=[on_asyncio, on_trio])
def anywhere(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    return request.param  # type: ignore[no-any-return]


class Handlers:
    """Requests that compute, all of which come in the same turn."""

    def __init__(self, limiter: ConcurrencyLimiter, compute: Compute, seconds: float) -> None:
        self.limiter = limiter
        self.compute = compute
        self.seconds = seconds
        self.served: list[int] = []
        self.shed: list[str] = []
        self.most = 0

    async def one(self, name: int) -> None:
        self.most = max(self.most, self.limiter.statistics().queued)
        try:
            async with self.limiter:
                self.compute(self.seconds)
                self.served.append(name)
        except BackPressureError as error:
            self.shed.append(error.reason)

    async def come(self, count: int) -> None:
        async with anyio.create_task_group() as tasks:
            for name in range(count):
                tasks.start_soon(self.one, name)


def test_what_is_too_much_for_one_turn_waits_for_the_next(
    anywhere: Callable[[Main], None],
) -> None:
    async def main(compute: Compute) -> None:
        limiter = ConcurrencyLimiter()
        handlers = Handlers(limiter, compute, LONGEST)
        await handlers.come(10)
        assert sorted(handlers.served) == list(range(10))
        assert handlers.most > 0  # though no more than one of them ever ran
        assert limiter.statistics().ongoing == 0
        assert limiter.statistics().completed == 10

    anywhere(main)


def test_what_is_over_soon_does_not_wait(anywhere: Callable[[Main], None]) -> None:
    async def main(compute: Compute) -> None:
        limiter = ConcurrencyLimiter()
        handlers = Handlers(limiter, compute, DEAR / 2)
        await handlers.come(500)
        assert len(handlers.served) == 500
        assert handlers.shed == []

    anywhere(main)


def test_more_than_the_next_turns_can_take_is_shed(anywhere: Callable[[Main], None]) -> None:
    async def main(compute: Compute) -> None:
        limiter = ConcurrencyLimiter()
        handlers = Handlers(limiter, compute, 1.0)
        await handlers.come(100)
        assert set(handlers.shed) <= {"loop_lag", "queue_full", "displaced"}
        assert len(handlers.shed) > 50
        assert len(handlers.served) + len(handlers.shed) == 100
        assert limiter.statistics().ongoing == limiter.statistics().queued == 0

    anywhere(main)


def test_who_may_not_wait_is_shed_and_told_why(anywhere: Callable[[Main], None]) -> None:
    async def main(compute: Compute) -> None:
        limiter = ConcurrencyLimiter(None, 0)
        handlers = Handlers(limiter, compute, 2 * LONGEST)
        await handlers.come(3)
        assert len(handlers.served) == 1
        assert handlers.shed == ["loop_lag", "loop_lag"]
        await settle()
        async with limiter:  # the next turn is another matter
            pass

    anywhere(main)


def test_a_task_by_itself_is_never_shed(anywhere: Callable[[Main], None]) -> None:
    async def main(compute: Compute) -> None:
        limiter = ConcurrencyLimiter()
        for _ in range(50):
            async with limiter:
                compute(2 * LONGEST)
            limiter.acquire_nowait().release()
        assert limiter.statistics().completed == 100

    anywhere(main)


def test_a_fixed_limit_does_not_look_at_the_loop(anywhere: Callable[[Main], None]) -> None:
    async def main(compute: Compute) -> None:
        handlers = Handlers(ConcurrencyLimiter(1, 0), compute, 1.0)
        await handlers.come(20)
        assert len(handlers.served) == 20

    anywhere(main)


def test_who_waits_for_the_next_turn_may_be_cancelled(anywhere: Callable[[Main], None]) -> None:
    async def main(compute: Compute) -> None:
        limiter = ConcurrencyLimiter()
        handlers = Handlers(limiter, compute, LONGEST * 2)
        async with anyio.create_task_group() as tasks:
            for name in range(10):
                tasks.start_soon(handlers.one, name)
            for _ in range(6):
                await checkpoint()
            assert 0 < len(handlers.served) < 10
            tasks.cancel_scope.cancel()
        seen = limiter.statistics()
        assert (seen.ongoing, seen.queued) == (0, 0)
        assert seen.completed == len(handlers.served)
        async with limiter:
            pass
        for _ in range(10):
            limiter.acquire_nowait()
        with pytest.raises(QueueFullError):
            limiter.acquire_nowait()

    anywhere(main)


def test_those_who_have_a_permit_begin_in_order_and_one_in_each_turn_at_least(
    anywhere: Callable[[Main], None],
) -> None:
    async def main(compute: Compute) -> None:
        order: list[int] = []
        clock = FineClock()
        turn = LoopTurn(clock, lambda: None)

        async def begin(name: int) -> None:
            await turn.until_there_is_time(lambda: None)
            compute(2 * LONGEST)
            order.append(name)

        async def disturb() -> None:
            while len(order) < 10:
                turn.is_late(clock.now())
                compute(2 * LONGEST)
                await checkpoint()

        with anyio.fail_after(1000):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(disturb)
                await checkpoint()
                for name in range(10):
                    tasks.start_soon(begin, name)
                    await checkpoint()
        assert order == list(range(10))

    anywhere(main)


def test_it_begins_anew_in_another_loop(anywhere: Callable[[Main], None]) -> None:
    limiter = ConcurrencyLimiter()

    async def main(compute: Compute) -> None:
        compute(100.0)
        with await limiter.acquire():
            compute(100.0)
        # the loop ends here, and with it the turn has no end

    for _ in range(3):
        anywhere(main)
    assert limiter.statistics().completed == 3
    assert limiter.statistics().shed == {}


def test_the_end_of_a_turn_of_a_loop_that_was_left_meanwhile_ends_no_other() -> None:
    ended: list[int] = []
    clock = FineClock()
    turn = LoopTurn(clock, lambda: ended.append(1))

    async def come(loop: VirtualLoop) -> None:
        assert not turn.is_late(clock.now())
        turn._end(object())
        loop.compute(2 * LONGEST)
        assert turn.is_late(clock.now())
        assert ended == []
        turn._end(loop)
        assert not turn.is_late(clock.now())
        assert ended == [1]

    run(come)


@pytest.mark.parametrize("steps", range(8))
def test_those_whose_loop_was_closed_hold_up_nobody_in_the_next(steps: int) -> None:
    limiter = ConcurrencyLimiter()

    async def compute() -> None:
        async with limiter:
            loop.compute(LONGEST * 1.1)

    async def come() -> None:
        tasks.extend(asyncio.ensure_future(compute()) for _ in range(12))
        for _ in range(steps):
            await asyncio.sleep(0)

    tasks: list[asyncio.Future[None]] = []
    loop = VirtualLoop()
    loop.run_until_complete(come())
    loop.close()
    tasks.clear()  # those that were about to begin end by this; who waits is known to the limiter

    async def come_later(_: VirtualLoop) -> None:
        async with asyncio.timeout(5):
            async with limiter:
                pass

    run(come_later)
    seen = limiter.statistics()
    assert (seen.ongoing, seen.queued) == (0, 0)


def test_nobody_waits_for_a_turn_for_longer_than_it_may(
    anywhere: Callable[[Main], None],
) -> None:
    async def main(compute: Compute) -> None:
        limiter = ConcurrencyLimiter(max_wait=LONGEST * 5, max_queued_requests=100)
        handlers = Handlers(limiter, compute, LONGEST * 2)
        await handlers.come(10)
        assert 2 <= len(handlers.served) <= 4
        assert handlers.shed == ["queue_timeout"] * (10 - len(handlers.served))
        seen = limiter.statistics()
        assert (seen.ongoing, seen.queued) == (0, 0)
        assert seen.admitted == seen.completed == len(handlers.served)
        assert seen.shed == {"queue_timeout": len(handlers.shed)}

    anywhere(main)


def test_only_a_few_of_many_are_woken_in_each_turn(
    anywhere: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[Sleeper] = []
    wake = Sleeper.wake

    def noted(sleeper: Sleeper) -> bool:
        woken.append(sleeper)
        return wake(sleeper)

    monkeypatch.setattr(Sleeper, "wake", noted)

    async def main(compute: Compute) -> None:
        order: list[int] = []
        turn = LoopTurn(FineClock(), lambda: None)

        async def begin(name: int) -> None:
            await turn.until_there_is_time(lambda: None)
            compute(2 * LONGEST)
            order.append(name)

        async with anyio.create_task_group() as tasks:
            for name in range(8 * AT_ONCE):
                tasks.start_soon(begin, name)
                if name < 5:
                    await checkpoint()
        assert sorted(order) == list(range(8 * AT_ONCE))

    anywhere(main)
    assert len(woken) <= 2 * 8 * AT_ONCE * AT_ONCE


@pytest.mark.parametrize("has_trio", [True, False])
def test_where_no_loop_runs_there_are_no_turns(
    has_trio: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_trio:
        monkeypatch.delitem(sys.modules, "trio")
    limiter = ConcurrencyLimiter()
    with pytest.raises(StopIteration) as caught:
        limiter.acquire().send(None)
    assert limiter.statistics().ongoing == 1
    caught.value.value.release()
    assert limiter.statistics().ongoing == 0


def test_those_of_a_loop_that_rests_meanwhile_go_on_when_it_does() -> None:
    limiter = ConcurrencyLimiter()
    loops = [VirtualLoop(), VirtualLoop()]
    served: list[int] = []

    async def handle(name: int) -> None:
        async with limiter:
            loops[0].compute(LONGEST * 2)
            served.append(name)

    async def come() -> None:
        tasks.extend(asyncio.ensure_future(handle(name)) for name in range(8))
        for _ in range(5):
            await asyncio.sleep(0)
        assert limiter._turn._postponed

    async def come_elsewhere() -> None:
        async with limiter:
            pass

    async def finish() -> None:
        await asyncio.gather(*tasks)

    tasks: list[asyncio.Future[None]] = []
    loops[0].run_until_complete(come())
    assert len(served) < 8
    loops[1].run_until_complete(come_elsewhere())
    loops[0].run_until_complete(finish())
    assert sorted(served) == list(range(8))
    seen = limiter.statistics()
    assert (seen.ongoing, seen.queued, seen.completed) == (0, 0, 9)
    for loop in loops:
        loop.close()
