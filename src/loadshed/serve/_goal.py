"""Goal: what an application is to be, ready to be reached."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadshed._errors import ConfigError
from loadshed._pool.environment import Environment
from loadshed.serve._described import Described
from loadshed.serve._settings import Settings, did_you_mean, settings
from loadshed.serve._source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What replicas are made of: where it differs, they have to be replaced.

    Attributes:
        source: Where the application comes from.
        environment: What it finds.
        version: A digest of both, and of the files that it is made of, as far as they are known.
    """

    source: Source
    environment: Environment
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """An application as it is to be.

    Attributes:
        name: What it is called.
        route_prefix: Where its requests begin; None if it gets none.
        code: What it is made of.
        deployments: The settings of its deployments, by name, each after those that it calls. The
            last one gets the requests.
    """

    name: str
    route_prefix: str | None
    code: Code
    deployments: Mapping[str, Settings]

    @property
    def ingress(self) -> str:
        """The name of the deployment that gets the requests."""
        return list(self.deployments)[-1]


def merged(
    described: Described,
    overrides: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Any],
) -> dict[str, Settings]:
    """The settings of all deployments of an application.

    Args:
        described: What the code says.
        overrides: What the file says, by deployment: it counts.
        defaults: What holds for the one that gets the requests where nobody says anything.

    Raises:
        ConfigError: The file speaks of a deployment that the code has not, or gives a
            `user_config` to one that can't have any.
    """
    names = [each.name for each in described.deployments]
    for index, name in enumerate(overrides):
        if name not in names:
            expected = f"the name of a deployment in the code, {' or '.join(map(repr, names))}"
            if names[1:]:
                expected += did_you_mean(name, names)
            setting = f"deployments[{index}].name"
            raise ConfigError(setting, name, expected)
    found = {}
    for each in described.deployments:
        given = [each.given, overrides.get(each.name, {})]
        if each.name == names[-1]:
            given.insert(0, defaults)
        found[each.name] = merge = settings(*given)
        if merge.user_config is not None and not each.reconfigurable:
            expected = f"left out: {each.name} has no method `reconfigure`"
            at = (
                f"deployments[{list(overrides).index(each.name)}]."
                if each.name in overrides
                else ""
            )
            raise ConfigError(f"{at}user_config", merge.user_config, expected)
    return found


def digest(*parts: Any) -> str:
    """A short text that differs where these differ; plain data only."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
