"""Families: what a transport raises is of the library that its request is of."""

import copy
import importlib
import importlib.util
import pickle
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest

from loadshed import (
    BackPressureError,
    CircuitOpenError,
    LoadShedError,
    RequestTimeoutError,
    RetryError,
)
from loadshed.client._family import NAMES, SIMPLE, Family, family, family_of
from loadshed.client._guards import ThrottledError
from loadshed.client._received import TimedBody
from loadshed.client._sent import SentBody

FAMILIES: list[ModuleType] = [httpx]
if importlib.util.find_spec("httpx2"):
    FAMILIES.append(importlib.import_module("httpx2"))

KINDS: list[tuple[type[LoadShedError], tuple[Any, ...]]] = [
    (CircuitOpenError, ("https://a.example", 2.5)),
    (RetryError, ((1, 2), 503)),
    (ThrottledError, (0, 0, "throttle", 1)),
]


@pytest.fixture(params=FAMILIES, ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def a_request(library: Any) -> Any:
    return library.Request("GET", "http://a.example/path", headers={"x-mine": "1"})


# Errors.


@pytest.mark.parametrize(("kind", "facts"), KINDS)
def test_an_error_of_a_family_is_caught_with_the_familys_own(
    library: Any, kind: type[LoadShedError], facts: tuple[Any, ...]
) -> None:
    error = family(library.__name__).error(kind)(*facts)
    for caught in (
        kind,
        LoadShedError,
        library.TransportError,
        library.RequestError,
        library.HTTPError,
    ):
        with pytest.raises(caught) as raised:
            raise error
        assert raised.value is error
    for other in FAMILIES:
        assert isinstance(error, other.HTTPError) is (other is library)


@pytest.mark.parametrize(("kind", "facts"), KINDS)
def test_it_says_and_carries_what_the_error_itself_does(
    library: Any, kind: type[LoadShedError], facts: tuple[Any, ...]
) -> None:
    error, plain = family(library.__name__).error(kind)(*facts), kind(*facts)
    assert str(error) == str(plain)
    assert repr(error) == repr(plain)
    assert error.args == plain.args
    assert vars(error) == vars(plain)
    names = (kind.__name__, kind.__qualname__, kind.__module__, kind.__doc__)
    found = type(error)
    assert (found.__name__, found.__qualname__, found.__module__, found.__doc__) == names


def test_the_facts_are_there(library: Any) -> None:
    of = family(library.__name__)
    breaker = of.error(CircuitOpenError)("https://a.example", 2.5)
    assert (breaker.origin, breaker.retry_after) == ("https://a.example", 2.5)
    assert str(breaker) == (
        "The circuit breaker is open, and the request to https://a.example was not sent. "
        "Try again in 2.5 s."
    )
    exhausted = of.error(RetryError)([1, 2], 503)
    assert (exhausted.history, exhausted.last) == ((1, 2), 503)
    throttled = of.error(ThrottledError)(0, 0, "throttle", 1)
    assert isinstance(throttled, BackPressureError)
    assert (throttled.reason, throttled.retry_after) == ("throttle", 1)


def test_without_an_origin_none_is_named() -> None:
    assert str(CircuitOpenError()) == (
        "The circuit breaker is open, and the request was not sent. Try again in 0.0 s."
    )


@pytest.mark.parametrize(("kind", "facts"), KINDS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_survives_pickling_and_copying(
    library: Any, kind: type[LoadShedError], facts: tuple[Any, ...], protocol: int
) -> None:
    error = family(library.__name__).error(kind)(*facts)
    error.add_note("from afar")
    pickled = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
    for twin in (pickled, copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert twin.args == error.args
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize(("kind", "facts"), KINDS)
def test_it_has_the_request_like_the_familys_own(
    library: Any, kind: type[LoadShedError], facts: tuple[Any, ...]
) -> None:
    error = family(library.__name__).error(kind)(*facts)
    with pytest.raises(RuntimeError, match="request"):
        _ = error.request
    request = error.request = a_request(library)
    assert error.request is request
    assert copy.copy(error).request is request
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (twin.request.method, twin.request.url) == ("GET", request.url)
    assert twin.request.headers["x-mine"] == "1"


@pytest.mark.parametrize("kind", [LoadShedError, RequestTimeoutError, *(kind for kind, _ in KINDS)])
def test_there_is_one_class_of_each_error_in_a_family(
    library: Any, kind: type[LoadShedError]
) -> None:
    of = family(library.__name__)
    assert of.error(kind) is of.error(kind)
    assert of.error(kind).__bases__ == (kind, library.TransportError)


# Requests.


def test_a_request_is_of_the_family_of_its_class(library: Any) -> None:
    of = family_of(a_request(library))
    assert of is family(library.__name__)
    assert (of.name, of.library) == (library.__name__, library)
    assert of.name in NAMES


def test_a_subclass_of_a_request_is_of_the_same_family(library: Any) -> None:
    class Mine(library.Request):  # type: ignore[misc]
        pass

    class MineToo(Mine):
        pass

    for kind in (MineToo, Mine, MineToo):
        assert family_of(kind("GET", "http://a.example")) is family(library.__name__)


class Request:
    """Looks like one."""

    method, url, headers, extensions, stream = "GET", "http://a.example", {}, {}, b""  # type: ignore[var-annotated]


def impostor() -> Any:
    """Of a module whose name only begins like httpx's."""
    kind = type("Request", (), {})
    kind.__module__ = "httpx_of_mine.models"
    return kind()


@pytest.mark.parametrize("nonsense", [None, 1, "http://a.example", Request(), object(), impostor()])
def test_anything_else_is_refused_by_name(nonsense: object) -> None:
    for _ in range(2):
        with pytest.raises(
            TypeError, match="neither a request of httpx nor one of httpx2"
        ) as caught:
            family_of(nonsense)
        assert repr(type(nonsense)) in str(caught.value)


def test_its_errors_and_bodies_are_those_of_the_library(library: Any) -> None:
    of = family(library.__name__)
    assert of.transport_error is library.TransportError
    assert of.read_timeout is library.ReadTimeout
    assert of.connect_timeout is library.ConnectTimeout
    assert of.unsent == (library.ConnectError, library.ConnectTimeout, library.PoolTimeout)
    assert of.never_retried == (
        library.UnsupportedProtocol,
        library.LocalProtocolError,
        library.ProxyError,
    )
    assert isinstance(a_request(library).stream, of.bytes_body)
    for body, own in ((of.sent_body, SentBody), (of.timed_body, TimedBody)):
        assert issubclass(body, own)
        assert issubclass(body, library.SyncByteStream)
        assert issubclass(body, library.AsyncByteStream)


def test_a_request_with_attributes_of_its_own_is_told_apart(library: Any) -> None:
    """Of one that has no others a copy is made attribute by attribute."""

    class Later(library.Request):  # type: ignore[misc]
        """As a version of the library might have it."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.trailers: dict[str, str] = {}

    names = {name: getattr(library, name) for name in library.__all__}
    later: Any = SimpleNamespace(**(names | {"Request": Later}), __name__="later")
    of = Family(later)
    assert of.name == "later"
    assert Later not in SIMPLE
    assert library.Request in SIMPLE


def test_the_families_are_no_relatives() -> None:
    families = [family(library.__name__) for library in FAMILIES]
    assert len({of.error(CircuitOpenError) for of in families}) == len(families)
    assert len({of.transport_error for of in families}) == len(families)
