"""The experiment: two run, two wait, five are turned away.

The rule of the limiter, one request at a time, on an application that sleeps for two seconds.
"""

import asyncio
import json
from asyncio import Task, TaskGroup
from collections.abc import Callable
from dataclasses import dataclass

from loadshed.demo.apps import STATE
from loadshed.demo.client import Answer, fetch
from loadshed.demo.servers import DemoError, serving

RUNNING = 2
QUEUED = 2
EXTRA = 5

SERVICE_TIME = 2.0
"""How long the application sleeps, in seconds."""

_STATE_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Experiment:
    """What the nine requests got.

    Attributes:
        running: The answers to those that ran at once.
        queued: The answers to those that waited for them.
        extra: The answers to those that came when all places were taken.
    """

    running: tuple[Answer, ...]
    queued: tuple[Answer, ...]
    extra: tuple[Answer, ...]

    @property
    def as_promised(self) -> bool:
        """Whether exactly the extra requests got a 503, and all others a 200."""
        statuses = [answer.status for answer in (*self.running, *self.queued, *self.extra)]
        return statuses == [200] * (RUNNING + QUEUED) + [503] * EXTRA

    @property
    def slowest_rejection(self) -> float:
        """How long the slowest of the extra requests waited for its answer, in seconds."""
        return max(answer.seconds for answer in self.extra)


async def run_experiment(
    tell: Callable[[str], None], *, service_time: float = SERVICE_TIME
) -> Experiment:
    """Send the nine requests and tell what happens, as it happens.

    Each group is sent when the limiter's own statistics say that the group before has arrived.

    Args:
        tell: Called with a line at a time.
        service_time: How long the application sleeps, in seconds.

    Raises:
        DemoError: The server did not start, died under way, or never came into the state that
            is waited for.
    """
    async with serving(
        "slow_service",
        service_time=service_time,
        max_ongoing_requests=RUNNING,
        max_queued_requests=QUEUED,
    ) as port:
        try:
            async with TaskGroup() as clients:
                return await _send_all(port, clients, tell)
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
            raise DemoError(f"The experiment broke off: {first!r}") from failures


async def _send_all(port: int, clients: TaskGroup, tell: Callable[[str], None]) -> Experiment:
    running = _send(RUNNING, port, clients)
    await _until(port, {"ongoing": RUNNING, "queued": 0})
    tell(f"{RUNNING} requests sent: both run")
    queued = _send(QUEUED, port, clients)
    await _until(port, {"ongoing": RUNNING, "queued": QUEUED})
    tell(f"{QUEUED} more sent: both wait in the queue")
    tell(f"{EXTRA} more: there is no room for them")
    extra = await _answers(_send(EXTRA, port, clients), tell)
    return Experiment(
        running=await _answers(running, tell), queued=await _answers(queued, tell), extra=extra
    )


def _send(count: int, port: int, clients: TaskGroup) -> list[Task[Answer]]:
    return [clients.create_task(fetch(port)) for _ in range(count)]


async def _until(port: int, state: dict[str, int]) -> None:
    async with asyncio.timeout(_STATE_TIMEOUT):
        while json.loads((await fetch(port, STATE)).body) != state:
            pass  # every look is a round trip, in which the server gets on


async def _answers(requests: list[Task[Answer]], tell: Callable[[str], None]) -> tuple[Answer, ...]:
    answers = []
    for request in asyncio.as_completed(requests):
        answers.append(await request)
        tell(_line(answers[-1]))
    return tuple(answers)


def _line(answer: Answer) -> str:
    line = f"  {answer.status} after {answer.seconds * 1000:6.1f} ms"
    return line if answer.retry_after is None else f"{line}, Retry-After: {answer.retry_after}"
