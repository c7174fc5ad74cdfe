"""Streams: items on their way to a consumer who may be slow."""

import asyncio
from threading import Condition

from loadshed._failure import not_picklable
from loadshed._policy.credit import Window
from loadshed._policy.wire import Buffer, Kind, encode_value
from loadshed._replica.channel import Channel

AHEAD = 256 * 1024
"""Bytes that a producer may be ahead of its consumer, and one item."""


class Stream:
    """The items of one call.

    Args:
        channel: Where they go.
        call: Its number.
    """

    def __init__(self, channel: Channel, call: int) -> None:
        self._channel = channel
        self.call = call
        self._window = Window(AHEAD)


class AsyncStream(Stream):
    """Items that are sent from the event loop."""

    def __init__(self, channel: Channel, call: int) -> None:
        super().__init__(channel, call)
        self._opened: asyncio.Event | None = None  # made when it is needed, which is seldom

    async def send(self, item: object) -> None:
        """Send an item, and wait until the consumer wants the next one."""
        self._channel.send(self.parts(item))
        await self._until_open()

    def parts(self, item: object) -> list[Buffer]:
        """The frame of an item that is sent now."""
        parts = _item(self.call, item)
        self._window.sent(_size(parts))
        return parts

    async def _until_open(self) -> None:
        while not self._window.is_open:
            if self._opened is None:
                self._opened = asyncio.Event()
            self._opened.clear()
            await self._opened.wait()

    def acknowledge(self, count: int) -> None:
        """So many items were consumed."""
        self._window.acknowledged(count)
        if self._opened is not None:
            self._opened.set()

    def open_for_good(self) -> None:
        """Whoever waits need not: nobody is going to consume more."""
        if self._opened is not None:
            self._window = Window(AHEAD)
            self._opened.set()


class ThreadStream(Stream):
    """Items that are sent from a thread.

    Attributes:
        has_left: Whether the consumer has gone.
    """

    def __init__(self, channel: Channel, call: int) -> None:
        super().__init__(channel, call)
        self._changed = Condition()
        self.has_left = False

    def send(self, item: object) -> bool:
        """Send an item, and wait until the consumer wants the next one; whether it ever will."""
        parts = _item(self.call, item)
        with self._changed:
            self._window.sent(_size(parts))
        self._channel.send(parts)
        with self._changed:
            self._changed.wait_for(lambda: self.has_left or self._window.is_open)
            return not self.has_left

    def acknowledge(self, count: int) -> None:
        """So many items were consumed."""
        with self._changed:
            self._window.acknowledged(count)
            self._changed.notify()

    def leave(self) -> None:
        """The consumer has gone."""
        with self._changed:
            self.has_left = True
            self._changed.notify()


def _item(call: int, item: object) -> list[Buffer]:
    try:
        return encode_value(Kind.ITEM, call, item)
    except Exception as error:
        raise not_picklable(f"An item of type {type(item).__name__}", error) from error


def _size(parts: list[Buffer]) -> int:
    return sum(map(len, parts))
