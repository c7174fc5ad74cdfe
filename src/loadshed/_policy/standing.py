"""Standing: what a request is to a limiter, and how one replica says it for another."""

from collections.abc import Hashable
from typing import NamedTuple

from loadshed._policy.criticality import Criticality


class Standing(NamedTuple):
    """What a request is to a limiter.

    Attributes:
        criticality: How much it matters.
        tenant: Whose it is.
        cost: How many slots it takes.
    """

    criticality: Criticality = Criticality.CRITICAL
    tenant: Hashable = None
    cost: int = 1


USUAL = Standing()
"""That of a request of which nothing is said."""


def address(pool: str, standing: Standing) -> str:
    """Where a call goes, and what it is there; its tenant is a string, or None.

    >>> address("Model", Standing(Criticality.SHEDDABLE, "a#b", cost=2))
    'Model#3#2#a#b'
    >>> read_address(_)
    ('Model', Standing(criticality=<Criticality.SHEDDABLE: 3>, tenant='a#b', cost=2))
    """
    if standing == USUAL:
        return pool
    criticality, tenant, cost = standing
    said = f"{pool}#{criticality:d}#{cost}"
    return said if tenant is None else f"{said}#{tenant}"


def read_address(said: str) -> tuple[str, Standing]:
    """The same, read; no name of a pool has a '#'.

    Raises:
        ValueError: It is nonsense.
    """
    pool, *more = said.split("#", 3)
    if not more:
        return pool, USUAL
    criticality, cost, *tenant = more
    if not cost.isdecimal() or int(cost) < 1:
        raise ValueError(f"a call that costs {cost!r}")
    standing = Standing(Criticality(int(criticality)), tenant[0] if tenant else None, int(cost))
    return pool, standing
