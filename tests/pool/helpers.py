"""What the tests of ReplicaPool need."""

import asyncio
import contextlib
import itertools
import os
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from loadshed import (
    ReplicaPool,
    ReplicaState,
)
from loadshed._policy.wire import Kind
from tests.helpers import CancelAt

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


def state_of(pid: int) -> str:
    """What a process does, in Linux's letters; X where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    """Whether it runs: one that has ended, and nobody has noticed, does not."""
    return state_of(pid) not in "ZX"


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


REPOSITORY = Path(__file__).parents[2]


At = Callable[[Awaitable[Any]], Awaitable[Any]]
"""Marks what of an operation is cancelled, at each of its awaits."""


def asked_for(pool: ReplicaPool) -> int:
    """How many replicas the pool is to have."""
    found = re.search(r"replicas=\d+/(\d+)", repr(pool))
    assert found is not None
    return int(found[1])


def is_settled(pool: ReplicaPool) -> bool:
    """It has all the replicas that it is to have and no other ones, and they have nothing to do."""
    states = [each.state for each in pool.statistics().replicas]
    return is_idle(pool) and states == [ReplicaState.RUNNING] * asked_for(pool)


async def serves(pool: ReplicaPool, *args: Any) -> None:
    """Nothing is left of what was cancelled, and the pool does what it did before."""
    await until(lambda: is_settled(pool))
    for _ in range(2):  # the second one finds the permit that the first one had
        await pool.call(*args)
    is_even(pool)


def is_even(pool: ReplicaPool) -> None:
    """The permits are back, and there are as many as there are slots: one for each replica."""
    seen = pool.statistics()
    assert is_idle(pool)
    assert seen.admitted == seen.completed
    assert seen.max_ongoing_requests == len(seen.replicas) == asked_for(pool)


def there_is() -> set[object]:
    """What must not become more: processes, zombies as well, descriptors, and threads."""
    children: set[str] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            children.update(file.read_text().split())
    return {
        *(f"process {pid}" for pid in children),
        *(f"descriptor {name}" for name in os.listdir("/proc/self/fd")),
        # The host of trio is pytest here, so it has a thread.
        *(each for each in threading.enumerate() if not each.name.startswith("Trio thread")),
    }


def is_over(pool: ReplicaPool, before: set[object]) -> None:
    """The pool has been left, and nothing of it has stayed."""
    assert there_is() - before == set()
    seen = pool.statistics()
    assert seen.replicas == ()
    assert is_idle(pool)
    assert seen.admitted == seen.completed
    assert seen.max_ongoing_requests == 0


async def at_each_await(
    operation: Callable[[At], Awaitable[object]],
    after: Callable[[], Awaitable[object]],
    *,
    shielded: bool = False,
    scoped: bool = False,
) -> None:
    """Cancel an operation at its first await, at its second one, ..., until it needs no more.

    By a cancel scope, then on asyncio by its task.

    Args:
        operation: What to do anew each time.
        after: What has to be so each time.
        shielded: Whether it may be done though its scope was cancelled. Its task may not: whoever
            cancels that does so only once.
        scoped: Whether it is in a cancelled scope of its own. Where that ends, older versions of
            anyio take a cancel of the task for one of theirs.
    """
    ways: list[Any] = [_by_its_scope, _by_its_task]
    for way in ways if asyncio._get_running_loop() else ways[:1]:
        for n in itertools.count(1):
            with anyio.fail_after(LONG):
                waits, was_cancelled = await way(operation, n)
                await after()
            if waits < n:
                assert n > 1
                assert not was_cancelled
                break
            # What comes in the same step as a cancel of its scope may have been the last it needs.
            was_last = way is _by_its_scope and waits == n
            assert was_cancelled or was_last or scoped or (shielded and way is _by_its_scope)


async def _by_its_scope(operation: Callable[[At], Awaitable[object]], n: int) -> tuple[int, bool]:
    marked: list[CancelAt[Any]] = []
    with anyio.CancelScope() as scope:
        await operation(lambda what: _mark(marked, CancelAt(what, n, scope.cancel)))
    return marked[0].waits, scope.cancelled_caught


async def _by_its_task(operation: Callable[[At], Awaitable[object]], n: int) -> tuple[int, bool]:
    marked: list[CancelAt[Any]] = []

    async def work() -> None:
        await operation(lambda what: _mark(marked, CancelAt(what, n, task.cancel)))

    task = asyncio.create_task(work())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return marked[0].waits, task.cancelled()


def _mark(marked: list[CancelAt[Any]], what: CancelAt[Any]) -> CancelAt[Any]:
    marked.append(what)
    return what


class Gate:
    """Keeps calls of `targets.until` until it is opened."""

    def __init__(self, directory: Path) -> None:
        self._path = Path(tempfile.mkdtemp(dir=directory))
        self.path = str(self._path)

    @property
    def is_reached(self) -> bool:
        return any(self._path.iterdir())

    @property
    def is_open(self) -> bool:
        return (self._path / "go").exists()

    def open(self) -> None:
        (self._path / "go").touch()

    async def open_when(self, condition: Callable[[], Any]) -> None:
        await until(lambda: self.is_open or condition())
        self.open()
