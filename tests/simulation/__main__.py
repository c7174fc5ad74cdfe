"""Compares limits in virtual time: `make simulate`, or some of it with ARGS="1 8 --seeds 8"."""

import argparse
import time
from pathlib import Path

from tests.simulation import pictures
from tests.simulation.limits import COMPARED, CONTENDERS
from tests.simulation.robustness import ROBUSTNESS
from tests.simulation.scenarios import ACCEPTANCE
from tests.simulation.table import page, table

SCENARIOS = {scenario.name: scenario for scenario in (*ACCEPTANCE, *ROBUSTNESS)}


def main() -> None:
    """Print the table, and write what is asked for."""
    options = _options()
    began = time.monotonic()
    names = options.scenario or SCENARIOS
    scenarios = [SCENARIOS[name] for name in names]
    contenders = [CONTENDERS[name] for name in options.limits]
    lines = []
    for line in table(scenarios, contenders, options.seeds):
        print(line, flush=True)
        lines.append(line)
    if options.write:
        drawn = {"limits-over-load": pictures.OVER_LOAD, "limit-over-time": pictures.OVER_TIME}
        _write(options.write, page(lines, options.seeds, drawn))
        assets = options.write.parent / "assets"
        _write(assets / "limits-over-load.svg", pictures.over_load(options.seeds))
        _write(assets / "limit-over-time.svg", pictures.over_time())
    print(f"{time.monotonic() - began:.0f} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "scenario", nargs="*", help=f"all, or some of: {', '.join(SCENARIOS)}", metavar="scenario"
    )
    parser.add_argument("--seeds", type=int, default=2, help="runs of each (default: 2)")
    parser.add_argument(
        "--limits", nargs="+", choices=CONTENDERS, default=COMPARED, help="what is compared"
    )
    parser.add_argument(
        "--write", type=Path, help="a Markdown file for the table; pictures go to assets/ beside it"
    )
    options = parser.parse_args()
    if unknown := set(options.scenario) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return options


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
