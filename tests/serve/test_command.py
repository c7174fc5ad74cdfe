"""The command line, as a user has it: real servers, real files."""

import json
import os
import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest
import yaml

from tests.serve.conftest import Loadshed, until


def test_a_deployment_is_run_looked_at_and_shut_down(loadshed: Loadshed) -> None:
    loadshed.config()
    loadshed.start("model:app", "--app-dir", "code", "--port", "0", "--num-replicas", "2")
    assert loadshed.get().json()["version"] == "1"
    assert loadshed.get("/-/healthz").text == "success"
    assert loadshed.get("/-/routes").json() == {"/": "default"}
    shown = loadshed.command("status", "--json")
    assert shown.returncode == 0, shown.stderr
    status = json.loads(shown.stdout)
    application = status["applications"]["default"]
    assert (status["pid"], application["status"], application["message"]) == (
        loadshed.pid,
        "RUNNING",
        "",
    )
    model = application["deployments"]["Model"]
    assert (model["status"], model["replica_states"]) == ("HEALTHY", {"RUNNING": 2})
    assert [each["state"] for each in model["replicas"]] == ["RUNNING", "RUNNING"]
    assert sum(each["served"] for each in model["replicas"]) == 1
    assert model["latency_ms"]["p50"] == model["latency_ms"]["p99"] > 0
    shown = loadshed.command("status")
    assert shown.returncode == 0
    assert "HEALTHY" in shown.stdout
    assert "2/2" in shown.stdout
    config = yaml.safe_load(loadshed.command("config").stdout)
    assert config["applications"][0]["import_path"] == "model:app"
    assert config["applications"][0]["deployments"] == [{"name": "Model", "num_replicas": 2}]
    assert loadshed.command("shutdown").returncode == 0
    assert loadshed.ended() == 0
    for command in ("status", "config", "shutdown"):
        gone = loadshed.command(command)
        assert gone.returncode == 3
        assert "No server runs at" in gone.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_when_what_came_is_served(loadshed: Loadshed, how: int) -> None:
    loadshed.start(loadshed.config())
    url = loadshed.url
    with httpx.stream("GET", f"{url}/", timeout=30):
        pass
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as slow:
        slow.sendall(b"GET /?sleep=2 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: ongoing(loadshed) == 1)
        assert loadshed.end(how) == 0
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
    assert "Traceback" not in loadshed.errors


def ongoing(loadshed: Loadshed) -> int:
    model = loadshed.status()["applications"]["default"]["deployments"]["Model"]
    return int(model["ongoing_requests"])


def test_a_plain_asgi_application_and_a_builder_with_arguments_are_run(loadshed: Loadshed) -> None:
    loadshed.write(
        "plain.py",
        """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def home(request):
    return PlainTextResponse(f"{request.url.path} {request.scope['root_path']} {os.getpid()}")

app = Starlette(routes=[Route("/home", home)])

def build(args):
    assert args == {"a": "1", "b": "x=y"}
    return app
""",
    )
    loadshed.start("plain:app", "--port", "0", "--route-prefix", "/api", "--name", "mine")
    path, root, pid = loadshed.get("/api/home").text.split()
    assert (path, root) == ("/api/home", "/api")
    assert int(pid) != loadshed.pid
    assert loadshed.get("/home").status_code == 404
    loadshed.end()
    loadshed.start("plain:build", "a=1", "b=x=y", "--port", "0")
    assert loadshed.get("/home").status_code == 200


def test_its_socket_is_for_its_user_alone(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    socket_ = loadshed.directory / "loadshed" / "control.sock"
    assert stat.S_IMODE(socket_.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket_.parent.stat().st_mode) == 0o700
    loadshed.end()
    assert not socket_.exists()


def test_two_servers_need_two_addresses(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    second = loadshed.command("run", "config.yaml")
    assert second.returncode == 2
    assert f"(pid {loadshed.pid} has it)" in second.stderr
    other = Loadshed(loadshed.directory)
    try:
        other.start("config.yaml", "--address", "other.sock")
        assert other.get().status_code == 200
        assert loadshed.command("status", "--address", "other.sock").returncode == 0
    finally:
        other.close()
    taken = loadshed.url.rpartition(":")[2]
    third = loadshed.command("run", "config.yaml", "--address", "third.sock", "--port", taken)
    assert third.returncode == 2
    assert "port must be one that is free on 127.0.0.1" in third.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Say what to run"),
        (["nonsense"], "import_path must be"),
        (["nowhere:app"], "No module named 'nowhere'"),
        (["model:nothing"], "module 'model' has no attribute 'nothing'"),
        (["model:VERSION"], "must be where to find a bound deployment"),
        (["model:Model"], "call its `bind`"),
        (["model:app", "key"], "an argument must be KEY=VALUE, not 'key'."),
        (["model:app", "key=value"], "args must be left out"),
        (["model:app", "--num-replicas", "0"], "num_replicas must be a whole number >= 1, not 0."),
        (["model:app", "--port", "70000"], "port"),
        (["model:app", "--host", "no.such.host.invalid"], "host must be an address"),
        (["model:app", "--resume"], "With --resume there can't be 'model:app'."),
        (["--resume"], "the goal of a server that ran at this address"),
        (["missing.yaml"], "No such file"),
        (["config.yaml", "--num-replicas", "2"], "With a config file there can't be"),
        (["model:app", "--address", "x" * 120], "at most 100 bytes"),
        (["model:app", "--address", ""], "it must be a path, and is empty"),
        (["model:app", "--address", "/proc/x/y"], "where a socket can be made"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(
    loadshed: Loadshed, arguments: list[str], said: str
) -> None:
    loadshed.config()
    port = () if "--port" in arguments else ("--port", "0")
    run = loadshed.command("run", *arguments, *port, "--app-dir", "code")
    assert run.returncode == 2, run.stderr
    assert said in run.stderr
    assert "loadshed/_" not in run.stderr.replace("loadshed/serve/_hosted", "").replace(
        "loadshed/serve/_source", ""
    ).replace("loadshed/_replica/target", "")


def test_what_can_not_start_is_told_and_is_failure(loadshed: Loadshed) -> None:
    loadshed.write(
        "broken.py",
        """
from loadshed.serve import deployment

@deployment
class Broken:
    def __init__(self):
        raise RuntimeError("no weights")

    def __call__(self):
        pass

app = Broken.bind()
""",
    )
    run = loadshed.command("run", "broken:app", "--port", "0")
    assert run.returncode == 1
    assert "DEPLOY_FAILED" in run.stderr
    assert "RuntimeError: no weights" in run.stderr


HANGS = "import time\ntime.sleep(1000)\n"


def test_code_that_hangs_as_it_is_imported_holds_up_neither_a_signal_nor_a_deploy(
    loadshed: Loadshed,
) -> None:
    loadshed.write("hangs.py", HANGS)
    hanging = Loadshed(loadshed.directory)
    try:
        hanging.start("hangs:app", "--port", "0", until=": STARTING")
        assert hanging.get("/-/healthz").status_code == 503
        assert hanging.end(signal.SIGTERM) == 0
        loadshed.start(loadshed.config())
        loadshed.write("code/model.py", HANGS)
        waiting = loadshed.background("deploy", "config.yaml")
        until(lambda: bool(children(loadshed.pid) - {each["pid"] for each in replicas(loadshed)}))
        loadshed.deploy(loadshed.config(version="2"))
        _, errors = waiting.communicate(timeout=60)
        assert waiting.returncode == 2
        assert "was given up: another one has been deployed." in errors
        assert loadshed.get().json()["version"] == "2"
    finally:
        hanging.close()


def replicas(loadshed: Loadshed) -> list[dict[str, int]]:
    model = loadshed.status()["applications"]["default"]["deployments"]["Model"]
    return list(model["replicas"])


def children(pid: int) -> set[int]:
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_a_second_signal_ends_it_at_once(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    port = int(loadshed.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET /?sleep=1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: ongoing(loadshed) == 1)
        os.kill(loadshed.pid, signal.SIGTERM)
        until(lambda: is_closed(port))
        assert loadshed.end(signal.SIGTERM) == 1
    assert "Traceback" not in loadshed.errors


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_reload_replaces_replicas_and_a_mistake_in_the_code_leaves_them(
    loadshed: Loadshed,
) -> None:
    loadshed.config()
    loadshed.start("model:app", "--app-dir", "code", "--port", "0", "--reload")
    assert loadshed.get().json()["version"] == "1"
    loadshed.config(version="2")
    until(lambda: bool(loadshed.get().json()["version"] == "2"))
    loadshed.write("code/model.py", "nonsense")
    touch(loadshed.directory / "code" / "model.py", later=10)
    until(lambda: loadshed.status()["generation"] == 2)
    assert loadshed.get().json()["version"] == "2"
    loadshed.config(version="3")
    touch(loadshed.directory / "code" / "model.py", later=20)
    until(lambda: bool(loadshed.get().json()["version"] == "3"))


def touch(path: Path, later: float) -> None:
    time = path.stat().st_mtime + later
    os.utime(path, (time, time))


def test_build_writes_a_file_that_can_be_run(loadshed: Loadshed) -> None:
    loadshed.config()
    printed = loadshed.command("build", "model:app", "--app-dir", "code")
    assert printed.returncode == 0
    assert "max_ongoing_requests: 10" in printed.stdout
    written = loadshed.command("build", "model:app", "--app-dir", "code", "-o", "built.yaml")
    assert written.returncode == 0
    assert (loadshed.directory / "built.yaml").read_text() == printed.stdout
    loadshed.start("built.yaml", "--app-dir", "code", "--port", "0")
    assert loadshed.get().status_code == 200
    wrong = loadshed.command("build", "model:nothing", "--app-dir", "code")
    assert wrong.returncode == 2
    assert "no attribute 'nothing'" in wrong.stderr
    (loadshed.directory / "image").mkdir()
    loadshed.write("image/model.py", (loadshed.directory / "code" / "model.py").read_text())
    container = loadshed.command("build", "model:app", "--container", "image", "--name", "model")
    assert container.returncode == 0, container.stderr
    assert {path.name for path in (loadshed.directory / "image").glob("*.*")} >= {
        "config.yaml",
        "kubernetes.yaml",
    }
    assert (loadshed.directory / "image" / "Dockerfile").exists()
    again = loadshed.command("build", "model:app", "--container", "image")
    assert again.returncode == 2
    assert "Dockerfile" in again.stderr


def test_schema_prints_json(loadshed: Loadshed) -> None:
    schema = json.loads(loadshed.command("schema").stdout)
    assert "applications" in schema["properties"]


def test_watch_redraws_until_the_server_ends(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    with loadshed.background("status", "--watch") as watching:
        assert watching.stdout is not None
        while "Model" not in watching.stdout.readline():
            pass
        assert loadshed.command("shutdown").returncode == 0
        _, errors = watching.communicate(timeout=60)
    assert watching.returncode == 3
    assert "No server runs at" in errors


def test_watching_ends_with_control_c(loadshed: Loadshed) -> None:
    loadshed.start(loadshed.config())
    with loadshed.background("status", "--watch") as watching:
        assert watching.stdout is not None
        while "Model" not in watching.stdout.readline():
            pass
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    assert watching.returncode == 0
