"""HTTPServer: uvicorn, on a socket of ours, in an event loop that goes on without it."""

import contextlib
import math
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import uvicorn

from loadshed._errors import ConfigError
from loadshed._policy.settings import whole_number

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


class HTTPServer:
    """Serves an ASGI application over HTTP.

    Args:
        app: The application.
        listener: Where requests come in; it is closed at the end.
        settings: Of `uvicorn.Config`.

    Attributes:
        ended: Set when it serves no more.
    """

    def __init__(self, app: Any, listener: socket.socket, **settings: Any) -> None:
        defaults = {"log_config": None, "access_log": False, "lifespan": "off"}
        config = uvicorn.Config(app, **(defaults | settings))
        self._listener = listener
        self._server = _Server(config)
        self.ended = anyio.Event()

    async def serve(self) -> None:
        """Serve until `stop` is called, and then until all is answered: a task."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            for server in getattr(self._server, "servers", ()):  # uvicorn may have been cancelled
                server.close()
            self._listener.close()
            self.ended.set()

    def stop(self, timeout: float | None) -> None:
        """Take no more connections, and let it end when all requests are answered.

        Args:
            timeout: Seconds after which it ends anyway; None is never.
        """
        patience = None if timeout is None else max(1, math.ceil(timeout))  # 0 would be an error
        self._server.config.timeout_graceful_shutdown = patience
        self._server.should_exit = True


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the program."""
        yield
