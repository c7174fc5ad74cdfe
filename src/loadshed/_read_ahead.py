"""ReadAhead: what a client sends while its request waits."""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

READ_AHEAD = 64 * 1024
"""Bytes of a body after which no more is read before the application asks for it."""

MESSAGE = 256
"""Bytes that each message counts for besides its body: a body may come in very small pieces."""

LOOKS = 10
"""Rounds of the event loop in which a client that had left before the grant is noticed: a few more
than it takes to wake the reader and get through a server's `receive`, on trio too."""


class ReadAhead:
    """Reads a request's messages while it waits in the queue, and plays them back in order.

    That is how a client that leaves is noticed. A `receive` that is under way is never cancelled
    while the application may still want its message: the application's first `receive` waits for
    it instead.

    Args:
        receive: The server's.
        has_left: Called when the client is seen to have left.
    """

    def __init__(self, receive: Receive, has_left: Callable[[], None]) -> None:
        self._receive = receive
        self._has_left = has_left
        self._messages: deque[Message] = deque()
        self._size = 0
        self._complete = False  # what follows can only be that the client leaves
        self._error: Exception | None = None
        self._waiting = anyio.CancelScope()  # around the wait for the permit
        self._granted = anyio.Event()
        self._done = anyio.Event()  # the reader has stopped
        self._left = False

    async def read(self) -> None:
        """Read until the client leaves or the request is granted: a task of its own."""
        try:
            while not (self._left or self._granted.is_set()):
                if self._size >= READ_AHEAD:
                    await self._granted.wait()
                await self._read_one()
        except Exception as error:  # noqa: BLE001 - it is the application's, if that ever asks
            self._error = error
        finally:
            self._done.set()

    async def _read_one(self) -> None:
        message = await self._receive()
        self._messages.append(message)
        if message["type"] in {"http.disconnect", "websocket.disconnect"}:
            self._left = True
            self._has_left()
            self._waiting.cancel()
        elif self._complete:
            # Not a server's receive, which waits, but one that answers again and again.
            self._size = READ_AHEAD
        else:
            self._size += MESSAGE + len(message.get("body") or b"")
            self._complete = not message.get("more_body", False)

    async def outlasts(self, wait: Coroutine[Any, Any, None]) -> bool:
        """Await `wait`; cancel it if the client leaves. Whether the client is still there."""
        with self._waiting:
            await wait
        self._granted.set()
        if self._size >= READ_AHEAD:
            # Nobody has listened for a while. Let the reader find what is there already, but don't
            # wait for what is still to come.
            for _ in range(LOOKS):
                if self._done.is_set():
                    break
                await checkpoint()
        return not self._left

    async def receive(self) -> Message:
        """What the application calls in place of the server's `receive`."""
        if not (self._messages or self._done.is_set()):
            await self._done.wait()
        if self._messages:
            return self._messages.popleft()
        if self._error is not None:
            raise self._error
        return await self._receive()
