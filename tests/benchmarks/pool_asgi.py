"""What `ReplicaPool.asgi` does for an ASGI application, beside uvicorn's own workers."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import asgi, echo
from tests.benchmarks.pool import ROOT, median
from tests.benchmarks.report import ratio, show

HELLO_ROUNDS = 5
HELLO_SECONDS = 1.2
OVERLOAD_ROUNDS = 3
OVERLOAD_SECONDS = 6.0
CAPACITY_REQUESTS = 40
IN_TIME = 1.0

WORKERS, POOL = "uvicorn --workers 2", "uvicorn with ReplicaPool.asgi, 2 replicas"
SERVERS = {
    WORKERS: ["tests.benchmarks.echo:app", "--workers", "2"],
    POOL: ["--factory", "tests.benchmarks.echo:pooled"],
}


async def get(port: int, path: str = "/") -> tuple[int, bytes]:
    """One request on a connection of its own: the status and the body; 0 if that breaks."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    except OSError:
        return 0, b""
    return (int(head.split()[1]), body) if head else (0, b"")


async def until_ready(port: int, processes: int) -> None:
    """Wait until so many processes answer."""
    answers: set[bytes] = set()
    async with asyncio.timeout(30):
        while len(answers) < processes:
            status, body = await get(port)
            if status == 200:
                answers.add(body)
            else:
                await asyncio.sleep(0.02)


@contextmanager
def served(arguments: list[str]) -> Iterator[tuple[int, int]]:
    """A uvicorn: its port and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    quiet = ["--port", str(port), "--log-level", "critical", "--no-access-log"]
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "uvicorn", *arguments, *quiet], cwd=ROOT, process_group=0
    )
    try:
        asyncio.run(until_ready(port, 2 if "--workers" in arguments else 1))
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # its workers are of its process group
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def processor_seconds(pid: int) -> float:
    """What a process and those that it started, and they, have used."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            each = int(path.parent.name)
            parents[each], ticks[each] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(each, 0) for each in family) / os.sysconf("SC_CLK_TCK")


async def hello(port: int, pid: int) -> tuple[float, float]:
    """Requests a second, and requests for a second of the servers' processor time."""
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(asgi.Client, "127.0.0.1", port))[1]
        for _ in range(asgi.CONNECTIONS)
    ]
    await asyncio.sleep(HELLO_SECONDS / 8)
    before, used = sum(client.answers for client in clients), processor_seconds(pid)
    start = time.perf_counter()
    await asyncio.sleep(HELLO_SECONDS)
    seconds = time.perf_counter() - start
    count = sum(client.answers for client in clients) - before
    used = processor_seconds(pid) - used
    for client in clients:
        client.transport.abort()
    await asyncio.sleep(0)
    return count / seconds, count / max(used, 0.01)


def capacity() -> float:
    """Requests for /busy a second that two processors can do in this minute."""
    code = (
        f"import time; count = {CAPACITY_REQUESTS}; start = time.perf_counter()\n"
        f"while time.thread_time() < count * {echo.BUSY}: pass\n"
        "print(count / (time.perf_counter() - start))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)  # noqa: S603
        for _ in range(2)
    ]
    return sum(float(process.communicate()[0]) for process in processes)


class Answer(NamedTuple):
    """What came of a request.

    Attributes:
        status: Of the response; 0 where there was none.
        seconds: How long it took.
        at: When it was there, from the start of the overload on.
    """

    status: int
    seconds: float
    at: float


async def overload(port: int, rate: float) -> list[Answer]:
    """Send so many requests a second, whether they are answered or not."""
    start = time.perf_counter()

    async def request() -> Answer:
        sent = time.perf_counter()
        status, _ = await get(port, "/busy")
        now = time.perf_counter()
        return Answer(status, now - sent, now - start)

    tasks = []
    while time.perf_counter() - start < OVERLOAD_SECONDS:
        tasks.append(asyncio.create_task(request()))
        await asyncio.sleep(start + len(tasks) / rate - time.perf_counter())
    return await asyncio.gather(*tasks)


def overloaded(ports: Mapping[str, int]) -> None:
    print(
        f" {echo.BUSY * 1e3:g} ms of computing, twice as often as two bare processes can, for "
        f"{OVERLOAD_SECONDS:g} s:\n answered within {IN_TIME:g} s, beside what these can"
    )
    good, share, slow = ({name: list[float]() for name in ports} for _ in range(3))
    told: list[str] = []
    for _ in range(OVERLOAD_ROUNDS):
        for name, port in ports.items():
            able = capacity()
            answers = asyncio.run(overload(port, 2 * able))
            served = [answer for answer in answers if answer.status == 200]
            in_time = [
                each for each in served if each.seconds <= IN_TIME and each.at <= OVERLOAD_SECONDS
            ]
            good[name].append(len(in_time) / OVERLOAD_SECONDS)
            share[name].append(len(in_time) / OVERLOAD_SECONDS / able)
            slow[name].append(percentile([each.seconds for each in served]))
            others = Counter(answer.status for answer in answers if answer.status != 200)
            told.append(
                f"   {name}: {len(answers)} at {2 * able:.1f} /s, {len(served)} served within "
                f"{max(answer.at for answer in answers):.1f} s, others {dict(others) or 'none'}"
            )
    for name in ports:
        show(name, f"{median(good, name):,.1f} /s", median(share, name))
    print(" the 99th percentile of those that were served in the end")
    for name in ports:
        show(name, f"{median(slow, name) * 1e3:,.0f} ms", ratio(slow, name, WORKERS))
    print("\n".join([" each round", *told]))


def percentile(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def main() -> None:
    if not Path("/proc/self/stat").exists():
        print(" an ASGI application: is not measured here, as processor time is not told")
        return
    with ExitStack() as stack:
        running = {name: stack.enter_context(served(each)) for name, each in SERVERS.items()}
        print(f" an ASGI application that says hello, {asgi.CONNECTIONS} connections")
        wall: dict[str, list[float]] = {name: [] for name in running}
        processor: dict[str, list[float]] = {name: [] for name in running}
        for number in range(HELLO_ROUNDS + 1):
            for name, (port, pid) in running.items():
                a_second, a_processor_second = asyncio.run(hello(port, pid))
                if number:  # else it is a warm-up
                    wall[name].append(a_second)
                    processor[name].append(a_processor_second)
        for name in running:
            show(name, f"{median(wall, name):,.0f} /s", ratio(wall, name, WORKERS))
        print(" the same, for a second of processor time of all its processes")
        for name in running:
            show(name, f"{median(processor, name):,.0f} /s", ratio(processor, name, WORKERS))
        overloaded({name: port for name, (port, _) in running.items()})
