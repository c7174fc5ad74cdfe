"""Environment: what the process of a replica finds, where that is not what this one has."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Variables, and where code lies.

    Attributes:
        variables: Environment variables, in addition to those of this process.
        paths: Where modules are looked for first.
        directory: Its working directory; None is that of this process.
        uvloop: Whether its event loop is uvloop's, where that is installed.
        is_foreign: Whether its code is none of this process's, and must not be imported here.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    directory: str | None = None
    uvloop: bool = False
    is_foreign: bool = False


HERE = Environment()
"""That of this process."""
