"""PoolOptions: a pool, for calls that are not like most."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from loadshed._policy.standing import Standing

if TYPE_CHECKING:
    from loadshed._pool.pool import ReplicaPool


class PoolOptions:
    """A pool, for calls of one standing: see `ReplicaPool.options`."""

    def __init__(self, pool: "ReplicaPool", standing: Standing) -> None:
        self._pool = pool
        self._standing = standing

    async def call(self, /, *args: Any, **kwargs: Any) -> Any:
        """`ReplicaPool.call`."""
        return await self._pool._call(self._standing, None, args, kwargs)

    async def call_method(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """`ReplicaPool.call_method`."""
        return await self._pool._call(self._standing, name, args, kwargs)

    def stream(self, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """`ReplicaPool.stream`."""
        return self._pool._stream(self._standing, None, args, kwargs)

    def stream_method(self, name: str, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """`ReplicaPool.stream_method`."""
        return self._pool._stream(self._standing, name, args, kwargs)

    def __repr__(self) -> str:
        criticality, tenant, cost = self._standing
        return f"<{self._pool.name!r} for {criticality.name} of {tenant!r}, cost={cost}>"
