"""AsyncRetryTransport: `RetryTransport` on asyncio and trio."""

import math
from types import EllipsisType, TracebackType
from typing import Any, Self

import anyio
import httpx
from tenacity import AsyncRetrying

from loadshed._clock import SharedClock
from loadshed._policy.course import SUCCESS, Attempt, History
from loadshed._policy.criticality import Criticality
from loadshed.client._async_received import aclose, adrain, aread
from loadshed.client._criticality import said_of
from loadshed.client._deadline import UNBOUNDED, bound, in_force
from loadshed.client._events import OnEvent
from loadshed.client._exchange import Body, Exchange, Outcome, late, wants_another
from loadshed.client._family import PLAIN
from loadshed.client._guards import (
    MOST_PENDING,
    AdaptiveThrottle,
    CircuitBreaker,
    Hedge,
    RetryBudget,
)
from loadshed.client._hedge import Race
from loadshed.client._inner import Inner
from loadshed.client._pool import areclaim
from loadshed.client._received import empty
from loadshed.client._retry import Retry
from loadshed.client._sending import Sending
from loadshed.client._settings import Settings, is_streamed

_new = tuple.__new__  # a named tuple in half the time


class AsyncRetryTransport(httpx.AsyncBaseTransport):
    """The async `RetryTransport`, on asyncio and trio.

    An attempt that takes longer than `attempt_timeout` is cancelled, whatever the server does. The
    settings are those of `RetryTransport`, and:

    Args:
        hedge: Sends a request that takes long a second time.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        retry: Retry | None = None,
        budget: RetryBudget | EllipsisType | None = ...,
        breaker: CircuitBreaker | None = None,
        throttle: AdaptiveThrottle | None = None,
        hedge: Hedge | None = None,
        raise_on_exhausted: bool = False,
        propagate_deadline: bool = True,
        criticality: Criticality | str | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._inner = Inner(inner, "handle_async_request", "AsyncHTTPTransport")
        self._clock = SharedClock()
        self._settings = Settings(
            retry=retry,
            budget=budget,
            breaker=breaker,
            throttle=throttle,
            hedge=hedge,
            raise_on_exhausted=raise_on_exhausted,
            propagate_deadline=propagate_deadline,
            criticality=criticality,
            on_event=on_event,
            clock=self._clock.now,
        )

    @property
    def retry(self) -> Retry:
        """The policy of requests that have none of their own."""
        return self._settings.retry

    @property
    def budget(self) -> RetryBudget | None:
        """The retry budget."""
        return self._settings.budget

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and send it again as the policy says."""
        settings = self._settings
        now = self._clock.now()
        limit = settings.limit
        if bound.get() is not UNBOUNDED:
            within = in_force()
            limit = 0.0 if within.explicit < math.inf else min(limit, within.ends_at - now)
        # Most requests have nothing special about them, and most succeed at once. They go the short
        # way: what only a failure needs is made where there is one.
        if (
            limit <= 0
            or settings.is_guarded
            or type(request.stream) not in PLAIN
            or "retry" in request.extensions
        ):
            exchange = Exchange(settings, request, now)
            exchange.enter(now)
            return await self._run(exchange)  # type: ignore[no-any-return]
        said = said_of(request, settings.criticality)
        if (pending := settings.pending) is not None:
            pending.append((request.url, now))
            if len(pending) > MOST_PENDING:
                settings.pay_in()
        sending = None
        sent: Any = request
        if limit != math.inf or said is not None:
            sending = Sending(request, now, limit)
            sending.prepare(settings.clock, propagate=settings.propagate_deadline, criticality=said)
            sent = sending.request
        inner = self._inner.of(request) if (given := self._inner.given) is None else given
        outcome: Outcome = None
        try:
            if limit == math.inf:
                outcome = await inner.handle_async_request(sent)
            else:
                with self._clock.move_on_after(limit):
                    outcome = await inner.handle_async_request(sent)
        except BaseException as error:  # noqa: BLE001 - what is no Exception is raised again
            outcome = await _failed(inner, error)
        if outcome is None:
            outcome = await _late(inner, request, limit)
        if (
            not isinstance(outcome, Exception)
            and outcome.status_code not in settings.statuses
            and (type(outcome.stream) in PLAIN or is_streamed(sending, request))
        ):
            attempt = _new(Attempt, (outcome.status_code, None, self._clock.now() - now, 0.0))
            history = _new(History, ((attempt,), SUCCESS))
            request.extensions["loadshed"] = outcome.extensions["loadshed"] = history
            return outcome  # type: ignore[no-any-return]
        exchange = Exchange(settings, request, now)
        sending = sending or Sending(request, now, limit)
        return await self._run(exchange, sending, outcome)  # type: ignore[no-any-return]

    async def _run(
        self, exchange: Exchange, sending: Sending | None = None, outcome: Outcome = None
    ) -> Any:
        """Go on after the first attempt, or begin with it."""
        try:
            if sending is None:
                outcome = await self._send(exchange)
            else:
                outcome = await self._complete(exchange, sending, outcome)
            if exchange.is_failure(outcome):
                outcome = await self._try_again(exchange, outcome)
            return exchange.give(await self._with_body(exchange, outcome))
        except BaseException:
            if not isinstance(exchange.held, Exception | None):
                await aclose(exchange.held)
            raise
        finally:
            exchange.leave(self._clock.now())

    async def _try_again(self, exchange: Exchange, first: Outcome) -> Outcome:
        outcomes = [first]

        async def attempt() -> Outcome:
            return outcomes.pop() if outcomes else await self._send(exchange)

        async def sleep(seconds: float) -> None:
            await self._put_away(exchange)
            await anyio.sleep(seconds)

        # One for each request: a shared one mixes up the attempts of its tasks.
        loop = AsyncRetrying(
            sleep=sleep,
            wait=lambda _: exchange.delay,
            retry=lambda state: wants_another(exchange, state, self._clock.now),
        )
        return await loop(attempt)

    async def _send(self, exchange: Exchange) -> Outcome:
        """One attempt, or where it is hedged, several side by side."""
        hedge = self._settings.hedge
        if hedge is None or not exchange.may_be_sent_twice():
            return await self._attempt(exchange)
        return await Race(hedge, exchange, self._clock).run(self._carry_out)

    async def _attempt(self, exchange: Exchange) -> Outcome:
        now = self._clock.now()
        sending = exchange.begin(now)
        if sending is None:
            return exchange.refused(now)
        return await self._carry_out(exchange, sending)

    async def _carry_out(self, exchange: Exchange, sending: Sending) -> Outcome:
        try:
            outcome = await self._deliver(sending.request, sending.limit)
        except BaseException:
            exchange.cancelled(sending, self._clock.now())
            await sending.request.stream.aclose()
            raise
        return await self._complete(exchange, sending, outcome)

    async def _deliver(self, request: Any, limit: float) -> Outcome:
        """Send a request once, as far as the headers of the response."""
        inner = self._inner.of(request) if (given := self._inner.given) is None else given
        try:
            with self._clock.move_on_after(limit):
                return await inner.handle_async_request(request)
        except BaseException as error:  # noqa: BLE001 - what is no Exception is raised again
            return await _failed(inner, error)
        return await _late(inner, request, limit)

    async def _complete(self, exchange: Exchange, sending: Sending, outcome: Outcome) -> Outcome:
        """The rest of an attempt: read the body where that belongs to it."""
        try:
            has_body_to_read = exchange.has_body_to_read(sending, outcome)
            await sending.request.stream.aclose()  # perhaps it was not sent to its end
            if has_body_to_read:
                await self._read(exchange, outcome, sending.ends_at)
        except Exception as error:  # noqa: BLE001 - as above
            outcome = error
        except BaseException:
            exchange.cancelled(sending, self._clock.now())
            raise
        exchange.note(sending, outcome, self._clock.now())
        return outcome

    async def _read(self, exchange: Exchange, response: Any, ends_at: float) -> None:
        with anyio.move_on_after(ends_at - self._clock.now()):
            await aread(response, exchange.family.bytes_body)
            return
        raise exchange.late_body()

    async def _put_away(self, exchange: Exchange) -> None:
        """The latest response is not the caller's, as it seems: let its connection go."""
        response = exchange.last
        if isinstance(response, Exception):
            return
        seconds = exchange.ends_at - self._clock.now()
        if not await adrain(response, exchange.family.bytes_body, seconds):
            empty(response, exchange.family.bytes_body)

    async def _with_body(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        """The last outcome; if it is a response, with its body as the caller wants it."""
        todo = exchange.body_of(outcome)
        try:
            if todo is Body.TO_READ:
                await self._read(exchange, outcome, exchange.ends_at)
            elif todo is Body.TO_DRAIN:
                seconds = exchange.ends_at - self._clock.now()
                await adrain(outcome, exchange.family.bytes_body, seconds)
        except Exception as error:  # noqa: BLE001 - it is the outcome now
            return error
        return outcome

    async def aclose(self) -> None:
        """Close the transport inside."""
        for transport in self._inner.all():
            await transport.aclose()

    async def __aenter__(self) -> Self:
        for transport in self._inner.all():
            await transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        for transport in self._inner.all():
            await transport.__aexit__(exc_type, exc_value, traceback)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._inner!r} {self._settings.retry!r}>"


async def _failed(inner: Any, error: BaseException) -> Exception:
    """What an attempt comes to that raised; what is no Exception is not the policy's business."""
    await areclaim(inner)
    if not isinstance(error, Exception):
        raise error
    return error


async def _late(inner: Any, request: Any, limit: float) -> Exception:
    await areclaim(inner)
    return late(request, limit)
