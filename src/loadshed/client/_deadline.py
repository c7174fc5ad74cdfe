"""`with deadline(2.0):`, the end-to-end limit of what is done in the block."""

import math
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import NamedTuple, Self

from loadshed._clock import SharedClock
from loadshed._policy.settings import number


class Bound(NamedTuple):
    """When what is done has to be done, as `SharedClock` counts."""

    ends_at: float
    """For everything but the body of a streamed response."""
    explicit: float
    """For that too: only what the user wrote as `deadline` bounds it."""


UNBOUNDED = Bound(math.inf, math.inf)


class CallBound(Bound):
    """The bound of one call, which ends with the call, also for tasks that it has started.

    Those have a copy of the context. What a user writes as `deadline` holds for them, but nobody
    has asked for this one.
    """

    outer: Bound
    over = False


bound: ContextVar[Bound] = ContextVar("loadshed.deadline", default=UNBOUNDED)


class deadline:
    """All that is sent, or retried, in the block has to be done within so many seconds.

    ```python
    with deadline(2.0):
        user = await client.get(f"/users/{name}")
        orders = await client.get("/orders", params={"user": name})
    ```

    It bounds attempts, waits and the reading of bodies, those of streamed responses too, by
    raising `httpx.ReadTimeout`, and `TimeoutError` from an async function decorated with `retry`.
    It does not interrupt what else is done in the block. Of several around each other the one that
    ends first counts. What the block starts (tasks, and threads that copy the context) has the
    same deadline. The server is told of it, in `x-request-timeout-seconds`.

    Args:
        seconds: How many. 0 is over already.

    Raises:
        ConfigError: It is not a number >= 0.
    """

    __slots__ = ("_ends_at", "_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = number("seconds", seconds, at_least=0, infinite=True)
        self._ends_at = math.inf
        self._token: Token[Bound] | None = None

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("This deadline is in use: make one for each block.")
        self._ends_at = SharedClock().now() + self._seconds
        outer = in_force()
        inner = Bound(min(outer.ends_at, self._ends_at), min(outer.explicit, self._ends_at))
        self._token = bound.set(inner)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None  # noqa: S101 - for the type checker
        reset(self._token)
        self._token = None

    def remaining(self) -> float:
        """Seconds that are left of it, 0 if none are; before the block, all of them."""
        if self._token is None:
            return self._seconds
        return max(0.0, self._ends_at - SharedClock().now())

    def __repr__(self) -> str:
        return f"<deadline {self.remaining():.3f} of {self._seconds} s left>"


def within(seconds: float, now: float) -> Token[Bound]:
    """A deadline of the library's own, for all that one call does; `reset` ends it."""
    outer = in_force()
    inner = CallBound(min(outer.ends_at, now + seconds), outer.explicit)
    inner.outer = outer
    return bound.set(inner)


def in_force() -> Bound:
    """The bound of what is done now."""
    inner = bound.get()
    while isinstance(inner, CallBound) and inner.over:
        inner = inner.outer
    return inner


def reset(token: Token[Bound]) -> None:
    """End what was set with this token."""
    # A generator may be left in another context than it was entered in, where nothing was set: a
    # dependency of FastAPI's, for one, that is not async and yields.
    inner = bound.get()
    if isinstance(inner, CallBound):
        inner.over = True
    with suppress(ValueError):
        bound.reset(token)
