"""Source: where the code of an application comes from, and how to get it."""

import inspect
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadshed._errors import ConfigError
from loadshed._replica.main_module import importing
from loadshed._replica.target import imported, is_application
from loadshed.serve._deployment import Application, Deployment

EXPECTED = (
    "where to find a bound deployment (`Model.bind()`), a function that returns one, or an ASGI "
    "application"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Plain data: the server passes it on and never looks into it.

    Attributes:
        import_path: Where it is: "package.module:name"; None where it is `pickled`.
        args: What the function is called with that is found there.
        pickled: The application itself, where it comes from a program.
    """

    import_path: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    pickled: bytes = b""


def load(source: Source) -> Application:
    """The application: its code is imported.

    Raises:
        ConfigError: There is something else.
        Exception: Whatever the code raises.
    """
    with importing():
        if source.import_path is None:
            application: Application = pickle.loads(source.pickled)  # noqa: S301 - our own server's
            return application
        found = imported(source.import_path)
        if isinstance(found, Application):
            _check_no_arguments(source)
            return found
        if isinstance(found, Deployment):
            raise ConfigError("import_path", source.import_path, f"{EXPECTED}; call its `bind`")
        if is_application(found):
            _check_no_arguments(source)
            return _bound(found, source.import_path)
        if not callable(found):
            raise ConfigError("import_path", source.import_path, EXPECTED)
        return _built(found, source)


def _check_no_arguments(source: Source) -> None:
    if source.args:
        expected = f"left out: {source.import_path} is no function that takes arguments"
        raise ConfigError("args", dict(source.args), expected)


def _built(function: Any, source: Source) -> Application:
    """What a builder function returns, which takes one argument: a dict, or a pydantic model."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters:
        model = inspect.signature(function, eval_str=True).parameters[parameters[0].name].annotation
        given: Any = dict(source.args)
        if hasattr(model, "model_validate"):
            given = model.model_validate(given)
        built = function(given)
    else:
        _check_no_arguments(source)
        built = function()
    if isinstance(built, Application):
        return built
    if is_application(built):
        return _bound(built, str(source.import_path))
    expected = f"{EXPECTED}; the function returned a value of type {type(built).__name__}"
    raise ConfigError("import_path", source.import_path, expected)


def _bound(application: Any, import_path: str) -> Application:
    """An ASGI application as the only deployment of an application."""
    return Application(Deployment(application, import_path.rpartition(":")[2], {}), (), {})
