"""`retry` for functions, with the policy and the budget of the clients."""

import functools
import inspect
from collections.abc import Callable
from types import EllipsisType
from typing import Any, ParamSpec, TypeVar, overload

from tenacity import Retrying

from loadshed import _clock
from loadshed._around import is_async
from loadshed._errors import ConfigError
from loadshed.client._call import Call, Raised, Retried
from loadshed.client._deadline import reset, within
from loadshed.client._events import OnEvent, checked_on_event
from loadshed.client._guards import RetryBudget
from loadshed.client._retry import Retry

P = ParamSpec("P")
R = TypeVar("R")


@overload
def retry(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def retry(
    policy: Retry | None = None,
    /,
    *,
    budget: RetryBudget | EllipsisType | None = ...,
    raise_on_exhausted: bool = False,
    on_event: OnEvent | None = None,
    **settings: Any,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def retry(
    function_or_policy: Any = None,
    /,
    *,
    budget: RetryBudget | EllipsisType | None = ...,
    raise_on_exhausted: bool = False,
    on_event: OnEvent | None = None,
    **settings: Any,
) -> Any:
    """Call a function again when it fails, async or not.

    ```python
    @retry(total=3, retry_on=(OSError,))
    async def read_the_sensor(): ...
    ```

    `BackPressureError`, by which a limiter says that nothing was done, is always tried again, and
    not before its `retry_after`; other exceptions where `retry_on` says so. What of a policy is
    about HTTP (`status_forcelist`, `allowed_methods`) has no meaning here. When it is over, the
    last exception is raised as it is.

    An async function is cancelled after `attempt_timeout` seconds, with `TimeoutError`, which is
    tried again if `retry_on` has it. A function that is not async can't be interrupted: its
    `attempt_timeout` has to be None, and is, if the policy is spelled out in the decorator and
    says nothing of it.

    Args:
        function_or_policy: A function, where it is used as `@retry`; or a `Retry`.
        budget: A bound on all retries, to share it; None is none. By default one for each function.
        raise_on_exhausted: Whether to raise `RetryError`, which has all attempts.
        on_event: Called with an `Event` for each retry and at the end of each failure.
        settings: Those of a `Retry`, in the place of one.

    Raises:
        ConfigError: A setting is not what it may be.
        TypeError: It is not a function, or one that yields.
    """
    policy = function_or_policy if isinstance(function_or_policy, Retry) else None
    if policy is not None and settings:
        name, value = next(iter(settings.items()))
        raise ConfigError(name, value, "left out where a policy is given")
    options = _Options(policy, settings, budget, raise_on_exhausted, checked_on_event(on_event))
    if function_or_policy is None or policy is not None:
        return options.around
    return options.around(function_or_policy)


class _Options:
    """What `retry` was given."""

    def __init__(
        self,
        policy: Retry | None,
        settings: dict[str, Any],
        budget: RetryBudget | EllipsisType | None,
        raise_on_exhausted: bool,
        on_event: OnEvent | None,
    ) -> None:
        if not (isinstance(budget, RetryBudget | EllipsisType) or budget is None):
            raise ConfigError("budget", budget, "a RetryBudget, or None")
        self.policy = policy
        self.settings = settings
        if policy is None:
            Retry(**settings)  # a mistake is told of where it is made
        self.budget = budget
        self.raise_on_exhausted = raise_on_exhausted
        self.on_event = on_event

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(function, staticmethod | classmethod):
            raise TypeError(
                f"{function!r}: on a class or static method the line of retry goes below the "
                f"other decorator's."
            )
        if not callable(function):
            raise TypeError(f"retry takes a function, or a Retry, not {function!r}")
        call = getattr(type(function), "__call__", function)  # noqa: B004 - to look at, not to call
        for each in (function, call):
            if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
                raise TypeError(f"{function!r} yields: what it has yielded can't be taken back")
        if is_async(function):
            # Here, as a program that is not async needs no event loop library.
            from loadshed.client._async_function import around_async  # noqa: PLC0415

            return around_async(function, self.retried(function, asynchronous=True))
        return _around_sync(function, self.retried(function, asynchronous=False))

    def retried(self, function: Callable[..., Any], *, asynchronous: bool) -> "Retried":
        policy = self.policy
        if policy is None:
            own = {} if asynchronous else {"attempt_timeout": None}
            policy = Retry(**(own | self.settings))
        if policy.attempt_timeout is not None and not asynchronous:
            expected = (
                f"None, as by `dataclasses.replace(policy, attempt_timeout=None)`: {function!r} is "
                f"not async, and can't be interrupted"
            )
            raise ConfigError("attempt_timeout", policy.attempt_timeout, expected)
        budget = RetryBudget() if isinstance(self.budget, EllipsisType) else self.budget
        return Retried(function, policy, budget, self.raise_on_exhausted, self.on_event)


def _around_sync(function: Callable[..., Any], retried: Retried) -> Callable[..., Any]:
    @functools.wraps(function)
    def calling(*args: Any, **kwargs: Any) -> Any:
        call = Call(retried, _clock.thread_time)

        def attempt() -> Any:
            if call.begin() <= 0:
                return call.too_late()
            try:
                result = function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the policy says what follows
                return call.failed(error)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError(f"{function!r} returned a coroutine: make it an async function.")
            return result

        token = within(retried.deadline, _clock.thread_time())
        try:
            outcome = attempt()
            if isinstance(outcome, Raised):
                outcomes = [outcome]
                loop = Retrying(
                    sleep=_clock.thread_sleep,
                    wait=lambda _: call.delay,
                    retry=call.is_tried_again,
                )
                outcome = loop(lambda: outcomes.pop() if outcomes else attempt())
                return call.given(outcome)
            return outcome
        finally:
            reset(token)

    return calling
