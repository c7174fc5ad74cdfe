"""Waiter: a caller of a limiter, that waits for its turn or has had it."""

import math
from typing import TYPE_CHECKING

from loadshed._policy.deadline import Deadline
from loadshed._policy.standing import USUAL, Standing
from loadshed._policy.ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadshed._sleeper import Sleeper


class Waiter(Ticket):
    """A ticket whose caller sleeps until it is settled.

    Attributes:
        max_wait: How many seconds it waits at most, by the limiter or by its deadline.
        refusal: What makes the error of one that was dismissed.
        sleeper: What its caller sleeps with; None where it need not.
    """

    __slots__ = ("max_wait", "refusal", "sleeper")

    def __init__(
        self,
        time: float,
        max_wait: float | None,
        deadline: Deadline | None = None,
        standing: Standing = USUAL,
    ) -> None:
        expires_at = math.inf if max_wait is None else time + max_wait
        ends_at = math.inf if deadline is None else deadline.at
        criticality, tenant, cost = standing
        super().__init__(
            expires_at, deadline=ends_at, criticality=criticality, tenant=tenant, cost=cost
        )
        if deadline is not None and deadline.at <= expires_at:
            max_wait = deadline.seconds
        self.max_wait = max_wait
        self.refusal: Callable[[], Exception] | None = None
        self.sleeper: Sleeper | None = None
