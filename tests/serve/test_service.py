"""What a server does about what it is told: it saves it first, and then has it reached."""

import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from loadshed import ConfigError
from loadshed.serve._config.file import ConfigFileError, from_plain
from loadshed.serve._config.schema import HTTPOptions, ServeConfig
from loadshed.serve._controller import Controller
from loadshed.serve._service import Service, saved
from tests.pool.helpers import until

pytestmark = [pytest.mark.anyio, pytest.mark.long]

APP = """
from loadshed.serve import deployment

@deployment(graceful_shutdown_timeout_s=5)
class Model:
    def __call__(self):
        return NUMBER

app = Model.bind()
"""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "code"
    path.mkdir()
    write(path, 1)
    return path


def write(path: Path, number: int) -> None:
    (path / "served.py").write_text(f"NUMBER = {number}\n{APP}")


def config(*applications: dict[str, Any], **http_options: Any) -> ServeConfig:
    return from_plain({"applications": [*applications], "http_options": http_options}).config


def app(**more: Any) -> dict[str, Any]:
    return {"import_path": "served:app", **more}


@contextlib.asynccontextmanager
async def service_of(code: Path, *, tidy: bool = False) -> AsyncIterator[Service]:
    async with anyio.create_task_group() as tasks:
        controller = Controller(tasks)
        service = Service(controller, code.parent / "state", str(code), HTTPOptions())
        if tidy:
            tasks.start_soon(service.tidy)
        try:
            yield service
        finally:
            with anyio.CancelScope(shield=True):
                await controller.close()
            tasks.cancel_scope.cancel()


async def answer(service: Service, path: str = "/") -> bytes:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": "GET", "headers": [], "query_string": b""}
    await service.controller.front(scope, receive, send)
    return b"".join(message.get("body", b"") for message in sent)


def on_disk(code: Path) -> Any:
    return json.loads((code.parent / "state" / "goal.json").read_text())


def copies(code: Path) -> list[str]:
    return sorted(os.listdir(code.parent / "state" / "code"))


async def test_what_it_is_told_is_saved_and_reached(code: Path) -> None:
    async with service_of(code) as service:
        assert service.generation == 0
        assert service.status()["proxies"] == {"": "STARTING"}
        wanted = config(app(name="a", route_prefix="/a"))
        assert await service.deploy(wanted) == []
        assert service.config is wanted
        assert on_disk(code)["config"]["applications"][0]["import_path"] == "served:app"
        service.url = "http://here"
        status = service.status()
        assert (status["pid"], status["url"], status["generation"]) == (
            os.getpid(),
            "http://here",
            1,
        )
        assert status["proxies"] == {"http://here": "STARTING"}
        assert status["applications"]["a"]["status"] == "DEPLOYING"
        await service.controller.settled()
        assert service.status()["applications"]["a"]["status"] == "RUNNING"
        assert service.status()["proxies"] == {"http://here": "HEALTHY"}
        assert await answer(service, "/a/x") == b"1"


async def test_what_is_wrong_changes_nothing(code: Path) -> None:
    async with service_of(code) as service:
        await service.deploy(config(app()))
        before = on_disk(code)
        with pytest.raises(ConfigFileError):
            await service.deploy(config(app(import_path="served:nothing")))
        assert on_disk(code) == before
        assert service.generation == 1
        await service.controller.settled()
        assert await answer(service) == b"1"


async def test_what_can_not_be_saved_changes_nothing(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "full")

    async with service_of(code) as service:
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", fail)
            with pytest.raises(ConfigError, match=r"XDG_STATE_HOME .*\(full\)"):
                await service.deploy(config(app()))
        assert service.generation == 0
        assert service.controller.goals == {}


async def test_of_several_deploys_the_last_one_counts(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = anyio.Event()

    async def hang(*_: Any, **__: Any) -> None:
        begun.set()
        await anyio.sleep_forever()

    outcomes: list[str] = []

    async with service_of(code) as service, anyio.create_task_group() as tasks:

        async def deploy(name: str) -> None:
            try:
                await service.deploy(config(app(name=name)))
            except ConfigFileError as error:
                outcomes.append(f"{name}: {error}")
            else:
                outcomes.append(f"{name} is deployed")

        goals = service.preparation.goals
        monkeypatch.setattr(service.preparation, "goals", hang)
        tasks.start_soon(deploy, "a")
        await begun.wait()
        tasks.start_soon(deploy, "b")
        await anyio.wait_all_tasks_blocked()
        monkeypatch.setattr(service.preparation, "goals", goals)
        await deploy("c")
        assert outcomes[-1] == "c is deployed"
        given_up = "the config was given up: another one has been deployed."
        assert sorted(outcomes[:-1]) == [f"a: {given_up}", f"b: {given_up}"]


async def test_what_has_no_effect_before_the_next_start_is_told(code: Path) -> None:
    async with service_of(code) as service:
        warnings = await service.deploy(config(port=1235, root_path="/x", request_timeout_s=3))
        assert [str(each) for each in warnings] == [
            "http_options.port is 8000 as long as this server runs.",
            "http_options.root_path is '' as long as this server runs.",
        ]
        assert await service.deploy(config(port=8000)) == []


async def test_the_same_once_more_takes_code_that_has_changed(code: Path) -> None:
    async with service_of(code) as service:
        await service.deploy(config(app()))
        await service.controller.settled()
        write(code, 2)
        await service.deploy(config(app()))
        await service.controller.settled()
        assert await answer(service) == b"1"  # nobody has said that its files are others
        await service.redeploy()
        await service.controller.settled()
        assert await answer(service) == b"2"
        assert service.generation == 3


async def test_copies_that_nothing_is_made_of_any_more_are_removed(code: Path) -> None:
    wanted = config(app(runtime_env={"working_dir": str(code)}))
    async with service_of(code, tidy=True) as service:
        await service.deploy(wanted)
        await service.controller.settled()
        (first,) = copies(code)
        write(code, 2)
        await service.deploy(wanted)
        await until(lambda: first not in copies(code))
        assert await answer(service) == b"2"
        assert len(copies(code)) == 1
        await service.deploy(config())
        await until(lambda: not copies(code))


async def test_a_server_goes_on_with_what_the_last_one_was_made_of(code: Path) -> None:
    wanted = config(app(runtime_env={"working_dir": str(code), "env_vars": {"A": "1"}}))
    async with service_of(code) as service:
        await service.deploy(wanted)
        goals = service.controller.goals
    write(code, 2)
    found = saved(code.parent / "state")
    again, app_dir, codes = found.config, found.app_dir, found.codes
    assert again == wanted
    assert app_dir == str(code)
    assert codes == {"default": goals["default"].code}
    async with service_of(code, tidy=True) as service:
        await service.deploy(again, codes=codes)
        await service.controller.settled()
        assert await answer(service) == b"1"
        await service.redeploy()
        await service.controller.settled()
        assert await answer(service) == b"2"


def test_where_nothing_was_saved_nothing_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resume must be the goal of a server that ran at this"):
        saved(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        "{}",
        '{"codes": []}',
        '{"codes": {"a": {}}, "config": {}, "app_dir": ""}',
        '{"codes": {"a": {"source": {}, "environment": {"paths": null}}}}',
        '{"codes": {"a": {"source": {"x": 1}, "environment": {"paths": []}, "version": "1"}}}',
        '{"codes": {}, "config": {"applications": 3}, "app_dir": "/"}',
        '{"codes": {}, "config": {"applications": []}}',
        '{"codes": {}, "config": {"applications": []}, "app_dir": 5, "file": ""}',
    ],
)
def test_what_was_not_saved_by_a_server_can_not_be_resumed(tmp_path: Path, text: str) -> None:
    (tmp_path / "goal.json").write_text(text)
    with pytest.raises(ConfigError):
        saved(tmp_path)


async def test_it_knows_when_its_code_was_changed_last(code: Path, tmp_path: Path) -> None:
    async with service_of(code) as service:
        os.utime(code / "served.py", (5, 5))
        (code / "data.txt").touch()
        assert service.newest() == 5
        module = tmp_path / "module"
        module.mkdir()
        (module / "x.py").touch()
        os.utime(module / "x.py", (7, 7))
        env = {"py_modules": [str(module)], "working_dir": str(code)}
        service.config = config(app(runtime_env=env))
        assert service.newest() == 7
    empty = tmp_path / "empty"
    empty.mkdir()
    async with service_of(empty) as service:
        assert service.newest() == 0


async def test_a_file_that_goes_as_it_is_looked_at_is_no_matter(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editors write a new file and rename it."""
    real = Path.stat
    gone = code / "served.py"
    looked: list[Path] = []

    def stat(path: Path, **more: Any) -> Any:
        if path == gone:
            looked.append(path)
            if len(looked) > 1:  # after `is_file`
                raise FileNotFoundError(path)
        return real(path, **more)

    async with service_of(code) as service:
        monkeypatch.setattr(Path, "stat", stat)
        assert service.newest() == 0


async def test_it_ends_when_it_is_told_to(code: Path) -> None:
    async with service_of(code) as service:
        assert not service.is_ending
        service.end()
        await service.ended()
        assert service.is_ending
