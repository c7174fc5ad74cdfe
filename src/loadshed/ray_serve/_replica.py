"""What Ray makes in each of its replicas: ours, around what is to be served."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio.to_thread
import ray.serve
from starlette.requests import Request
from starlette.responses import Response

from loadshed._errors import LoadShedError, RequestTimeoutError
from loadshed._exchange import LAST, Message, Receive, Scope, Send
from loadshed._replica.application import Lifespan
from loadshed._replica.target import Method, Served, Target, is_application
from loadshed._replica.threads import Threads
from loadshed.ray_serve._code import Code
from loadshed.serve._answer import problem, status_of
from loadshed.serve._hosted import Answering
from loadshed.serve._ingress import application_of

HOOKS = frozenset(
    {
        "check_health",
        "reconfigure",
        "record_autoscaling_stats",
        "record_replica_metadata",
        "record_routing_stats",
    }
)
"""The methods that Ray itself calls: no requests, so `request_timeout_s` is not for them."""

_END = object()

_InThread = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]


class Replica:
    """One deployment: what calls go to, and what answers HTTP requests.

    Args:
        code: What is served, and how to make it.
        request_timeout_s: Seconds that each request may take.
    """

    def __init__(self, code: Code, request_timeout_s: float | None) -> None:
        served = Served()
        served.object = code.make()
        served.application = application_of(served.object)
        if served.application is None and is_application(served.object):
            served.application = served.object
        self._target = Target(served, (), {})
        self._threads = Threads()
        self._timeout = request_timeout_s
        if served.application is None and callable(served.object):
            served.application = Answering(self._asynchronous(self._target.find(None)))
        self._application = served.application

    async def loadshed_call(self, method: str | None, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method, or with None what is served itself: what a handle's calls come to."""
        return await self._call(self._target.find(method), args, kwargs)

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """A method of what is served: for Ray, and for handles that are Ray's own."""
        if name.startswith("_") or not self._target.has(name):
            raise AttributeError(f"there is no method {name!r}")
        method = self._target.find(name)

        @functools.wraps(method.function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            if name in HOOKS:
                return await self._begin(method, args, kwargs, self._in_thread)
            return await self._call(method, args, kwargs)

        return call

    async def _call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        time = _Time(self._timeout)
        result = await time.bound(self._begin(method, args, kwargs, self._in_turn))
        if inspect.isgenerator(result):
            return self._stepping(result, time)
        return _items(result, time) if inspect.isasyncgen(result) else result

    async def _begin(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], in_thread: _InThread
    ) -> Any:
        call = functools.partial(method.function, *args, **kwargs)
        result = call() if method.is_async else await in_thread(call)
        return await result if inspect.isawaitable(result) else result

    async def _in_turn(self, call: Callable[[], Any]) -> Any:
        """In a thread, of which no more are at work at once than `max_ongoing_requests`."""
        # Ray keeps this limit so. By itself it has no use: Ray sends no more at once. But once a
        # caller has left, Ray counts its place as free, whether or not the thread has returned.
        async with anyio.to_thread.current_default_thread_limiter():
            return await self._in_thread(call)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        # Ray keeps in the context which request this is.
        return await self._threads.call(functools.partial(contextvars.copy_context().run, call))

    async def _stepping(self, items: Any, time: "_Time") -> AsyncIterator[Any]:
        """The items of a generator that is not async."""
        step = functools.partial(next, items, _END)
        try:
            while (item := await time.bound(self._in_turn(step))) is not _END:
                yield item
        finally:
            if not time.is_over:  # else a thread is still in it
                await self._in_thread(items.close)

    def _asynchronous(self, method: Method) -> Any:
        """The same as an async function."""

        async def answer(*args: Any) -> Any:
            return await self._begin(method, args, {}, self._in_turn)

        answer.__signature__ = inspect.signature(method.function)  # type: ignore[attr-defined]
        return answer


async def _items(items: Any, time: "_Time") -> AsyncIterator[Any]:
    async with contextlib.aclosing(items):
        while (item := await time.bound_here(anext(items, _END))) is not _END:
            yield item


class _Time:
    """How long one request may take.

    Args:
        timeout: How many seconds from now on; None is for ever.

    Attributes:
        is_over: Whether it was too short.
    """

    def __init__(self, timeout: float | None) -> None:
        self.is_over = False
        self._timeout = timeout
        self._until = asyncio.get_running_loop().time() + (timeout or 0)

    async def bound_here(self, work: Awaitable[Any]) -> Any:
        """What the work comes to, in this very task.

        Raises:
            RequestTimeoutError: The time is over. The work is cancelled.
        """
        if self._timeout is None:
            return await work
        try:
            async with asyncio.timeout_at(self._until) as scope:
                return await work
        except TimeoutError:
            if scope.expired():
                raise RequestTimeoutError(self._timeout) from None
            raise

    async def bound(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the work comes to.

        Raises:
            RequestTimeoutError: The time is over. The work is cancelled; nobody waits for a thread.
        """
        if self._timeout is None:
            return await work
        left = self._until - asyncio.get_running_loop().time()
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task}, timeout=max(0, left))
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        if task.done():
            return task.result()
        self.is_over = True
        task.cancel()
        task.add_done_callback(_forget)
        raise RequestTimeoutError(self._timeout)


def _forget(task: "asyncio.Task[Any]") -> None:
    """Nobody wants to know what it has come to."""
    if not task.cancelled():
        task.exception()


class CallReplica(Replica):
    """One that answers requests with what a function or method returns."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answer an HTTP request, or a call by a handle that is Ray's own."""
        if len(args) == 1 and isinstance(args[0], Request) and self._application is not None:
            return _Through(Front(self._application, self._timeout))
        return await self.loadshed_call(None, *args, **kwargs)


class _Through(Response):
    """What has Ray hand the request on: Ray calls a response with the rest of it."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


class _Ingress(Replica):
    """One whose requests an ASGI application answers."""

    def __init__(self, code: Code, request_timeout_s: float | None) -> None:
        super().__init__(code, request_timeout_s)
        _fronts.append(Front(self._application, request_timeout_s))


_fronts: list[Any] = []


def _front() -> Any:
    """The application of the replica that was just made."""
    return _fronts.pop()


IngressReplica: Any = ray.serve.ingress(_front)(_Ingress)
"""The same, as Ray wants to have it."""


class Front:
    """In front of an application: its lifespan, the time that a request may take, and errors.

    Args:
        application: The ASGI application.
        request_timeout_s: Seconds that each request may take.
    """

    def __init__(self, application: Any, request_timeout_s: float | None) -> None:
        self._application = application
        self._timeout = request_timeout_s
        self._state: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if self._state is not None:
            scope["state"] = self._state.copy()
        answer = _Answer(send)
        try:
            await self._serve(scope, receive, answer)
        except LoadShedError as error:
            status = status_of(error)
            if status is None or answer.started or scope["type"] != "http":
                raise
            await problem(status, error)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        lifespan = Lifespan(self._application)
        try:
            await lifespan.start()
        except RuntimeError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self._state = lifespan.state
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await lifespan.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        work = self._application(scope, receive, answer.send)
        if self._timeout is None or scope["type"] != "http":
            await work
            return
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task}, timeout=self._timeout)
            if not (task.done() or answer.complete):
                await self._end(task, scope, receive, answer)
                return
        except asyncio.CancelledError:
            task.cancel()
            raise
        await task

    async def _end(
        self, task: "asyncio.Task[None]", scope: Scope, receive: Receive, answer: "_Answer"
    ) -> None:
        """Answer at once, and hold the place until it has really ended, threads too."""
        error = RequestTimeoutError(self._timeout or 0)
        was_started = answer.started
        answer.close()
        if not was_started:
            await problem(504, error)(scope, receive, answer.send_last)
        task.cancel()
        await asyncio.wait({task})
        _forget(task)
        if was_started:
            raise error  # all that is left is to break the connection off


class _Answer:
    """What was sent in answer to a request so far.

    Args:
        send: Sends it.

    Attributes:
        started: Whether it has begun.
        complete: Whether that was all.
        send_last: Sends what is no longer the application's.
    """

    def __init__(self, send: Send) -> None:
        self.send_last = send
        self.started = False
        self.complete = False
        self._is_closed = False

    async def send(self, message: Message) -> None:
        """Send what the application sends."""
        if self._is_closed:
            return
        self.started = True
        self.complete = message["type"] in LAST and not message.get("more_body", False)
        await self.send_last(message)

    def close(self) -> None:
        """From now on, what the application sends is lost."""
        self._is_closed = True
