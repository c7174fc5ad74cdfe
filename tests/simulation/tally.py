"""Tally: what came of a run, second by second."""


class Tally:
    """Counts for each second of a run.

    Attributes:
        arrived: How many requests came, retries not counted.
        good: How many were answered before their client gave up.
        limits: The limit at the second's end; of several fronts, their sum.
    """

    __slots__ = ("arrived", "good", "limits")

    def __init__(self, seconds: int) -> None:
        self.arrived = [0] * seconds
        self.good = [0] * seconds
        self.limits: list[float] = []
