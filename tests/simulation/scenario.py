"""Scenario: a service, its clients and the time; and a run of it."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.clients import Clients, Source
from tests.simulation.front import Front
from tests.simulation.limits import Contender
from tests.simulation.loop import Loop
from tests.simulation.services import Service
from tests.simulation.steps import Steps
from tests.simulation.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens, whichever limit stands before it.

    Attributes:
        name: A short name for the command line.
        title: What happens, for a table.
        service: Makes the service.
        clients: Who comes.
        capacity: How many requests in a second the service can answer at its best.
        right: The number that a fixed limit should have (at the start, where it changes).
        seconds: How long it lasts.
        since: The second from which goodput counts.
        fronts: How many limiters stand before the one service.
        threshold: The goodput that it takes to pass, if it is an acceptance scenario.
        is_still: Whether the limit must not move at all.
    """

    name: str
    title: str
    service: Callable[[Loop], Service]
    clients: tuple[Clients, ...]
    capacity: Steps
    right: int
    seconds: int
    since: int = 0
    fronts: int = 1
    threshold: float | None = None
    is_still: bool = False

    def possible(self, tally: Tally, second: int) -> float:
        """How many can be answered in this second, at the best.

        That is the capacity, or else, where fewer are expected to come, as many as came.
        """
        offered = sum(clients.load.at(second) for clients in self.clients)
        capacity = self.capacity.at(second)
        return tally.arrived[second] if offered < capacity else capacity


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        scenario: What happened.
        tally: What came of it, second by second.
        events: How many events that took.
    """

    scenario: Scenario
    tally: Tally
    events: int

    @property
    def goodput(self) -> float:
        """Requests that were answered in time, as a share of what was possible."""
        return self.goodput_between(self.scenario.since, self.scenario.seconds)

    def goodput_between(self, since: int, until: int) -> float:
        """The same for a part of the time."""
        tally = self.tally
        possible = sum(self.scenario.possible(tally, second) for second in range(since, until))
        return sum(tally.good[since:until]) / possible if possible else 1.0


def run(scenario: Scenario, contender: Contender, seed: int) -> Outcome:
    """Run a scenario from its start to its end."""
    loop, tally = Loop(), Tally(scenario.seconds)
    service = scenario.service(loop)
    service.gate = contender.gate()
    admissions = [contender.admission(scenario.right) for _ in range(scenario.fronts)]
    fronts = [Front(loop, service, admission, tally) for admission in admissions]
    for number, clients in enumerate(scenario.clients):
        front = fronts[clients.front]
        Source(clients, loop, service=service, front=front, tally=tally, seed=f"{seed} {number}")
    for second in range(1, scenario.seconds + 1):
        loop.run(second)
        tally.limits.append(sum(admission.limit for admission in admissions))
    return Outcome(scenario, tally, loop.count)
