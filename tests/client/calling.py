"""One way to send a request through every kind of client."""

import importlib
import importlib.util
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from loadshed import _clock
from loadshed.client import (
    AsyncClient,
    AsyncRetryTransport,
    Client,
    History,
    Retry,
    RetryTransport,
    deadline,
)

FAMILIES: list[ModuleType] = [httpx]
if importlib.util.find_spec("httpx2"):
    FAMILIES.append(importlib.import_module("httpx2"))

QUICK = Retry(backoff_factor=0)
"""The policy without waits."""

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""To load the usual certificates for each client takes longer than most tests."""

SETTINGS = frozenset(
    {
        "retry",
        "budget",
        "breaker",
        "throttle",
        "raise_on_exhausted",
        "propagate_deadline",
        "criticality",
        "on_event",
    }
)

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio", "backend_options": {"use_uvloop": False}},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


@dataclass(frozen=True)
class Kind:
    """A kind of client: a transport under a client of httpx or httpx2, or a ready client."""

    library: ModuleType
    backend: str
    ready: bool = False

    def __str__(self) -> str:
        return f"{self.backend}-{'ready' if self.ready else self.library.__name__}"


READY = [Kind(httpx, backend, ready=True) for backend in ("sync", "asyncio", "trio")]
TRANSPORTS = [Kind(library, backend) for library in FAMILIES for backend in ("sync", "asyncio")]
TRANSPORTS += [Kind(httpx, "trio"), Kind(FAMILIES[-1], "uvloop")]
KINDS = TRANSPORTS + READY
FEW = [Kind(FAMILIES[-1], "sync"), Kind(httpx, "asyncio"), Kind(httpx, "trio", ready=True)]
"""For what depends little on the kind: each of its sides once."""


@dataclass
class Outcome:
    """What came of a request: a response, whose body was read, or an exception."""

    request: Any
    response: Any = None
    error: Exception | None = None

    @property
    def history(self) -> History:
        """What the library says of it."""
        found: History = self.request.extensions["loadshed"]
        if self.response is not None:
            assert self.response.extensions["loadshed"] is found
        return found

    @property
    def stopped(self) -> str:
        return self.history.stopped

    @property
    def statuses(self) -> list[int | None]:
        return [attempt.status for attempt in self.history.attempts]

    @property
    def delays(self) -> list[float]:
        return [attempt.delay for attempt in self.history.attempts]

    @property
    def status(self) -> int:
        """The response's."""
        assert self.error is None, self.error
        return self.response.status_code  # type: ignore[no-any-return]

    @property
    def failure(self) -> Any:
        """The exception."""
        assert self.error is not None, self.response
        return self.error


@dataclass
class _Errand:
    """What is to be sent, and what came of it."""

    count: int
    method: str
    url: str
    stream: bool
    within: float | None
    options: dict[str, Any]
    outcomes: list[Outcome] = field(default_factory=list)

    def begin(self, client: Any) -> Outcome:
        request = client.build_request(self.method, self.url, **self.options)
        self.outcomes.append(Outcome(request))
        return self.outcomes[-1]

    def bound(self) -> AbstractContextManager[object]:
        return nullcontext() if self.within is None else deadline(self.within)


class Caller:
    """Sends requests through a client of some kind, and looks whether it leaves anything open."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.library: Any = kind.library
        self.ready = kind.ready
        self.is_async = kind.backend != "sync"

    def __call__(self, method: str, url: str, **options: Any) -> Outcome:
        """Send one request; the settings of the client and those of the request are told apart."""
        return self.times(1, method, url, **options)[0]

    def times(self, count: int, method: str, url: str, **options: Any) -> list[Outcome]:
        """Send so many, one after the other, through one client.

        Args:
            count: How many.
            method: The method of each.
            url: The URL.
            options: `stream`, for a body that the caller reads; `within`, for the seconds of a
                `with deadline()` around each; `client`, for options of httpx's client; `inner`, for
                those of its transport; the settings of the retry; and the options of each request.
        """
        settings = {name: options.pop(name) for name in SETTINGS & options.keys()}
        settings.setdefault("retry", QUICK)
        # The transport's own limits are what is tested, and not the timeouts of httpx beside them.
        client = {"trust_env": False} | ({} if self.ready else {"timeout": None})
        client |= options.pop("client", {})
        given = {"verify": TLS} | options.pop("inner", {})
        errand = _Errand(
            count, method, url, options.pop("stream", False), options.pop("within", None), options
        )
        if self.is_async:
            backend = BACKENDS[self.kind.backend]
            return anyio.run(self._asend, errand, settings, client, given, **backend)
        inner = self.library.HTTPTransport(**given)
        with self._client(inner, settings, client) as connected:
            for _ in range(errand.count):
                outcome = errand.begin(connected)
                with errand.bound():
                    try:
                        outcome.response = connected.send(outcome.request, stream=errand.stream)
                        try:
                            outcome.response.read()
                        finally:
                            outcome.response.close()
                    except Exception as error:  # noqa: BLE001 - it is what came of it
                        outcome.error = error
                _nothing_is_left_open(inner)
        return errand.outcomes

    async def _asend(
        self,
        errand: "_Errand",
        settings: dict[str, Any],
        client: dict[str, Any],
        given: dict[str, Any],
    ) -> list[Outcome]:
        inner = self.library.AsyncHTTPTransport(**given)
        async with self._client(inner, settings, client) as connected:
            for _ in range(errand.count):
                outcome = errand.begin(connected)
                with errand.bound():
                    try:
                        outcome.response = await connected.send(
                            outcome.request, stream=errand.stream
                        )
                        try:
                            await outcome.response.aread()
                        finally:
                            await outcome.response.aclose()
                    except Exception as error:  # noqa: BLE001 - it is what came of it
                        outcome.error = error
                _nothing_is_left_open(inner)
        return errand.outcomes

    def _client(self, inner: Any, settings: dict[str, Any], options: dict[str, Any]) -> Any:
        if self.ready:
            kind: Any = AsyncClient if self.is_async else Client
            return kind(transport=inner, **settings, **options)
        if self.is_async:
            transport: Any = AsyncRetryTransport(inner, **settings)
            return self.library.AsyncClient(transport=transport, **options)
        return self.library.Client(transport=RetryTransport(inner, **settings), **options)

    def body(self, chunks: Iterable[bytes]) -> Any:
        """A body that can be read once only."""
        return Chunks(chunks) if self.is_async else iter(chunks)

    def iterable(self, *bodies: Iterable[bytes]) -> Any:
        """A body that is iterated anew each time, and is each time the next of these."""
        return _AsyncIterable(bodies) if self.is_async else _Iterable(bodies)


def _nothing_is_left_open(transport: Any) -> None:
    pool = transport._pool
    assert not pool._requests
    assert all(one.is_idle() or one.is_closed() for one in pool.connections), pool.connections


class Chunks(AsyncIterator[bytes]):
    """Like an async generator, but trio does not mind if it is left before its end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


class _Bodies:
    def __init__(self, bodies: Iterable[Iterable[bytes]]) -> None:
        self._bodies = list(bodies)

    def _next(self) -> Iterable[bytes]:
        return self._bodies.pop(0) if len(self._bodies) > 1 else self._bodies[0]


class _Iterable(_Bodies):
    def __iter__(self) -> Iterator[bytes]:
        return iter(self._next())


class _AsyncIterable(_Bodies):
    def __aiter__(self) -> AsyncIterator[bytes]:
        return Chunks(self._next())


class Waits(list[float]):
    """The waits between attempts, which take no time here.

    A wait is the shorter by what it takes to throw the response before it away.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(_clock, "thread_sleep", self.append)
        monkeypatch.setattr(anyio, "sleep", self._sleep)

    def took(self, *seconds: float) -> bool:
        """Whether they were these."""
        return len(self) == len(seconds) and all(
            each - 0.5 < wait < each + 1e-6 for wait, each in zip(self, seconds, strict=True)
        )

    async def _sleep(self, seconds: float) -> None:
        self.append(seconds)
        await checkpoint()
