"""The overload: the same clients come to the same application, without and with loadshed."""

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from loadshed.demo.figures import Figures, Window, summarise
from loadshed.demo.load import offer, poisson
from loadshed.demo.servers import serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is run.

    Attributes:
        loads: The offered loads, in multiples of the capacity.
        seconds: How long each of them is measured.
        warm_up: How long it has lasted by then.
        seed: Decides when each client comes.
        slots: How many requests the application serves at once.
        service_time: How long each of them takes, in seconds.
        deadline: How long a client waits before it hangs up, in seconds.
    """

    loads: tuple[float, ...] = (0.5, 1, 2, 5, 10)
    seconds: float = 2.5
    warm_up: float = 1.0
    seed: int = 1
    slots: int = 10
    service_time: float = 0.1
    deadline: float = 0.5

    @property
    def capacity(self) -> float:
        """How many requests the application can serve in a second."""
        return self.slots / self.service_time

    @property
    def window(self) -> Window:
        """The part of each run that is measured."""
        return Window(
            since=self.warm_up,
            until=self.warm_up + self.seconds,
            slots=self.slots,
            service_time=self.service_time,
        )

    @property
    def runs(self) -> list[tuple[float, bool]]:
        """Load, and whether loadshed protects the application, in the order they are run in."""
        return [(load, protected) for load in self.loads for protected in (False, True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load and what came of it.

    Attributes:
        load: The offered load, in multiples of the capacity.
        protected: Whether loadshed stood in front of the application.
        figures: What came of it.
    """

    load: float
    protected: bool
    figures: Figures


async def run_overload(plan: Plan, tell: Callable[[Run], None]) -> list[Run]:
    """Run the plan.

    Args:
        plan: What is run.
        tell: Called after each run.

    Raises:
        DemoError: A server did not start, or died under way.
    """
    waiting = max(plan.loads) * plan.capacity * plan.deadline
    allow_open_files(256 + 2 * int(waiting))
    runs = []
    for load, protected in plan.runs:
        figures = await _measure(plan, load, protected=protected)
        runs.append(Run(load=load, protected=protected, figures=figures))
        tell(runs[-1])
    return runs


async def _measure(plan: Plan, load: float, *, protected: bool) -> Figures:
    rng = random.Random(f"{plan.seed} {load}")  # noqa: S311, not a secret: both servers get these clients
    times = poisson(rng, rate=load * plan.capacity, seconds=plan.window.until)
    # A server of its own: without loadshed, what one load leaves behind would last into the next.
    async with serving(
        "database_service",
        service_time=plan.service_time,
        slots=plan.slots,
        protected=protected,
    ) as port:
        visits = await offer(port, times, deadline=plan.deadline)
    return summarise(visits, plan.window)


def allow_open_files(wanted: int) -> None:
    """Let this process and its children have this many files open, as far as the system does.

    Every client that waits is an open socket here and another one in the server.
    """
    with contextlib.suppress(ImportError):  # Windows has neither the module nor the limit
        import resource  # noqa: PLC0415

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
