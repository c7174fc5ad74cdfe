"""When a replica that died, or could not be started, is replaced."""

FIRST = 0.25
"""Seconds before the third try, after two in a row that failed. It doubles with each."""

LONGEST = 30.0
"""The most seconds before a try."""

MOST = 3
"""Tries in a row that fail before it counts as a crash loop."""

PROVEN_AFTER = 10.0
"""Seconds for which a replica has to live, if it answers nothing, to have been a good one."""


class Restarts:
    """Exponential backoff, for all replicas of a pool together.

    Attributes:
        failures: How many replicas in a row did no good: they could not be started, or died before
            they had proved themselves.
    """

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures = 0

    @property
    def is_crash_loop(self) -> bool:
        """Whether there is little hope for the next one."""
        return self.failures >= MOST

    def failed(self) -> float:
        """A replica did no good: seconds to wait before the next is started."""
        self.failures += 1
        if self.failures == 1:
            return 0.0
        doubled = min(self.failures - 2, 10)  # 2**10 is beyond the longest
        return min(FIRST * 2.0**doubled, LONGEST)

    def died(self, *, proven: bool) -> float:
        """A replica that was ready has died: seconds to wait before the next is started."""
        if proven:
            self.failures = 0
        return self.failed()
