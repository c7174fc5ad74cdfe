"""Outward: the calls that a replica makes, of functions in the replicas of other pools."""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from loadshed._errors import ReplicaUnavailableError
from loadshed._failure import pack
from loadshed._policy.standing import Standing, read_address
from loadshed._policy.wire import (
    Buffer,
    Frame,
    Kind,
    Pickled,
    WireError,
    encode_parts,
    encode_value,
)
from loadshed._pool.call import Call
from loadshed._sleeper import Sleeper


class Peer(Protocol):
    """A pool that may be called."""

    async def _outcome(self, value: object, standing: Standing) -> Call:
        """Call the target; a call that is over."""

    def _frames(
        self, value: object, standing: Standing
    ) -> AsyncGenerator[tuple[Call, Frame], None]:
        """The frames of a generator's items, and then the last one."""


Peers = Mapping[str, Peer]
"""The pools that may be called, by name."""


LEAST_PARTS = {Kind.OUT_CALL: 2, Kind.OUT_STREAM: 2, Kind.OUT_CANCEL: 0, Kind.OUT_ACK: 1}
"""How many parts a frame has at least, by its kind."""


class Outward:
    """Passes them on. What is sent is not unpickled here: its classes are none of this process's.

    Args:
        peers: The pools that may be called, by name.
        send: Sends a frame to the replica.
        tasks: Ends with the replica.
    """

    def __init__(
        self, peers: Peers, send: Callable[[list[Buffer]], None], tasks: TaskGroup
    ) -> None:
        self._peers = peers
        self._send = send
        self._tasks = tasks
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._streams: dict[int, Call] = {}
        self._frames: deque[Frame] = deque()
        self._sleeper = Sleeper()

    def handle(self, frame: Frame) -> None:
        """Have it done what the replica wants.

        Raises:
            WireError: It is nonsense.
        """
        if len(frame.parts) < LEAST_PARTS[frame.kind]:
            raise WireError(f"a call of nothing: {frame}")
        # By a task: this may be a callback of the event loop, in which no task can be started.
        self._frames.append(frame)
        self._sleeper.wake()

    async def run(self) -> None:
        """Do what the replica wants: a task."""
        while True:
            self._sleeper = Sleeper()
            while self._frames:
                self._take(self._frames.popleft())
            await self._sleeper.sleep()

    def _take(self, frame: Frame) -> None:
        number = frame.call
        if frame.kind == Kind.OUT_CANCEL:
            if (scope := self._scopes.get(number)) is not None:  # else it has just been answered
                scope.cancel()
        elif frame.kind == Kind.OUT_ACK:
            if (call := self._streams.get(number)) is not None:
                call.tell(Kind.ACK, frame.value())
        else:
            *parts, address = frame.parts
            work = self._stream if frame.kind == Kind.OUT_STREAM else self._call
            scope = self._scopes[number] = anyio.CancelScope()
            said = bytes(address).decode(errors="replace")
            self._tasks.start_soon(self._run, work, number, scope, said, Pickled(parts))

    async def _run(
        self,
        work: Callable[[int, Peer, Pickled, Standing], Awaitable[list[Buffer]]],
        number: int,
        scope: anyio.CancelScope,
        address: str,
        value: Pickled,
    ) -> None:
        answer: list[Buffer] | None = None  # nobody waits for the answer of one that is cancelled
        try:
            with scope:
                name, standing = read_address(address)
                answer = await work(number, self._find(name), value, standing)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            pickled, said, _ = pack(error)
            answer = encode_value(Kind.IN_ERROR, number, (pickled, said, ""))
        finally:
            self._scopes.pop(number, None)
        if answer is not None:
            self._send(answer)

    async def _call(
        self, number: int, pool: Peer, value: Pickled, standing: Standing
    ) -> list[Buffer]:
        call = await pool._outcome(value, standing)
        return _last(number, call.end())

    async def _stream(
        self, number: int, pool: Peer, value: Pickled, standing: Standing
    ) -> list[Buffer]:
        try:
            async with aclosing(pool._frames(value, standing)) as frames:
                async for call, frame in frames:
                    if frame.kind != Kind.ITEM:
                        return _last(number, frame)
                    self._streams[number] = call
                    self._send(encode_parts(Kind.IN_ITEM, number, frame.parts))
        finally:
            self._streams.pop(number, None)
        raise AssertionError("No last frame.")  # pragma: no cover - `_frames` ends with one

    def _find(self, name: str) -> Peer:
        try:
            return self._peers[name]
        except KeyError:
            raise ReplicaUnavailableError(f"There is no deployment {name!r} any more.") from None


def _last(number: int, frame: Frame) -> list[Buffer]:
    kind = Kind.IN_RESULT if frame.kind == Kind.RESULT else Kind.IN_ERROR
    return encode_parts(kind, number, frame.parts)
