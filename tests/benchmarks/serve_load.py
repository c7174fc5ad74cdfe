"""The load of the benchmark of `loadshed run`: processes that send requests and tell what came.

`wrk` sends more than this, where it is installed; but it waits for answers before it goes on, so
that it can't overload anything.
"""

import asyncio
import importlib
import json
import math
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}

WRK = shutil.which("wrk")


class Speed(NamedTuple):
    """What a number of connections got that ask again as soon as they are answered.

    Attributes:
        rate: Answers a second.
        p50: Seconds that half of them took at most.
        failed: How many were no 200.
    """

    rate: float
    p50: float
    failed: int


class Answer(NamedTuple):
    """What came of a request.

    Attributes:
        status: Of the response; 0 where there was none.
        seconds: How long that took, from when the request was due.
        at: When it was there, from the start on.
        late: Seconds by which the request was sent too late.
    """

    status: int
    seconds: float
    at: float
    late: float

    @property
    def due(self) -> float:
        """When it was due, from the start on."""
        return self.at - self.seconds


def closed(port: int, connections: int, seconds: float) -> Speed:
    """Keep connections busy, from a process of its own."""
    if WRK is None:
        return Speed(*_run("closed", port, connections, seconds))
    whole = f"-d{max(1, round(seconds))}s"  # it takes no less
    url = f"http://127.0.0.1:{port}/"
    command = [WRK, "-t1", f"-c{connections}", whole, "--latency", url]
    return parsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603


def parsed(output: str) -> Speed:
    """What `wrk --latency` tells."""

    def found(pattern: str) -> tuple[str, ...]:
        return match.groups() if (match := re.search(pattern, output)) else ()

    [rate] = found(r"Requests/sec: +([\d.]+)")
    number, unit = found(r"(?m)^ +50% +([\d.]+)(us|ms|s)")
    errors = [*found(r"Non-2xx or 3xx responses: (\d+)")]
    errors += found(r"errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
    return Speed(float(rate), float(number) * UNITS[unit], sum(map(int, errors)))


def opened(port: int, rate: float, seconds: float, patience: float, seed: int) -> list[Answer]:
    """Send so many requests a second, answered or not, from a process of its own.

    Args:
        port: Where to.
        rate: How many a second on average; they come when they like (a Poisson process).
        seconds: For how long.
        patience: How many seconds after that what is not answered counts as not answered.
        seed: Of the moments at which they come.
    """
    return [Answer(*each) for each in _run("opened", port, rate, seconds, patience, seed)]


class Load:
    """Requests that come while something else goes on.

    Attributes:
        begin: When they began to, on the clock of `time.monotonic`.
        answers: What came of them, once they have ended.
    """

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.answers: list[Answer] = []


@contextmanager
def going_on(port: int, rate: float, patience: float, seed: int) -> Iterator[Load]:
    """Send so many requests a second, as `opened` does, for as long as a block lasts."""
    process = subprocess.Popen(  # noqa: S603
        _command("going_on", port, rate, math.inf, patience, seed),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        load = Load(float(process.stdout.readline()))
        yield load
        output, _ = process.communicate()  # its stdin is closed, which ends it
        load.answers += [Answer(*each) for each in json.loads(output)]


def _run(*arguments: object) -> Any:
    return json.loads(subprocess.check_output(_command(*arguments), cwd=ROOT))  # noqa: S603


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.serve_load", *map(str, arguments)]


# In the process of its own.


class Connection(asyncio.Protocol):
    """A request at a time; parses as little as it can."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.lost = False
        self._came = b""
        self._answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self) -> asyncio.Future[int]:
        """Send a request: the status of its response, once all of that is there."""
        self._answered = asyncio.get_running_loop().create_future()
        if self.lost:
            self._answered.set_result(0)
        else:
            self.transport.write(REQUEST)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, body = self._came.partition(b"\r\n\r\n")
        if found and _is_whole(head.lower(), body):
            self._came = b""
            self._end(int(head[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        self._end(0)

    def _end(self, status: int) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(status)


def _is_whole(head: bytes, body: bytes) -> bool:
    _, found, length = head.partition(b"content-length: ")
    return len(body) >= int(length.split()[0]) if found else body.endswith(b"0\r\n\r\n")


async def connect(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Connection, "127.0.0.1", port))[1]


async def send_in_turns(port: int, connections: int, seconds: float) -> Speed:
    times: list[float] = []
    failed = 0

    async def ask_again_and_again(connection: Connection) -> None:
        nonlocal failed
        now = time.perf_counter()
        while now < end and not connection.lost:
            failed += await connection.ask() != 200
            before, now = now, time.perf_counter()
            times.append(now - before)

    opened = [await connect(port) for _ in range(connections)]
    start = time.perf_counter()
    end = start + seconds
    await asyncio.gather(*map(ask_again_and_again, opened))
    return Speed(len(times) / (time.perf_counter() - start), statistics.median(times), failed)


async def send_anyway(
    port: int,
    rate: float,
    seconds: float,
    patience: float,
    seed: int,
    *,
    is_over: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    chance = random.Random(seed)  # noqa: S311
    idle: list[Connection] = []
    tasks: dict[float, asyncio.Task[Answer]] = {}  # by when they are due
    start = time.perf_counter()

    async def ask(due: float) -> Answer:
        late = time.perf_counter() - start - due
        try:
            connection = idle.pop() if idle else await connect(port)
            status = await connection.ask()
        except OSError:
            status = 0
        else:
            if not connection.lost:
                idle.append(connection)
        at = time.perf_counter() - start
        return Answer(status, at - due, at, late)

    due = chance.expovariate(rate)
    while due < seconds and not is_over():
        await asyncio.sleep(start + due - time.perf_counter())
        tasks[due] = asyncio.create_task(ask(due))
        due += chance.expovariate(rate)
    _, pending = await asyncio.wait(tasks.values(), timeout=patience)
    for task in pending:
        task.cancel()
    end = time.perf_counter() - start
    return [
        Answer(0, end - due, end, 0.0) if task in pending else task.result()
        for due, task in tasks.items()
    ]


async def send_until_told(*arguments: Any) -> list[Answer]:
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(time.monotonic(), flush=True)
    return await send_anyway(*arguments, is_over=ended.done)


def main(kind: str, port: str, number: str, seconds: str, *more: str) -> None:
    if kind == "closed":
        work: Any = send_in_turns(int(port), int(number), float(seconds))
    else:
        patience, seed = more
        send = send_until_told if kind == "going_on" else send_anyway
        work = send(int(port), float(number), float(seconds), float(patience), int(seed))
    try:
        new_loop = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        new_loop = None
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print(json.dumps(runner.run(work)))


if __name__ == "__main__":
    main(*sys.argv[1:])
