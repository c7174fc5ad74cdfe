"""When a replica that died is replaced."""

from loadshed._policy.restarts import LONGEST, Restarts


def test_the_first_is_replaced_at_once_and_then_the_pause_doubles() -> None:
    restarts = Restarts()
    pauses = [restarts.failed() for _ in range(12)]
    assert pauses == [0, 0.25, 0.5, 1, 2, 4, 8, 16, LONGEST, LONGEST, LONGEST, LONGEST]


def test_it_never_overflows() -> None:
    restarts = Restarts()
    restarts.failures = 10**6
    assert restarts.failed() == LONGEST


def test_one_that_proved_itself_begins_a_new_count() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.failed()
    assert restarts.died(proven=True) == 0
    assert restarts.failures == 1
    assert restarts.died(proven=False) == 0.25


def test_three_in_a_row_are_a_crash_loop() -> None:
    restarts = Restarts()
    seen = []
    for _ in range(4):
        restarts.failed()
        seen.append(restarts.is_crash_loop)
    assert seen == [False, False, True, True]
