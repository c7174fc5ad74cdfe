"""What a limiter is given for its limit, its order and its classes: checked, or chosen for it."""

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from loadshed._errors import ConfigError, ReplicaUnavailableError
from loadshed._guarded import guarded
from loadshed._policy.admission import Order
from loadshed._policy.criticality import Criticality, criticality_of
from loadshed._policy.limits.knee import KneeLimit
from loadshed._policy.limits.limit import FixedLimit, Limit
from loadshed._policy.limits.moving import LARGEST
from loadshed._policy.settings import whole_number
from loadshed._policy.standing import Standing

INITIAL = 10
"""What a limit that is found begins with, unless its bounds forbid it."""

A_LIMIT = "a whole number >= 1, or math.inf, or a Limit, or None for one that is found"
SHARES = "a mapping of Criticality to parts above 0, together 1 at most, or None"


def limit_of(value: object, *, lowest: object = None, highest: object = None) -> Limit:
    """The rule that is asked for; none is `KneeLimit`, between these bounds.

    Raises:
        ConfigError: One is not what it may be.
    """
    if value is None:
        given = {"lowest": lowest, "highest": highest}
        bounds: dict[str, Any] = {name: each for name, each in given.items() if each is not None}
        least, most = bounds.get("lowest", 1), bounds.get("highest", math.inf)
        return KneeLimit(_initial(least, most), **bounds)
    for name, bound in (("lowest", lowest), ("highest", highest)):
        if bound is not None:
            raise ConfigError(name, bound, "left out where max_ongoing_requests is given")
    if isinstance(value, int | float):
        try:
            return FixedLimit(whole_number("max_ongoing_requests", value, at_least=1))
        except ConfigError:
            raise ConfigError("max_ongoing_requests", value, A_LIMIT) from None
    if isinstance(value, type) or not isinstance(value, Limit):
        raise ConfigError("max_ongoing_requests", value, A_LIMIT)
    whole_number("limit", value.limit, at_least=1)
    return guarded(value)


def _initial(lowest: Any, highest: Any) -> Any:
    """`INITIAL`, or the next that is within the bounds; they are checked later."""
    try:
        return min(max(INITIAL, lowest), highest)
    except TypeError:
        return INITIAL


MakeLimit = Callable[[], Limit]
"""Makes the limit of one replica."""

A_LIMIT_EACH = (
    'a whole number >= 1, or math.inf, or a callable that makes a Limit, or "auto" for one that is '
    "found"
)


def limit_each(value: object) -> float | MakeLimit:
    """How many each replica works on: a number, or what makes the rule for one.

    Raises:
        ConfigError: It is not what it may be.
    """
    if value is None or value == "auto":
        return KneeLimit
    if isinstance(value, int | float):
        try:
            return whole_number("max_ongoing_requests", value, at_least=1)
        except ConfigError:
            raise ConfigError("max_ongoing_requests", value, A_LIMIT_EACH) from None
    if isinstance(value, Limit) and not isinstance(value, type):
        expected = "what makes a Limit for each replica, as one can't serve several"
        raise ConfigError("max_ongoing_requests", value, expected)
    if not callable(value):
        raise ConfigError("max_ongoing_requests", value, A_LIMIT_EACH)
    return value


def limit_of_one_more(each: float | MakeLimit, others: Sequence[float]) -> Limit:
    """The rule for a replica that comes to others, which have found these limits.

    Raises:
        ConfigError: What was made is no limit.
        ReplicaUnavailableError: None could be made.
    """
    if isinstance(each, int | float):
        return FixedLimit(each)
    if each is KneeLimit and others:
        return KneeLimit(int(statistics.median_high(others)))  # it is one like them
    try:
        limit = each()
    except Exception as error:
        message = f"The limit of a replica could not be made: {error!r}"
        raise ReplicaUnavailableError(message) from error
    return limit_of(limit)


def order_of_all(each: float | MakeLimit) -> Order:
    """The order of requests that goes with such limits."""
    return "fifo" if isinstance(each, int | float) else "adaptive_lifo"


def order_of(value: object, limit: Limit) -> Order:
    """The order that is asked for; none is the one that goes with the limit."""
    if value is None:
        return "fifo" if isinstance(limit, FixedLimit) else "adaptive_lifo"
    if value not in ("fifo", "adaptive_lifo"):
        raise ConfigError("order", value, "'fifo' or 'adaptive_lifo', or None")
    return value


def class_of(value: object) -> Criticality:
    """The class that is meant."""
    return criticality_of("priority", value)


def shares_of(value: object) -> Mapping[Criticality, float]:
    """The shares that are asked for, by class."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError("shares", value, SHARES)
    shares: dict[Criticality, float] = {}
    for name, share in value.items():
        is_part = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
        try:
            criticality = class_of(name)
        except ConfigError:
            is_part = False
        if not is_part or criticality in shares:  # it is there twice, in upper and lower case
            raise ConfigError("shares", value, SHARES)
        shares[criticality] = share
    if sum(shares.values()) > 1 + 1e-9:
        raise ConfigError("shares", value, SHARES)
    return shares


def cost_of(value: object) -> int:
    """The number of slots that is meant; what is beyond every limit takes all slots anyway."""
    return min(int(whole_number("cost", value, at_least=1, infinite=False)), LARGEST)


def tenant_of(value: Hashable) -> Hashable:
    """The tenant that is meant."""
    try:
        hash(value)
    except TypeError:
        raise ConfigError("tenant", value, "anything hashable") from None
    return value


def standing_of(priority: object, tenant: Hashable, cost: object) -> Standing:
    """What a request is to a limiter."""
    return Standing(class_of(priority), tenant_of(tenant), cost_of(cost))
