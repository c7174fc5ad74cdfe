"""Limits that nobody chose, beside the best fixed one, on services that uvicorn serves.

A service is offered more or less than it can do, by clients who hang up when their patience is
over. Goodput is what they get in time, beside what they could: the lesser of what is offered and
what the service can do. All of a run counts but its first third, in which a limit is found.

`ADAPTIVE_SECONDS` are the seconds of a run that count, and half as many come before; with 2 it is
all over in three minutes. `ADAPTIVE_SERVICES` names some of `SERVICES`, between commas.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.benchmarks import adaptive_load
from tests.benchmarks.adaptive_apps import calibrated
from tests.benchmarks.pool_asgi import percentile
from tests.benchmarks.report import show
from tests.benchmarks.serve_load import ROOT, Answer

SECONDS = float(os.environ.get("ADAPTIVE_SECONDS", "15"))
WARM_UP = SECONDS / 2

FACTORS = [0.8, 1.5, 2, 5]
FIXED = [1, 2, 5, 10, 20, 40, 80]
SEARCH_FACTOR = 2
SEARCH_SHARE = 0.3  # of the time of a run
SHARES = {
    "computing": 0.5,  # there is little to learn
    "stepping": 4,  # it is to show what comes after the step, and not only how soon
}
SATURATION_SECONDS = 2.0
SATURATING = 4
AT_LEAST = 0.95
MANY = 1200
"""Requests a second, of all servers that are loaded side by side: more would disturb each other."""

COMPUTING = 0.01

KNEE, BEST = "nothing said", "the best fixed"
OTHERS = {"Gradient2": "Gradient2Limit", "Vegas": "VegasLimit"}

Limit = str | int | None
"""What `adaptive_apps.app` takes for one."""


class Service(NamedTuple):
    """What is served.

    Attributes:
        title: For people.
        kind: Its name in `adaptive_apps.SERVICES`.
        settings: Its arguments there.
        patience: How many seconds a client waits.
        capacity: How many requests a second it can do; None where that has to be measured.
    """

    title: str
    kind: str
    settings: dict[str, Any]
    patience: float
    capacity: float | None


def services() -> dict[str, Service]:
    steps_after = WARM_UP + SECONDS / 2
    found = {
        "slots": Service(
            "10 slots of 100 ms", "slots", {"number": 10, "seconds": 0.1}, 0.5, capacity=100
        ),
        "computing": Service(
            f"{COMPUTING * 1e3:g} ms of computing",
            "computing",
            {"count": calibrated(COMPUTING)},
            0.5,
            capacity=None,
        ),
        "threads": Service(
            "20 threads, 100 ms", "threads", {"number": 20, "seconds": 0.1}, 0.5, capacity=200
        ),
        "stepping": Service(
            "10 slots of 50 ms, then 40 of 200 ms",
            "stepping",
            {"number": 10, "seconds": 0.05, "factor": 4, "after": steps_after},
            1,
            capacity=200,
        ),
    }
    chosen = os.environ.get("ADAPTIVE_SERVICES", ",".join(found)).split(",")
    return {name: found[name] for name in chosen}


@contextmanager
def served(service: Service, limit: Limit) -> Iterator[int]:
    """A uvicorn in a process of its own: its port."""
    arguments = json.dumps([service.kind, service.settings, limit])
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "tests.benchmarks.adaptive_apps", arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,  # it ends when we do
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


class Run(NamedTuple):
    """What a service with a limit got done.

    Attributes:
        goodput: Requests a second that were answered with 200 in time.
        offered: Requests a second that came.
        p99: Seconds within which nearly all of those were answered that got a 200.
        unanswered: The part of the requests that got no answer at all in time.
        late: Seconds within which nearly all were sent: a fault of the load's, not the server's.
    """

    goodput: float
    offered: float
    p99: float
    unanswered: float
    late: float


def run(service: Service, limit: Limit, rate: float, seed: int, share: float = 1) -> Run:
    """Offer it so many requests a second, for that share of the whole time."""
    warm_up, seconds = WARM_UP * share, SECONDS * share
    if service.kind == "stepping":
        settings = service.settings | {"after": service.settings["after"] * share}
        service = service._replace(settings=settings)
    with served(service, limit) as port:
        answers = adaptive_load.offered(port, rate, warm_up + seconds, service.patience, seed)
    return weighed(answers, warm_up, seconds, service.patience)


def weighed(answers: Sequence[Answer], warm_up: float, seconds: float, patience: float) -> Run:
    """What counts is when a request was due, so that each counts that came in the time."""
    counted = [each for each in answers if warm_up <= each.due < warm_up + seconds]
    times = [each.seconds for each in counted if each.status == 200]
    return Run(
        sum(each <= patience for each in times) / seconds,
        len(counted) / seconds,
        percentile(times) if times else 0,
        sum(each.status == 0 for each in counted) / max(1, len(counted)),
        percentile([each.late for each in counted]) if counted else 0,
    )


def run_all(
    service: Service, limits: Mapping[str, Limit], rate: float, seed: int, share: float = 1
) -> dict[str, Run]:
    """All limits under the same load: at once, so far as they leave the processors alone."""
    side_by_side = 1 if service.capacity is None else max(1, min(4, int(MANY / rate)))
    with ThreadPoolExecutor(side_by_side) as threads:
        runs = {
            name: threads.submit(run, service, limit, rate, seed, share)
            for name, limit in limits.items()
        }
    return {name: each.result() for name, each in runs.items()}


def capacity_of(service: Service) -> float:
    """How many requests a second it can do in this minute."""
    if service.capacity is not None:
        return service.capacity
    with served(service, "none") as port:
        return max(1.0, adaptive_load.saturated(port, SATURATING, SATURATION_SECONDS))


def best_fixed(service: Service) -> int:
    """The number that does best of those that somebody might choose, with the queue it brings."""
    rate = SEARCH_FACTOR * capacity_of(service)
    numbers = {str(each): each for each in FIXED}
    found = run_all(service, numbers, rate, seed=0, share=SEARCH_SHARE)
    tried = ", ".join(
        f"{name}: {each.goodput / min(each.offered, rate / SEARCH_FACTOR):.2f}"
        for name, each in found.items()
    )
    print(f"  fixed limits at {SEARCH_FACTOR} x: {tried}")
    return numbers[max(found, key=lambda name: found[name].goodput)]


def compare(service: Service) -> None:
    print(f" {service.title}; clients wait {service.patience:g} s", flush=True)
    best = best_fixed(service)
    limits: dict[str, Limit] = {KNEE: None, f"{BEST}, {best}": best, **OTHERS}
    for seed, factor in enumerate(FACTORS, 1):
        capacity = capacity_of(service)
        share = SHARES.get(service.kind, 1)
        runs = run_all(service, limits, factor * capacity, seed, share)
        base = runs[f"{BEST}, {best}"].goodput
        for name, each in runs.items():
            good = each.goodput / min(each.offered, capacity)
            show(
                f"{factor:g} x of {capacity:.0f} /s, {name}",
                f"{good:.2f}  {each.p99 * 1e3:4.0f} ms",
                each.goodput / max(base, 0.01 * capacity),
                at_least=AT_LEAST if name == KNEE else 0,
            )
        unanswered = ", ".join(f"{each.unanswered:.1%}" for each in runs.values())
        late = max(each.late for each in runs.values())
        print(
            f"   not answered in time: {unanswered}; sent late by {late * 1e3:.0f} ms", flush=True
        )


def main() -> None:
    print(
        " goodput beside the lesser of what is offered and what can be done, and the 99th\n"
        f" percentile of those that were served; beside the goodput of the best fixed limit;\n"
        f" {SECONDS:g} s of each run, after {WARM_UP:g} s that do not count"
    )
    for service in services().values():
        compare(service)
