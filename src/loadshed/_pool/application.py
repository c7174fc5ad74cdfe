"""PoolApplication: an ASGI application that lives in the replicas of a pool."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

import anyio

from loadshed._errors import (
    BackPressureError,
    ReplicaDiedError,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from loadshed._exchange import Exchange, Receive, Scope, Send
from loadshed._policy.wire import Kind
from loadshed._pool.call import Call
from loadshed._pool.slots import Slots
from loadshed._turn import in_turn

PORTABLE = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
    "subprotocols",
)
"""What of a scope is sent: all that the ASGI specification has, and nothing that a framework has
put there."""

EXTENSIONS = frozenset(
    {
        "http.response.debug",
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.push",
        "http.response.trailers",
        "tls",
        "websocket.http.response",
    }
)
"""The extensions that work from another process; not `zerocopysend`, which hands on an open
file."""


class PoolApplication:
    """Forwards each request to the replica that is free first.

    Args:
        pool: Makes what the lifespan enters: the pool, unless somebody else has started it.
        slots: Where the requests go.
        request_timeout_s: How many seconds one may take.
    """

    def __init__(
        self,
        pool: Callable[[], AbstractAsyncContextManager[Any]],
        slots: Slots,
        request_timeout_s: float | None,
    ) -> None:
        self._pool = pool
        self._slots = slots
        self._timeout = request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        exchange = Exchange(self._slots.limiter, receive, send)
        try:
            if self._timeout is not None and scope["type"] == "http":
                await self._serve_in_time(self._timeout, scope, exchange)
            else:
                await self._serve(scope, exchange)
        except (
            BackPressureError,
            ReplicaDiedError,
            ReplicaUnavailableError,
            RequestTimeoutError,
        ) as error:
            if exchange.started:
                raise  # all that is left to the server is to break the connection off
            await exchange.refuse(scope, _status(error), error)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._slots.limiter!r}>"

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        phase = "startup"
        try:
            async with self._pool():
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Exception as error:  # noqa: BLE001 - the server ends, and shows it
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    async def _serve_in_time(self, timeout: float, scope: Scope, exchange: Exchange) -> None:
        with anyio.move_on_after(timeout) as exchange.time:
            await self._serve(scope, exchange)
        if exchange.time.cancel_called and not exchange.complete:
            raise RequestTimeoutError(timeout)

    async def _serve(self, scope: Scope, exchange: Exchange) -> None:
        slots = self._slots
        slots.check()
        if slots.limiter._enter():
            await self._forward(scope, exchange)
            return
        waiter = slots.limiter._queue_up()
        try:
            await in_turn(waiter, exchange, lambda: self._forward(scope, exchange))
        finally:
            slots.look_whether_empty()

    async def _forward(self, scope: Scope, exchange: Exchange) -> None:
        """Send the request to a replica, whose it is until that has answered."""
        exchange.holds_permit = False
        portable = _portable(scope)
        is_sent = False
        while not is_sent:
            call = await self._slots.begin(Kind.ASGI, portable)
            try:
                await self._pass_on(call, exchange)
            except BaseException:
                self._slots.abandon(call)
                raise
            is_sent = not call.is_unsent
        call.result()

    async def _pass_on(self, call: Call, exchange: Exchange) -> None:
        """Pass on what the application sends, and what it asks for, until it is done."""
        failure: Exception | None = None  # raised below as it is, not wrapped by the task group

        async def fetch() -> None:
            nonlocal failure
            try:
                call.tell(Kind.MESSAGE, await exchange.receive())
            except Exception as error:  # noqa: BLE001
                failure = error
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            try:
                while (frame := await call.item()) is not None:
                    if frame.kind == Kind.WANT:
                        tasks.start_soon(fetch)
                    else:
                        await exchange.send(call.consumed(frame))
            except Exception as error:  # noqa: BLE001
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


def _status(error: Exception) -> HTTPStatus:
    if isinstance(error, RequestTimeoutError):
        return HTTPStatus.GATEWAY_TIMEOUT
    if isinstance(error, ReplicaDiedError):
        return HTTPStatus.BAD_GATEWAY
    return HTTPStatus.SERVICE_UNAVAILABLE


def _portable(scope: Scope) -> dict[str, Any]:
    portable = {key: scope[key] for key in PORTABLE if key in scope}
    portable["headers"] = list(scope["headers"])
    extensions: Mapping[str, Any] | None = scope.get("extensions")
    if extensions is not None:
        portable["extensions"] = {k: v for k, v in extensions.items() if k in EXTENSIONS}
    return portable
