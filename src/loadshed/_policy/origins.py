"""One state for each origin, for the latest so many of them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

StateT = TypeVar("StateT")

MOST = 1000
"""How many origins are remembered: a crawler meets more, and the memory must not grow with them."""


class Origins(Generic[StateT]):
    """Makes a state for an origin that is new, and forgets the least recently used one.

    Args:
        make: Makes a state.
        most: How many are kept.
    """

    __slots__ = ("_make", "_most", "_states")

    def __init__(self, make: Callable[[], StateT], most: int = MOST) -> None:
        self._make = make
        self._most = most
        self._states: OrderedDict[Hashable, StateT] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[StateT]:
        return iter(self._states.values())

    def peek(self, origin: Hashable) -> StateT:
        """The state of an origin, to look at: that of a new one is not kept."""
        return self._states[origin] if origin in self._states else self._make()

    def __getitem__(self, origin: Hashable) -> StateT:
        states = self._states
        try:
            states.move_to_end(origin)
        except KeyError:
            if len(states) >= self._most:
                states.popitem(last=False)
            states[origin] = self._make()
        return states[origin]
