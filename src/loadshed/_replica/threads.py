"""Threads: where functions run that are not async."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Semaphore, Thread

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

    def _serve(self) -> None:
        while True:
            finish = self._work.get()()
            self._idle.release()
            finish()
            del finish  # an idle thread keeps no result
