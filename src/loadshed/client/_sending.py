"""Sending: one attempt at a request, with the headers and the timeouts that go out with it."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from loadshed._policy.breaker import BLOCKED
from loadshed._policy.criticality import HEADER as CRITICALITY_HEADER
from loadshed._policy.criticality import Criticality
from loadshed._policy.deadline import LONGEST
from loadshed.client._family import SIMPLE

READ = "loadshed.read"
"""The request's extension by which the ready clients say that the body is read at once, so that
reading it is a part of the attempt."""

TIMEOUT_HEADER = b"x-request-timeout-seconds"
ATTEMPT_HEADER = b"x-retry-attempt"

HEADWAY = 1 / 32
MOST_HEADWAY = 0.05
"""By how much (a part, and seconds at most) httpx's own timeouts end before the attempt does. They
know what they waited for, so that a request that was not sent can be told from one that was, and
they don't cancel a request that waits for a connection (see `_pool`)."""


class Timeouts(dict[str, float | None]):
    """The timeouts of httpx for one attempt, none of which goes beyond the attempt's end.

    httpx's transports ask for each of them with `get` when the operation begins; what is left by
    then is less than it was when the attempt began.

    Attributes:
        ends_at: When the attempt has to be over.
        clock: What time it is.
    """

    __slots__ = ("clock", "ends_at")

    clock: Callable[[], float]
    ends_at: float

    def get(self, key: str, default: Any = None) -> Any:
        """The timeout of an operation that begins now."""
        given = super().get(key, default)
        left = self.ends_at - self.clock()
        if given is not None and given < left:
            return given
        return None if left == math.inf else max(LEAST, left)


LEAST = 0.001
"""Seconds: to some operations 0 means not to wait at all, and not even to look."""


class Sending:
    """One attempt that is under way.

    Only a copy of the request can go out with other headers and timeouts: the request is the
    caller's, who may look at it and send it again.

    Args:
        request: The caller's.
        began: When.
        limit: Seconds that it may take; `math.inf` is no limit.
        delay: Seconds that were waited before.
        circuit: What the breaker gave.

    Attributes:
        request: What is sent.
        timeouts: httpx's own, which end before; None where they are the request's.
    """

    __slots__ = ("began", "circuit", "delay", "limit", "request", "timeouts")

    def __init__(
        self,
        request: Any,
        began: float,
        limit: float,
        delay: float = 0.0,
        circuit: int = BLOCKED,
    ) -> None:
        self.request = request
        self.began = began
        self.limit = limit
        self.delay = delay
        self.circuit = circuit
        self.timeouts: Timeouts | None = None

    @property
    def ends_at(self) -> float:
        """When it has to be over."""
        return self.began + self.limit

    def prepare(
        self,
        clock: Callable[[], float],
        retries: int = 0,
        body: Any = None,
        *,
        propagate: bool,
        criticality: Criticality | None = None,
    ) -> None:
        """Make what differs from the caller's request: its headers, its timeouts, its body."""
        limit = self.limit
        self.request = request = copied(self.request)
        if limit < math.inf:
            extensions = request.extensions
            most = limit - min(MOST_HEADWAY, limit * HEADWAY)
            self.timeouts = timeouts = _shortened(extensions.get("timeout", _NONE), most)
            timeouts.clock, timeouts.ends_at = clock, self.began + most
            request.extensions = {**extensions, "timeout": self.timeouts}
            if propagate and limit <= LONGEST:
                request.headers = with_header(request.headers, TIMEOUT_HEADER, _text(limit))
        if retries and propagate:
            request.headers = with_header(request.headers, ATTEMPT_HEADER, b"%d" % retries)
        if criticality is not None:
            name = criticality.name.encode()
            request.headers = with_header(request.headers, CRITICALITY_HEADER, name)
        if body is not None:
            request.stream = body

    def body_may_take_until(self, ends_at: float, given: Any) -> None:
        """The headers of the response are there, and the body has until then.

        httpx's transports look at the read timeout once more when the body is read.
        """
        if self.timeouts is not None:
            self.timeouts["read"] = given.get("timeout", _NONE).get("read")
            self.timeouts.ends_at = ends_at


_NONE: dict[str, float | None] = {}


def copied(request: Any) -> Any:
    """A shallow copy. `copy.copy` would lose the body: httpx's requests are pickled without it."""
    copy = object.__new__(type(request))
    if type(request) not in SIMPLE:
        vars(copy).update(vars(request))
        return copy
    # One by one, as to ask for the dict of an object makes one. It costs more than all of these.
    copy.method = request.method
    copy.url = request.url
    copy.headers = request.headers
    copy.extensions = request.extensions
    copy.stream = request.stream
    if (content := getattr(request, "_content", None)) is not None:
        copy._content = content
    return copy


@lru_cache(maxsize=64)  # nearly always the same
def _text(seconds: float) -> bytes:
    return b"%.3f" % seconds


def with_header(headers: Any, name: bytes, value: bytes) -> Any:
    """The headers and one more, unless the user has set that."""
    more = type(headers)(headers)
    raw = getattr(more, "_list", None)
    if raw is None:  # another version of httpx
        more.setdefault(name.decode(), value.decode())
        return more
    # A fifth of the time of that, for every request.
    for _, known, _ in raw:
        if known == name:
            return headers
    raw.append((name, name, value))
    return more


def _shortened(timeouts: dict[str, float | None], most: float) -> Timeouts:
    """The timeouts of httpx, none of them longer than the attempt."""
    connect, read = timeouts.get("connect"), timeouts.get("read")
    write, pool = timeouts.get("write"), timeouts.get("pool")
    # Written out: it is done for each request.
    return Timeouts(
        connect=most if connect is None or connect > most else connect,
        read=most if read is None or read > most else read,
        write=most if write is None or write > most else write,
        pool=most if pool is None or pool > most else pool,
    )
