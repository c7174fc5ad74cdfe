"""Limit: how many may be ongoing."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Limit(Protocol):
    """How many requests may be ongoing at once: a rule that learns from those that end.

    It is a pure object: time is told to it, and it does nothing by itself. One serves one limiter.
    Where it raises, or says what is no limit, the one from before holds, and the log says so once.

    Attributes:
        limit: How many, as things stand: a whole number >= 1, or `math.inf`.
        reason: Why that last changed, in a few words for people; "" where it never did.
    """

    @property
    def limit(self) -> float: ...

    @property
    def reason(self) -> str: ...

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        """A request has ended.

        Args:
            now: The time, in seconds.
            seconds: How long it held its slot.
            ok: False where it was of no use, for a reason that fewer at once would help: a timeout,
                a caller that left, a dependency that said that it is overloaded. An ordinary error
                is no such reason.
            ongoing: How many were ongoing before it ended, itself included; no less than `limit`
                where somebody waited.
        """


class FixedLimit:
    """A number that somebody chose.

    Args:
        limit: How many requests may be ongoing: a whole number >= 1, or `math.inf`.
    """

    __slots__ = ("limit",)

    reason = ""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        """Learn nothing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit})"
