"""Deployment: code with its settings; Application: a deployment with its arguments."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from pickle import PicklingError
from typing import Any, overload

from loadshed._errors import ConfigError
from loadshed.serve._settings import checked

APPLICATION = "__loadshed_application__"
"""The attribute of a class that has its `ingress`, or a function that makes that."""


class Application:
    """A deployment and what it is made with: what `bind` returns, and what can be served.

    Handed to another `bind` as an argument, also in a list, tuple or dict, it arrives there as a
    `DeploymentHandle`.

    Attributes:
        deployment: What is made.
        args: What it is made with.
        kwargs: The same, by name.
    """

    def __init__(
        self, deployment: "Deployment", args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.deployment = deployment
        self.args = args
        self.kwargs = dict(kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.deployment!r}>"


class Deployment:
    """A class or function that is to be served, with its settings: what `@deployment` makes.

    Args:
        func_or_class: What each replica makes an object of, or calls.
        name: What it is called; other code and config files know it by that.
        given: The settings that were given.

    Attributes:
        func_or_class: The same.
        name: The same.
        given: The same. Those that were not given are as `deployment` says.
    """

    def __init__(
        self, func_or_class: Callable[..., Any], name: str, given: Mapping[str, Any]
    ) -> None:
        self.func_or_class = func_or_class
        self.name = name
        self.given = dict(given)
        self.__doc__ = func_or_class.__doc__
        self.__module__ = getattr(func_or_class, "__module__", type(func_or_class).__module__)
        self.__qualname__ = getattr(func_or_class, "__qualname__", "")

    def options(self, *, name: str | None = None, **settings: Any) -> "Deployment":
        """The same with other settings; those that are not given stay.

        Args:
            name: Another name.
            settings: As for `deployment`.

        Raises:
            ConfigError: There is no such setting, or it is not what it may be.
        """
        given = self.given | checked(settings)
        return Deployment(self.func_or_class, self.name if name is None else _name(name), given)

    def bind(self, /, *args: Any, **kwargs: Any) -> Application:
        """What can be served: this, made with these arguments in each replica.

        Args:
            args: What the class is called with. Where one is an application, the replica gets a
                handle to it.
            kwargs: The same, by name.

        Raises:
            ConfigError: A function is called by each request, and can't have arguments.
        """
        if (args or kwargs) and not isinstance(self.func_or_class, type):
            raise ConfigError("bind", (*args, *kwargs), "called without arguments for a function")
        return Application(self, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A deployment can't be called.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"The deployment {self.name!r} can't be called: `{self.name}.bind(...)` is what can be "
            "served, and `func_or_class` is what can be called."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        code = self.func_or_class
        application = vars(code).get(APPLICATION) if isinstance(code, type) else None
        if application is not None and "<" in code.__qualname__:  # it was given no class
            return _with_ingress, (*place_of(application), self.name, self.given)
        return _found, (*place_of(code), self.name, self.given)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def place_of(code: Any) -> tuple[str, str]:
    """The module that has some code, and its name there.

    Raises:
        PicklingError: It is nowhere: local to a function, say.
    """
    module, name = getattr(code, "__module__", ""), getattr(code, "__qualname__", "")
    with contextlib.suppress(AttributeError, KeyError):
        if name and _is(_at(module, name), code):
            return module, name
    for module, found in list(sys.modules.items()):  # an object knows only where its class is
        for name, value in list(getattr(found, "__dict__", {}).items()):
            if _is(value, code):
                return module, name
    raise PicklingError(f"{code!r} is not at the top level of a module")


def _is(value: Any, code: Any) -> bool:
    return value is code or (isinstance(value, Deployment) and value.func_or_class is code)


def _at(module: str, name: str) -> Any:
    found: Any = sys.modules[module]
    return reduce(getattr, name.split("."), found)


def _imported(module: str, name: str) -> Any:
    importlib.import_module(module)
    return _at(module, name)  # the module may be the program's main script under another name


def _found(module: str, qualname: str, name: str, given: Mapping[str, Any]) -> Deployment:
    """A deployment in another process: its code is imported there."""
    found = _imported(module, qualname)
    return Deployment(getattr(found, "func_or_class", found), name, given)


def _with_ingress(module: str, qualname: str, name: str, given: Mapping[str, Any]) -> Deployment:
    """The same, of an application that was given no class."""
    from loadshed.serve._ingress import ingress  # noqa: PLC0415 - most need none

    return Deployment(ingress(_imported(module, qualname))(), name, given)


@overload
def deployment(func_or_class: Callable[..., Any], /) -> Deployment: ...
@overload
def deployment(
    func_or_class: None = None, /, *, name: str | None = None, **settings: Any
) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(
    func_or_class: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    **settings: Any,
) -> Any:
    """Make a class or function one that can be served: a decorator, with or without settings.

    ```python
    @deployment(num_replicas=2, max_ongoing_requests=2, max_queued_requests=4)
    class Model:
        def __init__(self, path: str) -> None:
            self.weights = load(path)

        async def __call__(self, request: Request) -> dict[str, float]:
            return {"y": self.predict(await request.json())}


    app = Model.bind("model.bin")
    ```

    A request is answered with what `__call__`, or the function, returns: a string, bytes, what can
    be made JSON of, a Starlette `Response`, or a generator, async or not, of strings or bytes. What
    is not async runs in a thread.

    Args:
        func_or_class: The class or function.
        name: What it is called. By default as in the code.
        settings: The settings of `ReplicaPool`: `num_replicas` (1), `max_ongoing_requests` of each
            replica (5; "auto" is as many as each finds that it can), `max_queued_requests` in all
            (as many as all replicas work on), `max_wait`, `order`, `shares` by the names of
            classes, `max_tenants` (1000), `tenant_share` (0.5), `trust_criticality` (False),
            `request_timeout_s` (none), `user_config`, `health_check_period_s` (10),
            `health_check_timeout_s` (30), `graceful_shutdown_timeout_s` (20); and two for HTTP:
            `tenant_header`, the header that says whose a request is, and `backpressure_config`, a
            `BackpressureConfig` or a mapping like it: how a request is answered that is turned away
            (503). Settings of Ray Serve that mean nothing on one machine, like `ray_actor_options`,
            are kept for `loadshed.ray_serve`.

    Raises:
        ConfigError: There is no such setting, or it is not what it may be.
    """
    given = checked(settings)

    def decorate(func_or_class: Callable[..., Any]) -> Deployment:
        if isinstance(func_or_class, Deployment) or not callable(func_or_class):
            raise ConfigError("func_or_class", func_or_class, "a class or function")
        known = getattr(func_or_class, "__name__", type(func_or_class).__name__)
        return Deployment(func_or_class, known if name is None else _name(name), given)

    return decorate if func_or_class is None else decorate(func_or_class)


def _name(value: object) -> str:
    if not isinstance(value, str) or not value or "#" in value:
        raise ConfigError("name", value, "a string that is not empty, without '#'")
    return value
