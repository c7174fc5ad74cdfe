"""Names that a package exports and imports when they are asked for."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def importing(package: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562).

    An event loop library takes longer to import than most of this one. Who limits nothing, or has
    a client that is not async, needn't wait for it.

    Args:
        package: The globals of the package.
        homes: The module that has it, by name.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        package[name] = getattr(importlib.import_module(homes[name]), name)
        return package[name]

    return find
