"""Adaptive throttling: a client that is mostly turned away asks less often."""

from loadshed._policy.backoff import Draw
from loadshed._policy.window import Window


class Throttle:
    """The client-side throttling of Google's SRE book, "Handling Overload".

    A request is refused with the probability `max(0, (requests - k * accepts) / (requests + 1))`,
    both counted over the last `window` seconds. Refused requests count as requests, so a client
    that insists is refused more.

    Args:
        k: How many times as many requests are made as are accepted, before any is refused.
        window: Seconds for which a request counts.
    """

    __slots__ = ("_accepts", "_k", "_requests")

    def __init__(self, k: float, window: float) -> None:
        self._k = k
        self._requests = Window(window)
        self._accepts = Window(window)

    def refusal(self, now: float) -> float:
        """The probability with which the next request is refused."""
        requests = self._requests.total(now)
        return max(0.0, (requests - self._k * self._accepts.total(now)) / (requests + 1))

    def enter(self, now: float, draw: Draw) -> bool:
        """A request wants to be made; whether it may."""
        refusal = self.refusal(now)
        self._requests.add(now)
        return refusal == 0 or draw() >= refusal

    def accept(self, now: float) -> None:
        """A request that was made was not turned away."""
        self._accepts.add(now)
