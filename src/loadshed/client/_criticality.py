"""`with criticality("sheddable"):`, how much what is sent in the block matters."""

from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from loadshed._policy.criticality import Criticality, criticality_of

in_block: ContextVar[Criticality | None] = ContextVar("loadshed.criticality")


class criticality:
    """All that is sent in the block is of this class, and the server is told.

    ```python
    with criticality(Criticality.SHEDDABLE):
        for name in names:
            await client.get(f"/thumbnails/{name}")
    ```

    It goes out in `x-request-criticality`, which `LoadShedMiddleware(trust_criticality=True)`
    believes. Of several around each other the inner one counts, and that before the client's
    setting; a request's own header or extension counts before all of them. What the block starts
    (tasks, and threads that copy the context) is of the same class.

    Args:
        criticality: A `Criticality`, or the name of one.

    Raises:
        ConfigError: It is neither.
    """

    __slots__ = ("_criticality", "_token")

    def __init__(self, criticality: Criticality | str) -> None:
        self._criticality = criticality_of("criticality", criticality)
        self._token: Token[Criticality | None] | None = None

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("This criticality is in use: make one for each block.")
        self._token = in_block.set(self._criticality)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None  # noqa: S101 - for the type checker
        # It may be left in another context than it was entered in: see `_deadline.reset`.
        with suppress(ValueError):
            in_block.reset(self._token)
        self._token = None

    def __repr__(self) -> str:
        return f"<criticality {self._criticality.name}>"


def said_of(request: Any, otherwise: Criticality | None) -> Criticality | None:
    """What the server is told of a request that has no such header itself; None: nothing.

    Args:
        request: The request, which may have an extension of its own.
        otherwise: The client's setting.

    Raises:
        ConfigError: The extension is no class.
    """
    own = request.extensions.get("criticality")
    if own is not None:
        return criticality_of('extensions["criticality"]', own)
    return in_block.get(otherwise)
