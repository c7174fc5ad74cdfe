"""prepare: from a config to goals; what can be found wrong is found before anything changes."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import anyio
import anyio.to_thread

from loadshed._errors import ConfigError, LoadShedError
from loadshed._pool.environment import Environment
from loadshed._pool.pool import ReplicaPool
from loadshed.serve._config.file import ConfigFileError, Mistake, from_plain
from loadshed.serve._config.schema import ApplicationConfig, DeploymentConfig, ServeConfig
from loadshed.serve._described import Described, DescribedDeployment
from loadshed.serve._goal import Code, Goal, digest, merged
from loadshed.serve._source import Source
from loadshed.serve._store import CodeStore

DESCRIBE = "loadshed.serve._hosted:describe"


class Preparation:
    """Makes goals of configs.

    Args:
        store: Where copies of code are kept.
        app_dir: Where modules are looked for that no `runtime_env` has.
    """

    def __init__(self, store: CodeStore, app_dir: str) -> None:
        self._store = store
        self._app_dir = os.path.abspath(app_dir)
        self._described: dict[str, Described] = {}

    async def goals(
        self,
        config: ServeConfig,
        current: Mapping[str, Goal],
        *,
        restart: bool = False,
        codes: Mapping[str, Code] = MappingProxyType({}),
        file: str = "",
    ) -> list[Goal]:
        """What the applications of a config are to be.

        The code of those that are new, or have changed, is imported in a process of its own.

        Args:
            config: The config.
            current: What they are to be now, by name.
            restart: Whether replicas are to be replaced though nothing has changed.
            codes: What they are made of, by name, where that is settled already.
            file: The config file, which is no part of the code.

        Raises:
            ConfigFileError: Something is wrong with some of them: everything that was found.
        """
        goals: list[Goal] = []
        mistakes: list[Mistake] = []
        for index, application in enumerate(config.applications):
            try:
                defaults = {"request_timeout_s": config.http_options.request_timeout_s}
                code = codes.get(application.name)
                if code is None or not _exists(code):
                    turn = _turn(current.get(application.name)) + restart
                    code = await anyio.to_thread.run_sync(self._code, application, turn, file)
                goals.append(await self._goal(application, defaults, code))
            except LoadShedError as error:
                mistakes.append(_mistake(index, application, error))
        if mistakes:
            raise ConfigFileError(mistakes)
        known = {goal.code.version for goal in (*goals, *current.values())}
        self._described = {v: each for v, each in self._described.items() if v in known}
        return goals

    async def _goal(
        self, application: ApplicationConfig, defaults: Mapping[str, Any], code: Code
    ) -> Goal:
        described = await self.describe(code)
        overrides = {each.name: each.given() for each in application.deployments}
        return Goal(
            name=application.name,
            route_prefix=application.route_prefix,
            code=code,
            deployments=merged(described, overrides, defaults),
        )

    def _code(self, application: ApplicationConfig, turn: int, file: str = "") -> Code:
        """What its replicas are made of: the files as they are now."""
        wanted = application.runtime_env
        directory = None
        paths = [self._app_dir]
        if wanted.working_dir is not None:
            directory = self._store.add("runtime_env.working_dir", wanted.working_dir, without=file)
            paths.insert(0, str(directory))
        modules = (
            self._store.add("runtime_env.py_modules", each, without=file)
            for each in wanted.py_modules
        )
        paths += [str(module.parent) for module in modules]
        environment = Environment(
            variables=wanted.env_vars,
            paths=tuple(paths),
            directory=None if directory is None else str(directory),
            uvloop=True,
            is_foreign=True,
        )
        what = (application.import_path, application.args, wanted.env_vars, paths)
        return Code(
            source=Source(import_path=application.import_path, args=application.args),
            environment=environment,
            version=f"{digest(*what)}-{turn}",
        )

    async def tuned(self, config: ServeConfig, settings: Mapping[str, Any]) -> ServeConfig:
        """A config with other settings for what gets the requests of its only application.

        Raises:
            ConfigFileError: Its code can't be imported.
        """
        if not settings:
            return config
        (application,) = config.applications
        try:
            code = await anyio.to_thread.run_sync(self._code, application, 0)
            ingress = (await self.describe(code)).deployments[-1].name
        except LoadShedError as error:
            raise ConfigFileError([_mistake(0, application, error)]) from None
        deployment = DeploymentConfig(name=ingress, **settings)
        tuned = application.model_copy(update={"deployments": (deployment,)})
        return config.model_copy(update={"applications": (tuned,)})

    async def describe_path(self, import_path: str) -> Described:
        """What the code at a path says of itself.

        Raises:
            ConfigError: It can't be imported, or is no application.
        """
        read = from_plain(
            {"applications": [{"import_path": import_path}]}, source="the command line"
        )
        return await self.describe(self._code(read.config.applications[0], 0))

    async def describe(self, code: Code) -> Described:
        """What the code of an application says of itself: it is imported in another process.

        Raises:
            ConfigError: It can't be imported, or is no application.
        """
        if (known := self._described.get(code.version)) is not None:
            return known
        name = str(code.source.import_path)
        pool = ReplicaPool(
            DESCRIBE, health_check_period_s=None, graceful_shutdown_timeout_s=0, name=name
        )
        pool._within(code.environment, {})
        async with pool:
            said = await pool.call(code.source)
        if "error" in said:
            expected = f"what can be imported: {said['error']}"
            failure = ConfigError(*said.get("mistake", ("import_path", name, expected)))
            if said["traceback"]:
                failure.add_note(said["traceback"].rstrip())
            raise failure
        deployments = tuple(DescribedDeployment(**each) for each in said["deployments"])
        described = self._described[code.version] = Described(deployments=deployments)
        return described


def _exists(code: Code) -> bool:
    return all(os.path.exists(path) for path in code.environment.paths)


def _turn(goal: Goal | None) -> int:
    """How often its replicas were replaced though nothing had changed."""
    return 0 if goal is None else int(goal.code.version.rpartition("-")[2])


def _mistake(index: int, application: ApplicationConfig, error: LoadShedError) -> Mistake:
    where = f"applications[{index}]"
    message = f"({application.name}) can't be deployed: {error}"
    if isinstance(error, ConfigError):
        where += f".{error.setting}"
        message = f"must be {error.expected}, not {error.value!r}."
    return Mistake(message="\n".join([message, *getattr(error, "__notes__", ())]), where=where)
