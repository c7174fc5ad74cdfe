"""Replica: one replica, as its pool sees it."""

import math
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup

from loadshed._clock import FineClock
from loadshed._errors import ConfigError, ReplicaDiedError, ReplicaError, ReplicaUnavailableError
from loadshed._failure import not_picklable
from loadshed._policy.limits.limit import FixedLimit, Limit
from loadshed._policy.routing import Latency
from loadshed._policy.wire import OUT, Buffer, Frame, Kind, WireError, encode, encode_value
from loadshed._pool.call import Call
from loadshed._pool.connection import Connection, pair
from loadshed._pool.environment import HERE, Environment
from loadshed._pool.output import Relay, log
from loadshed._pool.outward import Outward, Peers
from loadshed._pool.process import Process
from loadshed._pool.statistics import ReplicaState, ReplicaStatistics
from loadshed._sleeper import sleepers

LAST = (Kind.RESULT, Kind.ERROR)
"""The kinds of frame that end a call."""

TO_DIE = 0.5
"""Seconds in which a process that has closed its socket ends by itself, so that it can be said
how."""

TO_TERMINATE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


FEW = 4
"""Calls up to which each frame is sent at once: so few are seldom in the same turn of the event
loop, and to wait for its end takes longer than a system call."""


class Listener(Protocol):
    """Who is told what becomes of a replica's slots."""

    def freed(self, replica: "Replica", call: Call, ok: bool | None, now: float) -> None:
        """A request has ended; `ok` as in `Limit.observe`, or None."""

    def changed(self) -> None:
        """It takes more requests than before, or fewer."""

    def answered(self, seconds: float, now: float) -> None:
        """A request took so long."""


class Replica:
    """A process that serves calls: started, watched, and ended.

    Args:
        name: The pool's name and the number.
        number: Which of the pool's replicas it is.
        restarts: How many were in its place before.
        lifeline: A pipe that breaks when this process ends.
        listener: Who is told of its slots.
        environment: What its process finds.
        peers: The pools that it may call.

    Attributes:
        state: Where it stands.
        ongoing: How many requests it works on.
        limit: What finds how many it may work on.
        max_ongoing_requests: How many that is: 0 unless it is RUNNING.
        latency: How long they take.
        served: How many it answered.
        failed: How many raised, or were lost when it died.
        has_answered: Whether it has come to the end of a request.
        config: The `user_config` that it has, or nothing; None where that is not known.
        is_foreign: Whether its code is none of this process's.
        sleepers: What its callers wait with.
        version: That of the plan that it was made by.
        ended: Set when it has ended.
    """

    def __init__(
        self,
        name: str,
        number: int,
        restarts: int,
        lifeline: int,
        listener: Listener,
        *,
        environment: Environment = HERE,
        peers: Peers = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.number = number
        self.restarts = restarts
        self.state = ReplicaState.STARTING
        self.ongoing = 0
        self.limit: Limit = FixedLimit(0)
        self.max_ongoing_requests: float = 0
        self.latency = Latency()
        self.served = self.failed = 0
        self.has_answered = False
        self.config: tuple[Any, ...] | None = ()
        self.version = 0
        self.is_foreign = environment.is_foreign
        self.sleepers = sleepers()
        self.ended = anyio.Event()
        self._listener = listener
        self._peers = peers
        self._outward: Outward | None = None
        self._clock = FineClock()
        self._calls: dict[int, Call] = {}
        self._last_call = 0
        self._ready_at = math.inf
        self._reason = ""
        self._emptied = anyio.Event()
        self._deserted = anyio.Event()
        ours, theirs = pair()
        with theirs:
            self._connection = Connection(ours)
            try:
                self._process = Process(theirs, lifeline, environment)
            except BaseException:
                self._connection.close()
                raise
        self._relays = [
            Relay(self._process.output, "stdout", name),
            Relay(self._process.errors, "stderr", name),
        ]

    def statistics(self) -> ReplicaStatistics:
        """What it did so far, and is doing: a snapshot."""
        return ReplicaStatistics(
            id=self.number,
            name=self.name,
            pid=self._process.pid,
            state=self.state,
            ongoing=self.ongoing,
            max_ongoing_requests=self.max_ongoing_requests,
            limit_reason=self.limit.reason,
            served=self.served,
            failed=self.failed,
            restarts=self.restarts,
            latency=self.latency.seconds,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.state} ongoing={self.ongoing}>"

    @property
    def seconds_alive(self) -> float:
        """How long it has been ready."""
        return self._clock.now() - self._ready_at

    # What it is asked.

    def begin(self, kind: int, value: object) -> Call:
        """Send a request.

        Raises:
            NotPicklableError: It can't be sent, and nothing was.
        """
        call = self._new_call(kind, value, takes_slot=True)
        self.ongoing += 1
        return call

    async def ask(self, kind: int, value: object = None) -> Any:
        """Ask something that is no request, and counts as none.

        Raises:
            ReplicaDiedError: It died before it answered.
            NotPicklableError: It can't be sent.
            Exception: What the target has raised.
        """
        call = self._new_call(kind, value, takes_slot=False)
        await call.answered()
        return call.result()

    def _new_call(self, kind: int, value: object, *, takes_slot: bool) -> Call:
        number = self._last_call + 1
        try:
            parts = encode_value(kind, number, value)
        except Exception as error:
            raise not_picklable("The arguments", error) from error
        self._last_call = number
        call = Call(number, self, self._clock.now(), takes_slot=takes_slot)
        if self.ended.is_set():  # it is a question: requests are not sent here any more
            call.fail(self.death)
            return call
        self._calls[number] = call
        self._connection.send(number, parts, soon=len(self._calls) > FEW)
        return call

    def send(self, parts: list[Buffer]) -> None:
        """Send a frame that belongs to a call that has begun."""
        self._connection.send(0, parts)

    def desert(self, call: Call) -> None:
        """Nobody waits for the call any more."""
        self.send([encode(Kind.CANCEL, call.number)])
        if call.takes_slot:
            self._deserted.set()

    async def next_desertion(self) -> None:
        """Wait until the caller of a request has gone."""
        await self._deserted.wait()
        self._deserted = anyio.Event()

    @property
    def seconds_in_vain(self) -> float | None:
        """How long all of its threads have worked for who has gone; None where one has not."""
        calls = [call for call in self._calls.values() if call.takes_slot]
        if self.max_ongoing_requests > len(calls) or not all(call.has_left for call in calls):
            return None
        return min((self._clock.now() - call.sent_at for call in calls), default=None)

    def _handle(self, frame: Frame) -> None:
        if frame.kind == Kind.LOG:
            log(frame, self.name)
            return
        if frame.kind in OUT and self._outward is not None:
            self._outward.handle(frame)
            return
        call = self._calls.get(frame.call)
        if call is None:
            raise WireError(f"an answer to what was not asked, or was answered: {frame}")
        if frame.kind not in LAST:
            call.came(frame)
            return
        del self._calls[frame.call]
        if call.takes_slot:
            if frame.kind == Kind.RESULT:
                self.served += 1
            else:
                self.failed += 1
            self.has_answered = True
            now = self._clock.now()
            took = now - call.sent_at
            self.latency.observe(took, now)
            self._listener.answered(took, now)
            self._free(call, not call.has_left, now)
        call.answer(frame)

    def _free(self, call: Call, ok: bool | None, now: float) -> None:
        self.ongoing -= 1
        if not self.ongoing and self.state is not ReplicaState.RUNNING:
            self._emptied.set()
        self._listener.freed(self, call, ok, now)

    # Its life.

    async def run(self, start: object, ready: Callable[[TaskGroup], Awaitable[None]]) -> None:
        """Tell it what to serve, call `ready` when it does, and return when it has ended.

        Args:
            start: What to serve.
            ready: Is given where tasks can run until it has ended. What it raises ends the replica.

        Raises:
            ReplicaError: It never came to be ready.
            ConfigError: A setting is not one that its target can have.
        """
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                self._outward = Outward(self._peers, self.send, tasks)
                for task in (
                    self._read,
                    self._await_death,
                    self._connection.write,
                    self._outward.run,
                ):
                    tasks.start_soon(task)
                for relay in self._relays:
                    tasks.start_soon(relay.run)
                try:
                    await self._start(start)
                    self._ready_at = self._clock.now()
                    await ready(tasks)
                    await self.ended.wait()
                except (ReplicaError, ConfigError) as error:
                    failure = error  # the task group would wrap it
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._bury()
        if failure is not None:
            raise failure

    async def _start(self, start: object) -> None:
        try:
            await self.ask(Kind.START, start)
        except ConfigError:
            raise
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            message = f"Replica {self.name} could not start: {error!r}\n{notes}"
            raise ReplicaUnavailableError(message.rstrip()) from error

    def serve(self, limit: Limit) -> None:
        """Let it take as many requests at a time as this says, from now on."""
        if self.state is ReplicaState.STARTING:
            self.state = ReplicaState.RUNNING
        self.limit = limit
        self.follow()

    def follow(self) -> None:
        """Its limit may have moved."""
        if self.state is ReplicaState.RUNNING:
            self.max_ongoing_requests = self.limit.limit

    def _take_no_more(self, state: ReplicaState) -> None:
        self.state = state
        self.max_ongoing_requests = 0
        self._listener.changed()

    def stop(self, reason: str) -> None:
        """Let it take no more requests: another one is to take its place."""
        if self.state is ReplicaState.RUNNING:
            self._reason = f"was stopped: {reason}"
            self._take_no_more(ReplicaState.STOPPING)

    async def retire(self, deadline: float) -> None:
        """Let it end: by itself, when all that it works on is done; or else by force.

        Args:
            deadline: The time of `anyio.current_time()` at which force begins.
        """
        if self.state is ReplicaState.STARTING:
            self._process.kill()
        self._take_no_more(ReplicaState.STOPPING)
        with anyio.CancelScope(deadline=deadline):
            if self.ongoing:
                await self._emptied.wait()
            self._connection.send(0, [encode(Kind.STOP, 0)])
            await self.ended.wait()
        if not self.ended.is_set():
            self._process.terminate()
            with anyio.move_on_after(TO_TERMINATE):
                await self.ended.wait()
        self.kill()
        await self.ended.wait()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def give_up(self, reason: str) -> None:
        """End it: it can't be trusted any more."""
        if self.state is ReplicaState.STOPPING:
            return  # it ends anyway
        self._reason = f"was killed: {reason}"
        self._take_no_more(ReplicaState.UNHEALTHY)
        self.kill()

    async def _read(self) -> None:
        await self._connection.read(self._receive)
        with anyio.move_on_after(TO_DIE):
            await self._process.wait()
        self._die()

    async def _await_death(self) -> None:
        # The socket says so sooner, unless a process that it has forked keeps that open.
        await self._process.wait()
        more = True
        while more:  # it is what it had said before
            more = self._receive() and self._connection.has_more()
        self._die()

    def _receive(self) -> bool:
        """Take what has come; whether more can come."""
        try:
            return self._connection.receive(self._handle)
        except (WireError, MemoryError) as error:
            self.give_up(f"it sent nonsense ({error!r})")
            return False

    def _die(self) -> None:
        """It has ended: whoever waits for it is told."""
        if self.ended.is_set():
            return
        self.kill()
        self.ended.set()
        if self.state is not ReplicaState.UNHEALTHY:
            self.state = ReplicaState.STOPPING
        self.max_ongoing_requests = 0
        unsent = self._connection.unsent()
        calls, self._calls = self._calls, {}
        now = self._clock.now()
        for call in calls.values():
            if call.number in unsent and call.takes_slot and not call.has_left:
                self.ongoing -= 1
                call.give_back()
                continue
            call.fail(self.death)
            if call.takes_slot:
                self.failed += 1
                self._free(call, None, now)
        self._emptied.set()
        self._listener.changed()

    @property
    def death(self) -> ReplicaDiedError:
        """An error that says how it ended."""
        fate = self._reason or self._process.fate
        return ReplicaDiedError(f"Replica {self.name} (pid {self._process.pid}) {fate}.")

    async def _bury(self) -> None:
        self.kill()
        await self._process.wait()
        self._die()
        for relay in self._relays:
            relay.finish()
        self._connection.close()
        self._process.close()
