"""What a `ConcurrencyLimiter` costs, beside what others do and beside nothing at all."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from aiolimiter import AsyncLimiter
from hyx.bulkhead import bulkhead

from loadshed import BackPressureError, ConcurrencyLimiter, Criticality, KneeLimit
from loadshed._policy.admission import Admission
from loadshed._policy.ticket import Ticket
from tests.benchmarks.report import in_turns, ratio, show

ROUNDS = 25
CALLS = 20_000
FEW, MANY = 100, 100_000


class Empty:
    """An async context manager that does nothing: what every other one is measured against."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc: object) -> None: ...


class Refusing(Empty):
    async def __aenter__(self) -> None:
        raise RuntimeError("no")


async def refuse() -> None:
    raise RuntimeError("no")


async def nothing() -> None: ...


async def per_block(manager: Any) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        async with manager:
            pass
    return (time.perf_counter() - start) / CALLS


async def per_shed_block(manager: Any, error: type[Exception]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        try:
            async with manager:
                pass
        except error:
            pass
    return (time.perf_counter() - start) / CALLS


async def per_call(function: Callable[[], Awaitable[Any]]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        await function()
    return (time.perf_counter() - start) / CALLS


async def per_refusal(function: Callable[[], Awaitable[Any]], error: type[Exception]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        try:  # noqa: SIM105 - `suppress` would cost more than what is measured
            await function()
        except error:
            pass
    return (time.perf_counter() - start) / CALLS


def measured(sides: dict[str, Callable[[], Awaitable[float]]], rounds: int = ROUNDS) -> Any:
    """Rounds of coroutines, each in this one event loop, with the garbage collector off."""
    with asyncio.Runner() as runner:
        gc.disable()
        try:
            run = {name: _in(runner, side) for name, side in sides.items()}
            return in_turns(rounds, run)
        finally:
            gc.enable()


def _in(runner: asyncio.Runner, side: Callable[[], Awaitable[float]]) -> Callable[[], float]:
    async def once() -> float:
        return await side()

    return lambda: runner.run(once())


def _value(results: dict[str, list[float]], name: str) -> str:
    seconds = sorted(results[name])[len(results[name]) // 2]
    return f"{seconds * 1e9:,.0f} ns"


def uncontended() -> None:
    print(" a free permit, around an empty block")
    untyped: Any = bulkhead
    managers: dict[str, Callable[[], Any]] = {  # made in the loop that they are used in
        "an empty async context manager": Empty,
        "async with ConcurrencyLimiter(10)": lambda: ConcurrencyLimiter(10),
        "asyncio.Semaphore(10)": lambda: asyncio.Semaphore(10),
        "anyio.Semaphore(10, fast_acquire=True)": lambda: anyio.Semaphore(10, fast_acquire=True),
        "anyio.CapacityLimiter(10)": lambda: anyio.CapacityLimiter(10),
        "hyx bulkhead": lambda: untyped(max_concurrency=10, max_capacity=10),
        "aiolimiter.AsyncLimiter (a rate limiter)": lambda: AsyncLimiter(1e9, 1),
    }

    def side(make: Callable[[], Any]) -> Callable[[], Awaitable[float]]:
        return lambda: per_block(make())

    results = measured({name: side(make) for name, make in managers.items()})
    base = "an empty async context manager"
    ours = "async with ConcurrencyLimiter(10)"
    for name in managers:
        show(
            name,
            _value(results, name),
            ratio(results, name, base),
            at_most=1.5 if name == ours else 0,
        )


async def per_release(limiter: ConcurrencyLimiter, permits: int = 1000) -> float:
    held = [await limiter.acquire() for _ in range(permits)]
    start = time.perf_counter()
    for permit in held:
        permit.release()
    return (time.perf_counter() - start) / permits


async def per_acquire(limiter: ConcurrencyLimiter, permits: int = 1000) -> float:
    start = time.perf_counter()
    held = [await limiter.acquire() for _ in range(permits)]
    seconds = (time.perf_counter() - start) / permits
    for permit in held:
        permit.release()
    return seconds


def learning() -> None:
    print(" what it costs to learn: permits of a limiter with a number, and of one that finds it")
    number = ConcurrencyLimiter(10_000)
    found = ConcurrencyLimiter(KneeLimit(10_000, lowest=10_000))
    results = measured(
        {
            "an empty async context manager": lambda: per_block(Empty()),
            "acquire, a number": lambda: per_acquire(number),
            "acquire, KneeLimit": lambda: per_acquire(found),
            "release, a number": lambda: per_release(number),
            "release, KneeLimit": lambda: per_release(found),
        }
    )
    for name in results:
        show(name, _value(results, name), ratio(results, name, "an empty async context manager"))
    more = sorted(
        after - before
        for before, after in zip(
            results["release, a number"], results["release, KneeLimit"], strict=True
        )
    )[len(results["release, a number"]) // 2]
    show("release, KneeLimit, more than a number", f"{more * 1e9:,.0f} ns", more / 1e-6, at_most=1)


def line_of(length: int) -> Admission[Ticket]:
    """A full line of requests of all classes and many tenants."""
    admission: Admission[Ticket] = Admission(1, length, order="adaptive_lifo")
    for ticket in requests(length + 1):
        admission.offer(ticket, 0.0)
    return admission


def requests(count: int) -> list[Ticket]:
    classes = list(Criticality)
    return [
        Ticket(criticality=classes[n % 4], tenant=n % 997, expires_at=1e9 + n) for n in range(count)
    ]


async def per_displacement(admission: Admission[Ticket], times: int = 2000) -> float:
    """Requests that come to a full line: each takes another one's place, or is shed."""
    tickets = requests(times)
    start = time.perf_counter()
    for ticket in tickets:
        admission.offer(ticket, 1.0)
    return (time.perf_counter() - start) / times


def displaced() -> None:
    print(" a request that comes to a full line of all classes and a thousand tenants")
    few, many = 100, 10_000
    lines = {count: line_of(count) for count in (few, many)}
    results = measured(
        {f"{count:,} wait": lambda count=count: per_displacement(lines[count]) for count in lines}  # type: ignore[misc]
    )
    for name in results:
        show(
            name,
            _value(results, name),
            ratio(results, name, f"{few:,} wait"),
            at_most=2 if name.startswith(f"{many:,}") else 0,
        )


def decorated() -> None:
    print(" around an empty async function")
    limiter = ConcurrencyLimiter(10)

    async def permit() -> None:
        with await limiter.acquire():
            pass

    decorated = limiter(nothing)
    results = measured(
        {
            "await f()": lambda: per_call(nothing),
            "await limiter(f)()": lambda: per_call(decorated),
            "with await limiter.acquire()": lambda: per_call(permit),
        }
    )
    for name in results:
        show(name, _value(results, name), ratio(results, name, "await f()"))


def shed() -> None:
    print(" a request that is turned away")
    full = ConcurrencyLimiter(1, 0)
    full.acquire_nowait()

    async def acquire_nowait() -> None:
        full.acquire_nowait()

    plain, block = "await f() that raises RuntimeError", "async with c that raises RuntimeError"
    results = measured(
        {
            plain: lambda: per_refusal(refuse, RuntimeError),
            "await limiter.acquire()": lambda: per_refusal(full.acquire, BackPressureError),
            "limiter.acquire_nowait()": lambda: per_refusal(acquire_nowait, BackPressureError),
            block: lambda: per_shed_block(Refusing(), RuntimeError),
            "async with limiter": lambda: per_shed_block(full, BackPressureError),
        }
    )
    for name in results:
        base = block if name in {block, "async with limiter"} else plain
        target = 0 if name in {plain, block} else 3
        show(name, _value(results, name), ratio(results, name, base), at_most=target)


async def per_waiter(make: Callable[[], Any], waiters: int, times: int) -> float:
    """So many tasks queue for one slot, and go through it one after the other."""
    seconds = 0.0
    for _ in range(times):
        manager = make()

        async def use(manager: Any = manager) -> None:
            async with manager:
                pass

        async with manager:
            start = time.perf_counter()
            tasks = [asyncio.create_task(use()) for _ in range(waiters)]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        seconds += time.perf_counter() - start
    return seconds / (waiters * times)


def queued() -> None:
    print(f" a task that is queued, granted and released: {MANY:,} at a time beside {FEW}")
    for name, make in {
        "ConcurrencyLimiter": lambda: ConcurrencyLimiter(1, MANY),
        "asyncio.Semaphore": lambda: asyncio.Semaphore(1),
    }.items():
        results = measured(
            {
                "few": lambda make=make: per_waiter(make, FEW, max(1, MANY // FEW // 4)),  # type: ignore[misc]
                "many": lambda make=make: per_waiter(make, MANY, 1),  # type: ignore[misc]
            },
            rounds=min(ROUNDS, 5),
        )
        show(
            name,
            _value(results, "many"),
            ratio(results, "many", "few"),
            at_most=1.5 if name == "ConcurrencyLimiter" else 0,
        )


async def waiter_bytes(make: Callable[[], Any], waiters: int = 10_000) -> float:
    """What each queued task takes in memory: itself, its future, and its place in the queue."""
    manager = make()

    async def use() -> None:
        async with manager:
            pass

    async with manager:
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        tasks = [asyncio.create_task(use()) for _ in range(waiters)]
        await asyncio.sleep(0)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    await asyncio.gather(*tasks)
    return (after - before) / waiters


def memory() -> None:
    print(" memory for each queued waiter, its task included")
    sides: dict[str, Callable[[], Any]] = {
        "asyncio.Semaphore": lambda: asyncio.Semaphore(1),
        "ConcurrencyLimiter": lambda: ConcurrencyLimiter(1, 10_000),
        "ConcurrencyLimiter with max_wait": lambda: ConcurrencyLimiter(1, 10_000, max_wait=1000),
        "anyio.CapacityLimiter": lambda: anyio.CapacityLimiter(1),
    }
    results = {name: asyncio.run(waiter_bytes(make)) for name, make in sides.items()}
    for name, size in results.items():
        show(name, f"{size:,.0f} bytes", size / results["asyncio.Semaphore"])


def main() -> None:
    for part in (uncontended, learning, decorated, shed, displaced, queued, memory):
        part()
