"""How often something happened lately."""

STEPS = 10
"""A window is forgotten in so many steps, as Finagle's `WindowedAdder` and Polly's metrics do."""


class Window:
    """A count over the last `seconds`, in constant time and memory.

    What happened is forgotten a tenth of the window at a time, so a count reaches back between
    nine tenths of the window and the whole of it. Time that goes back stands still.
    """

    __slots__ = ("_counts", "_step", "_total", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = max(seconds / STEPS, 1e-9)  # of less the steps can't be counted
        self._step = -1
        self._counts = [0] * STEPS
        self._total = 0

    def add(self, now: float) -> None:
        """It happened."""
        if (step := int(now / self._width)) > self._step:
            self._move_on(step)
        self._counts[self._step % STEPS] += 1
        self._total += 1

    def total(self, now: float) -> int:
        """How often it happened."""
        if (step := int(now / self._width)) > self._step:
            self._move_on(step)
        return self._total

    def _move_on(self, step: int) -> None:
        for gone in range(max(self._step + 1, step - STEPS + 1), step + 1):
            self._total -= self._counts[gone % STEPS]
            self._counts[gone % STEPS] = 0
        self._step = step
