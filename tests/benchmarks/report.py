"""What the benchmarks share: rounds in turns, medians, and lines that tell ratio and target."""

import statistics
from collections.abc import Callable, Mapping


def in_turns(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each side once a round, so that a slow minute of the machine hits all of them."""
    results: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            results[name].append(measure())
    return results


def ratio(results: Mapping[str, list[float]], name: str, base: str) -> float:
    """The median of the rounds' ratios of one side to another."""
    pairs = zip(results[name], results[base], strict=True)
    return statistics.median(one / other for one, other in pairs)


def show(name: str, value: str, ratio: float, *, at_most: float = 0, at_least: float = 0) -> None:
    """Print a line: what, how much, how many times the base, and whether that is on target."""
    line = f"  {name:<48} {value:>14} {ratio:7.2f} x"
    if at_most:
        line += f"   target <= {at_most:g} x: {'met' if ratio <= at_most else 'MISSED'}"
    if at_least:
        line += f"   target >= {at_least:g} x: {'met' if ratio >= at_least else 'MISSED'}"
    print(line, flush=True)
