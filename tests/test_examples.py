"""Each example is run as its docstring says, over real HTTP where it serves any."""

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from loadshed.serve import running

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
        "fastapi_ingress",
        "inner_app",
        "llm_gateway",
        "model_service",
        "plain_asgi",
        "resilient_client",
        "slow_database",
        "slow_deployment",
        "two_stages",
    }
    assert {path.name for path in EXAMPLES.glob("*.yaml")} == {"serve_config.yaml"}


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


class Loadshed:
    """A server that `loadshed run` has started, and the commands for it."""

    def __init__(self, url: str, control: httpx.Client, env: dict[str, str]) -> None:
        self.url = url
        self._control = control
        self._env = env

    def deployment(self, application: str, name: str) -> dict[str, Any]:
        """What `loadshed status --json` says of a deployment, sooner."""
        status = self._control.get("http://loadshed/status").json()
        return dict(status["applications"][application]["deployments"][name])

    def deploy(self, file: Path) -> None:
        command = [sys.executable, "-m", "loadshed", "deploy", str(file)]
        subprocess.run(command, env=self._env, check=True, capture_output=True, timeout=60)  # noqa: S603


@contextmanager
def loadshed_run(tmp_path: Path, *arguments: str) -> Iterator[Loadshed]:
    address = tmp_path / "control.sock"
    env = os.environ | {"LOADSHED_ADDRESS": str(address), "XDG_STATE_HOME": str(tmp_path / "state")}
    with (
        httpx.Client(transport=httpx.HTTPTransport(uds=str(address))) as control,
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "loadshed", "run", *arguments, "--port", "0"],
            cwd=EXAMPLES.parent,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        try:
            assert server.stderr is not None
            line = next((line for line in server.stderr if ": RUNNING" in line), "")
            yield Loadshed(line.split()[-1], control, env)
        finally:
            server.terminate()
            server.communicate(timeout=60)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never did"
        time.sleep(0.01)


def test_the_slow_deployment_answers_four_of_nine(tmp_path: Path) -> None:
    with (
        loadshed_run(tmp_path, "examples.slow_deployment:app") as server,
        ThreadPoolExecutor(9) as threads,
    ):

        def ask(count: int) -> list[Any]:
            return [threads.submit(httpx.get, server.url, timeout=30) for _ in range(count)]

        def are(ongoing: int, queued: int) -> Callable[[], bool]:
            def condition() -> bool:
                now = server.deployment("default", "SlowDeployment")
                return (now["ongoing_requests"], now["queued_requests"]) == (ongoing, queued)

            return condition

        run = ask(2)
        until(are(2, 0))
        wait = ask(2)
        until(are(2, 2))
        shed = [each.result() for each in ask(5)]
        assert not any(each.done() for each in (*run, *wait))
        served = [each.result() for each in (*run, *wait)]
    assert [(each.status_code, each.text) for each in served] == [(200, "Hello!")] * 4
    assert [each.status_code for each in shed] == [503] * 5
    assert all(int(each.headers["retry-after"]) > 0 for each in shed)


@pytest.mark.usefixtures("importable")
def test_a_full_model_behind_another_stage_is_a_503() -> None:
    example = importlib.import_module("examples.two_stages")

    async def ask() -> list[httpx.Response]:
        async with running(example.app, port=0) as server, httpx.AsyncClient(timeout=30) as client:
            asking = (client.post(server.url, content="Bound what waits") for _ in range(12))
            answers = [*await asyncio.gather(*asking), await client.post(server.url)]
            shed = {
                name: sum(each["shed"].values())
                for name, each in server.status()["default"]["deployments"].items()
            }
        assert shed == {"Model": sum(each.status_code == 503 for each in answers), "Service": 0}
        return answers

    *answers, empty = asyncio.run(ask())
    assert empty.status_code == 400
    # Two run and four wait; the timing decides whether one of them ends before the last has come.
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    assert statuses[200] >= 6
    assert {answer.text for answer in answers if answer.is_success} == {"dnuob\ntahw\nstiaw\n"}
    assert all(answer.headers["retry-after"] for answer in answers if answer.is_error)


@pytest.mark.usefixtures("importable")
def test_endpoints_are_methods_of_the_model() -> None:
    example = importlib.import_module("examples.fastapi_ingress")

    async def ask() -> None:
        async with (
            running(example.app, port=0) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as client,
        ):
            answer = await client.post("/predict", json={"values": [1, 2, 3]})
            assert answer.json() == 14
            assert (await client.post("/predict", json={"values": [1]})).status_code == 422
            replicas = server.status()["default"]["deployments"]["Model"]["replicas"]
            assert (await client.get("/pid")).json() in {each["pid"] for each in replicas}
            assert (await client.get("/docs")).status_code == 200

    asyncio.run(ask())


def test_a_config_file_is_changed_while_it_serves(tmp_path: Path) -> None:
    file = tmp_path / "serve_config.yaml"
    shutil.copytree(EXAMPLES / "greeter", tmp_path / "greeter")
    file.write_text((EXAMPLES / "serve_config.yaml").read_text())
    with loadshed_run(tmp_path, str(file)) as server:
        assert httpx.get(server.url, timeout=30).text == "Good morning, Ann!\n"
        before = server.deployment("greeter", "Greeter")["replicas"]
        file.write_text(file.read_text().replace("Good morning", "Good night"))
        server.deploy(file)
        assert httpx.get(server.url, timeout=30).text == "Good night, Ann!\n"
        after = server.deployment("greeter", "Greeter")["replicas"]
        assert [each["pid"] for each in after] == [each["pid"] for each in before]
