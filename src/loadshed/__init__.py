"""Overload protection for Python services.

Bound what runs, bound what waits, turn the rest away at once.

- `ConcurrencyLimiter`: around a block, a function or a generator; `Permit` is what it gives.
- `ReplicaPool`: processes for what blocks or computes, behind one bounded queue.
- `BoundedQueue`: a queue between tasks that never grows beyond its bound.
- `loadshed.asgi.LoadShedMiddleware`: the limiter around an ASGI application.
- `loadshed.client`: clients that try again, and never make a storm of it.
- the errors, of which `BackPressureError` is the one that says "come back later".
"""

from typing import TYPE_CHECKING

from loadshed._errors import (
    BackPressureError,
    CircuitOpenError,
    ConfigError,
    LoadShedError,
    NotPicklableError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
    RequestTimeoutError,
    RetryError,
)
from loadshed._lazy import importing

if TYPE_CHECKING:
    from loadshed._limiter import ConcurrencyLimiter, Permit
    from loadshed._pool.pool import ReplicaPool
    from loadshed._pool.statistics import PoolStatistics, ReplicaState, ReplicaStatistics
    from loadshed._queue import BoundedQueue, Entry, QueueStatistics
    from loadshed._statistics import LimiterStatistics

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
    "NotPicklableError",
    "Permit",
    "PoolStatistics",
    "QueueFullError",
    "QueueStatistics",
    "QueueTimeoutError",
    "ReplicaDiedError",
    "ReplicaError",
    "ReplicaPool",
    "ReplicaState",
    "ReplicaStatistics",
    "ReplicaUnavailableError",
    "RequestTimeoutError",
    "RetryError",
    "__version__",
]

__getattr__ = importing(
    globals(),
    {
        "ConcurrencyLimiter": "loadshed._limiter",
        "LimiterStatistics": "loadshed._statistics",
        "Permit": "loadshed._limiter",
        "ReplicaPool": "loadshed._pool.pool",
        "PoolStatistics": "loadshed._pool.statistics",
        "ReplicaState": "loadshed._pool.statistics",
        "ReplicaStatistics": "loadshed._pool.statistics",
        "BoundedQueue": "loadshed._queue",
        "Entry": "loadshed._queue",
        "QueueStatistics": "loadshed._queue",
    },
)


def __dir__() -> list[str]:
    return __all__
