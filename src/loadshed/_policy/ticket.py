"""Ticket: one request on its way through an `Admission`."""

import math
from collections.abc import Hashable
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from loadshed._policy.criticality import Criticality

if TYPE_CHECKING:
    from loadshed._policy.line.row import Row


class State(Enum):
    """Where a ticket stands."""

    NEW = "new"
    """Not offered yet."""
    QUEUED = "queued"
    """In the line: some later step settles it."""
    ADMITTED = "admitted"
    """It holds a permit and has to release it."""
    SHED = "shed"
    """Turned away on arrival: the queue was full, or its deadline could not be met."""
    EXPIRED = "expired"
    """Turned away from the queue: `expires_at` came before its turn, its deadline before its caller
    could use the permit, or another request for which it had to go."""
    ABANDONED = "abandoned"
    """Its caller left before it had, or could use, a permit."""


class Ticket:
    """One request on its way through an `Admission`.

    What a policy asks of a request is a field here.

    Args:
        expires_at: The time after which it is not worth admitting; `math.inf` is never.
        deadline: The time after which its caller has no use for an answer; `math.inf` is never.
        criticality: How much it matters.
        tenant: Whose it is; None where nobody tells tenants apart.
        cost: How many slots it takes.

    Attributes:
        counts_for_class: Whether the slots that it holds are counted for its class.
        expires_at: The time at which it leaves the line: the earlier of the two.
        reason: Why it was turned away; None where it was not.
        row: Where it waits; None where it does not.
        slots: How many slots it holds: its cost, or all there were where it costs more.
        started_at: When it was admitted.
    """

    __slots__ = (
        "cost",
        "counts_for_class",
        "criticality",
        "deadline",
        "expires_at",
        "reason",
        "row",
        "slots",
        "started_at",
        "state",
        "tenant",
    )

    def __init__(
        self,
        expires_at: float = math.inf,
        *,
        deadline: float = math.inf,
        criticality: Criticality = Criticality.CRITICAL,
        tenant: Hashable = None,
        cost: int = 1,
    ) -> None:
        self.expires_at = expires_at if expires_at < deadline else deadline
        self.deadline = deadline
        self.criticality = criticality
        self.tenant = tenant
        self.cost = cost
        self.counts_for_class = False
        self.slots: float = 0
        self.started_at = 0.0
        self.reason: str | None = None
        self.row: Row[Any] | None = None
        self.state = State.NEW


TicketT = TypeVar("TicketT", bound=Ticket)
