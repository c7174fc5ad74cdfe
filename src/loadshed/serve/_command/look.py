"""`loadshed status`, `config`, `shutdown` and `schema`."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadshed.serve._command.common import address_option, mistakes, say
from loadshed.serve._config.file import from_plain
from loadshed.serve._config.schema import json_schema
from loadshed.serve._config.write import to_yaml
from loadshed.serve._control import Control, NoServerError

REDRAW_EVERY = 1.0
"""Seconds between two looks, with `--watch`."""

COLORS = {"RUNNING": "green", "HEALTHY": "green", "UNHEALTHY": "red", "DEPLOY_FAILED": "red"}


@click.command()
@click.option("--watch", is_flag=True, help="Redraw it every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for scripts.")
@address_option
@mistakes()
def status(*, watch: bool, as_json: bool, address: str) -> None:
    """Show what the running server is doing."""
    control = Control(address)
    if as_json:
        click.echo(json.dumps(control.status(), indent=2))
    elif watch:
        with (
            contextlib.suppress(KeyboardInterrupt),
            Live(_picture(control.status()), auto_refresh=False) as live,
        ):
            while True:
                time.sleep(REDRAW_EVERY)
                live.update(_picture(control.status()), refresh=True)
    else:
        Console().print(_picture(control.status()))


@click.command()
@address_option
@mistakes()
def config(*, address: str) -> None:
    """Print what the running server is to be: its config, which can be deployed again."""
    click.echo(to_yaml(from_plain(Control(address).config()).config), nl=False)


@click.command()
@click.option("--no-wait", is_flag=True, help="Return at once.")
@address_option
@mistakes()
def shutdown(*, no_wait: bool, address: str) -> None:
    """End the running server, when what came is served."""
    control = Control(address)
    control.shutdown()
    while not no_wait:
        try:
            control.status()
        except NoServerError:
            return
        time.sleep(0.1)
    say("The server ends when what came is served.")


@click.command()
def schema() -> None:
    """Print the JSON schema of config files, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


def _picture(status: dict[str, Any]) -> Group:
    return Group(Text(f"{status['url']}, pid {status['pid']}"), *_parts(status["applications"]))


def _parts(applications: dict[str, Any]) -> Iterator[Table | Text]:
    for name, application in applications.items():
        yield Text()
        yield _title(name, application)
        if application["message"]:
            yield Text(application["message"])
        table = Table("deployment", "status", "replicas", "ongoing", "queued", "shed", "p50", "p99")
        for deployment, each in application["deployments"].items():
            table.add_row(deployment, *_row(each))
        yield table
        for deployment, each in application["deployments"].items():
            yield from _limits(deployment, each)


def _title(name: str, application: dict[str, Any]) -> Text:
    prefix = application["route_prefix"]
    where = "" if prefix is None else f" at {prefix}"
    return Text.assemble(f"{name}{where}: ", _colored(application["status"]))


def _row(deployment: dict[str, Any]) -> Iterator[Text | str]:
    running = deployment["replica_states"].get("RUNNING", 0)
    yield _colored(deployment["status"])
    yield f"{running}/{deployment['target_num_replicas']}"
    yield str(deployment["ongoing_requests"])
    yield str(deployment["queued_requests"])
    yield str(sum(deployment["shed"].values()))
    for quantile in ("p50", "p99"):
        taken = deployment["latency_ms"][quantile]
        yield "" if taken is None else _duration(taken)


def _limits(name: str, deployment: dict[str, Any]) -> Iterator[Text]:
    """How many requests each replica has found that it can work on, and why that moved last."""
    if deployment["max_ongoing_requests"] == "auto":
        for each in deployment["replicas"]:
            reason = f" ({each['limit_reason']})" if each["limit_reason"] else ""
            limit = each["max_ongoing_requests"]
            yield Text(f"{name}, replica {each['id']}: auto, at most {limit} at once{reason}")


def _duration(milliseconds: float) -> str:
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms"
    return f"{milliseconds / 1000:.3g} s"


def _colored(status: str) -> Text:
    return Text(status, COLORS.get(status, "yellow"))
