"""LimiterStatistics: what a limiter did so far."""

from collections.abc import Mapping
from dataclasses import dataclass


class Counts(dict[str, int]):
    """Counts by reason. A Counter would do, but can't be made anew by `dataclasses.asdict`."""

    def __missing__(self, key: str) -> int:
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterStatistics:
    """What a `ConcurrencyLimiter` did so far, and is doing now.

    `admitted == completed + ongoing`, always.

    Attributes:
        ongoing: Permits that are out.
        slots: What they take together, which is what is bounded: as many where each costs 1.
        queued: Callers that wait.
        max_ongoing_requests: The bound on `slots`, as it is now.
        max_queued_requests: The bound on `queued`, as it is now.
        limit_reason: Why `max_ongoing_requests` last moved by itself; "" where it never did.
        admitted: Permits given so far.
        completed: Permits returned so far.
        shed: Callers turned away so far, by reason ("queue_full", "queue_timeout", "deadline",
            "displaced", "loop_lag"); a reason that never came up counts 0.
        abandoned: Callers that left (were cancelled) while they waited.
    """

    ongoing: int
    queued: int
    slots: float
    max_ongoing_requests: float
    max_queued_requests: float
    limit_reason: str
    admitted: int
    completed: int
    shed: Mapping[str, int]
    abandoned: int
