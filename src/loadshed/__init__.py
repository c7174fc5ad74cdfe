"""Overload protection for Python services.

Bound what runs, bound what waits, turn the rest away at once.

- `ConcurrencyLimiter`: around a block, a function or a generator; `Permit` is what it gives.
- `BoundedQueue`: a queue between tasks that never grows beyond its bound.
- `loadshed.asgi.LoadShedMiddleware`: the limiter around an ASGI application.
- the errors, of which `BackPressureError` is the one that says "come back later".
"""

from loadshed._errors import (
    BackPressureError,
    CircuitOpenError,
    ConfigError,
    LoadShedError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
    RequestTimeoutError,
    RetryError,
)
from loadshed._limiter import ConcurrencyLimiter, LimiterStatistics, Permit
from loadshed._queue import BoundedQueue, Entry, QueueStatistics

__version__ = "0.1.0"

__all__ = [
    "BackPressureError",
    "BoundedQueue",
    "CircuitOpenError",
    "ConcurrencyLimiter",
    "ConfigError",
    "Entry",
    "LimiterStatistics",
    "LoadShedError",
    "Permit",
    "QueueFullError",
    "QueueStatistics",
    "QueueTimeoutError",
    "ReplicaDiedError",
    "ReplicaError",
    "ReplicaUnavailableError",
    "RequestTimeoutError",
    "RetryError",
    "__version__",
]
