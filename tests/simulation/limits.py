"""Limits: those that are compared."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from loadshed._policy.admission import Admission
from loadshed._policy.limits.aimd import AIMDLimit
from loadshed._policy.limits.gradient2 import Gradient2Limit
from loadshed._policy.limits.knee import KneeLimit
from loadshed._policy.limits.limit import Limit
from loadshed._policy.limits.vegas import VegasLimit
from tests.simulation.gate import lag_gate
from tests.simulation.request import Request
from tests.simulation.services import Gate


def no_gate() -> Gate | None:
    """All that come go to the admission."""
    return None


@dataclass(frozen=True, slots=True)
class Contender:
    """A limit and its queue.

    Attributes:
        name: For a table.
        admission: Makes it, given the right number, which only a fixed one looks at.
        gate: Makes what stands before it in an event loop.
    """

    name: str
    admission: Callable[[int], Admission[Request]]
    gate: Callable[[], Gate | None] = no_gate


# The rivals get what Knee has: its queue, the signal of clients that left, and a limit down to 1.


def found(limit: Callable[[], Limit], _: int = 0) -> Admission[Request]:
    """A limit that finds its number, and the queue that goes with it."""
    return Admission(limit(), order="adaptive_lifo")


def without_queue(_: int) -> Admission[Request]:
    """Knee where nobody may wait."""
    limit = KneeLimit()
    limit.has_queue = False
    return Admission(limit, 0)


def fixed(factor: float, right: int) -> Admission[Request]:
    """So many times the right number; as many may wait, first come first served."""
    return Admission(max(1, round(factor * right)))


CONTENDERS = {
    "knee": Contender("Knee", partial(found, KneeLimit)),
    "gated": Contender("Knee, lag gate", partial(found, KneeLimit), lag_gate),
    "queueless": Contender("Knee, no queue", without_queue),
    "right": Contender("fixed, right", partial(fixed, 1)),
    "half": Contender("fixed, half", partial(fixed, 0.5)),
    "twice": Contender("fixed, 2 x", partial(fixed, 2)),
    "four": Contender("fixed, 4 x", partial(fixed, 4)),
    "aimd": Contender("AIMD", partial(found, partial(AIMDLimit, lowest=1))),
    "vegas": Contender("Vegas", partial(found, partial(VegasLimit, lowest=1))),
    "gradient2": Contender("Gradient2", partial(found, partial(Gradient2Limit, lowest=1))),
}
"""By their names on the command line."""

COMPARED = ("knee", "right", "half", "twice", "four", "aimd", "vegas", "gradient2")
"""Those of a table that nobody asked to be another one."""
