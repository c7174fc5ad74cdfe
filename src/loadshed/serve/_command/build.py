"""`loadshed build`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anyio
import click

from loadshed._errors import ConfigError
from loadshed.serve._command.common import mistakes, say
from loadshed.serve._config.container import container as files_of_container
from loadshed.serve._config.container import write
from loadshed.serve._config.file import parse
from loadshed.serve._config.write import Application
from loadshed.serve._config.write import build as written
from loadshed.serve._described import Described
from loadshed.serve._prepare import Preparation
from loadshed.serve._store import CodeStore

CONFIG = "config.yaml"
"""The name of the config file in an image."""


@click.command()
@click.argument("import_paths", nargs=-1, required=True, metavar="IMPORT_PATH...")
@click.option("-o", "--output", metavar="FILE", help="Where to write it.  [default: print it]")
@click.option(
    "--engine",
    type=click.Choice(["loadshed", "ray"]),
    default="loadshed",
    show_default=True,
    help="What is to serve it; a file for Ray is for Ray's own `serve deploy`.",
)
@click.option(
    "--container",
    metavar="DIR",
    help="Write config.yaml, a Dockerfile and what Kubernetes needs, beside the code in DIR.",
)
@click.option("--name", default="app", show_default=True, help="What the image is called.")
@click.option(
    "--app-dir", default=".", show_default=True, help="Where to look for modules.", metavar="DIR"
)
@mistakes()
def build(
    import_paths: Sequence[str],
    *,
    output: str | None,
    engine: Literal["loadshed", "ray"],
    container: str | None,
    name: str,
    app_dir: str,
) -> None:
    """Write a config file for applications, with every setting at its value.

    Each IMPORT_PATH is as for `loadshed run`. The code is imported, in a process of its own.
    """
    code = container or app_dir
    _write(
        written([_application(*each, code) for each in enumerate(import_paths)], engine=engine),
        engine,
        output=output,
        container=container,
        name=name,
    )


def _write(
    text: str,
    engine: Literal["loadshed", "ray"],
    *,
    output: str | None,
    container: str | None,
    name: str,
) -> None:
    if container is not None:
        config = parse(text, base=Path(container)).config
        files = files_of_container(container, config, name=name, engine=engine)
        write(container, {CONFIG: text} | files)
        for file in (CONFIG, *files):
            say(f"Written: {os.path.join(container, file)}")
    elif output is None:
        click.echo(text, nl=False)
    else:
        try:
            Path(output).write_text(text)
        except OSError as error:
            expected = f"a file that can be written ({error.strerror})"
            raise ConfigError("output", output, expected) from None
        say(f"Written: {output}")


def _application(index: int, import_path: str, app_dir: str) -> Application:
    return Application(
        name=f"app{index + 1}",
        route_prefix=f"/app{index + 1}" if index else "/",
        import_path=import_path,
        described=_described(import_path, app_dir),
    )


def _described(import_path: str, app_dir: str) -> Described:
    preparation = Preparation(CodeStore(Path(os.devnull)), app_dir)  # no copies are made
    return anyio.run(preparation.describe_path, import_path)
