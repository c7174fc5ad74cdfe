"""What callers that are shed are told, and what the log is told of them."""

import logging
import math
from typing import Any, TypeVar

from loadshed._errors import BackPressureError, QueueFullError, QueueTimeoutError
from loadshed._policy.admission import Admission
from loadshed._policy.retry_after import RetryAfter

ErrorT = TypeVar("ErrorT", bound=BackPressureError)

VALID = 0.1
"""Seconds for which the answer to one shed caller serves the next ones too, unless the queue's
length changes: sheds come by the thousand, and each has to be cheap."""

_logger = logging.getLogger("loadshed")

# `QueueFullError(...)` without its `__init__`, which checks nothing and takes longer than the rest.
_new = QueueFullError.__new__


class Sheds:
    """Makes the errors of one limiter.

    Args:
        name: The limiter's, for the log.

    Attributes:
        retry_after: The policy behind `BackPressureError.retry_after`.
    """

    __slots__ = ("_again", "_answer", "_log", "_queued", "_since", "_until", "retry_after")

    def __init__(self, name: str | None) -> None:
        self.retry_after = RetryAfter()
        self._log = _ShedLog(name)
        self._answer = 1
        self._queued = 0
        self._since = self._until = -math.inf  # when the answer holds
        self._again = 0  # sheds that got the answer since it was found

    def on_arrival(
        self, admission: Admission[Any], time: float, reason: str = "queue_full"
    ) -> QueueFullError:
        """The error for a request that has just been shed on arrival."""
        line = admission.line
        queued = len(line.entries)
        if self._since <= time < self._until and queued == self._queued:
            self._again += 1
            return _new(QueueFullError, queued, line.bound, reason, self._answer)
        answer = self._find_answer(admission, queued, time)
        return self._note(QueueFullError(queued, line.bound, reason, answer), time)

    def from_queue(
        self, admission: Admission[Any], time: float, reason: str, max_wait: float | None
    ) -> QueueTimeoutError:
        """The error for a request that has just been shed from the queue."""
        line = admission.line
        queued = len(line.entries)
        answer = self._find_answer(admission, queued, time)
        error = QueueTimeoutError(queued, line.bound, reason, answer, max_wait)
        return self._note(error, time)

    def _find_answer(self, admission: Admission[Any], queued: int, time: float) -> int:
        self._answer = self.retry_after.shed(time, queued, admission.completed, earlier=self._again)
        self._queued = queued
        return self._answer

    def _note(self, error: ErrorT, time: float) -> ErrorT:
        self._log.write(error, time, earlier=self._again)
        self._again = 0
        self._since = time
        # Each second is counted by itself, and the log may have its next line.
        self._until = min(time + VALID, math.floor(time) + 1, self._log.silent_until)
        return error


class _ShedLog:
    """At most one line a second: those in between are counted, and told in the next."""

    __slots__ = ("_name", "_untold", "_written_at", "silent_until")

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._written_at = self.silent_until = -math.inf
        self._untold = 0

    def write(self, error: BackPressureError, time: float, *, earlier: int) -> None:
        """Tell of `error`, and of so many more before it; or only count them."""
        self._untold += earlier
        # Time goes back where the limiter moves on to an event loop with another clock.
        if self._written_at <= time < self.silent_until:
            self._untold += 1
            return
        name = "" if self._name is None else f" Limiter: {self._name!r}."
        more = f" {self._untold} more since the last such line." if self._untold else ""
        _logger.warning("%s%s%s", error, name, more)
        self._written_at, self.silent_until = time, time + 1
        self._untold = 0
