"""The life of a replica: it is told what to serve, makes it, serves, and ends."""

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from loadshed._policy.wire import Frame
from loadshed._replica import outward
from loadshed._replica.channel import Channel, answer, failure
from loadshed._replica.logs import forward
from loadshed._replica.main_module import importing, stand_in
from loadshed._replica.server import Server
from loadshed._replica.target import Target

LoopFactory = Callable[[], asyncio.AbstractEventLoop] | None
"""Makes an event loop; None makes asyncio's own."""

ORPHANED_AFTER = 5.0
"""Seconds after which a replica notices, at the latest, that its pool's process has gone."""


def main(connection: int, lifeline: int) -> None:
    """Serve the pool at the other end of a socket until it says stop, or is gone.

    Args:
        connection: The socket.
        lifeline: The end for reading of a pipe to which nothing is ever written. It breaks when the
            pool's process ends.
    """
    for descriptor in (connection, lifeline):
        os.set_inheritable(descriptor, False)
    _die_with(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # one that is sent to it ends it, as SIGTERM does
    channel = Channel(socket.socket(fileno=connection))
    frames = channel.receive()
    while frames == []:
        frames = channel.receive()
    if frames is None:
        return
    start, *_ = frames
    try:
        target, config, factory = _make(channel, start)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the pool has to know why
        channel.send(failure(start.call, error))
        return
    with contextlib.suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=factory) as loop:
        loop.run(_serve(channel, target, config, start.call))


def _die_with(lifeline: int) -> None:
    """Have the kernel kill this process when the pool's ends, even if nobody lets go of the GIL.

    Linux only; elsewhere the closed socket has to do.
    """
    try:
        import fcntl  # noqa: PLC0415 - not on every system

        # Opened anew: what it inherited is one file for all replicas, and that has one owner.
        own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    except (ImportError, AttributeError, OSError):
        pass


def _make(channel: Channel, start: Frame) -> tuple[Target, tuple[Any, ...], LoopFactory]:
    path, argv, main_module, level, wants_uvloop, pickled = start.value()
    sys.path[:] = path
    sys.argv[:] = argv
    stand_in(main_module)
    forward(channel, level)
    with importing():
        target, init_args, init_kwargs, config = pickle.loads(pickled)  # noqa: S301 - the pool's
    factory = _uvloop() if wants_uvloop else None
    return Target(target, init_args, init_kwargs), config, factory


def _uvloop() -> LoopFactory:
    try:
        import uvloop  # noqa: PLC0415 - not everybody has it
    except ImportError:
        return None
    factory: LoopFactory = uvloop.new_event_loop
    return factory


async def _serve(channel: Channel, target: Target, config: tuple[Any, ...], call: int) -> None:
    loop = asyncio.get_running_loop()
    server = Server(channel, target)
    outward.current = server.outward

    def read() -> None:
        frames = channel.receive()
        if frames is None:
            os._exit(1)  # the pool's process has gone: nobody wants anything any more
        for frame in frames:
            server.handle(frame)

    parent = os.getppid()

    def look_for_parent() -> None:
        # What the parent has forked may keep its end of the socket open.
        if os.getppid() != parent:
            os._exit(1)
        loop.call_later(ORPHANED_AFTER, look_for_parent)

    look_for_parent()
    loop.add_reader(channel.socket, read)
    try:
        await _begin(server, config, channel, call)
    finally:
        outward.current = None
        loop.remove_reader(channel.socket)


async def _begin(server: Server, config: tuple[Any, ...], channel: Channel, call: int) -> None:
    try:
        await server.begin(config)
    except BaseException as error:  # noqa: BLE001
        channel.send(failure(call, error))
        return
    channel.send(answer(call, None))
    try:
        await server.stopped.wait()
    finally:
        await server.end()
