"""TimeLimit: `request_timeout_s` for a request with pauses that are none of its own."""

import math
from types import TracebackType

import anyio

from loadshed._errors import RequestTimeoutError


class TimeLimit:
    """Ends a block when the time is over that began when this was made.

    It can be entered again and again. What is done between the blocks can't be ended, so that may
    be left to somebody else: the consumer of a generator.

    Args:
        seconds: How long; None is for ever.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._deadline = math.inf if seconds is None else anyio.current_time() + seconds
        self._scope = anyio.CancelScope()

    def __enter__(self) -> None:
        self._scope = anyio.CancelScope(deadline=self._deadline)
        self._scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        ended = self._scope.__exit__(exc_type, exc, traceback)
        if self._scope.cancelled_caught and self._seconds is not None:
            raise RequestTimeoutError(self._seconds)
        return ended
