"""Request: one attempt of a client, on its way through an admission and a service."""

from typing import TYPE_CHECKING

from loadshed._policy.ticket import Ticket

if TYPE_CHECKING:
    from tests.simulation.clients import Source
    from tests.simulation.front import Front


class Request(Ticket):
    """One attempt.

    Attributes:
        source: Whose it is.
        front: Where it goes.
        work: How many seconds it takes where nothing holds it up.
        arrived: When it was sent.
        gives_up_at: When its client leaves.
        attempt: 0, or the number of the retry.
        is_answered: Whether the service is done with it.
    """

    __slots__ = ("arrived", "attempt", "front", "gives_up_at", "is_answered", "source", "work")

    def __init__(
        self,
        *,
        source: "Source",
        front: "Front",
        work: float,
        arrived: float,
        gives_up_at: float,
        attempt: int,
    ) -> None:
        clients = source.clients
        super().__init__(  # nobody tells the limiter when its client will leave
            criticality=clients.criticality, tenant=clients.tenant, cost=clients.cost
        )
        self.source = source
        self.front = front
        self.work = work
        self.arrived = arrived
        self.gives_up_at = gives_up_at
        self.attempt = attempt
        self.is_answered = False
