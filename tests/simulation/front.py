"""Front: what the middleware does, in virtual time: it asks the admission, and carries it out."""

from loadshed._policy.admission import Admission
from loadshed._policy.ticket import State
from tests.simulation.loop import Loop
from tests.simulation.request import Request
from tests.simulation.services import Service
from tests.simulation.tally import Tally


class Front:
    """A real `Admission` in front of a simulated service.

    A client that gives up leaves the queue. A service goes on working for a client that has left,
    and its slot is held until it is done; then the limit is told that it was in vain.
    """

    __slots__ = ("_loop", "_service", "_tally", "admission")

    def __init__(
        self, loop: Loop, service: Service, admission: Admission[Request], tally: Tally
    ) -> None:
        self._loop = loop
        self._service = service
        self._tally = tally
        self.admission = admission

    def arrive(self, now: float, request: Request) -> None:
        """A request is there, and has been read."""
        settled = self.admission.offer(request, now)
        state = request.state
        if state is State.ADMITTED:
            self._service.start(now, request)
        elif state is not State.QUEUED:
            self.turn_away(now, request)
        if state is State.QUEUED or request.source.retries:
            self._loop.at(max(now, request.gives_up_at), self._give_up, request)
        if settled:
            self._tell(now, settled)

    def finish(self, now: float, request: Request) -> None:
        """The service is done with a request."""
        request.is_answered = True
        in_time = now <= request.gives_up_at
        if in_time:
            self._tally.good[int(now)] += 1
        settled = self.admission.release(request, now, in_time)
        if settled:
            self._tell(now, settled)

    def turn_away(self, now: float, request: Request) -> None:
        """A request is shed: answered at once, with nothing done."""
        self._service.refuse(now, request)
        request.source.fail(now, request)

    def _give_up(self, now: float, request: Request) -> None:
        if request.state is State.QUEUED:
            settled = self.admission.abandon(request, now)
            request.source.fail(now, request)
            if settled:
                self._tell(now, settled)
        elif request.state is State.ADMITTED and not request.is_answered:
            request.source.fail(now, request)

    def _tell(self, now: float, settled: list[Request]) -> None:
        for request in settled:
            if request.state is State.ADMITTED:
                self._service.start(now, request)
            else:
                self.turn_away(now, request)
