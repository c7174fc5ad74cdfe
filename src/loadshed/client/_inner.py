"""Inner: the transport inside of a transport."""

import threading
from typing import Any

from loadshed._errors import ConfigError
from loadshed.client._family import Family, family_of


class Inner:
    """The transport that sends: the one that was given, or one for each library that comes."""

    def __init__(self, given: Any, method: str, default: str) -> None:
        if given is not None and not callable(getattr(given, method, None)):
            raise ConfigError("inner", given, f"a transport with a method {method}")
        self.given = given
        self._default = default
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def of(self, request: Any) -> Any:
        """The transport for this request, where none was given."""
        return self._make(family_of(request))

    def all(self) -> list[Any]:
        """Every transport that there is."""
        return [*self._made.values()] if self.given is None else [self.given]

    def _make(self, family: Family) -> Any:
        with self._lock:
            if family.name not in self._made:
                self._made[family.name] = getattr(family.library, self._default)()
            return self._made[family.name]

    def __repr__(self) -> str:
        return self._default if self.given is None else repr(self.given)
