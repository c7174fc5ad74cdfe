"""Race: one request that is under way several times, of which the first answer counts."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from loadshed._clock import Clock
from loadshed.client._async_received import aclose
from loadshed.client._exchange import Exchange, Outcome
from loadshed.client._guards import Hedge
from loadshed.client._sending import Sending

CarryOut = Callable[[Exchange, Sending], Awaitable[Outcome]]


class Race:
    """The attempts at one request that run side by side.

    A failure ends the race only where no other attempt is under way: what is done about failures is
    the retry's business, around this.
    """

    def __init__(self, hedge: Hedge, exchange: Exchange, clock: Clock) -> None:
        self._hedge = hedge
        self._exchange = exchange
        self._clock = clock
        self._under_way = 1
        self._over = anyio.Event()
        self._best: Outcome = None
        self._error: BaseException | None = None

    async def run(self, carry_out: CarryOut) -> Outcome:
        """Begin with one, add others with the hedge's delay in between; the outcome that counts."""
        # Not in its task: a hedge with no delay must not come before it.
        now = self._clock.now()
        sending = self._exchange.begin(now)
        if sending is None:
            return self._exchange.refused(now)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run, partial(carry_out, self._exchange, sending))
                for _ in range(self._hedge.max_hedged_attempts):
                    with anyio.move_on_after(self._hedge.delay):
                        await self._over.wait()
                    sending = self._another()
                    if sending is None:
                        break
                    self._under_way += 1
                    tasks.start_soon(self._run, partial(carry_out, self._exchange, sending))
                await self._over.wait()
                tasks.cancel_scope.cancel()  # the losers
        except BaseException:
            # Perhaps there was an outcome in the very step in which all of them were cancelled.
            await self._drop(self._best)
            raise
        self._exchange.held = self._best
        if self._error is not None:
            raise self._error
        return self._best

    def _another(self) -> Sending | None:
        if self._over.is_set():
            return None
        try:
            return self._exchange.hedge(self._clock.now())
        except BaseException as error:  # noqa: BLE001 - see `_break_off`
            self._break_off(error)
            return None

    async def _run(self, attempt: Callable[[], Awaitable[Outcome]]) -> None:
        try:
            outcome = await attempt()
        except BaseException as error:
            if self._over.is_set():
                raise
            self._break_off(error)
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            return
        self._under_way -= 1
        if self._over.is_set():
            await self._drop(outcome)  # it came in the same step as the winner
            return
        worse, self._best = self._best, outcome
        try:
            if self._under_way == 0 or not self._exchange.is_failure(outcome):
                self._over.set()
        except BaseException as error:  # noqa: BLE001 - see `_break_off`
            self._break_off(error)
        await self._drop(worse)  # now that it is decided: others may come in while this waits

    def _break_off(self, error: BaseException) -> None:
        """End it with what is no outcome: `run` raises it, and not in a group.

        A function of the user's raised it, or a transport what is no Exception.
        """
        self._error = error
        self._over.set()

    async def _drop(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Exception | None):
            await aclose(outcome)
