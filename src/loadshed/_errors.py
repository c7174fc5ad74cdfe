"""Every error that loadshed raises.

```
LoadShedError
├── BackPressureError             there is no room: come back after `retry_after` seconds
│   ├── QueueFullError            shed on arrival
│   └── QueueTimeoutError         shed after waiting `max_wait`, or until its deadline
├── RetryError                    every attempt failed; carries them
├── CircuitOpenError              the client's breaker is open: nothing was sent
├── RequestTimeoutError           `request_timeout_s` passed
├── ReplicaError                  a replica could not serve
│   ├── ReplicaDiedError          it died with this request in flight
│   ├── ReplicaUnavailableError   none can be started, or the pool is closed
│   └── NotPicklableError         (a TypeError too) a value can't be sent to a replica, or back
└── ConfigError                   (a ValueError too) a setting is wrong
```

The attributes carry the facts and the message says what to do about them. All of them can be
pickled, so that they cross process boundaries whole.
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "BackPressureError",
    "CircuitOpenError",
    "ConfigError",
    "LoadShedError",
    "NotPicklableError",
    "QueueFullError",
    "QueueTimeoutError",
    "ReplicaDiedError",
    "ReplicaError",
    "ReplicaUnavailableError",
    "RequestTimeoutError",
    "RetryError",
]


class LoadShedError(Exception):
    """The base of every error of this library."""


class BackPressureError(LoadShedError):
    """The request was turned away because there was no room for it.

    Nothing of what the limiter protects was done, so that is safe to ask for again, once
    `retry_after` seconds are over.
    """

    def __init__(
        self,
        num_queued_requests: int = 0,
        max_queued_requests: float = 0,
        reason: str = "queue_full",
        retry_after: int = 1,
    ) -> None:
        # The facts live in `args`, which Python pickles and copies with the exception, and which
        # costs nothing more to set: a shed has to be cheap.
        self.args = (num_queued_requests, max_queued_requests, reason, retry_after)

    @property
    def num_queued_requests(self) -> int:
        """How many requests were waiting when this one was shed."""
        return self.args[0]  # type: ignore[no-any-return]

    @property
    def max_queued_requests(self) -> float:
        """How many may wait; `math.inf` where there is no bound."""
        return self.args[1]  # type: ignore[no-any-return]

    @property
    def reason(self) -> str:
        """Why, in a word that metrics can count.

        "queue_full", "queue_timeout", "deadline", "displaced", "loop_lag"; from a client's own
        throttle, "throttle".
        """
        return self.args[2]  # type: ignore[no-any-return]

    @property
    def retry_after(self) -> int:
        """Whole seconds after which trying again is worthwhile, 1 to 32."""
        return self.args[3]  # type: ignore[no-any-return]

    def __str__(self) -> str:
        queued, most, reason, *_ = self.args
        return (
            "Request dropped due to backpressure "
            f"(num_queued_requests={queued}, max_queued_requests={most}{_why(reason)})."
        )


class QueueFullError(BackPressureError):
    """The queue was full when the request arrived, or it would have had to wait and must not.

    With the reason "deadline": its caller's deadline had passed, or would have passed before its
    turn came. With the reason "displaced": it waited, and has lost its place to another one that
    goes first. With the reason "loop_lag": the event loop has more to do than it gets done.
    """


class QueueTimeoutError(BackPressureError):
    """The request waited `max_wait` seconds in the queue and its turn did not come.

    With the reason "deadline": its caller's deadline passed first.
    """

    def __init__(
        self,
        num_queued_requests: int = 0,
        max_queued_requests: float = 0,
        reason: str = "queue_timeout",
        retry_after: int = 1,
        max_wait: float | None = None,
    ) -> None:
        super().__init__(num_queued_requests, max_queued_requests, reason, retry_after)
        self.args = (*self.args, max_wait)

    @property
    def max_wait(self) -> float | None:
        """How many seconds it was allowed to wait, by the limiter or by its caller's deadline."""
        return self.args[4]  # type: ignore[no-any-return]

    def __str__(self) -> str:
        queued, most, reason, _, max_wait = self.args
        return (
            "Request dropped due to backpressure "
            f"(num_queued_requests={queued}, max_queued_requests={most}, "
            f"max_wait={max_wait}{_why(reason)})."
        )


class RetryError(LoadShedError):
    """Retrying ended without success, and the caller asked to be told by an exception.

    Attributes:
        history: The attempts, oldest first.
        last: What the last attempt came to: a response, or an exception.
    """

    def __init__(self, history: Sequence[Any] = (), last: Any = None) -> None:
        self.args = (history, last)
        self.history = tuple(history)
        self.last = last

    def __str__(self) -> str:
        return f"No success after {len(self.history)} attempts; the last one: {self.last!r}."


class CircuitOpenError(LoadShedError):
    """The client's circuit breaker is open: the request was not sent.

    Attributes:
        origin: Where it was to be sent.
        retry_after: Seconds until the breaker lets a request through.
    """

    def __init__(self, origin: str = "", retry_after: float = 0.0) -> None:
        self.args = (origin, retry_after)
        self.origin = origin
        self.retry_after = retry_after

    def __str__(self) -> str:
        to = f" to {self.origin}" if self.origin else ""
        return (
            f"The circuit breaker is open, and the request{to} was not sent. "
            f"Try again in {self.retry_after:.1f} s."
        )


class RequestTimeoutError(LoadShedError):
    """The request was not done within `request_timeout_s`, waiting in the queue included.

    Attributes:
        request_timeout_s: How many seconds it had, by the setting or by its caller's deadline.
    """

    def __init__(self, request_timeout_s: float) -> None:
        super().__init__(request_timeout_s)
        self.request_timeout_s = request_timeout_s

    def __str__(self) -> str:
        return f"Request not done within request_timeout_s={self.request_timeout_s}."


class ReplicaError(LoadShedError):
    """A replica could not serve the request."""


class ReplicaDiedError(ReplicaError):
    """The replica died with this request in flight; whether it was done is not known."""


class ReplicaUnavailableError(ReplicaError):
    """No replica can be started; the message carries the traceback of the last try."""


class NotPicklableError(ReplicaError, TypeError):
    """An argument, or a result, can't be sent between processes; the message says which and why."""


class ConfigError(LoadShedError, ValueError):
    """A setting is wrong.

    Attributes:
        setting: Its name.
        value: What it was.
        expected: What it may be.
    """

    def __init__(self, setting: str, value: object, expected: str) -> None:
        super().__init__(setting, value, expected)
        self.setting = setting
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.setting} must be {self.expected}, not {self.value!r}."


def _why(reason: str) -> str:
    """What the message says more, where its numbers don't say why."""
    return f", reason={reason}" if reason in {"deadline", "displaced", "loop_lag"} else ""
