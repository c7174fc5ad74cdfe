"""`loadshed deploy`."""

import sys
import time
from typing import Any

import click

from loadshed.serve._command.common import FAILED, address_option, leave, mistakes, read_file, say
from loadshed.serve._config.file import ConfigFile, ConfigFileError
from loadshed.serve._config.write import to_plain
from loadshed.serve._control import Control
from loadshed.serve._main import LOOK_EVERY, summary

PATIENCE = 30.0
"""Seconds that an application may be UNHEALTHY when all has been done."""

ON_THE_WAY = {"NOT_STARTED", "DEPLOYING", "DELETING"}


@click.command()
@click.argument("file", type=click.Path())
@click.option("--no-wait", is_flag=True, help="Return when the server has accepted it.")
@click.option("--restart", is_flag=True, help="Replace replicas though nothing has changed.")
@address_option
@mistakes()
def deploy(file: str, *, no_wait: bool, restart: bool, address: str) -> None:
    """Have the running server be what a config file says, and wait until it is.

    Numbers and `user_config` are changed while replicas serve; other code replaces them one by
    one. Applications that the file does not name are removed. A file with a mistake changes
    nothing.
    """
    found = read_file(file)
    control = Control(address)
    answer = _deploy(control, found, restart=restart)
    for warning in answer["warnings"]:
        say(f"warning: {file}: {warning['where']} {warning['message']}")
    if no_wait:
        say("The server has accepted it; `loadshed status` says how far it is.")
    elif not _wait(control, answer["generation"]):
        sys.exit(FAILED)


def _deploy(control: Control, found: ConfigFile, *, restart: bool) -> dict[str, Any]:
    try:
        return control.deploy(to_plain(found.config), restart=restart, file=found.path)
    except ConfigFileError as error:  # the server knows more: whether the code can be imported
        raise ConfigFileError(found.located(error.mistakes)) from None


def _wait(control: Control, generation: int) -> bool:
    """Wait until all is what it is to be, or can't be that; whether it is."""
    before: dict[str, str] = {}
    patience = PATIENCE
    while True:
        status = control.status()
        if status["generation"] != generation:
            leave(FAILED, "Another file has been deployed meanwhile.")
        applications = status["applications"]
        for name, application in applications.items():
            line = summary(name, application, status["url"])
            if before.get(name) != line:
                say(line)
                before[name] = line
        states = {application["status"] for application in applications.values()}
        if states <= {"RUNNING"}:
            return True
        if not states & ON_THE_WAY:  # a replica that died is replaced, it may be
            patience -= LOOK_EVERY
            if "DEPLOY_FAILED" in states or patience < 0:
                return False
        time.sleep(LOOK_EVERY)
