"""The acceptance scenarios: what a limit that nobody chose has to reach."""

from functools import partial

from tests.simulation.clients import Clients
from tests.simulation.one_cpu import OneCpu
from tests.simulation.scenario import Scenario
from tests.simulation.services import Sharing, Slots
from tests.simulation.steps import Steps
from tests.simulation.work import exponential, log_normal

TENTH = exponential(0.1)
"""The work of most: with ten slots, 100 requests a second."""

TEN = partial(Slots, slots=Steps(10))


def overload(name: str, load: float, threshold: float) -> Scenario:
    """Ten slots, and so many times the load that they can bear."""
    return Scenario(
        name=name,
        title=f"10 slots, {load:g} x",
        service=TEN,
        clients=(Clients(Steps(100 * load), TENTH, patience=0.5),),
        capacity=Steps(100),
        right=10,
        seconds=120,
        threshold=threshold,
    )


def slower(name: str, factor: float, load: float, patience: float, threshold: float) -> Scenario:
    """For ten minutes each request takes longer, and there are as many times the slots."""
    change = Steps(1, (60, factor), (660, 1))
    return Scenario(
        name=name,
        title=f"latency x {factor:g} with as many times the slots for 600 s, {load:g} x",
        service=partial(Slots, slots=change.times(10), slowness=change),
        clients=(Clients(Steps(100 * load), TENTH, patience),),
        capacity=Steps(100),
        right=10,
        seconds=720,
        threshold=threshold,
    )


ACCEPTANCE = (
    overload("1", 2, 0.93),
    overload("1-10x", 10, 0.93),
    overload("2", 0.8, 0.95),
    Scenario(
        name="3",
        title="one slot, 2 x",
        service=partial(Slots, slots=Steps(1)),
        clients=(Clients(Steps(20), TENTH, patience=1),),
        capacity=Steps(10),
        right=1,
        seconds=300,
        threshold=0.85,
    ),
    Scenario(
        name="4",
        title="64 slots, 1.5 x",
        service=partial(Slots, slots=Steps(64)),
        clients=(Clients(Steps(960), TENTH, patience=0.5),),
        capacity=Steps(640),
        right=64,
        seconds=120,
        threshold=0.90,
    ),
    Scenario(
        name="5",
        title="batch: 16 at full speed, shared beyond, 2 x",
        service=partial(Sharing, full=16),
        clients=(Clients(Steps(64), log_normal(0.5, cv=0.3), patience=2),),
        capacity=Steps(32),
        right=16,
        seconds=600,
        threshold=0.93,
    ),
    slower("6", 4, load=2, patience=3, threshold=0.88),
    slower("7", 10, load=0.8, patience=3, threshold=0.80),
    Scenario(
        name="8",
        title="10 slots, 5 from 60 s to 150 s, 2 x",
        service=partial(Slots, slots=Steps(10, (60, 5), (150, 10))),
        clients=(Clients(Steps(200), TENTH, patience=1),),
        capacity=Steps(100, (60, 50), (150, 100)),
        right=10,
        seconds=210,
        threshold=0.90,
    ),
    Scenario(
        name="9",
        title="90 % 10 ms and 10 % 2 s, 2 x",
        service=TEN,
        clients=(
            Clients(Steps(0.9 * 2 * 10 / 0.209), exponential(0.01), patience=0.5),
            Clients(Steps(0.1 * 2 * 10 / 0.209), exponential(2), patience=8),
        ),
        capacity=Steps(10 / 0.209),
        right=10,
        seconds=600,
        threshold=0.75,
    ),
    Scenario(
        name="10",
        title="streams of 45 s: 32 at full speed, shared beyond, 2 x",
        service=partial(Sharing, full=32),
        clients=(Clients(Steps(64 / 45), log_normal(45, cv=0.5), patience=180),),
        capacity=Steps(32 / 45),
        right=32,
        seconds=6 * 3600,
        threshold=0.90,
    ),
    Scenario(
        name="11",
        title="10 minutes of health checks, then 10 slots, 2 x",
        service=TEN,
        clients=(
            Clients(Steps(1, (600, 0)), exponential(0.001), patience=0.5),
            Clients(Steps(0, (600, 200)), TENTH, patience=0.5),
        ),
        capacity=Steps(100),
        right=10,
        seconds=720,
        since=600,
        threshold=0.92,
    ),
    Scenario(
        name="12",
        title="10 slots, 0.8 x, 10 s of 5 x, clients retry 3 times",
        service=TEN,
        clients=(Clients(Steps(80, (30, 500), (40, 80)), TENTH, patience=0.5, retries=3),),
        capacity=Steps(100),
        right=10,
        seconds=120,
        threshold=0.92,
    ),
    Scenario(
        name="13",
        title="one CPU with an event loop, 1.5 x",
        service=OneCpu,
        clients=(Clients(Steps(150), exponential(0.005, least=0.0045), patience=0.5),),
        capacity=Steps(100),
        right=15,
        seconds=120,
        threshold=0.80,
    ),
    Scenario(
        name="14",
        title="8 requests a minute for 30 minutes",
        service=TEN,
        clients=(Clients(Steps(8 / 60), TENTH, patience=0.5),),
        capacity=Steps(100),
        right=10,
        seconds=1800,
        is_still=True,
    ),
)
