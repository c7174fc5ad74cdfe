"""Whether a client still waits: noticed late, and at no cost for most requests."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from loadshed.serve import _client
from loadshed.serve._client import Client, Clients

LEAVES = {"type": "http.disconnect"}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


class Connection:
    """What a client sends, when the test says so.

    Attributes:
        asked: How often a message was asked for.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._messages: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self) -> Any:
        self.asked += 1
        return await self._messages.get()

    def send(self, *messages: Any) -> None:
        for message in messages:
            self._messages.put_nowait(message)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "LISTEN_AFTER", 0)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def serving(work: Callable[[Client, Connection], Awaitable[None]]) -> None:
    async def serve() -> None:
        connection = Connection()
        client = Client(connection.receive, Clients(asyncio.get_running_loop()))
        try:
            await work(client, connection)
        finally:
            client.forget()

    asyncio.run(serve())


def test_the_task_of_one_that_leaves_is_cancelled() -> None:
    async def work(client: Client, connection: Connection) -> None:
        connection.send(body(b""), LEAVES)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(30)
        assert client.has_left
        assert [await client.receive(), await client.receive()] == [body(b""), LEAVES]

    serving(work)


def test_its_messages_are_received_in_order_whenever_one_begins_to_listen() -> None:
    async def work(client: Client, connection: Connection) -> None:
        connection.send(body(b"a", more=True))
        assert await client.receive() == body(b"a", more=True)  # before
        await turns()
        waiting = asyncio.ensure_future(client.receive())
        await turns()
        connection.send(body(b"b", more=True), body(b"c"))
        assert await waiting == body(b"b", more=True)
        assert await client.receive() == body(b"c")
        assert not client.has_left

    serving(work)


def test_no_more_than_one_message_is_read_ahead() -> None:
    async def work(client: Client, connection: Connection) -> None:
        await turns()
        connection.send(*(body(b"x", more=True) for _ in range(5)), body(b""))
        await turns()
        assert connection.asked == 1
        for _ in range(6):
            await client.receive()
        await turns()
        assert connection.asked == 7  # and now whether it leaves

    serving(work)


def test_one_who_waits_for_a_message_already_is_not_overtaken() -> None:
    async def work(client: Client, connection: Connection) -> None:
        waiting = asyncio.ensure_future(client.receive())
        await turns()
        assert connection.asked == 1
        connection.send(LEAVES)
        assert await waiting == LEAVES
        assert not client.has_left

    serving(work)


def test_each_listens_when_it_has_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loop:
        """An event loop with one timer, at its own time."""

        now = 0.0
        timer: tuple[float, Callable[[], None]] | None = None

        def time(self) -> float:
            return self.now

        def call_later(self, delay: float, callback: Callable[[], None]) -> object:
            assert self.timer is None
            self.timer = self.now + delay, callback
            return self.timer

        def go_on(self) -> None:
            assert self.timer is not None
            (self.now, callback), self.timer = self.timer, None
            callback()

    class One:
        listens_since: float | None = None

        def listen(self) -> None:
            if self.listens_since is None and self is one:
                clients.add(self)  # once more
            self.listens_since = loop.now

    monkeypatch.setattr(_client, "LISTEN_AFTER", 4.0)
    loop: Any = Loop()
    clients: Any = Clients(loop)
    one, other, quick, last = One(), One(), One(), One()
    for client in (one, quick):
        clients.add(client)
    loop.now = 1.0
    clients.add(other)
    clients.remove(quick)
    loop.go_on()
    assert (one.listens_since, other.listens_since) == (4.0, None)
    loop.go_on()
    assert other.listens_since == 5.0
    loop.go_on()
    assert one.listens_since == 8.0
    assert loop.timer is None  # nobody waits
    clients.add(last)
    loop.go_on()
    assert (last.listens_since, quick.listens_since) == (12.0, None)


def test_who_is_answered_soon_is_not_listened_to() -> None:
    async def work(client: Client, connection: Connection) -> None:
        client.forget()
        await turns()
        assert connection.asked == 0

    serving(work)
