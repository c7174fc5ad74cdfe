"""Client: who waits for the answer to a request, and may leave before it comes."""

import asyncio
from collections import deque

from loadshed._exchange import Message, Receive

LISTEN_AFTER = 0.05
"""Seconds after which it is noticed when a client leaves. To listen costs more than most requests
take, and whose client leaves sooner is as good as done."""


class Client:
    """Receives what it sends; when it leaves, the task that works for it is cancelled.

    Args:
        receive: Where its messages come from.
        loop: The event loop; to ask for it takes a system call on Python 3.11.

    Attributes:
        has_left: Whether it has left.
    """

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self.has_left = False
        self._receive = receive
        self._is_receiving = False
        self._messages: deque[Message] = deque()
        self._changed = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._loop = loop
        self._task = asyncio.current_task(loop)
        self._timer = self._loop.call_later(LISTEN_AFTER, self._listen)

    async def receive(self) -> Message:
        """Its next message."""
        while not self._messages:
            if self._listener is None:
                return await self._receive_itself()
            await self._wait()
        message = self._messages.popleft()
        self._changed.set()
        return message

    async def _receive_itself(self) -> Message:
        self._is_receiving = True
        try:
            return await self._receive()
        finally:
            self._is_receiving = False

    def _listen(self) -> None:
        if self._is_receiving:  # then it is noticed there
            self._timer = self._loop.call_later(LISTEN_AFTER, self._listen)
        else:
            self._listener = self._loop.create_task(self._read())

    async def _read(self) -> None:
        """Read ahead: one message, and then whether it leaves."""
        while not self.has_left:
            message = await self._receive()
            self._messages.append(message)
            self._changed.set()
            if message["type"] == "http.disconnect":
                self._leave()
            while message.get("more_body") and self._messages:
                await self._wait()

    def _leave(self) -> None:
        self.has_left = True
        assert self._task is not None  # noqa: S101 - a task has made this
        self._task.cancel()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def forget(self) -> None:
        """Listen no more: it is being answered, and after that it may leave."""
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None
            self._changed.set()
