"""The clients of an overload: when they come, how long they wait, and how each of them ended."""

import asyncio
import contextlib
import enum
import gc
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import h11

from loadshed.demo.client import connected


class Ending(enum.Enum):
    """How a client's visit ended."""

    SERVED = "served"
    SHED = "shed"
    GAVE_UP = "gave up"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One client, one request.

    Attributes:
        due: When the client was to come, in seconds since the load began.
        late: How much later than that its request was written, in seconds: a fault of the load
            generator, not of the server.
        seconds: From `due` to the end. The lateness is part of it, so that a generator which
            falls behind cannot make the server look better.
        ending: How it ended.
        reason: Why, where it failed.
    """

    due: float
    late: float
    seconds: float
    ending: Ending
    reason: str = ""


def poisson(rng: random.Random, *, rate: float, seconds: float) -> list[float]:
    """When clients come who know nothing of each other.

    Args:
        rng: Where the chance comes from.
        rate: How many come, on average, in a second.
        seconds: For how long they do.

    Returns:
        The times, ascending, in seconds since the beginning.
    """
    times = [rng.expovariate(rate)]
    while times[-1] < seconds:
        times.append(times[-1] + rng.expovariate(rate))
    return times[:-1]


async def offer(port: int, times: Sequence[float], *, deadline: float) -> list[Visit]:
    """Send a client at each of these times, whatever became of those before (an open loop).

    Args:
        port: Where the server listens on the loopback interface.
        times: When each of them comes, ascending, in seconds from now.
        deadline: How many seconds a client waits before it hangs up.

    Returns:
        What became of each, in the same order, once all of them have gone.
    """
    clock = asyncio.get_running_loop().time
    with _no_collections():
        began = clock()
        async with asyncio.TaskGroup() as clients:
            visits = []
            for due in times:
                await asyncio.sleep(began + due - clock())
                visits.append(clients.create_task(_visit(port, began, due, deadline)))
    return [visit.result() for visit in visits]


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    # A collection of garbage stops the generator for up to 80 ms, and arrivals would be late.
    # What a visit leaves to it is less than 2 KB, so it can wait until the load is over.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _visit(port: int, began: float, due: float, deadline: float) -> Visit:
    clock = asyncio.get_running_loop().time
    late = None
    reason = ""
    try:
        async with asyncio.timeout_at(began + due + deadline), connected(port) as connection:
            late = clock() - began - due
            response, _ = await connection.get("/")
            ending, reason = _ending(response.status_code)
    except TimeoutError:
        ending = Ending.GAVE_UP
    except (OSError, h11.RemoteProtocolError) as error:
        ending, reason = Ending.FAILED, repr(error)
    seconds = clock() - began - due
    # Who never got to send was late by all of that at least.
    late = seconds if late is None else late
    return Visit(due=due, late=late, seconds=seconds, ending=ending, reason=reason)


def _ending(status: int) -> tuple[Ending, str]:
    endings = {200: Ending.SERVED, 503: Ending.SHED}
    return endings.get(status, Ending.FAILED), "" if status in endings else f"status {status}"
