"""An async function, or async generator, with a permit around each call."""

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

MakeManager = Callable[[], AbstractAsyncContextManager[None]]


def around(manager: MakeManager, function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter what `manager` makes for the length of each call of `function`.

    Raises:
        TypeError: The function is not async.
    """
    if _is(inspect.isasyncgenfunction, function):
        return _around_generator(manager, function)
    if is_async(function):
        return _around_coroutine(manager, function)
    raise TypeError(
        f"{function!r} is not async, so a limiter can't wait in it. Make it an async function, "
        f"or call it in a thread: `async with limiter: await anyio.to_thread.run_sync(...)`. "
        f"On a class or static method the limiter's line goes below the other decorator's."
    )


def is_async(function: Any) -> bool:
    """Whether it is an async function, or an object that is called like one."""
    return _is(inspect.iscoroutinefunction, function)


def _is(test: Callable[[Any], bool], function: Any) -> bool:
    """Whether `test` holds for a function, or for the `__call__` of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    return test(function) or test(type(function).__call__)


def _around_coroutine(
    manager: MakeManager, function: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> Any:
        async with manager():
            return await function(*args, **kwargs)

    return limited


def _around_generator(
    manager: MakeManager, function: Callable[..., AsyncGenerator[Any, Any]]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def limited(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async with manager(), aclosing(function(*args, **kwargs)) as generator:
            try:
                item = await anext(generator)
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 - it is the generator's
                        item = await generator.athrow(error)
                    else:
                        item = await generator.asend(sent)
            except StopAsyncIteration:
                return

    return limited
