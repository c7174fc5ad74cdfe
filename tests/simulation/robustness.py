"""Models that no limit was tuned on: other sizes, other times, other trouble."""

from collections.abc import Callable
from functools import partial

from tests.simulation.clients import Clients
from tests.simulation.loop import Loop
from tests.simulation.one_cpu import NoAwait
from tests.simulation.scenario import Scenario
from tests.simulation.scenarios import TEN, TENTH
from tests.simulation.services import Service, Sharing, Slots
from tests.simulation.steps import Steps, bursts
from tests.simulation.work import Work, constant, exponential, log_normal

BURSTS = bursts(20, 400, on=5, off=10, until=300)
UNSTEADY = Steps(10, (30, 6), (60, 12), (90, 4), (120, 9), (150, 15), (180, 10))


def slots(
    name: str, number: int, mean: float, *, load: float, patience: float, seconds: int
) -> Scenario:
    """So many slots for requests that take as long on average."""
    capacity = number / mean
    return Scenario(
        name=name,
        title=f"{number} slots of {mean:g} s, {load:g} x",
        service=partial(Slots, slots=Steps(number)),
        clients=(Clients(Steps(capacity * load), exponential(mean), patience),),
        capacity=Steps(capacity),
        right=number,
        seconds=seconds,
    )


def ten(
    name: str,
    title: str,
    *,
    service: Callable[[Loop], Service] = TEN,
    load: float | Steps = 2,
    work: Work = TENTH,
    patience: float = 0.5,
    seconds: int = 120,
    since: int = 0,
) -> Scenario:
    """Something else about ten slots of a tenth of a second."""
    rate = load.times(100) if isinstance(load, Steps) else Steps(100 * load)
    return Scenario(
        name=name,
        title=title,
        service=service,
        clients=(Clients(rate, work, patience),),
        capacity=Steps(100),
        right=10,
        seconds=seconds,
        since=since,
    )


def stepping(name: str, load: float) -> Scenario:
    """A dependency becomes slower and wider while it is looked at: what does the step cost?"""
    change = Steps(1, (45, 4))
    return Scenario(
        name=name,
        title=f"the 30 s before and after latency x 4 with as many times the slots, {load:g} x",
        service=partial(Slots, slots=change.times(10), slowness=change),
        clients=(Clients(Steps(200 * load), exponential(0.05), patience=1),),
        capacity=Steps(200),
        right=40,
        seconds=75,
        since=15,
    )


def shared(name: str, title: str, *loads: float) -> Scenario:
    """As many limiters as there are loads, each with its own clients, before ten slots."""
    return Scenario(
        name=name,
        title=title,
        service=TEN,
        clients=tuple(
            Clients(Steps(100 * load), TENTH, patience=0.5, front=front)
            for front, load in enumerate(loads)
        ),
        capacity=Steps(100),
        right=10 // len(loads),
        seconds=300,
        fronts=len(loads),
    )


ROBUSTNESS = (
    slots("slots-3", 3, 0.1, load=2, patience=0.5, seconds=300),
    slots("slots-25", 25, 0.1, load=2, patience=0.5, seconds=120),
    slots("slots-200", 200, 0.1, load=1.5, patience=0.5, seconds=60),
    slots("quick", 3, 0.001, load=2, patience=0.05, seconds=20),
    slots("long", 10, 5, load=2, patience=30, seconds=3600),
    Scenario(
        name="three",
        title="70 % 20 ms, 25 % 0.1 s, 5 % 1 s, 2 x",
        service=TEN,
        clients=tuple(
            Clients(Steps(2 * part * 10 / 0.089), exponential(mean), patience)
            for part, mean, patience in ((0.7, 0.02, 0.5), (0.25, 0.1, 1), (0.05, 1, 5))
        ),
        capacity=Steps(10 / 0.089),
        right=10,
        seconds=300,
    ),
    ten("bursts", "10 slots, 4 x for 5 s and 0.2 x for 10 s", load=BURSTS.times(0.01), seconds=300),
    ten("even", "10 slots, each request 0.1 s sharp, 2 x", work=constant(0.1)),
    ten("heavy", "10 slots, log-normal 0.1 s cv 3, 2 x", work=log_normal(0.1, 3), patience=1),
    Scenario(
        name="unsteady",
        title="4 to 15 slots, others every 30 s, 2 x",
        service=partial(Slots, slots=UNSTEADY),
        clients=(Clients(Steps(200), TENTH, patience=1),),
        capacity=UNSTEADY.times(10),
        right=10,
        seconds=240,
    ),
    Scenario(
        name="drag",
        title="16 at full speed, each more costs all 5 %, 2 x",
        service=partial(Sharing, full=16, drag=0.05),
        clients=(Clients(Steps(320), TENTH, patience=0.5),),
        capacity=Steps(160),
        right=16,
        seconds=120,
    ),
    stepping("step", 2),
    stepping("step-0.8x", 0.8),
    shared("two", "2 limiters before 10 slots, 1 x each", 1, 1),
    shared("two-uneven", "2 limiters before 10 slots, 1.6 x and 0.4 x", 1.6, 0.4),
    shared("five", "5 limiters before 10 slots, 0.4 x each", 0.4, 0.4, 0.4, 0.4, 0.4),
    ten(
        "cold",
        "after a cold start, 30 s 10 x slower, 2 x",
        service=partial(Slots, slots=Steps(10), slowness=Steps(10, (30, 1))),
        since=30,
    ),
    ten(
        "outage",
        "the 30 s after 3 minutes of timeouts, 2 x",
        service=partial(Slots, slots=Steps(10), least=Steps(0, (60, 1), (240, 0))),
        seconds=270,
        since=240,
    ),
    ten(
        "no-await",
        "one CPU, handlers that never await, 2 x",
        service=NoAwait,
        work=exponential(0.005, least=0.0045),
    ),
)
