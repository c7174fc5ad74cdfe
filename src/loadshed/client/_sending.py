"""Sending: one attempt at a request, with the headers and the timeouts that go out with it."""

import math
from typing import Any

from loadshed._policy.breaker import BLOCKED
from loadshed.client._family import SIMPLE

READ = "loadshed.read"
"""The request's extension by which the ready clients say that the body is read at once, so that
reading it is a part of the attempt."""

TIMEOUT_HEADER = "x-request-timeout-seconds"
ATTEMPT_HEADER = "x-retry-attempt"

HEADWAY = 1 / 32
MOST_HEADWAY = 0.05
"""By how much (a part, and seconds at most) httpx's own timeouts end before the attempt does. They
know what they waited for, so that a request that was not sent can be told from one that was, and
they don't cancel a request that waits for a connection (see `_pool`)."""

Timeouts = dict[str, float | None]


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

    def prepare(self, retries: int = 0, body: Any = None, *, propagate: bool) -> None:
        """Make what differs from the caller's request: its headers, its timeouts, its body."""
        limit = self.limit
        self.request = request = copied(self.request)
        if limit < math.inf:
            extensions = request.extensions
            self.timeouts = _shortened(extensions.get("timeout", _NONE), limit)
            request.extensions = {**extensions, "timeout": self.timeouts}
            if propagate:
                request.headers = with_header(request.headers, TIMEOUT_HEADER, f"{limit:.3f}")
        if retries and propagate:
            request.headers = with_header(request.headers, ATTEMPT_HEADER, str(retries))
        if body is not None:
            request.stream = body

    def body_may_take(self, seconds: float, given: Any) -> None:
        """The headers of the response are there, and this is left for the body.

        httpx's transports look at the read timeout once more when the body is read.
        """
        if self.timeouts is not None:
            read = given.get("timeout", _NONE).get("read")
            most = max(0.001, seconds)
            self.timeouts["read"] = most if read is None or read > most else read
            if self.timeouts["read"] == math.inf:
                self.timeouts["read"] = None


_NONE: Timeouts = {}


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


def with_header(headers: Any, name: str, value: str) -> Any:
    """The headers and one more, unless the user has set that."""
    more = type(headers)(headers)
    raw = getattr(more, "_list", None)
    if raw is None:  # another version of httpx
        more.setdefault(name, value)
        return more
    # A fifth of the time of that, for every request.
    key = name.encode()
    for _, known, _ in raw:
        if known == key:
            return headers
    raw.append((key, key, value.encode()))
    return more


def _shortened(timeouts: Timeouts, limit: float) -> Timeouts:
    """The timeouts of httpx, none of them longer than the attempt."""
    most = limit - min(MOST_HEADWAY, limit * HEADWAY)
    connect, read = timeouts.get("connect"), timeouts.get("read")
    write, pool = timeouts.get("write"), timeouts.get("pool")
    # Written out: it is done for each request.
    return {
        "connect": most if connect is None or connect > most else connect,
        "read": most if read is None or read > most else read,
        "write": most if write is None or write > most else write,
        "pool": most if pool is None or pool > most else pool,
    }
