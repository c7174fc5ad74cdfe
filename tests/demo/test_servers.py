import asyncio
import os
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from typing import IO

import pytest
import uvicorn

from loadshed.demo import child, servers
from loadshed.demo.client import fetch
from loadshed.demo.servers import DemoError, serving

DATABASE = {"service_time": 0.001, "slots": 1, "protected": False}

# Starts a server, says what its process is, and stays.
PARENT = f"""
import asyncio
from loadshed.demo import child, servers

async def start(*arguments, start=servers._start):
    process = await start(*arguments)
    print(process.pid, flush=True)
    return process

async def stay():
    async with servers.serving("database_service", **{DATABASE!r}) as port:
        print(port, flush=True)
        await asyncio.Event().wait()

servers._start = start
asyncio.run(stay())
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    processes = []
    start = servers._start

    async def remember(app: str, settings: str, log: IO[bytes]) -> Process:
        processes.append(await start(app, settings, log))
        return processes[-1]

    monkeypatch.setattr(servers, "_start", remember)
    return processes


async def fetch_once(**settings: float) -> int:
    async with serving("database_service", **settings) as port:
        return (await fetch(port)).status


def test_a_server_answers_from_the_beginning_of_the_block_to_its_end() -> None:
    async def run() -> None:
        async with serving("database_service", **DATABASE) as port:
            assert (await fetch(port)).status == 200
        with pytest.raises(ConnectionRefusedError):
            await fetch(port)

    asyncio.run(run())


def test_a_server_ends_when_its_standard_input_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "read", lambda *_: b"")
    server = uvicorn.Server(uvicorn.Config("an:app", log_config=None))
    child._end_with_parent(server)
    assert server.should_exit


def test_an_error_in_the_block_is_not_hidden() -> None:
    async def run() -> None:
        async with serving("database_service", **DATABASE):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(
        DemoError, match=r"exit code 1\. [\s\S]*unexpected keyword argument 'colour'"
    ):
        asyncio.run(fetch_once(colour=1))


def test_a_server_that_does_not_get_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "START_TIMEOUT", 0.0)
    with pytest.raises(DemoError, match="did not start in 0 s"):
        asyncio.run(fetch_once(**DATABASE))


def test_a_server_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "STOP_TIMEOUT", 0.0)
    with pytest.raises(DemoError, match="exit code -9"):
        asyncio.run(fetch_once(**DATABASE))


def test_a_server_that_dies_under_way_is_what_the_error_is_about(started: list[Process]) -> None:
    async def run() -> None:
        async with serving("database_service", **DATABASE) as port:
            started[0].kill()
            await started[0].wait()
            await fetch(port)

    with pytest.raises(DemoError, match="exit code -9") as error:
        asyncio.run(run())
    assert isinstance(error.value.__cause__, ConnectionRefusedError)


def test_a_cancelled_block_ends_its_server_in_order(started: list[Process]) -> None:
    async def run() -> None:
        async with serving("database_service", **DATABASE):
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert started[0].returncode == 0


def test_a_server_dies_with_a_parent_that_is_killed(is_running: Callable[[int], bool]) -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:  # noqa: S603, it is ours
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert int(parent.stdout.readline()) > 0
        assert is_running(pid)
        parent.kill()
    give_up = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < give_up, "it outlived its parent"
        time.sleep(0.01)
