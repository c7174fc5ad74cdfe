"""Watch: whether a replica can still be trusted."""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from loadshed._policy.health import Health
from loadshed._policy.wire import Kind
from loadshed._pool.replica import Replica

STUCK = 1.0
"""Seconds beyond `request_timeout_s` after which threads that have not returned count as stuck."""


class Watch:
    """Gives a replica up that fails its health checks, or is stuck.

    Args:
        replica: The replica, from when it is ready.
        tasks: Ends with the replica.
    """

    def __init__(self, replica: Replica, tasks: TaskGroup) -> None:
        self._replica = replica
        self._tasks = tasks
        self._scopes: list[anyio.CancelScope] = []
        self._how: tuple[float | None, ...] = (None, None, None)  # not at all

    def begin(
        self, *, period: float | None, timeout: float | None, request_timeout_s: float | None
    ) -> None:
        """Look after it in this way from now on.

        Args:
            period: Seconds between two health checks; None is never.
            timeout: Seconds that one may take; None is for ever.
            request_timeout_s: Seconds that a request may take; None is for ever.
        """
        if (period, timeout, request_timeout_s) == self._how:
            return
        self._how = period, timeout, request_timeout_s
        for scope in self._scopes:
            scope.cancel()
        self._scopes.clear()
        if period is not None:
            self._start(self._check_health, period, timeout)
        if request_timeout_s is not None:
            self._start(self._look_for_stuck, request_timeout_s)

    def _start(self, work: Callable[..., Awaitable[None]], *args: float | None) -> None:
        scope = anyio.CancelScope()
        self._scopes.append(scope)
        self._tasks.start_soon(self._run, scope, work, args)

    async def _run(
        self,
        scope: anyio.CancelScope,
        work: Callable[..., Awaitable[None]],
        args: tuple[float | None, ...],
    ) -> None:
        with scope:
            await work(*args)

    async def _check_health(self, period: float, timeout: float | None) -> None:
        """Ask it again and again whether it is well: a task."""
        health = Health()
        while True:
            await anyio.sleep(period)
            failure = await self._check(timeout)
            if failure is None:
                health.passed()
                continue
            health.failed()
            if health.is_unhealthy:
                self._replica.give_up(f"its health checks failed ({failure})")
                return

    async def _check(self, timeout: float | None) -> str | None:
        """Why the health check failed; None where it did not."""
        try:
            with anyio.fail_after(timeout):
                await self._replica.ask(Kind.CHECK)
        except TimeoutError:
            return f"no answer within {timeout} s"
        except Exception as error:  # noqa: BLE001 - whatever `check_health` raises
            return repr(error)
        return None

    async def _look_for_stuck(self, request_timeout_s: float) -> None:
        """Look whether all that it does is for callers who have gone, for far too long: a task."""
        while True:  # it may be so already, where it was looked after in another way before
            while (busy := self._replica.seconds_in_vain) is not None:
                left = request_timeout_s + STUCK - busy
                if left <= 0:
                    self._replica.give_up(
                        f"every thread was busy for {request_timeout_s} s with a request"
                    )
                    return
                await anyio.sleep(left)
            await self._replica.next_desertion()
