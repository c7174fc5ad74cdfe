"""ReplicaPool, with real processes, when who called it is cancelled."""

import asyncio
from collections import Counter
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from loadshed import (
    ReplicaPool,
)
from tests.pool import targets
from tests.pool.helpers import (
    LONG,
    At,
    Gate,
    at_each_await,
    callers,
    is_even,
    is_settled,
    pids,
    serves,
    until,
)
from tests.pool.targets import Model
from tests.pool.targets_replica import Service

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unmeasured")]


ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


LARGE = 300_000
"""Bytes: more than a stream may be ahead of its consumer."""


# Requests.


async def test_a_call_can_be_cancelled_at_each_await() -> None:
    async with ReplicaPool(targets.same, max_ongoing_requests=1) as pool:

        async def operation(at: At) -> None:
            assert await at(pool.call(1)) == 1

        await at_each_await(operation, lambda: serves(pool, 1))
        assert pool.statistics().restarts == 0


async def test_a_call_that_is_queued_can_be_cancelled_at_each_await(tmp_path: Path) -> None:
    async with (
        ReplicaPool(targets.until_async, max_ongoing_requests=1) as pool,
        callers() as them,
    ):
        gate = Gate(tmp_path)

        async def operation(at: At) -> None:
            nonlocal gate
            gate = Gate(tmp_path)
            them.start(1, partial(pool.call, gate.path))
            await until(lambda: pool.statistics().ongoing)
            them.start(1, partial(gate.open_when, lambda: pool.statistics().queued))
            assert await at(pool.call(gate.path)) in pids(pool)

        async def after() -> None:
            gate.open()
            await serves(pool, gate.path)

        await at_each_await(operation, after)
        assert pool.statistics().restarts == 0
    assert {*map(type, them.results)} == {int, type(None)}


@pytest.mark.parametrize("what", ["queued", "ongoing"])
async def test_a_call_can_be_cancelled_as_it_gets_what_it_waits_for(
    tmp_path: Path, what: str
) -> None:
    async with (
        ReplicaPool(targets.until_async, max_ongoing_requests=1) as pool,
        callers() as them,
    ):
        for _ in range(20):
            gate = Gate(tmp_path)
            if what == "queued":
                them.start(1, partial(pool.call, gate.path))
                await until(lambda: pool.statistics().ongoing)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pool.call, gate.path)
                await until(lambda: getattr(pool.statistics(), what))
                gate.open()
                while getattr(pool.statistics(), what):
                    await checkpoint()
                tasks.cancel_scope.cancel()
            await serves(pool, gate.path)
    assert {*map(type, them.results)} <= {int}


@pytest.mark.parametrize("items", ["items", "items_async"])
async def test_a_consumer_can_be_cancelled_at_each_await(items: str) -> None:
    async with ReplicaPool(Service, max_ongoing_requests=1) as pool:

        async def operation(at: At) -> None:
            assert await at(consume()) == [LARGE] * 4

        async def consume() -> list[int]:
            async with aclosing(pool.stream_method(items, 4, LARGE)) as stream:
                return [len(item) async for item in stream]

        await at_each_await(operation, lambda: serves(pool, 1))
        assert pool.statistics().restarts == 0


async def test_a_consumer_that_is_queued_can_be_cancelled_at_each_await(tmp_path: Path) -> None:
    async with ReplicaPool(Model, max_ongoing_requests=1) as pool, callers() as them:
        gate = Gate(tmp_path)

        async def operation(at: At) -> None:
            nonlocal gate
            gate = Gate(tmp_path)
            them.start(1, partial(pool.call_method, "until", gate.path))
            await until(lambda: pool.statistics().ongoing)
            them.start(1, partial(gate.open_when, lambda: pool.statistics().queued))
            assert await at(consume()) == [0, 1]

        async def consume() -> list[int]:
            async with aclosing(pool.stream_method("count", 2)) as stream:
                return [item async for item in stream]

        async def after() -> None:
            gate.open()
            await serves(pool, 1)

        await at_each_await(operation, after)
    assert {*map(type, them.results)} == {int, type(None)}


class Request:
    """One of a server, which sends three parts and takes what comes."""

    def __init__(self, path: str, query: str = "") -> None:
        self.scope: dict[str, Any] = {"type": "http", "path": path, "method": "POST"}
        self.scope |= {"headers": [], "query_string": query.encode()}
        self.parts = [(b"x" * LARGE, True), (b"y" * LARGE, True), (b"z", False)]
        self.body = b""

    async def receive(self) -> Any:
        await checkpoint()
        if not self.parts:
            await anyio.sleep_forever()
        body, more = self.parts.pop(0)
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(self, message: Any) -> None:
        await checkpoint()
        self.body += message.get("body", b"")

    async def run(self, pool: ReplicaPool) -> bytes:
        await pool.asgi(self.scope, self.receive, self.send)
        return self.body


ECHO = b"x" * LARGE + b"y" * LARGE + b"z1 []"


async def serves_requests(pool: ReplicaPool) -> None:
    await until(lambda: is_settled(pool))
    assert await Request("/echo").run(pool) == ECHO
    is_even(pool)


async def test_a_request_can_be_cancelled_at_each_await() -> None:
    async with ReplicaPool("tests.pool.inner:app", max_ongoing_requests=1) as pool:

        async def operation(at: At) -> None:
            assert await at(Request("/echo").run(pool)) == ECHO

        await at_each_await(operation, lambda: serves_requests(pool), shielded=True)
        assert pool.statistics().restarts == 0


async def test_a_request_that_is_queued_can_be_cancelled_at_each_await(tmp_path: Path) -> None:
    async with (
        ReplicaPool("tests.pool.inner:app", max_ongoing_requests=1) as pool,
        callers() as them,
    ):
        gate = Gate(tmp_path)

        async def operation(at: At) -> None:
            nonlocal gate
            gate = Gate(tmp_path)
            them.start(1, partial(Request("/wait", gate.path).run, pool))
            await until(lambda: pool.statistics().ongoing)
            them.start(1, partial(gate.open_when, lambda: pool.statistics().queued))
            assert await at(Request("/echo").run(pool)) == ECHO

        async def after() -> None:
            gate.open()
            await serves_requests(pool)

        await at_each_await(operation, after, shielded=True)
        assert pool.statistics().restarts == 0
    assert {*map(type, them.results)} == {bytes, type(None)}


@ASYNCIO
async def test_timeouts_of_asyncio_end_calls() -> None:
    async with ReplicaPool("asyncio:sleep", max_ongoing_requests=1) as pool:
        seen: Counter[str] = Counter()
        for seconds in (0, 0.0005, 0.001, 0.002, 0.005, LONG):
            for duration in (0, 0.001, LONG * (seconds < LONG)):
                try:
                    async with asyncio.timeout(seconds):
                        await pool.call(duration)
                    seen["done"] += 1
                except TimeoutError:
                    seen["late"] += 1
                await serves(pool, 0)
        assert seen["done"] >= 3
        assert seen["late"] >= 5
