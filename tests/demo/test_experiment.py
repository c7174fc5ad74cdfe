import asyncio
from dataclasses import replace

import pytest

from loadshed.demo import experiment
from loadshed.demo.client import Answer
from loadshed.demo.experiment import Experiment, run_experiment
from loadshed.demo.servers import DemoError

SERVED = Answer(status=200, retry_after=None, body=b"done\n", seconds=2.0)
SHED = Answer(status=503, retry_after=1, body=b"{}", seconds=0.003)
PROMISED = Experiment(running=(SERVED,) * 2, queued=(SERVED,) * 2, extra=(SHED,) * 5)


def run() -> tuple[Experiment, list[str]]:
    lines: list[str] = []
    return asyncio.run(run_experiment(lines.append, service_time=0.5)), lines


def test_exactly_the_five_that_find_no_room_are_turned_away_within_50_ms() -> None:
    # Who is turned away never depends on the machine. How fast does, so it may stumble twice.
    for _ in range(3):
        result, lines = run()
        assert result.as_promised
        assert [answer.retry_after for answer in result.extra] == [1] * 5
        assert all(answer.seconds >= 0.5 for answer in result.running)
        assert [line.split()[0] for line in lines] == ["2", "2", "5"] + ["503"] * 5 + ["200"] * 4
        if result.slowest_rejection <= 0.05:
            break
    assert result.slowest_rejection <= 0.05


@pytest.mark.parametrize(
    "broken",
    [
        replace(PROMISED, extra=(SHED,) * 4 + (SERVED,)),
        replace(PROMISED, queued=(SERVED, SHED)),
        replace(PROMISED, running=(replace(SERVED, status=500), SERVED)),
    ],
)
def test_anything_else_is_not_as_promised(broken: Experiment) -> None:
    assert PROMISED.as_promised
    assert not broken.as_promised


def test_the_slowest_rejection_is_the_one_that_counts() -> None:
    extra = (SHED, replace(SHED, seconds=0.04), SHED)
    assert replace(PROMISED, extra=extra).slowest_rejection == 0.04


def test_a_state_that_never_comes_breaks_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "_STATE_TIMEOUT", 0.0)
    with pytest.raises(DemoError, match="The experiment broke off: TimeoutError"):
        run()
