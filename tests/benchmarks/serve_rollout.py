"""`loadshed deploy` under load: a steady stream of requests while all changes that can change.

Numbers, configs and code are changed by the real command, one deploy after the other. The base is
the same server under the same load between the deploys. Beside it stands what the processor alone
does to it: after each deploy there is a command that changes nothing, and as many processes start
as replicas did, and import what those import. Where other programs fill the processors, all of this
says more of them than of the server; so it is told how much they had.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import serve_load
from tests.benchmarks.pool import median
from tests.benchmarks.pool_asgi import percentile
from tests.benchmarks.report import ratio, show
from tests.benchmarks.serve import environment_of, free_port, started
from tests.benchmarks.serve_load import Answer, going_on

ROUNDS = 3
RATE = 200
PATIENCE = 5.0
WARM_UP = 1.0
REST = 0.5
"""Seconds between two deploys in which nobody deploys."""

TIDYING = 0.1
"""Seconds after a deploy that count as it: the server removes what it needs no more."""

AT_MOST = 2.0
"""How many times the 99th percentile of quiet that of the deploys may be."""

PLACES = {(1, 1): 4, (4, 1): 4, (4, 2): 4, (2, 2): 4, (2, 3): 4, (2, 4): 0}
"""How many replicas of which code there are, one after the other; and how many other configs are
deployed there."""

P99 = "the 99th percentile"
QUANTILES: dict[str, Callable[[list[float]], float]] = {
    "half of them": statistics.median,
    P99: percentile,
    "the longest": max,
}

QUIET, STARTS, DEPLOYS = "nobody deploys", "as many processes start", "deploys"

CODE = """import asyncio

from loadshed.serve import deployment


@deployment(max_ongoing_requests=100)
class Nap:
    def reconfigure(self, config):
        self.config = config

    async def __call__(self, request):
        await asyncio.sleep(0.005)
        return f"{version} {{self.config}}"


app = Nap.bind()
"""

REPLICA = "loadshed.serve._hosted"
"""What a replica imports."""


class State(NamedTuple):
    """What is deployed: so many replicas of this code with that config."""

    replicas: int
    version: int
    config: int


def states() -> Iterator[State]:
    """What is there first, and each that is deployed after it."""
    config = 0
    for place, configs in PLACES.items():
        yield State(*place, config)
        for _ in range(configs):
            config += 1
            yield State(*place, config)


def write(state: State, directory: Path, port: int) -> None:
    """The files of what is deployed."""
    code = directory / "code"
    code.mkdir(exist_ok=True)
    (code / "nap.py").write_text(CODE.format(version=state.version))
    deployment = {"name": "Nap", "num_replicas": state.replicas, "user_config": state.config}
    application = {
        "import_path": "nap:app",
        "runtime_env": {"working_dir": "code"},
        "deployments": [deployment],
    }
    config = {"http_options": {"port": port}, "applications": [application]}
    (directory / "config.yaml").write_text(json.dumps(config))


def deploy(state: State, directory: Path, port: int) -> None:
    """Have it be so: when the command has ended, it is."""
    write(state, directory, port)
    run(directory, "-m", "loadshed", "deploy", "config.yaml")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        assert answer.read().decode() == f"{state.version} {state.config}"


def run(directory: Path, *arguments: str, copies: int = 1) -> None:
    """Run so many processes side by side."""
    processes = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, *arguments],
            cwd=directory,
            env=environment_of(directory),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(copies)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output.decode()


def start_as_many(old: State, new: State, directory: Path) -> None:
    """Start as many processes as a deploy, and change nothing."""
    run(directory, "-m", "loadshed", "status")
    if new.replicas > old.replicas:
        run(directory, "-c", f"import {REPLICA}", copies=new.replicas - old.replicas)
    elif new.version != old.version:
        for _ in range(1 + new.replicas):  # the first finds out whether the code can be imported
            run(directory, "-c", f"import {REPLICA}")


class Processors:
    """How busy this machine is with what is none of ours, from now on."""

    def __init__(self) -> None:
        self._before = self._now()

    def share(self) -> float:
        """The share that the others had, once all of our processes have ended."""
        busy, ours, there = (
            now - before for now, before in zip(self._now(), self._before, strict=True)
        )
        return max(0, busy - ours) / there

    def _now(self) -> tuple[float, float, float]:
        """Seconds that all processes had, that ours had, and that there were."""
        first, _ = Path("/proc/stat").read_text().split("\n", 1)
        user, nice, system, idle, waiting, *more = (
            int(each) / os.sysconf("SC_CLK_TCK") for each in first.split()[1:9]
        )
        busy = user + nice + system + sum(more)
        return busy, sum(os.times()[:4]), busy + idle + waiting


# What is measured.


class Turn(NamedTuple):
    """What went on from then on."""

    side: str
    begin: float


def measured(seed: int) -> dict[str, list[Answer]]:
    """What one server answers while this and that goes on, in turns."""
    first, *others = states()
    turns: list[Turn] = []

    @contextmanager
    def turn(side: str, at_least: float = 0) -> Iterator[None]:
        turns.append(Turn(side, begin := time.monotonic()))
        yield
        time.sleep(max(0, begin + at_least - time.monotonic()))

    with tempfile.TemporaryDirectory(prefix="ls") as name:
        directory, port = Path(name), free_port()
        write(first, directory, port)
        command = [sys.executable, "-m", "loadshed", "run", "config.yaml"]
        with started(command, port, directory, cwd=directory):
            serve_load.closed(port, 16, WARM_UP)
            with going_on(port, RATE, PATIENCE, seed) as load:
                for old, new in itertools.pairwise([first, *others]):
                    with turn(QUIET, REST):
                        pass
                    with turn(DEPLOYS):
                        deploy(new, directory, port)
                        time.sleep(TIDYING)
                    with turn(STARTS, time.monotonic() - turns[-1].begin):
                        start_as_many(old, new, directory)
    found: dict[str, list[Answer]] = {QUIET: [], STARTS: [], DEPLOYS: []}
    begins = [each.begin for each in turns]
    for answer in load.answers:
        turn_of_it = turns[max(0, bisect(begins, load.begin + answer.due) - 1)]
        found[turn_of_it.side].append(answer)
    return found


def main() -> None:
    all_states = list(states())
    numbers = [str(number) for number, _ in itertools.groupby(each.replicas for each in all_states)]
    last = all_states[-1]
    print(
        f" {RATE} requests a second that nap for 5 ms, and {len(all_states) - 1} deploys:\n"
        f" {' -> '.join(numbers)} replicas, {last.config} times another user_config, "
        f"{last.version - 1} times other code"
    )
    processors = Processors()
    rounds = [measured(seed) for seed in range(ROUNDS)]
    print(f" meanwhile others had {processors.share():.0%} of this machine's processors")
    for side in rounds[0]:
        found = [each for answers in rounds for each in answers[side]]
        failed = sum(each.status != 200 for each in found)
        target = f"target 0: {'MISSED' if failed else 'met'}"
        print(f"  {f'{side}: {len(found):,} requests, failed':<48} {failed:>14}   {target}")
    for name, quantile in QUANTILES.items():
        print(f" {name}, beside that while nobody deploys")
        results = {
            side: [quantile([each.seconds for each in answers[side]]) for answers in rounds]
            for side in rounds[0]
        }
        for side in results:
            at_most = AT_MOST if (name, side) == (P99, DEPLOYS) else 0
            value = f"{median(results, side) * 1e3:,.1f} ms"
            show(side, value, ratio(results, side, QUIET), at_most=at_most)
