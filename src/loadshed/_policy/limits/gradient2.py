"""Gradient2: less where requests take longer than they do on the long run."""

from loadshed._policy.limits.evidence import LONGEST
from loadshed._policy.limits.moving import MovingLimit
from loadshed._policy.settings import number, positive_number, whole_number

WARM_UP = 10
"""Samples of which the long average is the plain one."""

RECOVERY = 2.0
"""Times the last request's by which the long average exceeds it before it is helped down."""

HELP = 0.95
"""What the long average is then multiplied with: an overload is over, and it should forget it."""

STEEPEST = 0.5
"""The part of the limit that is left at least, however long one request took."""

LONGER = "{new}: requests take longer than they mostly do"
AS_LONG = "{new}: requests take hardly longer than they mostly do"


class LongAverage:
    """An exponential average that is a plain one at first (`ExpAvgMeasurement.java`)."""

    __slots__ = ("_count", "_factor", "_sum", "seconds")

    def __init__(self, window: float) -> None:
        self._factor = 2 / (window + 1)
        self._count = 0
        self._sum = 0.0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """A request took so long."""
        if self._count < WARM_UP:
            self._count += 1
            self._sum += seconds
            self.seconds = self._sum / self._count
        else:
            self.seconds = self.seconds * (1 - self._factor) + seconds * self._factor


class Gradient2Limit(MovingLimit):
    """Netflix' Gradient2Limit: it compares each request with the average of many.

    While requests take at most `rtt_tolerance` times as long as on the long run, the limit grows;
    where they take longer, it shrinks in proportion, by half at most.
    (`Netflix/concurrency-limits: Gradient2Limit.java`, as are all defaults. There a `WindowedLimit`
    may be put before it; here each request is a sample.)

    >>> limit = Gradient2Limit()
    >>> for request in range(5):
    ...     limit.observe(now=request / 10, seconds=0.1, ok=True, ongoing=20)
    >>> limit.limit, limit.reason
    (24, '24: requests take hardly longer than they mostly do')

    Attributes:
        limit: How many may be ongoing now.

    Args:
        initial: The limit to begin with.
        lowest: The limit is never below this.
        highest: The limit is never above this; `math.inf` where it may be anything.
        smoothing: The part of a change that is made at once, above 0 up to 1.
        queue_size: By how many it grows where requests take no longer, before smoothing.
        rtt_tolerance: Times the long average that a request may take, from 1 up.
        long_window: Samples over which the long average goes.

    Raises:
        ConfigError: A setting is none of these.
    """

    __slots__ = (
        "_average",
        "_estimate",
        "_queue_size",
        "_smoothing",
        "_tolerance",
    )

    def __init__(
        self,
        initial: int = 20,
        *,
        lowest: int = 20,
        highest: float = 200,
        smoothing: float = 0.2,
        queue_size: int = 4,
        rtt_tolerance: float = 1.5,
        long_window: int = 600,
    ) -> None:
        super().__init__(initial, lowest, highest)
        self._smoothing = positive_number(
            "smoothing", smoothing, "a number > 0 and <= 1", at_most=1
        )
        self._queue_size = whole_number("queue_size", queue_size, at_least=0, infinite=False)
        self._tolerance = number("rtt_tolerance", rtt_tolerance, at_least=1)
        self._average = LongAverage(
            whole_number("long_window", long_window, at_least=1, infinite=False)
        )
        self._estimate = float(self.limit)  # the limit, with its fraction

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        """A request has ended: see `Limit.observe`. Whether it was of use, it does not ask."""
        if not 0 < seconds <= LONGEST:
            return  # of a clock that was set, or of too coarse steps
        average = self._average
        average.add(seconds)
        ratio = average.seconds / seconds
        if ratio > RECOVERY:
            average.seconds *= HELP
        if ongoing >= self._estimate / 2:
            self._follow(max(STEEPEST, min(1.0, self._tolerance * ratio)))

    def _follow(self, gradient: float) -> None:
        wanted = self._estimate * gradient + self._queue_size
        estimate = self._estimate * (1 - self._smoothing) + wanted * self._smoothing
        self._estimate = self._clamped(estimate)
        limit = int(self._estimate)
        self._set(limit, LONGER if limit < self.limit else AS_LONG)
