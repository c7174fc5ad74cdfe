"""Threads: where functions run that are not async."""

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any

Finish = Callable[[], object]


class Threads:
    """As many threads as there is work at a time, made when they are first needed.

    The pool bounds how many calls there are. They are daemons: a function that never returns must
    not keep the process from ending.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], Finish]] = SimpleQueue()
        self._idle = Semaphore(0)

    def run(self, work: Callable[[], Finish]) -> None:
        """Run `work` in a thread.

        It returns what is done when the thread counts as free again: the answer. Else the next
        call could come before that, and get one thread more.
        """
        if not self._idle.acquire(blocking=False):
            Thread(target=self._serve, daemon=True, name="loadshed call").start()
        self._work.put(work)

    async def call(
        self, function: Callable[[], Any], *, unless: Callable[[], bool] = lambda: False
    ) -> Any:
        """What a function returns that runs in a thread.

        Who is cancelled waits for it too, however often: what it works with is in use until then.

        Args:
            function: What to call.
            unless: Whether all is to end, and who is cancelled does not wait.
        """
        loop = asyncio.get_running_loop()
        returned = asyncio.Event()
        result, failure = None, None

        def work() -> Finish:
            nonlocal result, failure
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is raised below
                failure = error
            return tell

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: all has ended
                loop.call_soon_threadsafe(returned.set)

        self.run(work)
        cancelled: asyncio.CancelledError | None = None
        while not returned.is_set():
            try:
                await returned.wait()
            except asyncio.CancelledError as error:
                cancelled = error
                if unless():
                    break
        if cancelled is not None:
            raise cancelled
        if failure is not None:
            raise failure
        return result

    def _serve(self) -> None:
        while True:
            finish = self._work.get()()
            self._idle.release()
            finish()
            del finish  # an idle thread keeps no result
