"""run and running: serve an application from Python."""

import contextlib
import pickle
import signal
from collections.abc import AsyncIterator
from typing import Any

import anyio
import sniffio

from loadshed._errors import ConfigError, ReplicaUnavailableError
from loadshed._pool.environment import Environment
from loadshed._replica import main_module
from loadshed.serve._controller import Controller
from loadshed.serve._deployment import Application
from loadshed.serve._described import Described, DescribedDeployment
from loadshed.serve._goal import Code, Goal, digest, merged
from loadshed.serve._graph import nodes
from loadshed.serve._hosted import described
from loadshed.serve._http_server import HTTPServer, close, listen, url_of
from loadshed.serve._settings import PREFIX, TEXT, is_prefix, is_text
from loadshed.serve._source import Source


class Server:
    """A server that runs.

    Attributes:
        url: Where it can be reached: "http://127.0.0.1:8000".
    """

    def __init__(self, url: str, controller: Controller) -> None:
        self.url = url
        self._controller = controller

    def status(self) -> dict[str, Any]:
        """What its applications do, by name, as plain data: what `loadshed status` shows."""
        return self._controller.status()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"


@contextlib.asynccontextmanager
async def running(
    app: Application,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "default",
    route_prefix: str = "/",
) -> AsyncIterator[Server]:
    """Serve an application over HTTP for the length of a block: for programs and tests.

    ```python
    async with running(Model.bind(), port=0) as server:
        response = await client.get(server.url)
    ```

    It is entered when all replicas serve. At its end requests that came are served, and all
    replicas end. It needs asyncio, as its HTTP server does.

    Args:
        app: A bound deployment.
        host: The address to listen at. By default only this machine can reach it.
        port: The port; 0 for any that is free.
        name: What the application is called.
        route_prefix: What the paths of its requests begin with.

    Raises:
        ConfigError: A setting is not what it may be, or the port is taken.
        ReplicaUnavailableError: A replica can't be started; it carries its traceback.
    """
    if sniffio.current_async_library() != "asyncio":
        raise RuntimeError("`running` needs asyncio: its HTTP server, uvicorn, has no other.")
    goal = _goal(app, name, route_prefix)
    with contextlib.closing(listen(host, port)) as listener:
        async with anyio.create_task_group() as tasks:
            controller = Controller(tasks)
            http = HTTPServer(controller.front, listener)
            tasks.start_soon(http.serve)
            server = Server(url_of(listener), controller)
            failure: BaseException | None = None  # raised below as it is, not wrapped
            try:
                controller.aim([goal])
                await controller.settled()
                _check(controller, name)
                yield server
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt and SystemExit, too
                failure = error
            finally:
                with anyio.CancelScope(shield=True):
                    await close(http, controller)
                tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def run(
    app: Application,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "default",
    route_prefix: str = "/",
) -> None:
    """Serve an application over HTTP until Ctrl-C or SIGTERM; then what came is served.

    Call it below `if __name__ == "__main__":`, as replicas import the program, too.

    Args:
        app: A bound deployment.
        host: The address to listen at. By default only this machine can reach it.
        port: The port; 0 for any that is free.
        name: What the application is called.
        route_prefix: What the paths of its requests begin with.

    Raises:
        ConfigError: A setting is not what it may be, or the port is taken.
        ReplicaUnavailableError: A replica can't be started; it carries its traceback.
    """

    async def serve() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with running(
                app, host=host, port=port, name=name, route_prefix=route_prefix
            ) as server:
                print(f"Serving at {server.url}. Press Ctrl-C to stop.", flush=True)  # noqa: T201
                await anext(aiter(signals))

    anyio.run(serve)


def _goal(app: object, name: str, route_prefix: str) -> Goal:
    if not isinstance(app, Application):
        raise ConfigError("app", app, "a bound deployment: `Model.bind()`")
    if not is_text(name):
        raise ConfigError("name", name, TEXT)
    if not is_prefix(route_prefix):
        raise ConfigError("route_prefix", route_prefix, PREFIX)
    main_module.where()
    try:
        pickled = pickle.dumps(app, 5)
    except Exception as error:
        expected = f"made of code at the top level of modules, and what can be pickled ({error})"
        raise ConfigError("app", app, expected) from error
    say = [DescribedDeployment(**described(name, node)) for name, node in nodes(app).items()]
    code = Code(
        source=Source(pickled=pickled),
        environment=Environment(uvloop=True),
        version=digest(pickled.hex()),
    )
    settings = merged(Described(deployments=tuple(say)), {}, {})
    return Goal(name=name, route_prefix=route_prefix, code=code, deployments=settings)


def _check(controller: Controller, name: str) -> None:
    report = controller.status()[name]
    if report["status"] == "DEPLOY_FAILED":
        raise ReplicaUnavailableError(report["message"])
