"""Standings: what requests are to a limiter, as their scopes say."""

from collections.abc import Callable
from typing import Any

from loadshed._around import is_async
from loadshed._errors import ConfigError
from loadshed._limits import class_of, cost_of, tenant_of
from loadshed._policy.criticality import Criticality, read_criticality
from loadshed._policy.settings import yes_or_no
from loadshed._policy.standing import USUAL, Standing

Of = Callable[[Any], Any]


class Standings:
    """Finds the standing of requests.

    Args:
        priority: Is given the scope; returns a `Criticality`, the name of one, or None.
        trust_criticality: Whether callers may say in a header what class a request is of, where
            `priority` does not.
        tenant: Is given the scope; returns whose request it is: anything hashable.
        cost: How many slots a request takes, or what is given the scope and returns that.

    Attributes:
        believed: Requests so far whose class was taken from the header.
        ignored: Requests so far with a header that names no class.

    Raises:
        ConfigError: One is not what it may be.
    """

    __slots__ = ("_cost", "_priority", "_tenant", "_trust", "are_usual", "believed", "ignored")

    def __init__(
        self,
        *,
        priority: Of | None = None,
        trust_criticality: bool = False,
        tenant: Of | None = None,
        cost: Of | int = 1,
    ) -> None:
        self._priority = _callable("priority", priority)
        self._trust = yes_or_no("trust_criticality", trust_criticality)
        self._tenant = _callable("tenant", tenant)
        self._cost = cost if callable(cost) and not is_async(cost) else cost_of(cost)
        self.believed = self.ignored = 0
        self.are_usual = (priority, tenant, cost) == (None, None, 1) and not trust_criticality

    def of(self, scope: Any) -> Standing:
        """What a request is to the limiter.

        Raises:
            ConfigError: What a callable returned is not what it may be.
        """
        if self.are_usual:
            return USUAL
        return Standing(
            self._class_of(scope),
            None if self._tenant is None else tenant_of(self._tenant(scope)),
            cost_of(self._cost(scope)) if callable(self._cost) else self._cost,
        )

    def _class_of(self, scope: Any) -> Criticality:
        said = None if self._priority is None else self._priority(scope)
        if said is not None:
            return class_of(said)
        if self._trust:
            headers = scope.get("headers", ())
            criticality, ignored = read_criticality(headers)
            self.ignored += ignored
            if criticality is not None:
                self.believed += 1
                return criticality
        return Criticality.CRITICAL


def _callable(setting: str, value: Of | None) -> Of | None:
    if value is not None and (is_async(value) or not callable(value)):
        raise ConfigError(setting, value, "a callable that is not async, or None")
    return value
