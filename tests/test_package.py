"""The package as a whole: its public names, its imports, and the direction in which they run."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import loadshed

SOURCE = Path(loadshed.__file__).parent
MODULES = ["loadshed", *(m.name for m in pkgutil.walk_packages([str(SOURCE)], "loadshed."))]
HEAVY = {"starlette", "httpx", "tenacity", "uvicorn", "ray", "click", "rich", "h11", "yaml"}

# From the inside out: a module may import its own layer and those before it.
LAYERS = ("_errors", "_policy", "shells", "integrations")


def layer(module: str) -> int:
    _, _, path = module.partition(".")
    first = path.split(".")[0]
    if first in LAYERS:
        return LAYERS.index(first)
    if first in {"_command", "__main__"}:
        return LAYERS.index("integrations")
    return LAYERS.index("shells" if first.startswith("_") else "integrations")


def imports(module: str) -> Iterator[str]:
    path = SOURCE.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module is not None
            yield node.module


@pytest.mark.parametrize("module", [name for name in MODULES if name != "loadshed"])
def test_imports_run_one_way(module: str) -> None:
    for imported in imports(module):
        if imported.startswith("loadshed."):
            assert layer(imported) <= layer(module), f"{module} imports {imported}"


@pytest.mark.parametrize("module", [name for name in MODULES if "._policy" in name])
def test_policies_use_the_standard_library_alone_and_no_clock(module: str) -> None:
    for imported in imports(module):
        top = imported.partition(".")[0]
        assert top == "loadshed" or top in sys.stdlib_module_names
        assert top not in {"time", "random", "asyncio", "logging", "socket", "threading"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in result.stdout.split()}


@pytest.mark.parametrize("statement", ["import loadshed", "import loadshed.asgi"])
def test_importing_it_loads_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY


@pytest.mark.parametrize("name", ["ConcurrencyLimiter", "BoundedQueue"])
def test_what_is_asked_for_loads_nothing_heavy(name: str) -> None:
    assert not loaded_by(f"from loadshed import {name}") & HEAVY


def test_importing_the_client_loads_nothing_that_httpx_and_tenacity_do_not() -> None:
    more = loaded_by("import loadshed.client") - loaded_by("import httpx, tenacity")
    assert not more & {*HEAVY, "anyio", "asyncio", "trio", "sniffio"}


@pytest.mark.parametrize("module", ["loadshed", "loadshed.client", "loadshed.serve"])
def test_a_name_that_is_not_there_is_an_attribute_error(module: str) -> None:
    package = importlib.import_module(module)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = package.nonsense
    assert dir(package) == sorted(package.__all__)


def test_importing_it_configures_no_logging() -> None:
    code = "import loadshed; from logging import getLogger as get"
    code += "; print(get('loadshed').handlers, get().handlers)"
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[] []\n"


@pytest.mark.parametrize("module", ["loadshed", "loadshed.asgi", "loadshed.client"])
def test_all_public_names_are_documented_and_listed(module: str) -> None:
    public = importlib.import_module(module)
    assert list(public.__all__) == sorted(public.__all__)
    for name in public.__all__:
        assert hasattr(public, name)
        if isinstance(getattr(public, name), type):
            assert getattr(public, name).__doc__


@pytest.mark.parametrize("package", ["loadshed", "loadshed.client"])
def test_a_package_exports_what_it_imports_from_private_modules(package: str) -> None:
    public = importlib.import_module(package)
    assert public.__file__ is not None
    imported = [
        alias.asname or alias.name
        for node in ast.walk(ast.parse(Path(public.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module not in {"typing", "loadshed._lazy"}
        for alias in node.names
    ]
    assert {*imported} == {*public.__all__} - {"__version__"}


def test_it_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()
