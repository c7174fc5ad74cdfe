"""Crew: the replicas of a pool, as many as there have to be."""

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.abc

from loadshed._errors import (
    ConfigError,
    LoadShedError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
)
from loadshed._limits import MakeLimit
from loadshed._policy.restarts import Restarts
from loadshed._policy.wire import Kind
from loadshed._pool.outward import Peers
from loadshed._pool.place import Place
from loadshed._pool.plan import Config, Plan
from loadshed._pool.replica import Replica
from loadshed._pool.slots import Slots
from loadshed._pool.statistics import ReplicaState
from loadshed._pool.watch import Watch

TRIES = 3
"""How often it is tried to put one of the old version in the place of one of a failed version."""

_logger = logging.getLogger("loadshed")


class Crew:
    """Starts, replaces and ends replicas.

    Args:
        tasks: Where the work is done that goes on in the background.
        slots: Where replicas are put to use.
        plan: What they are.
        lifeline: A pipe that breaks when this process ends.
        peers: The pools that they may call.

    Attributes:
        restarts: When those that die are replaced.
        restarted: How many took the place of another one so far.
    """

    def __init__(
        self, tasks: anyio.abc.TaskGroup, slots: Slots, plan: Plan, lifeline: int, peers: Peers
    ) -> None:
        self.restarts = Restarts()
        self.restarted = 0
        self._tasks = tasks
        self._slots = slots
        self._plan = plan
        self._lifeline = lifeline
        self._peers = peers
        self._places: list[Place] = []
        self._retiring: set[Place] = set()
        self._last_number = 0
        self._is_open = False
        self._is_closed = False
        self._is_going_back = False
        self._is_rolling = False
        self._cancelled = False
        self._scopes: set[anyio.CancelScope] = set()
        self._taking_back = anyio.CancelScope()
        self._changed = anyio.Event()

    @property
    def replicas(self) -> list[Replica]:
        """Those that are there, the oldest first."""
        there = (place.replica for place in self._places)
        return sorted((each for each in there if each is not None), key=lambda each: each.number)

    @property
    def trouble(self) -> str:
        """Why some of them are not there; empty where that is not known."""
        errors = [place.error for place in self._staying if place.error is not None]
        return str(errors[-1]) if errors else ""

    # For its places.

    async def have(self, place: Place) -> None:
        """Have a replica, until it has ended.

        Raises:
            ReplicaError: It never came to be ready.
            ConfigError: A setting is not one that its target can have.
            OSError: There can't be another process.
        """
        plan = self._plan
        start = plan.start()
        self._last_number += 1
        self.restarted += place.before > 0
        name = f"{plan.name}#{self._last_number}"
        replica = Replica(
            name,
            self._last_number,
            place.before,
            self._lifeline,
            self._slots,
            environment=plan.environment,
            peers=self._peers,
        )
        replica.config, replica.version = plan.config, plan.version
        place.replica = replica
        try:
            await replica.run(start, partial(self._put_to_use, place, replica))
        finally:
            if replica in self._slots.replicas:
                self._slots.remove(replica)

    async def _put_to_use(self, place: Place, replica: Replica, tasks: anyio.abc.TaskGroup) -> None:
        """It can serve."""
        while replica.config is not self._plan.config:  # it was changed meanwhile
            await self._tell(replica, self._plan.config)
        place.watch = Watch(replica, tasks)
        self._begin_to_watch(place.watch)
        replica.serve(self._slots.limit_of_one_more(self._plan.max_ongoing_requests))
        self._slots.add(replica)
        place.is_ready = True
        self.note(place)
        if self._is_open:
            self._slots.serve()

    def _begin_to_watch(self, watch: Watch) -> None:
        watch.begin(
            period=self._plan.health_check_period_s,
            timeout=self._plan.health_check_timeout_s,
            request_timeout_s=self._plan.request_timeout_s,
        )

    async def _tell(self, replica: Replica, config: Config) -> None:
        """Hand a `user_config` to one that has another one.

        Raises:
            ReplicaError: It can't have it.
        """
        if not config:
            raise ReplicaUnavailableError(f"{replica.name} can't forget its user_config.")
        try:
            await replica.ask(Kind.RECONFIGURE, *config)
        except ReplicaError:
            raise
        except Exception as error:
            message = f"{replica.name} can't have the user_config {config[0]!r}: {error!r}"
            raise ReplicaUnavailableError(message) from error
        replica.config = config

    def note(self, place: Place) -> None:
        """Something about a place has changed."""
        if place.is_gone:
            self._places.remove(place)
            self._retiring.discard(place)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def despair(self, error: Exception) -> None:
        """There is little hope for another replica: where none serves, nobody need wait."""
        if not self._slots.replicas:
            self._slots.dismiss(lambda: ReplicaUnavailableError(str(error)))

    # For the pool.

    async def open(self, count: int) -> None:
        """Start so many, side by side.

        Raises:
            ReplicaUnavailableError: One can't be started.
            ConfigError: A setting is not one that the target can have.
        """
        self._plan.start()  # raises what it raises before there is a process
        await self._start([Place(self) for _ in range(count)])
        self._is_open = True
        self._slots.serve()

    async def scale(self, count: int, *, at_once: bool = False) -> None:
        """Have so many: start more, or let some end when they have finished their work.

        Args:
            count: How many.
            at_once: Whether to begin with that before anything is awaited.

        Raises:
            ReplicaUnavailableError: One can't be started. There are as many as before, then.
            ConfigError: A setting is not one that the target can have.
        """
        if not at_once:
            await self._until_gone_back()  # from what was cancelled: it replaces some
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
        await self._until_gone_back()  # from what was cancelled
        self.check()
        for place in self._staying:
            await self._replace(place)

    async def roll(self, plan: Plan) -> None:
        """Replace one after the other by one of another plan.

        Raises:
            ConfigError: It can't be sent.
            ReplicaUnavailableError: One can't be started. Then all are of the old plan again.
        """
        self.check()
        plan.start()  # raises where it can't be sent
        old, self._plan = self._plan, plan
        self._is_rolling = True
        self._taking_back.cancel()  # whatever they have, they will be replaced
        try:
            await self._until_gone_back()  # from one that was cancelled: it need not end its work
            await self._bring_up_to_date()
        except BaseException as error:
            self._is_rolling = False
            self._begin_to_go_back(old)
            if isinstance(error, Exception):
                await self._until_gone_back()
            raise
        self._is_rolling = False

    async def _bring_up_to_date(self) -> None:
        for place in self._staying:
            if place.replica is None or place.replica.version != self._plan.version:
                await self._replace(place)

    def adopt(self, plan: Plan) -> None:
        """Look after them in another way, from now on."""
        self._plan = plan
        for place in self._places:
            if place.watch is not None:
                self._begin_to_watch(place.watch)

    async def configure(self, config: Config) -> None:
        """Hand a new `user_config` to all of them.

        Raises:
            ConfigError: It can't be sent, or the target can't have any.
            ReplicaUnavailableError: The pool is being left.
            Exception: What the target has raised. Then all have the old one again.
        """
        await self._until_gone_back()  # from one that was cancelled
        self.check()
        plan = replace(self._plan, config=config)
        plan.start()  # raises where it can't be sent
        old, self._plan = self._plan, plan
        errors: list[Exception] = []
        deaths: list[ReplicaDiedError] = []

        async def tell(replica: Replica) -> None:
            before, replica.config = replica.config, None
            try:
                await replica.ask(Kind.RECONFIGURE, *config)
                replica.config = config
            except ReplicaDiedError as error:  # one that replaces it is started with the new one
                deaths.append(error)
            except ConfigError as error:  # it can't have any
                replica.config = before
                errors.append(error)
            except Exception as error:  # noqa: BLE001 - whatever `reconfigure` raises
                errors.append(error)

        told = self._serving
        try:
            async with anyio.create_task_group() as tasks:
                for replica in told:
                    tasks.start_soon(tell, replica)
        except BaseException:  # cancelled: it may have arrived, or not
            self._begin_to_go_back(old)
            raise
        if deaths and len(deaths) == len(told):  # that was no accident
            errors += deaths
        if errors:
            self._begin_to_go_back(old)
            await self._until_gone_back()
            raise errors[0]

    def resize(self, max_ongoing_requests: float | MakeLimit) -> None:
        """Let each of them work on so many requests.

        Raises:
            ConfigError: What was made for one is no limit. Then all keep the one that they have.
            ReplicaUnavailableError: None could be made for one. Then, too.
        """
        limits = [
            (each, self._slots.limit_of_one_more(max_ongoing_requests, each))
            for each in self._slots.replicas
            if each.state is ReplicaState.RUNNING
        ]
        self._plan = replace(self._plan, max_ongoing_requests=max_ongoing_requests)
        for replica, limit in limits:
            replica.serve(limit)
        self._slots.changed()

    async def close(self, deadline: float) -> None:
        """Let all of them end, by force from `deadline` on."""
        self._is_open = False
        self._is_closed = True
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
        self._is_closed = self._cancelled = True
        self._is_going_back = False
        self._wake()
        for scope in self._scopes:
            scope.cancel()

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        if not self._cancelled:
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
    def _serving(self) -> list[Replica]:
        return [each for each in self.replicas if each.state is ReplicaState.RUNNING]

    @property
    def _staying(self) -> list[Place]:
        return [place for place in self._places if place not in self._retiring]

    async def _start(self, places: list[Place]) -> None:
        self.check()
        self._places += places
        for place in places:
            self._spawn(place.keep)
        try:
            while not all(place.is_ready for place in places):
                for place in places:
                    if place.is_gone:
                        raise place.error or self._going()  # noqa: TRY301
                await self._changed.wait()
        except BaseException:
            for place in places:
                place.abandon()
            with anyio.CancelScope(shield=True):
                await self._until_gone(places)
            raise

    def check(self) -> None:
        """Raise where nothing is to be changed any more."""
        if self._is_closed:
            raise self._going()

    def _going(self) -> ReplicaUnavailableError:
        return ReplicaUnavailableError(f"The pool {self._plan.name!r} is being left.")

    async def _retire(self, places: Sequence[Place]) -> None:
        """Let these end; they do so in the background where the caller is cancelled."""
        deadline = anyio.current_time() + self._plan.grace
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

    def _begin_to_go_back(self, plan: Plan) -> None:
        self._plan = plan
        if not (self._is_going_back or self._cancelled):  # else it notices that this is another one
            self._is_going_back = True
            self._spawn(self._go_back)

    async def _until_gone_back(self) -> None:
        while self._is_going_back:
            await self._changed.wait()

    async def _go_back(self) -> None:
        """Let all be of the plan that there is again."""
        try:
            is_done = False
            while not is_done:  # there may be another plan again
                is_done = await self._are_of(self._plan) or self._is_rolling
        finally:
            self._is_going_back = False
            self._wake()

    async def _are_of(self, plan: Plan) -> bool:
        """Let all be of this plan; whether that is still the plan."""
        failures: Counter[Place] = Counter()
        while (place := self._of_another(plan, failures)) is not None:
            if self._plan.version != plan.version:
                return False
            try:
                await self._replace(place)
            except LoadShedError as error:  # an accident, it may be
                failures[place] += 1
                level = logging.DEBUG if self._is_closed else logging.WARNING
                _logger.log(level, "A replica of a failed version can't be replaced. %s", error)
        return await self._take_configs_back(plan) and (
            self._plan.version == plan.version and self._plan.config is plan.config
        )

    def _of_another(self, plan: Plan, failures: Counter[Place]) -> Place | None:
        """One whose replica is of another plan, and was not replaced in vain too often."""
        for place in self._staying:
            replica = place.replica
            if replica is None or replica.version == plan.version:
                continue
            if failures[place] < TRIES:
                return place
        return None

    async def _take_configs_back(self, plan: Plan) -> bool:
        """Hand the old `user_config` to those that have, or may have, another one.

        Whether all was done that could be: not where all are to be replaced anyway.
        """
        if self._is_rolling:
            return False
        with anyio.CancelScope() as self._taking_back:
            async with anyio.create_task_group() as tasks:
                for replica in self._serving:
                    if self._plan.config is plan.config is not replica.config:
                        tasks.start_soon(self._take_config_back, replica, plan.config)
        return not self._taking_back.cancel_called

    async def _take_config_back(self, replica: Replica, config: Config) -> None:
        failure = await self._try_to_take_back(replica, config)
        if failure is not None:  # nobody knows what it has now
            replica.stop(failure)
            self._spawn(replica.retire, anyio.current_time() + self._plan.grace)

    async def _try_to_take_back(self, replica: Replica, config: Config) -> str | None:
        """Hand a replica the old `user_config`; why it can't have that, if it can't."""
        timeout = self._plan.health_check_timeout_s
        try:
            with anyio.fail_after(timeout):
                await self._tell(replica, config)
        except TimeoutError:
            return f"it did not take its user_config back within {timeout} s"
        except ReplicaError as error:
            return str(error).removesuffix(".")
        return None


def _worth(place: Place) -> tuple[bool, int, int]:
    """What to do without first: what does not serve, what has little to do, what is new."""
    replica = place.replica
    if replica is None:
        return False, 0, 0
    return replica.state is ReplicaState.RUNNING, replica.ongoing, -replica.number
