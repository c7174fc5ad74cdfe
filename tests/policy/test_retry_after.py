"""How long a shed caller is told to stay away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.retry_after import RetryAfter


def served(retry_after: RetryAfter, *, every: float, times: int) -> tuple[float, int]:
    """Permits come back one by one while others wait; when, and how many, at the end."""
    retry_after.observe(0, 0, busy=False)
    for n in range(1, times + 1):
        retry_after.observe(n * every, n, busy=True)
    return times * every, times


def test_before_any_permit_came_back_the_estimate_is_one_second() -> None:
    assert RetryAfter().shed(100, queued=50, returned=0) == 1


def test_permits_that_came_back_before_anybody_waited_say_nothing() -> None:
    assert RetryAfter().shed(100, queued=50, returned=1000) == 1


def test_it_is_the_time_that_the_queue_and_one_more_take() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=2, times=4)
    assert retry_after.shed(now, queued=4, returned=returned) == 10


def test_a_fraction_of_a_second_is_rounded_up() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=0.5, times=4)
    assert retry_after.shed(now, queued=2, returned=returned) == 2


def test_without_a_queue_it_is_the_time_to_the_next_permit() -> None:
    retry_after = RetryAfter()
    for second in range(0, 18, 3):
        retry_after.shed(second, queued=0, returned=second // 6)
    assert retry_after.shed(18, queued=0, returned=3) == 6


def test_it_is_never_longer_than_32_seconds() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=30, times=3)
    assert retry_after.shed(now, queued=100, returned=returned) == 32


def test_only_the_last_seconds_count() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=1, times=60)
    for n in range(1, 101):  # and now it goes ten times faster
        retry_after.observe(now + n / 10, returned + n, busy=True)
    assert retry_after.shed(now + 10, queued=49, returned=returned + 100) == 5


def test_while_nothing_comes_back_it_grows() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=1, times=4)
    assert retry_after.shed(now, queued=1, returned=returned) == 2
    assert retry_after.shed(now + 4, queued=1, returned=returned) == 4


@pytest.mark.parametrize("idle", [6, 60, 3600])
@pytest.mark.parametrize("meanwhile", [0, 1, 2, 10])
def test_what_came_back_while_nobody_waited_was_demand_and_not_capacity(
    idle: float, meanwhile: int
) -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=0.1, times=20)
    retry_after.observe(now + idle, returned + meanwhile, busy=False)  # the next overload begins
    assert retry_after.shed(now + idle, queued=8, returned=returned + meanwhile) == 1


def test_a_pause_between_two_bursts_makes_nothing_slower() -> None:
    retry_after = RetryAfter()
    for burst in range(10):
        retry_after.observe(burst * 4, burst * 2, busy=False)
        retry_after.observe(burst * 4 + 0.1, burst * 2 + 2, busy=True)
    assert retry_after.shed(40, queued=0, returned=20) == 1


def test_without_a_queue_a_long_silence_between_sheds_says_nothing() -> None:
    retry_after = RetryAfter()
    for second in range(0, 100, 10):
        assert retry_after.shed(second, queued=0, returned=second) == 1


def test_a_slow_service_is_not_taken_for_an_idle_one() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=7, times=5)
    assert retry_after.shed(now, queued=1, returned=returned) == 14


def test_another_clock_starts_afresh() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=10, times=4)
    assert retry_after.shed(now, queued=1, returned=returned) == 20
    assert retry_after.shed(5, queued=1, returned=returned) == 1


# How fast permits come back, for who turns requests away by it.


def test_before_any_permit_came_back_the_pace_is_not_known() -> None:
    retry_after = RetryAfter()
    assert retry_after.pace() == 0
    retry_after.observe(0, 0, busy=False)
    retry_after.observe(100, 0, busy=True)
    assert retry_after.pace() == 0


def test_the_pace_is_that_at_which_permits_come_back_while_somebody_waits() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=2, times=4)
    assert retry_after.pace() == 2
    retry_after.observe(now + 5, returned, busy=False)  # a pause
    assert retry_after.pace() == 2


def test_after_a_longer_pause_the_pace_is_not_known_until_it_is_seen_again() -> None:
    """Or one slow minute would shed for ever after, as nobody who is shed waits and sees more."""
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=30, times=4)
    retry_after.observe(now + 5.5, returned, busy=False)
    assert retry_after.pace() == 0
    retry_after.observe(now + 5.75, returned + 1, busy=True)
    assert retry_after.pace() == 0.25


def test_sheds_do_not_keep_an_old_pace_alive() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=30, times=4)
    for second in range(1, 10):
        retry_after.observe(now + second, returned, busy=False)
        retry_after.shed(now + second, queued=0, returned=returned)
    assert retry_after.pace() == 0


def test_the_estimate_for_those_who_are_shed_outlives_the_pause() -> None:
    retry_after = RetryAfter()
    now, returned = served(retry_after, every=2, times=4)
    retry_after.observe(now + 60, returned, busy=False)
    assert retry_after.shed(now + 60, queued=4, returned=returned) == 10


def test_another_clock_forgets_the_pace() -> None:
    retry_after = RetryAfter()
    served(retry_after, every=10, times=4)
    retry_after.observe(5, 4, busy=True)
    assert retry_after.pace() == 0


def sheds(retry_after: RetryAfter, second: int, count: int) -> int:
    """So many in this second; the answer to the last of them."""
    return [retry_after.shed(second + n / (count + 1), 0, 0) for n in range(count)][-1]


def test_it_doubles_while_clients_keep_being_shed() -> None:
    retry_after = RetryAfter()
    answers = [sheds(retry_after, second, 3) for second in range(70)]
    changes = [
        (second, answer) for second, answer in enumerate(answers) if answer != answers[second - 1]
    ]
    assert changes == [(0, 1), (1, 2), (3, 4), (7, 8), (15, 16), (31, 32)]


def test_it_stays_while_there_are_some() -> None:
    retry_after = RetryAfter()
    for second in range(4):
        sheds(retry_after, second, 3)
    assert {sheds(retry_after, second, 2) for second in range(4, 100)} == {4}


def test_it_falls_by_one_a_second_when_there_are_few() -> None:
    retry_after = RetryAfter()
    for second in range(8):
        sheds(retry_after, second, 3)
    # Second 14 is the first with fewer than 8 in the 8 seconds before it.
    assert [retry_after.shed(second, 0, 0) for second in (13, 14, 15, 16)] == [8, 7, 6, 5]


@pytest.mark.parametrize(("pause", "answer"), [(1, 32), (29, 31), (40, 20), (60, 1), (10**6, 1)])
def test_an_overload_long_past_is_forgotten(pause: int, answer: int) -> None:
    retry_after = RetryAfter()
    for second in range(40):
        assert sheds(retry_after, second, 10)
    assert retry_after.shed(40 + pause, 0, 0) == answer


def test_sheds_told_of_later_count_in_their_own_second() -> None:
    one_by_one, at_once = RetryAfter(), RetryAfter()
    for second in range(40):
        expected = sheds(one_by_one, second, 5)
        assert at_once.shed(second, 0, 0, earlier=4 if second else 0) == expected


@given(
    st.lists(
        st.tuples(
            st.floats(-10, 100),
            st.integers(0, 1000),
            st.integers(0, 5),
            st.sampled_from(["shed", "busy", "idle"]),
        ),
        max_size=60,
    )
)
def test_whatever_happens_it_is_1_to_32_whole_seconds(
    events: list[tuple[float, int, int, str]],
) -> None:
    retry_after = RetryAfter()
    now, returned = 0.0, 0
    for seconds, queued, more, event in events:
        now += seconds
        returned += more
        if event == "shed":
            answer = retry_after.shed(now, queued, returned)
            assert isinstance(answer, int)
            assert 1 <= answer <= 32
        else:
            retry_after.observe(now, returned, busy=event == "busy")
