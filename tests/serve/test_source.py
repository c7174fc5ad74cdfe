"""Where an application comes from: what may be found there, and what is said where it may not."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from loadshed import ConfigError
from loadshed._replica import main_module
from loadshed.serve import Application
from loadshed.serve._source import EXPECTED, Source, load
from tests.serve import parts as typed_parts

parts: Any = typed_parts  # to mypy a class that is decorated stays the class

HERE = "tests.serve.parts"


def found(name: str, **args: Any) -> Application:
    return load(Source(import_path=f"{HERE}:{name}", args=args))


def write(path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> str:
    (path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(path))
    return name


def test_what_is_bound_is_taken_as_it_is() -> None:
    assert found("Bound") is parts.Bound


def test_what_a_program_has_bound_is_unpickled() -> None:
    again = load(Source(pickled=pickle.dumps(parts.Bound)))
    assert again.deployment.func_or_class is parts.Model.func_or_class
    assert again.args == (3,)


def test_a_function_returns_it() -> None:
    assert found("build").args == (4,)


def test_a_function_gets_the_arguments_of_the_file() -> None:
    assert found("build_with").args == (5,)
    assert found("build_with", factor=6).args == (6,)


def test_what_a_function_gets_is_its_own() -> None:
    args = {"factor": 6}
    source = Source(import_path=f"{HERE}:build_with", args=args)
    load(source)
    assert args == {"factor": 6}


BUILDERS = """
from pydantic import BaseModel
from tests.serve import parts

class Args(BaseModel):
    factor: int
    more: float = 0.5

def build(args: Args):
    return parts.Model.bind(args.factor, args.more)

def one_more(x, y):
    return parts.Model.bind(x)

def optional(args=None):
    return parts.Model.bind(args)

class Builder:
    def __call__(self, args: Args):
        return parts.Model.bind(args.factor)

builder = Builder()
"""


def test_a_function_may_say_by_a_model_what_its_arguments_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write(tmp_path, monkeypatch, "loadshed_test_builders", BUILDERS)
    built = load(Source(import_path=f"{name}:build", args={"factor": "7"}))
    assert built.args == (7, 0.5)
    with pytest.raises(ValueError, match="factor"):
        load(Source(import_path=f"{name}:build", args={"factor": "no number"}))
    assert load(Source(import_path=f"{name}:optional", args={"a": 1})).args == ({"a": 1},)
    with pytest.raises(TypeError, match="missing 1 required"):
        load(Source(import_path=f"{name}:one_more"))


def test_an_annotation_that_is_written_as_a_string_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`from __future__ import annotations` makes strings of all of them."""
    text = f"from __future__ import annotations\n{BUILDERS}"
    name = write(tmp_path, monkeypatch, "loadshed_test_future", text)
    assert load(Source(import_path=f"{name}:build", args={"factor": 7})).args == (7, 0.5)


@pytest.mark.parametrize("name", ["asgi", "application"])
def test_an_asgi_application_is_the_only_deployment_of_one(name: str) -> None:
    application = found(name)
    assert application.deployment.func_or_class is getattr(parts, name)
    assert application.deployment.name == name
    assert (application.args, application.kwargs) == ((), {})


def test_a_function_may_return_an_asgi_application() -> None:
    application = found("build_asgi")
    assert application.deployment.func_or_class is parts.application
    assert application.deployment.name == "build_asgi"


@pytest.mark.parametrize("name", ["build", "Bound"])
def test_arguments_that_nobody_takes_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^args must be left out: ") as caught:
        found(name, factor=3)
    assert caught.value.value == {"factor": 3}


def test_arguments_for_an_asgi_application_are_refused_too() -> None:
    with pytest.raises(ConfigError, match=r"^args must be left out: "):
        found("asgi", factor=3)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Model", "; call its `bind`"),
        ("number", ""),
        ("build_nonsense", "; the function returned a value of type int"),
    ],
)
def test_what_is_no_application_is_refused(name: str, more: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(name)
    assert caught.value.setting == "import_path"
    assert caught.value.value == f"{HERE}:{name}"
    assert caught.value.expected == EXPECTED + more


def test_what_the_code_raises_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, monkeypatch, "loadshed_test_raises", "raise LookupError('no model')")
    with pytest.raises(LookupError, match="no model"):
        load(Source(import_path=f"{name}:x"))
    with pytest.raises(AttributeError):
        found("nothing")
    with pytest.raises(ModuleNotFoundError):
        load(Source(import_path="tests.serve.not_there:x"))


def test_code_can_find_out_that_it_is_imported_for_a_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a pool that it starts as it is imported is an error, and no endless chain."""
    text = "from loadshed._replica import main_module\nfrom tests.serve import parts\n"
    text += "seen = [main_module.is_importing()]\n"
    text += "def build():\n    seen.append(main_module.is_importing())\n    return parts.Bound\n"
    name = write(tmp_path, monkeypatch, "loadshed_test_importing", text)
    load(Source(import_path=f"{name}:build"))
    import loadshed_test_importing  # type: ignore[import-not-found]  # noqa: PLC0415

    assert loadshed_test_importing.seen == [True, True]
    assert not main_module.is_importing()
