"""What can be seen of retries while they happen: `on_event`, and the log."""

import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from loadshed._around import is_async
from loadshed._errors import ConfigError
from loadshed._policy.course import Attempt

logger = logging.getLogger("loadshed.client")

Kind = Literal["retry", "hedge", "stop"]


class Event(NamedTuple):
    """What `on_event` is called with.

    Attributes:
        kind: "retry", before the wait for another attempt; "hedge", when a request is sent a
            second time; "stop", when a request that failed at least once is over.
        subject: The request, or the decorated function.
        attempt: The latest attempt that is over; None before there is one.
        delay: Seconds until the next attempt.
        stopped: Why there is no other attempt: see `History`. Empty but for "stop".
    """

    kind: Kind
    subject: Any
    attempt: Attempt | None
    delay: float = 0.0
    stopped: str = ""


OnEvent = Callable[[Event], object]


def checked_on_event(on_event: OnEvent | None) -> OnEvent | None:
    """`on_event` as it is, or the error that says what it may be."""
    if on_event is not None and (is_async(on_event) or not callable(on_event)):
        raise ConfigError("on_event", on_event, "a callable that is not async, or None")
    return on_event


def tell(on_event: OnEvent | None, event: Event) -> None:
    """Log it, at a level that is silent by default, and call the hook."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s", _line(event))
    if on_event is not None:
        on_event(event)


def _line(event: Event) -> str:
    what = ""
    if event.attempt is not None:
        came_to = event.attempt.status if event.attempt.error is None else event.attempt.error
        what = f" after {came_to!r} in {event.attempt.elapsed:.3f} s"
    if event.kind == "retry":
        return f"Trying {event.subject!r} again in {event.delay:.3f} s{what}."
    if event.kind == "hedge":
        return f"Sending {event.subject!r} once more while it is under way."
    return f"Done with {event.subject!r}{what}: {event.stopped}."
