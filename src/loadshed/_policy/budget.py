"""A bound on retries: a part of the requests, and a few a second besides."""

from loadshed._policy.window import Window


class Budget:
    """Finagle's `RetryBudget`: requests pay in, retries take out, and both are forgotten.

    Within `ttl` seconds there are at most `percent_can_retry` times as many retries as there are
    requests, and `min_retries_per_sec * ttl` more.

    Args:
        ttl: Seconds for which a request or a retry is remembered.
        min_retries_per_sec: How many retries a second are always allowed.
        percent_can_retry: How many retries a request pays for: 0.2 is one in five.
    """

    __slots__ = ("_percent", "_requests", "_reserve", "_retries")

    def __init__(self, ttl: float, min_retries_per_sec: float, percent_can_retry: float) -> None:
        self._percent = percent_can_retry
        self._reserve = min_retries_per_sec * ttl
        self._requests = Window(ttl)
        self._retries = Window(ttl)

    def deposit(self, now: float) -> None:
        """A request is made."""
        self._requests.add(now)

    def withdraw(self, now: float) -> bool:
        """Take a retry out; whether there was one."""
        if self.balance(now) < 1:
            return False
        self._retries.add(now)
        return True

    def balance(self, now: float) -> float:
        """How many retries there are."""
        # Rounded, as 0.9 + 0.1 is less than 1 where 0.9 is 0.18 * 5, and a retry is a whole one.
        paid = round(self._reserve + self._percent * self._requests.total(now), 9)
        return paid - self._retries.total(now)
