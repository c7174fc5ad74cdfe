"""What a caller says of its own patience, in two headers, and how much of it is believed."""

import re
from collections.abc import Iterable
from typing import NamedTuple

TIMEOUT = b"x-request-timeout-seconds"
"""How many seconds the caller still waits."""

ATTEMPT = b"x-retry-attempt"
"""The number of the retry, from 1; who sends a request for the first time leaves it out."""

LONGEST = 24 * 60 * 60
"""Seconds beyond which a timeout is absurd: nobody waits for an answer for more than a day."""

MOST = 1000
"""The number beyond which a retry is absurd."""

# As the client writes them. `float` and `int` take much more: signs, exponents, "nan", spaces,
# underscores, the digits of other scripts.
_SECONDS = re.compile(rb"[0-9]{1,5}(?:\.[0-9]{1,20})?")
_NUMBER = re.compile(rb"[0-9]{1,4}")


class Deadline(NamedTuple):
    """When an answer stops being of use to the caller.

    Attributes:
        came_at: When the request arrived.
        seconds: How long its caller waits from then on.
    """

    came_at: float
    seconds: float

    @property
    def at(self) -> float:
        """The time from which on nobody waits for the answer."""
        return self.came_at + self.seconds


class Said(NamedTuple):
    """What a request's headers say of its caller.

    Attributes:
        seconds: How long it still waits; None where it doesn't say, or nothing to be believed.
        is_retry: Whether this is another attempt.
        ignored: How many values are malformed or absurd.
    """

    seconds: float | None
    is_retry: bool
    ignored: int


_NOTHING = Said(None, is_retry=False, ignored=0)


def read(headers: Iterable[Iterable[bytes]]) -> Said:
    """Read both headers, in one pass.

    A header that comes more than once says nothing: which of them was meant can't be told.
    """
    timeouts: list[bytes] = []
    attempts: list[bytes] = []
    for name, value in headers:
        if name == TIMEOUT:
            timeouts.append(value)
        elif name == ATTEMPT:
            attempts.append(value)
    if not timeouts and not attempts:
        return _NOTHING
    seconds = parse_timeout(timeouts[0]) if len(timeouts) == 1 else None
    attempt = parse_attempt(attempts[0]) if len(attempts) == 1 else None
    ignored = (len(timeouts) if seconds is None else 0) + (len(attempts) if attempt is None else 0)
    return Said(seconds, is_retry=attempt is not None, ignored=ignored)


def parse_timeout(value: bytes) -> float | None:
    """Seconds, at most `LONGEST`; None where it is anything but a plain decimal number."""
    if _SECONDS.fullmatch(value) is None:
        return None
    seconds = float(value)
    return seconds if seconds <= LONGEST else None


def parse_attempt(value: bytes) -> int | None:
    """A whole number, 1 to `MOST`; None where it is anything else."""
    if _NUMBER.fullmatch(value) is None:
        return None
    attempt = int(value)
    return attempt if 1 <= attempt <= MOST else None
