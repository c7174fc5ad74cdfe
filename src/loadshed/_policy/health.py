"""When a replica counts as unhealthy."""

THRESHOLD = 3
"""Health checks in a row that fail before a replica is given up: Ray Serve's default
(`ray/serve/_private/constants.py`, `REPLICA_HEALTH_CHECK_UNHEALTHY_THRESHOLD`)."""


class Health:
    """The last health checks of one replica."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures = 0

    @property
    def is_unhealthy(self) -> bool:
        """Whether so many in a row failed."""
        return self._failures >= THRESHOLD

    def passed(self) -> None:
        """It is well."""
        self._failures = 0

    def failed(self) -> None:
        """It is not, or didn't answer in time."""
        self._failures += 1
