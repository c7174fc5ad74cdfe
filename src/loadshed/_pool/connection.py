"""Connection: the pool's end of the socket pair."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

import anyio

from loadshed._policy.wire import Buffer, Decoder, Frame

IN_THE_SOCKET = 1024 * 1024
"""Bytes that a socket takes at once, as far as the system lets it. With what it takes by default
an array of 1 MB needs twice as long."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection between a pool and a replica."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_THE_SOCKET)
    return ends


class Connection:
    """Sends frames without waiting, and hands on those that come.

    Args:
        connection: The socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._decoder = Decoder()
        # Frames that the socket has not taken yet: the call that each begins, and what is left.
        # Only of the first may a part have been taken.
        self._unsent: deque[tuple[int, list[Buffer]]] = deque()
        self._begun = False
        self._has_unsent = anyio.Event()

    def send(self, call: int, parts: list[Buffer]) -> None:
        """Send a frame, or keep it until the socket takes it. Never waits.

        Args:
            call: The number of the call that it begins; 0 if it begins none.
            parts: The frame.
        """
        if self._unsent:
            self._unsent.append((call, parts))
            return
        try:
            sent = self._socket.send(parts[0]) if len(parts) == 1 else self._socket.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError:  # the replica is dying, and its reader notices
            self._unsent.append((call, parts))
            return
        if sent < sum(map(len, parts)):
            self._unsent.append((call, parts))
            self._took(sent)
            self._has_unsent.set()

    async def write(self) -> None:
        """Send what the socket did not take at once: a task."""
        while True:
            await self._has_unsent.wait()
            while self._unsent:
                await anyio.wait_writable(self._socket)
                try:
                    self._took(self._socket.sendmsg(self._unsent[0][1]))
                except BlockingIOError:
                    continue
                except OSError:
                    return
            self._has_unsent = anyio.Event()

    def _took(self, count: int) -> None:
        """So much of the first frame has been sent."""
        parts = self._unsent[0][1]
        self._begun = self._begun or count > 0
        while parts and count >= len(parts[0]):
            count -= len(parts.pop(0))
        if parts:
            parts[0] = memoryview(parts[0])[count:]
        else:
            self._unsent.popleft()
            self._begun = False

    def unsent(self) -> set[int]:
        """The calls of which the replica can't have seen anything."""
        frames = list(self._unsent)
        return {call for call, _ in (frames[1:] if self._begun else frames)}

    async def read(self, receive: Callable[[], bool]) -> None:
        """Call `receive` whenever there is something, until it says that no more can come."""
        if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
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
