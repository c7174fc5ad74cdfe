"""Described: what the code of an application says about it, as plain data.

The server never imports an application's code. A child process does, and describes it.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedDeployment:
    """One deployment of an application.

    Attributes:
        name: What it is called in the application; a config file calls it so, too.
        given: The settings that the code gives, by name; those as well that only Ray knows.
        reconfigurable: Whether it has a method `reconfigure`, so that it can have a `user_config`.
    """

    name: str
    given: dict[str, Any] = field(default_factory=dict)
    reconfigurable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An application.

    Attributes:
        deployments: Its deployments; each comes after those that it calls, so the last is the one
            that gets the HTTP requests.
    """

    deployments: tuple[DescribedDeployment, ...]
