"""How long requests take lately: quantiles, in little memory and less time."""

import math

WINDOW = 30.0
"""Seconds that are counted together. What counts is this window and the one before."""

STEPS = 8
"""Buckets for each doubling: a quantile is at most 5 % off."""

LEAST = 1e-6
"""Seconds below which all are alike."""

BUCKETS = 40 * STEPS
"""Up to 13 days."""


class Latencies:
    """Counts them by how long they took, in buckets that grow with it.

    ```python
    latencies.observe(0.012, now)
    latencies.quantile(0.99, now)
    ```
    """

    __slots__ = ("_before", "_counts", "_since")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._before = [0] * BUCKETS
        self._since = -math.inf

    def observe(self, seconds: float, now: float) -> None:
        """A request took so many seconds."""
        if not 0 <= now - self._since < WINDOW:
            self._turn(now)
        bucket = int(STEPS * math.log2(seconds / LEAST)) if seconds > LEAST else 0
        self._counts[min(bucket, BUCKETS - 1)] += 1

    def quantile(self, part: float, now: float) -> float | None:
        """Seconds that this part of them did not exceed; None where there was none lately.

        Args:
            part: 0.5 for the median.
            now: The time.
        """
        if not 0 <= now - self._since < WINDOW:
            self._turn(now)
        total = sum(self._counts) + sum(self._before)
        left = max(1, math.ceil(part * total))
        for bucket, (count, before) in enumerate(zip(self._counts, self._before, strict=True)):
            left -= count + before
            if left <= 0 < total:
                return LEAST * math.exp2((bucket + 0.5) / STEPS)
        return None

    def _turn(self, now: float) -> None:
        """Begin a new window; what is older than the one before is forgotten."""
        is_next = 0 <= now - self._since < 2 * WINDOW  # it goes back with another event loop
        self._before = self._counts if is_next else [0] * BUCKETS
        self._counts = [0] * BUCKETS
        self._since = now
