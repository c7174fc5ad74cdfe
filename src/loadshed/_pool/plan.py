"""Plan: what the replicas of a pool are, and how they are looked after."""

import logging
import sys
from dataclasses import dataclass
from typing import Any

from loadshed._limits import MakeLimit
from loadshed._pool.environment import HERE, Environment
from loadshed._pool.target import pickled
from loadshed._replica import main_module

Config = tuple[Any, ...]
"""A `user_config`, or nothing where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of a pool that its replicas depend on, as they are to be.

    Attributes:
        name: The pool's.
        target: What they serve.
        init_args: What it is made with.
        init_kwargs: The same, by name.
        config: The `user_config`.
        max_ongoing_requests: How many requests each of them works on; or what makes the rule that
            finds it, for each.
        request_timeout_s: Seconds that a request may take; None is for ever.
        health_check_period_s: Seconds between two health checks; None is never.
        health_check_timeout_s: Seconds that one may take; None is for ever.
        grace: Seconds that one has to finish what it works on; `math.inf` is for ever.
        environment: What their processes find.
        version: Which of the plans this is that replicas are not to be mixed of.
    """

    name: str
    target: Any
    init_args: tuple[Any, ...]
    init_kwargs: dict[str, Any]
    config: Config
    max_ongoing_requests: float | MakeLimit
    request_timeout_s: float | None
    health_check_period_s: float | None
    health_check_timeout_s: float | None
    grace: float
    environment: Environment = HERE
    version: int = 0

    def start(self) -> tuple[Any, ...]:
        """What a replica is told first.

        Raises:
            ConfigError: A setting can't be sent.
        """
        what = pickled(self.target, self.init_args, self.init_kwargs, self.config)
        path = [*self.environment.paths, *sys.path]
        level = logging.getLogger().level
        return path, sys.argv, main_module.where(), level, self.environment.uvloop, what
