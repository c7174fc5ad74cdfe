"""Slots: which replica takes the next request, and who waits for one."""

import random
from collections import OrderedDict
from collections.abc import Callable

from loadshed._clock import FineClock
from loadshed._errors import ReplicaUnavailableError
from loadshed._limiter import ConcurrencyLimiter
from loadshed._limits import MakeLimit, limit_of_one_more
from loadshed._policy.latencies import Latencies
from loadshed._policy.limits.knee import KneeLimit
from loadshed._policy.limits.limit import FixedLimit, Limit
from loadshed._policy.routing import choose
from loadshed._policy.standing import USUAL, Standing
from loadshed._policy.ticket import State
from loadshed._pool.call import Call
from loadshed._pool.replica import Replica
from loadshed._sleeper import Sleeper
from loadshed._waiter import Waiter

Refusal = Callable[[], ReplicaUnavailableError]
"""Makes the error for one who is turned away."""


class Slots:
    """The places for requests in all replicas of a pool, behind its one limiter.

    The limiter's limit is how many requests the replicas can work on together, and follows what
    becomes of them. A replica that takes no more counts for what it still works on, or that would
    take the room of others:

        limit = sum of max(what it may work on, what it works on)

    So whoever has a permit of the limiter finds a slot, unless a replica goes in the moment
    between. Then there are more permits than slots, and who has none waits for the next one, before
    all those that have no permit.

    Args:
        limiter: The pool's.

    Attributes:
        replicas: Those that serve, or still work on something.
        latencies: How long requests took lately.
    """

    def __init__(self, limiter: ConcurrencyLimiter) -> None:
        self.limiter = limiter
        self.replicas: list[Replica] = []
        self.latencies = Latencies()
        self._refusal: Refusal | None = None  # for those who come
        self._despair: Refusal | None = None  # for those who have a permit, too
        self._emptied: Sleeper | None = None
        self._clock = FineClock()
        self._random = random.Random()  # noqa: S311 - no secret
        self._waiting: OrderedDict[object, Sleeper] = OrderedDict()

    async def enter(self, standing: Standing = USUAL) -> Waiter | None:
        """Get a permit, waiting for it if need be; its ticket, where it has one.

        Raises:
            BackPressureError: There is no room.
            ReplicaUnavailableError: No replica serves, and none will.
        """
        self.check()
        limiter = self.limiter
        if standing is USUAL and limiter._enter():
            return None
        waiter = limiter._queue_up(None, standing)
        if waiter.state is State.QUEUED:
            try:
                await limiter._wait(waiter)
            except BaseException:
                self.look_whether_empty()
                raise
        return waiter

    def check(self) -> None:
        """Raise where nobody is let in."""
        if self._refusal is not None:
            raise self._refusal()

    async def begin(self, kind: int, value: object, waiter: Waiter | None) -> Call:
        """Send a request, for who has a permit; from now on it is the request's.

        Args:
            kind: Of its frame.
            value: What it says.
            waiter: The ticket, where there is one.

        Raises:
            ReplicaUnavailableError: No replica serves, and none will.
            NotPicklableError: It can't be sent.
        """
        try:
            replica = self._find()
            if replica is None:
                replica = await self._wait()
            call = replica.begin(kind, value)
        except BaseException:
            self.release(waiter)
            raise
        call.waiter = waiter
        return call

    def abandon(self, call: Call) -> None:
        """Nobody waits for a request any more."""
        call.leave()
        if call.is_unsent:  # its replica has just died; else that gives the permit back
            self.release(call.waiter)

    def _find(self) -> Replica | None:
        return choose(self.replicas, self._clock.now, self._random.random)

    async def _wait(self) -> Replica:
        while (replica := self._find()) is None:
            if self._despair is not None:
                raise self._despair()
            me = object()
            sleeper = self._waiting[me] = Sleeper()
            try:
                await sleeper.sleep()
            finally:
                self._waiting.pop(me, None)
        return replica

    def add(self, replica: Replica) -> None:
        """It serves from now on."""
        self.replicas.append(replica)
        self.changed()

    def remove(self, replica: Replica) -> None:
        """It has ended."""
        self.replicas.remove(replica)
        self.changed()

    def freed(self, replica: Replica, call: Call, ok: bool | None, now: float) -> None:
        """A request has ended."""
        room = replica.max_ongoing_requests
        if ok is not None and not isinstance(replica.limit, FixedLimit):
            ongoing: float = replica.ongoing + 1
            if self.limiter._admission.line.entries:
                ongoing = max(ongoing, room)
            replica.limit.observe(now, now - call.sent_at, ok, ongoing)
            replica.follow()
        if replica.ongoing >= room or replica.max_ongoing_requests != room:
            self._fit()  # the room that it had goes with it, or is another
        self.limiter._release(call.waiter, ok)
        if self._emptied is not None:
            self.look_whether_empty()
        if self._waiting:
            self._wake()

    def limit_of_one_more(self, each: float | MakeLimit, replica: Replica | None = None) -> Limit:
        """The limit for one more replica, or for one of those that are there."""
        others = [one for one in self.replicas if one is not replica]
        found = [one.limit.limit for one in others if isinstance(one.limit, KneeLimit)]
        limit = limit_of_one_more(each, found)
        self._say_whether_some_wait(limit)
        return limit

    def line_changed(self) -> None:
        """Others wait than before, or none."""
        for replica in self.replicas:
            self._say_whether_some_wait(replica.limit)

    def _say_whether_some_wait(self, limit: Limit) -> None:
        if isinstance(limit, KneeLimit):
            # Not the bound as it is: that may follow the limit, which is 0 without a replica.
            limit.has_queue = self.limiter._max_queued != 0

    def answered(self, seconds: float, now: float) -> None:
        """A request took so long."""
        self.latencies.observe(seconds, now)

    def latency(self, part: float) -> float | None:
        """Seconds that this part of the requests did not exceed lately; None if none came."""
        return self.latencies.quantile(part, self._clock.now())

    def release(self, waiter: Waiter | None) -> None:
        """A permit comes back that was of no use to anybody, and says nothing."""
        self.limiter._release(waiter, None)
        self.look_whether_empty()

    def changed(self) -> None:
        """The replicas take more requests than before, or fewer."""
        self._wake()  # before those of the queue
        self._fit()

    # Who is turned away.

    def serve(self) -> None:
        """Let requests in."""
        self._refusal = self._despair = None

    def refuse(self, refusal: Refusal) -> None:
        """Let no new ones in."""
        self._refusal = refusal

    def dismiss(self, refusal: Refusal) -> None:
        """Let no new ones in, and turn away all that wait."""
        self._refusal = self._despair = refusal
        self.limiter._dismiss(refusal)
        self._wake()
        self.look_whether_empty()

    async def empty(self) -> None:
        """Wait until nothing runs, and nobody waits."""
        while not self._is_empty:
            self._emptied = Sleeper()
            await self._emptied.sleep()

    @property
    def _is_empty(self) -> bool:
        admission = self.limiter._admission
        return not admission.ongoing and not admission.line

    def look_whether_empty(self) -> None:
        if self._emptied is not None and self._is_empty:
            self._emptied.wake()

    def _fit(self) -> None:
        room = sum(max(each.max_ongoing_requests, each.ongoing) for each in self.replicas)
        if room != self.limiter.max_ongoing_requests:
            self.limiter._resize(room, self.limiter._max_queued)

    def _wake(self) -> None:
        for sleeper in list(self._waiting.values()):
            sleeper.wake()
