"""ReplicaPool, with real processes, when what waits and who goes first changes while it serves."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from loadshed import (
    ConfigError,
    Limit,
    QueueFullError,
    ReplicaDiedError,
    ReplicaPool,
    ReplicaUnavailableError,
)
from loadshed._policy.limits.knee import KneeLimit
from loadshed._pool.replica import Replica
from tests.pool import targets
from tests.pool.helpers import LONG, here, until
from tests.pool.targets import Model

pytestmark = pytest.mark.anyio

USUAL: dict[str, Any] = {
    "max_queued_requests": None,
    "order": None,
    "shares": None,
    "max_tenants": 1000,
    "tenant_share": 0.5,
}


def replicas(pool: ReplicaPool) -> list[Replica]:
    assert pool._block is not None
    return pool._block.crew.replicas


def limits(pool: ReplicaPool) -> list[KneeLimit]:
    found = [each.limit for each in replicas(pool)]
    assert all(isinstance(each, KneeLimit) for each in found)
    return found  # type: ignore[return-value]


@contextlib.asynccontextmanager
async def busy(pool: ReplicaPool, path: Path) -> AsyncIterator[list[str]]:
    """One call runs, and those of the block, by their names, note when they are done.

    All of them end when the block does.
    """
    done: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.call_method, "until", str(path))
        await until(lambda: here(path) == 1)
        yield done
        (path / "go").touch()


async def call(pool: ReplicaPool, done: list[str], name: str, **standing: Any) -> None:
    try:
        with anyio.fail_after(LONG):
            await pool.options(**standing).call(1)
        done.append(name)
    except QueueFullError as error:
        done.append(f"{name}: {error.reason}")


async def test_who_waits_keeps_its_place_and_goes_by_the_new_shares(tmp_path: Path) -> None:
    async with ReplicaPool(Model, max_ongoing_requests=1, max_queued_requests=3) as pool:
        async with anyio.create_task_group() as tasks, busy(pool, tmp_path) as done:
            for count, (name, priority) in enumerate([("a", "critical"), ("b", "sheddable")]):
                tasks.start_soon(partial(call, pool, done, name, priority=priority))
                await until(lambda n=count + 1: pool.statistics().queued == n)  # type: ignore[misc]
            await pool._line_up(**USUAL | {"max_queued_requests": 3, "shares": {"sheddable": 1}})
            assert pool.statistics().queued == 2
        assert done == ["b", "a"]
        assert pool.statistics().shed == {}
        lane = pool._limiter._admission.line.lane
        assert lane(3).ongoing == 0  # type: ignore[arg-type]


async def test_shorter_lines_and_smaller_parts_are_for_those_who_come(tmp_path: Path) -> None:
    async with ReplicaPool(Model, max_ongoing_requests=1, max_queued_requests=4) as pool:
        async with anyio.create_task_group() as tasks, busy(pool, tmp_path) as done:
            for count in range(1, 3):
                tasks.start_soon(lambda: call(pool, done, "old", tenant="a"))
                await until(lambda n=count: pool.statistics().queued == n)  # type: ignore[misc]
            await pool._line_up(**USUAL | {"max_queued_requests": 4, "tenant_share": 0.25})
            await call(pool, done, "too many of one", tenant="a")
            await pool._line_up(**USUAL | {"max_queued_requests": 2, "tenant_share": 1})
            await call(pool, done, "one too many", tenant="a")
            assert pool.statistics().queued == 2
        assert done == ["too many of one: queue_full", "one too many: queue_full", "old", "old"]


async def test_the_line_is_by_default_as_long_as_its_order_and_the_limit_ask_for() -> None:
    async with ReplicaPool(Model, max_ongoing_requests=2, num_replicas=2) as pool:
        for order, bound in (("fifo", 4), ("adaptive_lifo", 10), (None, 4)):
            await pool._line_up(**USUAL | {"order": order})
            assert pool.statistics().max_queued_requests == bound
        await pool._line_up(**USUAL | {"max_queued_requests": 7})
        await pool.reconfigure(max_ongoing_requests=9)
        assert pool.statistics().max_queued_requests == 7
        await pool._line_up(**USUAL)
        assert pool.statistics().max_queued_requests == 18
        await pool.reconfigure(max_ongoing_requests="auto")
        assert pool.statistics().max_queued_requests == 2 * pool.statistics().max_ongoing_requests
        await pool._line_up(**USUAL | {"order": "fifo"})
        assert pool.statistics().max_queued_requests == pool.statistics().max_ongoing_requests
    assert ReplicaPool(Model, order="adaptive_lifo")._limiter.max_queued_requests == 10
    lifo = ReplicaPool(Model, max_ongoing_requests=8, order="adaptive_lifo")
    assert lifo._limiter.max_queued_requests == 16


async def test_replicas_keep_the_limits_that_they_have_found() -> None:
    async with ReplicaPool(Model) as pool:
        (found,) = limits(pool)
        await pool.reconfigure(max_queued_requests=3, max_ongoing_requests="auto")
        await pool._line_up(**USUAL)
        await pool.reconfigure(num_replicas=2)
        assert limits(pool)[0] is found
        await pool.reconfigure(max_ongoing_requests=3)
        assert pool.statistics().max_ongoing_requests == 6
        await pool.reconfigure(max_ongoing_requests="auto")
        assert len(limits(pool)) == 2


async def test_a_limit_knows_whether_others_wait() -> None:
    async with ReplicaPool(Model, order="fifo") as pool:
        assert [each.has_queue for each in limits(pool)] == [True]
        await pool.reconfigure(max_queued_requests=0)
        assert [each.has_queue for each in limits(pool)] == [False]
        await pool._line_up(**USUAL)
        assert [each.has_queue for each in limits(pool)] == [True]
    async with ReplicaPool(Model, max_queued_requests=0) as pool:
        assert [each.has_queue for each in limits(pool)] == [False]


async def test_a_pool_that_does_not_run_has_no_line_to_change() -> None:
    with pytest.raises(ReplicaUnavailableError, match="takes no calls"):
        await ReplicaPool(Model)._line_up(**USUAL)


async def test_calls_of_all_kinds_may_be_unlike_most() -> None:
    async with ReplicaPool(Model, max_ongoing_requests=2) as pool:
        batch = pool.options(priority="sheddable", tenant="acme", cost=2)
        assert repr(batch) == "<'Model' for SHEDDABLE of 'acme', cost=2>"
        assert await batch.call(3) == 3
        assert await batch.call_method("__call__", 4) == 4
        assert [x async for x in batch.stream_method("count", 2)] == [0, 1]
    async with ReplicaPool(targets.numbers) as pool:
        assert [x async for x in pool.options(cost=2).stream(2)] == [0, 1]


class Moody:
    """A rule whose `observe` has a mistake in it."""

    limit = 2
    reason = ""

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        raise ZeroDivisionError


async def test_a_limit_that_raises_loses_no_call() -> None:
    async with ReplicaPool(Model, max_ongoing_requests=Moody) as pool:
        done: list[str] = []
        async with anyio.create_task_group() as tasks:
            for name in "abcdef":
                tasks.start_soon(call, pool, done, name)
        assert sorted(done) == list("abcdef")
        assert pool.statistics().ongoing == 0


async def test_where_no_limit_can_be_made_nothing_is_changed() -> None:
    def fails() -> Limit:
        raise ZeroDivisionError

    def fails_the_third_time() -> Limit:
        made.append(None)
        return fails() if len(made) == 3 else KneeLimit(7)

    made: list[None] = []
    with pytest.raises(ReplicaUnavailableError, match="ZeroDivisionError"):
        await ReplicaPool(Model, max_ongoing_requests=fails).__aenter__()
    async with ReplicaPool(Model, num_replicas=2, max_ongoing_requests=3) as pool:
        for make in (fails, fails_the_third_time, lambda: "many"):
            with pytest.raises((ReplicaUnavailableError, ConfigError)):
                await pool.reconfigure(max_ongoing_requests=make)  # type: ignore[arg-type]
            assert [each.max_ongoing_requests for each in replicas(pool)] == [3, 3]
            assert pool.statistics().max_ongoing_requests == 6
        assert len(made) == 3


async def test_where_no_limit_can_be_made_for_a_new_replica_the_pool_goes_on() -> None:
    def fails_the_second_time() -> Limit:
        made.append(None)
        if len(made) == 2:
            raise ZeroDivisionError
        return KneeLimit()

    made: list[None] = []
    async with ReplicaPool(Model, max_ongoing_requests=fails_the_second_time) as pool:
        with pytest.raises(ReplicaDiedError):
            await pool.call_method("kill")
        with anyio.fail_after(LONG):
            assert await pool.call(1)
        assert len(made) == 3
