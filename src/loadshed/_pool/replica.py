"""Replica: one replica, as its pool sees it."""

import math
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from loadshed._clock import Clock
from loadshed._errors import ConfigError, ReplicaDiedError, ReplicaError, ReplicaUnavailableError
from loadshed._failure import not_picklable
from loadshed._policy.health import Health
from loadshed._policy.routing import Latency
from loadshed._policy.wire import Buffer, Frame, Kind, WireError, encode, encode_value
from loadshed._pool.call import Call
from loadshed._pool.connection import Connection
from loadshed._pool.output import Relay, log
from loadshed._pool.process import Process
from loadshed._pool.statistics import ReplicaState, ReplicaStatistics

LAST = (Kind.RESULT, Kind.ERROR)
"""The kinds of frame that end a call."""

TO_DIE = 0.5
"""Seconds in which a process that has closed its socket ends by itself, so that it can be said
how."""

TO_TERMINATE = 5.0
"""Seconds between SIGTERM and SIGKILL."""

STUCK = 1.0
"""Seconds beyond `request_timeout_s` after which threads that have not returned count as stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the replicas of a pool are started with, and how they are watched.

    Attributes:
        start: What the first frame says: what to import, make and serve.
        lifeline: A pipe that breaks when this process ends.
        request_timeout_s: Seconds after which a request counts as stuck, if nobody waits for it.
        health_check_period_s: Seconds between two health checks.
        health_check_timeout_s: Seconds that one may take.
    """

    start: tuple[Any, ...]
    lifeline: int
    request_timeout_s: float | None
    health_check_period_s: float | None
    health_check_timeout_s: float | None


class Listener(Protocol):
    """Who is told what becomes of a replica's slots."""

    def freed(self, replica: "Replica") -> None:
        """A request has ended."""

    def changed(self) -> None:
        """It takes more requests than before, or fewer."""


class Replica:
    """A process that serves calls: started, watched, and ended.

    Args:
        name: The pool's name and the number.
        number: Which of the pool's replicas it is.
        restarts: How many were in its place before.
        orders: What it serves.
        listener: Who is told of its slots.

    Attributes:
        state: Where it stands.
        ongoing: How many requests it works on.
        max_ongoing_requests: How many it may work on: 0 unless it is RUNNING.
        latency: How long they take.
        served: How many it answered.
        failed: How many raised, or were lost when it died.
        has_answered: Whether it has come to the end of a request.
        config: The `user_config` that it has, or nothing.
        is_application: Whether its target is an ASGI application.
        ended: Set when it has ended.
    """

    def __init__(
        self, name: str, number: int, restarts: int, orders: Orders, listener: Listener
    ) -> None:
        self.name = name
        self.number = number
        self.restarts = restarts
        self.state = ReplicaState.STARTING
        self.ongoing = 0
        self.max_ongoing_requests: float = 0
        self.latency = Latency()
        self.served = self.failed = 0
        self.has_answered = False
        self.config: tuple[Any, ...] = ()
        self.is_application = False
        self.ended = anyio.Event()
        self._orders = orders
        self._listener = listener
        self._clock = Clock()
        self._calls: dict[int, Call] = {}
        self._last_call = 0
        self._ready_at = math.inf
        self._reason = ""
        self._health = Health()
        self._emptied = anyio.Event()
        self._deserted = anyio.Event()
        ours, theirs = socket.socketpair()
        with theirs:
            self._connection = Connection(ours)
            try:
                self._process = Process(theirs, orders.lifeline)
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
        self.send(number, parts)
        return call

    def send(self, call: int, parts: list[Buffer]) -> None:
        """Send a frame that belongs to a call."""
        self._connection.send(call, parts)

    def desert(self, call: Call) -> None:
        """Nobody waits for the call any more."""
        self.send(call.number, [encode(Kind.CANCEL, call.number)])
        if call.takes_slot:
            self._deserted.set()

    def _handle(self, frame: Frame) -> None:
        if frame.kind == Kind.LOG:
            log(frame.value(), self.name)
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
            self.latency.observe(now - call.sent_at, now)
            self._free()
        call.answer(frame)

    def _free(self) -> None:
        self.ongoing -= 1
        if not self.ongoing and self.state is not ReplicaState.RUNNING:
            self._emptied.set()
        self._listener.freed(self)

    # Its life.

    async def run(self, ready: Callable[["Replica"], Coroutine[Any, Any, None]]) -> None:
        """Tell it what to serve, call `ready` when it does, and watch it until it has ended.

        Args:
            ready: What it raises ends the replica.

        Raises:
            ReplicaError: It never came to be ready.
            ConfigError: A setting is not one that its target can have.
        """
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as tasks:
                for task in (self._read, self._await_death, self._connection.write):
                    tasks.start_soon(task)
                for relay in self._relays:
                    tasks.start_soon(relay.run)
                try:
                    await self._start()
                    self._ready_at = self._clock.now()
                    await ready(self)
                except (ReplicaError, ConfigError) as error:
                    failure = error  # the task group would wrap it
                else:
                    tasks.start_soon(self._check_health)
                    tasks.start_soon(self._look_for_stuck)
                    await self.ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._bury()
        if failure is not None:
            raise failure

    async def _start(self) -> None:
        try:
            answer = await self.ask(Kind.START, self._orders.start)
        except ConfigError:
            raise
        except Exception as error:
            notes = "\n".join(getattr(error, "__notes__", ()))
            message = f"Replica {self.name} could not start: {error!r}\n{notes}"
            raise ReplicaUnavailableError(message.rstrip()) from error
        self.is_application = answer["is_application"]

    def serve(self, max_ongoing_requests: float) -> None:
        """Let it take so many requests at a time, from now on."""
        if self.state is ReplicaState.STARTING:
            self.state = ReplicaState.RUNNING
        if self.state is ReplicaState.RUNNING:
            self.max_ongoing_requests = max_ongoing_requests

    def _take_no_more(self, state: ReplicaState) -> None:
        self.state = state
        self.max_ongoing_requests = 0
        self._listener.changed()

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
        """It can't be trusted any more."""
        self._reason = f"was killed: {reason}"
        self._take_no_more(ReplicaState.UNHEALTHY)
        self.kill()

    async def _read(self) -> None:
        try:
            await self._connection.read(self._handle)
        except WireError as error:
            self.give_up(f"it sent nonsense ({error})")
        with anyio.move_on_after(TO_DIE):
            await self._process.wait()
        self._die()

    async def _await_death(self) -> None:
        # The socket says so sooner, unless a process that it has forked keeps that open.
        await self._process.wait()
        self._connection.receive(self._handle)  # what it had said before
        self._die()

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
        for call in calls.values():
            if call.number in unsent and call.takes_slot and not call.has_left:
                self.ongoing -= 1
                call.give_back()
                continue
            call.fail(self.death)
            if call.takes_slot:
                self.failed += 1
                self._free()
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
            relay.show()
        self._connection.close()
        self._process.close()

    async def _check_health(self) -> None:
        period, timeout = self._orders.health_check_period_s, self._orders.health_check_timeout_s
        while period is not None:
            await anyio.sleep(period)
            try:
                with anyio.fail_after(timeout):
                    await self.ask(Kind.CHECK)
            except TimeoutError:
                said = f"no answer within {timeout} s"
            except Exception as error:  # noqa: BLE001 - whatever `check_health` raises
                said = repr(error)
            else:
                self._health.passed()
                continue
            self._health.failed()
            if self._health.is_unhealthy and self.state is ReplicaState.RUNNING:
                self.give_up(f"its health checks failed ({said})")
                return

    async def _look_for_stuck(self) -> None:
        """Give it up when every thread of it runs for somebody who has gone, for far too long."""
        timeout = self._orders.request_timeout_s
        while timeout is not None:
            await self._deserted.wait()
            self._deserted = anyio.Event()
            while self._is_full_of_deserted:
                since = max(call.sent_at for call in self._calls.values() if call.takes_slot)
                left = since + timeout + STUCK - self._clock.now()
                if left <= 0:
                    self.give_up(f"every thread was busy for {timeout} s with a request")
                    return
                await anyio.sleep(left)

    @property
    def _is_full_of_deserted(self) -> bool:
        return 0 < self.max_ongoing_requests <= self.ongoing and all(
            call.has_left for call in self._calls.values() if call.takes_slot
        )
