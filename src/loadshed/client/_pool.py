"""A remedy for httpcore's connection pool, which can lose a place for good.

A request that waits for a connection is given a new one in the step in which another ends. If it
is cancelled, or its pool timeout passes, before it goes on, it leaves, and the connection that was
made for it stays in the pool: not connected, not closed, and nobody's. The same becomes of one that
is connected when its request is cancelled before it is sent. With every such coincidence the pool
has one place less; they happen under overload, when callers leave by the hundred.
(https://github.com/encode/httpcore/issues/1093, httpcore 1.0.9. httpx2 has mended it.)

So after an attempt that ended in that way the pool is searched for such connections: those that no
request has, and that are not idle either. This looks at what is private to httpcore 1, and
does nothing where that looks different.
"""

from typing import Any


def reclaim(transport: Any) -> None:
    """Give the places back that a pool has lost: for httpx's own sync transport."""
    pool = _httpcore_pool(transport)
    if pool is None:
        return
    with pool._optional_thread_lock:
        closing = _drop_the_lost(pool)
    pool._close_connections(closing)


async def areclaim(transport: Any) -> None:
    """Give the places back that a pool has lost: for httpx's own async transport."""
    if (pool := _httpcore_pool(transport)) is not None:
        await _areclaim(pool)


async def arelease(stream: Any) -> None:
    """Take back the place of a response, the closing of whose body was broken off.

    A shielded scope is none to asyncio's own cancellation (`asyncio.timeout` for one). Where that
    comes in the step in which a response is closed, httpcore counts it as open for ever.
    """
    await stream.aclose()  # if it came before that
    body = getattr(stream, "_httpcore_stream", None)
    pool, request = _httpcore_pool(body), getattr(body, "_pool_request", None)
    if pool is not None:
        if request in pool._requests:
            pool._requests.remove(request)
        await _areclaim(pool)


async def _areclaim(pool: Any) -> None:
    with pool._optional_thread_lock:
        closing = _drop_the_lost(pool)
    await pool._close_connections(closing)  # shields itself


def _httpcore_pool(transport: Any) -> Any:
    pool = getattr(transport, "_pool", None)
    needed = ("_connections", "_requests", "_optional_thread_lock", "_close_connections")
    known = type(pool).__module__.partition(".")[0] == "httpcore" and all(
        hasattr(pool, name) for name in needed
    )
    return pool if known else None


def _drop_the_lost(pool: Any) -> list[Any]:
    lost = [one for one in pool._connections if not one.is_idle()]
    if lost:  # or in use, by the request that it was given to
        owned = {id(request.connection) for request in pool._requests}
        lost = [one for one in lost if id(one) not in owned]
    if not lost:
        return []
    for connection in lost:
        pool._connections.remove(connection)
    closing: list[Any] = pool._assign_requests_to_connections()  # somebody may wait for the place
    return lost + closing
