"""When a replica that died is replaced."""

import pytest

from loadshed._policy.restarts import LONGEST, PROVEN_AFTER, Restarts


def after(failures: int) -> Restarts:
    restarts = Restarts()
    for _ in range(failures):
        restarts.failed()
    assert restarts.failures == failures
    return restarts


def test_the_first_is_replaced_at_once_and_then_the_pause_doubles() -> None:
    restarts = Restarts()
    pauses = [restarts.failed() for _ in range(12)]
    assert pauses == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30]
    assert LONGEST == 30


@pytest.mark.parametrize("failures", [1100, 10**6, 10**400])
def test_however_many_have_failed_the_pause_is_the_longest_one(failures: int) -> None:
    restarts = Restarts()
    restarts.failures = failures
    assert restarts.failed() == LONGEST
    assert restarts.failures == failures + 1


@pytest.mark.parametrize("failures", [0, 1, 5])
def test_the_death_of_one_that_had_proved_itself_is_a_first_failure(failures: int) -> None:
    restarts = after(failures)
    assert restarts.died(proven=True) == 0
    assert restarts.failures == 1


@pytest.mark.parametrize("failures", [0, 1, 5])
def test_the_death_of_one_that_had_not_is_a_failure_like_any_other(failures: int) -> None:
    restarts, other = after(failures), after(failures)
    assert restarts.died(proven=False) == other.failed()
    assert restarts.failures == other.failures == failures + 1


def test_three_in_a_row_are_a_crash_loop_until_one_proves_itself() -> None:
    assert [after(failures).is_crash_loop for failures in range(5)] == [False] * 3 + [True] * 2
    restarts = after(4)
    restarts.died(proven=True)
    assert not restarts.is_crash_loop
    assert [restarts.failed() for _ in range(2)] == [0.25, 0.5]


def test_one_that_answers_nothing_is_good_after_ten_seconds_as_the_documents_say() -> None:
    assert PROVEN_AFTER == 10
