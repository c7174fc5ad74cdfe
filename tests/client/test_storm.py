"""Never a storm: what a server gets that turns everything away."""

import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import urllib3

from loadshed.client import AsyncClient, Client, Retry, RetryBudget

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


def report(who: str, requests: int, attempts: int) -> None:
    print(f"{who}: {attempts} attempts for {requests} requests, {attempts / requests:.2f} each")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_turns_everything_away_gets_no_storm() -> None:
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
    report("loadshed, asyncio", REQUESTS, attempts)
    assert statuses == [503] * REQUESTS
    # All of the budget is used, and no more.
    assert REQUESTS + RESERVE < attempts <= most(time.monotonic() - began)


def test_nor_does_it_from_many_threads() -> None:
    began = time.monotonic()
    with ScriptedServer(Answer(503)) as server:
        with (
            Client(retry=QUICK, verify=TLS, trust_env=False) as client,
            ThreadPoolExecutor(8) as threads,
        ):
            answers = list(threads.map(client.get, [server.url] * REQUESTS))
        attempts = len(server.requests)
    report("loadshed, threads", REQUESTS, attempts)
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


def test_urllib3_would_make_six_times_as_many_requests() -> None:
    requests = 200
    policy = urllib3.Retry(
        total=5, backoff_factor=0, status_forcelist=[500, 501, 502, 503, 504], raise_on_status=False
    )
    with ScriptedServer(Answer(503)) as server:
        with urllib3.PoolManager(retries=policy) as pool:
            statuses = [pool.request("GET", server.url).status for _ in range(requests)]
        attempts = len(server.requests)
    report("urllib3", requests, attempts)
    assert statuses == [503] * requests
    assert attempts == 6 * requests
