"""The real limiter where the event loop is what is overloaded: handlers that never wait.

What runs is the shell, not only the policy, in virtual time. A request costs the loop some time
when it is read, and when it is turned away; its handler computes and does not wait. It has to be
answered before its client's patience is over, of which the server learns nothing unless the request
still waits.
"""

import asyncio
import logging
import random
from typing import NamedTuple

import pytest

import loadshed._loop_turn
from loadshed import BackPressureError, ConcurrencyLimiter

from .event_loop import VirtualLoop, run

READ, QUEUE, SHED = 0.0005, 0.0001, 0.0003
"""Seconds that it takes to read a request, to let it wait, and to turn it away."""

WARM_UP = 10.0


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("loadshed"), "disabled", True)


class Service(NamedTuple):
    """What a request takes, and how long its client waits."""

    compute: float
    patience: float
    duration: float

    @property
    def capacity(self) -> float:
        return 1 / (self.compute + READ)


async def goodput(
    loop: VirtualLoop, limiter: ConcurrencyLimiter, service: Service, load: float
) -> float:
    """Requests answered in time, beside the lesser of what was offered and what can be done."""
    chance = random.Random(1)  # noqa: S311
    rate = load * service.capacity
    answered = 0
    tasks: set[asyncio.Task[None]] = set()

    async def handle(sent_at: float) -> None:
        nonlocal answered
        async with limiter:
            loop.compute(service.compute)
        if sent_at > WARM_UP and loop.time() - sent_at <= service.patience:
            answered += 1

    async def serve(sent_at: float) -> None:
        try:
            loop.compute(QUEUE)
            async with asyncio.timeout_at(sent_at + service.patience):
                await handle(sent_at)
        except BackPressureError:
            loop.compute(SHED)
        except TimeoutError:
            pass

    def arrive(sent_at: float) -> None:
        loop.compute(READ)
        task = loop.create_task(serve(sent_at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    time = 0.0
    while time < service.duration:
        time += chance.expovariate(rate)
        loop.call_at(time, arrive, time)
    await asyncio.sleep(service.duration + service.patience + 1)
    await asyncio.gather(*tasks)
    return answered / (service.duration - WARM_UP) / min(rate, service.capacity)


SHORT = Service(compute=0.01, patience=0.5, duration=40)
LONG = Service(compute=0.1, patience=2, duration=100)


@pytest.mark.parametrize(
    ("service", "load", "at_least"),
    [
        (SHORT, 0.8, 0.97),
        (SHORT, 1.5, 0.88),
        (SHORT, 2, 0.83),
        (SHORT, 5, 0.5),  # to read and to turn away what is too much takes 0.4 of the time
        (LONG, 0.8, 0.95),
        (LONG, 1.5, 0.95),
        (LONG, 2, 0.95),
        (LONG, 5, 0.92),
    ],
)
def test_an_event_loop_that_is_overloaded_goes_on_serving(
    service: Service, load: float, at_least: float
) -> None:
    limiter = ConcurrencyLimiter()
    got = run(lambda loop: goodput(loop, limiter, service, load))
    print(f"{got:.3f}, limit {limiter.max_ongoing_requests}")
    assert got >= at_least
    assert limiter.max_ongoing_requests <= 16
    assert limiter.statistics().ongoing == 0


def test_without_a_look_at_the_loop_nothing_is_served_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loadshed._loop_turn, "LONGEST", float("inf"))
    for limiter in (ConcurrencyLimiter(), ConcurrencyLimiter(1)):
        assert run(lambda loop, each=limiter: goodput(loop, each, SHORT, 1.5)) < 0.1  # type: ignore[misc]
