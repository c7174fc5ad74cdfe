"""The body of an async response: read in time, or thrown away without losing its connection."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio

from loadshed.client._pool import arelease
from loadshed.client._received import LONGEST_DRAIN, MOST_KEPT, close_iterator, length_of


async def aread(
    response: Any,
    bytes_body: Any,
    *,
    most: float = math.inf,
    too_much: Callable[[], object] | None = None,
) -> None:
    """Read the body, put it into the response as bytes, and give the connection back.

    How long that may take is a matter of the caller's cancel scope, and so is its length:
    `too_much` cancels that scope. To leave the loop instead would leave the generators of which
    httpx makes a body to the event loop, for nobody but the innermost can end them all.
    """
    if isinstance(response.stream, bytes_body):
        return
    chunks, length = [], 0
    iterator = aiter(response.stream)
    try:
        try:
            async for chunk in iterator:
                chunks.append(chunk)
                length += len(chunk)
                if length > most and too_much is not None:
                    too_much()
        finally:
            with anyio.CancelScope(shield=True):
                await close_iterator(iterator)
                await response.stream.aclose()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await arelease(response.stream)
        raise
    response.stream = bytes_body(b"".join(chunks))


async def adrain(response: Any, bytes_body: Any, seconds: float) -> bool:
    """Read the body of a response that is thrown away, or close it. Whether it is there still."""
    if length_of(response) <= MOST_KEPT:
        with anyio.move_on_after(min(seconds, LONGEST_DRAIN)) as scope, suppress(Exception):
            await aread(response, bytes_body, most=MOST_KEPT, too_much=scope.cancel)
            return True
    await aclose(response)
    return False


async def aclose(response: Any) -> None:
    """Close a response that nobody gets, whoever is cancelled."""
    with anyio.CancelScope(shield=True), suppress(Exception):
        try:
            await response.aclose()
        except BaseException:
            await arelease(response.stream)
            raise
