"""Call: one request to a replica, from when it is sent until it is answered."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from loadshed._failure import not_picklable, unpack
from loadshed._policy.credit import Consumption
from loadshed._policy.wire import Buffer, Frame, Kind, encode_value
from loadshed._replica.streams import AHEAD
from loadshed._sleeper import FutureSleeper, Sleeper

if TYPE_CHECKING:
    from loadshed._waiter import Waiter


class Replica(Protocol):
    """Who has to answer."""

    name: str
    is_foreign: bool
    sleepers: Callable[[], Sleeper | FutureSleeper]

    def send(self, parts: list[Buffer]) -> None:
        """Send a frame that belongs to a call that has begun."""

    def desert(self, call: "Call") -> None:
        """Nobody waits for the call any more."""


class Call:
    """What a caller waits for.

    It exists until the replica has answered, even where its caller has gone: only then is what it
    took of the replica free again.

    Args:
        number: What its frames are known by.
        replica: Who answers.
        sent_at: The time.
        takes_slot: Whether it counts as ongoing; the pool's own questions don't.

    Attributes:
        waiter: Its ticket, where it has one.
        items: What came of a stream, and is not consumed yet.
        is_over: Whether it has been answered, or never will be.
        has_left: Whether its caller has gone.
        is_unsent: Whether the replica died before it can have seen anything of it.
    """

    __slots__ = (
        "_consumption",
        "_end",
        "_error",
        "_replica",
        "_sleeper",
        "has_left",
        "is_unsent",
        "items",
        "number",
        "sent_at",
        "takes_slot",
        "waiter",
    )

    def __init__(self, number: int, replica: Replica, sent_at: float, *, takes_slot: bool) -> None:
        self.number = number
        self.sent_at = sent_at
        self.takes_slot = takes_slot
        self.waiter: Waiter | None = None
        self.items: deque[Frame] = deque()
        self.has_left = False
        self.is_unsent = False
        self._replica = replica
        self._end: Frame | None = None
        self._error: Exception | None = None
        self._consumption: Consumption | None = None
        self._sleeper: Sleeper | FutureSleeper | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has been answered, or never will be."""
        return self._end is not None or self._error is not None or self.is_unsent

    async def answered(self) -> None:
        """Wait until it is over. If the caller is cancelled meanwhile, it has left."""
        while not self.is_over:
            await self.item()

    def _wake(self) -> None:
        if self._sleeper is not None:
            self._sleeper.wake()

    def result(self) -> Any:
        """What the target returned, once it is over.

        Raises:
            Exception: What it raised; or the reason why there is no answer.
        """
        end = self._end or self.end()
        if end.kind == Kind.ERROR:
            raise unpack(end.value(), self._replica.name, foreign=self._replica.is_foreign)
        return self._value("The result", end)

    def end(self) -> Frame:
        """Its last frame, once it is over.

        Raises:
            Exception: The reason why there is none.
        """
        if self._end is None:
            assert self._error is not None  # noqa: S101 - it is over
            raise self._error
        return self._end

    async def item(self) -> Frame | None:
        """The next frame of a stream; None when it has ended."""
        while not self.items:
            if self.is_over:
                return None
            self._sleeper = self._replica.sleepers()
            try:
                await self._sleeper.sleep()
            except BaseException:
                self.leave()
                raise
        return self.items.popleft()

    def consumed(self, frame: Frame) -> Any:
        """An item's value; the replica is told that it may send more."""
        if self._consumption is None:
            self._consumption = Consumption(AHEAD)
        count = self._consumption.took(frame.size)
        if count and not self.is_over:
            self._replica.send(encode_value(Kind.ACK, self.number, count))
        return self._value("An item", frame)

    def tell(self, kind: int, value: object) -> None:
        """Send a frame that belongs to it."""
        if not self.is_over:
            self._replica.send(encode_value(kind, self.number, value))

    def leave(self) -> None:
        """Nobody waits for it any more; what runs for it is cancelled, if it can be."""
        if not (self.has_left or self.is_over):
            self.has_left = True
            self.items.clear()
            self._replica.desert(self)

    # What follows is for the replica.

    def came(self, frame: Frame) -> None:
        """An item of it has come."""
        if not self.has_left:
            self.items.append(frame)
            self._wake()

    def answer(self, frame: Frame) -> None:
        """Its last frame has come."""
        self._end = frame
        self._wake()

    def fail(self, error: Exception) -> None:
        """It won't be answered."""
        self._error = error
        self._wake()

    def give_back(self) -> None:
        """The replica has died, and has seen nothing of it."""
        self.is_unsent = True
        self._wake()

    def _value(self, what: str, frame: Frame) -> Any:
        try:
            return frame.value()
        except Exception as error:
            raise not_picklable(what, error) from error
