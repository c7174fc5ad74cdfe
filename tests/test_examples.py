"""Each example is run as its docstring says, over real HTTP where it serves any."""

import asyncio
import importlib.util
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

Served = Callable[[Any], AbstractContextManager[str]]

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica imports what it runs, so the examples are modules as they are for uvicorn."""
    monkeypatch.syspath_prepend(EXAMPLES.parent)


async def get_all(url: str, count: int) -> list[httpx.Response]:
    async with httpx.AsyncClient(timeout=30) as client:
        return await asyncio.gather(*(client.get(url) for _ in range(count)))


async def ask_all(url: str, patience: str, count: int) -> list[httpx.Response]:
    headers = {"X-Request-Timeout-Seconds": patience}
    async with httpx.AsyncClient(timeout=30, headers=headers) as client:
        asking = (client.post(url, json={"text": "Why?"}) for _ in range(count))
        return await asyncio.gather(*asking)


def test_every_example_is_tested_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {
        "app_in_replicas",
        "cpu_bound",
        "fastapi_app",
        "inner_app",
        "llm_gateway",
        "model_service",
        "plain_asgi",
        "resilient_client",
        "slow_database",
    }


def test_fastapi_serves_what_it_can_and_sheds_the_rest(served: Served) -> None:
    example = load("fastapi_app")
    with served(example.app) as url:
        answers = asyncio.run(get_all(f"{url}/report", 40))
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        metrics = httpx.get(f"{url}/metrics").text
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    assert all(answer.headers["retry-after"] for answer in answers if answer.is_error)
    # The timing decides how many of each there are; that nobody is lost is certain.
    figures = dict(line.rsplit(" ", 1) for line in metrics.splitlines())
    assert int(figures["reports_completed_total"]) == statuses[200]
    assert sum(int(figures[name]) for name in figures if "shed" in name) == statuses[503]
    assert figures["reports_ongoing"] == "0"


def test_plain_asgi_streams_to_those_who_fit_in(served: Served) -> None:
    example = load("plain_asgi")
    with served(example.app) as url:
        answers = asyncio.run(get_all(url, 4))
    assert [answer.text for answer in answers] == ["1\n2\n3\n4\n5\n"] * 4
    assert example.app.limiter.statistics().completed == 4


def test_the_slow_database_answers_four_of_nine() -> None:
    run = subprocess.run(  # noqa: S603, it is ours
        [sys.executable, EXAMPLES / "slow_database.py"], capture_output=True, text=True, check=True
    )
    *answers, limiter = run.stdout.splitlines()
    assert answers[:4] == ["42 visits"] * 4
    assert [answer.split(".")[1] for answer in answers[4:]] == [" Retry after 1 s"] * 5
    assert limiter == "<ConcurrencyLimiter 'database' ongoing=0/2 queued=0/2>"
    assert "Limiter: 'database'" in run.stderr  # the log line, where nobody has set logging up


def test_the_resilient_client_gets_everything_served() -> None:
    run = subprocess.run(  # noqa: S603, it is ours
        [sys.executable, EXAMPLES / "resilient_client.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    answers, turned_away, *attempts = run.stdout.splitlines()
    assert answers == "{200: 40}"
    # How many of them came while there was room is a matter of timing; some did not.
    assert int(turned_away.removeprefix("turned away at first: ")) > 0
    assert attempts[0] == "attempt 1: 503, after a wait of 0.00 s"
    assert attempts[-1].split(",")[0] == f"attempt {len(attempts)}: 200"


def test_the_gateway_keeps_to_the_models_limit_and_to_its_callers_patience(served: Served) -> None:
    example = load("llm_gateway")
    with served(example.app) as url:
        patient = asyncio.run(ask_all(f"{url}/ask", patience="10", count=30))
        hasty = asyncio.run(ask_all(f"{url}/ask", patience="0.5", count=30))
        careless = asyncio.run(ask_all(f"{url}/ask", patience="ten", count=1))
    assert [answer.json() for answer in patient] == [{"answer": "Why? Because."}] * 30
    # The model answers 20 a second: the others would have to wait for longer than they do.
    statuses = Counter(answer.status_code for answer in hasty)
    assert statuses.keys() == {200, 503}
    assert all(answer.headers["retry-after"] == "1" for answer in hasty if answer.is_error)
    assert [answer.status_code for answer in careless] == [200]


def test_what_computes_in_processes_answers_five_of_nine() -> None:
    run = subprocess.run(  # noqa: S603, it is ours
        [sys.executable, EXAMPLES / "cpu_bound.py"], capture_output=True, text=True, check=True
    )
    *answers, pool = run.stdout.splitlines()
    assert answers[:5] == ["9592 primes"] * 5
    assert [answer.split(".")[1] for answer in answers[5:]] == [" Retry after 1 s"] * 4
    assert pool == "<ReplicaPool 'count_primes' replicas=2/2 ongoing=0/2 queued=0/3>"


@pytest.mark.usefixtures("importable")
def test_the_model_answers_from_its_replicas(served: Served) -> None:
    example = importlib.import_module("examples.model_service")
    with served(example.app) as url:
        answer = httpx.post(f"{url}/predict", json=[[1, 2, 3], [0, 0, 1]], timeout=30)
        assert answer.json() == pytest.approx([14, 3])
        assert httpx.post(f"{url}/predict", json=[], timeout=30).json() == []


@pytest.mark.usefixtures("importable")
def test_an_application_runs_in_replicas(served: Served) -> None:
    example = importlib.import_module("examples.app_in_replicas")
    with served(example.app) as url:
        answers = asyncio.run(get_all(f"{url}/primes/30000", 20))
    done = [answer.json() for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer["primes"] for answer in done} == {3245}
    assert len({answer["pid"] for answer in done}) == 2
