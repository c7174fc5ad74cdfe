"""Pictures: goodput over the load, and a limit that follows a change, as SVG files."""

from collections.abc import Mapping, Sequence

from loadshed.demo.chart import STYLE, Look, Panel, Point, text
from tests.simulation.limits import CONTENDERS
from tests.simulation.scenario import Outcome, Scenario, run
from tests.simulation.scenarios import overload, slower
from tests.simulation.table import measured

OVER_LOAD = "Goodput over the offered load, for several limits"

OVER_TIME = "The right number changes from 10 to 40 and back"

LOADS = (0.5, 0.8, 1, 1.5, 2, 3, 5, 10)

LOOKS = {
    "knee": Look("KneeLimit, no number", "#0969a8", square=False),
    "right": Look("fixed, the right number", "#59636e", square=False),
    "half": Look("fixed, half of it", "#c2410c", square=True),
    "four": Look("fixed, 4 times as much", "#8250df", square=True),
    "gradient2": Look("Gradient2", "#1a7f37", square=True),
}

CHANGE = slower("change", 4, load=2, patience=3, threshold=0)
"""What the second picture shows."""

CHANGED = {"knee": LOOKS["knee"], "right": Look("fixed at 10", "#59636e", square=False)}
"""The limits that it shows."""

SMOOTH = 5
"""Seconds over which goodput is averaged there."""


def over_load(seeds: int) -> str:
    """Goodput over the offered load, for several limits."""
    points = {
        name: [(load, measured(_at(load), CONTENDERS[name], seeds).mean) for load in LOADS]
        for name in LOOKS
    }
    panel = Panel(
        title="Goodput, as a share of what is possible",
        left=64,
        loads=LOADS,
        ticks=(0, 0.25, 0.5, 0.75, 1),
        ceiling=1.1,
        wording="{:.2f}",
        top=112,
        width=520,
        height=260,
    )
    lines = [
        *_opening(820, 440, OVER_LOAD),
        text(28, 64, "10 slots of 0.1 s; clients give up after 0.5 s; virtual time", "faint"),
        *panel.frame(),
    ]
    for name, look in reversed(LOOKS.items()):
        lines += panel.curve(points[name], look)
    lines += _legend(LOOKS, 606, 130)
    return "\n".join([*lines, "</svg>", ""])


def over_time() -> str:
    """The limit and goodput over time, where the service becomes slower and wider."""
    outcomes = {name: run(CHANGE, CONTENDERS[name], 0) for name in CHANGED}
    highest = max(round(max(outcome.tally.limits)) for outcome in outcomes.values())
    ticks = range(0, CHANGE.seconds + 1, 120)
    goodput = TimePanel(
        title="Goodput, as a share of capacity",
        left=64,
        loads=ticks,
        ticks=(0, 0.25, 0.5, 0.75, 1),
        ceiling=1.25,
        wording="{:.2f}",
        top=122,
        width=520,
        height=150,
    )
    limit = TimePanel(
        title="The limit",
        left=64,
        loads=ticks,
        ticks=range(0, highest + 1, 40),
        ceiling=1.05 * highest,
        wording="{:.0f}",
        top=350,
        width=520,
        height=150,
    )
    change = "from 60 s to 660 s each request takes 4 times as long, with 4 times the slots"
    lines = [
        *_opening(820, 570, OVER_TIME),
        text(28, 64, f"10 slots of 0.1 s, 2 x; {change}; virtual time", "faint"),
        *goodput.frame(),
        *limit.frame(),
    ]
    for name, outcome in outcomes.items():
        limits = list(enumerate(outcome.tally.limits, 1))
        look = CHANGED[name]
        lines += [goodput.line(_smooth(outcome), look), limit.line(limits, look)]
    lines += _legend(CHANGED, 606, 140)
    return "\n".join([*lines, "</svg>", ""])


class TimePanel(Panel):
    """A panel over seconds in place of loads."""

    def x(self, load: float) -> float:
        """Where a second is."""
        return self.left + load / self.loads[-1] * self.width

    def frame(self) -> list[str]:
        """The title, the scales and the grid."""
        return [
            line.replace("offered load, in multiples of capacity", "seconds")
            for line in self._frame
        ]

    @property
    def _frame(self) -> list[str]:
        return super().frame()

    def line(self, points: Sequence[Point], look: Look) -> str:
        """A line without a mark for each point."""
        return look.stroke([(self.x(time), self.y(value)) for time, value in points])


def _at(load: float) -> Scenario:
    return overload(f"{load:g}", load, 0)


def _smooth(outcome: Outcome) -> list[Point]:
    starts = range(0, outcome.scenario.seconds, SMOOTH)
    return [(at + SMOOTH / 2, outcome.goodput_between(at, at + SMOOTH)) for at in starts]


def _opening(width: int, height: int, title: str) -> list[str]:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    inside = f'x="0.5" y="0.5" width="{width - 1}" height="{height - 1}"'
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{title}</title>",
        f'<rect {inside} rx="10" fill="#ffffff" stroke="#d1d9e0"/>',
        STYLE,
        text(28, 40, title, "title"),
    ]


def _legend(looks: Mapping[str, Look], x: float, y: float) -> list[str]:
    lines = []
    for row, look in enumerate(looks.values()):
        middle = y + 26 * row
        lines.append(look.stroke([(x, middle), (x + 24, middle)]))
        lines.append(text(x + 32, middle + 4.5, look.name))
    return lines
