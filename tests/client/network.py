"""A network and a server on a script, below a real httpx transport with a real connection pool.

Time passes as the loop's clock, or for threads `loadshed._clock`, has it: on a virtual one hours
pass in no time.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import anyio
import h11
import httpcore
import httpx
import pytest

from loadshed import _clock

CHUNK = 64 * 1024
DRIP = 8  # bytes


@dataclass(frozen=True)
class Connect:
    """What becomes of an attempt to connect."""

    seconds: float = 0.0  # `math.inf` hangs
    refused: bool = False


@dataclass(frozen=True)
class Answer:
    """What a server does with a request.

    `after` is the number of bytes of the request's body that it waits for; None is all of them.
    """

    status: int | None = 200  # None: it breaks off without an answer
    after: int | None = None
    wait: float = 0.0  # seconds before it answers; `math.inf` hangs
    retry_after: str | None = None
    body: bytes = b"done"
    framing: str = "length"  # or "chunked", or "close"
    truncated: bool = False  # the body is broken off after its half
    pause: float = 0.0  # seconds before each piece of the body; `math.inf` hangs
    keep: bool = True  # the connection is kept open
    drips: bool = False  # the head comes in pieces too, with `pause` before each but the first

    def pieces(self) -> list[tuple[float, bytes]]:
        """What it writes, with the seconds before each."""
        if self.status is None:
            return []
        head = f"HTTP/1.1 {self.status} Whatever\r\n"
        if self.retry_after is not None:
            head += f"Retry-After: {self.retry_after}\r\n"
        if not self.keep:
            head += "Connection: close\r\n"
        if self.framing == "length":
            head += f"Content-Length: {len(self.body)}\r\n"
        elif self.framing == "chunked":
            head += "Transfer-Encoding: chunked\r\n"
        half = len(self.body) // 2
        halves = [self.body[:half]] if self.truncated else [self.body[:half], self.body[half:]]
        whole = head.encode() + b"\r\n"
        size = DRIP if self.drips else len(whole)
        pieces = [
            (self.pause if start else self.wait, whole[start : start + size])
            for start in range(0, len(whole), size)
        ]
        for part in halves:
            chunk = b"%x\r\n%b\r\n" % (len(part), part) if self.framing == "chunked" else part
            if part:
                pieces.append((self.pause, chunk))
        if self.framing == "chunked" and not self.truncated:
            pieces.append((self.pause, b"0\r\n\r\n"))
        return pieces

    @property
    def ends(self) -> bool:
        """Whether the connection is closed after it."""
        return self.status is None or self.truncated or not self.keep or self.framing == "close"


@dataclass
class Request:
    """What the server saw of a request."""

    method: str
    headers: dict[str, str]
    body: bytes = b""
    whole: bool = False
    status: int | None = None  # that of an answer of which the client has the headers


@dataclass
class Server:
    """A server on a script: each connection, and each request, takes the next of its list."""

    connects: list[Connect] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    wires: list["Wire"] = field(default_factory=list)
    attempts: int = 0  # to connect

    def connect(self) -> Connect:
        self.attempts += 1
        return self.connects.pop(0) if self.connects else Connect()

    def accept(self) -> "Wire":
        self.wires.append(Wire(self))
        return self.wires[-1]

    @property
    def open(self) -> int:
        """How many connections the client has not closed."""
        return sum(not wire.closed for wire in self.wires)


class Wire:
    """A connection, as both sides see it: no I/O, no clock."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.closed = False  # by the client
        self.broken = False  # by the server: what is written fails
        self.ended = False  # by the server, once all is read
        self.pending: list[tuple[float, bytes]] = []
        self.ready_at = -math.inf  # when the first of these is there
        self.hangs = False
        self._parser = h11.Connection(h11.SERVER)
        self._request: Request | None = None
        self._answer: Answer | None = None
        self._answered = False
        self._came = b""  # of the answer, to the client

    def written(self, data: bytes, now: float) -> None:
        """The client wrote."""
        if self.broken:
            raise httpcore.WriteError("broken pipe")
        self._parser.receive_data(data)
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                break
            if isinstance(event, h11.Request):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                self._request = Request(event.method.decode(), headers)
                self.server.requests.append(self._request)
                answers = self.server.answers
                self._answer = answers.pop(0) if answers else Answer()
                self._answered = False
            assert self._request is not None
            if isinstance(event, h11.Data):
                self._request.body += bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                self._request.whole = True
            self._perhaps_answer(now)
        # Who answers before the end does not want the rest.
        self.broken = self._answered and self._request is not None and not self._request.whole

    def _perhaps_answer(self, now: float) -> None:
        assert self._answer is not None
        assert self._request is not None
        after = self._answer.after
        there = self._request.whole or (after is not None and len(self._request.body) >= after)
        if self._answered or not there:
            return
        self._answered = True
        self._came = b""
        self.pending = self._answer.pieces()
        self.ready_at = now + (self.pending[0][0] if self.pending else self._answer.wait)

    def read(self, now: float) -> bytes:
        """What there is at `ready_at`; only then."""
        if not self.pending:
            return b""
        _, data = self.pending.pop(0)
        assert self._request is not None
        assert self._answer is not None
        self._came += data
        if b"\r\n\r\n" in self._came:
            self._request.status = self._answer.status
        self.ready_at = now + self.pending[0][0] if self.pending else now
        if not self.pending:
            if self._answer.ends or self.broken:
                self.ended = True
            else:
                self._parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                self._parser.send(h11.EndOfMessage())
                self._parser.start_next_cycle()
        return data

    def has_something(self) -> bool:
        """Whether anything will ever come, data or the end."""
        if self.pending:
            return True
        return self._answered and (self.broken or self._answer is None or self._answer.ends)


class AsyncStream(httpcore.AsyncNetworkStream):
    """The client's end of a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        assert not self.wire.closed
        try:
            with anyio.fail_after(timeout):
                await anyio.lowlevel.checkpoint()
                if not self.wire.has_something():
                    await anyio.sleep_forever()
                await _sleep_until(self.wire.ready_at)
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        return self.wire.read(anyio.current_time())

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        assert not self.wire.closed
        if not buffer:
            return
        await anyio.lowlevel.checkpoint()
        self.wire.written(buffer, anyio.current_time())

    async def aclose(self) -> None:
        self.wire.closed = True
        await anyio.lowlevel.checkpoint()  # as a real one does, even if it is closed by then

    def get_extra_info(self, info: str) -> Any:
        return self.wire.ended if info == "is_readable" else None


async def _sleep_until(time: float) -> None:
    seconds = time - anyio.current_time()
    if seconds == math.inf:
        await anyio.sleep_forever()
    if seconds > 0:
        await anyio.sleep(seconds)


class AsyncNetwork(httpcore.AsyncNetworkBackend):
    """A network whose only host is the server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.AsyncNetworkStream:
        connect = self.server.connect()
        try:
            with anyio.fail_after(timeout):
                await anyio.lowlevel.checkpoint()
                await _sleep_until(anyio.current_time() + connect.seconds)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        if connect.refused:
            raise httpcore.ConnectError("refused")
        return AsyncStream(self.server.accept())


class SyncStream(httpcore.NetworkStream):
    """The client's end of a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        assert not self.wire.closed
        at = self.wire.ready_at if self.wire.has_something() else math.inf
        if not _wait_until(at, timeout):
            raise httpcore.ReadTimeout
        return self.wire.read(_clock.thread_time())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        assert not self.wire.closed
        if not buffer:
            return
        self.wire.written(buffer, _clock.thread_time())

    def close(self) -> None:
        self.wire.closed = True

    def get_extra_info(self, info: str) -> Any:
        return self.wire.ended if info == "is_readable" else None


def _wait_until(time: float, timeout: float | None) -> bool:
    seconds = max(0.0, time - _clock.thread_time())
    most = math.inf if timeout is None else timeout
    assert min(seconds, most) < math.inf, "a thread waits for ever"
    _clock.thread_sleep(min(seconds, most))
    return seconds < most


class SyncNetwork(httpcore.NetworkBackend):
    """A network whose only host is the server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.NetworkStream:
        connect = self.server.connect()
        if not _wait_until(_clock.thread_time() + connect.seconds, timeout):
            raise httpcore.ConnectTimeout
        if connect.refused:
            raise httpcore.ConnectError("refused")
        return SyncStream(self.server.accept())


def async_transport(server: Server, connections: int = 2) -> httpx.AsyncHTTPTransport:
    """httpx's own, on this network."""
    transport = httpx.AsyncHTTPTransport(verify=False)
    transport._pool = httpcore.AsyncConnectionPool(
        max_connections=connections, network_backend=AsyncNetwork(server)
    )
    return transport


def sync_transport(server: Server, connections: int = 2) -> httpx.HTTPTransport:
    """httpx's own, on this network."""
    transport = httpx.HTTPTransport(verify=False)
    transport._pool = httpcore.ConnectionPool(
        max_connections=connections, network_backend=SyncNetwork(server)
    )
    return transport


class VirtualTime:
    """A clock for threads: nothing takes time but what sleeps."""

    def __init__(self) -> None:
        self.now = monotonic()  # where `deadline` counts from

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_clock, "thread_time", self.time)
        monkeypatch.setattr(_clock, "thread_sleep", self.sleep)


def connections_in_use(transport: Any) -> list[Any]:
    """The connections of a pool that are not idle: at the end of all there must be none."""
    return [one for one in transport._pool.connections if not (one.is_idle() or one.is_closed())]


async def serves(transport: Any, at_a_time: int = 2) -> None:
    """Fails unless the pool serves so many requests at a time: the check for lost places.

    The server has to answer at once now.
    """
    timeout = {"pool": 5.0, "connect": 5.0, "read": 5.0, "write": 5.0}
    responses = []
    for _ in range(at_a_time):
        request = httpx.Request("GET", "http://server/", extensions={"timeout": timeout})
        responses.append(await transport.handle_async_request(request))
    for response in responses:
        await response.aclose()


def serves_threads(transport: Any, at_a_time: int = 2) -> None:
    """The same for a sync transport."""
    timeout = {"pool": 5.0, "connect": 5.0, "read": 5.0, "write": 5.0}
    responses = []
    for _ in range(at_a_time):
        request = httpx.Request("GET", "http://server/", extensions={"timeout": timeout})
        responses.append(transport.handle_request(request))
    for response in responses:
        response.close()


def bodies_are_one(requests: Iterable[Request]) -> bool:
    """Whether no whole body was another one than what was seen of it before."""
    seen: list[Request] = []
    for request in requests:
        if request.whole and not all(
            request.body == before.body if before.whole else request.body.startswith(before.body)
            for before in seen
        ):
            return False
        seen.append(request)
    return True
