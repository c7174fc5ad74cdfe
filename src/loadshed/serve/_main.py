"""The server of `loadshed run`, from its start to its end."""

import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import anyio
import anyio.to_thread

from loadshed._errors import LoadShedError
from loadshed.serve._address import claimed, state_of
from loadshed.serve._config.file import ConfigFileError
from loadshed.serve._config.schema import ServeConfig
from loadshed.serve._control import control_application
from loadshed.serve._controller import Controller
from loadshed.serve._http_server import HTTPServer, close, listen, url_of
from loadshed.serve._service import Saved, Service

LOOK_EVERY = 0.25
"""Seconds between two looks at what nobody tells of: how replicas come up, files that change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a server is started with.

    Attributes:
        config: What it is to be.
        address: The socket where it is told what to do.
        app_dir: Where modules are looked for that no `runtime_env` has.
        file: The file that it comes from.
        resume: What the last server was to be; it is to be that again.
        reached: What that was before, if it may not have come to be what it was to be.
        reload: Whether replicas are replaced when a file of the code changes.
        tune: Settings for the deployment that gets the requests of the only application.
        say: Tells the user something.
    """

    config: ServeConfig
    address: str
    app_dir: str
    file: str = ""
    resume: Saved | None = None
    reached: Saved | None = None
    reload: bool = False
    tune: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None]


def serve(start: Start) -> bool:
    """Serve until Ctrl-C, SIGTERM or `loadshed shutdown`; then what came is served.

    Returns:
        False where it ended by itself, as it could not serve.

    Raises:
        ConfigError: Something can't be as it is to be, and nothing was begun.
    """
    http = start.config.http_options
    with (
        claimed(start.address) as control,
        contextlib.closing(listen(http.host, http.port)) as listener,
    ):
        options = {"use_uvloop": find_spec("uvloop") is not None}
        return anyio.run(_serve, start, control, listener, backend_options=options)


async def _serve(start: Start, control: socket.socket, listener: socket.socket) -> bool:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            controller = Controller(tasks)
            http_options = start.config.http_options
            service = Service(controller, state_of(start.address), start.app_dir, http_options)
            service.url = url_of(listener)
            front = HTTPServer(
                controller.front,
                listener,
                root_path=http_options.root_path,
                timeout_keep_alive=http_options.keep_alive_timeout_s,
            )
            told = HTTPServer(control_application(service), control)
            for task in (front.serve, told.serve, service.tidy):
                tasks.start_soon(task)
            tasks.start_soon(_await_signal, signals, service)
            failure: LoadShedError | None = None  # raised below as it is, not wrapped
            can_serve = False
            _collect_less()
            try:
                can_serve = await _run(service, start)
            except LoadShedError as error:
                failure = error
            finally:
                with anyio.CancelScope(shield=True):
                    await close(front, controller)
                    told.stop(0)
                    await told.ended.wait()
                tasks.cancel_scope.cancel()
    return _unless(failure, can_serve)  # pragma: no cover - 3.11 loses the line; tests see it


def _collect_less() -> None:
    """Let the garbage collector alone with what is there for good.

    This process makes no cycles to speak of, and runs no code of its users. At its usual pace the
    collector takes a quarter of the time of a small request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def _unless(failure: Exception | None, can_serve: bool) -> bool:
    if failure is not None:
        raise failure
    return can_serve


async def _run(service: Service, start: Start) -> bool:
    """Serve until it is to end; False where it ends by itself, as it can't serve."""
    failure: LoadShedError | None = None  # raised below as it is, not wrapped
    can_serve = True

    async def begin() -> None:
        nonlocal can_serve, failure
        start.say(f"loadshed: STARTING at {service.url}")
        try:
            await _deploy_first(service, start)
        except LoadShedError as error:
            failure = error
            service.end()
            return
        await tell_progress(service, start.say)
        can_serve = service.controller.serves or start.reload
        if not can_serve:
            service.end()
        elif start.reload:
            await watch_files(service, start.say)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        await service.ended()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if can_serve:
        start.say("Serving what came, and then ending.")
    return can_serve


async def _deploy_first(service: Service, start: Start) -> None:
    if start.reached is not None:
        await _try_to_be_again(service, start.reached)
    codes = {} if start.resume is None else start.resume.codes
    config = await service.preparation.tuned(start.config, start.tune)
    await service.deploy(config, codes=codes, file=start.file)


async def _try_to_be_again(service: Service, before: Saved) -> None:
    """Be what the last server was: it goes on with that if it can't be what it was to be."""
    with contextlib.suppress(ConfigFileError):
        await service.deploy(before.config, codes=before.codes, file=before.file)
        await service.controller.settled()


async def _await_signal(signals: AsyncIterator[signal.Signals], service: Service) -> None:
    """End at the first signal; at the second one without waiting for anything."""
    async for _ in signals:
        if service.is_ending:
            os._exit(1)  # replicas end with it  # pragma: no cover - nothing can be measured
        service.end()


async def tell_progress(service: Service, say: Callable[[str], None]) -> None:
    """Say what the applications come to be, until each is what it is to be or can't be that."""
    before: dict[str, str] = {}
    while True:
        report = service.controller.status()
        for name, application in report.items():
            line = summary(name, application, service.url)
            if before.get(name) != line:
                say(line)
                before[name] = line
        if service.controller.is_settled:
            return
        with anyio.move_on_after(LOOK_EVERY):
            await service.controller.next_change()


def summary(name: str, application: Mapping[str, Any], url: str) -> str:
    """One line on an application, and why it is not what it is to be."""
    status = application["status"]
    counts = ", ".join(
        f"{deployment} {each['replica_states'].get('RUNNING', 0)}/{each['target_num_replicas']}"
        for deployment, each in application["deployments"].items()
    )
    line = f"{name}: {status}" + (f" ({counts})" if counts else "")
    if status == "RUNNING" and application["route_prefix"] is not None:
        line += f" at {url}{application['route_prefix']}"
    return "\n".join(filter(None, [line, application["message"]]))


async def watch_files(service: Service, say: Callable[[str], None]) -> None:
    """Replace replicas whenever a file of the code changes: a task."""
    before = await anyio.to_thread.run_sync(service.newest)
    while True:
        await anyio.sleep(LOOK_EVERY)
        now = await anyio.to_thread.run_sync(service.newest)
        if now != before:
            await _reload(service, say)
        before = now


async def _reload(service: Service, say: Callable[[str], None]) -> None:
    try:
        await service.redeploy()
    except ConfigFileError as error:
        say(f"{error}\nWhat was there before goes on.")
    else:
        await tell_progress(service, say)
