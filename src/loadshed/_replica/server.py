"""Server: what a replica does with the frames that it gets."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing, closing, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any

from loadshed._failure import not_picklable
from loadshed._policy.scope import scope_of
from loadshed._policy.wire import Buffer, Frame, Kind
from loadshed._replica.application import Lifespan, Request
from loadshed._replica.channel import Channel, answer, failure
from loadshed._replica.outward import Outward
from loadshed._replica.streams import AsyncStream, ThreadStream
from loadshed._replica.target import Method, Target
from loadshed._replica.threads import Finish, Threads

BEGIN = frozenset({Kind.CALL, Kind.STREAM, Kind.ASGI, Kind.CHECK, Kind.RECONFIGURE})
"""The kinds of frame that are answered."""

FEW = 4
"""Calls below which each answer is sent at once: so few are seldom in the same turn of the event
loop, and to wait for its end takes longer than a system call."""


class Caller:
    """Who waits for what runs in a thread."""

    __slots__ = ("has_left",)

    def __init__(self) -> None:
        self.has_left = False


class Server:
    """Runs calls: async ones as tasks of this event loop, the others in threads.

    How many there are at a time is for the pool to say. Each is answered exactly once, whatever
    happens, as the pool counts on that.

    Args:
        channel: Where the answers go.
        target: What is called.

    Attributes:
        stopped: Set when the pool has said that it wants nothing more.
        outward: Makes calls of other pools.
    """

    def __init__(self, channel: Channel, target: Target) -> None:
        self._channel = channel
        self._target = target
        self._threads = Threads()
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, AsyncStream | ThreadStream] = {}
        self._callers: dict[int, Caller] = {}
        self.stopped = asyncio.Event()
        self.outward = Outward(channel)
        self._lifespan = Lifespan(target.application)
        self._configuring = asyncio.Lock()
        self._handlers: dict[int, Callable[[Frame], None]] = {
            Kind.CALL: self._call,
            Kind.STREAM: self._stream,
            Kind.ASGI: self._request,
            Kind.MESSAGE: self._message,
            Kind.CANCEL: self._cancel,
            Kind.ACK: self._acknowledge,
            Kind.CHECK: self._check,
            Kind.RECONFIGURE: self._reconfigure,
            Kind.STOP: self._stop,
            Kind.IN_RESULT: self.outward.handle,
            Kind.IN_ERROR: self.outward.handle,
            Kind.IN_ITEM: self.outward.handle,
        }

    async def begin(self, config: tuple[Any, ...]) -> None:
        """Hand the first `user_config` to the target, and start the application."""
        if config:
            await self._configure(self._target.reconfiguring(*config), *config)
        if self._target.application is not None:
            await self._lifespan.start()

    async def end(self) -> None:
        """Let the application end, where the target is one."""
        await self._lifespan.stop()

    def handle(self, frame: Frame) -> None:
        """Do what a frame says."""
        try:
            self._handlers[frame.kind](frame)
        except BaseException as error:
            if frame.kind not in BEGIN:
                raise
            self._channel.send(failure(frame.call, error))

    def _call(self, frame: Frame) -> None:
        self._run(frame.call, *self._look_up(frame))

    def _look_up(self, frame: Frame) -> tuple[Method, tuple[Any, ...], dict[str, Any]]:
        """What to call, and with what."""
        try:
            name, args, kwargs = frame.value()
        except Exception as error:
            raise not_picklable("The arguments", error) from error
        return self._target.find(name), args, kwargs

    def _run(
        self,
        call: int,
        method: Method,
        args: tuple[Any, ...] = (),
        kwargs: Any = MappingProxyType({}),
    ) -> None:
        if method.is_async:
            self._start(call, self._await(call, method.function, args, kwargs))
        else:
            caller = self._callers[call] = Caller()
            work = partial(self._in_thread, caller, call, method.function, args, kwargs)
            self._threads.run(work)

    def _start(self, call: int, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[call] = self._loop.create_task(work)

    # Whatever is raised in these is the caller's: SystemExit as well.

    async def _await(
        self, call: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            result = function(*args, **kwargs)
            if _is_awaitable(result):
                result = await result
            parts = answer(call, result)
        except BaseException as error:  # noqa: BLE001
            parts = failure(call, error)
        del self._tasks[call]
        self._channel.send_soon(parts, now=len(self._tasks) < FEW)

    def _in_thread(
        self,
        caller: Caller,
        call: int,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Finish:
        try:
            result = function(*args, **kwargs)
            if _is_awaitable(result):  # an async function in the clothes of another
                rest = self._await(call, lambda: result, (), {})
                return partial(self._loop.call_soon_threadsafe, self._go_on, caller, call, rest)
            parts = answer(call, result)
        except BaseException as error:  # noqa: BLE001
            parts = failure(call, error)
        del self._callers[call]
        return partial(self._channel.send, parts)

    def _go_on(self, caller: Caller, call: int, rest: Coroutine[Any, Any, None]) -> None:
        """What began in a thread goes on in the event loop."""
        del self._callers[call]
        self._start(call, rest)
        if caller.has_left:
            self._cancel_task(call)

    def _stream(self, frame: Frame) -> None:
        call = frame.call
        method, args, kwargs = self._look_up(frame)
        make = partial(method.function, *args, **kwargs)
        if method.is_async:
            self._produce(call, make)
        else:
            stream = self._streams[call] = ThreadStream(self._channel, call)
            self._threads.run(partial(self._produce_in_thread, stream, make))

    def _produce(self, call: int, make: Callable[[], Any]) -> None:
        stream = self._streams[call] = AsyncStream(self._channel, call)
        self._start(call, self._produce_async(stream, make))

    async def _produce_async(self, stream: AsyncStream, make: Callable[[], Any]) -> None:
        try:
            items = make()
            if _is_awaitable(items):
                items = await items
            _check_generator(items, "__anext__")
            async with aclosing(items) if hasattr(items, "aclose") else nullcontext():
                async for item in items:
                    await stream.send(item)
            parts = answer(stream.call, None)
        except BaseException as error:  # noqa: BLE001
            parts = failure(stream.call, error)
        self._end_task(stream.call, parts)

    def _produce_in_thread(self, stream: ThreadStream, make: Callable[[], Any]) -> Finish:
        call = stream.call
        try:
            items = make()
            if hasattr(items, "__anext__"):
                rest = partial(self._go_on_producing, stream, lambda: items)
                return partial(self._loop.call_soon_threadsafe, rest)
            _check_generator(items, "__next__")
            with closing(items) if hasattr(items, "close") else nullcontext():
                for item in items:
                    if not stream.send(item):
                        break
            parts = answer(call, None)
        except BaseException as error:  # noqa: BLE001
            parts = failure(call, error)
        del self._streams[call]
        return partial(self._channel.send, parts)

    def _go_on_producing(self, stream: ThreadStream, make: Callable[[], Any]) -> None:
        self._produce(stream.call, make)
        if stream.has_left:
            self._cancel_task(stream.call)

    def _request(self, frame: Frame) -> None:
        call = frame.call
        request = self._streams[call] = Request(self._channel, call)
        self._start(call, self._serve(request, frame))

    async def _serve(self, request: Request, frame: Frame) -> None:
        try:
            self._check_application()
            scope = scope_of(frame.value())
            request.type = scope["type"]
            scope["state"] = self._lifespan.state.copy()
            await self._target.application(scope, request.receive, request.send)
            failed: BaseException | None = None
        except BaseException as error:  # noqa: BLE001
            failed = error
        del self._tasks[request.call], self._streams[request.call]
        request.end(failed, now=len(self._tasks) < FEW)

    def _check_application(self) -> None:
        if self._target.application is None:
            raise TypeError("The target is no ASGI application: (scope, receive, send).")

    def _end_task(self, call: int, parts: list[Buffer]) -> None:
        del self._tasks[call], self._streams[call]
        self._channel.send_soon(parts, now=len(self._tasks) < FEW)

    def _message(self, frame: Frame) -> None:
        request = self._streams.get(frame.call)
        if isinstance(request, Request):
            request.came(frame.value())
        # Else it ended while the message was under way.

    def _acknowledge(self, frame: Frame) -> None:
        stream = self._streams.get(frame.call)
        if stream is not None:
            stream.acknowledge(frame.value())

    def _cancel(self, frame: Frame) -> None:
        stream = self._streams.get(frame.call)
        if isinstance(stream, ThreadStream):
            stream.leave()
        if (caller := self._callers.get(frame.call)) is not None:
            caller.has_left = True
        if frame.call in self._tasks:
            self._cancel_task(frame.call)

    def _cancel_task(self, call: int) -> None:
        # Not at once: a task that is cancelled before it began never runs, so never answers.
        self._loop.call_soon(self._tasks[call].cancel)

    def _check(self, frame: Frame) -> None:
        if not self._target.has("check_health"):
            self._channel.send(answer(frame.call, None))
            return
        method = self._target.find("check_health")
        self._run(frame.call, method)

    def _reconfigure(self, frame: Frame) -> None:
        try:
            config = frame.value()
        except Exception as error:
            raise not_picklable("The user_config", error) from error
        method = self._target.reconfiguring(config)
        self._start(frame.call, self._await(frame.call, self._configure, (method, config), {}))

    async def _configure(self, method: Method, config: object) -> None:
        """One after the other, as they came: what came last is what it has in the end."""
        async with self._configuring:
            if method.is_async:
                result = method.function(config)
            else:
                result = await self._threads.call(
                    partial(method.function, config), unless=self.stopped.is_set
                )
            if _is_awaitable(result):
                await result

    def _stop(self, frame: Frame) -> None:
        self.stopped.set()


def _is_awaitable(value: object) -> bool:
    return hasattr(type(value), "__await__")


def _check_generator(value: object, advance: str) -> None:
    if not hasattr(value, advance):
        raise TypeError(
            "`stream` is for generators, and this returned a value of type "
            f"{type(value).__name__}: use `call`."
        )
