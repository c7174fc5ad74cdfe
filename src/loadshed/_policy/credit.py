"""Flow control of a stream between two processes: how far a producer may be ahead."""

from collections import deque

ITEM = 256
"""Bytes that an item counts for besides its own: there may be many that are very small."""


class Window:
    """The producer's side.

    Args:
        limit: Bytes that may be sent and not be acknowledged; the last item may exceed it.
    """

    __slots__ = ("_bytes", "_limit", "_sizes")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._sizes: deque[int] = deque()

    @property
    def is_open(self) -> bool:
        """Whether another item may be sent."""
        return self._bytes < self._limit

    def sent(self, size: int) -> None:
        """An item of so many bytes was sent."""
        self._sizes.append(size + ITEM)
        self._bytes += size + ITEM

    def acknowledged(self, count: int) -> None:
        """The oldest `count` items were consumed.

        Raises:
            ValueError: They are more than were sent; nothing has changed.
        """
        if count > len(self._sizes):
            raise ValueError(f"{count} items are acknowledged, and {len(self._sizes)} were sent.")
        for _ in range(count):
            self._bytes -= self._sizes.popleft()


class Consumption:
    """The consumer's side.

    Args:
        limit: The producer's.
    """

    __slots__ = ("_bytes", "_items", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._items = 0

    def took(self, size: int) -> int:
        """An item of so many bytes was consumed; how many to acknowledge, which is mostly none.

        It is worth a message when half of the limit was consumed. A producer that waits has sent
        all of it, so it is always told in time.
        """
        # Also where the producer counts what is around an item, the head of a frame say, and this
        # side doesn't: up to `ITEM` bytes of it, its count is at most twice this one.
        self._bytes += size + ITEM
        self._items += 1
        if 2 * self._bytes < self._limit:
            return 0
        count, self._items, self._bytes = self._items, 0, 0
        return count
