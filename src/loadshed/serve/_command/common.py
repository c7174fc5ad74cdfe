"""What the commands share: exit codes, options, and how they talk."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from loadshed._errors import ConfigError, LoadShedError
from loadshed.serve._address import default_address
from loadshed.serve._config.file import ConfigFile, ConfigFileError, read
from loadshed.serve._control import NoServerError

FAILED = 1
"""The exit code where what was asked for failed."""

MISTAKE = 2
"""The exit code for a mistake of the user's: arguments, or a file."""

NO_SERVER = 3
"""The exit code where no server runs at the address."""


def address_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--address`, for a command."""
    return click.option(
        "--address",
        callback=_path,
        default=default_address,
        show_default="in the user's runtime directory",
        envvar="LOADSHED_ADDRESS",
        metavar="PATH",
        help="The Unix socket of the server.",
    )(function)


def _path(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value:
        raise click.BadParameter("it must be a path, and is empty.")
    return value


def say(text: str) -> None:
    """Tell the user something that is no result."""
    click.echo(text, err=True)


def leave(code: int, text: object) -> NoReturn:
    """End, and say why."""
    say(f"loadshed: {text}")
    sys.exit(code)


@contextmanager
def mistakes() -> Iterator[None]:
    """End without a traceback where the user has made a mistake, or no server runs."""
    try:
        yield
    except ConfigFileError as error:
        for mistake in error.mistakes:
            say(str(mistake))
        sys.exit(MISTAKE)
    except ConfigError as error:
        leave(MISTAKE, error)
    except NoServerError as error:
        leave(NO_SERVER, error)
    except LoadShedError as error:
        leave(FAILED, error)


def read_file(path: str) -> ConfigFile:
    """A config file; what is doubtful in it is said."""
    found = read(path)
    for warning in found.warnings:
        say(f"warning: {warning}")
    return found
