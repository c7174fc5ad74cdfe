"""`retry` for async functions."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from tenacity import AsyncRetrying

from loadshed._clock import SharedClock
from loadshed.client._call import Call, Raised, Retried
from loadshed.client._deadline import reset, within


def around_async(
    function: Callable[..., Awaitable[Any]], retried: Retried
) -> Callable[..., Awaitable[Any]]:
    """An async function that is called again as the policy says."""
    clock = SharedClock()

    @functools.wraps(function)
    async def calling(*args: Any, **kwargs: Any) -> Any:
        call = Call(retried, clock.now)

        async def attempt() -> Any:
            seconds = call.begin()
            if seconds <= 0:
                return call.too_late()
            try:
                with anyio.fail_after(seconds):
                    return await function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the policy says what follows
                return call.failed(error)

        token = within(retried.deadline, clock.now())
        try:
            outcome = await attempt()
            if isinstance(outcome, Raised):
                outcomes = [outcome]

                async def next_outcome() -> Any:
                    return outcomes.pop() if outcomes else await attempt()

                loop = AsyncRetrying(
                    sleep=anyio.sleep,
                    wait=lambda _: call.delay,
                    retry=call.is_tried_again,
                )
                return call.given(await loop(next_outcome))
            return outcome
        finally:
            reset(token)

    return calling
