"""`loadshed run` over HTTP, beside Ray Serve with the same deployments and beside a bare uvicorn.

Each is what its own command starts, in processes of its own, at its defaults. Ray is that of the
environment that `make test-ray` makes.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import serve_load
from tests.benchmarks.pool import median, memory_of
from tests.benchmarks.pool_asgi import percentile
from tests.benchmarks.report import in_turns, ratio, show
from tests.benchmarks.serve_apps import CAPACITY, NAP, REPLICAS, SETTINGS, Nap
from tests.benchmarks.serve_load import ROOT, Answer, Speed

STARTS = 3
NUMBERS_OF_REPLICAS = [1, 2]
CONNECTIONS = [1, 16, 64]
ROUNDS = 3
SECONDS = 1.0
IDLE = 1.0

FACTORS = [1, 2, 5, 10]
OVERLOAD_ROUNDS = 3
WARM_UP = 0.5
OVERLOAD_SECONDS = 2.5
PATIENCE = 2.0
IN_TIME = 1.0
REJECTED_IN = 0.02

START_PATIENCE = 60

RAY_PYTHON = Path(f"{sys.prefix}-ray", "bin", "python")
"""The interpreter that has Ray."""

OURS, RAY, BARE, WORKERS = "loadshed run", "Ray Serve", "uvicorn", "uvicorn --workers 2"


# Servers.


class Server(NamedTuple):
    """A server that serves.

    Attributes:
        port: Where.
        pid: Of the process that was started; more may have been started by that.
        start: How many seconds it took to its first 200.
    """

    port: int
    pid: int
    start: float


def command_of(side: str, name: str, replicas: int, port: int, directory: str) -> list[str]:
    """What serves one of `serve_apps`."""
    app = f"tests.benchmarks.serve_apps:{name}"
    if side == OURS:
        arguments = [app, "--num-replicas", f"{replicas}", "--port", f"{port}"]
        return [sys.executable, "-m", "loadshed", "run", *arguments]
    if side == RAY:
        module = "tests.benchmarks.serve_ray"
        return [str(RAY_PYTHON), "-m", module, name, f"{replicas}", f"{port}", directory]
    workers = ["--workers", "2"] if side == WORKERS else []
    quiet = ["--log-level", "critical", "--no-access-log"]
    bare = "tests.benchmarks.serve_apps:bare"
    return [sys.executable, "-m", "uvicorn", bare, "--port", f"{port}", *workers, *quiet]


@contextmanager
def serving(side: str, name: str = "hello", replicas: int = 1) -> Iterator[Server]:
    """A server in processes of its own; all of them are gone at the end."""
    port = free_port()
    # Ray makes sockets in there, whose paths may not be long.
    with tempfile.TemporaryDirectory(prefix="ls", ignore_cleanup_errors=True) as directory:
        command = command_of(side, name, replicas, port, directory)
        gently = side != RAY  # which would take seconds
        with started(command, port, Path(directory), cwd=ROOT, gently=gently) as server:
            yield server


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def environment_of(directory: Path) -> dict[str, str]:
    """What a server finds whose files are in a directory; and what a command that talks to it."""
    path = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return os.environ | {
        "XDG_RUNTIME_DIR": str(directory),
        "XDG_STATE_HOME": str(directory),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONDONTWRITEBYTECODE": "",  # compiled modules, as pip installs them
    }


@contextmanager
def started(
    command: list[str], port: int, directory: Path, *, cwd: Path, gently: bool = True
) -> Iterator[Server]:
    """What a command serves at a port, once it does; all its processes are gone at the end."""
    log = directory / "log"
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=cwd,
            env=environment_of(directory),
            stdin=subprocess.PIPE,  # Ray's ends when we do
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        with process:
            try:
                until_ready(port, process, log)
                yield Server(port, process.pid, time.perf_counter() - start)
            finally:
                end(process, gently=gently)
    finally:
        assert not family(process.pid)


def until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the first 200."""
    deadline = time.monotonic() + START_PATIENCE
    while get_status(port) != 200:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not serve:\n{log.read_text()}")
        time.sleep(0.005)


def get_status(port: int) -> int:
    """What one request is answered with; 0 if it is not."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(serve_load.REQUEST)
            return int(connection.recv(65536)[9:12] or 0)
    except OSError:
        return 0


def family(pid: int) -> set[int]:
    """The processes of a session, and those that they started."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                each = int(path.parent.name)
                parents[each] = int(parent)
                if pid in {each, int(session)}:
                    found.add(each)
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def end(process: subprocess.Popen[bytes], *, gently: bool) -> None:
    """End a server and whatever it started."""
    if gently:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    started = {process.pid} if process.poll() is None else set()
    while left := started | family(process.pid):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        started = set()
        time.sleep(0.02)


# What is measured.


def starts(engines: list[str]) -> None:
    print(f" from the start of the process to the first 200, {REPLICAS} replicas")

    def start(side: str) -> Callable[[], float]:
        def measure() -> float:
            with serving(side, replicas=REPLICAS) as server:
                return server.start

        return measure

    in_turns(1, {OURS: start(OURS)})  # compiles modules
    results = in_turns(STARTS, {side: start(side) for side in engines})
    for side in engines:
        show(side, f"{median(results, side):,.2f} s", ratio(results, side, OURS))
    if RAY in engines:
        show("Ray Serve's, beside ours", "", ratio(results, RAY, OURS), at_least=9)


def memory_if_there(pid: int) -> float:
    """Bytes; 0 for a process that has just ended: Ray has such."""
    try:
        return memory_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def memories(servers: dict[str, Server]) -> None:
    print(" the memory of all processes (PSS), 1 replica")
    if not Path("/proc/self/smaps_rollup").exists():
        print("  is not told here")
        return
    time.sleep(IDLE)
    families = {side: family(server.pid) for side, server in servers.items()}
    sizes = {side: sum(map(memory_if_there, pids)) for side, pids in families.items()}
    for side, pids in families.items():
        what = f"{side}: {len(pids)} processes"
        show(what, f"{sizes[side] / 2**20:,.1f} MiB", sizes[side] / sizes[OURS])


def hello(engines: list[str], replicas: int) -> None:
    """Beside uvicorn first: Ray's processes are busy when nobody asks for anything, too."""
    compare([OURS, BARE] if replicas == 1 else [OURS, BARE, WORKERS], replicas)
    if RAY in engines:
        compare([OURS, RAY], replicas)


def compare(sides: list[str], replicas: int) -> None:
    with ExitStack() as stack:
        servers = {side: stack.enter_context(serving(side, replicas=replicas)) for side in sides}
        if replicas == 1:
            memories(servers)
        for server in servers.values():
            serve_load.closed(server.port, max(CONNECTIONS), SECONDS)  # warm
        for connections in CONNECTIONS:
            speeds: dict[str, list[Speed]] = {side: [] for side in servers}
            for _ in range(ROUNDS):
                for side, server in servers.items():
                    speeds[side].append(serve_load.closed(server.port, connections, SECONDS))
            show_speeds(speeds, connections, replicas)


def show_speeds(speeds: dict[str, list[Speed]], connections: int, replicas: int) -> None:
    print(
        f" a deployment that does nothing, {replicas} replica{'s'[: replicas > 1]}, "
        f"{connections} connection{'s'[: connections > 1]}: requests a second, and half of them in"
    )
    rates = {side: [each.rate for each in found] for side, found in speeds.items()}
    p50s = {side: [each.p50 for each in found] for side, found in speeds.items()}
    base, target = (RAY, 20) if RAY in speeds else (BARE, 0.5)
    for side in speeds:
        value = f"{median(rates, side):8,.0f} /s {median(p50s, side) * 1e3:8,.2f} ms"
        show(side, value, ratio(rates, side, base), at_least=target if side == OURS else 0)
    for side, found in speeds.items():
        if failed := sum(each.failed for each in found):
            print(f"   {side}: {failed} of these were no 200")


def overload(engines: list[str]) -> None:
    settings = SETTINGS[Nap]
    print(
        f" naps of {NAP * 1e3:g} ms, {REPLICAS} replicas, {settings['max_ongoing_requests']} at a "
        f"time in each, {settings['max_queued_requests']} may wait:\n can be served "
        f"{CAPACITY:g} times a second; requests that come without waiting for answers,\n "
        f"at so many times that rate: answered with 200 within {IN_TIME:g} s, beside what can be"
    )
    answers: dict[tuple[str, int], list[list[Answer]]] = {
        (side, factor): [] for side in engines for factor in FACTORS
    }
    with ExitStack() as stack:
        servers = {
            side: stack.enter_context(serving(side, "nap", REPLICAS)).port for side in engines
        }
        for seed in range(OVERLOAD_ROUNDS):
            for factor in FACTORS:
                for side, port in servers.items():
                    rate, seconds = factor * CAPACITY, WARM_UP + OVERLOAD_SECONDS
                    found = serve_load.opened(port, rate, seconds, PATIENCE, seed)
                    answers[side, factor].append(found)
                    time.sleep(WARM_UP)  # what was given up goes away
    show_overload(answers)


async def bare_naps() -> float:
    """How many naps a second one event loop gets done, as many at a time as the replicas take."""
    start = time.perf_counter()
    end = start + OVERLOAD_SECONDS
    done = 0

    async def nap() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await asyncio.sleep(NAP)
            done += 1

    await asyncio.gather(*(nap() for _ in range(round(CAPACITY * NAP))))
    return done / (time.perf_counter() - start)


def show_overload(answers: dict[tuple[str, int], list[list[Answer]]]) -> None:
    bare = asyncio.run(bare_naps())
    show("an event loop that naps, and no server", f"{bare:,.1f} /s", bare / CAPACITY)
    for (side, factor), rounds in answers.items():
        good = {"good": [goodput(found) for found in rounds]}
        target = 0.97 if side == OURS and factor >= 2 else 0
        value = median(good, "good")
        show(f"{side}, {factor} x", f"{value:,.1f} /s", value / CAPACITY, at_least=target)

    def show_99(status: int, base: float, target: float) -> None:
        for (side, factor), rounds in answers.items():
            times = [[each.seconds for each in found if each.status == status] for found in rounds]
            tails = {"p99": [percentile(each) for each in times if each]}
            if tails["p99"]:
                value = median(tails, "p99")
                at_most = target if side == OURS else 0
                name = f"{side}, {factor} x: {sum(map(len, times))} times {status}"
                show(name, f"{value * 1e3:,.1f} ms", value / base, at_most=at_most)

    print(f" rejections: the 99th percentile, beside {REJECTED_IN * 1e3:g} ms")
    show_99(503, REJECTED_IN, 1)
    longest = SETTINGS[Nap]["max_queued_requests"] / CAPACITY + NAP
    print(
        " those that were served: the 99th percentile, beside the whole queue and a nap "
        f"({longest * 1e3:g} ms)"
    )
    show_99(200, longest, 0)
    print(
        f" neither 200 nor 503, or not within {PATIENCE:g} s of the end; and by how much the\n"
        " requests were sent too late, which counts as the server's time: the 99th percentile"
    )
    for (side, factor), rounds in answers.items():
        other = sum(each.status not in {200, 503} for found in rounds for each in found)
        late = percentile([each.late for found in rounds for each in found])
        print(f"  {side + f', {factor} x':<48} {other:>14}   {late * 1e3:.1f} ms")


def goodput(found: list[Answer]) -> float:
    """Answers a second that were of use, once the load has been on for a moment."""
    until = WARM_UP + OVERLOAD_SECONDS
    return (
        sum(
            each.status == 200 and each.seconds <= IN_TIME and WARM_UP <= each.at < until
            for each in found
        )
        / OVERLOAD_SECONDS
    )


def main() -> None:
    engines = [OURS]
    if RAY_PYTHON.exists():
        engines.append(RAY)
    else:
        print(f" Ray is left out: there is no {RAY_PYTHON} (`make {RAY_PYTHON.parts[-3]}/.test`)")
    sender = "wrk" if serve_load.WRK else "a client of ours, as there is no wrk,"
    print(f" {sender} keeps connections busy; a client of ours sends the overload")
    starts(engines)
    for replicas in NUMBERS_OF_REPLICAS:
        hello(engines, replicas)
    overload(engines)
