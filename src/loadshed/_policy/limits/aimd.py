"""Additive increase, multiplicative decrease: the rule of TCP."""

from math import inf

from loadshed._errors import ConfigError
from loadshed._policy.limits.moving import MovingLimit
from loadshed._policy.settings import positive_number, positive_seconds

FAILED = "{new}: a request was of no use"
TOO_LONG = "{new}: a request took too long"
IN_USE = "{new}: half of the limit was in use, and nothing failed"


class AIMDLimit(MovingLimit):
    """Netflix' AIMDLimit: one more with each success, a tenth less with each failure.

    A request that was of no use or took longer than `timeout` is a failure. A success counts only
    where at least half of the limit was in use. It needs failures: where a service gets slow
    without them, the limit grows to `highest`.
    (`Netflix/concurrency-limits: AIMDLimit.java`, as are all defaults.)

    >>> limit = AIMDLimit()
    >>> limit.observe(now=1.0, seconds=0.1, ok=True, ongoing=20)
    >>> limit.observe(now=1.1, seconds=6.0, ok=True, ongoing=20)
    >>> limit.limit, limit.reason
    (20, '20: a request took too long')

    Attributes:
        limit: How many may be ongoing now.

    Args:
        initial: The limit to begin with.
        lowest: The limit is never below this.
        highest: The limit is never above this; `math.inf` where it may be anything.
        backoff_ratio: What the limit is multiplied with after a failure: from 0.5 up to, but not
            including, 1.
        timeout: Seconds after which a request counts as a failure, or None.

    Raises:
        ConfigError: A setting is none of these.
    """

    __slots__ = ("_backoff_ratio", "_timeout")

    def __init__(
        self,
        initial: int = 20,
        *,
        lowest: int = 20,
        highest: float = 200,
        backoff_ratio: float = 0.9,
        timeout: float | None = 5.0,
    ) -> None:
        super().__init__(initial, lowest, highest)
        expected = "a number >= 0.5 and < 1"
        ratio = positive_number("backoff_ratio", backoff_ratio, expected, at_most=1)
        if not 0.5 <= ratio < 1:
            raise ConfigError("backoff_ratio", backoff_ratio, expected)
        self._backoff_ratio = ratio
        self._timeout = positive_seconds("timeout", timeout) or inf

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        """A request has ended: see `Limit.observe`."""
        if not ok or seconds > self._timeout:
            self._move(int(self.limit * self._backoff_ratio), TOO_LONG if ok else FAILED)
        elif ongoing * 2 >= self.limit:
            self._move(self.limit + 1, IN_USE)

    def _move(self, limit: int, why: str) -> None:
        self._set(int(self._clamped(limit)), why)
