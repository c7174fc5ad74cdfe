"""The client of a service that may be overloaded: it tries again, and never makes a storm of it.

- `Client`, `AsyncClient`: httpx's, with the policy on.
- `RetryTransport`, `AsyncRetryTransport`: the same for any client of httpx or httpx2.
- `retry`: for any function.
- `Retry`: the policy; `RetryBudget`, the bound on all retries together.
- `deadline`: a limit for everything in a block; `criticality`: how much all in a block matters.
- `CircuitBreaker`, `Hedge`, `AdaptiveThrottle`: off unless they are given.

What came of a request's attempts is in `response.extensions["loadshed"]`, a `History`.
"""

from typing import TYPE_CHECKING

from loadshed._lazy import importing
from loadshed._policy.course import Attempt, History
from loadshed.client._client import Client
from loadshed.client._criticality import criticality
from loadshed.client._deadline import deadline
from loadshed.client._events import Event
from loadshed.client._function import retry
from loadshed.client._guards import AdaptiveThrottle, CircuitBreaker, Hedge, RetryBudget
from loadshed.client._retry import Retry
from loadshed.client._transport import RetryTransport

if TYPE_CHECKING:
    from loadshed.client._async_client import AsyncClient
    from loadshed.client._async_transport import AsyncRetryTransport

__all__ = [
    "AdaptiveThrottle",
    "AsyncClient",
    "AsyncRetryTransport",
    "Attempt",
    "CircuitBreaker",
    "Client",
    "Event",
    "Hedge",
    "History",
    "Retry",
    "RetryBudget",
    "RetryTransport",
    "criticality",
    "deadline",
    "retry",
]


__getattr__ = importing(
    globals(),
    {
        "AsyncClient": "loadshed.client._async_client",
        "AsyncRetryTransport": "loadshed.client._async_transport",
    },
)


def __dir__() -> list[str]:
    return __all__
