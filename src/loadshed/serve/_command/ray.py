"""`loadshed run --engine ray`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from loadshed._errors import LoadShedError
from loadshed.serve._command.common import say
from loadshed.serve._config.container import config_for_ray
from loadshed.serve._config.schema import ServeConfig
from loadshed.serve._config.write import to_plain
from loadshed.serve._prepare import Preparation
from loadshed.serve._store import CodeStore


def serve_on_ray(config: ServeConfig, *, app_dir: str, tune: Mapping[str, Any]) -> None:
    """Serve a config on Ray Serve until Ctrl-C or SIGTERM.

    Args:
        config: The config.
        app_dir: Where modules are looked for that no `runtime_env` has.
        tune: Settings for the deployment that gets the requests of the only application.

    Raises:
        ConfigError: Something of it can't be on Ray; it says what.
        LoadShedError: Ray is not installed, serves already, or can't deploy an application.
    """
    try:
        from loadshed.ray_serve._run import run_config  # noqa: PLC0415
    except ImportError as error:
        raise LoadShedError(str(error)) from None
    preparation = Preparation(CodeStore(Path(os.devnull)), app_dir)  # no copies are made
    config = anyio.run(preparation.tuned, config, tune)
    run_config(for_this_machine(config, app_dir), say)


def for_this_machine(config: ServeConfig, app_dir: str) -> dict[str, Any]:
    """The config for a Ray that runs here: its workers find the code where it is.

    Raises:
        ConfigError: Ray has nothing that means the same.
    """
    plain = to_plain(config)
    for application in plain["applications"]:
        env = application.setdefault("runtime_env", {})
        app_dir = os.path.abspath(app_dir)
        variables = env.setdefault("env_vars", {})
        paths = [app_dir, variables.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if env.get("working_dir") is None:
            env["working_dir"] = app_dir
    return config_for_ray(config, plain, host=config.http_options.host)
