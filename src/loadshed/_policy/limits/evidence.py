"""Evidence: what was seen at a limit, and how much it can be trusted."""

from math import inf, sqrt

FIRST_LOOK = 16
"""Samples before a window is looked at: of fewer not even the spread is known."""

LOOK_EVERY = 8
"""Samples between two looks, so that a request pays an eighth of one."""

LEAST_SPREAD = 0.1
"""The spread that is reckoned with at least: a few that took as long as each other are chance."""

MOST_POOLED = 2000
"""Samples that a base counts for at most, so that what is new keeps a say."""

LONGEST = 1e9
"""Seconds, 30 years: what takes longer, or less than none, was measured by a clock that was set."""

SHORTEST = 1e-9
"""Seconds: less than this is no time at all, but a clock with too coarse steps."""


def standard_error(spread: float, count: float, other: float) -> float:
    """By which part the ratio of two means is off, as a rule: one of `count`, one of `other`.

    Args:
        spread: The variance of a single sample, divided by the square of its mean.
        count: The samples of the one mean.
        other: Those of the other.
    """
    return sqrt(spread * (1 / count + 1 / other))


class Window:
    """The requests that have ended since the limit last moved and the service got used to it.

    Its numbers are added up where a request ends, in `observe`, as a call would cost more than the
    sums. `mean`, `spread` and `lasted` are as of the last `weigh`.

    Attributes:
        asked_at: When it was asked for.
        opens_at: From when on requests count.
        next_look: With how many samples to look at it next.
        count: How many have ended.
        useful: How many of them were of use.
        full: How many of them ended while the limit was reached.
        seconds: How long they held their slots, all together.
        squares: The same of the squares.
        mean: How long one held its slot.
        spread: How much that differed: the variance, divided by the square of the mean.
        lasted: For how long it has been open.
    """

    __slots__ = (
        "asked_at",
        "count",
        "full",
        "lasted",
        "mean",
        "next_look",
        "opens_at",
        "seconds",
        "spread",
        "squares",
        "useful",
    )

    def __init__(self) -> None:
        self.mean = self.lasted = 0.0
        self.spread = LEAST_SPREAD
        self.open(inf, inf)  # so that the first request comes before it was asked for

    def open(self, asked_at: float, opens_at: float) -> None:
        """Begin anew."""
        self.asked_at = asked_at
        self.opens_at = opens_at
        self.next_look = FIRST_LOOK
        self.count = self.useful = self.full = 0
        self.seconds = self.squares = 0.0

    def weigh(self, now: float) -> None:
        """Look at it: work out what follows from the sums."""
        self.next_look += LOOK_EVERY
        mean = self.seconds / self.count
        self.mean = mean
        self.lasted = now - self.opens_at
        if mean >= SHORTEST:
            self.spread = max(LEAST_SPREAD, self.squares / self.count / (mean * mean) - 1)

    @property
    def makes_sense(self) -> bool:
        """Whether the clock that it was measured with can be believed."""
        return self.mean >= SHORTEST and self.lasted <= LONGEST

    @property
    def busy(self) -> float:
        """How many were ongoing on average: Little's law."""
        return self.seconds / self.lasted


class Base:
    """What is known of a limit: what a try is compared with, and goes back to.

    Attributes:
        limit: The limit.
        rate: How much got through: requests of use in a second. It is known once a try began.
        count: From how many samples all this is known; 0 where nothing is.
        mean: How long one held its slot.
        useful: The part that was of use.
    """

    __slots__ = ("count", "limit", "mean", "rate", "useful")

    def __init__(
        self, limit: int, *, rate: float = 0.0, count: int = 0, mean: float = 0.0, useful: float = 1
    ) -> None:
        self.limit = limit
        self.rate = rate
        self.count = count
        self.mean = mean
        self.useful = useful

    def pool(self, window: Window) -> None:
        """Add what a window says of the same limit."""
        count = self.count + window.count
        self.mean = (self.mean * self.count + window.seconds) / count
        self.useful = (self.useful * self.count + window.useful) / count
        self.count = min(count, MOST_POOLED)
