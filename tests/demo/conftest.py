import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loadshed.demo.figures import Figures, Spread
from loadshed.demo.overload import Plan, Run

NONE = Spread(None, None)


def figures(
    goodput: float,
    served: Spread = NONE,
    shed: Spread = NONE,
    *,
    shed_share: float = 0,
    gave_up_share: float = 0,
    failures: dict[str, int] | None = None,
    late: float = 0.002,
) -> Figures:
    return Figures(
        goodput=goodput,
        served=served,
        shed=shed,
        shed_share=shed_share,
        gave_up_share=gave_up_share,
        failures=failures or {},
        lateness=Spread(late / 2, late),
    )


@pytest.fixture
def plan() -> Plan:
    return Plan(loads=(0.5, 10))


@pytest.fixture
def runs() -> list[Run]:
    """Everybody served; everybody served; nobody served; full, and the rest shed."""
    calm = figures(0.47, Spread(0.101, 0.105))
    lost = figures(0.0, gave_up_share=1)
    busy = figures(0.985, Spread(0.201, 0.207), Spread(0.0014, 0.0123), shed_share=0.9)
    return [
        Run(load=0.5, protected=False, figures=calm),
        Run(load=0.5, protected=True, figures=calm),
        Run(load=10, protected=False, figures=lost),
        Run(load=10, protected=True, figures=busy),
    ]


@pytest.fixture
def is_running() -> Callable[[int], bool]:
    """Whether a process is there and has not ended; who is not reaped stays as a zombie."""

    def look(pid: int) -> bool:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return False
        return state != "Z"

    return look
