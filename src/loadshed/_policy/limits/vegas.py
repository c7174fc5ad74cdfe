"""Vegas: so many that hardly any of them wait, as far as latency tells."""

from collections.abc import Callable, Iterator
from math import ceil, inf, log10

from loadshed._policy.backoff import Draw
from loadshed._policy.limits.evidence import LONGEST
from loadshed._policy.limits.moving import MovingLimit
from loadshed._policy.settings import number, positive_number

Amount = Callable[[int], float]
"""A number of requests that depends on the limit."""

GOLDEN = 0.6180339887498949
"""The golden ratio: its multiples, without their whole parts, are spread evenly over 0 to 1."""

FAILED = "{new}: a request was of no use"
NONE_WAIT = "{new}: hardly any wait"
FEW_WAIT = "{new}: few wait"
MANY_WAIT = "{new}: many wait"


def digits(limit: int) -> int:
    """The logarithm to the base of 10, as a whole number and at least 1."""
    return max(1, int(log10(limit)))


def evenly() -> Draw:
    """What to draw from where no generator is given: as good for the purpose, and no global one."""

    def numbers() -> Iterator[float]:
        position = 0.0
        while True:
            position = (position + GOLDEN) % 1.0
            yield position

    return numbers().__next__


class VegasLimit(MovingLimit):
    """Netflix' VegasLimit: TCP Vegas, with requests in place of packets.

    It takes the shortest time that it saw for that of a request which waited for nothing, and so
    reckons how many of those ongoing wait inside of the service: `limit * (1 - shortest / time)`.
    While few do it raises the limit, while many do it cuts it. Every now and then it takes the next
    request's time for the shortest, whatever that is, as the service may have become slower.
    (`Netflix/concurrency-limits: VegasLimit.java`, as are all defaults. There a `WindowedLimit` may
    be put before it; here each request is a sample.)

    >>> limit = VegasLimit()
    >>> limit.observe(now=1.0, seconds=0.1, ok=True, ongoing=20)  # the shortest
    >>> limit.observe(now=1.1, seconds=0.1, ok=True, ongoing=20)
    >>> limit.limit, limit.reason
    (26, '26: hardly any wait')

    Attributes:
        limit: How many may be ongoing now.

    Args:
        initial: The limit to begin with.
        lowest: The limit is never below this.
        highest: The limit is never above this; `math.inf` where it may be anything.
        smoothing: The part of a change that is made at once, above 0 up to 1.
        alpha: Given the limit, how many may wait while it is still raised.
        beta: Given the limit, how many may wait before it is cut; and by what it is raised where
            hardly any do.
        threshold: Given the limit, how many are hardly any.
        change: Given the limit, by what it is raised where few wait, and cut where many do.
        probe_multiplier: Times the limit, in requests, after which the shortest time is taken anew.
        random: Draws a number from 0 to 1, without 1: services that began together must not probe
            together. Without it they are spread evenly, the same for each limit.

    Raises:
        ConfigError: A setting is none of these.
    """

    __slots__ = (
        "_alpha",
        "_beta",
        "_change",
        "_estimate",
        "_probe_after",
        "_probe_multiplier",
        "_random",
        "_shortest",
        "_since_probe",
        "_smoothing",
        "_threshold",
    )

    def __init__(
        self,
        initial: int = 20,
        *,
        lowest: int = 1,
        highest: float = 1000,
        smoothing: float = 1.0,
        alpha: Amount = lambda limit: 3 * digits(limit),
        beta: Amount = lambda limit: 6 * digits(limit),
        threshold: Amount = digits,
        change: Amount = digits,
        probe_multiplier: float = 30,
        random: Draw | None = None,
    ) -> None:
        super().__init__(initial, lowest, highest)
        self._smoothing = positive_number(
            "smoothing", smoothing, "a number > 0 and <= 1", at_most=1
        )
        self._alpha, self._beta = alpha, beta
        self._threshold, self._change = threshold, change
        self._probe_multiplier = number("probe_multiplier", probe_multiplier, at_least=1)
        self._random = random or evenly()
        self._estimate = float(self.limit)  # the limit, with the part that smoothing leaves
        self._shortest = inf
        self._since_probe = 0  # samples
        self._probe_after = self._jittered()  # times the limit

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        """A request has ended: see `Limit.observe`."""
        if not 0 < seconds <= LONGEST:
            return  # of a clock that was set, or of too coarse steps
        self._since_probe += 1
        if self._since_probe >= self._probe_after * self._estimate:
            self._since_probe = 0
            self._probe_after = self._jittered()
            self._shortest = seconds
        elif seconds < self._shortest:
            self._shortest = seconds
        elif not ok:
            self._move(self._estimate - self._change(self.limit), FAILED)
        elif ongoing * 2 >= self._estimate:
            self._follow(ceil(self._estimate * (1 - self._shortest / seconds)))

    def _jittered(self) -> float:
        return (0.5 + self._random() / 2) * self._probe_multiplier

    def _follow(self, waiting: int) -> None:
        """So many of those ongoing wait inside of the service."""
        limit, beta = self.limit, self._beta(self.limit)
        if waiting <= self._threshold(limit):
            self._move(self._estimate + beta, NONE_WAIT)
        elif waiting < self._alpha(limit):
            self._move(self._estimate + self._change(limit), FEW_WAIT)
        elif waiting > beta:
            self._move(self._estimate - self._change(limit), MANY_WAIT)

    def _move(self, estimate: float, why: str) -> None:
        estimate = self._clamped(estimate)
        self._estimate = (1 - self._smoothing) * self._estimate + self._smoothing * estimate
        self._set(int(self._estimate), why)
