"""Block: the time in which a pool runs."""

import os

import anyio

from loadshed._pool.crew import Crew
from loadshed._pool.outward import Peers
from loadshed._pool.plan import Plan
from loadshed._pool.slots import Refusal, Slots


class Block:
    """What there is of a pool from when `async with` is entered until it is left.

    Args:
        slots: Where requests find their replicas.
        plan: What the replicas are.
        closed: What those are told that come when it is left.
        peers: The pools that the replicas may call.

    Attributes:
        crew: The replicas.
        lock: Held by whoever changes them.
    """

    def __init__(self, slots: Slots, plan: Plan, closed: Refusal, peers: Peers) -> None:
        self._slots = slots
        self._closed = closed
        self._grace = plan.grace
        self._lifeline = os.pipe()
        self._tasks = anyio.create_task_group()
        self.lock = anyio.Lock()
        self.crew = Crew(self._tasks, slots, plan, self._lifeline[0], peers)

    async def enter(self, count: int) -> None:
        """Start so many replicas. Where that fails, nothing is left of them."""
        await self._tasks.__aenter__()
        try:
            async with self.lock:
                await self.crew.open(count)
        except BaseException:
            await self._end()
            raise

    def look_after(self, plan: Plan) -> None:
        """Look after the replicas in another way."""
        self._grace = plan.grace
        self.crew.adopt(plan)

    async def leave(self, *, serve_queue: bool) -> None:
        """Let those be served that came, then end all replicas.

        Args:
            serve_queue: Whether those are served as well that wait.
        """
        try:
            with anyio.CancelScope(shield=True):
                await self._drain(serve_queue=serve_queue)
        except BaseException:  # a second Ctrl-C
            self.crew.kill()
            raise
        finally:
            await self._end()

    async def _drain(self, *, serve_queue: bool) -> None:
        deadline = anyio.current_time() + self._grace
        self._slots.refuse(self._closed)
        if not serve_queue:
            self._slots.dismiss(self._closed)
        with anyio.CancelScope(deadline=deadline):
            await self._slots.empty()
        self._slots.dismiss(self._closed)
        await self.crew.close(deadline)

    async def _end(self) -> None:
        """However it came: nothing goes on, and nothing is left."""
        try:
            self.crew.cancel()
            self._tasks.cancel_scope.cancel()
            # It is told of no exception: what was raised in the block leaves it as it is.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._slots.dismiss(self._closed)
            for end in self._lifeline:
                os.close(end)
