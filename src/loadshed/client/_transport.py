"""RetryTransport: a transport of httpx's, or httpx2's, with a policy."""

import math
from types import EllipsisType, TracebackType
from typing import Any, Self

import httpx
from tenacity import Retrying

from loadshed import _clock
from loadshed._errors import ConfigError
from loadshed._policy.course import SUCCESS, Attempt, History
from loadshed._policy.criticality import Criticality
from loadshed.client._criticality import said_of
from loadshed.client._deadline import UNBOUNDED, bound, in_force
from loadshed.client._events import OnEvent
from loadshed.client._exchange import Body, Exchange, Outcome, wants_another
from loadshed.client._family import PLAIN
from loadshed.client._guards import (
    MOST_PENDING,
    AdaptiveThrottle,
    CircuitBreaker,
    Hedge,
    RetryBudget,
)
from loadshed.client._inner import Inner
from loadshed.client._pool import reclaim
from loadshed.client._received import LONGEST_DRAIN, close, drain, empty, read
from loadshed.client._retry import Retry
from loadshed.client._sending import Sending
from loadshed.client._settings import Settings, is_streamed

_new = tuple.__new__  # a named tuple in half the time


class RetryTransport(httpx.BaseTransport):
    """A transport that tries again, within limits, what another transport sends.

    ```python
    httpx.Client(transport=RetryTransport(retry=Retry(total=3)))
    ```

    It serves httpx and httpx2. It wraps, and rebuilds nothing: HTTP/2, proxies and connection
    limits are those of the transport inside. A request may have a policy of its own:
    `client.get(url, extensions={"retry": Retry(total=0)})`. What came of all attempts is in
    `extensions["loadshed"]` of the response, and of the request: a `History`.

    Python can't interrupt a thread, so here the time for an attempt is shared by httpx's own
    timeouts, and a server that sends its headers a byte at a time outlasts it.
    `AsyncRetryTransport` keeps to the wall clock.

    Args:
        inner: The transport that sends. By default one of the request's own library.
        retry: The policy; by default `Retry()`.
        budget: A bound on the retries of all requests together, to share it; None is none. By
            default one of its own.
        breaker: Stops sending to an origin that fails.
        throttle: Refuses requests that would most likely be turned away.
        hedge: For the async transport only.
        raise_on_exhausted: Whether to raise `RetryError`, which has all attempts, where the last
            response would be returned or the last exception raised.
        propagate_deadline: Whether to tell the server how long is left, in
            `x-request-timeout-seconds`, and which retry this is, in `x-retry-attempt`.
        criticality: How much the requests matter, for the server to know, in
            `x-request-criticality`: a `Criticality`, or the name of one. A block of `criticality`
            counts before it, a request's own header or extension before both. None: it is not told.
        on_event: Called with an `Event` for each retry and at the end of each failure.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport | None = None,
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
        if hedge is not None:
            expected = "None: a thread can't be cancelled, so only the async transport has hedges"
            raise ConfigError("hedge", hedge, expected)
        self._inner = Inner(inner, "handle_request", "HTTPTransport")
        self._settings = Settings(
            retry=retry,
            budget=budget,
            breaker=breaker,
            throttle=throttle,
            hedge=None,
            raise_on_exhausted=raise_on_exhausted,
            propagate_deadline=propagate_deadline,
            criticality=criticality,
            on_event=on_event,
            clock=lambda: _clock.thread_time(),  # noqa: PLW0108 - looked up anew, for tests
        )

    @property
    def retry(self) -> Retry:
        """The policy of requests that have none of their own."""
        return self._settings.retry

    @property
    def budget(self) -> RetryBudget | None:
        """The retry budget."""
        return self._settings.budget

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and send it again as the policy says."""
        settings = self._settings
        now = _clock.thread_time()
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
            return self._run(exchange)  # type: ignore[no-any-return]
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
        try:
            outcome: Outcome = inner.handle_request(sent)
        except BaseException as error:  # noqa: BLE001 - what is no Exception is raised again
            outcome = _failed(inner, error)
        if (
            not isinstance(outcome, Exception)
            and outcome.status_code not in settings.statuses
            and (type(outcome.stream) in PLAIN or is_streamed(sending, request))
        ):
            attempt = _new(Attempt, (outcome.status_code, None, _clock.thread_time() - now, 0.0))
            history = _new(History, ((attempt,), SUCCESS))
            request.extensions["loadshed"] = outcome.extensions["loadshed"] = history
            return outcome  # type: ignore[no-any-return]
        exchange = Exchange(settings, request, now)
        sending = sending or Sending(request, now, limit)
        return self._run(exchange, sending, outcome)  # type: ignore[no-any-return]

    def _run(
        self, exchange: Exchange, sending: Sending | None = None, outcome: Outcome = None
    ) -> Any:
        """Go on after the first attempt, or begin with it."""
        try:
            if sending is None:
                outcome = self._attempt(exchange)
            else:
                outcome = self._complete(exchange, sending, outcome)
            if exchange.is_failure(outcome):
                outcome = self._try_again(exchange, outcome)
            return exchange.give(self._with_body(exchange, outcome))
        except BaseException:
            if not isinstance(exchange.held, Exception | None):
                close(exchange.held)
            raise
        finally:
            exchange.leave(_clock.thread_time())

    def _try_again(self, exchange: Exchange, first: Outcome) -> Outcome:
        outcomes = [first]

        def attempt() -> Outcome:
            return outcomes.pop() if outcomes else self._attempt(exchange)

        def sleep(seconds: float) -> None:
            self._put_away(exchange)
            _clock.thread_sleep(seconds)

        # tenacity's loop, with the exchange's decisions. It is given outcomes and never sees an
        # exception but one that ends it, so none of them is special to it.
        loop = Retrying(
            sleep=sleep,
            wait=lambda _: exchange.delay,
            retry=lambda state: wants_another(exchange, state, _clock.thread_time),
        )
        return loop(attempt)

    def _attempt(self, exchange: Exchange) -> Outcome:
        now = _clock.thread_time()
        sending = exchange.begin(now)
        if sending is None:
            return exchange.refused(now)
        return self._carry_out(exchange, sending)

    def _carry_out(self, exchange: Exchange, sending: Sending) -> Outcome:
        try:
            outcome = self._deliver(sending.request)
        except BaseException:
            exchange.cancelled(sending, _clock.thread_time())
            raise
        return self._complete(exchange, sending, outcome)

    def _deliver(self, request: Any) -> Outcome:
        """Send a request once, as far as the headers of the response."""
        inner = self._inner.of(request) if (given := self._inner.given) is None else given
        try:
            return inner.handle_request(request)
        except BaseException as error:  # noqa: BLE001 - what is no Exception is raised again
            return _failed(inner, error)

    def _complete(self, exchange: Exchange, sending: Sending, outcome: Outcome) -> Outcome:
        """The rest of an attempt: read the body where that belongs to it."""
        if exchange.has_body_to_read(sending, outcome):
            try:
                self._read(exchange, outcome, sending.ends_at)
            except Exception as error:  # noqa: BLE001 - as above
                outcome = error
            except BaseException:
                exchange.cancelled(sending, _clock.thread_time())
                raise
        exchange.note(sending, outcome, _clock.thread_time())
        return outcome

    def _read(self, exchange: Exchange, response: Any, ends_at: float) -> None:
        if not read(response, exchange.family.bytes_body, ends_at=ends_at):
            raise exchange.late_body()

    def _put_away(self, exchange: Exchange) -> None:
        """The latest response is not the caller's, as it seems: let its connection go."""
        response = exchange.last
        if not isinstance(response, Exception) and not self._drain(exchange, response):
            empty(response, exchange.family.bytes_body)

    def _drain(self, exchange: Exchange, response: Any) -> bool:
        seconds = min(LONGEST_DRAIN, exchange.ends_at - _clock.thread_time())
        if seconds <= 0 or not exchange.may_be_drained(seconds):
            close(response)
            return False
        return drain(response, exchange.family.bytes_body, exchange.ends_at)

    def _with_body(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        """The last outcome; if it is a response, with its body as the caller wants it."""
        todo = exchange.body_of(outcome)
        try:
            if todo is Body.TO_READ:
                self._read(exchange, outcome, exchange.ends_at)
            elif todo is Body.TO_DRAIN:
                self._drain(exchange, outcome)
        except Exception as error:  # noqa: BLE001 - it is the outcome now
            return error
        return outcome

    def close(self) -> None:
        """Close the transport inside."""
        for transport in self._inner.all():
            transport.close()

    def __enter__(self) -> Self:
        for transport in self._inner.all():
            transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        for transport in self._inner.all():
            transport.__exit__(exc_type, exc_value, traceback)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._inner!r} {self._settings.retry!r}>"


def _failed(inner: Any, error: BaseException) -> Exception:
    """What an attempt comes to that raised; what is no Exception is not the policy's business."""
    reclaim(inner)
    if not isinstance(error, Exception):
        raise error
    return error
