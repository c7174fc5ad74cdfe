"""Outward: the calls that a replica makes, of functions in the replicas of other pools.

They go to the pool's process, which sends them on. What is sent is pickled here, and unpickled
where it is used: that process looks into nothing.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

from loadshed._failure import not_picklable, unpack
from loadshed._policy.credit import Consumption
from loadshed._policy.wire import Frame, Kind, encode, encode_parts, encode_value, pickled_parts
from loadshed._replica.channel import Channel
from loadshed._replica.streams import AHEAD

Value = tuple[str | None, tuple[Any, ...], dict[str, Any]]
"""The name of a method, or None, and what it is called with."""


current: "Outward | None" = None
"""That of this process, once it is ready to serve."""


class Outward:
    """Makes calls, from any thread, and gets the answers.

    Args:
        channel: To the pool's process.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._calls: dict[int, tuple[Future[Any], str]] = {}
        self._streams: dict[int, OutStream] = {}

    def call(self, pool: str, value: Value) -> "Future[Any]":
        """Call a function in a replica of another pool.

        Returns:
            What will have its result. If that is cancelled, so is the call.

        Raises:
            NotPicklableError: An argument can't be sent.
        """
        parts = _parts(pool, value)
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._calls[number] = future, pool
        future.add_done_callback(partial(self._is_done, number))
        self._channel.send(encode_parts(Kind.OUT_CALL, number, parts))
        return future

    def stream(self, pool: str, value: Value) -> "OutStream":
        """Get the items of a generator in a replica of another pool.

        Raises:
            NotPicklableError: An argument can't be sent.
        """
        parts = _parts(pool, value)
        number = next(self._numbers)
        stream = OutStream(self._channel, number, pool, partial(self._streams.pop, number, None))
        self._streams[number] = stream
        self._channel.send(encode_parts(Kind.OUT_STREAM, number, parts))
        return stream

    def _is_done(self, number: int, future: "Future[Any]") -> None:
        if self._calls.pop(number, None) is not None and future.cancelled():
            self._channel.send([encode(Kind.OUT_CANCEL, number)])

    # What comes in answer; of calls that are cancelled, something may still be under way.

    def handle(self, frame: Frame) -> None:
        """Take what has come."""
        if (stream := self._streams.get(frame.call)) is not None:
            stream._came(frame)
        elif (call := self._calls.get(frame.call)) is not None:
            self._answer(*call, frame)

    def _answer(self, future: "Future[Any]", pool: str, frame: Frame) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = _result(frame, pool)
        except Exception as error:  # noqa: BLE001 - whatever the target has raised
            future.set_exception(error)
        else:
            future.set_result(result)


class OutStream(AsyncIterator[Any], Iterator[Any]):
    """The items of a generator, for `async for`, or for `for` in a thread.

    Whoever may leave early closes it; if it is merely forgotten it closes itself.
    """

    def __init__(self, channel: Channel, number: int, pool: str, forget: Any) -> None:
        self._channel = channel
        self._number = number
        self._pool = pool
        self._forget = forget
        self._frames: deque[Frame] = deque()
        self._consumption = Consumption(AHEAD)
        self._lock = Lock()
        self._waiter: Future[None] | None = None
        self._is_over = False  # the last frame has come
        self._is_closed = False

    def _came(self, frame: Frame) -> None:
        with self._lock:
            self._frames.append(frame)
            if frame.kind != Kind.IN_ITEM:
                self._is_over = True
                self._forget()
            waiter, self._waiter = self._waiter, None
        if waiter is not None and waiter.set_running_or_notify_cancel():
            waiter.set_result(None)

    def _next(self) -> "Frame | Future[None]":
        """The next frame, or what will be done when there is one."""
        with self._lock:
            if self._frames:
                return self._frames.popleft()
            self._waiter = Future()
            return self._waiter

    async def __anext__(self) -> Any:
        while not self._is_closed:
            frame = self._next()
            if isinstance(frame, Frame):
                return self._item(frame, StopAsyncIteration)
            try:
                await asyncio.wrap_future(frame)
            except asyncio.CancelledError:
                self.close()
                raise
        raise StopAsyncIteration

    def __next__(self) -> Any:
        while not self._is_closed:
            frame = self._next()
            if isinstance(frame, Frame):
                return self._item(frame, StopIteration)
            frame.result()
        raise StopIteration

    def _item(self, frame: Frame, end: type[Exception]) -> Any:
        if frame.kind != Kind.IN_ITEM:
            self._is_closed = True
            _result(frame, self._pool)  # raises what the generator has raised
            raise end
        count = self._consumption.took(frame.size)
        if count and not self._is_over:
            self._channel.send(encode_value(Kind.OUT_ACK, self._number, count))
        try:
            return frame.value()
        except Exception as error:
            self.close()
            raise not_picklable("An item", error) from error

    def close(self) -> None:
        """End the generator, if it has not ended by itself."""
        with self._lock:
            was_open, self._is_closed = not self._is_closed, True
            waiter, self._waiter = self._waiter, None
        if was_open and not self._is_over:
            self._forget()
            self._channel.send([encode(Kind.OUT_CANCEL, self._number)])
        if waiter is not None and waiter.set_running_or_notify_cancel():
            waiter.set_result(None)

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):  # the process may be ending
            self.close()


def _parts(pool: str, value: Value) -> list[Any]:
    try:
        return [*pickled_parts(value), pool.encode()]
    except Exception as error:
        raise not_picklable("The arguments", error) from error


def _result(frame: Frame, pool: str) -> Any:
    if frame.kind == Kind.IN_ERROR:
        raise unpack(frame.value(), pool)
    try:
        return frame.value()
    except Exception as error:
        raise not_picklable("The result", error) from error
