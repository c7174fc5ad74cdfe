"""What can be said about Ray where it is not installed; `make test-ray` has the rest."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadshed import ConfigError, LoadShedError
from loadshed.serve._command.ray import for_this_machine, serve_on_ray
from loadshed.serve._config.file import from_plain
from loadshed.serve._config.schema import ServeConfig

SAYS_HOW = r"pip install 'loadshed\[ray\]'"


def config(deployments: tuple[Any, ...] = (), **more: Any) -> ServeConfig:
    application = {"import_path": "m:app", "deployments": list(deployments), **more}
    return from_plain({"applications": [application]}).config


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not it is installed."""
    for name in [each for each in sys.modules if each.startswith("loadshed.ray_serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.usefixtures("no_ray")
def test_without_ray_it_says_how_to_get_it() -> None:
    with pytest.raises(ImportError, match=SAYS_HOW):
        importlib.import_module("loadshed.ray_serve")


@pytest.mark.usefixtures("no_ray")
def test_without_ray_the_command_says_how_to_get_it() -> None:
    with pytest.raises(LoadShedError, match=SAYS_HOW):
        serve_on_ray(config(), app_dir=".", tune={})


@pytest.mark.parametrize("module", ["loadshed", "loadshed.serve", "loadshed.serve._command.ray"])
def test_nothing_else_imports_ray(module: str) -> None:
    code = f"import sys; sys.modules['ray'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_rays_workers_find_the_code_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/more")
    plain = for_this_machine(config(args={"a": 1}), "/project")
    assert plain["http_options"]["host"] == "127.0.0.1"
    (application,) = plain["applications"]
    assert application["import_path"] == "loadshed.ray_serve:build"
    assert application["args"] == {"import_path": "m:app", "args": {"a": 1}}
    assert application["runtime_env"] == {
        "working_dir": "local:///project",
        "env_vars": {"PYTHONPATH": os.pathsep.join(["/project", "/more"])},
    }


def test_what_the_config_says_of_the_code_counts(tmp_path: Path) -> None:
    env = {"working_dir": str(tmp_path), "env_vars": {"PYTHONPATH": "/mine", "A": "b"}}
    (application,) = for_this_machine(config(runtime_env=env), "/project")["applications"]
    assert application["runtime_env"] == {
        "working_dir": f"local://{tmp_path}",
        "env_vars": {"PYTHONPATH": os.pathsep.join(["/project", "/mine"]), "A": "b"},
    }


def test_a_config_goes_to_ray_with_what_was_tuned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[Any] = []
    fake = SimpleNamespace(run_config=lambda config, say: served.append(config))
    monkeypatch.setitem(sys.modules, "loadshed.ray_serve", fake)
    monkeypatch.setitem(sys.modules, "loadshed.ray_serve._run", fake)
    (tmp_path / "m.py").write_text(
        "from loadshed.serve import deployment\n@deployment\ndef model(): pass\napp = model.bind()"
    )
    serve_on_ray(config(), app_dir=str(tmp_path), tune={"num_replicas": 3})
    serve_on_ray(config(), app_dir=str(tmp_path), tune={})
    tuned, plain = (each["applications"][0] for each in served)
    assert tuned["deployments"] == [{"name": "model", "num_replicas": 3}]
    assert tuned["args"]["settings"] == {"model": {"num_replicas": 3}}
    assert not plain["deployments"]


def test_what_ray_cannot_do_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="max_wait of A must be left out"):
        for_this_machine(config(({"name": "A", "max_wait": 1},)), ".")
    with pytest.raises(ConfigError, match="max_ongoing_requests of A must be a whole number"):
        for_this_machine(config(({"name": "A", "max_ongoing_requests": "auto"},)), ".")
    with pytest.raises(ConfigError, match="order of A must be left out"):
        for_this_machine(config(({"name": "A", "order": "adaptive_lifo"},)), ".")
