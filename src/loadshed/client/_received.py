"""The body of a response: read in time, or thrown away without losing its connection."""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

from loadshed import _clock
from loadshed._clock import SharedClock

MOST_KEPT = 64 * 1024
"""Bytes of a response that are read before it is thrown away, so that its connection can be used
again. Where there are more, the connection is closed."""

LONGEST_DRAIN = 1.0
"""Seconds that this may take. A new connection costs less than to wait for a slow body."""


class TimedBody:
    """The body of a response that has to be read before a deadline.

    The sync one can look at the time between two chunks only; for the wait for one it has the
    timeout of httpx.

    Args:
        stream: The body.
        ends_at: The deadline.
        late: Makes the error for a body that takes too long.
    """

    def __init__(self, stream: Any, ends_at: float, late: Callable[[], Exception]) -> None:
        self._stream = stream
        self._ends_at = ends_at
        self._late = late

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if _clock.thread_time() >= self._ends_at:
                self.close()
                raise self._late()
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        clock = SharedClock()
        iterator = aiter(self._stream)
        try:
            while True:
                with clock.move_on_after(self._ends_at - clock.now()) as scope:
                    try:
                        chunk = await anext(iterator)
                    except StopAsyncIteration:
                        return
                if scope.cancelled_caught:
                    await self.aclose()
                    raise self._late()
                yield chunk
        finally:
            await close_iterator(iterator)

    def close(self) -> None:
        """Give the connection back."""
        self._stream.close()

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._stream.aclose()


async def close_iterator(iterator: Any) -> None:
    """Close an async iterator that may be a generator, so that the event loop needn't."""
    if hasattr(iterator, "aclose"):
        await iterator.aclose()


def read(response: Any, bytes_body: Any, *, ends_at: float, most: float = math.inf) -> bool:
    """Read the body, put it into the response as bytes, and give the connection back.

    Returns:
        Whether that was done. Otherwise it was longer than `most`, or took longer than until
        `ends_at`, and the response is closed.
    """
    if isinstance(response.stream, bytes_body):
        return True
    chunks, length = [], 0
    try:
        for chunk in response.stream:
            chunks.append(chunk)
            length += len(chunk)
            if length > most or _clock.thread_time() >= ends_at:
                response.close()
                return False
    finally:
        response.stream.close()
    response.stream = bytes_body(b"".join(chunks))
    return True


def drain(response: Any, bytes_body: Any, ends_at: float) -> bool:
    """Read the body of a response that is thrown away, or close it. Whether it is there still."""
    ends_at = min(ends_at, _clock.thread_time() + LONGEST_DRAIN)
    if length_of(response) <= MOST_KEPT:
        with suppress(Exception):
            return read(response, bytes_body, ends_at=ends_at, most=MOST_KEPT)
    close(response)
    return False


def close(response: Any) -> None:
    """Close a response that nobody gets."""
    with suppress(Exception):
        response.close()


def empty(response: Any, bytes_body: Any) -> None:
    """Leave a closed response its status and headers, in case that it is wanted after all."""
    response.stream = bytes_body(b"")
    response.is_closed = False


def length_of(response: Any) -> int:
    """What Content-Length says; 0 where it says nothing."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0
