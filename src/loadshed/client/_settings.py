"""What a transport is made with, and the short way of a request that succeeds at once."""

import math
from collections.abc import Callable
from types import EllipsisType
from typing import Any

from loadshed._errors import ConfigError
from loadshed._policy.criticality import A_CLASS, Criticality, criticality_of
from loadshed.client._events import OnEvent, checked_on_event
from loadshed.client._guards import AdaptiveThrottle, CircuitBreaker, Hedge, RetryBudget
from loadshed.client._retry import Retry
from loadshed.client._sending import READ, Sending


class Settings:
    """What both transports are made with."""

    def __init__(
        self,
        *,
        retry: Retry | None,
        budget: RetryBudget | EllipsisType | None,
        breaker: CircuitBreaker | None,
        throttle: AdaptiveThrottle | None,
        hedge: Hedge | None,
        raise_on_exhausted: bool,
        propagate_deadline: bool,
        criticality: Criticality | str | None,
        on_event: OnEvent | None,
        clock: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.retry: Retry = _checked("retry", Retry() if retry is None else retry, Retry)
        self.budget: RetryBudget | None = (
            RetryBudget()
            if isinstance(budget, EllipsisType)
            else _checked("budget", budget, RetryBudget, or_none=True)
        )
        self.breaker = _checked("breaker", breaker, CircuitBreaker, or_none=True)
        self.throttle = _checked("throttle", throttle, AdaptiveThrottle, or_none=True)
        self.hedge = _checked("hedge", hedge, Hedge, or_none=True)
        self.raise_on_exhausted = _checked("raise_on_exhausted", raise_on_exhausted, bool)
        self.propagate_deadline = _checked("propagate_deadline", propagate_deadline, bool)
        self.criticality = (
            None
            if criticality is None
            else criticality_of("criticality", criticality, f"{A_CLASS}, or None")
        )
        self.on_event = checked_on_event(on_event)
        self.pending = None if self.budget is None else self.budget._pending
        self.statuses = self.retry.status_forcelist
        guards = (self.breaker, self.throttle, self.hedge)
        self.is_guarded = any(guard is not None for guard in guards)
        limits = (self.retry.attempt_timeout, self.retry.deadline)
        self.limit = min(math.inf if limit is None else limit for limit in limits)

    def pay_in(self) -> None:
        """Let the budget take in what has come together."""
        assert self.budget is not None  # noqa: S101 - for the type checker
        self.budget._pay_in()


def is_streamed(sending: Sending | None, request: Any) -> bool:
    """Whether the body of a response is left to the caller, who has httpx's timeout for it."""
    if request.extensions.get(READ):
        return False
    if sending is not None:
        sending.body_may_take_until(math.inf, request.extensions)
    return True


def _checked(setting: str, value: Any, kind: type, *, or_none: bool = False) -> Any:
    if isinstance(value, kind) or (or_none and value is None):
        return value
    what = "True or False" if kind is bool else f"a {kind.__name__}"
    raise ConfigError(setting, value, f"{what}, or None" if or_none else what)
