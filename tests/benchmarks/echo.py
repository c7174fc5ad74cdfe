"""The other end: what replicas serve in the benchmark of the pool, and the floors beside it.

It imports nothing but what a replica has imported anyway.
"""

import asyncio
import os
import socket
import sys
import time
from typing import Any

BUSY = 0.05
"""Seconds of processor time that a request for /busy takes."""


async def same_async(x: Any) -> Any:
    return x


def same(x: Any) -> Any:
    return x


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Say hello, and from which process; at /busy, compute for a while first."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/busy":
        end = time.thread_time() + BUSY
        while time.thread_time() < end:
            pass
    body = b"Hello from %d!" % os.getpid()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def pooled() -> Any:
    """The same in two replicas: what one uvicorn serves."""
    import logging  # noqa: PLC0415

    from loadshed import ReplicaPool  # noqa: PLC0415 - a replica needs none

    logging.getLogger("loadshed").setLevel(logging.CRITICAL)
    return ReplicaPool("tests.benchmarks.echo:app", num_replicas=2).asgi


async def echo_stream(connection: socket.socket) -> None:
    """Send messages back, through asyncio's streams."""
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        while True:
            size = await reader.readexactly(4)
            writer.write(size + await reader.readexactly(int.from_bytes(size, "little")))
    except asyncio.IncompleteReadError:
        writer.close()


def receive(connection: socket.socket, size: int) -> bytearray:
    """So many bytes, in memory of their own; fewer at the end of the stream."""
    data = bytearray(size)
    view, count = memoryview(data), 0
    while count < size and (came := connection.recv_into(view[count:])):
        count += came
    return data if count == size else data[:count]


def echo_large(connection: socket.socket, size: int) -> None:
    """Send so many bytes back, through nothing."""
    while len(data := receive(connection, size)) == size:
        connection.sendall(data)


def echo_shared(pipe: Any, *, reuse: bool, copy: bool) -> None:
    """Copy arrays in shared memory to other shared memory: the result of a call that has one.

    Args:
        pipe: Says in which the array is and how long it is; is told in which the result is.
        reuse: Whether to keep both for the next one.
        copy: Whether the array is copied from there, as a target has to that may keep it.
    """
    from multiprocessing.shared_memory import SharedMemory  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    argument = result = None
    while (message := pipe.recv()) is not None:
        name, size = message
        if argument is None or not reuse:
            argument, result = SharedMemory(name), SharedMemory(create=True, size=size)
        assert result is not None
        given = np.ndarray(size, np.uint8, argument.buf)
        np.ndarray(size, np.uint8, result.buf)[:] = same(given.copy() if copy else given)
        del given
        if not reuse:
            argument.close()
            result.close()
        pipe.send(result.name)


def nothing() -> None:
    """Import what a replica imports."""
    import loadshed._replica.main  # noqa: F401, PLC0415


def main(kind: str, descriptor: str, size: str) -> None:
    with socket.socket(fileno=int(descriptor)) as connection:
        if kind == "stream":
            asyncio.run(echo_stream(connection))
        else:
            echo_large(connection, int(size))


if __name__ == "__main__":
    main(*sys.argv[1:])
