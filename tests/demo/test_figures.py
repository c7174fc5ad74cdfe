import pytest

from loadshed.demo.figures import Spread, Window, percentile, summarise
from loadshed.demo.load import Ending, Visit


def visit(
    due: float,
    ending: Ending = Ending.SERVED,
    *,
    seconds: float = 0.1,
    late: float = 0.0,
    reason: str = "",
) -> Visit:
    return Visit(due=due, late=late, seconds=seconds, ending=ending, reason=reason)


WINDOW = Window(since=1, until=3, slots=2, service_time=0.1)


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (50, 50), (50.5, 51), (99, 99), (100, 100)]
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    percent: float, value: float
) -> None:
    assert percentile(range(1, 101), percent) == value


def test_of_few_values_the_99th_percentile_is_the_largest() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(p50=2.0, p99=3.0)


def test_of_no_values_there_is_no_percentile() -> None:
    assert Spread.of([]) == Spread(None, None)


def test_goodput_is_1_when_all_slots_work_on_answers_in_time() -> None:
    back_to_back = [visit(tenth / 10) for tenth in range(10, 30) for _ in range(2)]
    assert summarise(back_to_back, WINDOW).goodput == pytest.approx(1)


def test_goodput_does_not_depend_on_where_the_window_falls_between_the_answers() -> None:
    shifted = [visit(tenth / 10 + 0.07) for tenth in range(40) for _ in range(2)]
    assert summarise(shifted, WINDOW).goodput == pytest.approx(1)


def test_work_outside_the_window_does_not_count() -> None:
    assert summarise([visit(0.5), visit(3.2)], WINDOW).goodput == 0


def test_waiting_is_not_work() -> None:
    assert summarise([visit(1, seconds=1.5)], WINDOW).goodput == pytest.approx(0.1 / 4)


def test_only_those_who_were_served_count_as_goodput() -> None:
    others = [visit(1.5, ending) for ending in Ending if ending is not Ending.SERVED]
    assert summarise(others, WINDOW).goodput == 0


def test_who_came_during_the_warm_up_is_in_no_other_figure() -> None:
    early = [visit(0.9, ending, seconds=9, late=9, reason="early") for ending in Ending]
    figures = summarise([*early, visit(1)], WINDOW)
    assert figures.served == Spread(0.1, 0.1)
    assert figures.lateness == Spread(0.0, 0.0)
    assert (figures.shed_share, figures.gave_up_share, figures.failures) == (0, 0, {})


def test_each_ending_has_its_share_and_its_times() -> None:
    figures = summarise(
        [
            visit(1.0, seconds=0.2),
            visit(1.1, Ending.SHED, seconds=0.001),
            visit(1.2, Ending.SHED, seconds=0.003, late=0.02),
            visit(1.3, Ending.GAVE_UP, seconds=0.5),
            visit(1.4, Ending.FAILED, reason="status 500"),
        ],
        WINDOW,
    )
    assert figures.served == Spread(0.2, 0.2)
    assert figures.shed == Spread(0.001, 0.003)
    assert figures.shed_share == pytest.approx(2 / 5)
    assert figures.gave_up_share == pytest.approx(1 / 5)
    assert figures.failures == {"status 500": 1}
    assert figures.lateness == Spread(0.0, 0.02)


def test_a_window_in_which_nobody_came_has_figures_too() -> None:
    figures = summarise([], WINDOW)
    assert (figures.goodput, figures.shed_share, figures.gave_up_share) == (0, 0, 0)
