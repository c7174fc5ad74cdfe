"""`loadshed run`."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from loadshed._errors import ConfigError
from loadshed.serve._address import state_of
from loadshed.serve._command.common import FAILED, address_option, mistakes, read_file, say
from loadshed.serve._command.ray import serve_on_ray
from loadshed.serve._config.file import ConfigFile, ConfigFileError, from_plain
from loadshed.serve._config.schema import HTTPOptions, ServeConfig
from loadshed.serve._main import Start, serve
from loadshed.serve._service import REACHED, saved
from loadshed.serve._settings import checked

NUMBERS = ("num_replicas", "max_ongoing_requests", "max_queued_requests")


def _number_or_auto(
    context: click.Context, parameter: click.Parameter, value: Any
) -> int | str | None:
    if value == "auto":
        return "auto"
    number: int | None = None if value is None else click.INT.convert(value, parameter, context)
    return number


@click.command()
@click.argument("target", required=False, metavar="IMPORT_PATH | CONFIG.yaml")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--num-replicas", type=int, help="How many processes.")
@click.option(
    "--max-ongoing-requests",
    callback=_number_or_auto,
    metavar="INTEGER|auto",
    help="How many requests each works on; auto: as many as it finds that it can.",
)
@click.option("--max-queued-requests", type=int, help="How many requests wait, in all.")
@click.option("--host", help="The address to listen at.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="The port; 0 for any that is free.  [default: 8000]")
@click.option("--name", default="default", show_default=True, help="The application's name.")
@click.option(
    "--route-prefix", default="/", show_default=True, help="What the paths of requests begin with."
)
@click.option(
    "--app-dir", default=".", show_default=True, help="Where to look for modules.", metavar="DIR"
)
@click.option(
    "--engine",
    type=click.Choice(["loadshed", "ray"]),
    default="loadshed",
    show_default=True,
    help="What serves it; ray is Ray Serve, on the cluster that runs or one that is started.",
)
@click.option("--reload", is_flag=True, help="Replace replicas when a file of the code changes.")
@click.option("--resume", is_flag=True, help="Be again what the last server here was to be.")
@address_option
@mistakes()
def run(
    target: str | None,
    arguments: Sequence[str],
    *,
    address: str,
    app_dir: str,
    engine: str,
    reload: bool,
    resume: bool,
    host: str | None,
    port: int | None,
    name: str,
    route_prefix: str,
    **numbers: int | str | None,
) -> None:
    """Serve an application, or what a config file says.

    IMPORT_PATH is where a bound deployment is found, "package.module:app", or a function that
    returns one, called with KEY=VALUE, or any ASGI application, which then runs in replicas.

    It serves until Ctrl-C, SIGTERM or `loadshed shutdown`; then what came is served.
    """
    tune = {setting: value for setting, value in numbers.items() if value is not None}
    http = {key: value for key, value in {"host": host, "port": port}.items() if value is not None}
    start: dict[str, Any] = {"app_dir": app_dir}
    found: ConfigFile | None = None
    if resume:
        _refuse("--resume", target, *arguments, *tune)
        start |= _resumed(state_of(address))
        config = start.pop("config")
    elif target is None:
        raise click.UsageError("Say what to run: IMPORT_PATH or CONFIG.yaml, or --resume.")
    elif _is_file(target):
        _refuse("a config file", *arguments, *tune)
        found = read_file(target)
        config, start["file"] = found.config, found.path
    else:
        config = _config_of(target, arguments, name, route_prefix)
        start["tune"] = checked(tune)
    config = config.model_copy(update={"http_options": _http_options(config, http)})
    _log()
    if engine == "ray":
        _refuse("--engine ray", *("--resume",) * resume, *("--reload",) * reload)
        serve_on_ray(config, app_dir=app_dir, tune=start.get("tune", {}))
    else:
        _end(_serve(Start(config=config, address=address, reload=reload, say=say, **start), found))


def _serve(start: Start, found: ConfigFile | None) -> bool:
    with _located(found):
        return serve(start)


@contextlib.contextmanager
def _located(found: ConfigFile | None) -> Iterator[None]:
    """Say the line of a mistake that only the code can tell."""
    try:
        yield
    except ConfigFileError as error:
        if found is None:
            raise
        raise ConfigFileError(found.located(error.mistakes)) from None


def _end(has_served: bool) -> None:
    if not has_served:
        sys.exit(FAILED)


def _resumed(state: Path) -> dict[str, Any]:
    """What to start with to be again what the last server was to be."""
    goal = saved(state)
    start = {"config": goal.config, "app_dir": goal.app_dir, "file": goal.file, "resume": goal}
    with contextlib.suppress(ConfigError):
        before = saved(state, REACHED)
        if before != goal:
            start["reached"] = before
    return start


def _config_of(target: str, arguments: Sequence[str], name: str, route_prefix: str) -> ServeConfig:
    application = {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": target,
        "args": dict(map(_argument, arguments)),
    }
    return from_plain({"applications": [application]}, source="the command line").config


def _http_options(config: ServeConfig, given: dict[str, Any]) -> HTTPOptions:
    """Those of the config, and what the command line gives instead."""
    options = config.http_options.model_dump(exclude_unset=True) | given
    found = from_plain({"http_options": options, "applications": []}, source="the command line")
    return found.config.http_options


def _argument(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError("an argument", text, "KEY=VALUE")
    return key, value


def _is_file(target: str) -> bool:
    return target.endswith((".yaml", ".yml", ".json")) or os.path.isfile(target)


def _refuse(what: str, *others: object) -> None:
    """Raise where something else was given that can't go with it."""
    given = [str(each) for each in others if each is not None]
    if given:
        raise click.UsageError(f"With {what} there can't be {given[0].replace('_', '-')!r}.")


def _log() -> None:
    """Show what the server and its replicas log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("uvicorn.error", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
