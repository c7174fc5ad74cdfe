"""Connection: the pool's end of the socket pair."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

import anyio

from loadshed._policy.wire import MOST_PARTS, Buffer, Decoder, Frame

ENOUGH = 8
"""Frames that do not wait for more of them. Both sides are to be at work at the same time, and not
take turns with all there is."""

IN_THE_SOCKET = 1024 * 1024
"""Bytes that a socket takes at once, as far as the system lets it. With what it takes by default
an array of 1 MB needs twice as long."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection between a pool and a replica."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_THE_SOCKET)
    return ends


def _is_asyncio() -> bool:
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError


class Connection:
    """Sends frames without waiting, and hands on those that come.

    On asyncio, frames that may wait are sent together with others, by the end of the event loop's
    turn: under load that is one system call for many of them, and wakes the replica once.

    Args:
        connection: The socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._decoder = Decoder()
        # Frames that are not sent yet: the call that each begins, and what is left. Only of the
        # first may a part have been sent.
        self._unsent: deque[tuple[int, list[Buffer]]] = deque()
        self._begun = False
        self._is_broken = False
        self._has_unsent = anyio.Event()  # and the socket takes no more now
        self._loop = asyncio.get_running_loop() if _is_asyncio() else None

    def send(self, call: int, parts: list[Buffer], *, soon: bool = False) -> None:
        """Send a frame. Never waits.

        Args:
            call: The number of the call that it begins; 0 if it begins none.
            parts: The frame.
            soon: Whether the end of the event loop's turn is soon enough.
        """
        self._unsent.append((call, parts))
        if len(self._unsent) > 1:  # it goes with the one before
            if len(self._unsent) == ENOUGH:
                self._flush()
            return
        if soon and self._loop is not None:
            self._loop.call_soon(self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            if not self._send_some():
                self._has_unsent.set()
                return

    def _send_some(self) -> bool:
        """Send as much as the socket takes at once; whether that was all that it was given."""
        parts, frames = self._next_parts()
        try:
            count = self._socket.send(parts[0]) if len(parts) == 1 else self._socket.sendmsg(parts)
        except BlockingIOError:
            return False
        except OSError:  # the replica is dying, and its reader notices
            self._is_broken = True
            return False
        if count < sum(map(len, parts)):
            self._took(count)
            return False
        for _ in range(frames):
            self._unsent.popleft()
        self._begun = False
        return True

    def _next_parts(self) -> tuple[list[Buffer], int]:
        """What the socket is given at once, and how many frames that is."""
        if len(self._unsent) == 1:
            return self._unsent[0][1], 1
        parts: list[Buffer] = []
        frames = 0
        for _, frame in self._unsent:
            if len(parts) + len(frame) > MOST_PARTS:
                break
            parts += frame
            frames += 1
        return parts, frames

    async def write(self) -> None:
        """Send what the socket did not take at once: a task."""
        await self._has_unsent.wait()
        while not self._is_broken:
            self._has_unsent = anyio.Event()
            await anyio.wait_writable(self._socket)
            self._flush()
            await self._has_unsent.wait()

    def _took(self, count: int) -> None:
        """So many bytes of the frames have been sent."""
        while count:
            parts = self._unsent[0][1]
            size = len(parts[0])
            if count < size:
                parts[0] = memoryview(parts[0])[count:]
                self._begun = True
                return
            count -= size
            del parts[0]
            self._begun = bool(parts)
            if not parts:
                self._unsent.popleft()

    def unsent(self) -> set[int]:
        """The calls of which the replica can't have seen anything."""
        frames = list(self._unsent)
        return {call for call, _ in (frames[1:] if self._begun else frames)}

    async def read(self, receive: Callable[[], bool]) -> None:
        """Call `receive` whenever there is something, until it says that no more can come."""
        if self._loop is not None:
            await self._read_in_callbacks(receive)
            return
        while receive():
            await anyio.wait_readable(self._socket)

    async def _read_in_callbacks(self, receive: Callable[[], bool]) -> None:
        """The same, with two system calls and two turns of asyncio's event loop less each time."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        failure: Exception | None = None

        def read() -> None:
            nonlocal failure
            try:
                if receive():
                    return
            except Exception as error:  # noqa: BLE001 - it is raised below
                failure = error
            loop.remove_reader(self._socket)
            ended.set()

        loop.add_reader(self._socket, read)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._socket)
        if failure is not None:
            raise failure

    def receive(self, handle: Callable[[Frame], None]) -> bool:
        """Hand on a chunk of what is there, so that others have their turn; whether more can come.

        Raises:
            WireError: What came is no frame.
            MemoryError: There is no room for a large one.
        """
        try:
            count = self._socket.recv_into(self._decoder.space())
        except BlockingIOError:
            return True
        except OSError:
            return False
        for frame in self._decoder.received(count) if count else ():
            handle(frame)
        return bool(count)

    def has_more(self) -> bool:
        """Whether there is something to receive."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
