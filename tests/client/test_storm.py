"""Never a storm: what a server gets that turns everything away."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx
import pytest
import urllib3

from loadshed.client import (
    AsyncClient,
    AsyncRetryTransport,
    Client,
    Retry,
    RetryBudget,
    RetryTransport,
)

from .calling import TLS
from .scripted import Answer, ScriptedServer

REQUESTS = 1000
RESERVE = 100
"""The budget's: 10 retries a second, for 10 seconds."""

TTL = 10
"""Seconds for which it remembers."""

MOST = 1.2 * REQUESTS + RESERVE

QUICK = Retry(backoff_factor=0)


def most(seconds: float) -> float:
    """The attempts that a default budget lets `REQUESTS` requests make in so long a time.

    On a machine so slow that what was first is forgotten before all is sent, the reserve is there
    more than once, and a request is seen from at most two stretches of `TTL` seconds.
    """
    return MOST if seconds < TTL else 1.4 * REQUESTS + RESERVE * (seconds // TTL + 1)


Report = Callable[[str, int], None]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Tells, in every run of the tests, how many attempts somebody made for `REQUESTS` requests."""

    def tell(who: str, attempts: int) -> None:
        each = f"{attempts / REQUESTS:.2f} each"
        with capsys.disabled():
            print(f"\n{who}: {attempts} attempts for {REQUESTS} requests, {each}")

    return tell


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_turns_everything_away_gets_no_storm(report: Report) -> None:
    statuses: list[int] = []
    began = time.monotonic()
    with ScriptedServer(Answer(503)) as server:
        async with AsyncClient(retry=QUICK, verify=TLS, trust_env=False) as client:

            async def ask() -> None:
                for _ in range(REQUESTS // 20):
                    response = await client.get(server.url)
                    statuses.append(response.status_code)

            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(ask)
        attempts = len(server.requests)
    report("loadshed, asyncio", attempts)
    assert statuses == [503] * REQUESTS
    # All of the budget is used, and no more.
    assert REQUESTS + RESERVE < attempts <= most(time.monotonic() - began)


def test_nor_does_it_from_many_threads(report: Report) -> None:
    began = time.monotonic()
    with ScriptedServer(Answer(503)) as server:
        with (
            Client(retry=QUICK, verify=TLS, trust_env=False) as client,
            ThreadPoolExecutor(8) as threads,
        ):
            answers = list(threads.map(client.get, [server.url] * REQUESTS))
        attempts = len(server.requests)
    report("loadshed, threads", attempts)
    assert {answer.status_code for answer in answers} == {503}
    assert REQUESTS + RESERVE < attempts <= most(time.monotonic() - began)


def test_nor_from_many_clients_that_share_a_budget() -> None:
    budget = RetryBudget()
    with ScriptedServer(Answer(503)) as server:
        for _ in range(10):
            with Client(retry=QUICK, budget=budget, verify=TLS, trust_env=False) as client:
                for _ in range(20):
                    client.get(server.url)
        assert 200 + RESERVE < len(server.requests) <= 1.2 * 200 + RESERVE


def test_each_origin_has_a_budget_of_its_own() -> None:
    with (
        ScriptedServer(Answer(503)) as storm,
        ScriptedServer(*[Answer(503), Answer()] * 10) as calm,
        Client(retry=QUICK, verify=TLS, trust_env=False) as client,
    ):
        for _ in range(40):
            client.get(storm.url)
        assert client.get(storm.url).extensions["loadshed"].stopped == "budget"
        assert [client.get(calm.url).status_code for _ in range(10)] == [200] * 10


@pytest.mark.parametrize("kind", [RetryTransport, AsyncRetryTransport])
def test_a_transport_has_a_budget_of_its_own_by_default(
    kind: type[RetryTransport | AsyncRetryTransport],
) -> None:
    one, other = kind(), kind()
    assert isinstance(one.budget, RetryBudget)
    assert isinstance(other.budget, RetryBudget)
    assert one.budget is not other.budget


TURNS_AWAY = httpx.MockTransport(lambda _: httpx.Response(503))


def test_nor_is_there_a_storm_from_a_transport_under_a_plain_client() -> None:
    transport = RetryTransport(TURNS_AWAY, retry=QUICK)
    with httpx.Client(transport=transport, trust_env=False) as client:
        responses = [client.get("http://localhost") for _ in range(REQUESTS // 10)]
    assert responses[-1].extensions["loadshed"].stopped == "budget"


@pytest.mark.anyio
async def test_nor_from_one_under_a_plain_async_client() -> None:
    transport = AsyncRetryTransport(TURNS_AWAY, retry=QUICK)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        responses = [await client.get("http://localhost") for _ in range(REQUESTS // 10)]
    assert responses[-1].extensions["loadshed"].stopped == "budget"


def test_urllib3_would_make_six_times_as_many_requests(report: Report) -> None:
    policy = urllib3.Retry(
        total=5, backoff_factor=0, status_forcelist=[500, 501, 502, 503, 504], raise_on_status=False
    )
    with ScriptedServer(Answer(503)) as server:
        with urllib3.PoolManager(retries=policy) as pool:
            statuses = [pool.request("GET", server.url).status for _ in range(REQUESTS)]
        attempts = len(server.requests)
    report("urllib3", attempts)
    assert statuses == [503] * REQUESTS
    assert attempts == 6 * REQUESTS
