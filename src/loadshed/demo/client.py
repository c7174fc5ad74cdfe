"""One HTTP request over a connection of its own, as a new visitor would send it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import h11

_AT_ONCE = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said.

    Attributes:
        status: The status code.
        retry_after: The header of that name, in seconds, where the server sent one.
        body: The whole body.
        seconds: From the wish to connect to the last byte.
    """

    status: int
    retry_after: int | None
    body: bytes
    seconds: float


async def fetch(port: int, path: str = "/") -> Answer:
    """Ask the server on this port of the loopback interface for a path.

    Raises:
        OSError: the connection could not be made, or was broken.
        h11.RemoteProtocolError: the answer is no HTTP, or not a whole one.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    async with connected(port) as connection:
        response, body = await connection.get(path)
    return Answer(response.status_code, _retry_after(response), body, clock() - began)


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator["Connection"]:
    """Connect to the server; leaving the block hangs up, whatever was still to come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


class Connection:
    """A connection for one request, which says so (`Connection: close`)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def get(self, path: str) -> tuple[h11.Response, bytes]:
        """Send the request and wait for the whole answer."""
        headers = [("Host", "127.0.0.1"), ("Connection", "close")]
        self._send(h11.Request(method="GET", target=path, headers=headers))
        self._send(h11.EndOfMessage())
        events = [event async for event in self._events()]
        (response,) = (event for event in events if isinstance(event, h11.Response))
        return response, b"".join(event.data for event in events if isinstance(event, h11.Data))

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")

    async def _events(self) -> AsyncIterator[object]:
        event: object = None
        while not isinstance(event, h11.EndOfMessage):
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_AT_ONCE))
            else:
                yield event


def _retry_after(response: h11.Response) -> int | None:
    values = [int(value) for name, value in response.headers if name == b"retry-after"]
    return values[0] if values else None
