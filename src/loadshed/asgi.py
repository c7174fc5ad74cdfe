"""LoadShedMiddleware: a limiter around an ASGI application, for any framework and server.

```python
from starlette.applications import Starlette
from starlette.middleware import Middleware
from loadshed.asgi import LoadShedMiddleware

app = Starlette(middleware=[Middleware(LoadShedMiddleware)])
```
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio

from loadshed._around import is_async
from loadshed._errors import BackPressureError, ConfigError, RequestTimeoutError
from loadshed._exchange import DeadlineExchange, Exchange, Receive, Scope, Send, can_answer
from loadshed._limiter import ConcurrencyLimiter
from loadshed._outcome import was_of_use
from loadshed._policy.admission import Order
from loadshed._policy.criticality import Criticality
from loadshed._policy.deadline import read
from loadshed._policy.limits.limit import Limit
from loadshed._policy.settings import seconds, yes_or_no
from loadshed._policy.ticket import State
from loadshed._standing import Standings
from loadshed._turn import in_turn

__all__ = ["DEFAULT_EXEMPT", "LoadShedMiddleware", "MiddlewareStatistics"]

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

DEFAULT_EXEMPT = ("/healthz", "/livez", "/readyz", "/metrics")
"""Paths that have to answer however busy the service is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddlewareStatistics:
    """What callers said of themselves to a `LoadShedMiddleware` that believes them.

    All are 0 without `trust_deadline` and `trust_criticality`.

    Attributes:
        deadlines: Requests so far that came with a deadline that was believed.
        retries: Requests so far that said that they are a retry.
        ignored: Header values so far that were malformed or absurd, and ignored.
        criticalities: Requests so far that said of what class they are, and were believed.
    """

    deadlines: int
    retries: int
    ignored: int
    criticalities: int = 0


class LoadShedMiddleware:
    """Bounds the requests that an application works on, and turns the rest away at once.

    Up to `max_ongoing_requests` requests run, up to `max_queued_requests` wait, and every other
    one is answered with 503 and `Retry-After` before its body is read. A request holds its permit
    until the last byte of its response was sent or the application raised; what runs after that
    in the background does not. A client that leaves while it waits is taken out of the queue, and
    the application never hears of it.

    Args:
        app: The ASGI application.
        max_ongoing_requests: How many requests run at once: a number, or a `Limit`. By default it
            finds out by itself; see `ConcurrencyLimiter`, as for the next seven.
        max_queued_requests: How many wait; by default it follows the limit.
        max_wait: How many seconds a request waits at most; by default as long as its client.
        order: Who goes first: "fifo" or "adaptive_lifo".
        shares: The part of the limit that each class gets at least while it has work.
        max_tenants: How many tenants are told apart at most.
        tenant_share: The part of the queue that one tenant may take in a class.
        name: What the limiter is called in the log.
        priority: Is given the scope and returns how much the request matters: a `Criticality`, the
            name of one, or None for `CRITICAL`.
        trust_criticality: Whether to believe callers who say that themselves, in the header
            `x-request-criticality`, where `priority` says nothing. For services whose callers are
            all your own.
        tenant: Is given the scope and returns whose request it is: anything hashable. Tenants take
            turns.
        cost: How many of `max_ongoing_requests` a request takes: a whole number >= 1, or a callable
            that is given the scope and returns one.
        request_timeout_s: How many seconds a request may take from end to end, waiting included.
            Then the application is cancelled, and the answer is 504, or, where a part of the
            response is sent already, the connection is broken off. By default there is no limit.
        exempt: What is never limited: paths, or a callable that is given the scope.
        limiter: A limiter instead of the numbers, to share it or to look at its statistics.
        websockets: A limiter for websockets, which hold a permit for as long as they are open. By
            default they are not limited.
        on_shed: Called with the scope and the `BackPressureError` of a request that is turned
            away; returns the ASGI application that answers it (a Starlette `Response` is one), or
            None for the usual answer.
        trust_deadline: Whether to believe callers who say in `x-request-timeout-seconds` how many
            seconds they still wait. Nothing is begun that they would not wait for, and what has
            begun ends with their patience. It only ever shortens `max_wait` and
            `request_timeout_s`. For services whose callers are all your own.

    Attributes:
        limiter: The limiter of its HTTP requests.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_ongoing_requests: float | Limit | None = None,
        max_queued_requests: float | None = None,
        max_wait: float | None = None,
        order: Order | None = None,
        shares: Mapping[Criticality, float] | None = None,
        max_tenants: int | None = None,
        tenant_share: float | None = None,
        name: str | None = None,
        priority: Callable[[Scope], Criticality | str | None] | None = None,
        trust_criticality: bool = False,
        tenant: Callable[[Scope], Hashable] | None = None,
        cost: Callable[[Scope], int] | int = 1,
        request_timeout_s: float | None = None,
        exempt: Iterable[str] | Callable[[Scope], bool] = DEFAULT_EXEMPT,
        limiter: ConcurrencyLimiter | None = None,
        websockets: ConcurrencyLimiter | None = None,
        on_shed: Callable[[Scope, BackPressureError], ASGIApp | None] | None = None,
        trust_deadline: bool = False,
    ) -> None:
        self.app = app
        self.limiter = _limiter_of(
            limiter,
            max_ongoing_requests=max_ongoing_requests,
            max_queued_requests=max_queued_requests,
            max_wait=max_wait,
            order=order,
            shares=shares,
            max_tenants=max_tenants,
            tenant_share=tenant_share,
            name=name,
        )
        self._standings = Standings(
            priority=priority, trust_criticality=trust_criticality, tenant=tenant, cost=cost
        )
        self._websockets = None if websockets is None else _checked("websockets", websockets)
        self._timeout = seconds("request_timeout_s", request_timeout_s)
        self._is_exempt = _exemption(exempt)
        if on_shed is not None and (is_async(on_shed) or not callable(on_shed)):
            raise ConfigError("on_shed", on_shed, "a callable that is not async, or None")
        self._on_shed = on_shed
        self._trust_deadline = yes_or_no("trust_deadline", trust_deadline)
        self._deadlines = self._retries = self._ignored = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope of the ASGI server."""
        kind = scope["type"]
        if kind == "http":
            limiter: ConcurrencyLimiter | None = self.limiter
        else:
            limiter = self._websockets if kind == "websocket" else None
        if limiter is None or self._is_exempt(scope):
            await self.app(scope, receive, send)
        elif kind != "http":
            await self._serve(scope, Exchange(limiter, receive, send))
        elif self._trust_deadline and (left := self._seconds_left(scope)) is not None:
            exchange = DeadlineExchange(limiter, receive, send, self._timeout)
            await self._serve_by_deadline(left, scope, exchange)
        elif self._timeout is not None:
            await self._serve_in_time(self._timeout, scope, Exchange(limiter, receive, send))
        else:
            await self._serve(scope, Exchange(limiter, receive, send))

    def statistics(self) -> MiddlewareStatistics:
        """What callers said of themselves so far: a snapshot. `limiter` has statistics, too."""
        return MiddlewareStatistics(
            deadlines=self._deadlines,
            retries=self._retries,
            criticalities=self._standings.believed,
            ignored=self._ignored + self._standings.ignored,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.limiter!r}>"

    def _seconds_left(self, scope: Scope) -> float | None:
        """How long the caller still waits, if it says so; what it says is counted."""
        said = read(scope.get("headers", ()))
        self._deadlines += said.seconds is not None
        self._retries += said.is_retry
        self._ignored += said.ignored
        return said.seconds

    async def _serve_in_time(self, timeout: float, scope: Scope, exchange: Exchange) -> None:
        with anyio.move_on_after(timeout) as exchange.time:
            await self._serve(scope, exchange)
        if exchange.time.cancel_called and not exchange.complete:
            await self._time_out(timeout, scope, exchange)

    async def _serve_by_deadline(
        self, left: float, scope: Scope, exchange: DeadlineExchange
    ) -> None:
        """`_serve_in_time`, for a caller who still waits for so many seconds."""
        with exchange.time:
            try:
                exchange.arrive(left)
            except BackPressureError as error:
                await self._shed(error, scope, exchange)
            else:
                await self._serve(scope, exchange)
        if exchange.time.cancel_called and not exchange.complete:
            await self._time_out(exchange.seconds, scope, exchange)

    async def _time_out(self, seconds: float, scope: Scope, exchange: Exchange) -> None:
        error = RequestTimeoutError(seconds)
        if exchange.started:
            raise error  # all that is left to the server is to break the connection off
        await exchange.send_problem(scope, HTTPStatus.GATEWAY_TIMEOUT, error)

    async def _serve(self, scope: Scope, exchange: Exchange) -> None:
        try:
            if self._standings.are_usual and exchange.limiter._enter():
                exchange.holds_permit = True
            else:
                waiter = exchange.limiter._queue_up(exchange.deadline, self._standings.of(scope))
                if waiter.state is State.QUEUED:
                    await in_turn(waiter, exchange, lambda: self._run(scope, exchange))
                    return
                exchange.is_granted(waiter)
            await self._run(scope, exchange)
        except BackPressureError as error:  # of this limiter, or of one in the application
            if exchange.started:
                raise
            exchange.is_shed()
            await self._shed(error, scope, exchange)

    async def _run(self, scope: Scope, exchange: Exchange) -> None:
        """Call the application, and give the permit back, with what became of it."""
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.release(of_use=was_of_use(error))
            raise
        # A response that was begun and not ended is one that nobody waited for any more.
        exchange.release(of_use=not exchange.started or scope["type"] != "http")

    async def _shed(self, error: BackPressureError, scope: Scope, exchange: Exchange) -> None:
        answer = None
        if self._on_shed is not None and can_answer(scope):
            answer = self._on_shed(scope, error)
        if answer is None:
            await exchange.refuse(scope, HTTPStatus.SERVICE_UNAVAILABLE, error)
        else:
            await answer(scope, exchange.receive, exchange.send)


def _limiter_of(limiter: ConcurrencyLimiter | None, **settings: Any) -> ConcurrencyLimiter:
    """The limiter that is given, or one with these settings."""
    given = {name: value for name, value in settings.items() if value is not None}
    if limiter is None:
        return ConcurrencyLimiter(**given)
    for name, value in given.items():
        raise ConfigError(name, value, "left out where a limiter is given")
    return _checked("limiter", limiter)


def _checked(setting: str, value: object) -> ConcurrencyLimiter:
    if not isinstance(value, ConcurrencyLimiter):
        raise ConfigError(setting, value, "a ConcurrencyLimiter")
    return value


def _exemption(paths: object) -> Callable[[Scope], bool]:
    """A test for requests to these paths, wherever the application is mounted."""
    if callable(paths) and not is_async(paths):
        return paths
    expected = 'a tuple or list of paths that start with "/", or a callable that is not async'
    if isinstance(paths, str | bytes) or not isinstance(paths, Iterable):
        raise ConfigError("exempt", paths, expected)
    given = list(paths)
    for path in given:
        if not (isinstance(path, str) and path.startswith("/")):
            raise ConfigError("exempt", path, expected)
    known = frozenset(given)

    def is_exempt(scope: Scope) -> bool:
        path = scope["path"]
        mount = scope.get("root_path")
        return path in known or (bool(mount) and path.removeprefix(mount) in known)

    return is_exempt
