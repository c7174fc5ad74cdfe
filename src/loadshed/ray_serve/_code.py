"""Code: what a replica on Ray serves, and how it gets there."""

import pickle
import sys
from collections.abc import Mapping
from functools import reduce
from io import BytesIO
from threading import Lock
from typing import Any, Protocol

from ray.cloudpickle import CloudPickler
from starlette.datastructures import State

from loadshed._replica.target import imported
from loadshed.ray_serve._handle import RayHandle
from loadshed.serve._deployment import Application
from loadshed.serve._graph import nodes, with_handles
from loadshed.serve._ingress import _instances
from loadshed.serve._source import Source, load


class Code(Protocol):
    """Plain data, or what cloudpickle can make such of."""

    def make(self) -> Any:
        """What is to be served: in the replica."""


class Imported:
    """Code that the replica imports by itself, as the replicas of `loadshed run` do.

    Args:
        source: Where the application comes from.
        name: Which of its deployments this is.
        handles: Those that it calls.
    """

    def __init__(self, source: Source, name: str, handles: Mapping[str, RayHandle]) -> None:
        self._source = source
        self._name = name
        self._handles = handles

    def make(self) -> Any:
        """What is to be served."""
        named = nodes(load(self._source))
        node = named[self._name]
        args, kwargs = with_handles(node, named, self._handles.__getitem__)
        return _made(node.deployment.func_or_class, args, kwargs)


class Sent:
    """Code that the program sends, with what it is made with.

    Args:
        node: The deployment.
        named: All of the application.
        handles: Those that it calls.
    """

    def __init__(
        self,
        node: Application,
        named: Mapping[str, Application],
        handles: Mapping[str, RayHandle],
    ) -> None:
        self._code = _Reference(node.deployment.func_or_class)
        self._args, self._kwargs = with_handles(node, named, handles.__getitem__)

    def make(self) -> Any:
        """What is to be served."""
        return _made(self._code.code, self._args, self._kwargs)


def _made(code: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return code(*args, **kwargs) if isinstance(code, type) else code


class _Reference:
    """A class or function that is imported where it is unpickled, if it can be.

    Where a module has it only inside of a deployment, cloudpickle would not find it there, and send
    a copy of the class: one that is not the class which other code there knows.

    Args:
        code: The class or function.
    """

    def __init__(self, code: Any) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        path = _path(self.code)
        if path is not None:
            return _found, (path,)
        file = BytesIO()
        _Pickler(file).dump(self.code)
        return _sent, (file.getvalue(),)


def _sent(pickled: bytes) -> _Reference:
    return _Reference(_Unpickler(BytesIO(pickled)).load())


class _Pickler(CloudPickler):  # type: ignore[misc]
    """Pickles what a class with an `ingress` consists of, too."""

    def persistent_id(self, value: Any) -> str | None:
        """What is not to be copied: where the endpoints find their object."""
        return "instances" if value is _instances else None

    def reducer_override(self, value: Any) -> Any:
        """What to make values of that can't be pickled as they are."""
        if type(value) is type(Lock()):  # FastAPI has some in its routes
            return Lock, ()
        if isinstance(value, State):  # it has no `__setstate__`, and looks for it endlessly
            return type(value), (value._state,)
        return super().reducer_override(value)


class _Unpickler(pickle.Unpickler):
    """Its opposite."""

    def persistent_load(self, key: str) -> Any:
        """What was not copied."""
        return _instances


def _found(path: str) -> _Reference:
    found = imported(path)
    return _Reference(getattr(found, "func_or_class", found))


def _path(code: Any) -> str | None:
    """Where it can be imported from: "package.module:name"; None is nowhere."""
    module, name = getattr(code, "__module__", None), getattr(code, "__qualname__", "")
    if module in {None, "__main__"} or not name:
        return None
    try:
        found = reduce(getattr, name.split("."), sys.modules[module])
    except (AttributeError, KeyError):
        return None
    return f"{module}:{name}" if getattr(found, "func_or_class", found) is code else None
