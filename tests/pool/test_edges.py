"""Moments of a pool that real processes seldom come into: each is brought about by hand."""

import asyncio
import logging
import math
import os
import pickle
import socket
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from loadshed import (
    ConcurrencyLimiter,
    ReplicaDiedError,
    ReplicaError,
    ReplicaPool,
    ReplicaState,
    ReplicaUnavailableError,
)
from loadshed._failure import pack, unpack
from loadshed._policy import wire
from loadshed._policy.limits.limit import FixedLimit
from loadshed._policy.restarts import Restarts
from loadshed._policy.wire import CHUNK, Decoder, Frame, Kind, encode, encode_value
from loadshed._pool.call import Call
from loadshed._pool.connection import Connection, pair
from loadshed._pool.crew import Crew, _worth
from loadshed._pool.output import Relay, log
from loadshed._pool.place import Place
from loadshed._pool.process import Process
from loadshed._pool.slots import Slots
from loadshed._pool.target import pickled
from loadshed._replica import main_module
from loadshed._replica.channel import Channel, failure
from loadshed._replica.server import Server
from loadshed._replica.target import Target
from loadshed._sleeper import Sleeper
from tests.pool import targets
from tests.pool.helpers import LONG
from tests.pool.targets import Model

pytestmark = [pytest.mark.anyio, pytest.mark.long]


class Answering:
    """A replica that notes what it is sent."""

    name = "replica#1"

    def __init__(self) -> None:
        self.is_foreign = False
        self.sleepers: Any = Sleeper
        self.sent: list[Any] = []

    def send(self, parts: Any) -> None:
        self.sent.append(parts)

    def desert(self, call: Call) -> None:
        self.sent.append(call)


async def test_nothing_is_told_to_one_that_has_answered() -> None:
    replica = Answering()
    call = Call(1, replica, 0.0, takes_slot=True)
    call.tell(Kind.MESSAGE, "a")
    call.fail(RuntimeError())
    call.tell(Kind.MESSAGE, "b")
    call.leave()
    assert replica.sent == [encode_value(Kind.MESSAGE, 1, "a")]


async def test_the_permit_of_a_call_that_was_given_back_as_its_caller_left_is_free() -> None:
    limiter = ConcurrencyLimiter(1)
    slots = Slots(limiter)
    assert limiter._enter()
    call = Call(1, Answering(), 0.0, takes_slot=True)
    call.give_back()
    slots.abandon(call)
    assert limiter.statistics().completed == 1


async def test_one_with_a_permit_and_no_slot_is_told_when_there_will_be_none() -> None:
    limiter = ConcurrencyLimiter(1)
    slots = Slots(limiter)
    await slots.enter()
    async with anyio.create_task_group() as tasks:

        async def begin() -> None:
            with pytest.raises(ReplicaUnavailableError, match="for good"):
                await slots.begin(Kind.CALL, None, None)

        tasks.start_soon(begin)
        await anyio.wait_all_tasks_blocked()
        slots.dismiss(lambda: ReplicaUnavailableError("gone for good"))
    assert limiter.statistics().completed == 1


async def test_what_goes_wrong_as_something_is_received_is_raised() -> None:
    ours, theirs = pair()
    connection = Connection(ours)

    def receive() -> bool:
        assert connection.receive(frames.append)
        if frames:
            raise RuntimeError("that is too much")
        theirs.send(data[5:])
        return True

    data = encode(Kind.CANCEL, 1)
    frames: list[Frame] = []
    with ours, theirs:
        theirs.send(data[:5])
        with anyio.fail_after(LONG), pytest.raises(RuntimeError, match="too much"):
            await connection.read(receive)


async def test_a_socket_that_is_full_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    theirs.setblocking(False)

    class Fickle:
        """Says that it can be written to, and then can't, once."""

        def __init__(self) -> None:
            self.refusals = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

        def send(self, data: Any) -> int:
            raise BlockingIOError

        def sendmsg(self, parts: Any) -> int:
            self.refusals -= 1
            if self.refusals > 0:
                raise BlockingIOError
            return ours.sendmsg(parts)

    connection._socket = Fickle()  # type: ignore[assignment]
    connection.send(1, encode_value(Kind.CALL, 1, "one"))
    connection.send(2, encode_value(Kind.CALL, 2, "two"))
    assert connection.unsent() == {1, 2}
    decoder = Decoder()
    frames: list[Frame] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.write)
        while len(frames) < 2:
            await anyio.wait_readable(theirs)
            frames += decoder.received(theirs.recv_into(decoder.space()))
        tasks.cancel_scope.cancel()
    assert [frame.value() for frame in frames] == ["one", "two"]
    connection.close()
    connection.send(3, encode_value(Kind.CALL, 3, "three"))  # it is closed: nothing happens
    theirs.close()


async def test_writing_ends_with_the_socket() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    connection.send(1, [b"x" * 10_000_000])
    theirs.close()
    with anyio.fail_after(30):
        await connection.write()
    connection.close()


async def test_a_pipe_that_is_gone_has_ended() -> None:
    with socket.socket() as listening:  # reading from it is an error
        relay = Relay(listening.fileno(), "stdout", "x#1")
        assert not relay._show()


class Narrow:
    """A stream that knows ASCII only, and breaks after so many lines."""

    encoding = "ascii"

    def __init__(self, most: float = math.inf) -> None:
        self.text = ""
        self.most = most

    def write(self, text: str) -> None:
        if self.text.count("\n") >= self.most:
            raise RuntimeError("the widget is gone")
        self.text += text.encode("ascii").decode()


def test_output_that_does_not_end_is_shown_a_chunk_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Narrow()
    monkeypatch.setattr(sys, "stdout", stream)
    end, beginning = os.pipe()
    with os.fdopen(end), os.fdopen(beginning, "wb", buffering=0) as pipe:
        relay = Relay(end, "stdout", "x")
        pipe.write(b"0123456\n" * 4096)
        assert relay._show()
        assert stream.text.count("\n") == 2048
        pipe.write("naïve".encode())
        relay.finish()
        assert stream.text.count("\n") == 4097
        assert stream.text.endswith("[x] na\\xefve\n")


def test_output_to_what_is_broken_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Narrow(most=1)
    monkeypatch.setattr(sys, "stdout", stream)
    end, beginning = os.pipe()
    with os.fdopen(end), os.fdopen(beginning, "wb", buffering=0) as pipe:
        pipe.write(b"one\ntwo\n")
        Relay(end, "stdout", "x").finish()
    assert stream.text == "[x] one\n"


@pytest.mark.anyio
async def test_frames_are_received_a_chunk_at_a_time() -> None:
    ours, theirs = pair()
    connection = Connection(ours)
    frames: list[Frame] = []
    with ours:
        with theirs:
            count = 2 * CHUNK // len(encode(Kind.CANCEL, 1))
            theirs.sendall(encode(Kind.CANCEL, 1) * count)
        assert connection.receive(frames.append)
        assert 0 < len(frames) < count
        while connection.has_more():
            assert connection.receive(frames.append)
        assert len(frames) == count
        assert not connection.receive(frames.append)


def test_a_record_below_the_loggers_level_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("tests.quiet").setLevel(logging.ERROR)
    for level in (logging.INFO, logging.ERROR):
        record = logging.LogRecord("tests.quiet", level, "", 1, str(level), None, None)
        log(Frame(Kind.LOG, 0, [pickle.dumps(record.__dict__)]), "x#1")
    assert [record.getMessage() for record in caplog.records] == ["[x#1] 40"]


async def test_no_pool_is_started_by_what_a_replica_imports() -> None:
    with main_module.importing(), pytest.raises(RuntimeError, match="below `if __name__"):
        async with ReplicaPool(Model):
            pytest.fail("it was entered")


class Unsendable(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise SystemExit


def test_whatever_was_raised_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    error = unpack(pack(Unsendable()), "x#1")
    assert type(error) is ReplicaError
    assert str(error).startswith("The target raised Unsendable, which can't be shown\n")
    monkeypatch.setattr(wire, "LARGEST", 200_000)
    (frame,) = feed(failure(1, ValueError(b"x" * 150_000, b"y" * 150_000)))
    pickled, said, trace = frame.value()
    assert pickled is None
    assert len(said) < 70_000
    assert len(trace) < 70_000
    assert said.startswith("ValueError: (b'xxx")
    assert said.endswith("yyy')")


def feed(parts: list[Any]) -> list[Frame]:
    decoder, frames, data = Decoder(), [], b"".join(parts)
    while data:
        space = decoder.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        frames += decoder.received(count)
        data = data[count:]
    return frames


class Closed(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("read only")


def test_an_exception_that_takes_no_note_is_told_with_its_traceback() -> None:
    error = unpack(pack(Closed("x")), "x#1")
    assert type(error) is ReplicaError
    assert "Closed: x\nTraceback in replica x#1" in str(error)


async def test_items_of_a_function_come_as_a_stream() -> None:
    async with ReplicaPool("builtins:iter", health_check_period_s=None) as pool:
        assert [item async for item in pool.stream([1, 2])] == [1, 2]
        assert pool._block is not None
        (replica,) = pool._block.crew.replicas
        assert "#1 RUNNING ongoing=0>" in repr(replica)


async def test_health_checks_that_pass_change_nothing() -> None:
    async with ReplicaPool(Model, health_check_period_s=0.001) as pool:
        assert pool._block is not None
        (replica,) = pool._block.crew.replicas
        checks = replica._last_call
        with anyio.fail_after(30):
            while replica._last_call < checks + 4:
                await anyio.sleep(0.001)
        assert pool.statistics().restarts == 0


async def test_what_was_not_asked_is_no_answer() -> None:
    async with ReplicaPool(Model) as pool:
        assert pool._block is not None
        (replica,) = pool._block.crew.replicas
        with pytest.raises(Exception, match="what was not asked"):
            replica._handle(Frame(Kind.RESULT, 10**6, [pickle.dumps(1)]))


async def test_a_replica_that_ends_takes_no_more_requests_than_that() -> None:
    async with ReplicaPool(Model) as pool:
        assert pool._block is not None
        (replica,) = pool._block.crew.replicas
        replica._take_no_more(ReplicaState.STOPPING)
        pool._block.crew.resize(7)
        replica.serve(FixedLimit(7))
        assert replica.max_ongoing_requests == 0
        replica.kill()
        with anyio.fail_after(30):
            await replica.ended.wait()
            with pytest.raises(Exception, match="SIGKILL"):
                await replica.ask(Kind.CHECK)


async def test_one_that_starts_gets_the_config_that_was_set_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    async with ReplicaPool(
        targets.SlowModel, init_args=(str(tmp_path),), user_config="old"
    ) as pool:
        (tmp_path / "go").unlink()
        assert pool._block is not None
        crew = pool._block.crew
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(pool.reconfigure, num_replicas=2))
            with anyio.fail_after(60):
                while len(list(tmp_path.glob("here-*"))) < 2:
                    await anyio.sleep(0.001)
                await crew.configure(("new",))
            (tmp_path / "go").touch()
        configs = [await each.ask(Kind.CALL, ("configuration", (), {})) for each in crew.replicas]
        assert [config for _, config in configs] == ["new"] * 2


@pytest.mark.parametrize("config", [(), ({"refused by": "all"},)])
async def test_one_that_can_not_have_the_config_of_now_is_not_put_to_use(config: Any) -> None:
    async with ReplicaPool(Model, user_config="old") as pool:
        assert pool._block is not None
        crew = pool._block.crew
        (replica,) = crew.replicas
        with pytest.raises(ReplicaUnavailableError, match="user_config"):
            await crew._tell(replica, config)
        replica.kill()
        with anyio.fail_after(60):
            await replica.ended.wait()
            with pytest.raises(ReplicaDiedError):
                await crew._tell(replica, ("newer",))


async def test_a_pool_that_is_left_starts_no_more(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    async with anyio.create_task_group() as tasks:
        async with ReplicaPool(
            targets.SlowModel, init_args=(str(tmp_path),), graceful_shutdown_timeout_s=0
        ) as pool:
            (tmp_path / "go").unlink()
            assert pool._block is not None
            crew = pool._block.crew

            async def grow() -> None:
                with pytest.raises(ReplicaUnavailableError, match="is being left"):
                    await pool.reconfigure(num_replicas=2)

            tasks.start_soon(grow)
            with anyio.fail_after(60):
                while len(list(tmp_path.glob("here-*"))) < 2:
                    await anyio.sleep(0.001)
        with pytest.raises(ReplicaUnavailableError, match="is being left"):
            await crew.scale(2)


async def test_a_record_that_can_not_be_shown_ends_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nonsense = Frame(Kind.LOG, 0, [b"no pickle"])
    log(nonsense, "x#1")
    assert "UnpicklingError" in capsys.readouterr().err
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log(nonsense, "x#1")
    assert capsys.readouterr().err == ""


async def test_a_replica_that_is_ending_ends() -> None:
    async with ReplicaPool(Model) as pool:
        assert pool._block is not None
        (replica,) = pool._block.crew.replicas
        replica.state = ReplicaState.STOPPING
        replica.give_up("no reason")
        replica.stop("no reason")
        replica.state = ReplicaState.RUNNING
        assert await pool.call(3) == 3


async def test_a_replica_that_dies_while_it_is_told_a_config_is_no_failure() -> None:
    async with ReplicaPool(Model, num_replicas=2) as pool:
        assert pool._block is not None
        crew = pool._block.crew
        crew.replicas[0].kill()
        await crew.configure(("new",))
        with anyio.fail_after(30):
            for _ in range(8):
                assert (await pool.call_method("configuration"))[1] == "new"


async def test_a_config_that_all_die_of_is_not_kept() -> None:
    async with ReplicaPool(Model, num_replicas=2, user_config="old") as pool:
        assert pool._block is not None
        crew = pool._block.crew
        for replica in crew.replicas:
            replica.kill()
        with pytest.raises(ReplicaDiedError):
            await crew.configure(("new",))
        with anyio.fail_after(30):
            assert (await pool.call_method("configuration"))[1] == "old"


async def test_what_is_cancelled_before_it_begins_does_not_begin() -> None:
    async with anyio.create_task_group() as tasks:
        crew = _crew(tasks)
        crew.cancel()
        crew._spawn(anyio.sleep_forever)


async def test_a_place_without_a_replica_is_done_without_first() -> None:
    async with anyio.create_task_group() as tasks:
        crew = _crew(tasks)
        place = Place(crew)
        assert _worth(place) == (False, 0, 0)
        place.is_gone = True
        await crew._replace(place)


def _crew(tasks: Any) -> Crew:
    no_plan: Any = None
    crew = Crew(tasks, Slots(ConcurrencyLimiter(1)), no_plan, 0, {})
    assert isinstance(crew.restarts, Restarts)
    return crew


async def test_what_is_cancelled_before_it_has_begun_never_does() -> None:
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    async with anyio.create_task_group() as tasks:
        crew = _crew(tasks)
        crew._spawn(work)
        crew.cancel()
    assert begun == []


def test_a_target_that_can_not_be_pickled_after_all_is_told() -> None:
    with pytest.raises(Exception, match="pickle"):
        pickled(lambda: 1, (), {}, ())
    assert pickle.loads(pickled(targets.same, (1,), {}, ()))[1] == (1,)  # noqa: S301


def test_a_process_that_goes_on_without_its_socket_was_killed_for_that() -> None:
    process = Process.__new__(Process)
    process._popen = SimpleNamespace(poll=lambda: None)  # type: ignore[assignment]
    assert process.fate == "was killed: it closed its connection"


def test_what_comes_for_a_call_that_has_ended_is_dropped() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = Server(Channel(ours), Target(targets.same, (), {}))
            for kind in (Kind.MESSAGE, Kind.ACK, Kind.CANCEL):
                server.handle(Frame(kind, 5, [pickle.dumps(1)]))
            with pytest.raises(KeyError):  # nobody waits for an answer to what is none of these
                server.handle(Frame(Kind.LOG, 5, []))

    asyncio.run(main())


async def test_as_long_as_one_serves_calls_go_there() -> None:
    async with ReplicaPool(Model) as pool:
        assert pool._block is not None
        pool._block.crew.despair(RuntimeError("another could not be started"))
        assert await pool.call(3) == 3
