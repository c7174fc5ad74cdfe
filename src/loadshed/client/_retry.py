"""Retry: what is tried again, how often, and how long is waited in between."""

import math
import random as _random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from tenacity import RetryCallState
from tenacity.wait import wait_base

from loadshed._around import is_async
from loadshed._errors import ConfigError
from loadshed._policy.backoff import JITTERS, at_least, decorrelated, exponential, jittered
from loadshed._policy.settings import number, positive_seconds, whole_number

RetryOn = type[Exception] | Iterable[type[Exception]] | Callable[[Exception], bool]


class HasRandom(Protocol):
    """A generator of random numbers, like `random.Random`."""

    def random(self) -> float:
        """A number from 0 up to, but not including, 1."""


STATUS_FORCELIST = frozenset({429, 500, 501, 502, 503, 504})
ALLOWED_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A retry policy. It holds no state, so that one serves any number of requests and threads.

    The names are urllib3's where it has one. The defaults are the policy that Ray Serve's
    documentation asks of clients, made safe for many of them: with jitter, a limit on each attempt
    and one on all of them.

    ```python
    Retry(total=3, backoff_factor=0.2)  # at most 0.2, 0.4, 0.8 s, each at random between 0 and that
    Retry(backoff_factor=0.1, backoff_base=4, jitter="none")  # 0.1, 0.4, 1.6, 6.4, 25.6 s
    ```

    Args:
        total: How many retries there are beyond the first attempt: a whole number >= 0, or
            `math.inf`.
        status_forcelist: The statuses of a response that are tried again. Empty turns it off.
        allowed_methods: The methods that may be repeated although the server may have acted on
            them; None is any. Others are repeated only where nothing was sent, or where the
            request has an `Idempotency-Key`.
        retry_on: The exceptions that are tried again: a type, several, or a function that says so.
            None is the transport errors of httpx, and for a function decorated with `retry`
            none but `BackPressureError`.
        backoff_factor: Seconds: before retry n, counted from 1, the wait is
            `backoff_factor * backoff_base ** (n - 1)`, less what the jitter takes off.
        backoff_base: See `backoff_factor`.
        backoff_max: Seconds that such a wait takes at most.
        first_delay: Seconds, in the place of that, before retry 1. The jitter is the same, and
            `backoff_max` doesn't count. None is none.
        jitter: "full", at random between 0 and the wait; "equal", at random in its upper half;
            "decorrelated", at random between `backoff_factor` and three times the wait before;
            "none". (AWS, "Exponential Backoff And Jitter".)
        wait: Any of tenacity's wait strategies, in the place of the five settings above.
        respect_retry_after: Whether a wait is at least as long as the server asks for in
            `Retry-After`. Where jitter is on, up to 10 % is added at random, so that what was
            turned away together doesn't come back together.
        retry_after_max: Seconds. A longer `Retry-After` ends the retrying at once; to come back
            sooner would be to ignore it.
        attempt_timeout: Seconds that one attempt may take, on the wall clock; None is no limit.
        deadline: Seconds that everything may take: attempts, waits, and the reading of the body;
            None is no limit.

    Raises:
        ConfigError: A setting is not what it may be. It is a `ValueError`.
    """

    total: float = 5
    status_forcelist: Collection[int] = STATUS_FORCELIST
    allowed_methods: Collection[str] | None = ALLOWED_METHODS
    retry_on: RetryOn | None = None
    backoff_factor: float = 1.0
    backoff_base: float = 2.0
    backoff_max: float = 120.0
    first_delay: float | None = None
    jitter: str = "full"
    wait: Callable[[RetryCallState], float] | None = None
    respect_retry_after: bool = True
    retry_after_max: float = 60.0
    attempt_timeout: float | None = 10.0
    deadline: float | None = 60.0

    def __post_init__(self) -> None:
        self._set("total", whole_number("total", self.total, at_least=0))
        self._set("status_forcelist", _statuses(self.status_forcelist))
        self._set("allowed_methods", _methods(self.allowed_methods))
        self._set("retry_on", _retry_on(self.retry_on))
        number("backoff_factor", self.backoff_factor, at_least=0)
        number("backoff_base", self.backoff_base, at_least=1)
        number("backoff_max", self.backoff_max, at_least=0, infinite=True)
        if self.first_delay is not None:
            number("first_delay", self.first_delay, at_least=0, or_else=", or None")
        if self.jitter not in JITTERS:
            expected = " or ".join(f'"{name}"' for name in JITTERS)
            raise ConfigError("jitter", self.jitter, expected)
        if self.wait is not None and not _is_strategy(self.wait):
            raise ConfigError("wait", self.wait, "one of tenacity's wait strategies, or None")
        if not isinstance(self.respect_retry_after, bool):
            raise ConfigError("respect_retry_after", self.respect_retry_after, "True or False")
        number("retry_after_max", self.retry_after_max, at_least=0, infinite=True)
        self._set("attempt_timeout", positive_seconds("attempt_timeout", self.attempt_timeout))
        self._set("deadline", positive_seconds("deadline", self.deadline))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def delay(
        self,
        n: int,
        retry_after: float | None = None,
        *,
        previous: float | None = None,
        random: HasRandom | Callable[[], float] = _random.random,
    ) -> float | None:
        """Seconds to wait before retry `n`; None where the server asks for more than is waited.

        Args:
            n: The number of the retry, from 1.
            retry_after: Seconds that the server asked for.
            previous: The wait before the retry before; "decorrelated" jitter needs it.
            random: Where random numbers come from: a `random.Random`, or a function that returns
                a number from 0 up to, but not including, 1.
        """
        whole_number("n", n, at_least=1, infinite=False)
        draw = random if callable(random) else random.random
        wait = self._backoff(n, previous, draw) if self.wait is None else self._strategy(n, None)
        return self._at_least(wait, retry_after, draw)

    def _delay_after(
        self, outcome: object, n: int, retry_after: float | None, previous: float | None
    ) -> float | None:
        """The same after an outcome that one of tenacity's strategies may look at."""
        draw = _random.random
        wait = self._backoff(n, previous, draw) if self.wait is None else self._strategy(n, outcome)
        return self._at_least(wait, retry_after, draw)

    def _backoff(self, n: int, previous: float | None, draw: Callable[[], float]) -> float:
        factor, most = self.backoff_factor, self.backoff_max
        if n == 1 and self.first_delay is not None:
            return jittered(self.first_delay, self.jitter, draw)
        if self.jitter == "decorrelated":
            before = factor if previous is None else previous
            return decorrelated(before, draw, factor=factor, most=most)
        wait = exponential(n, factor=factor, base=self.backoff_base, most=most)
        return jittered(wait, self.jitter, draw)

    def _strategy(self, n: int, outcome: object) -> float:
        assert self.wait is not None  # noqa: S101 - for the type checker
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = n
        if isinstance(outcome, Exception):
            state.set_exception((type(outcome), outcome, outcome.__traceback__))
        else:
            state.set_result(outcome)
        seconds: Any = self.wait(state)
        if not isinstance(seconds, int | float):
            raise ConfigError(
                "wait", self.wait, f"a strategy that returns seconds, and no {seconds!r}"
            )
        return max(0.0, seconds)

    def _at_least(
        self, wait: float, retry_after: float | None, draw: Callable[[], float]
    ) -> float | None:
        if retry_after is None or not retry_after > 0 or not self.respect_retry_after:
            return wait
        if retry_after > self.retry_after_max:
            return None
        return at_least(wait, retry_after, None if self.jitter == "none" else draw)

    def _is_retried(self, error: Exception, by_default: tuple[type[Exception], ...]) -> bool:
        """Whether `retry_on`, or where it is None one of these types, says so."""
        if self.retry_on is None:
            return isinstance(error, by_default)
        if isinstance(self.retry_on, tuple):
            return isinstance(error, self.retry_on)
        return bool(self.retry_on(error))  # type: ignore[operator]

    @classmethod
    def from_urllib3(cls, retry: Any, **settings: Any) -> "Retry":
        """The same policy as that of a `urllib3.Retry`, with its waits: 0, 2, 4, 8, 16 factors.

        `status_forcelist` is taken as it is: urllib3 also repeats 413, 429 and 503 that are not in
        it, where they have a `Retry-After`. What urllib3 has no word for (`attempt_timeout`,
        `deadline`, `retry_after_max` in the meaning that it has here) gets its default; `settings`
        override.

        Raises:
            ConfigError: It is none; or has no bound at all, and `settings` have no `total`.
        """
        if not hasattr(retry, "status_forcelist"):
            raise ConfigError("retry", retry, "a urllib3.Retry")
        methods = retry.allowed_methods
        jitter = getattr(retry, "backoff_jitter", 0.0)
        most = getattr(retry, "backoff_max", 120.0)
        taken: dict[str, Any] = {
            "status_forcelist": retry.status_forcelist,
            "allowed_methods": methods or None,
            "backoff_factor": retry.backoff_factor,
            "backoff_max": most,
            "first_delay": 0.0,
            "jitter": "none",
            "respect_retry_after": retry.respect_retry_after_header,
        }
        if "total" not in settings:
            taken["total"] = _total_of(retry)
        if jitter:
            wait = AddedJitter(factor=retry.backoff_factor, jitter=jitter, most=most)
            taken |= {"jitter": "full", "wait": wait}
        return cls(**(taken | settings))


@dataclass(frozen=True)
class AddedJitter(wait_base):  # type: ignore[misc, unused-ignore]
    """urllib3's `backoff_jitter`, as one of tenacity's wait strategies: it is added."""

    factor: float
    jitter: float
    most: float

    def __call__(self, retry_state: RetryCallState) -> float:
        """Nothing before retry 1; before the others, the backoff and up to `jitter` more."""
        n = retry_state.attempt_number
        if n == 1:
            return 0.0
        backoff = exponential(n, factor=self.factor, base=2, most=math.inf)
        return min(self.most, backoff + self.jitter * _random.random())  # noqa: S311


def _total_of(retry: Any) -> float:
    if retry.total is not None:
        return int(retry.total)
    others = (
        retry.connect,
        retry.read,
        retry.redirect,
        retry.status,
        getattr(retry, "other", None),
    )
    counts = [int(count) for count in others if count is not None]
    if not counts:
        raise ConfigError("total", None, "a whole number, or another of urllib3's counters one")
    return max(counts)


def _is_strategy(value: object) -> bool:
    """Whether it can be called for a wait; `wait_fixed` without its argument makes a strategy."""
    return callable(value) and not isinstance(value, type) and not is_async(value)


def _statuses(value: object) -> frozenset[int]:
    expected = "statuses from 100 to 599"
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigError("status_forcelist", value, f"a collection of {expected}")
    statuses = []
    for status in value:
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            raise ConfigError("status_forcelist", status, expected)
        statuses.append(int(status))
    return frozenset(statuses)


def _methods(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    expected = 'methods of HTTP, like "GET"'
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigError("allowed_methods", value, f"a collection of {expected}, or None for any")
    methods = list(value)
    for method in methods:
        if not isinstance(method, str) or not method:
            raise ConfigError("allowed_methods", method, expected)
    return frozenset(method.upper() for method in methods)


def _retry_on(value: Any) -> Any:
    expected = "exception types, or a function that is not async and says which"
    if value is None:
        return None
    if isinstance(value, type):
        value = (value,)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        value = tuple(value)
        for each in value:
            if not (isinstance(each, type) and issubclass(each, Exception)):
                raise ConfigError("retry_on", each, expected)
        return value
    if is_async(value) or not callable(value):
        raise ConfigError("retry_on", value, expected)
    return value
