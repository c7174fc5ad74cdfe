"""Table: the goodput of limits in scenarios, in Markdown."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.limits import Contender
from tests.simulation.scenario import Scenario, run

EXPLAINED = """\
Requests that were answered before their client gave up, as a share of what was possible: the mean
of the runs with {seeds} seeds, and in brackets the worst of them. "2 x" is the load, in multiples
of capacity."""

ORIGIN = """\
The queue is that of the limiter: adaptive for the limits that move, first in, first out and as
long as the limit for fixed ones. A row whose worst seed is far below its mean says that it
sometimes takes long to find the limit. `no-await` is what no limit can help; a limiter that finds
its limit [watches the event loop](design.md#the-turn-of-the-event-loop) as well, which is not part
of this.

Made by `make simulate`: `tests/simulation/scenarios.py` and `robustness.py` say what happens,
`limits.py` what is compared."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """What came of some seeds."""

    seeds: Sequence[float]

    @property
    def mean(self) -> float:
        """Of all."""
        return statistics.fmean(self.seeds)

    @property
    def worst(self) -> float:
        """The least."""
        return min(self.seeds)

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.worst:.2f}]"


def measured(scenario: Scenario, contender: Contender, seeds: int) -> Goodput:
    """The goodput of a limit in a scenario, with this many seeds."""
    return Goodput([run(scenario, contender, seed).goodput for seed in range(seeds)])


def table(
    scenarios: Iterable[Scenario], contenders: Sequence[Contender], seeds: int
) -> Iterator[str]:
    """The lines of a table, each as soon as it is known."""
    names = [contender.name for contender in contenders]
    yield _row(["scenario", "what happens", ">=", *names])
    yield _row(["---"] * (3 + len(names)))
    for scenario in scenarios:
        threshold = f"{scenario.threshold:.2f}" if scenario.threshold else ""
        cells = [str(measured(scenario, contender, seeds)) for contender in contenders]
        yield _row([scenario.name, scenario.title, threshold, *cells])


def page(lines: Iterable[str], seeds: int, pictures: Mapping[str, str]) -> str:
    """A document of a table and pictures, which are in assets/ beside it.

    Args:
        lines: The table's.
        seeds: How many there were.
        pictures: Their names, and what they show.
    """
    parts = [
        "# Limits, compared in virtual time",
        *(f"![{words}](assets/{name}.svg)" for name, words in pictures.items()),
        EXPLAINED.format(seeds=seeds),
        "\n".join(lines),
        ORIGIN,
    ]
    return "\n\n".join(parts) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
