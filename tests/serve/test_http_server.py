"""uvicorn on a socket of ours, which serves what came before it ends."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import anyio
import httpx
import pytest

from loadshed import ConfigError
from loadshed.serve._http_server import HTTPServer, listen, url_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param}


class App:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.go = anyio.Event()
        self.cancelled = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/wait":
            self.begun.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["root_path"].encode()})


# listen and url_of.


def test_a_port_that_is_taken_is_told_of() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            listen("127.0.0.1", port)
    assert (caught.value.setting, caught.value.value) == ("port", port)
    assert caught.value.expected == "one that is free on 127.0.0.1 (Address already in use)"


def test_a_port_that_was_just_given_up_can_be_had() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()
    listen("127.0.0.1", port).close()


def test_whoever_connects_is_kept_until_somebody_serves() -> None:
    with listen("localhost", 0) as listener:
        address = listener.getsockname()[:2]
        connections = [socket.create_connection(address) for _ in range(200)]
        for each in connections:
            each.close()


@pytest.mark.parametrize(
    "host", ["256.1.1.1", "no such host", "x" * 300, "ü" * 70, "a..b", ""], ids=range(6)
)
def test_what_is_no_address_is_told_of(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^host must be an address of this machine \("):
        listen(host, 0)


def test_an_address_of_another_machine_is_told_of() -> None:
    with pytest.raises(ConfigError, match=r"\(Cannot assign requested address\)"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize("port", [-1, 65536, 70000, 2**40, 2**80])
def test_what_is_no_port_is_told_of(port: int) -> None:
    with pytest.raises(ConfigError, match=r"^port must be "):
        listen("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}"),
        ("0.0.0.0", "http://127.0.0.1:{}"),  # noqa: S104
        ("::1", "http://[::1]:{}"),
        ("::", "http://127.0.0.1:{}"),
    ],
)
async def test_it_can_be_reached_where_it_says(host: str, url: str) -> None:
    refused = ""
    try:
        listener = listen(host, 0)
    except ConfigError as error:
        refused = error.setting
    if refused:  # by a machine without IPv6
        assert ":" in host
        return
    assert url_of(listener) == url.format(listener.getsockname()[1])
    async with serving(App(), listener), httpx.AsyncClient() as client:
        assert (await client.get(url_of(listener))).status_code == 200


# HTTPServer.


class Running(NamedTuple):
    """A server that runs."""

    server: HTTPServer
    listener: socket.socket
    url: str


@contextlib.asynccontextmanager
async def serving(
    app: Any, listener: socket.socket | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """A server for the length of a block; it is stopped at its end, if it was not before."""
    listener = listen("127.0.0.1", 0) if listener is None else listener
    server = HTTPServer(app, listener, **settings)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        try:
            yield Running(server, listener, url_of(listener))
        finally:
            server.stop(20)


async def test_it_serves_what_came_and_then_ends() -> None:
    app = App()
    async with serving(app) as running, httpx.AsyncClient(base_url=running.url) as client:
        answers: list[int] = []

        async def ask() -> None:
            answers.append((await client.get("/wait")).status_code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await app.begun.wait()
            running.server.stop(20)
            with anyio.fail_after(20):  # it takes no more connections
                while True:
                    try:
                        async with httpx.AsyncClient() as other:
                            await other.get(running.url, timeout=0.2)
                    except httpx.TransportError:
                        break
            assert not running.server.ended.is_set()
            app.go.set()
        await running.server.ended.wait()
        assert answers == [200]
        assert running.listener.fileno() == -1


@pytest.mark.parametrize("timeout", [0, 0.01, 1])
async def test_it_ends_though_something_is_not_answered_in_time(timeout: float) -> None:
    app = App()
    async with serving(app) as running, anyio.create_task_group() as tasks:
        tasks.start_soon(_ask_in_vain, f"{running.url}/wait")
        await app.begun.wait()
        running.server.stop(timeout)
        with anyio.fail_after(20):
            await running.server.ended.wait()
    assert app.cancelled


async def _ask_in_vain(url: str) -> None:
    async with httpx.AsyncClient() as client:
        with contextlib.suppress(httpx.TransportError):
            assert (await client.get(url, timeout=20)).status_code == 500


async def test_it_may_wait_for_ever() -> None:
    async with serving(App()) as running:
        running.server.stop(None)
        assert running.server._server.config.timeout_graceful_shutdown is None


async def test_it_ends_when_it_is_cancelled() -> None:
    listener = listen("127.0.0.1", 0)
    server = HTTPServer(App(), listener)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        async with httpx.AsyncClient() as client:
            await client.get(url_of(listener))
        tasks.cancel_scope.cancel()
    assert server.ended.is_set()
    is_closed = listener.fileno() == -1
    for each in () if is_closed else server._server.servers:
        each.close()
    assert is_closed


async def test_its_settings_are_uvicorns() -> None:
    async with serving(App(), root_path="/api") as running, httpx.AsyncClient() as client:
        assert (await client.get(running.url)).text == "/api"


async def test_the_logging_and_the_signals_of_the_program_stay_what_they_are() -> None:
    assert threading.current_thread() is threading.main_thread()
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    async with serving(App()) as running, httpx.AsyncClient() as client:
        await client.get(running.url)
        assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
