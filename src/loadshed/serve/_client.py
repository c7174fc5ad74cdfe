"""Client: who waits for the answer to a request, and may leave before it comes."""

import asyncio
from collections import deque

from loadshed._exchange import Message, Receive

LISTEN_AFTER = 0.05
"""Seconds after which it is noticed when a client leaves. To listen costs more than most requests
take, and whose client leaves sooner is as good as done."""


class Clients:
    """Those that are being answered; each begins to listen when it has waited for a while.

    They share a timer: one for each would cost more than all else that is done for most of them.

    Args:
        loop: The event loop; to ask for it takes a system call on Python 3.11.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._came_at: dict[Client, float] = {}  # the first came first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, client: "Client") -> None:
        """It is being answered from now on."""
        self._came_at[client] = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(LISTEN_AFTER, self._look)

    def remove(self, client: "Client") -> None:
        """It is not to listen."""
        self._came_at.pop(client, None)

    def _look(self) -> None:
        until = self.loop.time() - LISTEN_AFTER
        for client, came_at in list(self._came_at.items()):
            if came_at > until:
                break  # as did those that follow
            del self._came_at[client]
            client.listen()
        self._timer = None
        if self._came_at:
            wait = next(iter(self._came_at.values())) - until
            self._timer = self.loop.call_later(wait, self._look)


class Client:
    """Receives what it sends; when it leaves, the task that works for it is cancelled.

    Args:
        receive: Where its messages come from.
        clients: The others.

    Attributes:
        has_left: Whether it has left.
    """

    def __init__(self, receive: Receive, clients: Clients) -> None:
        self.has_left = False
        self._receive = receive
        self._is_receiving = False
        self._messages: deque[Message] = deque()
        self._changed: asyncio.Event | None = None  # made when it is needed, which is seldom
        self._listener: asyncio.Task[None] | None = None
        self._clients = clients
        self._task = asyncio.current_task(clients.loop)
        clients.add(self)

    async def receive(self) -> Message:
        """Its next message."""
        while not self._messages:
            if self._listener is None:
                return await self._receive_itself()
            await self._wait()
        message = self._messages.popleft()
        self._change()
        return message

    async def _receive_itself(self) -> Message:
        self._is_receiving = True
        try:
            return await self._receive()
        finally:
            self._is_receiving = False

    def listen(self) -> None:
        """Notice when it leaves."""
        if self._is_receiving:  # then it is noticed there
            self._clients.add(self)
        else:
            self._listener = self._clients.loop.create_task(self._read())

    async def _read(self) -> None:
        """Read ahead: one message, and then whether it leaves."""
        while not self.has_left:
            message = await self._receive()
            self._messages.append(message)
            self._change()
            if message["type"] == "http.disconnect":
                self._leave()
            while message.get("more_body") and self._messages:
                await self._wait()

    def _leave(self) -> None:
        self.has_left = True
        assert self._task is not None  # noqa: S101 - a task has made this
        self._task.cancel()

    async def _wait(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        self._changed.clear()
        await self._changed.wait()

    def _change(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def forget(self) -> None:
        """Listen no more: it is being answered, and after that it may leave."""
        self._clients.remove(self)
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None
            self._change()
