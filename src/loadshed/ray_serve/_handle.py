"""RayHandle: a `DeploymentHandle` whose calls go to a deployment on Ray Serve."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, Self

from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve import exceptions as rays

from loadshed._errors import (
    ConfigError,
    QueueFullError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
)
from loadshed._policy.criticality import Criticality
from loadshed.serve._handle import DeploymentHandle, DeploymentResponse

CALL = "loadshed_call"
"""The method of our replicas on Ray that calls what they serve."""

NO_STANDING = "left out: in Ray Serve's queue all calls are alike"


class RayHandle(DeploymentHandle):
    """Calls a deployment on Ray Serve, with the words and the errors of loadshed.

    Args:
        name: The deployment's name.
        target: Ray's own handle. Before Ray has made it, what it is made of.
        method: The method to call.
        stream: Whether it is a generator, and its items are wanted.
    """

    def __init__(
        self, name: str, target: Any, method: str | None = None, *, stream: bool = False
    ) -> None:
        super().__init__(name, method, stream=stream)
        self._target = target

    def options(
        self,
        *,
        method_name: str | None = None,
        stream: bool | None = None,
        priority: Criticality | str | None = None,
        tenant: str | None = None,
        cost: int | None = None,
    ) -> DeploymentHandle:
        """A handle that calls it in another way; what is None stays as it is.

        Raises:
            ConfigError: A priority, tenant or cost was given: in Ray's queue all are alike.
        """
        for name, value in (("priority", priority), ("tenant", tenant), ("cost", cost)):
            if value is not None:
                raise ConfigError(name, value, NO_STANDING)
        return RayHandle(
            self._name,
            self._target,
            self._method if method_name is None else method_name,
            stream=self._stream if stream is None else stream,
        )

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Begin a call; the arguments may be what other calls have returned."""
        calling = self._target.options(method_name=CALL, stream=self._stream)
        given = map(_for_ray, args)
        named = {name: _for_ray(value) for name, value in kwargs.items()}
        response = calling.remote(self._method, *given, **named)
        return RayItems(response) if self._stream else RayResponse(response)

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (self._name, self._target, self._method, self._stream)


def _handle(name: str, target: Any, method: str | None, stream: bool) -> RayHandle:
    return RayHandle(name, target, method, stream=stream)


def _for_ray(value: Any) -> Any:
    return value._response if isinstance(value, RayResponse) else value


class RayResponse(DeploymentResponse):
    """The answer to a call, on its way.

    Args:
        response: Ray's own.
    """

    def __init__(self, response: Any) -> None:
        self._response = response
        self._is_cancelled = False

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            with in_our_words():
                return await self._response
        except asyncio.CancelledError:
            self.cancel()
            raise
        except CancelledThereError:
            if self._is_cancelled:
                raise asyncio.CancelledError from None
            raise

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the answer, in a thread."""
        with in_our_words():
            return self._response.result(timeout_s=timeout_s)

    def cancel(self) -> None:
        """End the call, if it has not ended by itself."""
        self._is_cancelled = True
        self._response.cancel()


class RayItems(AsyncIterator[Any]):
    """The items of a generator, as they come.

    Args:
        response: Ray's own.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def __aiter__(self) -> "RayItems":
        return self

    async def __anext__(self) -> Any:
        try:
            with in_our_words():
                return await anext(self._response)
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Any]:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("`for` would hold up the event loop: use `async for`.")
        return self._in_thread()

    def _in_thread(self) -> Iterator[Any]:
        try:
            with in_our_words():
                yield from self._response
        except GeneratorExit:
            self.cancel()
            raise

    async def aclose(self) -> None:
        """End the generator, if it has not ended by itself."""
        self.cancel()

    def cancel(self) -> None:
        """The same."""
        self._response.cancel()


class CancelledThereError(ReplicaError):
    """The call was cancelled, but not by whoever waits for it."""


@contextlib.contextmanager
def in_our_words() -> Iterator[None]:
    """Raise what loadshed raises where Ray raises something of its own."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - raised again
        raise translated(error) from error.__cause__


def translated(error: Exception) -> Exception:
    """What loadshed raises where Ray has raised this."""
    match error:
        case rays.BackPressureError():
            return _back_pressure(error)
        case RayTaskError():
            return _raised_there(error)
        case RayActorError():
            return ReplicaDiedError(f"The replica died: {error}")
        case rays.DeploymentUnavailableError() | rays.ReplicaUnavailableError():
            return ReplicaUnavailableError(error.message)
        case TaskCancelledError():
            return CancelledThereError("The call was cancelled where it ran.")
    return error


def _back_pressure(error: Any) -> QueueFullError:
    queued, most = error.args[:2]
    after = max(1, math.ceil(error.retry_after_s or 1))
    return QueueFullError(queued, math.inf if most == -1 else most, retry_after=after)


def _raised_there(error: Any) -> Exception:
    """The exception itself; Ray's is of its class, but has other `args`."""
    cause = error.cause
    if not isinstance(cause, Exception):
        return ReplicaError(f"The target raised {cause!r}.\n{error}")
    if isinstance(cause, rays.RayServeException | RayActorError | TaskCancelledError):
        return translated(cause)
    cause.add_note(f"Traceback in the replica:\n{str(error).rstrip()}")
    return cause
