"""Whether a client still waits: noticed late, and at no cost for most requests."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from loadshed.serve import _client
from loadshed.serve._client import Client

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
        client = Client(connection.receive, asyncio.get_running_loop())
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


def test_who_is_answered_soon_is_not_listened_to() -> None:
    async def work(client: Client, connection: Connection) -> None:
        client.forget()
        await turns()
        assert connection.asked == 0

    serving(work)
