"""Watch: whether a replica can still be trusted."""

import anyio

from loadshed._policy.health import Health
from loadshed._policy.wire import Kind
from loadshed._pool.replica import Replica

STUCK = 1.0
"""Seconds beyond `request_timeout_s` after which threads that have not returned count as stuck."""


class Watch:
    """Gives a replica up that fails its health checks, or is stuck.

    Args:
        replica: The replica, from when it is ready.
        period: Seconds between two health checks; None is never.
        timeout: Seconds that one may take; None is for ever.
        request_timeout_s: Seconds that a request may take; None is for ever.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        period: float | None,
        timeout: float | None,
        request_timeout_s: float | None,
    ) -> None:
        self._replica = replica
        self._period = period
        self._timeout = timeout
        self._request_timeout = request_timeout_s
        self._health = Health()

    async def check_health(self) -> None:
        """Ask it again and again whether it is well: a task."""
        while self._period is not None:
            await anyio.sleep(self._period)
            failure = await self._check()
            if failure is None:
                self._health.passed()
                continue
            self._health.failed()
            if self._health.is_unhealthy:
                self._replica.give_up(f"its health checks failed ({failure})")
                return

    async def _check(self) -> str | None:
        """Why the health check failed; None where it did not."""
        try:
            with anyio.fail_after(self._timeout):
                await self._replica.ask(Kind.CHECK)
        except TimeoutError:
            return f"no answer within {self._timeout} s"
        except Exception as error:  # noqa: BLE001 - whatever `check_health` raises
            return repr(error)
        return None

    async def look_for_stuck(self) -> None:
        """Look whether all that it does is for callers who have gone, for far too long: a task."""
        while self._request_timeout is not None:
            await self._replica.next_desertion()
            while (busy := self._replica.seconds_in_vain) is not None:
                left = self._request_timeout + STUCK - busy
                if left <= 0:
                    self._replica.give_up(
                        f"every thread was busy for {self._request_timeout} s with a request"
                    )
                    return
                await anyio.sleep(left)
