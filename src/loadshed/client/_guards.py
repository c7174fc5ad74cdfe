"""What keeps many requests together from doing harm: budget, breaker, throttle, and the hedge."""

import random
import sys
import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import httpx

from loadshed._clock import SharedClock
from loadshed._errors import BackPressureError, ConfigError
from loadshed._policy.breaker import Breaker, Circuit
from loadshed._policy.budget import Budget
from loadshed._policy.origins import Origins
from loadshed._policy.settings import number, positive_number, whole_number
from loadshed._policy.throttle import Throttle

MOST_PENDING = 256


class RetryBudget:
    """Bounds the retries to each origin: a part of the requests, and a few a second.

    A retry limit for each request multiplies the load on a service that fails: five retries make
    it six times what it was. A budget bounds all retries together. While few requests fail it is
    never felt. It is Finagle's (`RetryBudget`), with its names and defaults.

    One can be shared by several transports, clients and decorated functions, and by threads.

    Args:
        ttl: Seconds for which a request, or a retry, is remembered.
        min_retries_per_sec: How many retries a second there may be whatever the requests.
        percent_can_retry: How many retries each request pays for: 0.2 is 20 %.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        *,
        ttl: float = 10.0,
        min_retries_per_sec: float = 10.0,
        percent_can_retry: float = 0.2,
    ) -> None:
        self._settings = (
            _some_seconds("ttl", ttl),
            number("min_retries_per_sec", min_retries_per_sec, at_least=0),
            number("percent_can_retry", percent_can_retry, at_least=0),
        )
        self._lock = threading.Lock()
        self._budgets = Origins(lambda: Budget(*self._settings))
        # Requests that are not paid in yet: most are never asked for, and this is the cheapest
        # thing that can be done with one. A deque's append and popleft are safe between threads.
        self._pending: deque[tuple[Any, float]] = deque()

    def balance(self, url: str | None = None) -> float:
        """How many retries there are at the moment.

        Args:
            url: One of the origin's; None for the budget of decorated functions.
        """
        with self._lock:
            self._pay_in_locked()
            return self._budgets.peek(_origin_of(url)).balance(SharedClock().now())

    def _deposit(self, url: Any, now: float) -> None:
        """A request to this URL is made, or for None, a call of a function."""
        self._pending.append((url, now))
        if len(self._pending) > MOST_PENDING:
            self._pay_in()

    def _withdraw(self, origin: Hashable, now: float) -> bool:
        with self._lock:
            self._pay_in_locked()
            return self._budgets[origin].withdraw(now)

    def _pay_in(self) -> None:
        with self._lock:
            self._pay_in_locked()

    def _pay_in_locked(self) -> None:
        while self._pending:
            url, time = self._pending.popleft()
            self._budgets[None if url is None else origin_of(url)].deposit(time)

    def __repr__(self) -> str:
        ttl, least, percent = self._settings
        return (
            f"<{type(self).__name__} ttl={ttl} min_retries_per_sec={least} "
            f"percent_can_retry={percent} origins={len(self._budgets)}>"
        )


class CircuitBreaker:
    """Stops sending to an origin while too many of its requests fail, and looks again later.

    Closed, it counts. Where there were `minimum_throughput` requests within `sampling_duration`
    seconds and `failure_ratio` of them failed, it opens: for `break_duration` seconds requests
    raise `CircuitOpenError` and nothing is sent. Then one is let through; if it succeeds, the
    breaker closes, else it stays open for as long again. Failures are transport errors, timeouts,
    and the statuses of the policy's `status_forcelist` but 429, which says that the service works.
    It is Polly's, which is also .NET's, with its names and defaults.

    One can be shared by several transports and clients, and by threads.

    Args:
        failure_ratio: The part of the requests that has to fail: above 0, at most 1.
        minimum_throughput: How many requests there have to be before it may open.
        sampling_duration: Seconds for which a request counts.
        break_duration: Seconds for which it stays open.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        *,
        failure_ratio: float = 0.1,
        minimum_throughput: int = 100,
        sampling_duration: float = 30.0,
        break_duration: float = 5.0,
    ) -> None:
        settings = (
            positive_number("failure_ratio", failure_ratio, "a number > 0 and <= 1", at_most=1),
            whole_number("minimum_throughput", minimum_throughput, at_least=1, infinite=False),
            _some_seconds("sampling_duration", sampling_duration),
            _some_seconds("break_duration", break_duration),
        )
        self._lock = threading.Lock()
        self._breakers = Origins(lambda: Breaker(*settings))

    def state(self, url: str) -> str:
        """How the breaker of this URL's origin stands: "closed", "open" or "half_open"."""
        with self._lock:
            return self._breakers.peek(_origin_of(url)).state(SharedClock().now()).value

    def _enter(self, origin: Hashable, now: float) -> int:
        with self._lock:
            return self._breakers[origin].enter(now)

    def _leave(self, origin: Hashable, state: int, now: float, *, failed: bool) -> None:
        with self._lock:
            self._breakers[origin].leave(state, now, failed=failed)

    def _forget(self, origin: Hashable, state: int, now: float) -> None:
        with self._lock:
            self._breakers[origin].forget(state, now)

    def _blocked_for(self, origin: Hashable, now: float) -> float:
        with self._lock:
            return self._breakers[origin].blocked_for(now)

    def __repr__(self) -> str:
        now = SharedClock().now()
        with self._lock:
            states = [breaker.state(now) for breaker in self._breakers]
        return (
            f"<{type(self).__name__} origins={len(states)} open={states.count(Circuit.OPEN)} "
            f"half_open={states.count(Circuit.HALF_OPEN)}>"
        )


class AdaptiveThrottle:
    """Refuses requests of a client's own that the origin would most likely turn away.

    Even a rejection costs a server something. A client that is told 429 or 503 most of the time
    drops a part of its requests by itself, with a probability that keeps what it sends at about
    `k` times what is accepted; those raise `BackPressureError` with `reason="throttle"`. It is the
    client-side throttling of Google's SRE book, chapter "Handling Overload", with its defaults.

    One can be shared by several transports and clients, and by threads.

    Args:
        k: How many times as many requests are sent as are accepted; at least 1.
        window: Seconds for which a request counts.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(self, *, k: float = 2.0, window: float = 120.0) -> None:
        self._settings = (number("k", k, at_least=1), _some_seconds("window", window))
        self._lock = threading.Lock()
        self._throttles = Origins(lambda: Throttle(*self._settings))

    def refusal(self, url: str) -> float:
        """The probability, at the moment, that a request to this URL's origin is refused."""
        with self._lock:
            return self._throttles.peek(_origin_of(url)).refusal(SharedClock().now())

    def _enter(self, origin: Hashable, now: float) -> bool:
        with self._lock:
            return self._throttles[origin].enter(now, random.random)

    def _accept(self, origin: Hashable, now: float) -> None:
        with self._lock:
            self._throttles[origin].accept(now)

    def __repr__(self) -> str:
        k, window = self._settings
        return f"<{type(self).__name__} k={k} window={window} origins={len(self._throttles)}>"


class ThrottledError(BackPressureError):
    """The client's throttle refused the request: nothing was sent."""

    def __str__(self) -> str:
        return (
            "Request dropped due to backpressure (reason=throttle): the server has turned away "
            "most of the latest requests."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Sends a request that takes long a second time, and takes the answer that comes first.

    For requests that may be repeated only, and async only. The loser is cancelled, and its
    connection closed. Hedges are paid for from the retry budget. The names and defaults are
    Polly's.

    Args:
        delay: Seconds without an answer after which the request is sent again. A good one is what
            95 % of the requests take; 0 sends both at once.
        max_hedged_attempts: How many more times it is sent: a whole number >= 1.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    delay: float = 2.0
    max_hedged_attempts: int = 1

    def __post_init__(self) -> None:
        number("delay", self.delay, at_least=0)
        most = self.max_hedged_attempts
        if whole_number("max_hedged_attempts", most, at_least=1, infinite=False) > 10:
            raise ConfigError("max_hedged_attempts", most, "a whole number from 1 to 10")


def origin_of(url: Any) -> tuple[str, str, int | None]:
    """What the state of budget, breaker and throttle is kept for, of the URL of a request."""
    return (url.scheme, url.host, url.port)


def _origin_of(url: str | None) -> Hashable:
    return None if url is None else origin_of(httpx.URL(str(url)))


def _some_seconds(setting: str, value: object) -> float:
    return positive_number(setting, value, "a number of seconds > 0", at_most=sys.float_info.max)
