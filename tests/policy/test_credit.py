"""Flow control of a stream, against lists of what is under way."""

from collections import deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loadshed._policy.credit import ITEM, Consumption, Window


class StreamMachine(RuleBasedStateMachine):
    """A producer that stops when its window is closed, and a consumer that takes all that comes.

    Items and acknowledgements are under way for as long as they like. What the producer counts of
    an item may be more than what the consumer does, by the head of its frame.
    """

    @initialize(limit=st.one_of(st.integers(1, 5000), st.just(256 * 1024)))
    def make(self, limit: int) -> None:
        self.limit = limit
        self.window, self.consumption = Window(limit), Consumption(limit)
        self.items: deque[int] = deque()  # under way to the consumer, as it counts them
        self.acknowledgements: deque[int] = deque()  # under way to the producer
        self.in_flight: deque[int] = deque()  # sent and not acknowledged, as the producer counts
        self.consumed: list[int] = []  # and no acknowledgement sent

    @precondition(lambda self: self.window.is_open)
    @rule(size=st.one_of(st.just(0), st.integers(0, 3000), st.integers(0, 10**6)), data=st.data())
    def produce(self, size: int, data: st.DataObject) -> None:
        head = data.draw(st.sampled_from([0, 0, 27, ITEM]))
        self.window.sent(size + head)
        self.items.append(size)
        self.in_flight.append(size + head + ITEM)

    @precondition(lambda self: self.window.is_open)
    @rule(size=st.integers(0, 300), head=st.sampled_from([0, ITEM]))
    def produce_all_that_the_window_lets_through(self, size: int, head: int) -> None:
        for _ in range(2 * self.limit // ITEM + 2):
            if not self.window.is_open:
                return
            self.window.sent(size + head)
            self.items.append(size)
            self.in_flight.append(size + head + ITEM)
        raise AssertionError("The window never closes.")

    @precondition(lambda self: self.items)
    @rule()
    def consume(self) -> None:
        size = self.items.popleft()
        count = self.consumption.took(size)
        self.consumed.append(size + ITEM)
        is_half = sum(self.consumed) >= self.limit / 2
        assert count == (len(self.consumed) if is_half else 0)
        if count:
            self.consumed.clear()
            self.acknowledgements.append(count)

    @precondition(lambda self: self.acknowledgements)
    @rule()
    def acknowledge(self) -> None:
        count = self.acknowledgements.popleft()
        self.window.acknowledged(count)
        for _ in range(count):
            self.in_flight.popleft()

    @rule()
    def everything_arrives(self) -> None:
        while self.items:
            self.consume()
        while self.acknowledgements:
            self.acknowledge()

    @rule(more=st.integers(1, 3))
    def more_is_acknowledged_than_was_sent(self, more: int) -> None:
        before = self.window.is_open
        with pytest.raises(ValueError, match="are acknowledged, and"):
            self.window.acknowledged(len(self.in_flight) + more)
        assert self.window.is_open is before

    @invariant()
    def the_window_is_open_while_less_than_the_limit_is_in_flight(self) -> None:
        assert self.window.is_open is (sum(self.in_flight) < self.limit)

    @invariant()
    def never_more_than_the_limit_and_one_item_is_in_flight(self) -> None:
        last = self.in_flight[-1] if self.in_flight else 0
        assert sum(self.in_flight) - last < self.limit

    @invariant()
    def nobody_waits_when_nothing_is_under_way(self) -> None:
        assert self.items or self.acknowledgements or self.window.is_open


def test_a_producer_is_never_far_ahead_and_never_waits_for_ever() -> None:
    run_state_machine_as_test(StreamMachine)


def test_half_of_the_limit_is_worth_a_message() -> None:
    consumption = Consumption(2 * (100 + ITEM) * 2)
    assert [consumption.took(100) for _ in range(4)] == [0, 2, 0, 2]


def test_a_byte_less_than_half_of_the_limit_is_not() -> None:
    consumption = Consumption(2 * ITEM + 1)
    assert [consumption.took(0) for _ in range(4)] == [0, 2, 0, 2]


def test_a_window_closes_at_its_limit_and_not_a_byte_before() -> None:
    window = Window(2 * ITEM)
    window.sent(ITEM - 1)
    assert window.is_open
    window.acknowledged(1)
    window.sent(ITEM)
    assert not window.is_open


def test_items_without_a_byte_close_a_window_too() -> None:
    assert ITEM == 256
    window = Window(4 * ITEM)
    for _ in range(4):
        assert window.is_open
        window.sent(0)
    assert not window.is_open
    window.acknowledged(0)
    assert not window.is_open


def test_the_oldest_are_acknowledged_first() -> None:
    window = Window(1000 + ITEM)
    for size in (1000, 0):
        window.sent(size)
    window.acknowledged(1)
    assert window.is_open
    window.sent(1000 - ITEM)  # with the small one, that is just all of it
    assert not window.is_open


def test_more_than_was_sent_can_not_be_acknowledged() -> None:
    window = Window(1000)
    window.acknowledged(0)
    window.sent(1)
    with pytest.raises(ValueError, match=r"^2 items are acknowledged, and 1 were sent\.$"):
        window.acknowledged(2)
    window.acknowledged(1)
    with pytest.raises(ValueError, match="1 items are acknowledged, and 0 were sent"):
        window.acknowledged(1)
