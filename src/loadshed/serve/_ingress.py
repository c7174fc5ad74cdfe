"""ingress: an ASGI application that a deployment serves its requests with."""

import inspect
from collections.abc import Callable
from typing import Any

from loadshed._errors import ConfigError, LoadShedError
from loadshed._replica.target import is_application
from loadshed.serve._deployment import APPLICATION

_instances: dict[type, Any] = {}
"""The object of each class in this process, for the endpoints that are its methods."""


def ingress(app: Any) -> Callable[..., Any]:
    """Let an ASGI application answer the requests of a deployment: a decorator for its class.

    Where it is a FastAPI application its endpoints may be methods of the class.

    ```python
    app = FastAPI()


    @deployment
    @ingress(app)
    class Service:
        @app.get("/square/{x}")
        def square(self, x: int) -> int:
            return x * x
    ```

    An application without a class is served by `deployment(ingress(app)())`.

    Args:
        app: The application, or a function without parameters that returns one; each replica calls
            it.

    Raises:
        ConfigError: It is neither.
    """
    if not callable(app):
        raise ConfigError("app", app, "an ASGI application, or a function that returns one")

    def decorate(cls: type | None = None) -> type:
        if cls is None:
            name = getattr(app, "__name__", type(app).__name__)
            cls = type(name, (), {"__qualname__": f"<ingress of {name}>", "__module__": __name__})
        if not isinstance(cls, type):
            raise ConfigError("ingress", cls, "above a class")
        setattr(cls, APPLICATION, app)
        if hasattr(app, "include_router"):
            _bind_endpoints(app, cls)
        return cls

    return decorate


def application_of(instance: Any) -> Any:
    """The ASGI application of an object whose class has an `ingress`, ready to serve; or None.

    Raises:
        ConfigError: The function returned something else.
    """
    app = getattr(type(instance), APPLICATION, None)
    if app is None:
        return None
    for cls in type(instance).__mro__:
        _instances[cls] = instance
    if not is_application(app) and not _takes_arguments(app):
        app = app()
    if not is_application(app):
        raise ConfigError("ingress", app, "an ASGI application, or a function that returns one")
    _answer_errors(app)
    return app


def _takes_arguments(function: Any) -> bool:
    return bool(inspect.signature(function).parameters)


def _answer_errors(app: Any) -> None:
    """Have a framework's application answer what is raised by deployments that it calls."""
    handlers = getattr(app, "exception_handlers", None)
    if isinstance(handlers, dict):  # Starlette, FastAPI
        handlers.setdefault(LoadShedError, _answer)


async def _answer(request: Any, error: Exception) -> Any:
    from loadshed.serve._answer import response_to_error  # noqa: PLC0415

    return response_to_error(error)


def _bind_endpoints(app: Any, cls: type) -> None:
    """Hand the object to the endpoints of a FastAPI application that are methods of its class.

    FastAPI took their `self` for a parameter of the request. They are taken out, `self` becomes a
    dependency, and they are put in again, so that FastAPI looks at them anew (after Ray Serve's
    `make_fastapi_class_based_view`, which is after `fastapi-utils`).
    """
    from fastapi import APIRouter, Depends  # noqa: PLC0415 - it is FastAPI's own application

    router = APIRouter()
    for route in [each for each in app.router.routes if _is_method(each, cls)]:
        app.router.routes.remove(route)
        signature = inspect.signature(route.endpoint)
        if not signature.parameters:
            expected = "methods, whose first parameter is the object, or functions outside"
            raise ConfigError("endpoints", route.endpoint.__qualname__, expected)
        this, *others = signature.parameters.values()
        parameters = [
            this.replace(default=Depends(_this(cls))),
            *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in others),
        ]
        route.endpoint.__signature__ = signature.replace(parameters=parameters)
        router.routes.append(route)
    app.include_router(router)


def _is_method(route: Any, cls: type) -> bool:
    qualname = getattr(getattr(route, "endpoint", None), "__qualname__", "")
    classes = [each for each in cls.__mro__ if each is not object]
    return any(qualname.startswith(f"{each.__qualname__}.") for each in classes)


def _this(cls: type) -> Callable[[], Any]:
    async def this() -> Any:
        return _instances[cls]

    return this
