"""What a `ReplicaPool` costs, beside what others do and beside bare processes that do no more.

The floor of a call is an echo: asyncio's streams at both ends of a socket pair, and nothing that is
pickled, queued, routed or cancelled.
"""

import asyncio
import importlib
import importlib.util
import multiprocessing
import multiprocessing.forkserver
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import anyio.to_process
import numpy as np

from loadshed import ReplicaPool
from tests.benchmarks import echo
from tests.benchmarks.report import in_turns, ratio, show

ROUNDS = 11
CALLS = {1: 600, 5: 2_000, 64: 2_500, 100: 2_500}
"""How many calls are measured in a round, for each number of callers."""

SIZE = 100_000_000
LARGE_ROUNDS = 7
REPLICAS = 4
STARTS = 9
MEMORIES = 3
IDLE = 0.3

ROOT = Path(__file__).parent.parent.parent
SPAWN = multiprocessing.get_context("spawn")

Call = Callable[[Any], Awaitable[Any]]
Side = Callable[[], Awaitable[float]]


async def rounds(count: int, sides: Mapping[str, Side]) -> dict[str, list[float]]:
    """`in_turns`, for what has to stay in one event loop; the first round is a warm-up."""
    results: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(count + 1):
        for name, measure in sides.items():
            value = await measure()
            if number:
                results[name].append(value)
    return results


def median(results: Mapping[str, list[float]], name: str) -> float:
    return statistics.median(results[name])


def show_times(
    results: Mapping[str, list[float]], base: str, targets: Mapping[str, float], unit: str = "us"
) -> None:
    for name in results:
        value = median(results, name) * {"us": 1e6, "ms": 1e3}[unit]
        target = targets.get(name, 0)
        show(name, f"{value:,.1f} {unit}", ratio(results, name, base), at_most=target)


# A call.


@contextmanager
def child(kind: str, size: int = 0) -> Iterator[socket.socket]:
    """A process of `echo`, and the socket to it. Closing that ends it."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            descriptor = theirs.fileno()
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "tests.benchmarks.echo", kind, str(descriptor), str(size)],
                pass_fds=[descriptor],
                cwd=ROOT,
            )
        with process:
            yield ours
            ours.close()


@asynccontextmanager
async def floor() -> AsyncIterator[Call]:
    """What an echo costs that does nothing else. Any number of calls can be under way."""
    with child("stream") as connection:
        reader, writer = await asyncio.open_connection(sock=connection)
        waiting: deque[asyncio.Future[bytes]] = deque()

        async def read() -> None:
            with suppress(asyncio.IncompleteReadError):
                while True:
                    size = await reader.readexactly(4)
                    data = await reader.readexactly(int.from_bytes(size, "little"))
                    waiting.popleft().set_result(data)

        async def call(_: object) -> bytes:
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            waiting.append(future)
            writer.write(b"\x04\0\0\0abcd")
            return await future

        task = asyncio.create_task(read())
        try:
            yield call
        finally:
            writer.close()
            await task


async def seconds_a_call(call: Call, callers: int) -> float:
    each = max(1, CALLS[callers] // callers)

    async def work() -> None:
        for _ in range(each):
            await call(1)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(callers)))
    return (time.perf_counter() - start) / (callers * each)


def calling(call: Call, callers: int) -> Side:
    return lambda: seconds_a_call(call, callers)


def executor_call(executor: ProcessPoolExecutor) -> Call:
    return lambda x: asyncio.get_running_loop().run_in_executor(executor, echo.same, x)


def anyio_call() -> Call:
    one = anyio.CapacityLimiter(1)
    return lambda x: anyio.to_process.run_sync(echo.same, x, limiter=one)


def ray_call(stack: AsyncExitStack) -> Call | None:
    if not importlib.util.find_spec("ray"):
        print("  Ray is not installed")
        return None
    serve = importlib.import_module("ray.serve")
    stack.callback(serve.shutdown)
    handle = serve.run(serve.deployment(max_ongoing_requests=64)(echo.same_async).bind())
    remote: Call = handle.remote
    return remote


FLOOR = "a bare echo over a socket pair"
ASYNC, SYNC = "ReplicaPool, async function", "ReplicaPool, function"
RAY = "Ray Serve's handle, async function"


async def calls() -> None:
    async with AsyncExitStack() as stack:
        a_sync, sync = [
            await stack.enter_async_context(ReplicaPool(target, max_ongoing_requests=64))
            for target in (echo.same_async, echo.same)
        ]
        executor = stack.enter_context(ProcessPoolExecutor(1, mp_context=SPAWN))
        sides: dict[str, Call] = {
            FLOOR: await stack.enter_async_context(floor()),
            ASYNC: a_sync.call,
            SYNC: sync.call,
            "ProcessPoolExecutor and run_in_executor": executor_call(executor),
            "anyio.to_process.run_sync": anyio_call(),
        }
        ray = ray_call(stack)
        if ray is not None:
            sides[RAY] = ray
        targets: dict[int, dict[str, float]] = {1: {ASYNC: 1.5, SYNC: 2}, 64: {ASYNC: 3, SYNC: 5}}
        for callers, most in targets.items():
            print(f" a call that does nothing, in one process, {callers} at a time")
            results = await rounds(
                ROUNDS, {name: calling(call, callers) for name, call in sides.items()}
            )
            show_times(results, FLOOR, most)
            if ray is not None:
                least = 50 if callers == 64 else 0
                show("Ray's, beside ReplicaPool's", "", ratio(results, RAY, ASYNC), at_least=least)


async def cliff() -> None:
    print(" the same with max_ongoing_requests=5, and 100 callers")
    async with (
        floor() as bare,
        ReplicaPool(echo.same_async, max_ongoing_requests=5, max_queued_requests=100) as a_sync,
        ReplicaPool(echo.same, max_ongoing_requests=5, max_queued_requests=100) as sync,
    ):
        base = f"{FLOOR}, 5 at a time"
        sides = {
            base: calling(bare, 5),
            f"{ASYNC}, 5 callers": calling(a_sync.call, 5),
            f"{ASYNC}, 100 callers": calling(a_sync.call, 100),
            f"{SYNC}, 5 callers": calling(sync.call, 5),
            f"{SYNC}, 100 callers": calling(sync.call, 100),
        }
        results = await rounds(ROUNDS, sides)
        show_times(results, base, {f"{ASYNC}, 100 callers": 3})


# An array.


@contextmanager
def sharer(*, reuse: bool, copy: bool) -> Iterator[Callable[[Any], int]]:
    """Arrays in shared memory: copied there, and used where they are.

    Args:
        reuse: Whether both pieces of memory are kept for the next call. Then what is in them is
            good until that, and no longer.
        copy: Whether both ends copy what they get from there, so that they can keep it, as they can
            what comes through a socket.
    """
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(
        target=echo.echo_shared, args=(there,), kwargs={"reuse": reuse, "copy": copy}
    )
    process.start()
    kept: list[SharedMemory] = []

    def drop() -> None:
        for memory in kept:
            memory.close()
            memory.unlink()
        kept.clear()

    def call(array: Any) -> int:
        if not kept:
            kept.append(SharedMemory(create=True, size=array.nbytes))
        argument = kept[0]
        np.ndarray(array.shape, np.uint8, argument.buf)[:] = array
        here.send((argument.name, array.nbytes))
        name = here.recv()
        if len(kept) == 1:
            kept.append(SharedMemory(name))
        result = np.ndarray(array.shape, np.uint8, kept[1].buf)
        last = int((result.copy() if copy else result)[-1])
        del result
        if not reuse:
            drop()
        return last

    try:
        yield call
    finally:
        here.send(None)
        process.join()
        drop()
        here.close()
        there.close()
        process.close()


async def arrays() -> None:
    print(f" an array of {SIZE / 1e6:g} MB, there and back")
    array = np.ones(SIZE, np.uint8)
    async with AsyncExitStack() as stack:
        connection = stack.enter_context(child("large", SIZE))
        executor = stack.enter_context(ProcessPoolExecutor(1, mp_context=SPAWN))
        pool = await stack.enter_async_context(ReplicaPool(echo.same_async))

        async def through_socket(x: Any) -> Any:
            connection.sendall(x.data)
            return echo.receive(connection, SIZE)[-1]

        async def through_pool(x: Any) -> Any:
            return (await pool.call(x))[-1]

        async def through_executor(x: Any) -> Any:
            return (await executor_call(executor)(x))[-1]

        def through_shared(*, reuse: bool, copy: bool) -> Call:
            share = stack.enter_context(sharer(reuse=reuse, copy=copy))

            async def call(x: Any) -> Any:
                return share(x)

            return call

        base = "bytes over a bare socket pair"
        calls: dict[str, Call] = {
            base: through_socket,
            "ReplicaPool": through_pool,
            "shared memory, new for each call": through_shared(reuse=False, copy=False),
            "shared memory, used again; both ends copy": through_shared(reuse=True, copy=True),
            "shared memory, used again; nobody may keep it": through_shared(reuse=True, copy=False),
            "ProcessPoolExecutor": through_executor,
        }
        results = await rounds(LARGE_ROUNDS, {k: passing(v, array) for k, v in calls.items()})
    show_times(results, base, {}, "ms")


def passing(call: Call, array: Any) -> Side:
    async def measure() -> float:
        start = time.perf_counter()
        last = await call(array)
        seconds = time.perf_counter() - start
        assert last == 1
        return seconds

    return measure


# A process.


def bare(then: str = "", **settings: Any) -> subprocess.Popen[bytes]:
    """A process that imports what a replica does."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"import loadshed._replica.main, tests.benchmarks.echo; {then}"
    )
    return subprocess.Popen([sys.executable, "-P", "-c", code], **settings)  # noqa: S603


async def first_answer() -> float:
    start = time.perf_counter()
    async with ReplicaPool(echo.same_async, num_replicas=REPLICAS) as pool:
        await pool.call(1)
        return time.perf_counter() - start


def bare_processes() -> float:
    start = time.perf_counter()
    for process in [bare() for _ in range(REPLICAS)]:
        assert process.wait() == 0
    return time.perf_counter() - start


def forked(*, anew: bool) -> float:
    context = multiprocessing.get_context("forkserver")
    if anew:
        stop_forkserver()
    start = time.perf_counter()
    processes = [context.Process(target=echo.nothing) for _ in range(REPLICAS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    return time.perf_counter() - start


def stop_forkserver() -> None:
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


def starts() -> None:
    print(f" {REPLICAS} processes that are started side by side")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["loadshed._replica.main", "tests.benchmarks.echo"])
    base, ours = "bare processes that import the same, and end", "ReplicaPool, to the first answer"
    sides = {
        base: bare_processes,
        ours: lambda: asyncio.run(first_answer()),
        "of a forkserver that has imported the same": lambda: forked(anew=False),
        "and the forkserver itself": lambda: forked(anew=True),
    }
    # With compiled modules, as pip installs them.
    with patch.dict(os.environ, {"PYTHONDONTWRITEBYTECODE": ""}):
        in_turns(1, sides)
        results = in_turns(STARTS, sides)
    stop_forkserver()
    show_times(results, base, {ours: 1.5}, "ms")


def memory_of(pid: int) -> float:
    """Bytes, with its share of what it has in common with others (PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found
    return int(found[1]) * 1024


async def memories() -> dict[str, float]:
    """Both at the same time, as they share the pages of the interpreter."""
    wait = "print(flush=True); sys.stdin.read()"
    with bare(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        with closing(process.stdin):
            process.stdout.readline()
            async with ReplicaPool(echo.same_async) as pool:
                await pool.call(1)
                await asyncio.sleep(IDLE)
                [replica] = pool.statistics().replicas
                return {"bare": memory_of(process.pid), "pool": memory_of(replica.pid)}


def memory() -> None:
    print(" the memory of an idle process (PSS)")
    if not Path("/proc/self/smaps_rollup").exists():
        print("  is not told here")
        return
    results: dict[str, list[float]] = {"bare": [], "pool": []}
    for _ in range(MEMORIES):
        for name, size in asyncio.run(memories()).items():
            results[name].append(size)
    for name, what in {"bare": "an interpreter with the same modules", "pool": "a replica"}.items():
        show(
            what,
            f"{median(results, name) / 2**20:,.1f} MiB",
            ratio(results, name, "bare"),
            at_most=1.5 if name == "pool" else 0,
        )


def main() -> None:
    for part in (calls, cliff, arrays):
        asyncio.run(part())
    for other in (starts, memory):
        other()
