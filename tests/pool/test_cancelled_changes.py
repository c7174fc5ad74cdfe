"""ReplicaPool, with real processes, when its block or a change of it is cancelled."""

import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from loadshed import ReplicaDiedError, ReplicaPool, ReplicaUnavailableError
from tests.helpers import CancelAt
from tests.pool import targets
from tests.pool.helpers import (
    LONG,
    At,
    Gate,
    asked_for,
    at_each_await,
    callers,
    from_each,
    is_over,
    is_settled,
    pids,
    serves,
    there_is,
    until,
)
from tests.pool.targets import Learner, Model

pytestmark = [pytest.mark.anyio, pytest.mark.long, pytest.mark.usefixtures("unmeasured")]


Change = Callable[[ReplicaPool], Awaitable[None]]


# The block.


async def test_a_block_can_be_cancelled_at_each_await() -> None:
    pool = ReplicaPool(targets.same, num_replicas=2, max_ongoing_requests=1)
    before = there_is()

    async def block() -> None:
        async with pool:
            await checkpoint()
            assert await pool.call(1) == 1

    async def operation(at: At) -> None:
        await at(block())

    async def after() -> None:
        is_over(pool, before)
        assert asked_for(pool) == 2

    await at_each_await(operation, after, shielded=True)
    async with pool:
        await serves(pool, 1)


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["at its end", "cancelled"])
async def test_leaving_can_be_cancelled_at_each_await(tmp_path: Path, is_cancelled: bool) -> None:
    """One call is ongoing and one is queued when the block ends, or is cancelled."""
    pool = ReplicaPool(targets.until_async, max_ongoing_requests=1)
    gate = Gate(tmp_path)
    before = there_is()
    async with callers() as them:

        async def operation(at: At) -> None:
            nonlocal gate
            gate = Gate(tmp_path)
            with anyio.CancelScope() as scope:
                await pool.__aenter__()
                them.start(2, partial(pool.call, gate.path))
                await until(lambda: pool.statistics().queued and gate.is_reached)
                them.start(1, partial(gate.open_when, lambda: is_being_left(pool)))
                leave: Callable[..., Awaitable[object]] = pool.__aexit__
                try:
                    if is_cancelled:
                        scope.cancel()
                        await checkpoint()
                except BaseException as error:
                    await at(leave(type(error), error, None))
                    raise
                await at(leave(None, None, None))

        async def after() -> None:
            is_over(pool, before)
            gate.open()

        await at_each_await(operation, after, shielded=True, scoped=is_cancelled)
    kinds = {*map(type, them.results)}
    assert {int} <= kinds <= {int, type(None), ReplicaDiedError, ReplicaUnavailableError}
    async with pool:
        await serves(pool, gate.path)


def is_being_left(pool: ReplicaPool) -> bool:
    try:
        pool._slots.check()
    except ReplicaUnavailableError:
        return True
    return False


async def test_nothing_is_left_after_ten_rounds_with_a_death() -> None:
    pool = ReplicaPool("time:sleep")
    before = there_is()
    for _ in range(10):
        async with pool:
            await pool.call(0)
            (pid,) = pids(pool)
            os.kill(pid, signal.SIGKILL)
    is_over(pool, before)


# Changes.


@pytest.mark.parametrize(("before", "then"), [(1, 2), (2, 1)])
async def test_another_number_of_replicas_can_be_cancelled_at_each_await(
    before: int, then: int
) -> None:
    async with ReplicaPool(targets.same, num_replicas=before, max_ongoing_requests=1) as pool:

        async def operation(at: At) -> None:
            await at(pool.reconfigure(num_replicas=then))
            assert len(pids(pool)) == then

        async def after() -> None:
            assert asked_for(pool) in (before, then)
            await serves(pool, 1)
            await pool.reconfigure(num_replicas=before)
            await serves(pool, 1)

        await at_each_await(operation, after)
        assert pool.statistics().restarts == 0


async def test_another_user_config_can_be_cancelled_at_each_await() -> None:
    last = "old"
    numbers = itertools.count()
    async with ReplicaPool(Model, num_replicas=2, user_config=last, max_ongoing_requests=1) as pool:

        async def operation(at: At) -> None:
            nonlocal last
            config = f"new {next(numbers)}"
            await at(pool.reconfigure(user_config=config, num_replicas=3))
            last = config

        async def after() -> None:
            await serves(pool, 1)
            while {config for _, config in await from_each(pool, "configuration")} != {last}:
                await checkpoint()
            await pool.reconfigure(num_replicas=2)

        await at_each_await(operation, after)
        assert pool.statistics().restarts == 0


async def test_a_cancelled_user_config_is_not_set_after_the_next_one(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    is_set = anyio.Event()
    async with ReplicaPool(Learner, user_config=("old", None)) as pool, callers() as them:
        before = pids(pool)

        async def cancelled() -> None:
            with anyio.CancelScope() as scope:
                them.start(1, partial(cancel, scope))
                await pool.reconfigure(user_config=("new", gate.path))

        async def cancel(scope: anyio.CancelScope) -> None:
            await until(lambda: gate.is_reached)
            scope.cancel()
            them.start(1, set_last)
            await anyio.wait_all_tasks_blocked()
            for _ in range(3):  # what it was sent would be done by now
                await from_each(pool, "became")
            gate.open()

        async def set_last() -> None:
            await pool.reconfigure(user_config=("last", None))
            is_set.set()

        them.start(1, cancelled)
        with anyio.fail_after(LONG):
            await is_set.wait()
            await until(lambda: is_settled(pool))
            (history,) = await from_each(pool, "became")
            while "new" not in history and pids(pool) == before:
                (history,) = await from_each(pool, "became")
        assert history[-1] == "last"


async def test_a_restart_can_be_cancelled_at_each_await() -> None:
    async with ReplicaPool(targets.same, num_replicas=2, max_ongoing_requests=1) as pool:

        async def operation(at: At) -> None:
            before = pids(pool)
            await at(pool.restart())
            assert not {*before} & {*pids(pool)}

        await at_each_await(operation, lambda: serves(pool, 1))
        assert asked_for(pool) == 2


CHANGES = pytest.mark.parametrize(
    ("count", "change"),
    [
        pytest.param(1, lambda pool: pool.restart(), id="restart"),
        pytest.param(1, lambda pool: pool.reconfigure(num_replicas=2), id="more"),
        pytest.param(
            2, lambda pool: pool.reconfigure(num_replicas=1, user_config="new"), id="fewer"
        ),
    ],
)


@contextlib.asynccontextmanager
async def no_longer_than_long(pool: ReplicaPool) -> AsyncIterator[None]:
    """Leaving can't be cancelled, so `anyio.fail_after` can't end a test that hangs there."""

    async def give_up() -> None:
        await anyio.sleep(LONG)
        assert pool._block is not None
        pool._block.crew.cancel()
        pytest.fail("it hangs")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_up)
        yield
        tasks.cancel_scope.cancel()


@CHANGES
async def test_a_pool_can_be_left_at_each_await_of_a_change(count: int, change: Change) -> None:
    before = there_is()
    for n in itertools.count(1):
        pool = ReplicaPool(Model, num_replicas=count)
        event = anyio.Event()
        marked = CancelAt(change(pool), n, event.set)
        async with callers() as them, no_longer_than_long(pool):
            async with pool:
                them.start(1, partial(finish, marked, event))
                await event.wait()
        is_over(pool, before)
        assert {*map(type, them.results)} <= {type(None), ReplicaUnavailableError}
        if marked.waits < n:
            break


async def finish(marked: Awaitable[None], event: anyio.Event) -> None:
    try:
        await marked
    finally:
        event.set()


@CHANGES
async def test_a_change_can_begin_at_each_await_of_leaving(count: int, change: Change) -> None:
    before = there_is()
    for n in itertools.count(1):
        pool = ReplicaPool(Model, num_replicas=count)
        async with callers() as them, no_longer_than_long(pool):
            await pool.__aenter__()
            begin = partial(them.start, 1, partial(change, pool))
            marked = CancelAt(pool.__aexit__(None, None, None), n, begin)
            await marked
        is_over(pool, before)
        assert {*map(type, them.results)} <= {type(None), ReplicaUnavailableError}
        if marked.waits < n:
            break
