"""Callers of a pool, and replicas without a process that do what they are told."""

import pickle
import random
from typing import Any

from loadshed import NotPicklableError, ReplicaDiedError, ReplicaPool, ReplicaState
from loadshed._policy.limits.limit import FixedLimit
from loadshed._policy.routing import Latency
from loadshed._policy.wire import Frame, Kind
from loadshed._pool.call import Call
from loadshed._sleeper import Sleeper

ANSWER = [pickle.dumps("the answer")]


class Caller:
    """Makes a request of a pool, and notes what becomes of it."""

    def __init__(self, pool: ReplicaPool, *, streams: bool = False, sendable: bool = True) -> None:
        self.pool, self.streams, self.sendable = pool, streams, sendable
        self.begun = 0  # how often a replica was asked
        self.call: Call | None = None  # the last that came of it
        self.expected: object = None
        self.outcome: object = None

    async def run(self) -> None:
        try:
            if self.streams:
                self.outcome = [item async for item in self.pool.stream(self)]
            else:
                self.outcome = await self.pool.call(self)
        except Exception as error:  # noqa: BLE001 - it is looked at later
            self.outcome = error

    @property
    def is_served(self) -> bool:
        """Whether a replica works on it, or has done so."""
        return self.call is not None and not self.call.is_unsent


class Fake:
    """A replica without a process: it answers, and dies, when it is told to."""

    def __init__(self, slots: Any, most: float) -> None:
        self.slots = slots
        self.name = "fake#1"
        self.is_foreign = False
        self.sleepers: Any = Sleeper
        self.state = ReplicaState.RUNNING
        self.latency = Latency()
        self.ongoing = 0
        self.limit = FixedLimit(most)
        self.max_ongoing_requests = most
        self.calls: dict[Call, Caller] = {}
        self.deserted: list[Call] = []
        slots.add(self)

    def begin(self, _kind: int, value: Any) -> Call:
        assert self.ongoing < self.max_ongoing_requests
        caller: Caller = value[1][0]
        caller.begun += 1
        if not caller.sendable:
            raise NotPicklableError("The arguments")
        self.ongoing += 1
        caller.call = Call(caller.begun, self, 0.0, takes_slot=True)
        self.calls[caller.call] = caller
        return caller.call

    def send(self, parts: Any) -> None: ...

    def desert(self, call: Call) -> None:
        self.deserted.append(call)

    def answer(self, call: Call) -> None:
        caller = self.calls.pop(call)
        caller.expected = [] if caller.streams else "the answer"
        self.ongoing -= 1
        self.slots.freed(self, call, ok=True, now=0.0)
        call.answer(Frame(Kind.RESULT, call.number, ANSWER))

    def take(self, most: float) -> None:
        """Take so many from now on; 0 where it ends."""
        self.max_ongoing_requests = most
        if not most:
            self.state = ReplicaState.STOPPING

    def die(self, unsent: int) -> None:
        """As `Replica._die`, where so many requests, the last, have not been sent."""
        self.take(0)
        calls, self.calls = self.calls, {}
        for left, (call, caller) in zip(range(len(calls), 0, -1), calls.items(), strict=True):
            self.ongoing -= 1
            if left <= unsent and not call.has_left:
                call.give_back()
                continue
            caller.expected = ReplicaDiedError
            call.fail(ReplicaDiedError("It died."))
            self.slots.freed(self, call, ok=True, now=0.0)
        self.slots.changed()


def open_pool(**settings: Any) -> ReplicaPool:
    """A pool that lets requests in, and has no replicas yet."""
    settings = {"max_queued_requests": 2, "max_ongoing_requests": 5} | settings
    pool = ReplicaPool("builtins:abs", **settings)
    pool._slots._random = random.Random(0)
    pool._slots.serve()
    return pool
