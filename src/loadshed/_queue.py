"""BoundedQueue: the waiting line as a queue between tasks."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from loadshed._clock import Clock
from loadshed._errors import ConfigError, QueueFullError
from loadshed._policy.queue import WaitingLine
from loadshed._policy.settings import whole_number
from loadshed._sleeper import Sleeper

T = TypeVar("T")


class Entry(Generic[T]):
    """An item's place in a `BoundedQueue`.

    Attributes:
        item: What was put.
        expires_at: Until when it is worth getting, in seconds of `anyio.current_time()`.
    """

    __slots__ = ("expires_at", "item")

    def __init__(self, item: T, expires_at: float) -> None:
        self.item = item
        self.expires_at = expires_at

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.item!r}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatistics:
    """What a `BoundedQueue` holds, and what became of all that was put into it.

    `put == got + discarded + expired + queued`, always.

    Attributes:
        queued: Items in it.
        maxsize: How many there may be.
        waiting: Tasks in `get()`.
        put: Items put so far.
        got: Items handed out.
        discarded: Items taken out by `discard`.
        expired: Items whose time came before they were handed out.
        refused: Items that `put_nowait` refused, because the queue was full.
    """

    queued: int
    maxsize: float
    waiting: int
    put: int
    got: int
    discarded: int
    expired: int
    refused: int


class BoundedQueue(Generic[T]):
    """A queue between tasks that never grows beyond its bound.

    First in, first out. Putting never waits: a full queue says so at once. An item may have a
    time until which it is worth handing out, and can be taken back from any place; both, like
    putting and getting, take the same time however long the queue is.

    ```python
    jobs = BoundedQueue[str](100)
    entry = jobs.put_nowait("resize cat.png")  # QueueFullError beyond 100
    jobs.discard(entry)  # whoever wanted it has gone
    job = await jobs.get()
    ```

    A queue can be made before there is an event loop, and serves asyncio and trio alike; the
    tasks of one event loop at a time, not several threads.

    Args:
        maxsize: How many items it holds: a whole number >= 0, or `math.inf`, which has to be
            spelled.

    Raises:
        ConfigError: `maxsize` is not what it may be.
    """

    def __init__(self, maxsize: float) -> None:
        self._line: WaitingLine[Entry[T]] = WaitingLine(
            whole_number("maxsize", maxsize, at_least=0)
        )
        # Tasks in `get()`, in the order in which they came. The first one is awake whenever there
        # is an item, and wakes the next when it is through: nothing is ever handed to a task that
        # may have been cancelled meanwhile, so nothing gets lost with one.
        self._getters: OrderedDict[object, Sleeper] = OrderedDict()
        self._clock = Clock()
        self._put = self._got = self._discarded = self._expired = self._refused = 0

    @property
    def maxsize(self) -> float:
        """How many items it holds at most."""
        return self._line.bound

    def resize(self, maxsize: float) -> None:
        """Set the bound. Items beyond it stay; new ones are refused until there is room.

        Raises:
            ConfigError: `maxsize` is not what it may be.
        """
        self._line.bound = whole_number("maxsize", maxsize, at_least=0)

    def __len__(self) -> int:
        self._expire()
        return len(self._line)

    def statistics(self) -> QueueStatistics:
        """What it holds and what became of all that was put into it: a snapshot."""
        return QueueStatistics(
            queued=len(self),
            maxsize=self.maxsize,
            waiting=len(self._getters),
            put=self._put,
            got=self._got,
            discarded=self._discarded,
            expired=self._expired,
            refused=self._refused,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)}/{self.maxsize}>"

    def put_nowait(self, item: T, *, expires_at: float | None = None) -> Entry[T]:
        """Put `item` at the end.

        Args:
            item: Anything; it need be neither hashable nor unlike the others.
            expires_at: The time after which it is not handed out any more, in seconds of
                `anyio.current_time()`; never, by default.

        Returns:
            The item's entry, for `discard`.

        Raises:
            QueueFullError: There are `maxsize` items already.
            ConfigError: `expires_at` is not a time.
        """
        entry = Entry(item, _time(expires_at))
        self._expire()
        if self._line.is_full:
            self._refused += 1
            raise QueueFullError(len(self._line), self.maxsize)
        self._line.append(entry)
        self._put += 1
        self._wake()
        return entry

    def get_nowait(self) -> T:
        """Take the oldest item.

        Raises:
            anyio.WouldBlock: There is none.
        """
        self._expire()
        entry = self._line.pop()
        if entry is None:
            raise anyio.WouldBlock
        self._got += 1
        return entry.item

    async def get(self) -> T:
        """Take the oldest item, waiting for one if need be; whoever waits longest gets it first.

        Always lets other tasks run. If it is cancelled, no item is lost.
        """
        me = object()
        self._getters[me] = Sleeper()
        self._wake()
        try:
            while True:
                await self._getters[me].sleep()
                try:
                    return self.get_nowait()
                except anyio.WouldBlock:  # it has expired, or a `get_nowait` was quicker
                    self._getters[me] = Sleeper()  # in the same place
        finally:
            self._getters.pop(me, None)
            self._wake()

    def discard(self, entry: Entry[T]) -> bool:
        """Take an entry out, wherever it stands.

        Returns:
            Whether it was still there: it may have been handed out, or have expired.
        """
        self._expire()
        if not self._line.discard(entry):
            return False
        self._discarded += 1
        return True

    def _wake(self) -> None:
        while self._line and self._getters:
            first = next(iter(self._getters))
            if self._getters[first].wake():
                return
            del self._getters[first]  # its event loop was closed under it

    def _expire(self) -> None:
        if self._line.next_expiry < math.inf:
            self._expired += len(self._line.expire(self._clock.now()))


def _time(expires_at: float | None) -> float:
    if expires_at is None:
        return math.inf
    if not _is_number(expires_at):
        raise ConfigError("expires_at", expires_at, "a time of anyio.current_time(), or None")
    return expires_at


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not (isinstance(value, bool) or math.isnan(value))
