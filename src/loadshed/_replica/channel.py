"""Channel: the replica's end of the socket pair."""

import asyncio
import select
import socket
from collections.abc import Callable
from threading import Lock

from loadshed._failure import not_picklable, pack
from loadshed._policy.wire import (
    MOST_PARTS,
    Buffer,
    Decoder,
    Frame,
    Kind,
    WireError,
    encode_value,
)

ENOUGH = 8
"""Parts that do not wait for more of them. Both sides are to be at work at the same time, and not
take turns with all there is."""


class Channel:
    """Sends frames from any thread, and receives them in one.

    Sending blocks until the pool's process has taken the frame, which it does whenever it runs.
    That bounds what waits here to be sent, and needs no queue.

    Args:
        connection: The socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._decoder = Decoder()
        self._lock = Lock()
        self._soon: list[Buffer] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # to ask for it takes a system call

    def receive(self) -> list[Frame] | None:
        """Wait for bytes: the frames that they complete. None: the pool has gone."""
        try:
            count = self.socket.recv_into(self._decoder.space())
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        return self._decoder.received(count) if count else None

    def send(self, parts: list[Buffer]) -> None:
        """Send a frame."""
        try:
            with self._lock:
                self._send_all(parts)
        except ConnectionError:
            pass  # the pool has gone; `receive` finds that out as well

    def send_soon(self, parts: list[Buffer], *, now: bool = False) -> None:
        """Send a frame with the others that can wait, by the end of this turn of the event loop.

        Under load that is one system call for many of them, and wakes the pool once. What can be
        changed meanwhile, a large array, is sent now.

        Args:
            parts: The frame.
            now: Whether to send it now, after those that wait.
        """
        if not (now or self._soon):
            self.call_soon(self._flush)
        self._soon += parts
        if now or len(self._soon) >= ENOUGH or not all(type(part) is bytes for part in parts):
            self._flush()

    def call_soon(self, callback: Callable[[], None]) -> asyncio.Handle:
        """Call it at the end of this turn of the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.call_soon(callback)

    def _flush(self) -> None:
        if self._soon:
            parts, self._soon = self._soon, []
            self.send(parts)

    def _send_all(self, parts: list[Buffer]) -> None:
        views = [memoryview(part) for part in parts if part]
        while views:
            try:
                count = self.socket.sendmsg(views[:MOST_PARTS])
            except BlockingIOError:  # uvloop has made it one that does not block
                select.select([], [self.socket], [])
                continue
            while views and count >= len(views[0]):
                count -= len(views.pop(0))
            if views:
                views[0] = views[0][count:]


def answer(call: int, value: object) -> list[Buffer]:
    """The last frame of a call that has returned."""
    try:
        return encode_value(Kind.RESULT, call, value)
    except Exception as error:  # noqa: BLE001 - whatever the value's own code raises
        refused = not_picklable(f"The result, of type {type(value).__name__},", error)
        if hasattr(value, "__next__") or hasattr(value, "__anext__"):
            refused.add_note("To get the items of a generator, use `stream`.")
        return failure(call, refused)


def failure(call: int, error: BaseException) -> list[Buffer]:
    """The last frame of a call that has raised."""
    pickled, *told = pack(error)
    try:
        return encode_value(Kind.ERROR, call, (pickled, *told))
    except (WireError, MemoryError):  # it is too large
        return encode_value(Kind.ERROR, call, (None, *told))
