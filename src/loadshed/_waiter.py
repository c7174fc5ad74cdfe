"""Waiter: a caller in the queue of a limiter."""

import math
from typing import TYPE_CHECKING

from loadshed._policy.admission import Ticket
from loadshed._policy.deadline import Deadline
from loadshed._sleeper import Sleeper

if TYPE_CHECKING:
    from collections.abc import Callable


class Waiter(Ticket):
    """A ticket whose caller sleeps until it is settled.

    Attributes:
        max_wait: How many seconds it waits at most, by the limiter or by its deadline.
        refusal: What makes the error of one that was dismissed.
    """

    __slots__ = ("max_wait", "refusal", "sleeper")

    def __init__(
        self, time: float, max_wait: float | None, deadline: Deadline | None = None
    ) -> None:
        expires_at = math.inf if max_wait is None else time + max_wait
        super().__init__(expires_at, deadline=math.inf if deadline is None else deadline.at)
        if deadline is not None and deadline.at <= expires_at:
            max_wait = deadline.seconds
        self.max_wait = max_wait
        self.refusal: Callable[[], Exception] | None = None
        self.sleeper = Sleeper()
