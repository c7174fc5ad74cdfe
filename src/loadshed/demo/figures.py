"""What a load's visits amount to."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from loadshed.demo.load import Ending, Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of a run that is measured, and what the service can do in it.

    Attributes:
        since: When it begins, in seconds.
        until: When it ends.
        slots: How many requests the service works on at once.
        service_time: How long it works on each of them, in seconds.
    """

    since: float
    until: float
    slots: int
    service_time: float

    def work(self, visit: Visit) -> float:
        """How many seconds of this window the service spent on the visit's answer."""
        end = visit.due + visit.seconds
        return max(0.0, min(end, self.until) - max(end - self.service_time, self.since))

    @property
    def capacity(self) -> float:
        """How many seconds of work the service can do in this window."""
        return self.slots * (self.until - self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a run.

    Attributes:
        goodput: The share of its capacity that the service spent on answers that came in time. In
            work and not in requests: as all slots become free together, the window may see one
            round of them more or less, and this counts the part that it saw.
        served: How long those who were served waited for their answer.
        shed: How long those who were turned away waited for theirs.
        shed_share: How many were turned away, as a share of those who came.
        gave_up_share: How many hung up at their deadline, as a share of those who came.
        failures: What else went wrong, and how often; nothing should.
        lateness: How late the load generator sent the requests.
    """

    goodput: float
    served: "Spread"
    shed: "Spread"
    shed_share: float
    gave_up_share: float
    failures: Mapping[str, int]
    lateness: "Spread"


@dataclass(frozen=True, slots=True)
class Spread:
    """Half and 99 percent of the values are at most this, in seconds; None: there was no value."""

    p50: float | None
    p99: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The spread of these values, in any order."""
        ascending = sorted(values)
        return cls(percentile(ascending, 50), percentile(ascending, 99))


def percentile(ascending: Sequence[float], percent: float) -> float | None:
    """The smallest value that is at least as large as `percent` of them (nearest rank)."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def summarise(visits: Sequence[Visit], window: Window) -> Figures:
    """Draw the figures from a run's visits.

    Goodput is about the work that was done in the window, all else about the clients who came in
    it.
    """
    came = [visit for visit in visits if window.since <= visit.due < window.until]
    count = Counter(visit.ending for visit in came)
    work = sum(window.work(visit) for visit in visits if visit.ending is Ending.SERVED)
    return Figures(
        goodput=work / window.capacity,
        served=_spread(came, Ending.SERVED),
        shed=_spread(came, Ending.SHED),
        shed_share=count[Ending.SHED] / max(1, len(came)),
        gave_up_share=count[Ending.GAVE_UP] / max(1, len(came)),
        failures=Counter(visit.reason for visit in came if visit.ending is Ending.FAILED),
        lateness=Spread.of(visit.late for visit in came),
    )


def _spread(visits: Sequence[Visit], ending: Ending) -> Spread:
    return Spread.of(visit.seconds for visit in visits if visit.ending is ending)
