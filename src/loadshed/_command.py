"""The `loadshed` command. It is an extra, so this module says so where the extra is missing."""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from loadshed import __version__

if TYPE_CHECKING:
    import click

EXTRA = {
    "click": "click",
    "h11": "h11",
    "pydantic": "pydantic",
    "yaml": "PyYAML",
    "rich": "rich",
    "starlette": "starlette",
    "uvicorn": "uvicorn",
}
"""What `loadshed[serve]` installs: the name to import, and the name to install."""

COMMANDS = {
    "build": "loadshed.serve._command.build",
    "config": "loadshed.serve._command.look",
    "demo": "loadshed.demo.command",
    "deploy": "loadshed.serve._command.deploy",
    "run": "loadshed.serve._command.run",
    "schema": "loadshed.serve._command.look",
    "shutdown": "loadshed.serve._command.look",
    "status": "loadshed.serve._command.look",
}
"""The commands, and the modules that have them: imported when they are asked for."""


def main() -> None:
    """Run the command line, or say what is missing for it."""
    missing = [name for module, name in EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        are = "are" if missing[1:] else "is"
        sys.exit(
            f"loadshed: the command is an extra, and {', '.join(missing)} {are} not installed: "
            f"pip install 'loadshed[serve]'"
        )
    _group()()


def _group() -> "click.Group":
    # Looked for above rather than caught here: an ImportError with another cause stays visible.
    import click  # noqa: PLC0415

    class Group(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return sorted(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> Any:
            if cmd_name not in COMMANDS:
                return None
            return getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)

    group = Group(
        "loadshed",
        help="Overload protection for Python services.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return click.version_option(__version__, prog_name="loadshed")(group)
