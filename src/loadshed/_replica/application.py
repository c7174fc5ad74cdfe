"""An ASGI application in a replica: its lifespan, and its requests."""

import asyncio
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from loadshed._errors import NotPicklableError
from loadshed._failure import not_picklable
from loadshed._policy.credit import ITEM
from loadshed._policy.wire import Buffer, Kind, encode, encode_value
from loadshed._replica.channel import Channel, failure
from loadshed._replica.streams import AsyncStream

Message = MutableMapping[str, Any]


class Lifespan:
    """Tells the application when it begins and ends, once; one that doesn't care needn't.

    Args:
        application: The ASGI application.

    Attributes:
        state: What it wants to find in the scope of each request.
    """

    def __init__(self, application: Any) -> None:
        self.state: dict[str, Any] = {}
        self._application = application
        self._told: deque[Message] = deque()
        self._tell = asyncio.Event()
        self._answered = asyncio.Event()
        self._failed: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Let it begin.

        Raises:
            RuntimeError: It says that it can't.
        """
        self._task = asyncio.create_task(self._run())
        await self._exchange("lifespan.startup")
        if self._failed is not None:
            raise RuntimeError(f"The application could not start: {self._failed}")

    async def stop(self) -> None:
        """Let it end."""
        if self._task is not None and not self._task.done():
            await self._exchange("lifespan.shutdown")

    async def _exchange(self, kind: str) -> None:
        """Tell it something, and wait until it has answered, or has ended."""
        self._answered.clear()
        self._told.append({"type": kind})
        self._tell.set()
        await self._answered.wait()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._application(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001, S110 - it has said that it failed, or knows no lifespan
            pass
        finally:
            self._answered.set()

    async def _receive(self) -> Message:
        while not self._told:
            self._tell.clear()
            await self._tell.wait()
        return self._told.popleft()

    async def _send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            self._failed = message.get("message") or "it gives no reason"
        self._answered.set()


ENOUGH = 64 * 1024
"""Bytes of what an application sends that are not kept for the end of the event loop's turn."""

MUTABLE = frozenset({bytearray, memoryview})
"""What a message may have in the place of bytes, and can be changed."""

ABNORMALLY = 1006
"""The code of a websocket that was not closed by a message (RFC 6455, 7.4.1)."""


class Request(AsyncStream):
    """One request: the messages that the application sends are the items of a stream.

    What it sends in one turn of the event loop is one item, a tuple: most responses are. Those that
    it receives are asked for one by one.

    Tasks that the application has started may go on when it has returned. They find that the client
    has gone: it has been answered.

    Args:
        channel: To the pool.
        call: The number of the call.

    Attributes:
        type: That of the scope.
    """

    def __init__(self, channel: Channel, call: int) -> None:
        super().__init__(channel, call)
        self._messages: deque[Message] = deque()
        self._came: asyncio.Event | None = None  # made when it is needed, which is seldom
        self._asked = False
        self._kept: list[Message] = []
        self._size = 0
        self._flushing: asyncio.Handle | None = None
        self._failure: NotPicklableError | None = None
        self._is_over = False
        self.type = "http"

    async def send(self, item: Any) -> None:
        """Send a message, and wait until the pool wants the next one.

        Raises:
            NotPicklableError: One that was sent before can't be.
            ConnectionError: The application has returned.
        """
        if self._failure is not None:
            raise self._failure
        if self._is_over:
            raise ConnectionError("The application has returned, so the request is over.")
        message, size = _copied(item)
        self._kept.append(message)
        self._size += size
        if self._size >= ENOUGH or not self._window.is_open:
            self._flush()
            await self._until_open()
        elif self._flushing is None:
            self._flushing = self._channel.call_soon(self._flush)

    def _flush(self) -> None:
        if self._kept:
            try:
                self._channel.send_soon(self.parts(self._take()))
            except NotPicklableError as error:
                self._failure = error  # for the next one, or the end

    def _take(self) -> tuple[Message, ...]:
        """What is to be sent."""
        kept, self._kept, self._size = tuple(self._kept), [], 0
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        return kept

    def end(self, error: BaseException | None, *, now: bool) -> None:
        """Send what is left, and that it is over: now, or at the end of the event loop's turn.

        Args:
            error: What the application has raised.
            now: Whether it is now.
        """
        if error is not None:
            self._flush()
        failed = self._failure or error
        parts = self._last() if failed is None else failure(self.call, failed)
        self._channel.send_soon(parts, now=now)
        self._is_over = True
        if self._came is not None:
            self._came.set()
        self.open_for_good()

    def _last(self) -> list[Buffer]:
        """What is left, and that it is over, in one frame: all of most responses."""
        try:
            return encode_value(Kind.RESULT, self.call, self._take())
        except Exception as error:  # noqa: BLE001 - whatever pickling raises
            return failure(self.call, not_picklable("A message", error))

    async def receive(self) -> Message:
        """The next message of the client."""
        while not self._messages:
            if self._is_over:
                return {"type": f"{self.type}.disconnect", "code": ABNORMALLY}
            if self._came is None:
                self._came = asyncio.Event()
            self._came.clear()
            if not self._asked:  # not by one who has been cancelled since
                self._asked = True
                self._channel.send_soon([encode(Kind.WANT, self.call)])
            await self._came.wait()
        return self._messages.popleft()

    def came(self, message: Message) -> None:
        """What was asked for is here."""
        assert self._came is not None  # noqa: S101 - it was asked for
        self._asked = False
        self._messages.append(message)
        self._came.set()


def _copied(message: Message) -> tuple[Message, int]:
    """A message as it is now, which is pickled later; and the bytes that it counts for."""
    copy = {**message}
    if type(headers := copy.get("headers")) is list:
        copy["headers"] = headers.copy()
    key = "body"
    if copy["type"] == "websocket.send":
        key = "text" if copy.get("bytes") is None else "bytes"
    if (value := copy.get(key)) is None:
        return copy, ITEM
    if type(value) in MUTABLE:
        value = copy[key] = bytes(value)
    return copy, ITEM + len(value)
