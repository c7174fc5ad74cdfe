"""Place: keeps one replica alive."""

import logging
from typing import Protocol

import anyio

from loadshed._errors import ConfigError, LoadShedError, ReplicaError, ReplicaUnavailableError
from loadshed._policy.restarts import PROVEN_AFTER, Restarts
from loadshed._pool.replica import Replica

_logger = logging.getLogger("loadshed")


class Owner(Protocol):
    """Who wants the place."""

    restarts: Restarts

    def make(self, before: int) -> Replica:
        """Make a replica, where so many were before."""

    async def put_to_use(self, replica: Replica) -> None:
        """It can serve."""

    def gone(self, replica: Replica, error: Exception | None) -> None:
        """It has ended; the error says why."""

    def note(self, place: "Place") -> None:
        """Something about the place has changed."""


class Place:
    """Has a replica, and a new one when that dies.

    It is on trial until its first replica is ready. If that can't be started there is no second
    one: whoever wanted the place decides.

    Args:
        owner: Who wanted it.
        before: How many replicas were here before, if it takes the place of another place.

    Attributes:
        replica: The one that is here, if any.
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
        restarts = self._owner.restarts
        replica: Replica | None = None
        pause = 0.0
        try:
            replica = self.replica = self._owner.make(self.before)
            await replica.run(self._serve)
            if self._retired:
                return
            pause = restarts.died(proven=_is_proven(replica))
            self.error = replica.death
            _logger.warning("%s It is replaced%s.", self.error, _soon(pause))
        except (ReplicaError, ConfigError, OSError) as error:
            if self._retired:
                return
            is_ours = isinstance(error, LoadShedError)
            self.error = error if is_ours else ReplicaUnavailableError(_why(error))  # type: ignore[assignment]
            if self.is_ready:  # else whoever wanted the place is told by an exception
                pause = restarts.failed()
                _logger.warning("It is tried again%s. %s", _soon(pause), self.error)
        finally:
            self.replica = None
            if replica is not None:
                self._owner.gone(replica, self.error)
            self._owner.note(self)
        if self.is_ready and not self._retired:
            with anyio.CancelScope() as self._pause:
                await anyio.sleep(pause)

    async def _serve(self, replica: Replica) -> None:
        await self._owner.put_to_use(replica)
        self.is_ready = True
        self._owner.note(self)

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


def _why(error: Exception) -> str:
    return f"No process could be started: {error!r}"
