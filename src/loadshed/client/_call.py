"""One call of a decorated function on its way through its attempts. It decides; `retry` acts."""

import math
from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState

from loadshed._errors import BackPressureError, RetryError
from loadshed._policy.course import SUCCESS, Attempt, Course, Failure
from loadshed.client._deadline import in_force
from loadshed.client._events import Event, OnEvent, tell
from loadshed.client._guards import RetryBudget
from loadshed.client._retry import Retry


class Retried:
    """A decorated function."""

    def __init__(
        self,
        function: Callable[..., Any],
        policy: Retry,
        budget: RetryBudget | None,
        raise_on_exhausted: bool,
        on_event: OnEvent | None,
    ) -> None:
        self.function = function
        self.policy = policy
        self.budget = budget
        self.raise_on_exhausted = raise_on_exhausted
        self.on_event = on_event
        self.deadline = math.inf if policy.deadline is None else policy.deadline


class Raised:
    """An exception that a call came to, told apart from one that it returned."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Call:
    """One call of a decorated function, and its attempts."""

    def __init__(self, retried: Retried, now: Callable[[], float]) -> None:
        self.delay = 0.0
        self._retried = retried
        self._now = now
        self._attempts: list[Attempt] = []
        self._course: Course | None = None
        self._stopped = ""
        self._last: Exception | None = None
        self._began = now()
        if retried.budget is not None:
            retried.budget._deposit(None, self._began)

    def begin(self) -> float:
        """Begin an attempt: the seconds that it has, at most 0 if there can't be one."""
        self._began = self._now()
        remaining = in_force().ends_at - self._began
        if remaining <= 0:
            self._stopped = "deadline"
        limit = self._retried.policy.attempt_timeout
        return remaining if limit is None else min(limit, remaining)

    def too_late(self) -> Raised:
        """What it comes to if there can't be another attempt: the last failure, if there is one."""
        if self._last is None:
            return Raised(TimeoutError("The deadline passed before the call."))
        return Raised(self._last)

    def failed(self, error: Exception) -> Raised:
        """An attempt came to an exception."""
        now = self._now()
        self._attempts.append(Attempt(None, error, now - self._began, self.delay))
        return Raised(error)

    def is_tried_again(self, state: RetryCallState) -> bool:
        """Whether another attempt follows, after `delay` seconds."""
        assert state.outcome is not None  # noqa: S101 - for the type checker
        if state.outcome.failed:
            return False  # no Exception, but a cancellation
        outcome = state.outcome.result()
        if not isinstance(outcome, Raised):
            self._attempts.append(Attempt(None, None, self._now() - self._began, self.delay))
            self._stopped = SUCCESS
        if self._stopped:
            return False
        delay = self._delay_after(outcome.error)
        if delay is None:
            return False
        self.delay, self._last = delay, outcome.error
        self._tell(Event("retry", self._retried.function, self._attempts[-1], delay))
        return True

    def _delay_after(self, error: Exception) -> float | None:
        policy = self._retried.policy
        if not (isinstance(error, BackPressureError) or policy._is_retried(error, ())):
            self._stopped = "error"
            return None
        if self._course is None:
            self._course = Course(policy.total, in_force().ends_at, self._delay)
        self._last = error
        retry_after = error.retry_after if isinstance(error, BackPressureError) else None
        now = self._now()
        delay = self._course.failed(now, Failure(retry_after=retry_after), lambda: self._pay(now))
        self._stopped = self._course.stopped or ""
        return delay

    def _delay(self, n: int, retry_after: float | None, previous: float | None) -> float | None:
        return self._retried.policy._delay_after(self._last, n, retry_after, previous)

    def _pay(self, now: float) -> bool:
        budget = self._retried.budget
        return budget is None or budget._withdraw(None, now)

    def given(self, outcome: Any) -> Any:
        """The result for the caller, or the exception raised."""
        attempt = self._attempts[-1] if self._attempts else None
        self._tell(Event("stop", self._retried.function, attempt, stopped=self._stopped))
        if not isinstance(outcome, Raised):
            return outcome
        if self._retried.raise_on_exhausted and self._stopped != "error":
            raise RetryError(tuple(self._attempts), outcome.error) from outcome.error
        raise outcome.error

    def _tell(self, event: Event) -> None:
        tell(self._retried.on_event, event)
