"""Outward: the calls that a replica makes, of functions in the replicas of other pools.

They go to the pool's process, which sends them on. What is sent is pickled here, and unpickled
where it is used: that process looks into nothing.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

from loadshed._failure import not_picklable, unpack
from loadshed._policy.credit import Consumption
from loadshed._policy.standing import USUAL, Standing, address
from loadshed._policy.wire import (
    Buffer,
    Frame,
    Kind,
    encode,
    encode_parts,
    encode_value,
    pickled_parts,
)
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
        self._streams: dict[int, Course] = {}
        self._loop = asyncio._get_running_loop()

    def call(self, pool: str, value: Value, standing: Standing = USUAL) -> "Future[Any]":
        """Call a function in a replica of another pool.

        Args:
            pool: Its name.
            value: What is called, and with what.
            standing: What the call is to that pool's limiter.

        Returns:
            What will have its result. If that is cancelled, so is the call.

        Raises:
            NotPicklableError: An argument can't be sent.
        """
        number = next(self._numbers)
        parts = _parts(Kind.OUT_CALL, number, address(pool, standing), value)
        future: Future[Any] = Future()
        self._calls[number] = future, pool
        future.add_done_callback(partial(self._is_done, number))
        self._channel.send(parts)
        return future

    def stream(self, pool: str, value: Value, standing: Standing = USUAL) -> "OutStream":
        """Get the items of a generator in a replica of another pool: `call`, for those.

        Raises:
            NotPicklableError: An argument can't be sent.
        """
        number = next(self._numbers)
        parts = _parts(Kind.OUT_STREAM, number, address(pool, standing), value)
        course = Course(self._channel, number, pool, partial(self._streams.pop, number, None))
        self._streams[number] = course
        self._channel.send(parts)
        return OutStream(course, self._loop)

    def _is_done(self, number: int, future: "Future[Any]") -> None:
        if self._calls.pop(number, None) is not None and future.cancelled():
            self._channel.send([encode(Kind.OUT_CANCEL, number)])

    # What comes in answer; of calls that are cancelled, something may still be under way.

    def handle(self, frame: Frame) -> None:
        """Take what has come."""
        if (course := self._streams.get(frame.call)) is not None:
            course.came(frame)
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


class Course:
    """The items of a generator that have come, and who waits for more.

    Args:
        channel: To the pool's process.
        number: That of the call.
        pool: Which pool has the generator.
        forget: Called when nothing more is to come.
    """

    def __init__(
        self, channel: Channel, number: int, pool: str, forget: Callable[[], object]
    ) -> None:
        self._channel = channel
        self._number = number
        self._pool = pool
        self._forget = forget
        self._frames: deque[Frame] = deque()
        self._consumption = Consumption(AHEAD)
        self._lock = Lock()
        self._waiters: deque[Future[None]] = deque()
        self._is_over = False  # the last frame has come
        self.is_closed = False

    def came(self, frame: Frame) -> None:
        """A frame has come."""
        with self._lock:
            self._frames.append(frame)
            if frame.kind != Kind.IN_ITEM:
                self._is_over = True
                self._forget()
        self._wake()

    def next(self) -> "Frame | Future[None]":
        """The next frame, or what will be done when it is worth looking again."""
        with self._lock:
            if self._frames:
                return self._frames.popleft()
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            return waiter

    def item(self, frame: Frame, end: type[Exception]) -> Any:
        """The value of a frame; `end` is raised where it is the last one."""
        if frame.kind != Kind.IN_ITEM:
            self.is_closed = True
            self._wake()
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
            was_open, self.is_closed = not self.is_closed, True
        if was_open and not self._is_over:
            self._forget()
            self._channel.send([encode(Kind.OUT_CANCEL, self._number)])
        self._wake()

    def _wake(self) -> None:
        """Let all that wait look again."""
        with self._lock:
            waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)


class OutStream(AsyncIterator[Any], Iterator[Any]):
    """The items of a generator, for `async for`, or for `for` in a thread.

    Whoever may leave early closes it; if it is merely forgotten it closes itself.

    Args:
        course: The items.
        loop: The event loop of the replica.
    """

    def __init__(self, course: Course, loop: asyncio.AbstractEventLoop | None) -> None:
        self._course = course
        self._loop = loop

    async def __anext__(self) -> Any:
        course = self._course
        while not course.is_closed:
            frame = course.next()
            if isinstance(frame, Frame):
                return course.item(frame, StopAsyncIteration)
            try:
                await asyncio.wrap_future(frame)
            except asyncio.CancelledError:
                course.close()
                raise
        raise StopAsyncIteration

    def __next__(self) -> Any:
        course = self._course
        while not course.is_closed:
            frame = course.next()
            if isinstance(frame, Frame):
                return course.item(frame, StopIteration)
            frame.result()
        raise StopIteration

    def close(self) -> None:
        """End the generator, if it has not ended by itself."""
        self._course.close()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`."""
        self._course.close()

    def __del__(self) -> None:
        if self._course.is_closed:
            return
        # Not here: this may run anywhere, also where a lock is held that closing needs.
        with suppress(Exception):  # the process may be ending
            if self._loop is None:
                self._course.close()
            else:
                self._loop.call_soon_threadsafe(self._course.close)


def _parts(kind: int, number: int, address: str, value: Value) -> list[Buffer]:
    try:
        return encode_parts(kind, number, [*pickled_parts(value), address.encode()])
    except Exception as error:
        raise not_picklable("The arguments", error) from error


def _result(frame: Frame, pool: str) -> Any:
    if frame.kind == Kind.IN_ERROR:
        raise unpack(frame.value(), pool)
    try:
        return frame.value()
    except Exception as error:
        raise not_picklable("The result", error) from error
