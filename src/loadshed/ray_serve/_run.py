"""run: serve on Ray from a program, or for `loadshed run --engine ray`."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
import ray.serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from loadshed._errors import LoadShedError, ReplicaUnavailableError
from loadshed.ray_serve._application import to_ray
from loadshed.serve._deployment import Application

_OF_SERVE = (
    "http_options",
    "proxy_location",
    "grpc_options",
    "controller_options",
    "logging_config",
    "tracing_config",
)

LOOK_EVERY = 0.25
"""Seconds between two looks at how the applications come up."""


def run(
    application: Application,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "default",
    route_prefix: str = "/",
) -> None:
    """Serve an application on Ray Serve until Ctrl-C or SIGTERM: as `loadshed.serve.run` does.

    It runs on the Ray cluster that this program, or `RAY_ADDRESS`, or the machine has; else one is
    started, and ended with it.

    Args:
        application: A bound deployment.
        host: The address to listen at. By default only this machine can reach it.
        port: The port; 0 for any that is free.
        name: What the application is called.
        route_prefix: What the paths of its requests begin with.

    Raises:
        ConfigError: A setting is not what Ray can have.
        ReplicaUnavailableError: A replica can't be started.
        LoadShedError: Ray Serve is running on the cluster already.
    """
    made = to_ray(application)
    with _serving(http_options={"host": host, "port": port}) as url:
        try:
            ray.serve.run(made, name=name, route_prefix=route_prefix)
        except RuntimeError as error:
            raise ReplicaUnavailableError(str(error)) from None
        print(f"Serving at {url} on Ray. Press Ctrl-C to stop.", flush=True)  # noqa: T201
        _await_signal()


def run_config(config: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Serve what a config file for Ray says, until Ctrl-C or SIGTERM.

    Args:
        config: The file's content.
        say: Tells the user something.

    Raises:
        ReplicaUnavailableError: An application can't be deployed.
        LoadShedError: Ray Serve is running on the cluster already.
    """
    with _serving(**{name: config[name] for name in _OF_SERVE if name in config}) as url:
        client = _get_global_client()
        client.deploy_apps(ServeDeploySchema.model_validate(config))
        _await_running([each.get("name", "default") for each in config["applications"]], url, say)
        client.wait_for_proxies_serving()
        say(f"Serving at {url} on Ray. Press Ctrl-C to stop.")
        _await_signal()
        say("Serving what came, and then ending.")


@contextlib.contextmanager
def _serving(http_options: Mapping[str, Any], **more: Any) -> Iterator[str]:
    """Ray Serve, and Ray where it does not run yet: the URL of its proxy."""
    more.setdefault("proxy_location", "HeadOnly")
    options = {**http_options, "port": http_options["port"] or _free_port(http_options["host"])}
    was_running = ray.is_initialized()
    if not was_running:
        ray.init(namespace="serve")
    try:
        if _get_global_client(raise_if_no_controller_running=False) is not None:
            raise LoadShedError(
                "Ray Serve is running on this cluster already: `serve deploy` changes what it "
                "serves, and `serve shutdown` ends it."
            )
        try:
            ray.serve.start(http_options=options, **more)
            yield _url(options["host"], options["port"])
        finally:
            ray.serve.shutdown()
    finally:
        if not was_running:
            ray.shutdown()


def _free_port(host: str) -> int:
    """Ray takes no 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def _await_running(names: list[str], url: str, say: Callable[[str], None]) -> None:
    """Say what the applications come to be, until each runs."""
    before: dict[str, str] = {}
    while True:
        applications = ray.serve.status().applications
        for name in names:
            line = _line(name, applications.get(name))
            if before.get(name) != line:
                say(line)
                before[name] = line
        statuses = {name: each.status for name, each in applications.items() if name in names}
        for name, status in statuses.items():
            if status == "DEPLOY_FAILED":
                message = applications[name].message
                raise ReplicaUnavailableError(f"{name} can't be deployed: {message}")
        if len(statuses) == len(names) and {*statuses.values()} <= {"RUNNING"}:
            return
        time.sleep(LOOK_EVERY)


def _line(name: str, application: Any) -> str:
    if application is None:
        return f"{name}: NOT_STARTED"
    counts = ", ".join(
        f"{deployment} {each.replica_states.get('RUNNING', 0)}"
        for deployment, each in application.deployments.items()
    )
    return f"{name}: {application.status.value}" + (f" ({counts})" if counts else "")


def _await_signal() -> None:
    """Wait for Ctrl-C or SIGTERM; a second one ends it without waiting for anything."""
    came = threading.Event()
    before = {
        each: signal.signal(each, lambda *_: came.set()) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        came.wait()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
