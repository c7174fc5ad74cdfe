"""The demo's servers: child processes that live as long as the block that asked for them."""

import asyncio
import contextlib
import json
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import IO, cast

START_TIMEOUT = 30.0
"""How long a child may take until it accepts connections, in seconds."""

STOP_TIMEOUT = 10.0
"""How long a child may take to end before it is killed, in seconds."""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@contextlib.asynccontextmanager
async def serving(app: str, **settings: float) -> AsyncIterator[int]:
    """Serve an application on loopback for the length of the block.

    The child ends with the block, and with this process, however that ends.

    Args:
        app: A key of `loadshed.demo.apps.APPS`.
        settings: Its keyword arguments.

    Yields:
        The port, when the server accepts connections.

    Raises:
        DemoError: The server did not start, or did not live until the end of the block.
    """
    with tempfile.TemporaryFile() as log:
        process = await _start(app, json.dumps(settings), log)
        try:
            yield await _port(process)
        except Exception as error:
            await _stop(process)
            _check(process, log, cause=error)
            raise
        except BaseException:
            await _stop(process)
            raise
        await _stop(process)
        _check(process, log)


async def _start(app: str, settings: str, log: IO[bytes]) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # nothing in the user's directory takes the place of a module
        "-m",
        "loadshed.demo.child",
        app,
        settings,
        stdin=PIPE,
        stdout=PIPE,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for the parent, which ends its children in order
    )


async def _port(process: Process) -> int:
    try:
        async with asyncio.timeout(START_TIMEOUT):
            return int(await cast("StreamReader", process.stdout).readline())
    except (TimeoutError, ValueError) as error:
        raise DemoError(f"A server of the demo did not start in {START_TIMEOUT:g} s.") from error


async def _stop(process: Process) -> None:
    cast("StreamWriter", process.stdin).close()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _check(process: Process, log: IO[bytes], cause: Exception | None = None) -> None:
    if process.returncode:
        log.seek(0)
        last_words = log.read().decode(errors="replace").strip()[-2000:]
        raise DemoError(
            f"A server of the demo ended with exit code {process.returncode}. {last_words}".strip()
        ) from cause
