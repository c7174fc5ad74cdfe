"""How long to wait before a retry, and what a server's Retry-After asks for."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime

Draw = Callable[[], float]
"""Gives a random number from 0 up to, but not including, 1."""

JITTERS = ("none", "full", "equal", "decorrelated")
"""The names are those of AWS' article, "Exponential Backoff And Jitter"."""

SPREAD = 0.1
"""The part of a wait asked for by Retry-After by which it is lengthened at most, at random: what
was shed together must not come back together."""


def exponential(n: int, *, factor: float, base: float, most: float) -> float:
    """The wait before retry `n`, from 1: `factor * base ** (n - 1)`, at most `most`."""
    try:
        # Of a whole number the power would be one of millions of digits.
        return min(most, factor * float(base) ** (n - 1))
    except OverflowError:
        return most if factor else 0.0


def jittered(wait: float, kind: str, draw: Draw) -> float:
    """A wait at random: "full" between 0 and `wait`, "equal" in the upper half of that."""
    if wait == math.inf:
        return wait  # 0 times this is no number
    if kind == "full":
        return wait * draw()
    if kind == "equal":
        return wait / 2 + wait / 2 * draw()
    return wait


def decorrelated(previous: float, draw: Draw, *, factor: float, most: float) -> float:
    """A wait at random between `factor` and three times the wait before."""
    return min(most, factor + max(0.0, 3 * previous - factor) * draw())


def at_least(wait: float, floor: float, draw: Draw | None) -> float:
    """The longer of a wait and what Retry-After asks for, and a little more at random."""
    longer = max(wait, floor)
    return longer if draw is None else longer * (1 + SPREAD * draw())


_SECONDS = re.compile(r"[0-9]+", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        rf"[a-z]{{3}}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"[a-z]{{6,9}}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",
        rf"[a-z]{{3}} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)


def parse_retry_after(value: str, now: float) -> float | None:
    """The seconds that a Retry-After header asks for; None where it asks for none.

    Whole seconds, or a date in one of the three forms of RFC 9110 (5.6.7), all of which are in GMT.
    What is malformed, 0 or in the past asks for none.

    Args:
        value: The header's.
        now: The time in seconds since 1970 that a date is compared with.
    """
    value = value.strip(" \t")
    if _SECONDS.fullmatch(value):
        return float(value) or None
    date = parse_date(value, now)
    return date - now if date is not None and date > now else None


def parse_date(value: str, now: float) -> float | None:
    """The seconds since 1970 of an HTTP date; None where it is none.

    By hand, as `strptime` knows the months of the process's locale only.
    """
    for pattern in _DATES:
        if match := pattern.fullmatch(value.strip(" \t")):
            return _timestamp(match.groupdict(), now)
    return None


def _timestamp(parts: dict[str, str], now: float) -> float | None:
    year = int(parts["year"])
    if len(parts["year"]) == 2:
        # RFC 9110: two digits that seem to be more than 50 years ahead are in the past.
        this_year = datetime.fromtimestamp(now, UTC).year
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    month = _MONTHS.index(parts["month"].lower()) + 1
    day, hour, minute = int(parts["day"]), int(parts["hour"]), int(parts["minute"])
    second = int(parts["second"])
    try:
        # A leap second is the first of the next minute.
        date = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return date.timestamp() + (second == 60) if second <= 60 else None
