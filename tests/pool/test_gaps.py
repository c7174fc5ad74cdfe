"""Where frames meet what seldom happens: full sockets, broken ones, and nonsense."""

import asyncio
import socket
import sys
import threading
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from loadshed import NotPicklableError, ReplicaUnavailableError
from loadshed._policy.wire import MOST_PARTS, Decoder, Frame, Kind, WireError, encode
from loadshed._pool import connection as connection_module
from loadshed._pool.connection import Connection, pair
from loadshed._pool.outward import Outward
from loadshed._replica import channel as channel_module
from loadshed._replica.application import ENOUGH, Request
from loadshed._replica.channel import Channel
from loadshed._replica.main import _uvloop
from loadshed._replica.streams import AHEAD, AsyncStream
from loadshed._replica.threads import Threads
from loadshed._sleeper import FutureSleeper


@pytest.mark.anyio
async def test_more_frames_than_a_socket_takes_at_once_are_all_sent() -> None:
    ours, theirs = pair()
    count = 3 * MOST_PARTS
    with theirs:
        connection = Connection(ours)
        connection.send(0, [b"x" * 10_000_000])
        for _ in range(count):
            connection.send(0, [b"y"])
        theirs.setblocking(False)
        received = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.write)
            while received < 10_000_000 + count:
                await anyio.wait_readable(theirs)
                received += len(theirs.recv(1 << 20))
            tasks.cancel_scope.cancel()
        assert connection.unsent() == set()
        connection.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_frames_that_may_wait_do_so_until_there_are_enough() -> None:
    ours, theirs = pair()
    with theirs:
        connection = Connection(ours)
        theirs.setblocking(False)
        for _ in range(2 * connection_module.ENOUGH - 1):
            connection.send(0, [b"x"], soon=True)
        assert theirs.recv(100) == b"x" * connection_module.ENOUGH
        await anyio.lowlevel.checkpoint()
        assert theirs.recv(100) == b"x" * (connection_module.ENOUGH - 1)
        connection.close()


@pytest.mark.anyio
async def test_a_socket_may_take_some_frames_and_not_a_byte_of_the_next() -> None:
    class Taking:
        """A socket that takes so many bytes, and then no more."""

        def sendmsg(self, parts: list[bytes]) -> int:
            return 5

    ours, theirs = pair()
    with ours, theirs:
        ours_is_full: Any = Taking()
        connection = Connection(ours)
        connection._unsent.extend((call, [b"ab", b"xyz"]) for call in (1, 2, 3))
        connection._socket = ours_is_full
        assert not connection._send_some()
        assert connection.unsent() == {2, 3}
        connection._unsent[0][1][1:] = [b"xyzxyz"]
        assert not connection._send_some()
        assert connection.unsent() == {3}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_what_is_consumed_before_anybody_waits_wakes_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = AsyncStream(Channel(theirs), 1)
        await stream.send("little")
        stream.acknowledge(1)
        await stream.send("little")
        assert len(_decoded([ours.recv(1000)])) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("now", [True, False])
@pytest.mark.anyio
async def test_answers_that_may_wait_do_so_until_there_are_enough(now: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        ours.setblocking(False)
        count = channel_module.ENOUGH - (2 if now else 1)
        for _ in range(count):
            channel.send_soon([b"x"])
        with pytest.raises(BlockingIOError):
            ours.recv(100)
        channel.send_soon([b"x"], now=now)
        assert ours.recv(100) == b"x" * (count + 1)


@pytest.mark.anyio
async def test_what_is_called_outwards_and_is_nonsense_is_refused() -> None:
    sent: list[Any] = []
    async with anyio.create_task_group() as tasks:
        outward = Outward({}, sent.append, tasks)
        for kind in (Kind.OUT_CALL, Kind.OUT_STREAM, Kind.OUT_ACK):
            with pytest.raises(WireError, match="a call of nothing"):
                outward.handle(Frame(kind, 1, []))
        tasks.start_soon(outward.run)
        # What has just been answered may still be cancelled, or acknowledged.
        outward.handle(Frame(Kind.OUT_CANCEL, 7, []))
        outward.handle(Frame(Kind.OUT_ACK, 7, [b"\x80\x05K\x01."]))
        outward.handle(Frame(Kind.OUT_CALL, 8, [b"", b"nobody"]))
        with anyio.fail_after(30):
            while not sent:
                await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    (frame,) = _decoded(sent[0])
    assert (frame.kind, frame.call) == (Kind.IN_ERROR, 8)
    assert "ReplicaUnavailableError" in frame.value()[1]
    assert ReplicaUnavailableError.__name__


def _decoded(parts: Any) -> list[Frame]:
    decoder, data = Decoder(), b"".join(parts)
    decoder.space()[: len(data)] = data
    return decoder.received(len(data))


def test_a_socket_that_does_not_block_has_nothing_yet() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        channel = Channel(theirs)
        assert channel.receive() == []
        ours.sendall(encode(Kind.STOP, 1))
        frames = channel.receive()
        assert frames is not None
        assert [frame.kind for frame in frames] == [Kind.STOP]


def test_a_message_that_can_not_be_sent_is_told_by_the_next_one() -> None:
    ours, theirs = socket.socketpair()

    async def run() -> None:
        request = Request(Channel(theirs), 1)
        request._flush()  # there is nothing
        await request.send({"type": "http.response.start", "headers": lambda: None})
        await asyncio.sleep(0.01)
        with pytest.raises(NotPicklableError):
            await request.send({"type": "http.response.body"})
        request.end(None, now=True)

    with ours, theirs:
        asyncio.run(run())
        (frame,) = _decoded([ours.recv(1 << 20)])
        assert frame.kind == Kind.ERROR


def test_without_uvloop_the_event_loop_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _uvloop() is not None
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert _uvloop() is None


def test_who_sleeps_in_a_closed_loop_is_not_woken() -> None:
    loop = asyncio.new_event_loop()
    sleeper = FutureSleeper(loop)
    sleeper._future.add_done_callback(lambda _: None)
    loop.close()
    assert not sleeper.wake()
    assert sleeper.wake()  # there is nothing more to do


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("field", ["body", "bytes", "text"])
@pytest.mark.anyio
async def test_who_sends_a_lot_at_a_time_waits_until_it_is_wanted(field: str) -> None:
    theirs, ours = pair()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        for _ in range(20):
            data = ("" if field == "text" else b"").ljust(40_000)
            kind = "http.response.body" if field == "body" else "websocket.send"
            await request.send({"type": kind, field: data})
            sent += 1

    with ours, theirs:
        request = Request(Channel(theirs), 1)
        task = asyncio.create_task(flood())
        await turns()
        before = sent
        assert 40_000 * before < AHEAD + ENOUGH
        request.open_for_good()
        await turns()
        assert sent > before
        task.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("all_is_to_end", [True, False])
@pytest.mark.anyio
async def test_who_is_cancelled_again_and_again_waits_for_his_thread(all_is_to_end: bool) -> None:
    go = threading.Event()
    ends = False
    task = asyncio.create_task(Threads().call(go.wait, unless=lambda: ends))
    for _ in range(3):
        await turns()
        assert not task.done()
        task.cancel()
    await turns()
    assert not task.done()
    if all_is_to_end:
        ends = True
        task.cancel()
    else:
        go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert go.is_set() is not all_is_to_end
    go.set()


async def turns() -> None:
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
