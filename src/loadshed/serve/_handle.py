"""DeploymentHandle: how the code of one deployment calls another one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

from loadshed._errors import ConfigError
from loadshed._limits import class_of, cost_of
from loadshed._policy.criticality import Criticality
from loadshed._policy.standing import USUAL, Standing
from loadshed._replica import outward
from loadshed._replica.outward import OutStream, Value

Begin = Callable[[Value], "Future[Any]"]
"""Begins a call."""


class DeploymentHandle:
    """Calls a deployment of the same application, in whichever of its replicas is free first.

    Its calls wait in that deployment's own bounded queue, and get a `BackPressureError` where that
    is full. Replicas get handles in place of the applications that they are bound with; they can't
    be made by hand.

    ```python
    @deployment
    class Ingress:
        def __init__(self, model: DeploymentHandle) -> None:
            self.model = model

        async def __call__(self, request: Request) -> float:
            return await self.model.predict.remote(await request.json())


    app = Ingress.bind(Model.bind())
    ```
    """

    def __init__(self, name: str, method: str | None = None, *, stream: bool = False) -> None:
        self._name = name
        self._method = method
        self._stream = stream
        self._standing = USUAL

    @property
    def deployment_name(self) -> str:
        """The name of the deployment that it calls."""
        return self._name

    def options(
        self,
        *,
        method_name: str | None = None,
        stream: bool | None = None,
        priority: Criticality | str | None = None,
        tenant: str | None = None,
        cost: int | None = None,
    ) -> "DeploymentHandle":
        """A handle that calls it in another way; what is None stays as it is.

        Args:
            method_name: The method to call. By default the deployment itself is called.
            stream: Whether it is a generator, and its items are wanted.
            priority: How much the calls matter in the deployment's queue: a `Criticality`, or the
                name of one. By default `CRITICAL`.
            tenant: Whose they are; tenants take turns. By default nobody's.
            cost: How many slots each takes, of all that the replicas have together; 1 by default.

        Raises:
            ConfigError: One is not what it may be.
        """
        before = self._standing
        return _handle(
            self._name,
            self._method if method_name is None else method_name,
            self._stream if stream is None else stream,
            Standing(
                before.criticality if priority is None else class_of(priority),
                before.tenant if tenant is None else _tenant(tenant),
                before.cost if cost is None else cost_of(cost),
            ),
        )

    def __getattr__(self, name: str) -> "DeploymentHandle":
        if name.startswith("_"):
            raise AttributeError(f"a handle calls no method {name!r}")
        return self.options(method_name=name)

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Begin a call.

        Args:
            args: What is sent. Where one is what another call of `remote` has returned, its result
                is sent.
            kwargs: The same, by name.

        Returns:
            A `DeploymentResponse`; with `stream` a `DeploymentResponseGenerator`.

        Raises:
            NotPicklableError: An argument can't be sent.
            RuntimeError: This is no replica, or one that is not ready yet.
        """
        out = outward.current
        if out is None:
            raise RuntimeError(
                f"The deployment {self._name!r} can be called from replicas that serve: not while "
                "they are made, and not from other programs."
            )
        if self._stream:
            return DeploymentResponseGenerator(
                out.stream(
                    self._name,
                    (self._method, _results(args), _results_of(kwargs)),
                    self._standing,
                )
            )
        call = partial(out.call, self._name, standing=self._standing)
        return DeploymentResponse(_begin(call, (self._method, args, kwargs)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (self._name, self._method, self._stream, self._standing)

    def __repr__(self) -> str:
        method = "" if self._method is None else f".{self._method}"
        return f"<{type(self).__name__} {self._name}{method}>"


def _handle(name: str, method: str | None, stream: bool, standing: Standing) -> DeploymentHandle:
    handle = DeploymentHandle(name, method, stream=stream)
    handle._standing = standing
    return handle


def _tenant(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError("tenant", value, "a string")
    return value


class DeploymentResponse(Awaitable[Any]):
    """The answer to a call, on its way: await it, or in a thread call `result`.

    The call goes on if nobody waits for it, and is cancelled with the task that does.
    """

    def __init__(self, future: "Future[Any] | asyncio.Task[Any]") -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, Any]:
        future = self._future
        if isinstance(future, Future):
            return asyncio.wrap_future(future).__await__()
        return future.__await__()

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the answer, in a thread.

        Args:
            timeout_s: How many seconds; by default as long as it takes.

        Raises:
            TimeoutError: They are over. The call goes on.
            RuntimeError: This is the event loop, which would stand still: await it.
            Exception: What was raised there.
        """
        if asyncio._get_running_loop() is not None or not isinstance(self._future, Future):
            raise RuntimeError("`result` would hold up the event loop: `await` the response.")
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        """End the call, if it has not ended by itself."""
        self._future.cancel()


class DeploymentResponseGenerator(AsyncIterator[Any]):
    """The items of a generator, as they come: for `async for`, or in a thread for `for`.

    Whoever may leave early closes it: by `aclose`, `cancel`, or as an `async with`.
    """

    def __init__(self, stream: OutStream) -> None:
        self._stream = stream

    def __aiter__(self) -> "DeploymentResponseGenerator":
        return self

    async def __anext__(self) -> Any:
        return await self._stream.__anext__()

    def __iter__(self) -> Iterator[Any]:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("`for` would hold up the event loop: use `async for`.")
        return self._stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        """End the generator, if it has not ended by itself."""
        self._stream.close()

    def cancel(self) -> None:
        """The same."""
        self._stream.close()


def _begin(call: Begin, value: Value) -> "Future[Any] | asyncio.Task[Any]":
    method, args, kwargs = value
    if not any(isinstance(each, DeploymentResponse) for each in (*args, *kwargs.values())):
        return call(value)
    if asyncio._get_running_loop() is None:
        return call((method, _results(args), _results_of(kwargs)))
    return asyncio.create_task(_when_there(call, value))


async def _when_there(call: Begin, value: Value) -> Any:
    """A call that needs the results of others first."""
    method, args, kwargs = value
    given = [await each if isinstance(each, DeploymentResponse) else each for each in args]
    by_name = {
        key: await each if isinstance(each, DeploymentResponse) else each
        for key, each in kwargs.items()
    }
    return await asyncio.wrap_future(call((method, tuple(given), by_name)))


def _results(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """In a thread: the results of what is under way."""
    return tuple(each.result() if isinstance(each, DeploymentResponse) else each for each in args)


def _results_of(kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(kwargs, _results(tuple(kwargs.values())), strict=True))
