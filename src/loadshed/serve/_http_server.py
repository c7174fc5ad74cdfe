"""HTTPServer: uvicorn, on a socket of ours, in an event loop that goes on without it."""

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from loadshed._errors import ConfigError
from loadshed._policy.settings import whole_number
from loadshed.serve._controller import Controller

BACKLOG = 2048
"""Connections that the system keeps until they are accepted: uvicorn's own default."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; from now on nobody else can have its port.

    Raises:
        ConfigError: It can't, as somebody else has the port, or this is no address of ours.
    """
    whole_number("port", port, at_least=0, at_most=65535)
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family)
    except (OSError, UnicodeError) as error:
        raise ConfigError("host", host, f"an address of this machine ({error})") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError("port", port, f"one that is free on {host} ({error.strerror})") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it can be reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - it is shown, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


LARGE = 16 * 1024
"""Bytes from which on a write is not joined with others: to copy it takes longer."""


class _Joining:
    """A transport that writes at the end of the event loop's turn what was written in it.

    uvicorn writes the head of a response and its body apart, and the event loop sends each at once.
    """

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        if len(data) >= LARGE:
            self.flush()

    def flush(self) -> None:
        """Write it now."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    def connection_made(self, transport: Any) -> None:
        super().connection_made(_Joining(transport, self.loop))

    def on_response_complete(self) -> None:
        self.transport.flush()  # nothing more is going to be joined with it
        super().on_response_complete()


class HTTPServer:
    """Serves an ASGI application over HTTP.

    Args:
        app: The application.
        listener: Where requests come in; it is closed at the end.
        settings: Of `uvicorn.Config`.

    Attributes:
        closed: Set when it takes no more connections.
        ended: Set when it serves no more.
    """

    def __init__(self, app: Any, listener: socket.socket, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "http": _Protocol,
            "interface": "asgi3",  # it need not guess
            "log_config": None,
            "access_log": False,
            "lifespan": "off",
        }
        config = uvicorn.Config(app, **(defaults | settings))
        self._listener = listener
        self.closed = anyio.Event()
        self.ended = anyio.Event()
        self._server = _Server(config, self.closed)

    async def serve(self) -> None:
        """Serve until `stop` is called, and then until all is answered: a task."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            for server in getattr(self._server, "servers", ()):  # uvicorn may have been cancelled
                server.close()
            self._listener.close()
            self.closed.set()
            self.ended.set()

    def stop(self, timeout: float | None) -> None:
        """Take no more connections, and let it end when all requests are answered.

        Args:
            timeout: Seconds after which it ends anyway; None is never.
        """
        patience = None if timeout is None else max(1, math.ceil(timeout))  # 0 would be an error
        self._server.config.timeout_graceful_shutdown = patience
        self._server.should_exit = True


async def close(server: HTTPServer, controller: Controller) -> None:
    """Take no more requests, serve those that came, and end the replicas.

    Both at a time: else what hangs would have its grace twice.
    """
    async with anyio.create_task_group() as tasks:
        server.stop(controller.grace)
        await server.closed.wait()
        tasks.start_soon(controller.close)
        await server.ended.wait()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, closed: anyio.Event) -> None:
        super().__init__(config)
        self._closed = closed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait until all requests are answered."""
        self._closed.set()  # who waits for that goes on when the listeners are closed
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the program."""
        yield
