"""ReplicaPool, with real processes, when these die or hang."""

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from loadshed import (
    BackPressureError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaPool,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from tests.pool import targets
from tests.pool.helpers import LONG, calling, is_idle, pids, running, until
from tests.pool.targets import Model

pytestmark = [pytest.mark.anyio, pytest.mark.long]


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


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (("exit", 3), "ended with exit code 3"),
        (("kill",), "was killed by SIGKILL"),
        (("kill", signal.SIGINT), "was killed by SIGINT"),
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


async def test_a_stream_that_has_begun_is_not_begun_anew() -> None:
    """What is still to be sent when the replica dies are acknowledgements, and no beginning."""
    async with ReplicaPool(Model, num_replicas=2, max_ongoing_requests=3) as pool:
        async with aclosing(pool.stream_method("blocks", 60, 20_000)) as items:
            assert len(await anext(items)) == 20_000
            (busy,) = [each.pid for each in pool.statistics().replicas if each.ongoing]
            assert pool._block is not None
            calls = [each for one in pool._block.crew.replicas for each in one._calls.values()]
            await until(lambda: len(calls[0].items) > 10)
            os.kill(busy, signal.SIGSTOP)
            async with calling(5, lambda: pool.call(b"x" * 50_000_000)) as results:
                await until(lambda: max(each.ongoing for each in pool.statistics().replicas) > 1)
                for _ in range(9):
                    await anext(items)
                os.kill(busy, signal.SIGKILL)
                with pytest.raises(ReplicaDiedError):
                    async for _ in items:
                        pass
    assert {*map(type, results)} <= {bytes, ReplicaDiedError}


async def test_a_call_to_one_that_has_just_died_goes_to_another() -> None:
    async with ReplicaPool(Model, num_replicas=2) as pool:
        for _ in range(3):
            await until(lambda: running(pool) == 2)
            dying = pids(pool)[0]
            os.kill(dying, signal.SIGKILL)
            # Nobody has noticed it yet.
            os.waitid(os.P_PID, dying, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
            async with calling(8, lambda: pool.call(1)) as results:
                pass
            assert results == [1] * 8


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
    ("anyio_backend", "share"),
    [("asyncio", 1), (("asyncio", {"use_uvloop": True}), 10), ("trio", 10)],
)
async def test_chaos(share: int) -> None:
    """Replicas are killed at random under a steady load; no call hangs, or gets a wrong answer."""
    kills = max(1, int(os.environ.get("LOADSHED_KILLS", "50")) // share)
    rng = random.Random(1)
    done: Counter[str] = Counter()
    before = len(os.listdir("/proc/self/fd"))
    async with ReplicaPool(
        targets.same, num_replicas=2, max_ongoing_requests=5, max_queued_requests=4
    ) as pool:
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
