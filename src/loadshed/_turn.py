"""What happens to a request of an ASGI server while it waits for its turn."""

from collections.abc import Awaitable, Callable

import anyio

from loadshed._exchange import Exchange
from loadshed._read_ahead import ReadAhead
from loadshed._waiter import Waiter


async def in_turn(waiter: Waiter, exchange: Exchange, serve: Callable[[], Awaitable[None]]) -> None:
    """Call `serve` once `waiter` has its permit, unless the client leaves before.

    The permit is for `serve` to give back.
    """

    def has_left() -> None:
        exchange.has_left = True

    inbox = ReadAhead(exchange.receive, has_left)
    exchange.receive = inbox.receive
    granted = False
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inbox.read)
            try:
                granted = await inbox.outlasts(exchange.limiter._wait(waiter))
                if granted:
                    exchange.is_granted(waiter)
                    await serve()
            except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
                failure = error  # raised below as it is, not wrapped by the task group
            # Not in a `finally`: whoever cancels this task cancels the reader as well.
            tasks.cancel_scope.cancel()
    finally:
        if not granted:
            exchange.limiter._abandon(waiter)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # it refers to this frame
