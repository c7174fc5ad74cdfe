"""Clients: when they come, what they ask for, how long they wait, and whether they try again."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from loadshed._policy.backoff import exponential, jittered
from loadshed._policy.criticality import Criticality
from tests.simulation.front import Front
from tests.simulation.loop import Loop
from tests.simulation.request import Request
from tests.simulation.services import Service
from tests.simulation.steps import Steps
from tests.simulation.tally import Tally
from tests.simulation.work import Work

BACKOFF = 0.1
"""Seconds before the first retry, at most; each later one may wait twice as long."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients of one kind. Those of several kinds are as many of these side by side.

    Attributes:
        load: How many come in a second, as a Poisson process.
        work: What they ask for.
        patience: How many seconds they wait for an answer.
        retries: How often they try again, whether they were shed or gave up.
        front: Which of the fronts they go to, from 0.
        criticality: How much it matters what they ask for.
        tenant: Who they are, where tenants are told apart.
        cost: How many slots each request takes.
    """

    load: Steps
    work: Work
    patience: float
    retries: int = 0
    front: int = 0
    criticality: Criticality = Criticality.CRITICAL
    tenant: str | None = None
    cost: int = 1


class Source:
    """Sends the requests of some clients.

    The same seed gives the same requests whatever becomes of them, so that every limit meets the
    same ones.
    """

    __slots__ = (
        "_again",
        "_arrivals",
        "_front",
        "_loop",
        "_random",
        "_service",
        "_tally",
        "clients",
        "retries",
    )

    def __init__(
        self,
        clients: Clients,
        loop: Loop,
        *,
        service: Service,
        front: Front,
        tally: Tally,
        seed: str,
    ) -> None:
        self._loop = loop
        self._service = service
        self._front = front
        self._tally = tally
        self._random = Random(f"work {seed}")  # noqa: S311
        self._again = Random(f"retries {seed}")  # noqa: S311
        self._arrivals = arrivals(clients.load, Random(f"arrivals {seed}"))  # noqa: S311
        self.clients = clients
        self.retries = clients.retries
        self._wait_for_the_next()

    def fail(self, now: float, request: Request) -> None:
        """A request was shed, or its client gave up: it may try again."""
        if request.attempt < self.retries:
            most = exponential(request.attempt + 1, factor=BACKOFF, base=2, most=60)
            wait = jittered(most, "full", self._again.random)
            self._loop.at(now + wait, self._send, (request.work, request.attempt + 1))

    def _wait_for_the_next(self) -> None:
        time = next(self._arrivals, None)
        if time is not None:
            self._loop.at(time, self._arrive)

    def _arrive(self, now: float, _: None) -> None:
        self._tally.arrived[int(now)] += 1
        self._send(now, (self.clients.work(self._random), 0))
        self._wait_for_the_next()

    def _send(self, now: float, about: tuple[float, int]) -> None:
        work, attempt = about
        request = Request(
            source=self,
            front=self._front,
            work=work,
            arrived=now,
            gives_up_at=now + self.clients.patience,
            attempt=attempt,
        )
        self._service.receive(now, request)


def arrivals(load: Steps, random: Random) -> Iterator[float]:
    """The times of a Poisson process.

    It does not remember, so it may begin anew where the load changes.
    """
    draw = random.expovariate
    for time, end, rate in load.pieces():
        if rate:
            now = time + draw(rate)
            while now < end:
                yield now
                now += draw(rate)
