"""A chart in SVG: a panel with two scales, curves and their labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = """<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
.title { font-size: 19px; font-weight: 600; }
.panel { font-size: 14px; font-weight: 600; }
.faint { fill: #59636e; }
.label { font-weight: 600; paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
.grid { stroke: #e4e8ec; }
.axis { stroke: #8c959f; }
.mark { stroke: #59636e; stroke-width: 1.5; stroke-dasharray: 6 4; }
</style>"""

Point = tuple[float, float]
"""An offered load and a value, or a place in the picture."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a curve is told from the other one, without colours too.

    Attributes:
        name: What it is called.
        colour: What it is drawn in.
        square: Whether its points are squares rather than circles.
    """

    name: str
    colour: str
    square: bool

    def point(self, place: Point, tip: str) -> str:
        """One of its points; the tip shows under the mouse."""
        x, y = place
        corner = 0 if self.square else 5
        return (
            f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" rx="{corner}" '
            f'fill="{self.colour}" stroke="#ffffff" stroke-width="1.5"><title>{tip}</title></rect>'
        )

    def cross(self, place: Point, tip: str) -> str:
        """A point that is missing."""
        x, y = place
        strokes = "".join(f"M{x - 5:.1f} {y - 5 * d:.1f}l10 {10 * d}" for d in (1, -1))
        return (
            f'<path d="{strokes}" stroke="{self.colour}" stroke-width="3" '
            f'stroke-linecap="round"><title>{tip}</title></path>'
        )

    def stroke(self, points: Sequence[Point]) -> str:
        """A line through these places of the picture."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return (
            f'<polyline points="{path}" fill="none" stroke="{self.colour}" stroke-width="2.5" '
            f'stroke-linejoin="round"/>'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A rectangle, and the two scales that lead into it.

    Attributes:
        title: What is drawn over the offered load.
        left: Where it begins.
        loads: The offered loads, ascending: the ticks of the logarithmic scale.
        ticks: The ticks of the linear scale.
        ceiling: Where that scale ends.
        wording: A format for its values.
    """

    title: str
    left: float
    loads: Sequence[float]
    ticks: Sequence[float]
    ceiling: float
    wording: str
    top: float = 142
    width: float = 356
    height: float = 200

    def x(self, load: float) -> float:
        """Where a load is: twice the load is always as far away."""
        low, high = math.log(self.loads[0]), math.log(self.loads[-1])
        share = (math.log(load) - low) / (high - low) if high > low else 0.5
        return self.left + 20 + share * (self.width - 40)

    def y(self, value: float) -> float:
        """Where a value is."""
        return self.top + self.height * (1 - value / self.ceiling)

    def frame(self) -> list[str]:
        """The title, the scales and the grid."""
        bottom, middle = self.top + self.height, self.left + self.width / 2
        return [
            text(self.left, self.top - 12, self.title, "panel"),
            *(self.across(tick, "grid") for tick in self.ticks),
            *(
                text(self.left - 8, self.y(tick) + 4.5, f"{tick:g}", "faint", "end")
                for tick in self.ticks
            ),
            self.across(0, "axis"),
            *(
                text(self.x(load), bottom + 20, f"{load:g}", "faint", "middle")
                for load in self.loads
            ),
            text(middle, bottom + 43, "offered load, in multiples of capacity", "faint", "middle"),
        ]

    def words(self, value: float) -> str:
        """A value as one reads it."""
        return self.wording.format(value)

    def across(self, value: float, style: str) -> str:
        """A horizontal line at this value."""
        y = self.y(value)
        return (
            f'<line x1="{self.left:g}" y1="{y:.1f}" x2="{self.left + self.width:g}" y2="{y:.1f}" '
            f'class="{style}"/>'
        )

    def curve(self, points: Sequence[Point], look: Look) -> list[str]:
        """The line through the points, and the points."""
        places = [(self.x(load), self.y(value)) for load, value in points]
        tips = [f"{load:g}x {look.name}: {self.words(value)}" for load, value in points]
        return [look.stroke(places), *map(look.point, places, tips)]

    def crosses(self, loads: Sequence[float], value: float, look: Look, why: str) -> list[str]:
        """A cross for each load that has no value, drawn at this one."""
        return [
            look.cross((self.x(load), self.y(value)), f"{load:g}x {look.name}: {why}")
            for load in loads
        ]

    def label(self, point: Point, words: str, look: Look) -> str:
        """Words about a curve's last point: above it, or below where that keeps two apart."""
        load, value = point
        below = look.square and value > 0.2 * self.ceiling
        y = self.y(value) + (23 if below else -13)
        return text(self.x(load) + 10, y, words, "label", "end", colour=look.colour)


def text(
    x: float,
    y: float,
    words: str,
    style: str = "",
    anchor: str = "start",
    *,
    colour: str = "#1f2328",
) -> str:
    """Words at a place; a style that has a colour goes before this one."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}" '
        f'fill="{colour}">{words}</text>'
    )
