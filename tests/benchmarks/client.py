"""What the retrying client costs where nothing fails, beside what others do and bare httpx.

The transport inside is a mock, so what is measured is all that a request costs but the network.
"""

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import httpx_retries
import stamina
import tenacity

from loadshed.client import AsyncClient, AsyncRetryTransport, Client, Retry, RetryTransport
from tests.benchmarks.report import in_turns, ratio, show

ROUNDS = 41
CALLS = 300
IMPORTS = 9
URL = "http://localhost/"
UNLIMITED = Retry(attempt_timeout=None, deadline=None)


def answer(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text="Hello, world!")


async def answer_async(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, text="Hello, world!")


def mock() -> httpx.MockTransport:
    return httpx.MockTransport(answer)


def mock_async() -> httpx.MockTransport:
    return httpx.MockTransport(answer_async)


def getting(client: httpx.Client) -> Callable[[], Any]:
    return lambda: client.get(URL)


def getting_async(client: httpx.AsyncClient) -> Callable[[], Awaitable[Any]]:
    return lambda: client.get(URL)


def with_tenacity() -> Callable[[], Any]:
    client = httpx.Client(transport=mock())
    return tenacity.retry(stop=tenacity.stop_after_attempt(6))(getting(client))


def with_tenacity_async() -> Callable[[], Awaitable[Any]]:
    client = httpx.AsyncClient(transport=mock_async())

    @tenacity.retry(stop=tenacity.stop_after_attempt(6))
    async def get() -> Any:
        return await client.get(URL)

    return get


def with_stamina() -> Callable[[], Any]:
    client = httpx.Client(transport=mock())
    return stamina.retry(on=httpx.HTTPError)(getting(client))


def with_stamina_async() -> Callable[[], Awaitable[Any]]:
    client = httpx.AsyncClient(transport=mock_async())

    @stamina.retry(on=httpx.HTTPError)
    async def get() -> Any:
        return await client.get(URL)

    return get


BARE = "httpx"
SYNC: dict[str, Callable[[], Callable[[], Any]]] = {
    BARE: lambda: getting(httpx.Client(transport=mock())),
    "RetryTransport without timeouts": lambda: getting(
        httpx.Client(transport=RetryTransport(mock(), retry=UNLIMITED))
    ),
    "RetryTransport": lambda: getting(httpx.Client(transport=RetryTransport(mock()))),
    "Client without timeouts": lambda: getting(Client(transport=mock(), retry=UNLIMITED)),
    "Client": lambda: getting(Client(transport=mock())),
    "httpx-retries": lambda: getting(
        httpx.Client(transport=httpx_retries.RetryTransport(transport=mock()))
    ),
    "tenacity around the call": with_tenacity,
    "stamina around the call": with_stamina,
}
ASYNC: dict[str, Callable[[], Callable[[], Awaitable[Any]]]] = {
    BARE: lambda: getting_async(httpx.AsyncClient(transport=mock_async())),
    "AsyncRetryTransport without timeouts": lambda: getting_async(
        httpx.AsyncClient(transport=AsyncRetryTransport(mock_async(), retry=UNLIMITED))
    ),
    "AsyncRetryTransport": lambda: getting_async(
        httpx.AsyncClient(transport=AsyncRetryTransport(mock_async()))
    ),
    "AsyncClient without timeouts": lambda: getting_async(
        AsyncClient(transport=mock_async(), retry=UNLIMITED)
    ),
    "AsyncClient": lambda: getting_async(AsyncClient(transport=mock_async())),
    "httpx-retries": lambda: getting_async(
        httpx.AsyncClient(transport=httpx_retries.RetryTransport(transport=mock_async()))
    ),
    "tenacity around the call": with_tenacity_async,
    "stamina around the call": with_stamina_async,
}
TARGETS = {
    "RetryTransport without timeouts": 1.05,
    "RetryTransport": 1.12,
    "AsyncRetryTransport without timeouts": 1.10,
    "AsyncRetryTransport": 1.25,
}


def per_call(get: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        get()
    return (time.perf_counter() - start) / CALLS


async def per_await(get: Callable[[], Awaitable[Any]]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        await get()
    return (time.perf_counter() - start) / CALLS


def sync_sides() -> dict[str, Callable[[], float]]:
    return {name: _side(make()) for name, make in SYNC.items()}


def async_sides(runner: asyncio.Runner) -> dict[str, Callable[[], float]]:
    return {name: _async_side(runner, make()) for name, make in ASYNC.items()}


def _side(get: Callable[[], Any]) -> Callable[[], float]:
    return lambda: per_call(get)


def _async_side(runner: asyncio.Runner, get: Callable[[], Awaitable[Any]]) -> Callable[[], float]:
    return lambda: runner.run(per_await(get))


def compare(title: str, sides: dict[str, Callable[[], float]]) -> None:
    print(f" a request that succeeds at once, {title}")
    in_turns(1, sides)  # warm
    gc.collect()
    results = in_turns(ROUNDS, sides)
    for name in sides:
        median = sorted(results[name])[ROUNDS // 2]
        target = TARGETS.get(name, 0)
        show(name, f"{median * 1e6:,.1f} us", ratio(results, name, BARE), at_most=target)


def import_seconds(statement: str) -> float:
    """Seconds that a new interpreter takes for it, less what it takes for nothing."""
    code = (
        f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", code]
    # With compiled modules, as pip installs them.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    result = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=True, env=environment
    )
    return float(result.stdout)


def imports() -> None:
    print(" importing it")
    ours, theirs = "import loadshed.client", "import httpx, tenacity"
    sides = {theirs: lambda: import_seconds(theirs), ours: lambda: import_seconds(ours)}
    in_turns(1, sides)  # compiled by now
    results = in_turns(IMPORTS, sides)
    for name in sides:
        median = sorted(results[name])[IMPORTS // 2]
        target = 1.1 if name == ours else 0
        show(name, f"{median * 1e3:,.0f} ms", ratio(results, name, theirs), at_most=target)


def main() -> None:
    compare("sync", sync_sides())
    with asyncio.Runner() as runner:
        compare("async", async_sides(runner))
    imports()
