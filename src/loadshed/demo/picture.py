"""The overload as an SVG: goodput and p99 over the offered load, without and with loadshed.

It brings its own background, for light pages and dark ones, and needs no font but the reader's.
"""

from collections.abc import Sequence

from loadshed.demo.chart import STYLE, Look, Panel, text
from loadshed.demo.overload import Plan, Run

_OPENING = """\
<svg xmlns="http://www.w3.org/2000/svg" width="920" height="410" viewBox="0 0 920 410" role="img">
<title>Goodput and p99 over the offered load, without and with loadshed</title>
<rect x="0.5" y="0.5" width="919" height="409" rx="10" fill="#ffffff" stroke="#d1d9e0"/>"""
_LOOKS = {
    False: Look("without loadshed", "#c2410c", square=True),
    True: Look("with loadshed", "#0969a8", square=False),
}


def draw(runs: Sequence[Run], plan: Plan) -> str:
    """The picture of these runs, as the text of an SVG file.

    Args:
        runs: What was measured.
        plan: How.
    """
    lines = [
        _OPENING,
        STYLE,
        *_header(plan),
        *_goodput(runs, plan),
        *_latency(runs, plan),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _header(plan: Plan) -> list[str]:
    setting = (
        f"{plan.slots} slots of {_ms(plan.service_time)} under uvicorn serve {plan.capacity:g} "
        f"requests a second; clients come as they please and hang up after {_ms(plan.deadline)}"
    )
    return [
        text(28, 40, "The same service under overload, without and with loadshed", "title"),
        text(28, 64, setting, "faint"),
        *_legend(28, _LOOKS[False]),
        *_legend(190, _LOOKS[True]),
    ]


def _legend(x: float, look: Look) -> list[str]:
    return [
        look.stroke([(x, 92), (x + 30, 92)]),
        look.point((x + 15, 92), look.name),
        text(x + 38, 96.5, look.name),
    ]


def _goodput(runs: Sequence[Run], plan: Plan) -> list[str]:
    panel = Panel(
        title="Goodput, as a share of capacity",
        left=64,
        loads=plan.loads,
        ticks=(0, 0.25, 0.5, 0.75, 1),
        wording="{:.2f}",
        ceiling=1.17 * max(1.0, *(run.figures.goodput for run in runs)),
    )
    lines = panel.frame()
    for protected, look in _LOOKS.items():
        points = [(run.load, run.figures.goodput) for run in _of(runs, protected)]
        lines += panel.curve(points, look)
        lines.append(panel.label(points[-1], f"{look.name}: {panel.words(points[-1][1])}", look))
    return lines


def _latency(runs: Sequence[Run], plan: Plan) -> list[str]:
    deadline = plan.deadline * 1000
    slowest = max(run.figures.served.p99 or 0 for run in runs) * 1000
    panel = Panel(
        title="p99 of those served, in ms",
        left=536,
        loads=plan.loads,
        ticks=[deadline * fifths / 5 for fifths in range(6)],
        wording="{:.0f} ms",
        ceiling=1.17 * max(deadline, slowest),
    )
    lines = [
        *panel.frame(),
        panel.across(deadline, "mark"),
        text(panel.left + 4, panel.y(deadline) - 7, "the clients hang up", "faint"),
    ]
    for protected, look in _LOOKS.items():
        lines += _p99(panel, _of(runs, protected), look, deadline)
    return lines


def _p99(panel: Panel, runs: Sequence[Run], look: Look, deadline: float) -> list[str]:
    served = [run for run in runs if run.figures.served.p99 is not None]
    unserved = [run.load for run in runs if run.figures.served.p99 is None]
    points = [(run.load, (run.figures.served.p99 or 0) * 1000) for run in served]
    if unserved and unserved[-1] == runs[-1].load:
        end, words = (unserved[-1], deadline), "nobody was served in time"
    else:
        end, words = points[-1], panel.words(points[-1][1])
    return [
        *panel.curve(points, look),
        *panel.crosses(unserved, deadline, look, "nobody was served in time"),
        panel.label(end, f"{look.name}: {words}", look),
    ]


def _of(runs: Sequence[Run], protected: bool) -> list[Run]:
    return [run for run in runs if run.protected is protected]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"
