"""Place: keeps one replica alive."""

import logging
from typing import TYPE_CHECKING, Protocol

import anyio

from loadshed._errors import ConfigError, LoadShedError, ReplicaError, ReplicaUnavailableError
from loadshed._policy.restarts import PROVEN_AFTER, Restarts
from loadshed._pool.replica import Replica

if TYPE_CHECKING:
    from loadshed._pool.watch import Watch

_logger = logging.getLogger("loadshed")


class Owner(Protocol):
    """Who wants the place."""

    restarts: Restarts

    async def have(self, place: "Place") -> None:
        """Have a replica there, until it has ended; raises where it was never ready."""

    def note(self, place: "Place") -> None:
        """Something about the place has changed."""

    def despair(self, error: Exception) -> None:
        """There is little hope for the next replica."""


class Place:
    """Has a replica, and a new one when that dies.

    It is on trial until its first replica is ready. If that can't be started there is no second
    one: whoever wanted the place decides.

    Args:
        owner: Who wanted it.
        before: How many replicas were here before, if it takes the place of another place.

    Attributes:
        replica: The one that is here, if any.
        watch: Looks after the one that serves.
        before: How many were here before.
        is_ready: Whether a replica has been ready here.
        is_gone: Whether there is none, and won't be.
        error: Why the last one could not be started, or died.
    """

    def __init__(self, owner: Owner, before: int = 0) -> None:
        self._owner = owner
        self._retired = False
        self._pause = anyio.CancelScope()
        self.before = before
        self.replica: Replica | None = None
        self.watch: Watch | None = None
        self.is_ready = False
        self.is_gone = False
        self.error: LoadShedError | None = None

    async def keep(self) -> None:
        """Start replicas, one after the other: a task."""
        try:
            while not self._retired:
                await self._have_one()
                if not self.is_ready:
                    return
                self.before += 1
        finally:
            self.is_gone = True
            self._owner.note(self)

    async def _have_one(self) -> None:
        """Have a replica for as long as it lives, and pause as long as it takes before the next."""
        failure: Exception | None = None
        try:
            await self._owner.have(self)
        except (ReplicaError, ConfigError, OSError) as error:
            failure = error
        replica, self.replica, self.watch = self.replica, None, None
        if not self._retired:
            self.error = _why(failure, replica)
        self._owner.note(self)
        if self.is_ready and not self._retired:
            with anyio.CancelScope() as self._pause:
                await anyio.sleep(self._count(failure, replica))

    def _count(self, failure: Exception | None, replica: Replica | None) -> float:
        """Count what became of the last one; seconds to wait before the next."""
        restarts = self._owner.restarts
        proven = failure is None and replica is not None and _is_proven(replica)
        pause = restarts.died(proven=proven)
        assert self.error is not None  # noqa: S101 - it says why the last one is no more
        _logger.warning("A replica is replaced%s. %s", _soon(pause), self.error)
        if restarts.is_crash_loop:
            self._owner.despair(self.error)
        return pause

    async def retire(self, deadline: float) -> None:
        """Let the replica end, and have no other one. Returns when it has ended.

        Args:
            deadline: The time of `anyio.current_time()` at which it is forced to.
        """
        self._leave()
        if self.replica is not None:
            await self.replica.retire(deadline)

    def abandon(self) -> None:
        """End the replica at once, and have no other one."""
        self._leave()
        if self.replica is not None:
            self.replica.kill()

    def _leave(self) -> None:
        self._retired = True
        self._pause.cancel()


def _is_proven(replica: Replica) -> bool:
    return replica.has_answered or replica.seconds_alive >= PROVEN_AFTER


def _soon(pause: float) -> str:
    return f" in {pause} s" if pause else ""


def _why(failure: Exception | None, replica: Replica | None) -> LoadShedError:
    """Why there is no replica any more."""
    if isinstance(failure, LoadShedError):
        return failure
    if replica is None:
        return ReplicaUnavailableError(f"No process could be started: {failure!r}")
    return replica.death
