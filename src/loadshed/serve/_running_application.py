"""RunningApplication: an application in the server, on its way to its goal."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from loadshed._errors import LoadShedError
from loadshed._pool.application import PoolApplication
from loadshed.serve._goal import Code, Goal
from loadshed.serve._running_deployment import RunningDeployment
from loadshed.serve._settings import Settings

if TYPE_CHECKING:
    from loadshed._pool.pool import ReplicaPool

_logger = logging.getLogger("loadshed")


class RunningApplication:
    """Brings the deployments of one application to its goal, and keeps the old ones if it can't.

    Args:
        name: What it is called.
        tasks: Where its deployments live.
        changed: Called when what it is, or where its requests go, has changed.

    Attributes:
        goal: What it is to be; None when it is to go.
        reached: What it is; None before it was anything.
        status: One of Ray Serve's words: NOT_STARTED, DEPLOYING, RUNNING, DEPLOY_FAILED, DELETING.
        message: Why it is not what it is to be.
        is_gone: Whether it has gone.
    """

    def __init__(self, name: str, tasks: TaskGroup, changed: Callable[[], None]) -> None:
        self.name = name
        self.goal: Goal | None = None
        self.reached: Goal | None = None
        self.message = ""
        self.is_gone = False
        self._status = "NOT_STARTED"
        self._tasks = tasks
        self._changed = changed
        self._deployed_at = 0.0
        self._deployments: dict[str, RunningDeployment] = {}
        self._entrance: PoolApplication | None = None
        self._leaving = 0
        self._draining: dict[str, RunningDeployment] = {}
        self._has_drained = anyio.Event()
        self._pools: dict[str, ReplicaPool] = {}
        self._work = anyio.CancelScope()
        self._has_goal = anyio.Event()

    @property
    def prefix(self) -> str | None:
        """What the paths of its requests begin with; None if it gets none.

        While it comes to be something else that is as it was.
        """
        now = self.reached or self.goal
        return None if now is None else now.route_prefix

    @property
    def entrance(self) -> PoolApplication | None:
        """Where its requests go; None while there is nothing."""
        return self._entrance

    @property
    def is_going(self) -> bool:
        """Whether it is to go."""
        return self.goal is None

    @property
    def is_serving(self) -> bool:
        """Whether it has come to be something."""
        return self.reached is not None

    @property
    def is_settled(self) -> bool:
        """Whether it is what it is to be, or won't come to be that."""
        return self.status not in {"NOT_STARTED", "DEPLOYING", "DELETING"}

    @property
    def status(self) -> str:
        """One of Ray Serve's words."""
        if self._status == "RUNNING" and any(
            each.status()["status"] == "UNHEALTHY" for each in self._deployments.values()
        ):
            return "UNHEALTHY"
        return self._status

    def report(self) -> dict[str, Any]:
        """What it is doing, as plain data."""
        prefix = None if self.goal is None else self.goal.route_prefix
        return {
            "status": self.status,
            "message": self.message,
            "last_deployed_time_s": self._deployed_at,
            "route_prefix": prefix,
            "deployments": {
                name: each.status() for name, each in (self._draining | self._deployments).items()
            },
        }

    def aim(self, goal: Goal | None) -> None:
        """Have another goal, whatever is going on; None is to go."""
        self.goal = goal
        self._say("DELETING" if goal is None else "DEPLOYING")
        self._deployed_at = time.time()
        self._has_goal.set()
        self._work.cancel()

    async def live(self) -> None:
        """Reach one goal after the other: a task, until it has gone."""
        try:
            while not self.is_gone:
                await self._has_goal.wait()
                self._has_goal = anyio.Event()
                with anyio.CancelScope() as self._work:
                    await self._reach_goal(self.goal)
        finally:
            self.is_gone = True
            self._changed()

    async def _reach_goal(self, goal: Goal | None) -> None:
        if goal is None:
            await self._go()
            return
        try:
            await self._reach(goal)
        except Exception as error:
            if not isinstance(error, LoadShedError):  # a bug of ours
                _logger.exception("The application %r could not be deployed.", self.name)
            await self._go_back(goal, str(error) or repr(error))
        else:
            if self.goal is goal:  # and not yet another one, which it has just been given
                self._say("RUNNING")

    async def _reach(self, goal: Goal) -> None:
        """Start what is new, change what is there, end what is too many.

        Raises:
            Exception: Some of that can't be done; the rest was.
        """
        new = [name for name in goal.deployments if name not in self._deployments]
        await self._start(new, goal)
        for name, settings in goal.deployments.items():
            await self._change(self._deployments[name], goal.code, settings)
        self.reached = goal
        self._entrance = self._deployments[goal.ingress].application
        self._changed()  # from now on requests go where they are to go
        await self._stop([name for name in self._deployments if name not in goal.deployments])

    async def _change(self, deployment: RunningDeployment, code: Code, settings: Settings) -> None:
        deployment.failure = ""
        try:
            await deployment.change(code, settings)
        except Exception as error:
            deployment.failure = str(error) or repr(error)
            raise

    async def _start(self, names: list[str], goal: Goal) -> None:
        """Start deployments, one after the other: all or none."""
        new = [
            RunningDeployment(
                self.name,
                name,
                code=goal.code,
                settings=goal.deployments[name],
                peers=self._pools,
                tasks=self._tasks,
            )
            for name in names
        ]
        for deployment in new:
            self._deployments[deployment.name] = deployment
            self._pools[deployment.name] = deployment.pool
        try:
            for deployment in new:  # those that are called come first
                await deployment.start()
        except BaseException:
            await self._stop(names)
            raise

    async def _stop(self, names: list[str]) -> None:
        """End deployments. They do so in the background if there is another goal meanwhile."""
        leaving = [self._deployments.pop(name) for name in reversed(names)]
        if leaving:
            self._draining |= {deployment.name: deployment for deployment in leaving}
            ended = anyio.Event()
            self._leaving += 1
            self._tasks.start_soon(self._drain, leaving, ended)
            await ended.wait()

    async def _drain(self, leaving: list[RunningDeployment], ended: anyio.Event) -> None:
        """Let them end, those first that call the others."""
        try:
            for deployment in leaving:
                await deployment.stop()
                if self._pools.get(deployment.name) is deployment.pool:
                    del self._pools[deployment.name]
                if self._draining.get(deployment.name) is deployment:
                    del self._draining[deployment.name]
        finally:
            self._leaving -= 1
            ended.set()
            self._has_drained.set()
            self._has_drained = anyio.Event()
            self._changed()

    async def _go_back(self, goal: Goal, message: str) -> None:
        """Be again what it was."""
        old = self.reached
        self._say("DEPLOYING", message)
        if old is None:
            await self._stop(list(self._deployments))
        else:
            try:
                await self._reach(old)
            except Exception as error:  # noqa: BLE001 - it says so
                message += f"\nAnd what it was before could not be restored: {error}"
        if self.goal is goal:
            self._say("DEPLOY_FAILED", message)

    async def _go(self) -> None:
        """Go: it takes no more requests, and what it has is served."""
        self.reached = self._entrance = None
        self._changed()
        await self._stop(list(self._deployments))
        while self._leaving:  # some may do so since an earlier goal
            await self._has_drained.wait()
        self.is_gone = self.goal is None  # else it was given another one in the last moment

    def _say(self, status: str, message: str = "") -> None:
        self._status, self.message = status, message
        self._changed()
