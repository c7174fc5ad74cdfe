"""A server on a free port of the loopback that misbehaves on a script."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

Part = Literal["nothing", "half the head", "the head", "half the body", "all"]
Then = Literal["go on", "close", "reset", "hang"]

DRIP = 0.01
"""Seconds between two bytes of what drips."""

PATIENCE = 10.0
"""Seconds for which a test waits for what has to come; it guards against hanging only."""


@dataclass(frozen=True)
class Answer:
    """What the server does about one request.

    Args:
        status: The response's status.
        headers: Its headers, beside those that say how long it is.
        body: Its body.
        chunked: Whether the body goes out in two chunks, and without a Content-Length.
        early: Whether it goes out before the body of the request was read.
        held: Whether it waits for `ScriptedServer.release`.
        sent: How much of it goes out.
        then: What comes after that. To hang is to do nothing until the client leaves.
        drips: What of it goes out a byte at a time.
    """

    status: int = 200
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    body: bytes = b""
    chunked: bool = False
    early: bool = False
    held: bool = False
    sent: Part = "all"
    then: Then = "go on"
    drips: Literal["headers", "body"] | None = None

    def head(self) -> bytes:
        length = ("content-length", str(len(self.body)))
        if self.chunked:
            length = ("transfer-encoding", "chunked")
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        lines = [f"{name}: {value}\r\n" for name, value in (*pairs, length)]
        return f"HTTP/1.1 {self.status} Scripted\r\n{''.join(lines)}\r\n".encode()

    def content(self) -> bytes:
        if not self.chunked:
            return self.body
        middle = len(self.body) // 2
        halves = (self.body[:middle], self.body[middle:])
        chunks = [b"%x\r\n%b\r\n" % (len(half), half) for half in halves if half]
        return b"".join(chunks) + b"0\r\n\r\n"

    def parts(self, method: str) -> tuple[bytes, bytes]:
        """What is sent of head and body."""
        head, content = self.head(), b"" if method == "HEAD" else self.content()
        parts: dict[Part, tuple[bytes, bytes]] = {
            "nothing": (b"", b""),
            "half the head": (head[: len(head) // 2], b""),
            "the head": (head, b""),
            "half the body": (head, content[: len(content) // 2]),
            "all": (head, content),
        }
        return parts[self.sent]


def reset(after: Part = "nothing", **options: Any) -> Answer:
    """The connection is reset."""
    return Answer(body=b"x" * 100, sent=after, then="reset", **options)


def truncated(status: int = 200, **options: Any) -> Answer:
    """The connection is closed in the middle of the body."""
    return Answer(status, body=b"x" * 100, sent="half the body", then="close", **options)


def silence(after: Part = "nothing") -> Answer:
    """Nothing comes, or nothing more."""
    return Answer(body=b"x" * 100, sent=after, then="hang")


def dripping(what: Literal["headers", "body"], status: int = 200) -> Answer:
    """A byte now and then, for minutes."""
    if what == "headers":
        return Answer(status, {"x-long": "x" * 10_000}, drips=what)
    return Answer(status, body=b"x" * 10_000, drips=what)


HANG_UP = Answer(sent="nothing", then="close")
"""The connection is closed without a word."""


@dataclass
class Received:
    """A request as the server got it."""

    connection: int
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    """Whether all of the body came."""
    over: bool = False
    """Whether nothing more can come of it."""

    def header(self, name: str) -> str | None:
        values = [value for known, value in self.headers if known == name]
        assert len(values) < 2
        return values[0] if values else None


class ScriptedServer:
    """Does with its n-th request what the script has in the n-th place, or in its last.

    Args:
        script: One answer for each request, over all connections. None at all is 200 always.
        listening: False refuses connections until `listen`.
        accepting: False leaves connections in the queue of the system until `accept`.
        backlog: How many find room there, and one more.
    """

    def __init__(
        self,
        *script: Answer,
        listening: bool = True,
        accepting: bool = True,
        backlog: int = 1024,
    ) -> None:
        self._script = script or (Answer(),)
        self._listening = listening
        self._accepting = accepting
        self._backlog = backlog
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._started = threading.Event()
        self._errors: list[Exception] = []
        self.origin = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.origin}"
        self.requests: list[Received] = []
        self.connections = 0
        self.open_connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._listening:
            self.listen()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tell(self._stop)
        self._thread.join()
        self._socket.close()
        if self._errors and exc is None:
            raise self._errors[0]

    def listen(self) -> None:
        """Refuse no connection any more."""
        self._socket.listen(self._backlog)
        if self._accepting:
            self.accept()

    def accept(self) -> None:
        """Accept connections, those too that wait."""
        self._loop.call_soon_threadsafe(self._loop.add_reader, self._socket, self._accept_all)

    def release(self) -> None:
        """Let the answers go that are held, and all that come."""
        self._tell(self._gate)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), "it did not come to that"

    def wait_for_requests(self, count: int) -> None:
        """Wait until so many have begun to come."""
        self.wait_until(lambda: len(self.requests) >= count)

    def wait_until_idle(self) -> None:
        """Wait until nothing more can come of any request that has begun to come."""
        self.wait_until(lambda: all(request.over for request in self.requests))

    def wait_until_left(self) -> None:
        """Wait until no client has a connection to it."""
        self.wait_until(lambda: self.open_connections == 0)

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of the requests that came in whole."""
        self.wait_until_idle()
        return [bytes(request.body) for request in self.requests if request.whole]

    def headers(self, name: str) -> list[str | None]:
        """The values of a header, of each request."""
        return [request.header(name) for request in self.requests]

    def _tell(self, event: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(event.set)

    def _change(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._gate = asyncio.Event(), asyncio.Event()
        self._open: dict[asyncio.Task[None], socket.socket] = {}
        self._started.set()
        async with asyncio.TaskGroup() as self._tasks:
            await self._stop.wait()
            self._loop.remove_reader(self._socket)
            for task, connection in self._open.items():
                task.cancel()
                connection.close()

    def _accept_all(self) -> None:
        # A callback, as an `await` that is cancelled may have a connection already.
        with suppress(BlockingIOError):
            while True:
                connection, _ = self._socket.accept()
                connection.setblocking(False)
                self.connections += 1
                self.open_connections += 1
                task = self._tasks.create_task(self._serve(connection, self.connections))
                self._open[task] = connection
                task.add_done_callback(self._open.pop)

    async def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection, suppress(ConnectionError, EOFError):
                stream = _Stream(self._loop, connection)
                while await self._answer_one(stream, number):
                    pass
        except Exception as error:  # noqa: BLE001 - raised where the test is
            self._errors.append(error)
        finally:
            self.open_connections -= 1
            self._change()

    async def _answer_one(self, stream: "_Stream", number: int) -> bool:
        """One request and what is done about it; whether another may come."""
        head = (await stream.read_until(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = line.split(" ")
        pairs = [line.split(":", 1) for line in lines]
        headers = [(name.lower(), value.strip()) for name, value in pairs]
        request = Received(number, method, target, headers)
        answer = self._script[min(len(self.requests), len(self._script) - 1)]
        self.requests.append(request)
        self._change()
        try:
            if not answer.early:
                await self._read_body(stream, request)
            if answer.held:
                await self._gate.wait()
            start, content = answer.parts(method)
            if answer.drips is None:
                await stream.write(start + content)
            elif answer.drips == "headers":
                await stream.drip(start)
                await stream.write(content)
            else:
                await stream.write(start)
                await stream.drip(content)
            if answer.then == "hang":
                await stream.drop_all()
            elif answer.then == "reset":
                stream.reset_when_closed()
            elif answer.early:
                await self._read_body(stream, request)
        finally:
            request.over = True
            self._change()
        return answer.then == "go on"

    async def _read_body(self, stream: "_Stream", request: Received) -> None:
        if request.header("transfer-encoding") == "chunked":
            while size := int(await stream.read_until(b"\r\n"), 16):
                await stream.read(size, request.body)
                await stream.read_until(b"\r\n")
            await stream.read_until(b"\r\n")
        else:
            await stream.read(int(request.header("content-length") or 0), request.body)
        request.whole = True


class _Stream:
    """A connection; EOFError is raised where the client has closed it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        self._loop = loop
        self._connection = connection
        self._buffer = bytearray()

    async def read_until(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            await self._receive()
        return self._take(at + len(end))

    async def read(self, count: int, into: bytearray) -> None:
        while count:
            if not self._buffer:
                await self._receive()
            piece = self._take(min(count, len(self._buffer)))
            into += piece
            count -= len(piece)

    async def write(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._connection, data)

    async def drip(self, data: bytes) -> None:
        for byte in data:
            await asyncio.sleep(DRIP)
            await self.write(bytes([byte]))

    async def drop_all(self) -> None:
        while True:
            await self._receive()

    def reset_when_closed(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _receive(self) -> None:
        data = await self._loop.sock_recv(self._connection, 65536)
        if not data:
            raise EOFError
        self._buffer += data

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken
