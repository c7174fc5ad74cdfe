"""The calls that a replica makes, from its event loop and from threads; the pool is played here."""

import asyncio
import gc
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from typing import Any

import pytest

from loadshed import NotPicklableError, QueueFullError, ReplicaError
from loadshed._failure import pack
from loadshed._policy import wire
from loadshed._policy.wire import Decoder, Frame, Kind, encode_value
from loadshed._replica import outward
from loadshed._replica.channel import Channel
from loadshed._replica.outward import Course, OutStream, Outward
from loadshed._replica.streams import AHEAD

LONG = 20


class Pool:
    """The other end: what the replica sends is read, and what it is sent arrives at once."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.out = Outward(Channel(theirs))
        self._socket = ours
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def frame(self) -> Frame:
        """The next one that was sent."""
        while not self._frames:
            count = self._socket.recv_into(self._decoder.space())
            self._frames += self._decoder.received(count)
        return self._frames.pop(0)

    def frames(self) -> list[tuple[int, int]]:
        """The kind and the number of all that were sent and not looked at."""
        seen = [(each.kind, each.call) for each in self._frames]
        self._frames.clear()
        self._socket.setblocking(False)
        try:
            while True:
                count = self._socket.recv_into(self._decoder.space())
                seen += [(each.kind, each.call) for each in self._decoder.received(count)]
        except BlockingIOError:
            return seen
        finally:
            self._socket.settimeout(LONG)

    def begun(self, kind: int) -> tuple[int, str, Any]:
        """The number of the call that begins, the pool that is called, and with what."""
        frame = self.frame()
        assert frame.kind == kind
        *parts, name = frame.parts
        return frame.call, bytes(name).decode(), Frame(Kind.CALL, 1, parts).value()

    def send(self, kind: int, number: int, value: object) -> None:
        (frame,) = _decoded(encode_value(kind, number, value))
        self.out.handle(frame)

    def fail(self, number: int, error: BaseException) -> None:
        self.send(Kind.IN_ERROR, number, pack(error))


def _decoded(parts: Any) -> list[Frame]:
    decoder, data = Decoder(), memoryview(b"".join(parts))
    frames: list[Frame] = []
    while data:
        space = decoder.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        frames += decoder.received(count)
        data = data[count:]
    return frames


@pytest.fixture
def pool() -> Iterator[Pool]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(LONG)
        yield Pool(ours, theirs)


class InThread:
    """Something that is done in a thread, and what it comes to."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._future.set_result(work())
        except BaseException as error:  # noqa: BLE001
            self._future.set_exception(error)

    def result(self) -> Any:
        try:
            return self._future.result(LONG)
        finally:
            self._thread.join(LONG)


CALL = (None, (1, "x"), {"y": 2})


# Calls.


def test_a_call_is_sent_and_its_answer_is_its_result(pool: Pool) -> None:
    future = pool.out.call("Model", CALL)
    assert not future.done()
    number, name, value = pool.begun(Kind.OUT_CALL)
    assert (name, value) == ("Model", CALL)
    pool.send(Kind.IN_RESULT, number, {"a": 1})
    assert future.result(0) == {"a": 1}
    assert pool.frames() == []


def test_calls_at_a_time_have_numbers_of_their_own_and_are_answered_in_any_order(
    pool: Pool,
) -> None:
    futures = [pool.out.call("m", (None, (n,), {})) for n in range(5)]
    numbers = [pool.begun(Kind.OUT_CALL)[0] for _ in futures]
    assert len({*numbers}) == 5
    for number in reversed(numbers):
        pool.send(Kind.IN_RESULT, number, number)
    assert [each.result(0) for each in futures] == numbers
    assert pool.out._calls == {}


def test_large_arguments_arrive(pool: Pool) -> None:
    block = bytearray(b"x" * 1_000_000)
    sending = InThread(lambda: pool.out.call("m", (None, (pickle.PickleBuffer(block),), {})))
    _, _, (_, (arrived,), _) = pool.begun(Kind.OUT_CALL)
    sending.result()
    assert bytes(arrived) == block


def test_what_is_raised_there_is_raised_here_with_its_traceback(pool: Pool) -> None:
    future = pool.out.call("Model", CALL)
    number, *_ = pool.begun(Kind.OUT_CALL)
    pool.fail(number, LookupError("not there"))
    error = future.exception(0)
    assert type(error) is LookupError
    assert error.__notes__[0].startswith("Traceback in replica Model:")


def test_an_error_of_the_pool_has_no_traceback(pool: Pool) -> None:
    future = pool.out.call("Model", CALL)
    number, *_ = pool.begun(Kind.OUT_CALL)
    pickled, said, _ = pack(QueueFullError(1, 2))
    pool.send(Kind.IN_ERROR, number, (pickled, said, ""))
    error = future.exception(0)
    assert type(error) is QueueFullError
    assert not hasattr(error, "__notes__")


def test_what_ends_a_process_there_does_not_end_this_one(pool: Pool) -> None:
    future = pool.out.call("Model", CALL)
    number, *_ = pool.begun(Kind.OUT_CALL)
    pool.fail(number, SystemExit(3))
    assert type(future.exception(0)) is ReplicaError


class FailsToUnpickle:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_a_result_that_can_not_be_made_says_so(pool: Pool) -> None:
    future = pool.out.call("Model", CALL)
    number, *_ = pool.begun(Kind.OUT_CALL)
    pool.send(Kind.IN_RESULT, number, FailsToUnpickle())
    with pytest.raises(NotPicklableError, match="The result can't be sent between processes: inv"):
        future.result(0)


@pytest.mark.parametrize("begin", ["call", "stream"])
def test_an_argument_that_can_not_be_sent_says_so_and_nothing_is_sent(
    pool: Pool, begin: str
) -> None:
    with pytest.raises(NotPicklableError, match="The arguments can't be sent between processes: "):
        getattr(pool.out, begin)("m", (None, (lambda: None,), {}))
    assert pool.frames() == []
    assert (len(pool.out._calls), len(pool.out._streams)) == (0, 0)


@pytest.mark.parametrize("begin", ["call", "stream"])
def test_an_argument_that_is_too_large_says_so_and_nothing_is_kept(
    pool: Pool, begin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LARGEST", 1000)
    with pytest.raises(NotPicklableError, match="and at most 1,000 can be sent at once"):
        getattr(pool.out, begin)("m", (None, ("x" * 1000,), {}))
    assert (len(pool.out._calls), len(pool.out._streams)) == (0, 0)


def test_a_call_that_is_cancelled_is_cancelled_there_once(pool: Pool) -> None:
    future = pool.out.call("m", CALL)
    number, *_ = pool.begun(Kind.OUT_CALL)
    assert future.cancel()
    assert pool.frames() == [(Kind.OUT_CANCEL, number)]
    future.cancel()
    pool.send(Kind.IN_RESULT, number, 1)  # it was under way
    assert pool.frames() == []
    with pytest.raises(CancelledError):
        future.result(0)


def test_one_that_was_answered_is_not_cancelled(pool: Pool) -> None:
    future = pool.out.call("m", CALL)
    number, *_ = pool.begun(Kind.OUT_CALL)
    pool.send(Kind.IN_RESULT, number, 1)
    assert not future.cancel()
    assert pool.frames() == []


def test_one_that_is_cancelled_as_its_answer_comes_is_cancelled(pool: Pool) -> None:
    """A thread may do so between any two steps of the event loop's."""
    future = pool.out.call("m", CALL)
    number, *_ = pool.begun(Kind.OUT_CALL)
    call = pool.out._calls[number]
    future.cancel()
    (frame,) = _decoded(encode_value(Kind.IN_RESULT, number, 1))
    pool.out._answer(*call, frame)
    assert future.cancelled()


@pytest.mark.parametrize("kind", [Kind.IN_RESULT, Kind.IN_ERROR, Kind.IN_ITEM])
def test_an_answer_to_nothing_is_no_matter(pool: Pool, kind: int) -> None:
    pool.send(kind, 99, None)
    assert pool.frames() == []


def test_a_task_that_awaits_a_call_and_is_cancelled_cancels_it(pool: Pool) -> None:
    async def run() -> None:
        future = pool.out.call("m", CALL)
        task = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert future.cancelled()

    asyncio.run(run())
    assert [kind for kind, _ in pool.frames()] == [Kind.OUT_CALL, Kind.OUT_CANCEL]


def test_threads_call_at_the_same_time(pool: Pool) -> None:
    threads = [
        InThread(lambda n=n: pool.out.call("m", (None, (n,), {})).result(LONG))  # type: ignore[misc]
        for n in range(8)
    ]
    for _ in threads:
        number, _, (_, (n,), _) = pool.begun(Kind.OUT_CALL)
        pool.send(Kind.IN_RESULT, number, 10 * n)
    assert [each.result() for each in threads] == [10 * n for n in range(8)]


# Streams.


def opened(pool: Pool) -> tuple[OutStream, int]:
    stream = pool.out.stream("Model", CALL)
    number, name, value = pool.begun(Kind.OUT_STREAM)
    assert (name, value) == ("Model", CALL)
    return stream, number


def ended(pool: Pool, number: int) -> None:
    pool.send(Kind.IN_RESULT, number, None)


def test_items_that_have_come_are_there_at_once(pool: Pool) -> None:
    stream, number = opened(pool)
    for item in ("a", "b"):
        pool.send(Kind.IN_ITEM, number, item)
    ended(pool, number)
    assert [*stream] == ["a", "b"]
    assert [*stream] == []
    stream.close()
    assert pool.frames() == []
    assert pool.out._streams == {}


def test_a_thread_waits_for_the_next_item(pool: Pool) -> None:
    stream, number = opened(pool)
    for item in ("a", "b"):
        waiting = InThread(lambda: next(stream))
        _until(lambda: bool(stream._course._waiters))
        pool.send(Kind.IN_ITEM, number, item)
        assert waiting.result() == item
    waiting = InThread(lambda: [*stream])
    _until(lambda: bool(stream._course._waiters))
    ended(pool, number)
    assert waiting.result() == []


def _until(condition: Callable[[], Any]) -> None:
    """What another thread does."""
    event = threading.Event()
    for _ in range(LONG * 1000):
        if condition():
            return
        event.wait(0.001)
    raise AssertionError("It never came.")


def test_a_task_waits_for_the_next_item(pool: Pool) -> None:
    async def run() -> None:
        stream, number = opened(pool)
        waiting = asyncio.ensure_future(_list(stream))
        for item in ("a", "b"):
            await _turns()
            pool.send(Kind.IN_ITEM, number, item)
        await _turns()
        ended(pool, number)
        assert await waiting == ["a", "b"]
        assert await _list(stream) == []

    asyncio.run(run())
    assert pool.frames() == []


async def _list(stream: OutStream) -> list[Any]:
    return [item async for item in stream]


async def _turns() -> None:
    for _ in range(9):
        await asyncio.sleep(0)


def test_what_the_generator_raises_is_raised_after_its_items_and_ends_it(pool: Pool) -> None:
    stream, number = opened(pool)
    pool.send(Kind.IN_ITEM, number, "a")
    pool.fail(number, LookupError("no more"))
    assert next(stream) == "a"
    with pytest.raises(LookupError, match="no more") as caught:
        next(stream)
    assert caught.value.__notes__[0].startswith("Traceback in replica Model:")
    assert [*stream] == []
    stream.close()
    assert pool.frames() == []


def test_one_that_is_closed_early_is_cancelled_there_and_has_no_more_items(pool: Pool) -> None:
    stream, number = opened(pool)
    pool.send(Kind.IN_ITEM, number, "a")
    pool.send(Kind.IN_ITEM, number, "b")
    assert next(stream) == "a"
    stream.close()
    assert pool.frames() == [(Kind.OUT_CANCEL, number)]
    assert [*stream] == []
    stream.close()
    pool.send(Kind.IN_ITEM, number, "c")  # it was under way
    pool.fail(number, LookupError())
    assert pool.frames() == []
    assert pool.out._streams == {}


def test_one_that_is_closed_when_its_end_has_come_is_not_cancelled(pool: Pool) -> None:
    stream, number = opened(pool)
    pool.send(Kind.IN_ITEM, number, "a")
    ended(pool, number)
    stream.close()
    assert pool.frames() == []
    assert [*stream] == []


def test_a_block_of_a_task_closes_it(pool: Pool) -> None:
    async def run() -> None:
        stream, number = opened(pool)
        pool.send(Kind.IN_ITEM, number, "a")
        async with aclosing(stream):
            assert await anext(stream) == "a"
        assert pool.frames() == [(Kind.OUT_CANCEL, number)]
        assert await _list(stream) == []

    asyncio.run(run())


def test_a_task_that_is_cancelled_as_it_waits_closes_it(pool: Pool) -> None:
    async def run() -> None:
        stream, number = opened(pool)
        waiting = asyncio.ensure_future(_list(stream))
        await _turns()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert pool.frames() == [(Kind.OUT_CANCEL, number)]
        pool.send(Kind.IN_ITEM, number, "a")
        assert await _list(stream) == []

    asyncio.run(run())


def test_an_item_that_comes_as_its_task_is_cancelled_wakes_nobody(pool: Pool) -> None:
    async def run() -> None:
        stream, number = opened(pool)
        waiting = asyncio.ensure_future(_list(stream))
        await _turns()
        waiting.cancel()
        pool.send(Kind.IN_ITEM, number, "a")
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert pool.frames() == [(Kind.OUT_CANCEL, number)]

    asyncio.run(run())


def test_a_thread_that_waits_is_woken_when_another_one_closes_it(pool: Pool) -> None:
    stream, number = opened(pool)
    waiting = InThread(lambda: [*stream])
    _until(lambda: bool(stream._course._waiters))
    stream.close()
    assert waiting.result() == []
    assert pool.frames() == [(Kind.OUT_CANCEL, number)]


def test_a_task_that_waits_is_woken_when_another_one_closes_it(pool: Pool) -> None:
    async def run() -> None:
        stream, _ = opened(pool)
        waiting = asyncio.ensure_future(_list(stream))
        await _turns()
        stream.close()
        assert await asyncio.wait_for(waiting, LONG) == []

    asyncio.run(run())


def test_two_that_wait_for_the_next_item_both_get_one(pool: Pool) -> None:
    """A generator would say that it is running already; a queue would serve both."""

    async def run() -> None:
        stream, number = opened(pool)
        both = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
        await _turns()
        pool.send(Kind.IN_ITEM, number, "a")
        pool.send(Kind.IN_ITEM, number, "b")
        done, pending = await asyncio.wait(both, timeout=0.2)
        for each in pending:
            each.cancel()
        assert not pending
        assert len(done) == 2

    asyncio.run(run())


def test_an_item_that_can_not_be_made_closes_it(pool: Pool) -> None:
    stream, number = opened(pool)
    pool.send(Kind.IN_ITEM, number, FailsToUnpickle())
    with pytest.raises(NotPicklableError, match="An item can't be sent between processes"):
        next(stream)
    assert pool.frames() == [(Kind.OUT_CANCEL, number)]
    assert [*stream] == []


def test_what_is_consumed_is_acknowledged_before_the_producer_has_to_wait(pool: Pool) -> None:
    stream, number = opened(pool)
    item = b"x" * 10_000
    acknowledged = []
    for _ in range(3 * AHEAD // len(item)):
        pool.send(Kind.IN_ITEM, number, item)
        assert next(stream) == item
        while (seen := pool.frames()) != []:
            acknowledged += seen
    assert {*acknowledged} == {(Kind.OUT_ACK, number)}
    assert len(acknowledged) >= 3


def test_nothing_is_acknowledged_when_the_end_has_come(pool: Pool) -> None:
    stream, number = opened(pool)
    for _ in range(3):
        pool.send(Kind.IN_ITEM, number, b"x" * AHEAD)
    ended(pool, number)
    assert len([*stream]) == 3
    assert pool.frames() == []


def test_one_that_is_forgotten_closes_itself(pool: Pool) -> None:
    """`async for` that is left by `break`, say: its generator would keep its slot for ever."""
    stream, number = opened(pool)
    pool.send(Kind.IN_ITEM, number, "a")
    assert next(stream) == "a"
    del stream
    gc.collect()
    assert pool.frames() == [(Kind.OUT_CANCEL, number)]


def test_one_that_is_forgotten_closes_itself_in_the_event_loop(pool: Pool) -> None:
    """It may be forgotten anywhere, also where a lock is held that closing needs."""

    async def run() -> None:
        pool.out._loop = asyncio.get_running_loop()
        stream, number = opened(pool)
        del stream
        gc.collect()
        assert pool.frames() == []
        await _turns()
        assert pool.frames() == [(Kind.OUT_CANCEL, number)]

    asyncio.run(run())


def test_one_that_is_forgotten_when_it_has_ended_is_just_forgotten(pool: Pool) -> None:
    stream, number = opened(pool)
    ended(pool, number)
    assert [*stream] == []
    del stream
    gc.collect()
    assert pool.frames() == []


def test_one_that_is_forgotten_as_the_process_ends_is_no_matter(pool: Pool) -> None:
    def broken() -> None:
        raise RuntimeError("it is all gone")

    stream = OutStream(Course(pool.out._channel, 1, "m", broken), None)
    del stream
    gc.collect()


def test_the_process_knows_its_own_when_it_serves() -> None:
    assert outward.current is None  # this one is no replica
