import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from loadshed.demo import report
from loadshed.demo.client import Answer
from loadshed.demo.experiment import Experiment
from loadshed.demo.figures import Spread
from loadshed.demo.overload import Plan, Run

SERVED = Answer(status=200, retry_after=None, body=b"", seconds=2)
SHED = Answer(status=503, retry_after=1, body=b"", seconds=0.0034)
PROMISED = Experiment(running=(SERVED,) * 2, queued=(SERVED,) * 2, extra=(SHED,) * 5)


def text(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def with_figures(run: Run, **changes: object) -> Run:
    return replace(run, figures=replace(run.figures, **changes))  # type: ignore[arg-type]


def test_the_table_shows_every_figure(runs: list[Run]) -> None:
    rows = [line.split() for line in text(report.table(runs)).splitlines() if "with" in line]
    assert rows == [
        ["0.5x", "without", "0.47", "101", "105", "0%", "0%", "-", "-"],
        ["with", "0.47", "101", "105", "0%", "0%", "-", "-"],
        ["10x", "without", "0.00", "-", "-", "100%", "0%", "-", "-"],
        ["with", "0.98", "201", "207", "0%", "90%", "1.4", "12"],
    ]


def test_the_setting_names_what_the_figures_depend_on(plan: Plan) -> None:
    setting = " ".join(text(report.setting(plan)).split())
    assert "10 slots of 100 ms" in setting
    assert "100 requests a second" in setting
    assert "hangs up after 500 ms" in setting
    assert "seed 1" in setting


def test_arrivals_on_time_are_no_reason_for_a_warning(runs: list[Run], plan: Plan) -> None:
    notes = " ".join(text(report.notes(runs, plan)).split())
    assert "99 % of the requests were sent at most 2.0 ms late" in notes
    assert "Warning" not in notes


def test_arrivals_that_were_late_are_named_with_their_load(runs: list[Run], plan: Plan) -> None:
    late = [*runs[:-1], with_figures(runs[-1], lateness=Spread(0.001, 0.0234))]
    notes = " ".join(text(report.notes(late, plan)).split())
    assert notes.count("Warning") == 1
    assert "Warning: 10x with loadshed: 99 % of the requests were sent up to 23 ms late" in notes
    assert "take these figures with care" in notes


def test_requests_that_failed_are_told_with_the_reason(runs: list[Run], plan: Plan) -> None:
    failed = [with_figures(runs[0], failures={"OSError(24, 'Too many open files')": 7})]
    notes = " ".join(text(report.notes(failed, plan)).split())
    assert (
        "Warning: 0.5x without loadshed: 7 requests failed: OSError(24, 'Too many open files')"
        in notes
    )


def test_a_run_in_which_nobody_came_is_not_late(runs: list[Run], plan: Plan) -> None:
    empty = [with_figures(runs[0], lateness=Spread(None, None))]
    assert "Warning" not in text(report.notes(empty, plan))


def test_the_verdict_counts_who_was_turned_away_and_how_fast() -> None:
    assert text(report.verdict(PROMISED)).split("\n")[0] == (
        "Exactly 5 were turned away, the slowest after 3.4 ms; all others were served."
    )


def test_the_verdict_does_not_hide_a_broken_promise() -> None:
    broken = replace(PROMISED, queued=(SHED, SHED))
    assert "not what loadshed promises" in text(report.verdict(broken))


@pytest.mark.parametrize("terminal", [False, True])
def test_only_a_terminal_gets_a_progress_bar(terminal: bool, runs: list[Run], plan: Plan) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, highlight=False)
    with report.progress(console, plan) as tell:
        for run in runs:
            tell(run)
    shown = file.getvalue()
    assert "10x without loadshed: goodput 0.00 of capacity" in shown
    assert ("\x1b" in shown) is terminal
    assert ("4/4" in shown) is terminal
