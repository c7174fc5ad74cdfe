"""Crew: the replicas of a pool, as many as there have to be."""

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import anyio
import anyio.abc

from loadshed._errors import ConfigError, ReplicaDiedError, ReplicaUnavailableError
from loadshed._policy.restarts import Restarts
from loadshed._policy.wire import Kind
from loadshed._pool.place import Place
from loadshed._pool.replica import Orders, Replica
from loadshed._pool.slots import Slots
from loadshed._pool.statistics import ReplicaState

Config = tuple[Any, ...]
"""A `user_config`, or nothing where there is none."""


class Crew:
    """Starts, replaces and ends replicas.

    Args:
        tasks: Where the work is done that goes on in the background.
        slots: Where replicas are put to use.
        name: The pool's.
        orders: What a replica is started with, given its `user_config`.
        config: The first one.
        max_ongoing_requests: How many requests each of them works on.
        grace: How many seconds one has to finish what it works on.

    Attributes:
        restarts: When those that die are replaced.
        restarted: How many took the place of another one so far.
    """

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        slots: Slots,
        *,
        name: str,
        orders: Callable[[Config], Orders],
        config: Config,
        max_ongoing_requests: float,
        grace: float,
    ) -> None:
        self.restarts = Restarts()
        self.restarted = 0
        self._tasks = tasks
        self._slots = slots
        self._name = name
        self._orders = orders
        self._config = config
        self._max_ongoing = max_ongoing_requests
        self._grace = grace
        self._places: list[Place] = []
        self._retiring: set[Place] = set()
        self._last_number = 0
        self._closing = False
        self._cancelled = False
        self._scopes: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()

    @property
    def replicas(self) -> list[Replica]:
        """Those that are there, the oldest first."""
        there = (place.replica for place in self._places)
        return sorted((each for each in there if each is not None), key=lambda each: each.number)

    # For its places.

    def make(self, before: int) -> Replica:
        """Make a replica, where so many were before."""
        self._last_number += 1
        self.restarted += before > 0
        number = self._last_number
        orders = self._orders(self._config)
        replica = Replica(f"{self._name}#{number}", number, before, orders, self._slots)
        replica.config = self._config
        return replica

    async def put_to_use(self, replica: Replica) -> None:
        """A replica can serve."""
        while replica.config is not self._config:  # it was changed meanwhile
            config = self._config
            if not config:
                raise ReplicaUnavailableError("It has a user_config that was taken back.")
            await replica.ask(Kind.RECONFIGURE, *config)
            replica.config = config
        replica.serve(self._max_ongoing)
        self._slots.add(replica)
        if not self._closing:
            self._slots.serve()

    def note(self, place: Place) -> None:
        """Something about a place has changed."""
        if place.is_gone:
            self._places.remove(place)
            self._retiring.discard(place)
        self._changed.set()
        self._changed = anyio.Event()

    def gone(self, replica: Replica, error: Exception | None) -> None:
        """A replica has ended."""
        if replica in self._slots.replicas:
            self._slots.remove(replica)
        if self.restarts.is_crash_loop and not self._slots.replicas:
            self._slots.dismiss(lambda: ReplicaUnavailableError(str(error)))

    # For the pool.

    async def open(self, count: int) -> None:
        """Start so many, side by side.

        Raises:
            ReplicaUnavailableError: One can't be started.
            ConfigError: A setting is not one that the target can have.
        """
        await self._start([Place(self) for _ in range(count)])

    async def scale(self, count: int) -> None:
        """Have so many: start more, or let some end when they have finished their work.

        Raises:
            ReplicaUnavailableError: One can't be started. There are as many as before, then.
            ConfigError: A setting is not one that the target can have.
        """
        staying = self._staying
        if count >= len(staying):
            await self._start([Place(self) for _ in range(count - len(staying))])
        else:
            staying.sort(key=_worth)
            await self._retire(staying[: len(staying) - count])

    async def restart(self) -> None:
        """Replace one after the other: the old one ends when the new one serves.

        Raises:
            ReplicaUnavailableError: The new one can't be started. Then the old one stays.
        """
        for place in self._staying:
            await self._replace(place)

    async def configure(self, config: Config) -> None:
        """Hand a new `user_config` to all of them.

        Raises:
            Exception: What the target has raised. Then all have the old one again.
        """
        old, self._config = self._config, config
        replicas = [each for each in self.replicas if each.state is ReplicaState.RUNNING]
        errors: list[Exception] = []

        async def tell(replica: Replica) -> None:
            try:
                await replica.ask(Kind.RECONFIGURE, *config)
                replica.config = config
            except ReplicaDiedError:
                pass  # the one that replaces it is started with the new one
            except ConfigError as error:  # it can't have any
                replicas.remove(replica)
                errors.append(error)
            except Exception as error:  # noqa: BLE001 - whatever `reconfigure` raises
                errors.append(error)

        try:
            async with anyio.create_task_group() as tasks:
                for replica in [*replicas]:
                    tasks.start_soon(tell, replica)
        except BaseException:  # cancelled: it may have arrived, or not
            self._config = old
            self._spawn(self._go_back, replicas)
            raise
        if errors:
            self._config = old
            await self._go_back(replicas)
            raise errors[0]

    def resize(self, max_ongoing_requests: float) -> None:
        """Let each of them work on so many requests."""
        self._max_ongoing = max_ongoing_requests
        for replica in self._slots.replicas:
            if replica.state is ReplicaState.RUNNING:
                replica.serve(max_ongoing_requests)
        self._slots.changed()

    async def close(self, deadline: float) -> None:
        """Let all of them end, by force from `deadline` on."""
        self._closing = True
        for place in self._places:
            self._retiring.add(place)
            self._spawn(place.retire, deadline)
        while self._places:
            await self._changed.wait()

    def kill(self) -> None:
        """End all of them at once."""
        for replica in self.replicas:
            replica.kill()

    def cancel(self) -> None:
        """End whatever goes on in the background."""
        self._cancelled = True
        for scope in self._scopes:
            scope.cancel()

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._tasks.start_soon(self._in_background, work, args)

    async def _in_background(
        self, work: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]
    ) -> None:
        """Work on though the pool's block is cancelled: its replicas have to finish theirs."""
        if self._cancelled:
            return
        with anyio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            try:
                await work(*args)
            finally:
                self._scopes.discard(scope)

    @property
    def _staying(self) -> list[Place]:
        return [place for place in self._places if place not in self._retiring]

    async def _start(self, places: list[Place]) -> None:
        self._places += places
        for place in places:
            self._spawn(place.keep)
        try:
            while not all(place.is_ready for place in places):
                _raise_first_error(places)
                await self._changed.wait()
        except BaseException:
            for place in places:
                place.abandon()
            with anyio.CancelScope(shield=True):
                await self._until_gone(places)
            raise

    async def _retire(self, places: Sequence[Place]) -> None:
        """Let these end; they do so in the background where the caller is cancelled."""
        deadline = anyio.current_time() + self._grace
        for place in places:
            self._retiring.add(place)
            self._spawn(place.retire, deadline)
        await self._until_gone(places)

    async def _until_gone(self, places: Sequence[Place]) -> None:
        while not all(place.is_gone for place in places):
            await self._changed.wait()

    async def _replace(self, place: Place) -> None:
        if not place.is_gone:
            await self._start([Place(self, before=place.before + 1)])
            await self._retire([place])

    async def _go_back(self, replicas: Sequence[Replica]) -> None:
        """Hand the old `user_config` to those that may have the new one."""
        for place in self._staying:
            replica = place.replica
            if replica is None or replica not in replicas:
                continue
            went_back = False
            if self._config:
                with contextlib.suppress(Exception):
                    await replica.ask(Kind.RECONFIGURE, *self._config)
                    went_back = True
            if went_back:
                replica.config = self._config
            else:  # nobody knows what it has now
                replica.give_up("it could not go back to its old user_config")


def _raise_first_error(places: Sequence[Place]) -> None:
    for place in places:
        if place.is_gone and place.error is not None:
            raise place.error


def _worth(place: Place) -> tuple[bool, int, int]:
    """What to do without first: what does not serve, what has little to do, what is new."""
    replica = place.replica
    if replica is None:
        return False, 0, 0
    return replica.state is ReplicaState.RUNNING, replica.ongoing, -replica.number
