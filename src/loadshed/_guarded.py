"""GuardedLimit: a limit of somebody else's, whose mistakes cost no permit."""

import logging

from loadshed._policy.limits.limit import FixedLimit, Limit
from loadshed._policy.limits.moving import MovingLimit

_logger = logging.getLogger("loadshed")


class GuardedLimit:
    """A limit that may raise, and say nonsense: then the last one that was sound holds.

    A permit comes back in the same step in which the limit learns from it. So an error there, or a
    limit of which nobody could have a permit ever again, would leave those who wait where they are.

    Args:
        rule: The limit; what it says now is sound.

    Attributes:
        rule: The same.
    """

    __slots__ = ("_has_told", "_sound", "rule")

    def __init__(self, rule: Limit) -> None:
        self.rule = rule
        self._sound = rule.limit
        self._has_told = False

    @property
    def limit(self) -> float:
        """What it says, or said last that was sound."""
        try:
            limit = self.rule.limit
            if limit >= 1:
                self._sound = limit
            else:
                self._tell("said %r, which is no limit", limit)
        except Exception as error:  # noqa: BLE001 - whatever it is, the permits are not to blame
            self._tell("failed: %r", error, error)
        return self._sound

    @property
    def reason(self) -> str:
        """Why it last changed, as it says; "" where it can't."""
        try:
            return self.rule.reason
        except Exception as error:  # noqa: BLE001 - as above
            self._tell("failed: %r", error, error)
            return ""

    def observe(self, now: float, seconds: float, ok: bool, ongoing: float) -> None:
        """Let it learn, if it can."""
        try:
            self.rule.observe(now, seconds, ok, ongoing)
        except Exception as error:  # noqa: BLE001 - as above
            self._tell("failed: %r", error, error)

    def __repr__(self) -> str:
        return repr(self.rule)

    def _tell(self, what: str, value: object, error: Exception | None = None) -> None:
        """Say so in the log, once: it may go on with every request."""
        if not self._has_told:
            self._has_told = True
            message = f"The limit %r {what}. It stays as it was."
            _logger.error(message, self.rule, value, exc_info=error)


def guarded(rule: Limit) -> Limit:
    """The same, guarded where it is somebody else's."""
    is_sound = isinstance(rule, FixedLimit | MovingLimit | GuardedLimit)
    return rule if is_sound else GuardedLimit(rule)


def unguarded(rule: Limit) -> Limit:
    """The limit itself."""
    return rule.rule if isinstance(rule, GuardedLimit) else rule
