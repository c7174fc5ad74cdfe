"""What the terminal shows; in ASCII, so that a pipe, a log and an old console can show it too."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from loadshed.demo.experiment import Experiment
from loadshed.demo.overload import Plan, Run

TOO_LATE = 0.2
"""A run whose p99 of lateness is above this share of the service time gets a warning."""


def verdict(experiment: Experiment) -> Text:
    """The experiment in a line."""
    if not experiment.as_promised:
        return Text("This is not what loadshed promises.", style="red")
    turned_away = len(experiment.extra)
    slowest = _ms(experiment.slowest_rejection)
    return Text(
        f"Exactly {turned_away} were turned away, the slowest after {slowest} ms; "
        f"all others were served.",
        style="green",
    )


def setting(plan: Plan) -> str:
    """What is about to be run."""
    return (
        f"The service: {plan.slots} slots of {_ms(plan.service_time)} ms, which makes "
        f"{plan.capacity:g} requests a second. The clients: Poisson arrivals, whatever became of "
        f"those before (seed {plan.seed}); each hangs up after {_ms(plan.deadline)} ms. "
        f"{plan.seconds:g} s a run, after {plan.warm_up:g} s of warm-up."
    )


@contextmanager
def progress(console: Console, plan: Plan) -> Iterator[Callable[[Run], None]]:
    """Show each run as it ends, and on a terminal how far they are."""
    columns = (TextColumn("  "), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        refresh_per_second=4,  # it is drawn by the process that has to send requests in time
    )
    with bar:
        task = bar.add_task("", total=len(plan.runs))

        def tell(run: Run) -> None:
            console.print(f"  {_name(run):>21}: goodput {run.figures.goodput:.2f} of capacity")
            bar.advance(task)

        yield tell


def table(runs: Sequence[Run]) -> Table:
    """All runs, two lines for each load."""
    rows = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    for header in ("load", "loadshed", "goodput", "served\np50", "\np99"):
        rows.add_column(header, justify="right", no_wrap=True)
    for header in ("gave up", "shed", "shed in\np50", "\np99"):
        rows.add_column(header, justify="right", no_wrap=True)
    for run in runs:
        rows.add_row(*_row(run), end_section=run.protected)
    return rows


def notes(runs: Sequence[Run], plan: Plan) -> Text:
    """How to read the table, and what the reader has to know before trusting it."""
    worst = max(run.figures.lateness.p99 or 0 for run in runs)
    reading = (
        "Goodput: the share of its capacity that the service spent on answers which came in "
        "time. Served, shed: how long the answer took, in ms. Load generator: 99 % of the "
        f"requests were sent at most {worst * 1000:.1f} ms late.\n"
    )
    warnings = [line for run in runs for line in (*_lateness(run, plan), *_failures(run))]
    return Text(reading).append("".join(f"Warning: {line}\n" for line in warnings), style="yellow")


def _lateness(run: Run, plan: Plan) -> list[str]:
    late = run.figures.lateness.p99 or 0
    if late <= TOO_LATE * plan.service_time:
        return []
    late_by = f"99 % of the requests were sent up to {_ms(late)} ms late"
    return [f"{_name(run)}: {late_by}, so take these figures with care."]


def _failures(run: Run) -> list[str]:
    failures = run.figures.failures.items()
    return [f"{_name(run)}: {count} requests failed: {reason}" for reason, count in failures]


def _row(run: Run) -> tuple[str, ...]:
    figures = run.figures
    return (
        "" if run.protected else f"{run.load:g}x",
        "with" if run.protected else "without",
        f"{figures.goodput:.2f}",
        _ms(figures.served.p50),
        _ms(figures.served.p99),
        _percent(figures.gave_up_share),
        _percent(figures.shed_share),
        _ms(figures.shed.p50),
        _ms(figures.shed.p99),
    )


def _name(run: Run) -> str:
    return f"{run.load:g}x {'with' if run.protected else 'without'} loadshed"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"
