"""Watch: how a replica is looked after, and from when on."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from loadshed._pool.watch import STUCK, Watch


class Watched:
    """A replica that is well, or not, and may be stuck."""

    def __init__(self) -> None:
        self.is_well = True
        self.hangs = False
        self.checks: list[float] = []
        self.given_up: list[str] = []
        self.busy_since: float | None = None
        self._deserted = anyio.Event()

    async def ask(self, _kind: int) -> None:
        self.checks.append(anyio.current_time())
        if self.hangs:
            await anyio.sleep_forever()
        if not self.is_well:
            raise RuntimeError("ill")

    def give_up(self, reason: str) -> None:
        self.given_up.append(reason)

    def desert(self) -> None:
        """The caller of all that it works on has gone."""
        self.busy_since = anyio.current_time()
        self._deserted.set()

    async def next_desertion(self) -> None:
        await self._deserted.wait()
        self._deserted = anyio.Event()

    @property
    def seconds_in_vain(self) -> float | None:
        return None if self.busy_since is None else anyio.current_time() - self.busy_since


def watching(test: Callable[[Watched, Watch], Any]) -> None:
    """Hours pass at once."""

    async def main() -> None:
        replica: Any = Watched()
        async with anyio.create_task_group() as tasks:
            await test(replica, Watch(replica, tasks))
            tasks.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


BEGIN: dict[str, Any] = {"period": None, "timeout": None, "request_timeout_s": None}


def test_its_health_is_checked_as_often_as_was_said_last() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        begun = anyio.current_time()
        watch.begin(**BEGIN | {"period": 10, "timeout": 1})
        await anyio.sleep(35)
        watch.begin(**BEGIN | {"period": 2, "timeout": 1})
        await anyio.sleep(5)
        assert [round(each - begun) for each in replica.checks] == [10, 20, 30, 37, 39]
        watch.begin(**BEGIN)
        await anyio.sleep(100)
        assert len(replica.checks) == 5

    watching(test)


def test_two_ways_in_the_same_moment_are_the_last_one() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        for period in (1, 2, 10):
            watch.begin(**BEGIN | {"period": period, "request_timeout_s": 1})
        await anyio.sleep(25)
        assert len(replica.checks) == 2
        assert len(watch._scopes) == 2

    watching(test)


@pytest.mark.parametrize("hangs", [False, True])
def test_one_that_fails_three_times_is_given_up_once(hangs: bool) -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        replica.is_well, replica.hangs = False, hangs
        watch.begin(**BEGIN | {"period": 10, "timeout": 3})
        await anyio.sleep(29)
        assert replica.given_up == []
        await anyio.sleep(100)
        reason = "no answer within 3 s" if hangs else "RuntimeError('ill')"
        assert replica.given_up == [f"its health checks failed ({reason})"]

    watching(test)


def test_one_that_recovers_begins_anew() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        watch.begin(**BEGIN | {"period": 10, "timeout": 3})
        await anyio.sleep(5)  # between two checks
        for is_well in (False, False, True, False, False, True):
            replica.is_well = is_well
            await anyio.sleep(10)
        assert replica.given_up == []

    watching(test)


def test_a_check_that_is_under_way_is_given_up_with_the_way_it_belongs_to() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        replica.hangs = True
        watch.begin(**BEGIN | {"period": 1})  # and wait for ever
        await anyio.sleep(100)
        assert len(replica.checks) == 1
        replica.hangs = False
        watch.begin(**BEGIN | {"period": 1, "timeout": 1})
        await anyio.sleep(5.5)
        assert len(replica.checks) == 6

    watching(test)


def test_one_whose_threads_do_not_return_is_given_up() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        watch.begin(**BEGIN | {"request_timeout_s": 5})
        replica.desert()
        await anyio.sleep(5 + STUCK - 0.1)
        assert replica.given_up == []
        await anyio.sleep(0.2)
        assert replica.given_up == ["every thread was busy for 5 s with a request"]

    watching(test)


def test_one_whose_threads_return_in_time_is_not() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        watch.begin(**BEGIN | {"request_timeout_s": 5})
        for _ in range(3):
            replica.desert()
            await anyio.sleep(4)
            replica.busy_since = None
            await anyio.sleep(100)
        assert replica.given_up == []

    watching(test)


@pytest.mark.parametrize("after", [0.5, 2, 7])
@pytest.mark.parametrize("timeout", [5, 3])
def test_one_that_is_stuck_is_given_up_though_it_is_looked_after_in_another_way_now(
    after: float, timeout: float
) -> None:
    """A config is deployed while a request is stuck: no other one comes to be deserted."""

    async def test(replica: Watched, watch: Watch) -> None:
        watch.begin(**BEGIN | {"request_timeout_s": 7})
        replica.desert()
        await anyio.sleep(after)
        watch.begin(**BEGIN | {"request_timeout_s": timeout})
        await anyio.sleep(100)
        assert len(replica.given_up) == 1

    watching(test)


def test_one_that_was_stuck_before_anybody_looked_is_given_up_too() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        watch.begin(**BEGIN)
        replica.desert()
        await anyio.sleep(50)
        watch.begin(**BEGIN | {"request_timeout_s": 5})
        await anyio.sleep(0.1)
        assert len(replica.given_up) == 1

    watching(test)


def test_nobody_looks_where_that_is_not_wanted() -> None:
    async def test(replica: Watched, watch: Watch) -> None:
        watch.begin(**BEGIN | {"request_timeout_s": 5, "period": 1})
        watch.begin(**BEGIN)
        replica.is_well = False
        replica.desert()
        await anyio.sleep(1e4)
        assert replica.given_up == []
        assert replica.checks == []

    watching(test)
