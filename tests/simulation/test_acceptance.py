"""What a limit that nobody chose has to reach, whatever stands behind it."""

import os

import pytest

from tests.simulation.limits import CONTENDERS
from tests.simulation.robustness import ROBUSTNESS
from tests.simulation.scenario import Scenario, run
from tests.simulation.scenarios import ACCEPTANCE
from tests.simulation.table import measured

pytestmark = pytest.mark.long

KNEE = CONTENDERS["knee"]
IS_SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
COSTLY = {"1-10x", "4", "6"}
"""Scenarios with more than 100 000 requests."""


def seeds(scenario: Scenario) -> int:
    if IS_SOAK:
        return 8
    return 1 if scenario.name in COSTLY else 2


@pytest.mark.parametrize(
    "scenario", [each for each in ACCEPTANCE if each.threshold], ids=lambda each: each.title
)
def test_a_limit_that_nobody_chose_keeps_goodput_up(scenario: Scenario) -> None:
    goodput = measured(scenario, KNEE, seeds(scenario))
    assert scenario.threshold
    assert goodput.mean >= scenario.threshold, f"{goodput}"


@pytest.mark.parametrize(
    "scenario",
    [each for each in ROBUSTNESS if each.name.startswith("step")],
    ids=lambda each: each.title,
)
def test_it_is_quick_where_a_dependency_became_slower(scenario: Scenario) -> None:
    """The step is in the middle of a minute: without haste 0.91 and 0.89."""
    goodput = measured(scenario, KNEE, 8 if IS_SOAK else 2)
    assert goodput.mean >= 0.93, f"{goodput}"


@pytest.mark.parametrize(
    "scenario",
    [each for each in ACCEPTANCE if each.name in {"1", "2"}],
    ids=lambda each: each.title,
)
def test_it_does_without_a_queue(scenario: Scenario) -> None:
    goodput = measured(scenario, CONTENDERS["queueless"], seeds(scenario))
    assert goodput.mean >= 0.85, f"{goodput}"


@pytest.mark.parametrize(
    "scenario", [each for each in ACCEPTANCE if each.is_still], ids=lambda each: each.title
)
def test_the_limit_does_not_move_without_evidence(scenario: Scenario) -> None:
    for seed in range(seeds(scenario)):
        assert set(run(scenario, KNEE, seed).tally.limits) == {10}
