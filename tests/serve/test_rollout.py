"""What is deployed while it serves: nothing fails, and what can't be leaves what was there."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.serve.conftest import Loadshed, until

pytestmark = pytest.mark.long


class Load:
    """Requests, one after the other in a few threads, as long as a block lasts.

    Attributes:
        answers: How many there were, by status; exceptions by name.
    """

    def __init__(self, url: str) -> None:
        self.answers: Counter[object] = Counter()
        self.seconds: list[float] = []
        self._url = url
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._ends.wait(0.01):
                begin = time.perf_counter()
                try:
                    self.answers[client.get(self._url).status_code] += 1
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                self.seconds.append(time.perf_counter() - begin)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ends.set()
            for thread in self._threads:
                thread.join()


def model(loadshed: Loadshed) -> dict[str, Any]:
    application = loadshed.status()["applications"]["default"]
    return dict(application["deployments"]["Model"])


def pids(loadshed: Loadshed) -> set[int]:
    return {each["pid"] for each in model(loadshed)["replicas"]}


def test_nothing_fails_while_numbers_config_and_code_change(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config(num_replicas=1, user_config={"n": 0}))
    before = pids(loadshed)
    load = Load(loadshed.url)
    with load.going_on():
        for n in range(1, 21):
            loadshed.deploy(loadshed.config(num_replicas=1, user_config={"n": n}))
            assert loadshed.get().json()["config"] == {"n": n}
        assert pids(loadshed) == before
        loadshed.deploy(loadshed.config(num_replicas=4, user_config={"n": 20}))
        assert pids(loadshed) > before
        loadshed.deploy(loadshed.config(num_replicas=2, user_config={"n": 20}))
        there = pids(loadshed)
        assert len(there) == 2
        loadshed.deploy(loadshed.config(num_replicas=2, user_config={"n": 20}))
        assert pids(loadshed) == there
        for version in ("2", "3", "4"):
            loadshed.deploy(loadshed.config(version=version, num_replicas=2, user_config={"n": 20}))
            assert loadshed.get().json()["version"] == version
            assert not pids(loadshed) & there
            there = pids(loadshed)
        loadshed.deploy("--restart", "config.yaml")
        assert not pids(loadshed) & there
    assert set(load.answers) == {200}


def test_what_can_not_start_leaves_the_old_one_and_the_earlier_file_goes_back(
    loadshed: Loadshed,
) -> None:
    loadshed.start(loadshed.config(num_replicas=2))
    before = pids(loadshed)
    loadshed.write("code/model.py", BROKEN)
    load = Load(loadshed.url)
    with load.going_on():
        said = loadshed.deploy("config.yaml", code=1)
        assert "RuntimeError: no weights" in said
        application = loadshed.status()["applications"]["default"]
        assert application["status"] == "DEPLOY_FAILED"
        assert "RuntimeError: no weights" in application["message"]
        assert pids(loadshed) == before
        assert loadshed.get("/-/healthz").status_code == 200
        # A replica that dies meanwhile is replaced by one of the old code.
        os.kill(next(iter(before)), signal.SIGKILL)
        until(lambda: len(pids(loadshed) - before) == 1)
        assert {loadshed.get().json()["version"] for _ in range(8)} == {"1"}
        loadshed.deploy(loadshed.config(num_replicas=2))
        assert loadshed.status()["applications"]["default"]["status"] == "RUNNING"
    assert set(load.answers) <= {200, 502}  # the one that was killed may have had a request


BROKEN = """
from loadshed.serve import deployment

@deployment
class Model:
    def __init__(self):
        raise RuntimeError("no weights")

    def __call__(self):
        pass

app = Model.bind()
"""


MISTAKES: dict[str, dict[str, Any]] = {
    "config.yaml:1:": {"import_path": "model:nothing"},
    "in the code, 'Model', not 'Modell'": {"deployments": [{"name": "Modell"}]},
    "a whole number >= 1, not 0.": {"deployments": [{"name": "Model", "num_replicas": 0}]},
    "a directory that exists": {"runtime_env": {"working_dir": "nowhere"}},
    "did you mean 'import_path'?": {"import_pat": "x:y"},
}


def test_a_file_with_a_mistake_changes_nothing(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    before = pids(loadshed), loadshed.command("config").stdout
    for said, application in MISTAKES.items():
        assert said in loadshed.deploy(loadshed.config_of(application), code=2)
    assert (pids(loadshed), loadshed.command("config").stdout) == before
    assert loadshed.status()["generation"] == 1


def test_applications_come_and_go(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    two = loadshed.config_of({}, {"name": "second", "route_prefix": "/second"}, name="two.yaml")
    loadshed.deploy(two)
    assert loadshed.get("/-/routes").json() == {"/": "default", "/second": "second"}
    assert loadshed.get("/second").json()["pid"] != loadshed.get("/").json()["pid"]
    loadshed.deploy(loadshed.config_of({"name": "second", "route_prefix": "/other"}))
    assert loadshed.get("/-/routes").json() == {"/other": "second"}
    assert loadshed.get("/").status_code == 404
    assert loadshed.get("/other/x").status_code == 200
    assert set(loadshed.status()["applications"]) == {"second"}
    loadshed.deploy("--no-wait", loadshed.config_of())
    until(lambda: not loadshed.status()["applications"])


def test_a_server_that_was_killed_is_resumed_as_it_was(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config(num_replicas=1))
    loadshed.deploy(loadshed.config(num_replicas=2, user_config={"n": 1}))
    goal = yaml.safe_load(loadshed.command("config").stdout)
    before = pids(loadshed)
    load = Load(loadshed.url)
    with load.going_on():
        assert loadshed.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not any(map(is_alive, before)))
    loadshed.write("code/model.py", "nonsense")  # it goes on with the code that it had
    loadshed.start("--resume")
    assert yaml.safe_load(loadshed.command("config").stdout) == goal
    assert loadshed.get().json()["config"] == {"n": 1}
    assert len(pids(loadshed)) == 2
    assert loadshed.end() == 0
    loadshed.write("state/loadshed/default/goal.json", "{}")
    torn = loadshed.command("run", "--resume")
    assert torn.returncode == 2
    assert "what a server has saved" in torn.stderr


def test_what_served_is_resumed_where_the_last_file_had_failed(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    loadshed.write("code/model.py", BROKEN)
    loadshed.deploy("config.yaml", code=1)
    loadshed.end(signal.SIGKILL)
    loadshed.start("--resume", until="DEPLOY_FAILED")
    assert loadshed.get().json()["version"] == "1"
    assert "no weights" in loadshed.status()["applications"]["default"]["message"]
    loadshed.deploy(loadshed.config(version="2"))
    assert loadshed.get().json()["version"] == "2"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_can_only_change_with_a_new_server_is_a_warning(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    config = yaml.safe_load((loadshed.directory / "config.yaml").read_text())
    config["http_options"] = {"port": 1234, "request_timeout_s": 0.1}
    config["proxy_location"] = "EveryNode"
    loadshed.write("config.yaml", yaml.safe_dump(config))
    said = loadshed.deploy("config.yaml")
    assert "http_options.port is 0 as long as this server runs." in said
    assert "proxy_location" in said
    assert loadshed.get("/?sleep=5").status_code == 504
