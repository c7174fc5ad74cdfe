"""The clocks: in threads, on asyncio, uvloop and trio, and in virtual time."""

import asyncio
import gc
import sys
import threading
import time
from typing import Any

import anyio
import pytest
import trio
import trio.testing
import uvloop
from anyio.lowlevel import checkpoint

from loadshed import _clock
from loadshed._clock import Clock, FineClock, SharedClock

SOON = 5.0
"""Seconds that no test takes."""

KINDS = [Clock, FineClock, SharedClock]


def is_about(moment: float) -> Any:
    return pytest.approx(moment, abs=SOON)


def test_where_no_loop_runs_it_is_the_threads_time() -> None:
    for kind in KINDS:
        assert kind().now() == is_about(time.monotonic())


@pytest.mark.parametrize("missing", [["asyncio"], ["anyio"], ["asyncio", "anyio"]])
def test_what_nobody_has_imported_is_not_asked(
    missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in missing:
            patch.delitem(sys.modules, name)
        moments = [kind().now() for kind in KINDS]
        assert not set(missing) & set(sys.modules)
    assert moments == [is_about(time.monotonic())] * len(KINDS)


@pytest.mark.anyio
async def test_a_clock_has_the_time_of_the_loop() -> None:
    clock = Clock()
    before = anyio.current_time()
    moments = [clock.now(), clock.now()]
    assert before <= moments[0] <= moments[1] <= anyio.current_time()


@pytest.mark.anyio
async def test_a_shared_clock_has_the_time_of_the_threads_on_every_loop() -> None:
    clock = SharedClock()
    assert clock.now() == is_about(time.monotonic())
    assert await anyio.to_thread.run_sync(SharedClock().now) == is_about(clock.now())
    assert SharedClock().now() == is_about(time.monotonic())


@pytest.mark.anyio
async def test_it_never_goes_back_in_a_loop() -> None:
    clock = SharedClock()
    moments = []
    for _ in range(100):
        moments += [clock.now(), SharedClock().now()]
        await checkpoint()
    assert moments == sorted(moments)


def test_in_virtual_time_a_shared_clock_begins_where_the_threads_is_and_goes_on_as_trio_does() -> (
    None
):
    async def main() -> None:
        clock = SharedClock()
        begin = clock.now()
        assert begin == is_about(time.monotonic())
        await trio.sleep(1000)
        assert clock.now() == pytest.approx(begin + 1000)
        assert SharedClock().now() == pytest.approx(begin + 1000)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_test_can_put_another_time_in_the_place_of_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> list[float]:
        moments = [SharedClock().now()]
        await trio.sleep(5)
        return [*moments, SharedClock().now()]

    monkeypatch.setattr(_clock, "thread_time", lambda: 42.0)
    assert [kind().now() for kind in KINDS] == [42] * len(KINDS)
    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == [42, 47]


def test_each_run_of_trio_begins_anew() -> None:
    """However far ahead the one before was."""

    async def main() -> float:
        await trio.sleep(1000)
        began = SharedClock().now()
        await trio.sleep(1000)
        return SharedClock().now() - began

    for _ in range(2):
        clock = trio.testing.MockClock(autojump_threshold=0)
        assert trio.run(main, clock=clock) == pytest.approx(1000)
        assert SharedClock().now() == is_about(time.monotonic())


def test_one_clock_goes_from_loop_to_loop() -> None:
    """As the clock of a transport does that is made once, and used by several runs."""

    async def look(clock: Clock) -> float:
        await checkpoint()
        return clock.now()

    for kind in KINDS:
        clock = kind()
        assert asyncio.run(look(clock)) == is_about(time.monotonic())
        assert clock.now() == is_about(time.monotonic())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(look(clock)) == is_about(time.monotonic())
        virtual = trio.run(look, clock, clock=trio.testing.MockClock())
        assert virtual == (is_about(time.monotonic()) if kind is SharedClock else 0)
        assert asyncio.run(look(clock)) == is_about(time.monotonic())
        gc.collect()


def test_two_loops_in_two_threads_have_the_same_time() -> None:
    found: list[float] = []

    async def look() -> None:
        found.append(SharedClock().now())

    before = time.monotonic()
    for run in (lambda: asyncio.run(look()), lambda: trio.run(look)):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert found == [is_about(before)] * 2


@pytest.mark.anyio
@pytest.mark.parametrize("is_known", [True, False])
async def test_it_moves_on_after_so_many_seconds(is_known: bool) -> None:
    clock = SharedClock()
    if is_known:
        clock.now()
    with clock.move_on_after(0.001) as scope:
        await anyio.sleep(60)
    assert scope.cancelled_caught
    with clock.move_on_after(60) as scope:
        await checkpoint()
    assert not scope.cancel_called
    assert 0 < scope.deadline - anyio.current_time() <= 60
    with clock.move_on_after(float("inf")) as scope:
        await checkpoint()
    assert scope.deadline == float("inf")


@pytest.mark.anyio
async def test_no_seconds_are_over_at_the_next_wait() -> None:
    clock = SharedClock()
    clock.now()
    with clock.move_on_after(0) as scope:
        await anyio.sleep(60)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_its_scope_is_anyios() -> None:
    clock = SharedClock()
    clock.now()
    with clock.move_on_after(60) as scope:
        assert type(scope) is type(anyio.move_on_after(60))
        with anyio.move_on_after(0.001) as inner, clock.move_on_after(60) as innermost:
            await anyio.sleep(60)
        assert (inner.cancelled_caught, innermost.cancelled_caught) == (True, False)


def test_in_virtual_time_it_moves_on_after_so_many_seconds_of_that() -> None:
    async def main() -> None:
        clock = SharedClock()
        begin = clock.now()
        with clock.move_on_after(100) as scope:
            await trio.sleep(1000)
        assert scope.cancelled_caught
        assert clock.now() == pytest.approx(begin + 100)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_is_not_async_reads_the_time_where_a_test_can_change_it() -> None:
    before = time.monotonic()
    _clock.thread_sleep(0.001)
    assert before < _clock.thread_time() == is_about(before)
    assert _clock.wall_time() == pytest.approx(time.time(), abs=SOON)


def test_a_fine_clock_tells_moments_apart_that_are_the_same_to_uvloop() -> None:
    async def run() -> None:
        clock, loop = FineClock(), asyncio.get_running_loop()
        before = loop.time()
        moments = {clock.now() for _ in range(100)}
        assert len(moments) > 1
        assert min(moments) == is_about(before)

    uvloop.run(run())
    asyncio.run(run())


def test_a_fine_clock_goes_on_with_the_next_loop() -> None:
    clock = FineClock()

    async def run() -> None:
        assert clock.now() == is_about(time.monotonic())

    for loop in (uvloop.new_event_loop, asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run())
        assert clock.now() == is_about(time.monotonic())


def test_a_fine_clock_has_the_time_of_a_loop_that_has_its_own() -> None:
    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return super().time() + 1_000_000

    clock = FineClock()

    async def run() -> float:
        return clock.now()

    for loop in (uvloop.new_event_loop, Loop):
        with asyncio.Runner(loop_factory=loop) as runner:
            ahead = runner.run(run()) - time.monotonic()
        assert ahead == is_about(1_000_000 if loop is Loop else 0)
