"""One CPU: the event loop of a Python server, where reading and shedding take time too."""

from collections import deque

from tests.simulation.loop import Action, Loop
from tests.simulation.request import Request
from tests.simulation.services import Service


class OneCpu(Service):
    """Pieces of work, first come first served: read, compute, shed. Then a request awaits.

    Args:
        loop: The loop.
        parse: Seconds that it takes to read a request; then it is decided what becomes of it.
        shed: Seconds that it takes to answer one that is turned away.
        wait: Seconds that a request awaits when it has computed.
    """

    def __init__(
        self, loop: Loop, *, parse: float = 0.0005, shed: float = 0.0003, wait: float = 0.09
    ) -> None:
        super().__init__(loop)
        self.parse = parse
        self.shed = shed
        self.wait = wait
        self.busy = False
        self.pieces: deque[tuple[float, Action, Request]] = deque()

    def receive(self, now: float, request: Request) -> None:
        """Read it, when its turn comes."""
        self._compute(now, self.parse, self._parsed, request)

    def start(self, now: float, request: Request) -> None:
        """Compute, and then await."""
        self._compute(now, request.work, self._await, request)

    def refuse(self, now: float, request: Request) -> None:
        """Answer it."""
        self._compute(now, self.shed, _end, request)

    def _parsed(self, now: float, request: Request) -> None:
        lag = max(0.0, now - self.parse - request.arrived)
        if self.gate is None or self.gate(now, lag):
            request.front.arrive(now, request)
        else:
            request.front.turn_away(now, request)

    def _await(self, now: float, request: Request) -> None:
        self.loop.at(now + self.wait, self._finish, request)

    def _finish(self, now: float, request: Request) -> None:
        request.front.finish(now, request)

    def _compute(self, now: float, seconds: float, action: Action, request: Request) -> None:
        if self.busy:
            self.pieces.append((seconds, action, request))
        else:
            self.busy = True
            self.loop.at(now + seconds, self._next, (action, request))

    def _next(self, now: float, piece: tuple[Action, Request]) -> None:
        action, request = piece
        action(now, request)
        if self.pieces:
            seconds, action, request = self.pieces.popleft()
            self.loop.at(now + seconds, self._next, (action, request))
        else:
            self.busy = False


class NoAwait(OneCpu):
    """The same where a request is read, admitted, computed and released without an interruption.

    There is never more than one ongoing, so an admission always has room: who comes waits in the
    loop, where no limit sees it.
    """

    def start(self, now: float, request: Request) -> None:
        """Compute before anything else."""
        self.pieces.appendleft((request.work, self._finish, request))

    def refuse(self, now: float, request: Request) -> None:
        """Answer it before anything else."""
        self.pieces.appendleft((self.shed, _end, request))


def _end(now: float, request: Request) -> None:
    """A shed request has its answer."""
