"""The load of the benchmark of limits that nobody chose, from a process of its own.

Clients come when they like (a Poisson process), reuse connections that are idle, and hang up when
their patience is over, so that the server sees them leave.
"""

import asyncio
import gc
import importlib
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.serve_load import ROOT, Answer, Connection, connect


def offered(port: int, rate: float, seconds: float, patience: float, seed: int) -> list[Answer]:
    """Send so many requests a second, whatever becomes of them.

    Args:
        port: Where to.
        rate: How many a second on average.
        seconds: For how long.
        patience: After how many seconds a client hangs up.
        seed: Of the moments at which they come.
    """
    return [Answer(*each) for each in _run("offer", port, rate, seconds, patience, seed)]


def saturated(port: int, connections: int, seconds: float) -> float:
    """How many requests a second are answered with 200 where so many are always under way."""
    found = [Answer(*each) for each in _run("saturate", port, connections, seconds, math.inf, 0)]
    half = [each for each in found if seconds / 2 < each.at <= seconds and each.status == 200]
    return len(half) / (seconds / 2)


def _run(*arguments: object) -> list[list[Any]]:
    with tempfile.NamedTemporaryFile() as found:
        command = [sys.executable, "-m", "tests.benchmarks.adaptive_load", found.name]
        subprocess.run([*command, *map(str, arguments)], cwd=ROOT, check=True)  # noqa: S603
        return json.load(found)  # type: ignore[no-any-return]


# In the process of its own.


class Clients:
    """Those of one server.

    Args:
        port: Of the server.
        patience: How many seconds each waits.
    """

    def __init__(self, port: int, patience: float) -> None:
        self._port = port
        self._patience = patience
        self._idle: list[Connection] = []
        self._start = time.monotonic()
        self._clock = asyncio.get_running_loop().time

    async def ask(self, due: float) -> Answer:
        """One request that is due at a time, in seconds from the start on."""
        late = self.now() - due
        status = 0
        try:
            async with asyncio.timeout(max(0, due + self._patience - self.now())):
                status = await self._status()
        except (OSError, TimeoutError):
            pass
        at = self.now()
        return Answer(status, at - due, at, late)

    def now(self) -> float:
        return time.monotonic() - self._start

    async def _status(self) -> int:
        connection = await self._connection()
        try:
            status = await connection.ask()
        except asyncio.CancelledError:
            connection.transport.close()
            raise
        if not connection.lost:
            self._idle.append(connection)
        return status

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not (connection.lost or connection.transport.is_closing()):
                return connection
        return await connect(self._port)


async def offer(port: int, rate: float, seconds: float, patience: float, seed: int) -> list[Answer]:
    chance = random.Random(seed)  # noqa: S311
    clients = Clients(port, patience)
    tasks: list[asyncio.Task[Answer]] = []
    due = chance.expovariate(rate)
    while due < seconds:
        if (early := due - clients.now()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(clients.ask(due)))
        due += chance.expovariate(rate)
    return await asyncio.gather(*tasks)


async def saturate(
    port: int, number: float, seconds: float, patience: float, _: int
) -> list[Answer]:
    clients = Clients(port, patience)
    answers: list[Answer] = []

    async def ask_again_and_again() -> None:
        while (now := clients.now()) < seconds:
            answers.append(await clients.ask(now))

    await asyncio.gather(*(ask_again_and_again() for _ in range(int(number))))
    return answers


def main(path: str, kind: str, port: str, *numbers: str) -> None:
    number, seconds, patience, seed = map(float, numbers)
    gc.disable()  # a collection would make requests late
    send = offer if kind == "offer" else saturate
    work = send(int(port), number, seconds, patience, int(seed))
    try:
        new_loop = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        new_loop = None
    with asyncio.Runner(loop_factory=new_loop) as runner:
        answers = runner.run(work)
    with Path(path).open("w") as output:
        json.dump([[status, *(round(x, 4) for x in rest)] for status, *rest in answers], output)


if __name__ == "__main__":
    main(*sys.argv[1:])
