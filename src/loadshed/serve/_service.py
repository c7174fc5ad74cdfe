"""Service: the server of `loadshed run`: what it is told, and what it does about it."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from loadshed._errors import ConfigError
from loadshed._pool.environment import Environment
from loadshed.serve._address import load, save
from loadshed.serve._config.file import ConfigFileError, Mistake, from_plain
from loadshed.serve._config.schema import HTTPOptions, ServeConfig
from loadshed.serve._config.write import to_plain
from loadshed.serve._controller import Controller
from loadshed.serve._goal import Code
from loadshed.serve._prepare import Preparation
from loadshed.serve._source import Source
from loadshed.serve._store import CodeStore, files_of

GOAL = "goal.json"
"""The file, in the state directory, with what a server is to be."""

REACHED = "reached.json"
"""The one with what it was when all of that was reached for the last time."""

FIXED = ("host", "port", "root_path", "keep_alive_timeout_s")
"""The settings of the HTTP server that can't be changed while it runs."""


class Service:
    """Takes configs, saves them, and has them reached.

    Args:
        controller: Brings applications to their goals.
        state: The directory of what outlives this process.
        app_dir: Where modules are looked for that no `runtime_env` has.
        http_options: Those of the HTTP server.

    Attributes:
        controller: The same.
        preparation: Makes goals of configs.
        config: What it is to be.
        generation: How many configs there were.
        url: Where it can be reached.
    """

    def __init__(
        self, controller: Controller, state: Path, app_dir: str, http_options: HTTPOptions
    ) -> None:
        self.controller = controller
        self.config = ServeConfig(applications=())
        self.generation = 0
        self.url = ""
        self._http_options = http_options
        self._app_dir = os.path.abspath(app_dir)
        self._file = ""
        self._state = state
        self._saved: dict[str, Any] = {}
        self._store = CodeStore(state / "code")
        self.preparation = Preparation(self._store, app_dir)
        self._lock = anyio.Lock()
        self._preparing = anyio.CancelScope()
        self._last_deploy = 0
        self._ending = anyio.Event()

    async def deploy(
        self,
        config: ServeConfig,
        *,
        restart: bool = False,
        codes: Mapping[str, Code] | None = None,
        file: str = "",
    ) -> list[Mistake]:
        """Have a config from now on. It is reached in the background.

        Args:
            config: The config.
            restart: Whether replicas are to be replaced though nothing has changed.
            codes: What its applications are made of, where that is settled already.
            file: The file that it comes from; it is no part of the code.

        Returns:
            Warnings.

        Raises:
            ConfigFileError: Something is wrong with it; nothing has changed.
        """
        self._last_deploy += 1
        this_deploy = self._last_deploy
        self._preparing.cancel()  # code may hang as it is imported
        async with self._lock:
            self._check_is_last(this_deploy)  # one may have come while this one waited
            with anyio.CancelScope() as self._preparing:
                current = self.controller.goals
                goals = await self.preparation.goals(
                    config, current, restart=restart, codes=codes or {}, file=file
                )
            self._check_is_last(this_deploy)
            self._saved = {
                "config": to_plain(config),
                "app_dir": self._app_dir,
                "file": file,
                "codes": {goal.name: _plain(goal.code) for goal in goals},
            }
            await self._save(GOAL)
            self.config, self._file = config, file
            self.generation += 1
            self.controller.aim(goals)
            return _fixed(self._http_options, config.http_options)

    def _check_is_last(self, deploy: int) -> None:
        if deploy != self._last_deploy:
            raise ConfigFileError([Mistake("was given up: another one has been deployed.")])

    async def redeploy(self) -> None:
        """Have the same config once more: the code may have changed.

        Raises:
            ConfigFileError: The code can't be imported; nothing has changed.
        """
        await self.deploy(self.config, restart=True, file=self._file)

    async def tidy(self) -> None:
        """Remember what was reached, and remove copies of code that nothing is made of: a task."""
        while True:
            await self.controller.settled()
            if not self.generation:  # what is there may be what it is going to be
                await self.controller.next_change()
                continue
            async with self._lock:
                await anyio.to_thread.run_sync(self._store.keep, self.controller.paths)
                if self.controller.is_all_running:
                    await self._save(REACHED)
            await self.controller.next_change()

    async def _save(self, name: str) -> None:
        try:
            await anyio.to_thread.run_sync(save, self._state / name, self._saved)
        except OSError as error:
            expected = f"where files can be written ({error.strerror})"
            raise ConfigError("XDG_STATE_HOME", str(self._state), expected) from None

    def status(self) -> dict[str, Any]:
        """What it is doing, as plain data; the keys are Ray Serve's where that has them."""
        return {
            "pid": os.getpid(),
            "url": self.url,
            "generation": self.generation,
            "proxies": {self.url: "HEALTHY" if self.controller.is_well else "STARTING"},
            "applications": self.controller.status(),
        }

    def newest(self) -> float:
        """When a Python file of the code was changed last, in seconds since 1970."""
        directories = [self._app_dir]
        for application in self.config.applications:
            env = application.runtime_env
            directories += filter(None, [env.working_dir, *env.py_modules])
        files = [path for each in directories for path in files_of(Path(each), ".py")]
        return max((_changed_at(path) for path in files), default=0.0)

    @property
    def is_ending(self) -> bool:
        """Whether it is to end."""
        return self._ending.is_set()

    def end(self) -> None:
        """End, when what came is served."""
        self._ending.set()

    async def ended(self) -> None:
        """Wait until it is to end."""
        await self._ending.wait()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a server was to be, or was.

    Attributes:
        config: Its config.
        app_dir: Where modules are looked for that no `runtime_env` has.
        file: The file that it came from.
        codes: What its applications are made of, by name.
    """

    config: ServeConfig
    app_dir: str
    file: str
    codes: dict[str, Code]


def saved(state: Path, name: str = GOAL) -> Saved:
    """What the last server was to be, or was.

    Raises:
        ConfigError: There is nothing, or it can't be read.
    """
    path = state / name
    plain = load(path)
    if plain is None:
        raise ConfigError("resume", str(path), "the goal of a server that ran at this address")
    try:
        if not isinstance(plain["app_dir"], str) or not isinstance(plain["file"], str):
            raise TypeError("a path that is none")  # noqa: TRY301
        return Saved(
            config=from_plain(plain["config"], source=str(path)).config,
            app_dir=plain["app_dir"],
            file=plain["file"],
            codes={name: _code(each) for name, each in plain["codes"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError("resume", str(path), f"what a server has saved ({error!r})") from None


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # editors write a new file and rename it
        return 0.0


def _code(plain: dict[str, Any]) -> Code:
    source, environment = plain["source"], plain["environment"]
    environment["paths"] = tuple(environment["paths"])
    return Code(
        source=Source(**source), environment=Environment(**environment), version=plain["version"]
    )


def _plain(code: Code) -> dict[str, Any]:
    source, environment = code.source, code.environment
    return {
        "source": {"import_path": source.import_path, "args": dict(source.args)},
        "environment": dataclasses.asdict(environment),
        "version": code.version,
    }


def _fixed(old: HTTPOptions, new: HTTPOptions) -> list[Mistake]:
    """What in a new config has no effect before the next start."""
    return [
        Mistake(
            where=f"http_options.{name}",
            message=f"is {getattr(old, name)!r} as long as this server runs.",
        )
        for name in FIXED
        if getattr(old, name) != getattr(new, name)
    ]
