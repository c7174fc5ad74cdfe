"""Exchange: one request on its way through its attempts. It decides; the transports act."""

import math
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState

from loadshed import _clock
from loadshed._errors import CircuitOpenError, ConfigError, RetryError
from loadshed._policy.backoff import parse_date, parse_retry_after
from loadshed._policy.breaker import BLOCKED
from loadshed._policy.course import SUCCESS, Attempt, Course, Failure, History
from loadshed.client._criticality import said_of
from loadshed.client._deadline import in_force
from loadshed.client._events import Event, tell
from loadshed.client._family import family_of
from loadshed.client._guards import ThrottledError, origin_of
from loadshed.client._retry import Retry
from loadshed.client._sending import HEADWAY, MOST_HEADWAY, READ, Sending, Timeouts
from loadshed.client._sent import AlteredBodyError, rewinding

if TYPE_CHECKING:
    from loadshed.client._settings import Settings

TOO_MANY_REQUESTS = 429
TURNED_AWAY = (429, 503)

Outcome = Any
"""A response, or an exception: of httpx, or of httpx2."""


class Body(Enum):
    """What is to be done with the body of the last response."""

    THE_CALLERS = "the caller's"
    TO_READ = "to read"
    TO_DRAIN = "to drain"


class Exchange:
    """One request, its attempts so far, and what is to be done next.

    Attributes:
        family: httpx or httpx2.
        held: The latest outcome, which is the caller's or to be closed.
        last: The outcome before the one that is waited for.
        delay: How long to wait before the next attempt.
        ends_at: When the latest attempt has to be over.
    """

    # Not slots: what most exchanges never change needn't be set in each.
    _course: Course | None = None
    _stopped = ""
    _obstacle = ""
    _timeouts: Timeouts | None = None
    _judged: tuple[Outcome, bool] = (None, False)
    held: Outcome = None
    last: Outcome = None
    delay = 0.0
    ends_at = math.inf

    def __init__(self, settings: "Settings", request: Any, now: float) -> None:
        self.family = family = family_of(request)
        extensions = request.extensions
        self._settings = settings
        self._request = request
        self._policy = _policy_of(extensions, settings.retry)
        self._said = said_of(request, settings.criticality)
        self._origin = origin_of(request.url)
        self._read = extensions.get(READ, False)
        within = self._policy.deadline
        ends_at, self._explicit = in_force()
        self._deadline = ends_at if within is None else min(ends_at, now + within)
        self._began = now
        stream = request.stream
        plain = isinstance(stream, family.bytes_body)
        self._body = None if plain else family.sent_body(stream, rewinding(stream))
        self._attempts: list[Attempt] = []

    def enter(self, now: float) -> None:
        """Pay into the budget, and pass the throttle.

        Raises:
            BackPressureError: The throttle refused.
        """
        settings = self._settings
        if settings.budget is not None:
            settings.budget._deposit(self._request.url, now)
        if settings.throttle is not None and not settings.throttle._enter(self._origin, now):
            self._stopped = "throttle"
            self._leave_history()
            raise self.family.error(ThrottledError)(0, 0, "throttle", 1)

    def leave(self, now: float) -> None:
        """Tell the throttle, where there is one, what came of it."""
        throttle = self._settings.throttle
        if throttle is not None and getattr(self.held, "status_code", 0) not in TURNED_AWAY:
            throttle._accept(self._origin, now)

    def begin(self, now: float) -> Sending | None:
        """Begin an attempt; None where there can't be one, and `refused` is the outcome."""
        limit = self._policy.attempt_timeout
        remaining = self._deadline - now
        if limit is None or remaining < limit:
            limit = remaining
        if limit <= 0:
            self._obstacle = "deadline"
            return None
        breaker = self._settings.breaker
        circuit = BLOCKED if breaker is None else breaker._enter(self._origin, now)
        if circuit == BLOCKED and breaker is not None:
            self._obstacle = "breaker"
            return None
        self.ends_at = now + limit
        sending = Sending(self._request, now, limit, self.delay, circuit)
        retries = 0 if self._course is None else self._course.retries
        clock, propagate = self._settings.clock, self._settings.propagate_deadline
        differs = self._body is not None or self._said is not None or (retries and propagate)
        if differs or limit < math.inf:
            sending.prepare(clock, retries, self._body, propagate=propagate, criticality=self._said)
        return sending

    def refused(self, now: float) -> Outcome:
        """What an attempt comes to that can't begin: the outcome before, or why."""
        self._stopped = self._obstacle
        if self.last is not None:
            return self.last
        if self._stopped == "breaker":
            scheme, host, port = self._origin
            host = f"[{host}]" if ":" in host else host
            origin = f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"
            assert self._settings.breaker is not None  # noqa: S101 - for the type checker
            seconds = self._settings.breaker._blocked_for(self._origin, now)
            return self.family.error(CircuitOpenError)(origin, seconds)
        return self.family.connect_timeout("The deadline passed before anything was sent.")

    def has_body_to_read(self, sending: Sending, outcome: Outcome) -> bool:
        """Whether the attempt goes on, after this outcome, with the reading of the body."""
        self.held = outcome
        if isinstance(outcome, Exception):
            return False
        ends_at = sending.ends_at if self._read else self._explicit
        sending.body_may_take_until(ends_at, self._request.extensions)
        self.ends_at, self._timeouts = sending.ends_at, sending.timeouts
        return self._read and not self.is_failure(outcome)

    def may_be_drained(self, seconds: float) -> bool:
        """Before a body is read that nobody wants: a thread must not wait for it without end."""
        timeouts = self._timeouts
        if timeouts is None:
            timeouts = self._request.extensions.get("timeout", {})
            return timeouts.get("read") is not None
        read = timeouts["read"]
        timeouts["read"] = seconds if read is None else min(read, seconds)
        return True

    def late_body(self) -> Exception:
        """The error for a body that was not read before the deadline."""
        error: Exception = self.family.read_timeout("The deadline passed while the body was read.")
        return error

    def note(self, sending: Sending, outcome: Outcome, now: float) -> None:
        """An attempt is over, with this outcome."""
        self.held = outcome
        if isinstance(outcome, Exception):
            status, error = None, outcome
        else:
            status, error = outcome.status_code, None
        self._attempts.append(Attempt(status, error, now - sending.began, sending.delay))
        if sending.circuit != BLOCKED:
            breaker = self._settings.breaker
            assert breaker is not None  # noqa: S101 - for the type checker
            failed = self._is_the_servers(outcome)
            if failed is None:
                breaker._forget(self._origin, sending.circuit, now)
            else:
                breaker._leave(self._origin, sending.circuit, now, failed=failed)

    def cancelled(self, sending: Sending, now: float) -> None:
        """An attempt was cancelled, with no outcome."""
        self._attempts.append(Attempt(None, None, now - sending.began, sending.delay))
        if sending.circuit != BLOCKED and self._settings.breaker is not None:
            self._settings.breaker._forget(self._origin, sending.circuit, now)

    def is_failure(self, outcome: Outcome) -> bool:
        """Whether another attempt could do better."""
        if not isinstance(outcome, Exception):
            return outcome.status_code in self._policy.status_forcelist
        if isinstance(outcome, self.family.never_retried) or not self._attempts:
            return False
        if self._judged[0] is not outcome:  # the user's function is asked once
            is_retried = self._policy._is_retried(outcome, (self.family.transport_error,))
            self._judged = (outcome, is_retried)
        return self._judged[1]

    def is_tried_again(self, outcome: Outcome, clock: Callable[[], float]) -> bool:
        """Whether another attempt follows on this outcome, after `delay` seconds."""
        if isinstance(outcome, AlteredBodyError):
            self._stopped = "body"
        if self._stopped or not self.is_failure(outcome):
            return False
        now = clock()
        if self._course is None:
            self._course = self._begin_course()
        delay = self._course.failed(now, self._failure(outcome, now), lambda: self._pay(now))
        if delay is None:
            self._stopped = self._course.stopped or ""
            return False
        self.delay, self.last = delay, outcome
        # To drain a response comes before the wait, and must not shift that beyond the deadline.
        self.ends_at = min(self.ends_at, self._course.deadline - delay)
        self._tell(Event("retry", self._request, self._attempts[-1], delay))
        return True

    def _begin_course(self) -> Course:
        policy = self._policy

        def delay(n: int, retry_after: float | None, previous: float | None) -> float | None:
            return policy._delay_after(self.held, n, retry_after, previous)

        # What httpx's own timeouts leave of the time is not enough for another attempt.
        headway = min(MOST_HEADWAY, HEADWAY * (self._deadline - self._began))
        return Course(policy.total, self._deadline - headway, delay)

    def may_be_sent_twice(self) -> bool:
        """Whether the request may be sent twice at the same time."""
        return self._body is None and self._may_be_repeated()

    def hedge(self, now: float) -> Sending | None:
        """Begin to send it once more, if budget, breaker and deadline allow it."""
        breaker = self._settings.breaker
        if breaker is not None and breaker._blocked_for(self._origin, now):
            return None
        if now >= self._deadline or not self._pay(now):
            return None
        last = self._attempts[-1] if self._attempts else None
        self._tell(Event("hedge", self._request, last))
        return self.begin(now)

    def body_of(self, outcome: Outcome) -> Body:
        """What is to be done with the body of the last outcome, before it is given."""
        if isinstance(outcome, Exception):
            return Body.THE_CALLERS
        if self._settings.raise_on_exhausted and self.is_failure(outcome):
            return Body.TO_DRAIN
        if self._read:
            return Body.TO_READ
        if self._explicit < math.inf:
            body = self.family.timed_body
            outcome.stream = body(outcome.stream, self._explicit, self.late_body)
        return Body.THE_CALLERS

    def give(self, outcome: Outcome) -> Any:
        """Return the response, with its history, or raise the exception."""
        if isinstance(outcome, AlteredBodyError):
            outcome = self.last
        if not self._stopped:
            self._stopped = "error" if isinstance(outcome, Exception) else SUCCESS
        history = self._leave_history()
        if not isinstance(outcome, Exception):
            outcome.extensions["loadshed"] = history
        if self._stopped != SUCCESS or self._course is not None or len(self._attempts) > 1:
            attempt = self._attempts[-1] if self._attempts else None
            self._tell(Event("stop", self._request, attempt, stopped=self._stopped))
        if self._settings.raise_on_exhausted and self._is_exhausted(outcome):
            if isinstance(getattr(outcome, "stream", None), self.family.bytes_body):
                with suppress(Exception):  # if it can't be decoded
                    outcome.read()  # into its `content`: nobody is to close this response
            if not isinstance(outcome, Exception):
                outcome.request = self._request  # as the client does with those that it returns
            error = self.family.error(RetryError)(history.attempts, outcome)
            raise error from (outcome if isinstance(outcome, Exception) else None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _is_exhausted(self, outcome: Outcome) -> bool:
        """Whether it ended without success; the open breaker has an error of its own."""
        if isinstance(outcome, Exception):
            if isinstance(outcome, CircuitOpenError):
                return False
            if isinstance(outcome, self.family.transport_error):
                return True
        return self.is_failure(outcome)

    def _leave_history(self) -> History:
        history = History(tuple(self._attempts), self._stopped)
        self._request.extensions["loadshed"] = history
        return history

    def _tell(self, event: Event) -> None:
        tell(self._settings.on_event, event)

    def _pay(self, now: float) -> bool:
        budget = self._settings.budget
        return budget is None or budget._withdraw(self._origin, now)

    def _failure(self, outcome: Outcome, now: float) -> Failure:
        obstacle = None
        if not (self._may_be_repeated() or isinstance(outcome, self.family.unsent)):
            obstacle = "method"
        elif self._body is not None and not self._body.repeatable:
            obstacle = "body"
        retry_after = None if isinstance(outcome, Exception) else _retry_after(outcome)
        breaker = self._settings.breaker
        blocked_for = 0.0 if breaker is None else breaker._blocked_for(self._origin, now)
        return Failure(obstacle, retry_after, blocked_for)

    def _may_be_repeated(self) -> bool:
        allowed = self._policy.allowed_methods
        request = self._request
        return allowed is None or request.method in allowed or "idempotency-key" in request.headers

    def _is_the_servers(self, outcome: Outcome) -> bool | None:
        """Whether the breaker takes it for a failure; None where it says nothing of the server."""
        if not isinstance(outcome, Exception):
            status = outcome.status_code
            return status != TOO_MANY_REQUESTS and status in self._policy.status_forcelist
        if isinstance(outcome, self.family.never_retried):
            return None
        return True if isinstance(outcome, self.family.transport_error) else None


def wants_another(exchange: Exchange, state: RetryCallState, clock: Callable[[], float]) -> bool:
    """Whether tenacity's loop goes on after what it has called."""
    outcome = state.outcome
    assert outcome is not None  # noqa: S101 - for the type checker
    # What failed is no Exception but a cancellation: it goes on its way.
    return not outcome.failed and exchange.is_tried_again(outcome.result(), clock)


def late(request: Any, limit: float) -> Exception:
    """The error for an attempt that took longer than it may."""
    message = f"The attempt was given up: no answer in {limit:.3f} s."
    error: Exception = family_of(request).read_timeout(message)
    return error


def _policy_of(extensions: Any, otherwise: Retry) -> Retry:
    """The request's own policy, if it has one, or the transport's."""
    policy = extensions.get("retry")
    if policy is None:
        return otherwise
    if not isinstance(policy, Retry):
        raise ConfigError('extensions["retry"]', policy, "a loadshed.client.Retry")
    return policy


def _retry_after(response: Any) -> float | None:
    value = response.headers.get("retry-after")
    if value is None:
        return None
    now = _clock.wall_time()
    # The server's own clock, where it tells it: a date says nothing to a clock that is wrong.
    date = parse_date(response.headers.get("date", ""), now)
    return parse_retry_after(value, now if date is None else date)
