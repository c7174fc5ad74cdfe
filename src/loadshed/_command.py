"""The `loadshed` command. It is an extra, so this module says so where the extra is missing."""

import importlib.util
import sys
from typing import TYPE_CHECKING

from loadshed import __version__

if TYPE_CHECKING:
    import click

EXTRA = ("click", "h11", "rich", "starlette", "uvicorn")
"""What `loadshed[serve]` installs."""


def main() -> None:
    """Run the command line, or say what is missing for it."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
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

    from loadshed.demo.command import demo  # noqa: PLC0415

    group = click.Group(
        "loadshed",
        help="Overload protection for Python services.",
        commands=[demo],
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return click.version_option(__version__, prog_name="loadshed")(group)
