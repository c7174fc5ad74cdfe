"""Overload protection for Python services.

Bound what runs, bound what waits, turn the rest away at once.

- `ConcurrencyLimiter`: around a block, a function or a generator; `Permit` is what it gives.
- `Limit`: what finds the limiter's number: `KneeLimit` where none is given, `FixedLimit`, and for
  those who come from elsewhere `AIMDLimit`, `VegasLimit`, `Gradient2Limit`.
- `Criticality`: how much a request matters, where not all can be served.
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
    from loadshed._limiter import ConcurrencyLimiter
    from loadshed._permit import Permit
    from loadshed._policy.criticality import Criticality
    from loadshed._policy.limits.aimd import AIMDLimit
    from loadshed._policy.limits.gradient2 import Gradient2Limit
    from loadshed._policy.limits.knee import KneeLimit
    from loadshed._policy.limits.limit import FixedLimit, Limit
    from loadshed._policy.limits.vegas import VegasLimit
    from loadshed._pool.options import PoolOptions
    from loadshed._pool.pool import ReplicaPool
    from loadshed._pool.statistics import PoolStatistics, ReplicaState, ReplicaStatistics
    from loadshed._queue import BoundedQueue, Entry, QueueStatistics
    from loadshed._statistics import LimiterStatistics

__version__ = "0.1.0"

__all__ = [
    "AIMDLimit",
    "BackPressureError",
    "BoundedQueue",
    "CircuitOpenError",
    "ConcurrencyLimiter",
    "ConfigError",
    "Criticality",
    "Entry",
    "FixedLimit",
    "Gradient2Limit",
    "KneeLimit",
    "Limit",
    "LimiterStatistics",
    "LoadShedError",
    "NotPicklableError",
    "Permit",
    "PoolOptions",
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
    "VegasLimit",
    "__version__",
]

__getattr__ = importing(
    globals(),
    {
        "AIMDLimit": "loadshed._policy.limits.aimd",
        "ConcurrencyLimiter": "loadshed._limiter",
        "Criticality": "loadshed._policy.criticality",
        "FixedLimit": "loadshed._policy.limits.limit",
        "Gradient2Limit": "loadshed._policy.limits.gradient2",
        "KneeLimit": "loadshed._policy.limits.knee",
        "Limit": "loadshed._policy.limits.limit",
        "LimiterStatistics": "loadshed._statistics",
        "Permit": "loadshed._permit",
        "VegasLimit": "loadshed._policy.limits.vegas",
        "PoolOptions": "loadshed._pool.options",
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
