"""ReplicaPool, with real processes, on asyncio and trio."""

import contextlib
import dataclasses
import math
import pickle
import sys
from collections import Counter
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from loadshed import (
    ConfigError,
    KneeLimit,
    NotPicklableError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaDiedError,
    ReplicaPool,
    ReplicaState,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from tests.pool import targets
from tests.pool.helpers import callers, calling, exists, here, is_idle, pids, running, until
from tests.pool.targets import Model

pytestmark = pytest.mark.anyio


async def test_a_class_is_made_once_in_each_replica_and_called() -> None:
    async with ReplicaPool(Model, init_args=(2,), num_replicas=2, max_ongoing_requests=5) as pool:
        assert [await pool.call(n) for n in range(20)] == [2 * n for n in range(20)]
        seen = {await pool.call_method("pid") for _ in range(50)}
        assert seen <= set(pids(pool))
        statistics = pool.statistics()
        assert sum(each.served for each in statistics.replicas) == 70
        assert [each.name for each in statistics.replicas] == ["Model#1", "Model#2"]
        assert [each.state for each in statistics.replicas] == [ReplicaState.RUNNING] * 2
        assert all(each.latency for each in statistics.replicas)
        assert (statistics.admitted, statistics.restarts) == (70, 0)
        assert "replicas=2/2 ongoing=0/10 queued=0/10" in repr(pool)
        assert [x async for x in pool.stream_method("count", 3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="running already"):
            await pool.__aenter__()
    assert not any(map(exists, seen))
    with pytest.raises(ReplicaUnavailableError, match="takes no calls"):
        await pool.call(1)


@pytest.mark.parametrize("target", [targets.double, "tests.pool.targets:double"])
async def test_functions_and_import_strings_are_called(target: Any) -> None:
    pool = ReplicaPool(target)
    for _ in range(2):  # a pool can be entered again
        async with pool:
            assert pool.name == "double"
            assert await pool.call("ab") == "abab"


async def test_what_does_not_fit_in_is_shed_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ReplicaPool(
        targets.until, num_replicas=2, max_ongoing_requests=2, max_queued_requests=3
    ) as pool:
        async with calling(12, lambda: pool.call(str(tmp_path))) as results:
            await until(lambda: here(tmp_path) == 4 and len(results) == 5)
            assert all(isinstance(error, QueueFullError) for error in results)
            assert [each.ongoing for each in pool.statistics().replicas] == [2, 2]
            (tmp_path / "go").touch()
        assert Counter(map(type, results)) == {int: 7, QueueFullError: 5}
        assert pool.statistics().shed == {"queue_full": 5}
        assert is_idle(pool)
    assert "Limiter: 'until'" in caplog.text


async def test_max_wait_bounds_the_wait(tmp_path: Path) -> None:
    async with ReplicaPool(targets.until, max_ongoing_requests=1, max_wait=0.01) as pool:
        async with calling(1, lambda: pool.call(str(tmp_path))) as results:
            await until(lambda: here(tmp_path))
            with pytest.raises(QueueTimeoutError):
                await pool.call(str(tmp_path))
            (tmp_path / "go").touch()
        assert len(results) == 1


async def test_a_caller_that_leaves_cancels_async_work(tmp_path: Path) -> None:
    async with ReplicaPool(targets.until_async, max_ongoing_requests=1) as pool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.call, str(tmp_path))
            await until(lambda: here(tmp_path))
            tasks.cancel_scope.cancel()
        await until(lambda: is_idle(pool))
        assert (tmp_path / "cancelled").exists()
        assert running(pool) == 1


async def test_a_slot_is_held_until_the_thread_returns(tmp_path: Path) -> None:
    async with ReplicaPool(
        targets.until, max_ongoing_requests=1, max_queued_requests=0, request_timeout_s=0.05
    ) as pool:
        with pytest.raises(RequestTimeoutError):
            await pool.call(str(tmp_path))
        assert pool.statistics().ongoing == 1
        with pytest.raises(QueueFullError):
            await pool.call(str(tmp_path))
        (tmp_path / "go").touch()
        await until(lambda: is_idle(pool))
        assert pool.statistics().restarts == 0


async def test_the_time_in_the_queue_counts(tmp_path: Path) -> None:
    async with ReplicaPool(targets.until, max_ongoing_requests=1, request_timeout_s=0.2) as pool:
        async with calling(2, lambda: pool.call(str(tmp_path))) as results:
            pass
        assert [str(error) for error in results] == [
            "Request not done within request_timeout_s=0.2."
        ] * 2
        (tmp_path / "go").touch()


async def test_a_stream_has_a_time_limit_too() -> None:
    async with ReplicaPool(Model, request_timeout_s=0.2) as pool:
        async with aclosing(pool.stream_method("count", 10**9)) as items:
            with pytest.raises(RequestTimeoutError):
                async for _ in items:
                    pass
        await until(lambda: is_idle(pool))


async def test_leaving_serves_all_that_came(tmp_path: Path) -> None:
    async with callers() as them:
        async with ReplicaPool(targets.until, max_ongoing_requests=1) as pool:
            them.start(2, lambda: pool.call(str(tmp_path)))
            await until(lambda: here(tmp_path) == 1 and pool.statistics().queued == 1)
            them.start(1, lambda: go_when_it_is_being_left(pool, tmp_path))
    assert Counter(map(type, them.results)) == {int: 2, ReplicaUnavailableError: 1}


async def go_when_it_is_being_left(pool: ReplicaPool, path: Path) -> None:
    try:
        while True:
            with contextlib.suppress(QueueFullError):
                await pool.call(str(path))
            await anyio.sleep(0.002)
    finally:
        (path / "go").touch()


@pytest.mark.parametrize("target", [Model, targets.Stubborn])
async def test_leaving_ends_what_takes_too_long(
    tmp_path: Path, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadshed._pool.replica.TO_TERMINATE", 0.1)
    async with callers() as them:
        async with ReplicaPool(
            target, max_ongoing_requests=1, graceful_shutdown_timeout_s=0.05
        ) as pool:
            (pid,) = pids(pool)
            them.start(2, lambda: pool.call_method("until", str(tmp_path)))
            await until(lambda: here(tmp_path) == 1 and pool.statistics().queued == 1)
        assert not exists(pid)
    assert {type(one) for one in them.results} == {ReplicaDiedError, ReplicaUnavailableError}
    assert is_idle(pool)


async def test_the_users_exception_leaves_the_block_as_it_is() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with ReplicaPool(Model):
            raise error
    assert caught.value is error


async def test_cancelled_from_outside_it_lets_go_of_those_that_wait(tmp_path: Path) -> None:
    async with callers() as them:
        with anyio.CancelScope() as scope:
            async with ReplicaPool(targets.until, max_ongoing_requests=1) as pool:
                them.start(2, lambda: pool.call(str(tmp_path)))
                await until(lambda: here(tmp_path) == 1 and pool.statistics().queued == 1)
                them.start(1, lambda: go_when_it_is_being_left(pool, tmp_path))
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert Counter(map(type, them.results)) == {int: 1, ReplicaUnavailableError: 2}


async def test_an_interruption_while_it_drains_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    async with callers() as them:
        with pytest.raises(KeyboardInterrupt):
            async with ReplicaPool(targets.until) as pool:
                them.start(1, lambda: pool.call(str(tmp_path)))
                await until(lambda: here(tmp_path) == 1)
                monkeypatch.setattr(pool._slots, "empty", interrupted)
    assert [type(one) for one in them.results] == [ReplicaDiedError]


async def test_starting_can_be_cancelled(tmp_path: Path) -> None:
    pool = ReplicaPool(targets.SlowModel, init_args=(str(tmp_path),))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.__aenter__)
        await until(lambda: here(tmp_path) == 1)
        (pid,) = pids(pool)
        assert [each.state for each in pool.statistics().replicas] == [ReplicaState.STARTING]
        tasks.cancel_scope.cancel()
    assert not exists(pid)
    assert pool.statistics().replicas == ()


async def test_what_can_not_be_sent_hurts_nobody_else() -> None:
    async with ReplicaPool(targets.same) as pool:
        with pytest.raises(NotPicklableError, match="The arguments can't be sent"):
            await pool.call(lambda: 1)
        with pytest.raises(NotPicklableError, match="not in this process"):
            await pool.call(targets.OnlyInOneProcess())
        assert is_idle(pool)
        assert await pool.call(1) == 1


async def test_output_keeps_its_owners_name(capsys: pytest.CaptureFixture[str]) -> None:
    async with ReplicaPool("builtins:print", name="printer") as pool:
        await pool.call("one\ntwo", end="")
        await pool.call("x" * 70_000)
        await pool.call("last", end="")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[printer#1] one"
    assert all(line.startswith("[printer#1] ") for line in lines)
    assert lines[-1] == "[printer#1] last"


async def test_output_that_nobody_takes_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ReplicaPool("builtins:print") as pool:
        monkeypatch.setattr(sys, "stdout", None)
        await pool.call("into the void")
        assert running(pool) == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_replicas", 0),
        ("num_replicas", float("inf")),
        ("max_ongoing_requests", 0),
        ("max_ongoing_requests", KneeLimit()),
        ("max_ongoing_requests", "many"),
        ("max_queued_requests", -1),
        ("max_wait", -1),
        ("request_timeout_s", "1"),
        ("health_check_period_s", 0),
        ("health_check_timeout_s", 0),
        ("graceful_shutdown_timeout_s", -1),
        ("init_args", "ab"),
        ("init_kwargs", {1: 2}),
    ],
)
def test_a_bad_setting_is_told(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        ReplicaPool(Model, **{setting: value})


@pytest.mark.parametrize("target", ["no colon", "a:b:c", ":x", 3, None, lambda: 1])
def test_a_target_that_no_replica_can_import_is_told(target: Any) -> None:
    with pytest.raises(ConfigError, match="target must be a class or a function at the top level"):
        ReplicaPool(target)


def test_a_target_of_a_notebook_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    with pytest.raises(ConfigError, match="not of a notebook"):
        ReplicaPool(Model)


@pytest.mark.parametrize("setting", ["init_args", "init_kwargs", "user_config"])
async def test_what_a_replica_can_not_be_told_is_told_at_the_start(setting: str) -> None:
    def local() -> None: ...

    values: Any = {"init_args": (local,), "init_kwargs": {"a": local}, "user_config": local}
    with pytest.raises(ConfigError, match=f"{setting} must be what can be pickled"):
        async with ReplicaPool(Model, **{setting: values[setting]}):
            pytest.fail("it was entered")


async def test_names_come_from_targets() -> None:
    assert ReplicaPool("tests.pool.targets:Model").name == "Model"
    assert ReplicaPool(partial(targets.double, 1)).name == "partial"
    assert ReplicaPool(Model, name="other").name == "other"


def test_statistics_can_be_pickled_and_made_into_dicts() -> None:
    statistics = ReplicaPool(Model).statistics()
    assert pickle.loads(pickle.dumps(statistics)) == statistics  # noqa: S301
    assert dataclasses.asdict(statistics)["replicas"] == ()


async def test_there_need_be_no_bound_on_what_a_replica_works_on() -> None:
    async with ReplicaPool(targets.same, max_ongoing_requests=math.inf) as pool:
        async with calling(100, lambda: pool.call(1)) as results:
            pass
        assert results == [1] * 100
        assert pool.statistics().max_queued_requests == math.inf


async def test_functions_run_in_as_many_threads_as_calls_may_be_ongoing() -> None:
    async with ReplicaPool(Model, max_ongoing_requests=3, max_queued_requests=200) as pool:
        async with calling(200, lambda: pool.call(1)) as results:
            pass
        assert results == [1] * 200
        assert 1 <= await pool.call_method("threads") <= 3
