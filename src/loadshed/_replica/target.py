"""Target: what a replica serves."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from loadshed._errors import ConfigError
from loadshed._replica.main_module import importing


class Method(NamedTuple):
    """Something to call.

    Attributes:
        function: What is called.
        is_async: Whether it is called in the event loop; else in a thread.
    """

    function: Callable[..., Any]
    is_async: bool


class Served:
    """What a class makes that has more to say of what is to be served than the object itself.

    Attributes:
        object: What is called, and has the methods.
        application: The ASGI application that requests go to.
    """

    object: Any
    application: Any


class Target:
    """A function, or the one object that is made of a class.

    Args:
        target: A class, a function, or where to import it from.
        init_args: What the class is made with.
        init_kwargs: The same, by name.

    Attributes:
        name: What it is called in messages.
        object: What is called, and has the methods.
        application: The ASGI application, if it is one: it takes (scope, receive, send).
    """

    def __init__(
        self, target: Any, init_args: Sequence[Any], init_kwargs: Mapping[str, Any]
    ) -> None:
        self.name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
        self._methods: dict[str | None, Method] = {}
        with importing():
            found = imported(target) if isinstance(target, str) else target
        if inspect.isclass(found):
            self.object: Any = found(*init_args, **init_kwargs)
        elif init_args or init_kwargs:
            given = init_args or init_kwargs
            raise ConfigError(
                "init_args" if init_args else "init_kwargs", given, "left out: no class is made"
            )
        else:
            self.object = found
        self.application: Any = None
        if isinstance(self.object, Served):
            self.object, self.application = self.object.object, self.object.application
        elif is_application(self.object):
            self.application = self.object

    def find(self, name: str | None) -> Method:
        """The method of this name; None is the object itself, called.

        Raises:
            AttributeError: There is none.
            TypeError: It can't be called.
        """
        method = self._methods.get(name)
        if method is None:
            function = self.object if name is None else getattr(self.object, name)
            if not callable(function):
                what = "The target" if name is None else f"Its {name}"
                raise TypeError(f"{what} can't be called: {self.name} has no such function.")
            method = self._methods[name] = Method(function, is_async(function))
        return method

    def has(self, name: str) -> bool:
        """Whether it has a method of this name."""
        return callable(getattr(self.object, name, None))

    def reconfiguring(self, config: object) -> Method:
        """The method that takes a new `user_config`.

        Raises:
            ConfigError: There is none.
        """
        if not self.has("reconfigure"):
            expected = f"left out: {self.name} has no method `reconfigure`"
            raise ConfigError("user_config", config, expected)
        return self.find("reconfigure")


def imported(path: str) -> Any:
    """What "package.module:name" stands for; the name may have dots."""
    module, _, names = path.partition(":")
    found: Any = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def is_application(value: object) -> bool:
    """Whether it is an ASGI application: it takes (scope, receive, send)."""
    if not callable(value):
        return False
    try:
        parameters = list(inspect.signature(value).parameters)
    except Exception:  # noqa: BLE001 - whatever its own code raises
        return False
    return parameters == ["scope", "receive", "send"]


def is_async(function: Any) -> bool:
    """Whether it has to be called in the event loop, as far as can be seen from here."""
    while isinstance(function, partial):
        function = function.func
    call = function if inspect.isroutine(function) else type(function).__call__
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)
