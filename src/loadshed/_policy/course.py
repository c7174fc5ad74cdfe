"""The course of one request: what came of it so far, and whether it is tried again."""

from collections.abc import Callable
from typing import NamedTuple

SUCCESS = "success"


class Attempt(NamedTuple):
    """One attempt at a request.

    Attributes:
        status: The status of the response; None where there was none, or where it is not of HTTP.
        error: The exception that it ended with; None where there was none. A request's attempt that
            has neither was cancelled: it lost a race of hedges.
        elapsed: Seconds from its start to its end.
        delay: Seconds for which it was waited before it.
    """

    status: int | None
    error: Exception | None
    elapsed: float
    delay: float


class History(NamedTuple):
    """What became of a request: `response.extensions["loadshed"]`.

    Attributes:
        attempts: Every attempt, in the order in which they ended.
        stopped: Why there was no other: "success", or "total", "deadline", "budget", "method",
            "body", "retry_after", "breaker" where it failed and might have been tried again, or
            "error" for a failure that is never repeated. A request that the throttle refused has
            no attempts, and "throttle".
    """

    attempts: tuple[Attempt, ...]
    stopped: str


class Failure(NamedTuple):
    """An attempt that failed in a way in which another may succeed.

    Attributes:
        obstacle: Why it must not be repeated all the same: "method", "body"; None where it may.
        retry_after: Seconds that the server asked to be left alone for.
        blocked_for: Seconds until the breaker lets a request pass.
    """

    obstacle: str | None = None
    retry_after: float | None = None
    blocked_for: float = 0.0


class Course:
    """Decides after each failure whether and when there is another attempt.

    >>> course = Course(total=1, deadline=10.0, delay=lambda n, retry_after, previous: 2.0 * n)
    >>> course.failed(now=0.0, failure=Failure(), pay=lambda: True)
    2.0
    >>> course.failed(now=2.0, failure=Failure(), pay=lambda: True), course.stopped
    (None, 'total')

    Args:
        total: How many retries there may be.
        deadline: The time at which all is over; `math.inf` is never.
        delay: The wait before a retry, from its number, what Retry-After asked for, and the wait
            before the one before; None where that is more than anybody waits.

    Attributes:
        retries: How many retries were begun, or are waited for.
        wait: How long the last wait was.
        stopped: Why there is no other attempt, once there is none.
    """

    __slots__ = ("_delay", "deadline", "retries", "stopped", "total", "wait")

    def __init__(
        self,
        total: float,
        deadline: float,
        delay: Callable[[int, float | None, float | None], float | None],
    ) -> None:
        self.total = total
        self.deadline = deadline
        self._delay = delay
        self.retries = 0
        self.wait = 0.0
        self.stopped: str | None = None

    def failed(self, now: float, failure: Failure, pay: Callable[[], bool]) -> float | None:
        """An attempt failed: how long to wait before the next, or None, and `stopped` says why.

        Args:
            now: The time.
            failure: What is known of it.
            pay: Takes a retry out of the budget, if there is one. It comes last, so that nothing
                is paid for a retry that does not happen for another reason.
        """
        if failure.obstacle is not None or self.retries >= self.total:
            self.stopped = failure.obstacle or "total"
            return None
        number = self.retries + 1
        wait = self._delay(number, failure.retry_after, self.wait if self.retries else None)
        if wait is None:
            self.stopped = "retry_after"
        elif now + wait >= self.deadline:
            self.stopped = "deadline"
        elif failure.blocked_for > wait:
            self.stopped = "breaker"
        elif not pay():
            self.stopped = "budget"
        else:
            self.retries, self.wait = number, wait
            return wait
        return None
