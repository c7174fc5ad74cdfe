"""BoundedQueue on asyncio, uvloop and trio."""

import asyncio
import math
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from loadshed import BoundedQueue, ConfigError, QueueFullError

from .helpers import CancelAt, settle

pytestmark = pytest.mark.anyio


def adds_up(queue: BoundedQueue[Any]) -> bool:
    seen = queue.statistics()
    return seen.put == seen.got + seen.discarded + seen.expired + seen.queued


async def test_first_in_first_out() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3)
    for n in range(3):
        queue.put_nowait(n)
    assert [queue.get_nowait(), await queue.get(), queue.get_nowait()] == [0, 1, 2]
    with pytest.raises(anyio.WouldBlock):
        queue.get_nowait()


async def test_at_its_bound_it_refuses() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2)
    queue.put_nowait(1)
    queue.put_nowait(2)
    with pytest.raises(QueueFullError) as caught:
        queue.put_nowait(3)
    assert (caught.value.num_queued_requests, caught.value.max_queued_requests) == (2, 2)
    assert len(queue) == 2
    assert queue.statistics().refused == 1
    queue.get_nowait()
    queue.put_nowait(3)
    assert adds_up(queue)


async def test_it_can_be_resized() -> None:
    queue: BoundedQueue[int] = BoundedQueue(math.inf)
    for n in range(5):
        queue.put_nowait(n)
    queue.resize(2)
    assert (queue.maxsize, len(queue)) == (2, 5)
    for n in range(4):
        with pytest.raises(QueueFullError):
            queue.put_nowait(9)
        assert queue.get_nowait() == n
    queue.put_nowait(9)
    queue.resize(3)
    queue.put_nowait(10)


async def test_an_entry_can_be_taken_out_of_anywhere_once() -> None:
    queue: BoundedQueue[Any] = BoundedQueue(4)
    items: list[Any] = [[], [], {}, []]
    entries = [queue.put_nowait(item) for item in items]
    assert queue.discard(entries[1])
    assert not queue.discard(entries[1])
    assert queue.get_nowait() is entries[0].item
    assert not queue.discard(entries[0])
    assert not BoundedQueue[Any](1).discard(entries[2])
    assert [queue.get_nowait(), queue.get_nowait()] == [{}, []]
    assert queue.statistics().discarded == 1
    assert repr(entries[2]) == "<Entry {}>"


async def test_a_getter_waits_for_an_item() -> None:
    queue: BoundedQueue[str] = BoundedQueue(1)
    got: list[str] = []

    async def get() -> None:
        got.append(await queue.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get)
        await settle()
        assert queue.statistics().waiting == 1
        queue.put_nowait("x")
    assert got == ["x"]
    assert queue.statistics().waiting == 0


async def test_getters_are_served_in_the_order_in_which_they_came() -> None:
    queue: BoundedQueue[int] = BoundedQueue(10)
    got: list[tuple[int, int]] = []

    async def get(n: int) -> None:
        got.append((n, await queue.get()))

    async with anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(get, n)
            await settle()
        for n in range(5):
            queue.put_nowait(n)
    assert got == [(n, n) for n in range(5)]


async def test_a_getter_that_comes_later_does_not_overtake() -> None:
    queue: BoundedQueue[int] = BoundedQueue(10)
    got: list[str] = []

    async def get(name: str) -> None:
        await queue.get()
        got.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, "first")
        await settle()
        queue.put_nowait(1)
        tasks.start_soon(get, "second")
        await settle()
        queue.put_nowait(2)
    assert got == ["first", "second"]


async def test_a_get_nowait_in_between_leaves_the_getter_waiting() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    got: list[int] = []

    async def get() -> None:
        got.append(await queue.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get)
        await settle()
        queue.put_nowait(1)
        assert queue.get_nowait() == 1
        await settle()
        assert got == []
        queue.put_nowait(2)
    assert got == [2]


@pytest.mark.parametrize("cancel_first", [False, True])
async def test_an_item_is_not_lost_with_a_getter_cancelled_in_the_same_step(
    cancel_first: bool,
) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    got: list[int] = []
    scope = anyio.CancelScope()

    async def get(scope: anyio.CancelScope) -> None:
        with scope:
            got.append(await queue.get())

    async with anyio.create_task_group() as tasks:
        for each in (scope, anyio.CancelScope()):
            tasks.start_soon(get, each)
            await settle()
        if cancel_first:
            scope.cancel()
        queue.put_nowait(1)
        scope.cancel()
        await settle()
        assert got == [1]
        tasks.cancel_scope.cancel()
    assert adds_up(queue)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_plain_asyncio_cancel_loses_no_item(anyio_backend: str) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await settle()
    queue.put_nowait(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == 1


@pytest.mark.parametrize("filled", [False, True])
async def test_cancelling_get_at_any_await_loses_no_item(filled: bool) -> None:
    n, cancelled = 0, True
    while cancelled:
        n += 1
        queue: BoundedQueue[int] = BoundedQueue(5)
        scope = anyio.CancelScope()
        victim = CancelAt(queue.get(), n, scope.cancel)

        got: list[int] = []

        async def run(scope: Any = scope, victim: Any = victim, got: list[int] = got) -> None:
            with scope:
                got.append(await victim)

        if filled:
            queue.put_nowait(7)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await settle()
            if not filled:
                queue.put_nowait(7)
        cancelled = victim.waits >= n
        assert len(queue) + len(got) == 1
        assert adds_up(queue)
        assert queue.statistics().waiting == 0
    assert n > 1


async def test_a_getter_of_a_closed_event_loop_is_passed_over() -> None:
    queue: BoundedQueue[int] = BoundedQueue(5)

    getting = queue.get()

    def leave_a_getter_behind() -> asyncio.Task[int]:
        loop = asyncio.new_event_loop()
        task = loop.create_task(getting)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return task

    left = await anyio.to_thread.run_sync(leave_a_getter_behind)
    got: list[int] = []

    async def get() -> None:
        got.append(await queue.get())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get)
        await settle()
        queue.put_nowait(1)
    assert got == [1]
    left._log_destroy_pending = False  # type: ignore[attr-defined]
    getting.close()
    assert queue.statistics().waiting == 0


def test_an_expired_item_is_never_handed_out() -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        queue: BoundedQueue[str] = BoundedQueue(3)
        now = anyio.current_time()
        queue.put_nowait("short", expires_at=now + 1)
        long = queue.put_nowait("long", expires_at=now + 10)
        queue.put_nowait("forever")
        assert long.expires_at == now + 10
        clock.jump(1)
        assert len(queue) == 2
        assert queue.get_nowait() == "long"
        queue.put_nowait("gone", expires_at=now)
        assert await queue.get() == "forever"
        with pytest.raises(anyio.WouldBlock):
            queue.get_nowait()
        assert queue.statistics().expired == 2
        assert adds_up(queue)

    trio.run(main, clock=clock)


def test_an_expired_item_holds_no_place_and_can_not_be_discarded() -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        queue: BoundedQueue[str] = BoundedQueue(1)
        old = queue.put_nowait("old", expires_at=anyio.current_time() + 1)
        clock.jump(2)
        queue.put_nowait("new")
        assert not queue.discard(old)
        assert queue.get_nowait() == "new"

    trio.run(main, clock=clock)


def test_a_getter_goes_on_waiting_when_its_item_has_expired() -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        queue: BoundedQueue[str] = BoundedQueue(2)
        got: list[str] = []

        async def get() -> None:
            got.append(await queue.get())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(get)
            await settle()
            queue.put_nowait("late", expires_at=anyio.current_time() + 1)
            clock.jump(2)
            await settle()
            queue.put_nowait("in time")
        assert got == ["in time"]

    trio.run(main, clock=clock)


async def test_its_repr_tells_its_state() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2)
    queue.put_nowait(1)
    assert repr(queue) == "<BoundedQueue 1/2>"


@pytest.mark.parametrize("value", [-1, 2.5, "2", True, None])
async def test_nonsense_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"maxsize must be .*, not {value!r}"):
        BoundedQueue(value)
    queue: BoundedQueue[int] = BoundedQueue(1)
    with pytest.raises(ConfigError, match="maxsize must be"):
        queue.resize(value)


@pytest.mark.parametrize("value", ["soon", True, math.nan, [1]])
async def test_an_expiry_that_is_no_time_is_refused(value: Any) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    with pytest.raises(ConfigError, match="expires_at must be a time"):
        queue.put_nowait(1, expires_at=value)
    assert queue.statistics().put == 0


def test_one_made_before_any_event_loop_serves_one_after_the_other() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)

    async def main() -> None:
        queue.put_nowait(1, expires_at=math.inf)
        assert await queue.get() == 1

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)
