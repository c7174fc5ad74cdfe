"""Permit: the right to run one request, until it is released."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from loadshed._outcome import was_of_use

if TYPE_CHECKING:
    from loadshed._limiter import ConcurrencyLimiter
    from loadshed._waiter import Waiter


class Permit:
    """The right to run one request, until it is released.

    ```python
    permit = await limiter.acquire()
    try:
        ...
    finally:
        permit.release()
    ```

    or, which is the same, `with await limiter.acquire(): ...`.

    A limit that adapts itself learns from how long permits were held, and whether that was of any
    use. It was not where the block ends by a cancellation, a `TimeoutError`, or an error that says
    that something else is overloaded (`BackPressureError`); what only the caller knows it says by
    `overloaded` and `ignore`, before the permit is released.
    """

    __slots__ = ("_limiter", "_released")

    def __init__(self, limiter: "ConcurrencyLimiter") -> None:
        self._limiter = limiter
        self._released = False

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._released

    def overloaded(self) -> None:
        """Say that the work was in vain, and that less at once would have helped.

        It timed out, say, or what it asked for said that it is overloaded. The permit is held until
        it is released.
        """

    def ignore(self) -> None:
        """Say that nothing can be learnt from this request: a health check, say.

        The permit is held until it is released.
        """

    def release(self) -> None:
        """Give it back. Never waits; more than once is as good as once."""
        if not self._released:
            self._released = True
            self._limiter._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "released" if self._released else "held"
        return f"<Permit {state} of {self._limiter!r}>"


class TicketedPermit(Permit):
    """A permit with a ticket: of a limiter that learns, or for more than one slot."""

    __slots__ = ("_ok", "_waiter")

    def __init__(self, limiter: "ConcurrencyLimiter", waiter: "Waiter") -> None:
        self._limiter = limiter
        self._released = False
        self._waiter = waiter
        self._ok: bool | None = True

    def overloaded(self) -> None:
        self._ok = False

    def ignore(self) -> None:
        self._ok = None

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._limiter._release(self._waiter, self._ok)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ok and exc is not None:
            self._ok = was_of_use(exc)
        self.release()


class Held:
    """A permit for the length of a call, wherever that is begun and wherever it ends."""

    __slots__ = ("_limiter", "_permit")

    _permit: Permit

    def __init__(self, limiter: "ConcurrencyLimiter") -> None:
        self._limiter = limiter

    async def __aenter__(self) -> None:
        self._permit = await self._limiter.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._permit.__exit__(exc_type, exc, traceback)
