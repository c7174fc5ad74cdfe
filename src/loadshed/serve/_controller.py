"""Controller: all applications of a server, on their way to their goals."""

from collections.abc import Iterable
from typing import Any

import anyio
from anyio.abc import TaskGroup

from loadshed.serve._front import Front
from loadshed.serve._goal import Goal
from loadshed.serve._running_application import RunningApplication


class Controller:
    """Starts, changes and ends applications.

    Args:
        tasks: Where they live.

    Attributes:
        front: Where requests come in.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self.front = Front(lambda: self.is_well)
        self._tasks = tasks
        self._applications: dict[str, RunningApplication] = {}
        self._has_changed = anyio.Event()
        self._is_aimed = self._was_well = False
        self._prefixes: dict[str, str | None] = {}  # of those that have settled
        self._is_closing = False
        self._unwanted: set[str] = set()

    @property
    def is_well(self) -> bool:
        """Whether all applications came to serve at first, and it is not about to end.

        One that comes later and can't serve is no reason to send nobody to the others.
        """
        return self._was_well and not self._is_closing

    @property
    def grace(self) -> float | None:
        """Seconds that requests have to be finished when all is to end; None is for ever."""
        graces = [
            settings.graceful_shutdown_timeout_s
            for goal in self.goals.values()
            for settings in goal.deployments.values()
        ]
        limited = [grace for grace in graces if grace is not None]
        return max(limited, default=0) if len(limited) == len(graces) else None

    @property
    def goals(self) -> dict[str, Goal]:
        """What there is to be, by name."""
        return {
            name: each.goal for name, each in self._applications.items() if each.goal is not None
        }

    def aim(self, goals: Iterable[Goal]) -> None:
        """Have these goals. What is none of them goes; what has not changed goes on."""
        self._is_aimed = True
        # One that was on its way when all began to end has come too late.
        wanted = {} if self._is_closing else {goal.name: goal for goal in goals}
        self._unwanted = {name for name in self._applications if name not in wanted}
        for name, goal in wanted.items():
            self._aim(name, goal)
        self._note()

    def _aim(self, name: str, goal: Goal) -> None:
        application = self._applications.get(name)
        if application is None or application.is_gone:
            application = RunningApplication(name, self._tasks, self._note)
            self._applications[name] = application
            self._tasks.start_soon(application.live)
        if goal != application.goal or application.status == "DEPLOY_FAILED":
            application.aim(goal)

    def status(self) -> dict[str, dict[str, Any]]:
        """What all of them are doing, as plain data, by name."""
        return {name: each.report() for name, each in self._applications.items()}

    @property
    def paths(self) -> set[str]:
        """Where the code lies that they are made of, or are to be made of."""
        return {
            path
            for application in self._applications.values()
            for goal in (application.goal, application.reached)
            if goal is not None
            for path in goal.code.environment.paths
        }

    @property
    def is_settled(self) -> bool:
        """Whether each is what it is to be, or won't come to be that."""
        return all(each.is_settled for each in self._applications.values())

    @property
    def is_all_running(self) -> bool:
        """Whether each is what it is to be."""
        return self._is_aimed and all(
            each.status in {"RUNNING", "UNHEALTHY"} for each in self._applications.values()
        )

    @property
    def serves(self) -> bool:
        """Whether there is one that serves, or nothing that is to."""
        applications = self._applications.values()
        return not applications or any(each.is_serving for each in applications)

    async def next_change(self) -> None:
        """Wait until something has changed."""
        await self._has_changed.wait()

    async def settled(self) -> None:
        """Wait until each is what it is to be, or won't come to be that."""
        while not self.is_settled:
            await self._has_changed.wait()

    async def close(self) -> None:
        """Let all of them go."""
        self._is_closing = True
        self.aim([])
        while self._applications:
            await self._has_changed.wait()

    def _note(self) -> None:
        """Something has changed: requests go where they are to go."""
        for name in [name for name, each in self._applications.items() if each.is_gone]:
            del self._applications[name]
        self._let_go()
        if self.is_settled:
            self._prefixes = {
                name: each.prefix for name, each in self._applications.items() if each.is_serving
            }
        if self._is_aimed and all(each.is_serving for each in self._applications.values()):
            self._was_well = True
        self.front.route(self._routes())
        self._has_changed.set()
        self._has_changed = anyio.Event()

    def _let_go(self) -> None:
        """Let those go that are not wanted, unless what takes their place can't serve yet."""
        awaited = {
            each.prefix
            for name, each in self._applications.items()
            if name not in self._unwanted and not each.is_serving and not each.is_going
        }
        for name in list(self._unwanted):
            application = self._applications.get(name)
            if application is None or application.is_going:
                self._unwanted.discard(name)
            elif self._is_closing or application.prefix not in awaited - {None}:
                self._unwanted.discard(name)
                application.aim(None)

    def _routes(self) -> dict[str, tuple[str, Any]]:
        """Where requests go, by prefix.

        While something changes, those that had a prefix keep it: else two that change places would
        do so at different times.
        """
        routes: dict[str, tuple[str, Any]] = {}
        there = [(name, each) for name, each in self._applications.items() if not each.is_going]
        for name, application in sorted(there, key=lambda one: one[0] not in self._prefixes):
            prefix = self._prefixes.get(name, application.prefix)
            if prefix is not None and prefix not in routes:
                routes[prefix] = name, application.entrance
        return routes
