"""ReplicaPool, with real processes, when its settings change while it serves."""

import math
from collections import Counter
from functools import partial
from pathlib import Path

import anyio
import pytest

from loadshed import (
    ConfigError,
    ReplicaPool,
    ReplicaUnavailableError,
)
from tests.helpers import CancelAt
from tests.pool import targets
from tests.pool.helpers import (
    callers,
    calling,
    exists,
    from_each,
    here,
    is_idle,
    pids,
    running,
    until,
)
from tests.pool.targets import Learner, Model, Sociable

pytestmark = [pytest.mark.anyio, pytest.mark.long]


async def test_settings_change_while_it_serves(tmp_path: Path) -> None:
    async with ReplicaPool(Model, num_replicas=2, max_ongoing_requests=1) as pool:
        async with calling(3, lambda: pool.call_method("until", str(tmp_path))) as results:
            await until(lambda: here(tmp_path) == 2 and pool.statistics().queued == 1)
            await pool.reconfigure(num_replicas=3, user_config="new")
            await until(lambda: here(tmp_path) == 3)
            async with calling(2, lambda: pool.call_method("until", str(tmp_path))) as more:
                await until(lambda: pool.statistics().queued == 2)
                await pool.reconfigure(max_ongoing_requests=2, max_queued_requests=1)
                await until(lambda: here(tmp_path) == 5)
                assert pool.statistics().max_queued_requests == 1
                (tmp_path / "go").touch()
        assert {type(one) for one in results + more} == {int}
        assert [config for _, config in await from_each(pool, "configuration")] == ["new"] * 3
        await pool.reconfigure(num_replicas=1, max_ongoing_requests=1)
        assert running(pool) == len(pids(pool)) == 1
        assert pool.statistics().max_ongoing_requests == 1
        assert await pool.call(1) == 1


async def test_a_user_config_that_one_refuses_is_taken_back_from_all() -> None:
    async with ReplicaPool(Model, num_replicas=3, user_config="old") as pool:
        before = pids(pool)
        with pytest.raises(ValueError, match="not that one"):
            await pool.reconfigure(user_config={"refused by": before[1]}, num_replicas=4)
        assert pids(pool) == before
        assert await from_each(pool, "configuration") == [(pid, "old") for pid in before]


async def test_a_replica_that_can_not_go_back_is_replaced_when_it_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ReplicaPool(Model) as pool:
        (before,) = pids(pool)
        async with calling(1, lambda: pool.call_method("until", str(tmp_path))) as results:
            await until(lambda: here(tmp_path))
            with pytest.raises(ValueError, match="not that one"):
                await pool.reconfigure(user_config={"refused by": "all"})
            assert running(pool) == 0
            (tmp_path / "go").touch()
        assert results == [before]
        await until(lambda: running(pool) == 1 and pids(pool) != [before])
        assert (await pool.call_method("configuration"))[1] is None
    assert "was stopped: Model#1 can't forget its user_config." in caplog.text


async def test_a_replica_that_hangs_with_a_cancelled_user_config_is_replaced(
    tmp_path: Path,
) -> None:
    async with ReplicaPool(
        Learner, user_config=("old", None), health_check_timeout_s=0.1, max_ongoing_requests=1
    ) as pool:
        (before,) = pids(pool)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(pool.reconfigure, user_config=("new", str(tmp_path))))
                await until(lambda: here(tmp_path))
                scope.cancel()
        await until(lambda: running(pool) == 1 and pids(pool) != [before])
        await pool.reconfigure(user_config=("last", None))
        assert await from_each(pool, "became") == [["old", "last"]]


async def test_all_take_their_user_config_back_at_the_same_time(tmp_path: Path) -> None:
    async with ReplicaPool(
        Sociable,
        init_args=(str(tmp_path), 3),
        user_config="good",
        num_replicas=3,
        health_check_timeout_s=30,
    ) as pool:
        before = pids(pool)
        with pytest.raises(ValueError, match="bad"):
            await pool.reconfigure(user_config="bad")
        assert pids(pool) == before


async def test_restart_replaces_one_after_the_other(tmp_path: Path) -> None:
    async with ReplicaPool(Model, num_replicas=2) as pool:
        before = pids(pool)
        await pool.restart()
        assert not {*before} & {*pids(pool)}
        assert [each.restarts for each in pool.statistics().replicas] == [1, 1]
        assert pool.statistics().restarts == 2
        assert not any(map(exists, before))


async def test_what_can_not_be_started_changes_nothing(tmp_path: Path) -> None:
    async with ReplicaPool(targets.FailsWhereItIsTold, init_args=(str(tmp_path),)) as pool:
        (before,) = pids(pool)
        (tmp_path / "broken").touch()
        for change in (pool.restart, partial(pool.reconfigure, num_replicas=3)):
            with pytest.raises(ReplicaUnavailableError, match="no model today"):
                await change()
            assert await pool.call() == before
            assert pids(pool) == [before]


async def test_a_bad_setting_changes_nothing() -> None:
    async with ReplicaPool(Model) as pool:
        for wrong in (
            {"num_replicas": 0},
            {"max_ongoing_requests": 0},
            {"max_queued_requests": -1},
        ):
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                await pool.reconfigure(**wrong)
        assert running(pool) == 1
    with pytest.raises(ReplicaUnavailableError):
        await pool.reconfigure(num_replicas=2)
    with pytest.raises(ReplicaUnavailableError):
        await pool.restart()


async def test_a_cancelled_reconfiguration_is_taken_back() -> None:
    async with ReplicaPool(Model, num_replicas=2, user_config="old") as pool:
        for n in range(1, 4):
            with anyio.CancelScope() as scope:
                await CancelAt(pool.reconfigure(user_config=f"new {n}"), n, scope.cancel)
            if not scope.cancelled_caught:
                break
        await pool.reconfigure(user_config="last")
        assert [config for _, config in await from_each(pool, "configuration")] == ["last"] * 2


async def test_a_target_that_takes_no_user_config_keeps_its_replicas() -> None:
    async with ReplicaPool(targets.same, num_replicas=2) as pool:
        before = pids(pool)
        with pytest.raises(ConfigError, match="no method `reconfigure`"):
            await pool.reconfigure(user_config=1)
        assert await pool.call(1) == 1
        assert pids(pool) == before


async def test_no_call_fails_while_everything_is_changed() -> None:
    async with ReplicaPool(
        Model, num_replicas=2, max_queued_requests=math.inf, user_config="first"
    ) as pool:
        served: Counter[str] = Counter()
        stopped = False

        async def call(number: int) -> None:
            while not stopped:
                number += 100
                assert await pool.call(number) == number
                served["calls"] += 1

        async with anyio.create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(call, number)
            before = pids(pool)
            await pool.reconfigure(num_replicas=3, user_config="second")
            await pool.reconfigure(max_ongoing_requests=1)
            await pool.restart()
            await pool.reconfigure(num_replicas=1, max_ongoing_requests=7)
            more = served["calls"]
            await until(lambda: served["calls"] > more)
            stopped = True
        assert not {*before} & {*pids(pool)}
        assert pool.statistics().max_ongoing_requests == 7
        assert [config for _, config in await from_each(pool, "configuration")] == ["second"]
        assert is_idle(pool)


async def test_leaving_does_not_wait_for_a_user_config_that_is_not_taken(tmp_path: Path) -> None:
    async with callers() as them:
        async with ReplicaPool(
            Learner, user_config=("old", None), graceful_shutdown_timeout_s=None
        ) as pool:
            them.start(1, partial(pool.reconfigure, user_config=("new", str(tmp_path))))
            await until(lambda: here(tmp_path))
    assert [*map(type, them.results)] == [ReplicaUnavailableError]


async def test_changes_at_the_same_time_are_all_made() -> None:
    async with ReplicaPool(Model) as pool, anyio.create_task_group() as tasks:
        for change in ({"num_replicas": 2}, {"max_ongoing_requests": 3}, {"user_config": "new"}):
            tasks.start_soon(partial(pool.reconfigure, **change))
        await until(lambda: "replicas=2/2 ongoing=0/6 queued=0/6" in repr(pool))
        await pool.reconfigure(max_queued_requests=1)
        assert [config for _, config in await from_each(pool, "configuration")] == ["new"] * 2
        assert "ongoing=0/6 queued=0/1" in repr(pool)


async def test_a_change_waits_for_the_start(tmp_path: Path) -> None:
    pool = ReplicaPool(targets.SlowModel, init_args=(str(tmp_path),), num_replicas=2)

    async def change() -> None:
        await until(lambda: here(tmp_path) == 2)
        them.start(1, partial(pool.reconfigure, num_replicas=1))
        them.start(1, pool.restart)
        await anyio.wait_all_tasks_blocked()
        assert len(pids(pool)) == 2
        (tmp_path / "go").touch()

    async with callers() as them:
        them.start(1, change)
        async with pool:
            await until(lambda: len(them.results) == 3)
            assert them.results == [None] * 3
            assert running(pool) == 1
            assert pool.statistics().restarts in (1, 2)  # whichever came first
