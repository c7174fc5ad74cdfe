"""PoolApplication: an ASGI application that lives in the replicas of a pool."""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

import anyio

from loadshed._errors import (
    BackPressureError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from loadshed._exchange import DeadlineExchange, Exchange, Message, Receive, Scope, Send
from loadshed._policy.deadline import read
from loadshed._policy.scope import portable_scope
from loadshed._policy.ticket import State
from loadshed._policy.wire import Kind
from loadshed._pool.call import Call
from loadshed._pool.slots import Slots
from loadshed._standing import Standings
from loadshed._turn import in_turn

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""The methods of requests that may be done twice (RFC 9110, 9.2.2)."""

KEPT = 64 * 1024
"""Bytes of a request's body that are kept, in case it has to be sent once more."""


class Kept:
    """Keeps what is received of a request, as long as it is little, to receive it once more.

    Args:
        receive: Where it comes from.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._again: deque[Message] = deque()
        self._size = 0

    async def receive(self) -> Message:
        """The next message."""
        if self._again:
            return self._again.popleft()
        message = await self._receive()
        self._size += len(message.get("body", b"")) + 1
        if self._size <= KEPT:
            self._messages.append(message)
        else:
            self._messages.clear()
        return message

    def rewind(self) -> bool:
        """Begin anew, if that can be done."""
        self._again = deque(self._messages)
        return self._size <= KEPT


class PoolApplication:
    """Forwards each request to the replica that is free first.

    Args:
        pool: Makes what the lifespan enters: the pool, unless somebody else has started it.
        slots: Where the requests go.
        request_timeout_s: How many seconds one may take.

    Attributes:
        request_timeout_s: The same; it can be changed.
        backpressure_status: The status of a request that is turned away.
        retry_after_s: Seconds for its `Retry-After`; None is what the limiter estimates.
        trust_deadline: Whether callers may shorten `request_timeout_s` by a header.
        standings: Finds what requests are to the limiter.
        tries: How often one is tried whose replica died before the response began, if it is safe
            to do it twice.
    """

    def __init__(
        self,
        pool: Callable[[], AbstractAsyncContextManager[Any]],
        slots: Slots,
        request_timeout_s: float | None,
    ) -> None:
        self._pool = pool
        self._slots = slots
        self.request_timeout_s = request_timeout_s
        self.backpressure_status = HTTPStatus.SERVICE_UNAVAILABLE
        self.retry_after_s: float | None = None
        self.trust_deadline = False
        self.standings = Standings()
        self.tries = 1

    def answer_as(self, backpressure_status: int, retry_after_s: float | None) -> None:
        """Say to those that are turned away: this status, and this `Retry-After`."""
        self.backpressure_status = HTTPStatus(backpressure_status)
        self.retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        exchange, left = self._exchange(scope, receive, send)
        try:
            if isinstance(exchange, DeadlineExchange):
                await self._serve_by_deadline(left, scope, exchange)
            elif self.request_timeout_s is not None and scope["type"] == "http":
                await self._serve_in_time(self.request_timeout_s, scope, exchange)
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
            await self._refuse(error, scope, exchange)

    def _exchange(self, scope: Scope, receive: Receive, send: Send) -> tuple[Exchange, float]:
        """The request, and how many seconds its caller still waits if it says so."""
        limiter = self._slots.limiter
        if self.trust_deadline and scope["type"] == "http":
            said = read(scope["headers"])
            if said.seconds is not None:
                timeout = self.request_timeout_s
                return DeadlineExchange(limiter, receive, send, timeout), said.seconds
        return Exchange(limiter, receive, send), math.inf

    async def _refuse(
        self,
        error: BackPressureError | ReplicaError | RequestTimeoutError,
        scope: Scope,
        exchange: Exchange,
    ) -> None:
        status = _status(error)
        if isinstance(error, BackPressureError):
            status = self.backpressure_status
            if self.retry_after_s is not None:
                error.args = (*error.args[:3], math.ceil(self.retry_after_s), *error.args[4:])
        await exchange.refuse(scope, status, error)

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

    async def _serve_by_deadline(
        self, left: float, scope: Scope, exchange: DeadlineExchange
    ) -> None:
        with exchange.time:
            exchange.arrive(left)
            await self._serve(scope, exchange)
        if exchange.time.cancel_called and not exchange.complete:
            raise RequestTimeoutError(exchange.seconds)

    def _serve(self, scope: Scope, exchange: Exchange) -> Awaitable[None]:
        if self.tries == 1 or scope["type"] != "http" or scope["method"] not in IDEMPOTENT:
            return self._try(scope, exchange)
        return self._try_again_and_again(scope, exchange)

    async def _try_again_and_again(self, scope: Scope, exchange: Exchange) -> None:
        kept = Kept(exchange.receive)
        exchange.receive = kept.receive
        for _ in range(self.tries - 1):
            try:
                await self._try(scope, exchange)
            except ReplicaDiedError:
                if exchange.started or not kept.rewind():
                    raise
                exchange.receive = kept.receive
            else:
                return
        await self._try(scope, exchange)

    def _try(self, scope: Scope, exchange: Exchange) -> Awaitable[None]:
        slots = self._slots
        slots.check()
        if self.standings.are_usual and slots.limiter._enter():
            return self._forward(scope, exchange)
        return self._queue_up(scope, exchange)

    async def _queue_up(self, scope: Scope, exchange: Exchange) -> None:
        slots = self._slots
        waiter = slots.limiter._queue_up(exchange.deadline, self.standings.of(scope))
        if waiter.state is not State.QUEUED:
            exchange.is_granted(waiter)
            await self._forward(scope, exchange)
            return
        try:
            await in_turn(waiter, exchange, lambda: self._forward(scope, exchange))
        finally:
            slots.look_whether_empty()

    async def _forward(self, scope: Scope, exchange: Exchange) -> None:
        """Send the request to a replica, whose it is until that has answered."""
        exchange.holds_permit = False
        try:
            portable = portable_scope(scope)
        except Exception:  # it is none, and the server's mistake
            self._slots.release(exchange.waiter)
            raise
        is_sent = False
        while not is_sent:
            call = await self._slots.begin(Kind.ASGI, portable, exchange.waiter)
            try:
                while (frame := await call.item()) is not None:
                    if frame.kind == Kind.WANT:
                        await self._pass_both_ways(call, exchange)
                        break
                    for message in call.consumed(frame):
                        await exchange.send(message)
            except BaseException:
                self._slots.abandon(call)
                raise
            is_sent = not call.is_unsent
        for message in call.result():
            await exchange.send(message)

    async def _pass_both_ways(self, call: Call, exchange: Exchange) -> None:
        """Pass on what it sends and what it asks for, from when it has asked for the first time."""
        failure: Exception | None = None  # raised below as it is, not wrapped by the task group

        async def fetch() -> None:
            nonlocal failure
            try:
                call.tell(Kind.MESSAGE, await exchange.receive())
            except Exception as error:  # noqa: BLE001
                failure = error
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch)
            try:
                while (frame := await call.item()) is not None:
                    if frame.kind == Kind.WANT:
                        tasks.start_soon(fetch)
                        continue
                    for message in call.consumed(frame):
                        await exchange.send(message)
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
