"""Family: httpx, or httpx2, whichever the request is of.

httpx2 continues httpx. Its transports have the same interface, and its classes are no relatives of
httpx's. So what a transport raises or hands on has to be of the request's own family, and is looked
up here.
"""

import sys
from functools import cache
from types import ModuleType
from typing import Any

from loadshed._errors import LoadShedError
from loadshed.client._received import TimedBody
from loadshed.client._sent import SentBody

NAMES = ("httpx", "httpx2")

PLAIN: set[type] = set()
"""The classes of bodies that are bytes in memory."""

SIMPLE: set[type] = set()
"""The classes of requests that have these attributes and no other."""

ATTRIBUTES = {"method", "url", "headers", "extensions", "stream", "_content"}


class Family:
    """What is used of one of the two libraries."""

    def __init__(self, library: ModuleType) -> None:
        self.name = library.__name__
        self.library = library
        self.transport_error: type[Exception] = library.TransportError
        self.read_timeout: Any = library.ReadTimeout
        self.connect_timeout: Any = library.ConnectTimeout
        self.unsent: tuple[type[Exception], ...] = (
            library.ConnectError,
            library.ConnectTimeout,
            library.PoolTimeout,
        )
        self.never_retried: tuple[type[Exception], ...] = (
            library.UnsupportedProtocol,
            library.LocalProtocolError,
            library.ProxyError,
        )
        self.bytes_body: Any = library.ByteStream
        PLAIN.add(library.ByteStream)
        if vars(library.Request("GET", "http://localhost")).keys() == ATTRIBUTES:
            SIMPLE.add(library.Request)
        streams = (library.SyncByteStream, library.AsyncByteStream)
        self.sent_body: Any = type("SentBody", (SentBody, *streams), {})
        self.timed_body: Any = type("TimedBody", (TimedBody, *streams), {})

        self._errors: dict[type[LoadShedError], Any] = {}

    def error(self, kind: type[LoadShedError]) -> Any:
        """The same error, which `except httpx.HTTPError` catches too."""
        if kind not in self._errors:
            self._errors[kind] = self._make_error(kind)
        return self._errors[kind]

    def _make_error(self, kind: type[LoadShedError]) -> Any:
        namespace = {
            "__doc__": kind.__doc__,
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__reduce__": _reduce,
            "_kind": kind,
            "_library": self.name,
            "_request": None,  # httpx puts the request here
        }
        return type(kind.__name__, (kind, self.transport_error), namespace)


def family_of(request: Any) -> Family:
    """The family of a request, by its class.

    Raises:
        TypeError: It is neither httpx's nor httpx2's.
    """
    request_class = type(request)
    known = _families.get(request_class)
    return _find_family(request_class) if known is None else known


_families: dict[type, Family] = {}


def _find_family(request_class: type) -> Family:
    for base in request_class.__mro__:
        library = base.__module__.partition(".")[0]
        if library in NAMES:
            _families[request_class] = family(library)
            return _families[request_class]
    raise TypeError(f"{request_class!r} is neither a request of httpx nor one of httpx2")


@cache
def family(name: str) -> Family:
    """The family of that name, which somebody has imported."""
    return Family(sys.modules[name])


def _reduce(error: Any) -> Any:
    return _error, (error._library, error._kind, error.args), vars(error)


def _error(library: str, kind: type[LoadShedError], args: tuple[Any, ...]) -> Any:
    __import__(library)
    return family(library).error(kind)(*args)
