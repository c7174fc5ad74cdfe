"""Services: what becomes of the requests that were admitted."""

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from tests.simulation.loop import Loop
from tests.simulation.request import Request
from tests.simulation.steps import Steps

NEVER, ALWAYS = Steps(0), Steps(1)

Gate = Callable[[float, float], bool]
"""Whether a request may go to the admission, by the time, and by how many seconds it has waited
in the event loop before it was looked at."""


class Service(ABC):
    """What stands behind an admission, and tells its front when a request is done.

    Attributes:
        gate: Asked before the admission by a service that has an event loop; None asks nobody.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.gate: Gate | None = None

    def receive(self, now: float, request: Request) -> None:
        """A request has come: it is read, and then is its front's."""
        request.front.arrive(now, request)

    @abstractmethod
    def start(self, now: float, request: Request) -> None:
        """A request was admitted."""

    def refuse(self, now: float, request: Request) -> None:  # noqa: B027 - mostly nothing
        """A request was turned away: what that costs."""


class Slots(Service):
    """So many slots at full speed; the others wait inside, first come first served.

    Args:
        loop: The loop.
        slots: How many. Where they become fewer, those at work end what they do.
        slowness: How many times as long the work takes that begins now.
        least: How many seconds it takes at the least.
    """

    def __init__(
        self, loop: Loop, slots: Steps, slowness: Steps = ALWAYS, least: Steps = NEVER
    ) -> None:
        super().__init__(loop)
        self.slots = slots.first
        self.slowness = slowness.first
        self.least = least.first
        self.busy = 0
        self.waiting: deque[Request] = deque()
        for time, number in slots.changes:
            loop.at(time, self._change_slots, number)
        for time, number in slowness.changes:
            loop.at(time, self._change_slowness, number)
        for time, number in least.changes:
            loop.at(time, self._change_least, number)

    def start(self, now: float, request: Request) -> None:
        """Begin, or wait inside."""
        if self.busy + request.cost <= self.slots and not self.waiting:
            self._begin(now, request)
        else:
            self.waiting.append(request)

    def _finish(self, now: float, request: Request) -> None:
        self.busy -= request.cost
        self._fill(now)
        request.front.finish(now, request)

    def _begin(self, now: float, request: Request) -> None:
        self.busy += request.cost
        seconds = max(self.least, request.work * self.slowness)
        self.loop.at(now + seconds, self._finish, request)

    def _fill(self, now: float) -> None:
        while self.waiting and self.busy + self.waiting[0].cost <= self.slots:
            self._begin(now, self.waiting.popleft())

    def _change_slots(self, now: float, number: float) -> None:
        self.slots = number
        self._fill(now)

    def _change_slowness(self, now: float, number: float) -> None:
        self.slowness = number

    def _change_least(self, now: float, number: float) -> None:
        self.least = number


class Sharing(Service):
    """All at once; beyond so many the speed is shared.

    What is attained is the same for all that have been there as long, so each is done when that
    has grown by its work: only the next to be done has to be known, from a heap.

    Args:
        loop: The loop.
        full: How many are served at full speed.
        drag: By what part of itself the work of all grows for each one beyond that.
    """

    def __init__(self, loop: Loop, full: int, drag: float = 0) -> None:
        super().__init__(loop)
        self.full = full
        self.drag = drag
        self.attained = 0.0
        self.since = 0.0
        self.speed = 1.0
        self.jobs: list[tuple[float, int, Request]] = []
        self.serial = 0

    def start(self, now: float, request: Request) -> None:
        """Begin at once, and slow the others down."""
        self._advance(now)
        self.serial += 1
        heapq.heappush(self.jobs, (self.attained + request.work, self.serial, request))
        self._plan(now)

    def _finish(self, now: float, serial: int) -> None:
        if serial != self.serial:
            return  # somebody came or went after this was planned
        self._advance(now)
        self.attained, _, request = heapq.heappop(self.jobs)
        self._plan(now)
        request.front.finish(now, request)

    def _advance(self, now: float) -> None:
        self.attained = self.attained + (now - self.since) * self.speed if self.jobs else 0.0
        self.since = now

    def _plan(self, now: float) -> None:
        self.serial += 1
        if self.jobs:
            jobs, full = len(self.jobs), self.full
            self.speed = full / jobs / (1 + self.drag * (jobs - full)) if jobs > full else 1.0
            left = max(0.0, self.jobs[0][0] - self.attained)
            self.loop.at(now + left / self.speed, self._finish, self.serial)
