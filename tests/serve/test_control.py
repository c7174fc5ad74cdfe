"""How a server is told what to do: over a real socket."""

import contextlib
import gc
import socket
import warnings
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from loadshed import ConfigError
from loadshed.serve._address import claimed
from loadshed.serve._config.file import ConfigFileError, Mistake
from loadshed.serve._config.schema import HTTPOptions
from loadshed.serve._control import (
    Control,
    NoServerError,
    UnexpectedAnswerError,
    control_application,
)
from loadshed.serve._controller import Controller
from loadshed.serve._http_server import HTTPServer
from loadshed.serve._service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.long]

APP = """
from loadshed.serve import deployment

@deployment
class Model:
    def __call__(self):
        return "hello"
    def reconfigure(self, config): ...

app = Model.bind()
"""


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"use_uvloop": False}


@contextlib.contextmanager
def control_of(address: str) -> Iterator[Control]:
    """One whose connection is closed at the end; that of the command line ends with its process."""
    control = Control(address)
    try:
        yield control
    finally:
        control._client.close()


def is_nowhere(address: str) -> None:
    with warnings.catch_warnings():
        # httpcore does not close a socket that could not be connected.
        warnings.simplefilter("ignore", ResourceWarning)
        expected = r"No server runs at .* `loadshed run` starts one"
        with control_of(address) as control, pytest.raises(NoServerError, match=expected):
            control.status()
        gc.collect()


async def status_at(address: str) -> Any:
    with control_of(address) as control:
        return await anyio.to_thread.run_sync(control.status)


class Told:
    """A server that is told what to do, and who tells it."""

    def __init__(self, service: Service, control: Control) -> None:
        self.service = service
        self.control = control

    async def do(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await anyio.to_thread.run_sync(partial(getattr(self.control, name), *args, **kwargs))


@contextlib.asynccontextmanager
async def serving(app: Any, address: str) -> AsyncIterator[None]:
    with claimed(address) as listener:
        server = HTTPServer(app, listener)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            try:
                yield
            finally:
                server.stop(0)


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "told.py").write_text(APP)
    address = str(tmp_path / "control.sock")
    async with anyio.create_task_group() as tasks:
        controller = Controller(tasks)
        service = Service(controller, tmp_path / "state", str(tmp_path / "code"), HTTPOptions())
        async with serving(control_application(service), address):
            with control_of(address) as control:
                yield Told(service, control)
        await controller.close()
        tasks.cancel_scope.cancel()


def plain(**more: Any) -> dict[str, Any]:
    return {"applications": [{"import_path": "told:app", **more}]}


async def test_it_says_what_it_does_and_what_it_is_to_be(told: Told) -> None:
    assert await told.do("config") == {"applications": []}
    answer = await told.do("deploy", plain(), restart=False)
    assert answer == {"generation": 1, "warnings": []}
    assert await told.do("config") == plain()
    await told.service.controller.settled()
    status = await told.do("status")
    assert status["generation"] == 1
    assert status["applications"]["default"]["status"] == "RUNNING"
    assert status["applications"]["default"]["deployments"]["Model"]["target_num_replicas"] == 1


async def test_a_restart_is_asked_for(told: Told) -> None:
    versions = []
    for restart in (False, False, True):
        await told.do("deploy", plain(), restart=restart)
        versions.append(told.service.controller.goals["default"].code.version)
    assert versions[0] == versions[1] != versions[2]


async def test_a_warning_comes_back(told: Told) -> None:
    answer = await told.do(
        "deploy", {"applications": [], "http_options": {"port": 1}}, restart=False
    )
    (warning,) = answer["warnings"]
    assert warning == {
        "where": "http_options.port",
        "message": "is 8000 as long as this server runs.",
    }


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"applications": [{"import_path": "x"}]}, "applications[0].import_path"),
        ({}, "applications"),
        ([], ""),
        ({"applications": [{"import_path": "told:nothing"}]}, "applications[0].import_path"),
        (plain(deployments=[{"name": "Modl"}]), "applications[0].deployments[0].name"),
    ],
)
async def test_what_is_wrong_comes_back_as_it_is_and_changes_nothing(
    told: Told, wrong: Any, where: str
) -> None:
    with pytest.raises(ConfigFileError) as caught:
        await told.do("deploy", wrong, restart=False)
    (mistake,) = caught.value.mistakes
    assert isinstance(mistake, Mistake)
    assert mistake.where == where
    assert mistake.message
    assert told.service.generation == 0


async def test_infinity_can_be_told(told: Told) -> None:
    deployments = [{"name": "Model", "max_ongoing_requests": ".inf", "max_queued_requests": ".inf"}]
    await told.do("deploy", plain(deployments=deployments), restart=False)
    assert (await told.do("config"))["applications"][0]["deployments"] == deployments
    await told.service.controller.settled()
    assert (await told.do("status"))["applications"]["default"]["status"] == "RUNNING"


async def test_it_ends_when_it_is_told_to_and_answers_first(told: Told) -> None:
    await told.do("shutdown")
    with anyio.fail_after(20):
        await told.service.ended()


def test_where_no_server_is_that_is_said(tmp_path: Path) -> None:
    for address in (f"{tmp_path}/x.sock", f"{tmp_path}/not/there.sock", f"{tmp_path}/{'x' * 200}"):
        is_nowhere(address)


def test_a_server_that_was_killed_has_left_a_socket_where_nobody_is(tmp_path: Path) -> None:
    address = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
    is_nowhere(address)


def _answering(status: int, body: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"Internal Server Error", "did not answer: JSONDecodeError"),
        (200, b"hello", "did not answer: JSONDecodeError"),
        (404, b'{"detail": "x"}', r"The server answered <Response \[404 Not Found\]>: \{"),
    ],
)
async def test_a_server_that_is_none_of_ours_is_told_of(
    tmp_path: Path, status: int, body: bytes, said: str
) -> None:
    address = str(tmp_path / "x.sock")
    async with serving(_answering(status, body), address):
        with pytest.raises(UnexpectedAnswerError, match=said):
            await status_at(address)


async def test_mistakes_that_are_none_are_an_unexpected_answer(tmp_path: Path) -> None:
    address = str(tmp_path / "x.sock")
    async with serving(_answering(422, b"{}"), address):
        with pytest.raises(UnexpectedAnswerError):
            await status_at(address)


async def test_one_that_hangs_up_is_told_of(tmp_path: Path) -> None:
    address = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        async with anyio.create_task_group() as tasks:

            async def hang_up() -> None:
                connection, _ = await anyio.to_thread.run_sync(listener.accept)
                connection.close()

            tasks.start_soon(hang_up)
            with pytest.raises(UnexpectedAnswerError, match="did not answer: "):
                await status_at(address)


async def test_a_proxy_of_the_environment_has_no_say(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert (await status_at(told.control._address))["generation"] == 0


async def test_what_is_no_question_is_refused_and_what_can_not_be_saved_is_told() -> None:
    class Full:
        generation = 0

        async def deploy(self, *_: Any, **__: Any) -> None:
            raise ConfigError("XDG_STATE_HOME", "/x", "where files can be written")

    application = control_application(Full())  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app=application)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for content in (b"{", b"[]", b'{"config": 3}'):
            assert (await client.put("/config", content=content)).status_code == 400
        wanted = {"config": {"applications": []}, "restart": False, "file": ""}
        answer = await client.put("/config", json=wanted)
        assert answer.status_code == 500
        assert "where files can be written" in answer.json()["error"]
