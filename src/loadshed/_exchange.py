"""Exchange: one request of an ASGI server, and what was sent in answer so far."""

import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import anyio

from loadshed._errors import BackPressureError, LoadShedError
from loadshed._limiter import ConcurrencyLimiter
from loadshed._policy.deadline import Deadline
from loadshed._waiter import Waiter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PRELIMINARY = frozenset({"http.response.debug", "http.response.early_hint", "http.response.push"})
"""The kinds of message that may be sent before a response begins."""

LAST = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
"""The kinds of message that end a response, unless they say that more is to come."""

TRY_AGAIN_LATER = 1013
"""The websocket close code for an overloaded server, as registered with IANA."""

INTERNAL_ERROR = 1011
"""The websocket close code for a server that can't fulfill the request."""

TO_ANSWER = 1.0
"""Seconds in which a request that was shed is answered, though its `request_timeout_s` is over."""


class Exchange:
    """One request: where it is read, what was sent in answer so far, and its permit."""

    __slots__ = (
        "_send",
        "complete",
        "has_left",
        "holds_permit",
        "limiter",
        "receive",
        "started",
        "time",
        "waiter",
    )

    deadline: Deadline | None = None  # no slot, which every request would have to fill

    def __init__(self, limiter: ConcurrencyLimiter, receive: Receive, send: Send) -> None:
        self.limiter = limiter
        self.holds_permit = False
        self.waiter: Waiter | None = None  # its ticket, where it has one
        self.has_left = False  # nobody waits for the answer, as far as that was noticed
        self.receive = receive
        self._send = send
        self.started = False  # the server may have sent the first byte
        self.complete = False  # it has been given the last one
        self.time: anyio.CancelScope | None = None

    def send(self, message: Message) -> Awaitable[None]:
        if not self.started:
            self.started = message["type"] not in PRELIMINARY
        if message["type"] not in LAST or message.get("more_body", False):
            return self._send(message) if self.waiter is None else self._send_watched(message)
        return self._send_last(message)

    async def _send_watched(self, message: Message) -> None:
        """Send, and note where the server says that nobody is there any more (ASGI 2.4)."""
        try:
            await self._send(message)
        except OSError:
            self.has_left = True
            raise

    async def _send_last(self, message: Message) -> None:
        try:
            await self._send(message)
        except BaseException:
            self.release(of_use=False)
            raise
        self.complete = True
        self.release()
        if self.time is not None:
            self.time.deadline = math.inf  # what runs on in the background has its own time

    def is_granted(self, waiter: Waiter) -> None:
        """It has waited, and takes its permit."""
        self.waiter = waiter
        self.holds_permit = True

    def is_shed(self) -> None:
        """It is turned away, and has to be answered."""

    def release(self, *, of_use: bool = True) -> None:
        """Give the permit back, once, and tell whether it was of use."""
        if self.holds_permit:
            self.holds_permit = False
            self.limiter._release(self.waiter, of_use and not self.has_left)

    async def refuse(self, scope: Scope, status: HTTPStatus, error: LoadShedError) -> None:
        """Answer that there will be no answer, in whatever way the connection allows."""
        if can_answer(scope):
            await self.send_problem(scope, status, error)
            return
        code, reason = INTERNAL_ERROR, ""
        if isinstance(error, BackPressureError):
            code, reason = TRY_AGAIN_LATER, f"Try again in {error.retry_after} s."
        await self.send({"type": "websocket.close", "code": code, "reason": reason})

    async def send_problem(self, scope: Scope, status: HTTPStatus, error: LoadShedError) -> None:
        """Answer with problem details (RFC 9457)."""
        prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        body, length = _problem(status, str(error))
        headers = [(b"content-type", b"application/problem+json"), length]
        if isinstance(error, BackPressureError):
            # Whole seconds, whatever an error of the application's own says.
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
        self.started = True
        await self._send({"type": prefix + ".start", "status": int(status), "headers": headers})
        await self._send({"type": prefix + ".body", "body": body})
        self.complete = True


class DeadlineExchange(Exchange):
    """One request whose caller has said how long it still waits.

    What ends it at its deadline depends on how far it is. In the queue that is the queue: a request
    that was never begun is shed, with 503. `time` has no say meanwhile, or chance would decide
    which of two timers for the same instant comes first. Once it runs, `time` ends it, with 504.

    Attributes:
        seconds: How many seconds `time` allows it.
    """

    __slots__ = ("_timeout", "deadline", "seconds")

    time: anyio.CancelScope
    deadline: Deadline

    def __init__(
        self, limiter: ConcurrencyLimiter, receive: Receive, send: Send, timeout: float | None
    ) -> None:
        super().__init__(limiter, receive, send)
        self._timeout = self.seconds = math.inf if timeout is None else timeout
        self.time = anyio.CancelScope()

    def arrive(self, left: float) -> None:
        """Raises where nothing is left."""
        try:
            self.deadline = self.limiter._deadline_in(left)
        except BackPressureError:
            self.time.deadline = self.limiter._clock.now() + self._timeout
            raise
        if self.limiter._has_room() or not self._ends_at_its_deadline:
            self._allow(min(left, self._timeout))
        # Otherwise it waits, and `time` is told of no deadline, which may just have passed: then it
        # would be cancelled at once, and for good.

    def is_granted(self, waiter: Waiter) -> None:
        self.limiter._claim(waiter)
        super().is_granted(waiter)
        self._allow(min(self.deadline.seconds, self._timeout))

    def is_shed(self) -> None:
        if self._ends_at_its_deadline and not self.time.cancel_called:
            # The two may be the same instant, and then nothing would be left for the answer.
            earliest = self.limiter._clock.now() + TO_ANSWER
            self.time.deadline = max(self.deadline.came_at + self._timeout, earliest)
            self.seconds = self._timeout

    @property
    def _ends_at_its_deadline(self) -> bool:
        """And not before it, by `request_timeout_s`."""
        return self.deadline.seconds <= self._timeout

    def _allow(self, seconds: float) -> None:
        self.seconds = seconds
        self.time.deadline = self.deadline.came_at + seconds


def can_answer(scope: Scope) -> bool:
    """Whether the request can be answered over HTTP: some servers can't where it is a websocket."""
    return scope["type"] == "http" or "websocket.http.response" in (scope.get("extensions") or {})


@lru_cache(maxsize=64)  # under overload the same is said again and again
def _problem(status: HTTPStatus, detail: str) -> tuple[bytes, tuple[bytes, bytes]]:
    """The body, and the header that tells its length."""
    details = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }
    body = json.dumps(details).encode()
    return body, (b"content-length", b"%d" % len(body))
