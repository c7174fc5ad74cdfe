"""ReplicaPool, with real processes, on asyncio and trio."""

import contextlib
import dataclasses
import math
import os
import pickle
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from loadshed import (
    BackPressureError,
    ConfigError,
    NotPicklableError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaPool,
    ReplicaState,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from loadshed._policy.wire import Kind
from tests.helpers import CancelAt
from tests.pool import targets
from tests.pool.targets import Model

pytestmark = pytest.mark.anyio

LONG = 60
"""Seconds after which a test that waits for something gives up."""


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what other processes do."""
    with anyio.fail_after(LONG):
        while not condition():
            await anyio.sleep(0.002)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def here(path: Path) -> int:
    """How many calls of `targets.until` have begun."""
    return len(list(path.glob("here-*")))


def pids(pool: ReplicaPool) -> list[int]:
    return [each.pid for each in pool.statistics().replicas]


def running(pool: ReplicaPool) -> int:
    return sum(each.state is ReplicaState.RUNNING for each in pool.statistics().replicas)


def is_idle(pool: ReplicaPool) -> bool:
    seen = pool.statistics()
    return not (seen.ongoing or seen.queued or any(each.ongoing for each in seen.replicas))


async def from_each(pool: ReplicaPool, method: str) -> list[Any]:
    """What each of the replicas answers, the oldest first."""
    assert pool._block is not None
    replicas = pool._block.crew.replicas
    return [await each.ask(Kind.CALL, (method, (), {})) for each in replicas]


@contextlib.asynccontextmanager
async def calling(count: int, call: Callable[[], Any]) -> AsyncIterator[list[Any]]:
    """So many calls at the same time; the list gets what they come to."""
    results: list[Any] = []

    async def one() -> None:
        try:
            results.append(await call())
        except Exception as error:  # noqa: BLE001
            results.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
        yield results


class Callers:
    """Calls of tasks that were there before the pool, and stay when it is left."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self.results: list[Any] = []

    def start(self, count: int, call: Callable[[], Any]) -> None:
        for _ in range(count):
            self._tasks.start_soon(self._one, call)

    async def _one(self, call: Callable[[], Any]) -> None:
        try:
            self.results.append(await call())
        except Exception as error:  # noqa: BLE001
            self.results.append(error)


@contextlib.asynccontextmanager
async def callers() -> AsyncIterator[Callers]:
    async with anyio.create_task_group() as tasks:
        yield Callers(tasks)


async def test_a_class_is_made_once_in_each_replica_and_called() -> None:
    async with ReplicaPool(Model, init_args=(2,), num_replicas=2) as pool:
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


async def test_a_replica_whose_threads_are_all_stuck_is_replaced(tmp_path: Path) -> None:
    async with ReplicaPool(targets.until, max_ongoing_requests=2, request_timeout_s=0.05) as pool:
        (before,) = pids(pool)
        async with calling(2, lambda: pool.call(str(tmp_path))) as results:
            pass
        assert Counter(map(type, results)) == {RequestTimeoutError: 2}
        await until(lambda: running(pool) == 1 and pids(pool) != [before])
        (tmp_path / "go").touch()
        assert await pool.call(str(tmp_path)) == pids(pool)[0]
        assert pool.statistics().restarts == 1


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


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (("exit", 3), "ended with exit code 3"),
        (("kill",), "was killed by SIGKILL"),
        (("kill", signal.SIGSEGV), "was killed by SIGSEGV"),
        (("kill", signal.SIGRTMIN + 5), "was killed by"),
        (("nonsense",), "was killed: it sent nonsense"),
    ],
)
async def test_a_replica_that_dies_is_replaced(way: tuple[Any, ...], said: str) -> None:
    async with ReplicaPool(Model) as pool:
        (before,) = pids(pool)
        with pytest.raises(ReplicaDiedError, match=said):
            await pool.call_method(*way)
        assert await pool.call(7) == 7
        assert pids(pool) != [before]
        assert [each.restarts for each in pool.statistics().replicas] == [1]
        assert is_idle(pool)


async def test_death_is_noticed_though_a_child_keeps_the_socket_open() -> None:
    async with ReplicaPool(Model) as pool:
        child = await pool.call_method("fork_and_exit")
        (before,) = pids(pool)
        try:
            os.kill(before, signal.SIGKILL)
            await until(lambda: pids(pool) not in ([], [before]))
            assert await pool.call(1) == 1
        finally:
            os.kill(child, signal.SIGKILL)


async def test_a_call_that_the_replica_has_not_seen_goes_to_another() -> None:
    large = b"x" * 50_000_000
    async with ReplicaPool(Model, max_ongoing_requests=3) as pool:
        (before,) = pids(pool)
        os.kill(before, signal.SIGSTOP)
        async with calling(1, lambda: pool.call(large)) as results:
            await until(lambda: pool.statistics().ongoing == 1)
            async with (
                calling(1, lambda: pool.call(4)) as more,
                calling(1, lambda: first_of(pool.stream_method("count", 1))) as items,
            ):
                await until(lambda: pool.statistics().ongoing == 3)
                os.kill(before, signal.SIGKILL)
        assert isinstance(results[0], ReplicaDiedError)
        assert more == [4]
        assert items == [0]
        await until(lambda: is_idle(pool))


async def first_of(stream: AsyncGenerator[Any, None]) -> Any:
    async with aclosing(stream):
        return await anext(stream)


async def test_one_that_leaves_in_the_step_in_which_its_call_is_given_back() -> None:
    async with ReplicaPool(Model, max_ongoing_requests=2) as pool:
        (before,) = pids(pool)
        os.kill(before, signal.SIGSTOP)
        async with calling(1, lambda: pool.call(b"x" * 50_000_000)):
            await until(lambda: pool.statistics().ongoing == 1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.call, 4)
                await until(lambda: pool.statistics().ongoing == 2)
                assert pool._block is not None
                (replica,) = pool._block.crew.replicas
                replica._die()
                tasks.cancel_scope.cancel()
        await until(lambda: is_idle(pool))
        assert await pool.call(3) == 3


async def test_a_replica_that_does_not_answer_is_killed() -> None:
    async with ReplicaPool(
        Model, health_check_period_s=0.01, health_check_timeout_s=0.1, request_timeout_s=None
    ) as pool:
        (before,) = pids(pool)
        with pytest.raises(ReplicaDiedError, match="its health checks failed \\(no answer"):
            await pool.call_method("deafen")
        await until(lambda: running(pool) == 1)
        assert pids(pool) != [before]


async def test_a_replica_that_says_that_it_is_ill_is_replaced() -> None:
    async with ReplicaPool(Model, health_check_period_s=0.01) as pool:
        (before,) = pids(pool)
        await pool.call_method("fall_ill")
        await until(lambda: running(pool) == 1 and pids(pool) != [before])


@pytest.mark.parametrize("way", ["broken", "exits"])
async def test_a_constructor_that_fails_is_told_at_once(tmp_path: Path, way: str) -> None:
    (tmp_path / way).touch()
    pool = ReplicaPool(targets.FailsWhereItIsTold, init_args=(str(tmp_path),), num_replicas=3)
    said = {"broken": "no model today", "exits": "out of here"}[way]
    with pytest.raises(ReplicaUnavailableError, match=said) as caught:
        async with pool:
            pytest.fail("it was entered")
    assert "targets.py" in str(caught.value)
    assert pool.statistics().replicas == ()


async def test_a_crash_loop_is_told_to_those_who_wait_and_is_got_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ReplicaPool(targets.FailsWhereItIsTold, init_args=(str(tmp_path),), name="loop")
    async with pool:
        (tmp_path / "broken").touch()
        async with calling(1, lambda: pool.call_method("kill")) as died:
            pass
        assert isinstance(died[0], ReplicaDiedError)
        with pytest.raises(ReplicaUnavailableError, match="no model today"):
            with anyio.fail_after(LONG):
                await pool.call()
        with pytest.raises(ReplicaUnavailableError, match="no model today"):
            await pool.call()
        assert pool.statistics().shed["unavailable"] >= 1
        (tmp_path / "broken").unlink()
        await until(lambda: running(pool) == 1)
        assert await pool.call() == pids(pool)[0]
    assert "A replica is replaced in 0.25 s. Replica loop#" in caplog.text


async def test_the_pool_is_left_while_it_waits_to_try_again(tmp_path: Path) -> None:
    async with ReplicaPool(targets.FailsWhereItIsTold, init_args=(str(tmp_path),)) as pool:
        (tmp_path / "broken").touch()
        with pytest.raises(ReplicaDiedError):
            await pool.call_method("kill")
        with pytest.raises(ReplicaUnavailableError):
            await pool.call()
        await until(lambda: pool._block is not None and pool._block.crew.restarts.failures > 3)


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


async def test_a_replica_that_can_not_go_back_is_replaced() -> None:
    async with ReplicaPool(Model) as pool:
        (before,) = pids(pool)
        with pytest.raises(ValueError, match="not that one"):
            await pool.reconfigure(user_config={"refused by": "all"})
        await until(lambda: running(pool) == 1 and pids(pool) != [before])
        assert (await pool.call_method("configuration"))[1] is None


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


async def test_more_replicas_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    async with ReplicaPool(targets.SlowModel, init_args=(str(tmp_path),)) as pool:
        (tmp_path / "go").unlink()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(pool.reconfigure, num_replicas=2))
            await until(lambda: here(tmp_path) == 2)
            tasks.cancel_scope.cancel()
        await until(lambda: len(pids(pool)) == 1)


async def test_a_cancelled_reconfiguration_is_taken_back() -> None:
    async with ReplicaPool(Model, num_replicas=2, user_config="old") as pool:
        for n in range(1, 4):
            with anyio.CancelScope() as scope:
                await CancelAt(pool.reconfigure(user_config=f"new {n}"), n, scope.cancel)
            if not scope.cancelled_caught:
                break
        await pool.reconfigure(user_config="last")
        assert [config for _, config in await from_each(pool, "configuration")] == ["last"] * 2


@pytest.mark.parametrize("n", range(1, 6))
async def test_a_call_can_be_cancelled_at_each_await(n: int) -> None:
    async with ReplicaPool(targets.same, max_ongoing_requests=1) as pool:
        for _ in range(5):
            with anyio.CancelScope() as scope:
                await CancelAt(pool.call(1), n, scope.cancel)
            await until(lambda: is_idle(pool))
        assert await pool.call(2) == 2


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


@pytest.mark.parametrize("has", [True, False])
async def test_the_end_of_a_process_is_noticed_with_and_without_a_file_for_it(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    if not has:
        monkeypatch.delattr(os, "pidfd_open")
    async with ReplicaPool(Model) as pool:
        (before,) = pids(pool)
        os.kill(before, signal.SIGKILL)
        await until(lambda: pids(pool) not in ([], [before]))


async def test_nothing_is_left_of_a_process_that_can_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ReplicaUnavailableError, match="No process could be started"):
        async with ReplicaPool(Model):
            pytest.fail("it was entered")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_replicas", 0),
        ("num_replicas", float("inf")),
        ("max_ongoing_requests", 0),
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


@pytest.mark.parametrize(
    ("anyio_backend", "share"),
    [("asyncio", 1), (("asyncio", {"use_uvloop": True}), 10), ("trio", 10)],
)
async def test_chaos(share: int) -> None:
    """Replicas are killed at random under a steady load; no call hangs, or gets a wrong answer."""
    kills = max(1, int(os.environ.get("LOADSHED_KILLS", "50")) // share)
    rng = random.Random(1)
    done: Counter[str] = Counter()
    before = len(os.listdir("/proc/self/fd"))
    async with ReplicaPool(targets.same, num_replicas=2, max_queued_requests=4) as pool:
        stopped = False

        async def call(number: int) -> None:
            value = number
            while not stopped:
                value += 100
                try:
                    assert await pool.call(value) == value
                    done["served"] += 1
                except ReplicaError:
                    done["died"] += 1
                except BackPressureError:
                    done["shed"] += 1
                    await anyio.sleep(0.001)

        def is_serving(since: int) -> bool:
            return running(pool) == 2 and done["served"] > since

        def is_replaced(times: int) -> bool:
            return pool.statistics().restarts == times

        async with anyio.create_task_group() as tasks:
            for number in range(16):
                tasks.start_soon(call, number)
            for killed in range(kills):
                served = done["served"]
                await until(partial(is_serving, served))
                os.kill(rng.choice(pids(pool)), signal.SIGKILL)
                await until(partial(is_replaced, killed + 1))
            await until(lambda: running(pool) == 2)
            stopped = True
        assert is_idle(pool)
        seen = pool.statistics()
        assert seen.admitted == seen.completed
        assert seen.max_ongoing_requests == 10
        assert done["served"] >= kills
    assert len(os.listdir("/proc/self/fd")) == before


def test_statistics_can_be_pickled_and_made_into_dicts() -> None:
    statistics = ReplicaPool(Model).statistics()
    assert pickle.loads(pickle.dumps(statistics)) == statistics  # noqa: S301
    assert dataclasses.asdict(statistics)["replicas"] == ()


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
