"""Flow control of a stream."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed._policy.credit import ITEM, Consumption, Window


@given(st.integers(1, 5000), st.lists(st.integers(0, 3000), max_size=80), st.data())
def test_a_producer_is_never_far_ahead_and_never_waits_for_ever(
    limit: int, sizes: list[int], data: st.DataObject
) -> None:
    window, consumption = Window(limit), Consumption(limit)
    under_way: deque[int] = deque()
    unacknowledged: deque[int] = deque()
    to_send = deque(sizes)
    while to_send or under_way:
        may_send = bool(to_send) and window.is_open
        assert may_send or under_way, "it waits, and all is consumed"
        if may_send and (not under_way or data.draw(st.booleans())):
            size = to_send.popleft()
            assert sum(unacknowledged) < limit
            window.sent(size)
            under_way.append(size)
            unacknowledged.append(size + ITEM)
        else:
            count = consumption.took(under_way.popleft())
            window.acknowledged(count)
            for _ in range(count):
                unacknowledged.popleft()
        assert window.is_open == (sum(unacknowledged) < limit)


def test_half_of_the_limit_is_worth_a_message() -> None:
    consumption = Consumption(2 * (100 + ITEM) * 2)
    assert [consumption.took(100) for _ in range(4)] == [0, 2, 0, 2]


def test_more_than_was_sent_can_not_be_acknowledged() -> None:
    window = Window(1000)
    window.sent(1)
    with pytest.raises(ValueError, match="2 items are acknowledged, and 1 were sent"):
        window.acknowledged(2)
