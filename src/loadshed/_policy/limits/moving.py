"""What all limits that move have in common: bounds, and a reason."""

from loadshed._policy.settings import whole_number

LARGEST = 2**52
"""What `math.inf` comes to: so far a float knows every half, and nothing overflows."""


class MovingLimit:
    """A limit that moves between bounds, and can say why it last did.

    Attributes:
        limit: How many may be ongoing now.

    Args:
        initial: The limit to begin with.
        lowest: The limit is never below this.
        highest: The limit is never above this; `math.inf` where it may be anything.

    Raises:
        ConfigError: Not 1 <= lowest <= initial <= highest, or no whole numbers.
    """

    __slots__ = ("_formerly", "_highest", "_lowest", "_why", "limit")

    def __init__(self, initial: int, lowest: int, highest: float) -> None:
        least = int(whole_number("lowest", lowest, at_least=1, infinite=False))
        most = whole_number("highest", highest, at_least=least)
        first = whole_number("initial", initial, at_least=least, at_most=most, infinite=False)
        self.limit = int(min(first, LARGEST))
        self._lowest = min(least, LARGEST)
        self._highest = int(min(most, LARGEST))
        self._formerly = self.limit
        self._why = ""  # with places for the numbers: they are filled in where somebody asks

    @property
    def reason(self) -> str:
        """Why the limit last moved, in a few words for people; "" where it never did."""
        return self._why.format(old=self._formerly, new=self.limit)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(limit={self.limit}, reason={self.reason!r})"

    def _clamped(self, limit: float) -> float:
        return max(self._lowest, min(self._highest, limit))

    def _set(self, limit: int, why: str) -> None:
        if limit != self.limit:
            self._formerly, self.limit, self._why = self.limit, limit, why
