"""What the command line has to do with Ray: `run --engine ray`, and the file for `serve deploy`."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml

from loadshed import ConfigError
from loadshed.ray_serve import build
from loadshed.ray_serve._run import _line, _serving, _url
from tests.ray.conftest import free_port

PROGRAM = """
from loadshed.serve import deployment

@deployment(request_timeout_s=7, ray_actor_options={"num_cpus": 0.01})
class Model:
    def __init__(self, word):
        self.word = word

    async def __call__(self):
        import os, somewhere
        return [self.word, os.environ.get("GIVEN"), os.getcwd(), somewhere.NAME]

app = Model.bind("one")

def make(args):
    return Model.bind(args["word"])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "somewhere.py").write_text("NAME = 'beside'")
    return tmp_path


def written(project: Path) -> Any:
    """The file of `loadshed build --engine ray`."""
    command = [
        sys.executable,
        "-c",
        "from loadshed._command import main; main()",
        "build",
        "--engine",
        "ray",
        "program:app",
    ]
    text = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return yaml.safe_load(text)


def test_the_file_for_ray_deploys_with_rays_own_command(cluster: Any, project: Path) -> None:
    config = written(project)
    config["http_options"] |= {"port": free_port(), "host": "127.0.0.1"}
    application = config["applications"][0]
    assert application["args"]["settings"] == {"Model": {"request_timeout_s": 7}}
    application["runtime_env"] = {"working_dir": f"local://{project}", "env_vars": {"GIVEN": "2"}}
    file = project / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    dashboard = f"http://{cluster.dashboard_url}"
    serve = str(Path(sys.executable).with_name("serve"))
    try:
        subprocess.run([serve, "deploy", "-a", dashboard, str(file)], check=True, timeout=60)  # noqa: S603
        url = f"http://127.0.0.1:{config['http_options']['port']}/"
        assert answer(url) == ["one", "2", str(project), "beside"]
    finally:
        subprocess.run([serve, "shutdown", "-a", dashboard, "-y"], check=True, timeout=60)  # noqa: S603


def answer(url: str) -> Any:
    """What it says, once it is there."""
    give_up = time.monotonic() + 40
    while True:
        with contextlib.suppress(httpx.TransportError):
            response = httpx.get(url, timeout=10)
            if response.status_code == 200:
                return response.json()
        assert time.monotonic() < give_up
        time.sleep(0.2)


class Process:
    """A program that serves, and the lines that it writes."""

    def __init__(self, *command: str, **options: Any) -> None:
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.all: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("the end")

    def wait_for(self, part: str) -> str:
        while True:
            line = self.lines.get(timeout=60)
            self.all.append(line)
            if part in line:
                return line
            assert line != "the end", "".join(self.all)

    def rest(self) -> list[str]:
        return list(iter(self.lines.get, "the end"))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def start(cluster: Any, project: Path) -> Iterator[Callable[..., Process]]:
    """Starts programs on the cluster, in the project."""
    started: list[Process] = []
    env = os.environ | {"RAY_ADDRESS": cluster.address_info["address"]}

    def start(*command: str) -> Process:
        started.append(Process(*command, env=env, cwd=project))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


COMMAND = """
import sys
from loadshed.serve._command.common import mistakes
from loadshed.serve._command.ray import serve_on_ray
from loadshed.serve._config.file import read
with mistakes():
    serve_on_ray(read(sys.argv[1]).config, app_dir=".", tune=dict(num_replicas=2))
"""


def test_a_config_is_served_until_it_is_told_to_end(
    start: Callable[..., Process], project: Path
) -> None:
    port = free_port()
    config = {
        "http_options": {"port": port},
        "applications": [
            {
                "name": "mine",
                "route_prefix": "/mine",
                "import_path": "program:make",
                "args": {"word": "two"},
                "runtime_env": {"env_vars": {"GIVEN": "3"}},
            }
        ],
    }
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    process = start("-c", COMMAND, "config.yaml")
    process.wait_for("mine: RUNNING (Model 2)")
    process.wait_for(f"Serving at http://127.0.0.1:{port} on Ray.")
    got = httpx.get(f"http://127.0.0.1:{port}/mine", timeout=10)
    assert got.json() == ["two", "3", str(project), "beside"]

    other = start("-c", COMMAND, "config.yaml")
    other.wait_for("Ray Serve is running on this cluster already")
    assert other.process.wait(timeout=60) == 1
    assert httpx.get(f"http://127.0.0.1:{port}/mine", timeout=10).status_code == 200

    assert process.end() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/mine", timeout=10)


def test_what_cannot_be_deployed_is_said(start: Callable[..., Process], project: Path) -> None:
    config = {"applications": [{"import_path": "program:make", "args": {"wrong": "x"}}]}
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    process = start("-c", COMMAND.replace("dict(num_replicas=2)", "{}"), "config.yaml")
    process.wait_for("default can't be deployed")
    process.wait_for("KeyError: 'word'")
    assert process.process.wait(timeout=60) == 1


MAIN = """
from fastapi import FastAPI
from loadshed.ray_serve import run
from loadshed.serve import deployment, ingress
from tests.ray.apps import SMALL

api = FastAPI()

@deployment(**SMALL)
class Inner:
    def __call__(self, x):
        return x + 1

@deployment(**SMALL)
@ingress(api)
class Outer:
    def __init__(self, inner):
        self.inner = inner

    @api.get("/next/{x}")
    async def next(self, x: int):
        return await self.inner.remote(x)

if __name__ == "__main__":
    run(Outer.bind(Inner.bind()), port=0, route_prefix="/here")
"""


def test_a_program_serves_until_ctrl_c(start: Callable[..., Process], project: Path) -> None:
    (project / "main.py").write_text(MAIN)
    process = start("main.py")
    url = process.wait_for("Serving at http").split()[2]
    assert httpx.get(f"{url}/here/next/2", timeout=10).json() == 3
    assert process.end(signal.SIGINT) == 0


BROKEN = """
from loadshed.ray_serve import run
from loadshed.serve import deployment

@deployment(max_constructor_retry_count=1)
class Broken:
    def __init__(self):
        raise OSError("no such thing")

if __name__ == "__main__":
    run(Broken.bind(), port=0)
"""


def test_a_program_that_cannot_be_deployed_ends(
    start: Callable[..., Process], project: Path
) -> None:
    (project / "main.py").write_text(BROKEN)
    process = start("main.py")
    process.wait_for("loadshed._errors.ReplicaUnavailableError: Deploying application default")
    assert process.process.wait(timeout=60) == 1
    assert "no such thing" in "".join([*process.all, *process.rest()])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "args.import_path must be a path"),
        ({"import_path": "x"}, "args.import_path must be a path"),
        ({"import_path": "x:y", "arg": 1}, r"did you mean 'args'\?"),
        (
            {"import_path": "tests.ray.apps:slow", "settings": {"SlowDeploymen": {}}},
            r"did you mean 'SlowDeployment'\?",
        ),
        (
            {
                "import_path": "tests.ray.apps:slow",
                "settings": {"SlowDeployment": {"request_timeout_s": "1"}},
            },
            "request_timeout_s must be a number",
        ),
    ],
)
def test_a_wrong_argument_of_the_file_is_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(args)


def test_a_cluster_that_the_program_has_is_not_ended(cluster: Any) -> None:
    assert cluster
    with _serving({"host": "127.0.0.1", "port": 0}, proxy_location="Disabled") as url:
        assert url.startswith("http://127.0.0.1:")
    assert ray.is_initialized()


def test_an_application_has_a_line_from_the_start() -> None:
    assert _line("mine", None) == "mine: NOT_STARTED"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
        ("host", "http://host:80"),
    ],
)
def test_the_url_is_one_that_can_be_reached(host: str, expected: str) -> None:
    assert _url(host, 80) == expected
