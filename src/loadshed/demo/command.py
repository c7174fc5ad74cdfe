"""The subcommand `loadshed demo`."""

import asyncio
import math
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from loadshed.demo import experiment, report
from loadshed.demo.overload import Plan, Run, run_overload
from loadshed.demo.picture import draw
from loadshed.demo.servers import DemoError


class _Amount(click.FloatRange):
    """A number in a range, and really a number: NaN is in every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def _writable(_: click.Context, __: click.Parameter, path: Path) -> Path:
    # Said before the minute has passed, not after.
    if not os.access(path.parent, os.W_OK):
        raise click.BadParameter(f"Nothing can be written to the directory '{path.parent}'.")
    return path


@click.command()
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=_writable,
    default=Path("loadshed-demo.svg"),
    show_default=True,
    help="Where the picture goes.",
)
@click.option(
    "--load",
    "loads",
    multiple=True,
    type=_Amount(min=0.1, max=100),
    default=Plan().loads,
    show_default=True,
    help="An offered load, in multiples of the capacity; may be given several times.",
)
@click.option(
    "--seconds",
    type=_Amount(min=0.1, max=60),
    default=Plan().seconds,
    show_default=True,
    help="How long each load is measured.",
)
@click.option(
    "--warm-up",
    type=_Amount(min=0, max=60),
    default=Plan().warm_up,
    show_default=True,
    help="How many seconds each load lasts before it is measured.",
)
@click.option(
    "--seed",
    type=int,
    default=Plan().seed,
    show_default=True,
    help="Decides when each client comes.",
)
def demo(output: Path, loads: tuple[float, ...], seconds: float, warm_up: float, seed: int) -> None:
    """Watch a real server stay up under ten times its load.

    Starts uvicorn on the loopback interface and drives it with real HTTP: first nine requests,
    of which five are turned away; then far more than the service can take, without and with
    loadshed. Takes less than a minute and leaves a picture.
    """
    plan = Plan(loads=tuple(sorted(set(loads))), seconds=seconds, warm_up=warm_up, seed=seed)
    console = Console(highlight=False)
    try:
        runs = asyncio.run(_run(console, plan))
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    _save(draw(runs, plan), output)
    console.print(f"The picture: {output}", soft_wrap=True, markup=False)


def _save(picture: str, output: Path) -> None:
    try:
        output.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(output), hint=error.strerror) from error


async def _run(console: Console, plan: Plan) -> list[Run]:
    _heading(console, "Two run, two wait, five are turned away")
    result = await experiment.run_experiment(console.print, service_time=experiment.SERVICE_TIME)
    console.print(report.verdict(result))
    _heading(console, "Overload, without and with loadshed")
    console.print(report.setting(plan))
    with report.progress(console, plan) as tell:
        runs = await run_overload(plan, tell)
    console.print(report.table(runs), report.notes(runs, plan))
    return runs


def _heading(console: Console, title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")
