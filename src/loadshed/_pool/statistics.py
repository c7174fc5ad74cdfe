"""PoolStatistics: what a pool and its replicas did so far."""

from dataclasses import dataclass
from enum import StrEnum

from loadshed._statistics import LimiterStatistics


class ReplicaState(StrEnum):
    """Where a replica stands. Ray Serve's words."""

    STARTING = "STARTING"
    """It imports and makes its target."""
    RUNNING = "RUNNING"
    """It takes requests."""
    STOPPING = "STOPPING"
    """It takes no more; what it has is served, then it ends."""
    UNHEALTHY = "UNHEALTHY"
    """It failed its health checks, or is stuck: it is killed and replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatistics:
    """One replica of a `ReplicaPool`.

    Attributes:
        id: Its number: each new replica has the next one.
        name: The pool's name and the number, as in its output: "model#3".
        pid: Its process id.
        state: Where it stands.
        ongoing: Requests that it works on.
        max_ongoing_requests: How many it may work on, as things stand.
        limit_reason: Why that last moved by itself; "" where it never did.
        served: Requests so far that it answered with a result.
        failed: Requests so far for which its target raised an exception, or that it died with.
        restarts: How many replicas were in its place before it.
        latency: Seconds that a request takes lately, a peak-EWMA; None before the first.
    """

    id: int
    name: str
    pid: int
    state: ReplicaState
    ongoing: int
    max_ongoing_requests: float
    limit_reason: str
    served: int
    failed: int
    restarts: int
    latency: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics(LimiterStatistics):
    """What a `ReplicaPool` did so far, and is doing now: its limiter's statistics, and more.

    `max_ongoing_requests` is what the replicas that are there can do together.

    Attributes:
        restarts: Replicas that replaced another one so far.
        replicas: Those that are there, the oldest first.
    """

    restarts: int
    replicas: tuple[ReplicaStatistics, ...]
