"""What runs inside of a replica: through real pools, and by itself where that ends a process."""

import asyncio
import logging
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from loadshed import ConfigError, NotPicklableError, ReplicaError, ReplicaPool
from loadshed._errors import ReplicaUnavailableError
from loadshed._failure import unpack
from loadshed._policy.wire import Kind, encode, encode_value
from loadshed._replica import main as replica_main
from loadshed._replica import main_module
from loadshed._replica.channel import Channel
from loadshed._replica.logs import Forwarder
from loadshed._replica.target import Target
from tests.pool import targets_replica
from tests.pool.helpers import LONG, REPOSITORY, is_alive, until
from tests.pool.targets_replica import Configured, Service

pytestmark = [pytest.mark.anyio, pytest.mark.long]

MODULE = "tests.pool.targets_replica"


async def listed(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def ask(pool: ReplicaPool, kind: int, value: object = None) -> Any:
    assert pool._block is not None
    return await pool._block.crew.replicas[0].ask(kind, value)


class Explodes:
    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> None:
    raise ValueError("it explodes")


async def test_a_user_config_that_can_not_be_unpickled_is_told() -> None:
    async with ReplicaPool(Configured, user_config=1) as pool:
        with anyio.fail_after(LONG), pytest.raises(NotPicklableError, match="it explodes"):
            await pool.reconfigure(user_config=Explodes())
        await pool.reconfigure(user_config=2)


async def test_a_health_check_that_can_not_be_looked_up_has_failed() -> None:
    async with ReplicaPool(targets_replica.Moody) as pool:
        with pytest.raises(KeyError, match="bad mood"):
            await ask(pool, Kind.CHECK)
        assert await pool.call() == "called"


@pytest.mark.parametrize("name", ["slowly", "slowly_items"])
async def test_who_leaves_before_what_is_async_has_begun_cancels_it(
    name: str, tmp_path: Path
) -> None:
    """A function that is not async may return what is, and take its time."""
    async with ReplicaPool(Service, max_ongoing_requests=1) as pool:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                what = partial(pool.call_method, name, str(tmp_path))
                if name == "slowly_items":
                    what = partial(listed, pool.stream_method(name, str(tmp_path)))
                tasks.start_soon(what)
                await until(lambda: list(tmp_path.iterdir()))
                scope.cancel()
        await ask(pool, Kind.CHECK)  # so it knows that nobody waits any more
        (tmp_path / "go").touch()
        await until(lambda: not pool.statistics().ongoing)
        assert pool.statistics().restarts == 0


# What can be called.


@pytest.mark.parametrize(
    ("target", "result"),
    [
        (targets_replica.double, 14),
        (targets_replica.triple, 21),
        (targets_replica.awaitable, 21),
        (targets_replica.twice, 14),
        (targets_replica.thrice, 21),
        (f"{MODULE}:Outer.Inner.quadruple", 28),
        (f"{MODULE}:triple", 21),
        (Service, 7),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_whatever_can_be_called_is_called(target: Any, result: int) -> None:
    async with ReplicaPool(target) as pool:
        assert await pool.call(7) == result


async def test_methods_of_every_kind_are_called() -> None:
    async with ReplicaPool(Service, init_args=(10,)) as pool:
        assert await pool.call(7) == 17
        assert await pool.call_method("add", x=7) == 17
        assert await pool.call_method("later", 7) == 17
        with pytest.raises(KeyError, match="nothing"):
            await pool.call_method("later_failing")
        with pytest.raises(AttributeError, match="missing"):
            await pool.call_method("missing")
        with pytest.raises(AttributeError, match="missing"):
            await listed(pool.stream_method("missing"))
        with pytest.raises(TypeError, match="Its attribute can't be called: Service has no such"):
            await pool.call_method("attribute")


async def test_generators_of_every_kind_are_streamed() -> None:
    async with ReplicaPool(Service) as pool:
        for name in ("items", "items_async", "other_kind", "other_kind_async"):
            assert await listed(pool.stream_method(name, 3)) == [b"x"] * 3
        assert await listed(pool.stream_method("plain")) == [1, 0]
        assert await listed(pool.stream_method("plain_async")) == [1, 0]
        for name in ("pid", "add"):
            args = (1,) if name == "add" else ()
            with pytest.raises(TypeError, match=r"`stream` is for generators.*use `call`"):
                await listed(pool.stream_method(name, *args))
        for name in ("items", "items_async", "other_kind"):
            with pytest.raises(NotPicklableError) as caught:
                await pool.call_method(name, 3)
            assert "To get the items of a generator, use `stream`." in caught.value.__notes__
        for name in ("bad_item", "bad_item_async"):
            with pytest.raises(NotPicklableError, match="An item of type Unsendable"):
                await listed(pool.stream_method(name))


@pytest.mark.parametrize("name", ["items", "items_async"])
async def test_a_producer_waits_for_a_slow_consumer_and_is_closed_when_that_leaves(
    name: str,
) -> None:
    size = 10_000
    most = 256 * 1024 // size + 1
    async with ReplicaPool(Service) as pool:
        async with aclosing(pool.stream_method(name, 1000, size)) as stream:
            for consumed in range(1, 101):
                assert await anext(stream) == b"x" * size
                produced, closed = await pool.call_method("counters")
                assert produced <= consumed + most
                assert not closed
        with anyio.fail_after(LONG):
            while not (await pool.call_method("counters"))[1]:
                pass
        assert (await pool.call_method("counters"))[0] < 1000
        # The others are all there, though the producer had to wait often.
        assert len(await listed(pool.stream_method(name, 200, size))) == 200


# What can't be sent.


async def test_what_cannot_be_pickled_is_an_error_that_says_what_it_was() -> None:
    async with ReplicaPool(Service) as pool:
        for value in (targets_replica.Unsendable(), targets_replica.Unreceivable()):
            with pytest.raises(NotPicklableError, match=r"The arguments can't be sent.*not "):
                await pool.call_method("same", value)
        for name in ("unsendable", "unsendable_async"):
            with pytest.raises(NotPicklableError, match="The result, of type Unsendable, can't"):
                await pool.call_method(name)
        with pytest.raises(NotPicklableError, match=r"The result can't be sent.*not here"):
            await pool.call_method("unreceivable")


async def test_exceptions_come_with_their_traceback_or_as_a_replica_error() -> None:
    async with ReplicaPool(Service) as pool:
        pid = await pool.call_method("pid")
        for method in ("fail", "fail_async"):
            with pytest.raises(KeyError) as caught:
                await pool.call_method(method, "KeyError")
            (note,) = caught.value.__notes__
            assert note.startswith("Traceback in replica Service#")
            assert "raise RAISED[name]()" in note
            for name in sorted(targets_replica.RAISED.keys() - {"KeyError"}):
                if (method, name) == ("fail_async", "StopIteration"):
                    continue  # Python makes a RuntimeError of it
                with pytest.raises(ReplicaError, match=f"The target raised .*{name}") as refused:
                    await pool.call_method(method, name)
                assert "Traceback in replica Service#" in str(refused.value)
        assert await pool.call_method("pid") == pid


def test_an_exception_of_an_unknown_class_is_a_replica_error() -> None:
    pickled = pickle.dumps(KeyError()).replace(b"KeyError", b"NoErrors")
    error = unpack((pickled, "NoErrors", "trace\n"), "a#1")
    assert type(error) is ReplicaError
    assert str(error) == "The target raised NoErrors\nTraceback in replica a#1:\ntrace"


# Settings.


async def test_arguments_for_what_is_no_class_are_refused() -> None:
    for settings in ({"init_args": (1,)}, {"init_kwargs": {"x": 1}}):
        (name,) = settings
        with pytest.raises(ConfigError, match=f"{name} must be left out: no class is made"):
            async with ReplicaPool(targets_replica.double, **settings):
                pass


async def test_a_user_config_needs_a_method_that_takes_it() -> None:
    with pytest.raises(ConfigError, match="user_config must be left out: Service has no method"):
        async with ReplicaPool(Service, user_config=1):
            pass
    async with ReplicaPool(Service) as pool:
        await ask(pool, Kind.CHECK)  # it has no check, so it is well
        with pytest.raises(ConfigError, match="user_config must be left out"):
            await ask(pool, Kind.RECONFIGURE, 1)
    async with ReplicaPool(Service) as pool:
        with pytest.raises(ConfigError, match="user_config must be left out"):
            await pool.reconfigure(user_config=1)


def test_settings_that_the_target_cannot_have_are_named() -> None:
    with pytest.raises(ConfigError, match="init_args must be left out"):
        Target(targets_replica.double, (1,), {})
    with pytest.raises(ConfigError, match="init_kwargs must be left out"):
        Target(targets_replica.double, (), {"x": 1})
    with pytest.raises(ConfigError, match="double has no method `reconfigure`"):
        Target(targets_replica.double, (), {}).reconfiguring(1)


@pytest.mark.parametrize("target", [targets_replica.Configured, targets_replica.ConfiguredAsync])
async def test_user_config_and_health_checks_may_be_async(target: Any) -> None:
    async with ReplicaPool(target, user_config=1) as pool:
        assert await pool.call() == 1
        await ask(pool, Kind.CHECK)
        await pool.reconfigure(user_config="sick")
        assert await pool.call() == "sick"
        with pytest.raises(RuntimeError, match="I am sick"):
            await ask(pool, Kind.CHECK)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_target_that_cannot_be_made_says_why() -> None:
    with pytest.raises(ReplicaUnavailableError, match="SystemExit: 4"):
        async with ReplicaPool(targets_replica.Exits):
            pass
    with pytest.raises(ReplicaUnavailableError, match="a bad one"):
        async with ReplicaPool(targets_replica.Configured, user_config="bad"):
            pass
    async with ReplicaPool(f"{MODULE}:number") as pool:
        with pytest.raises(TypeError, match="The target can't be called"):
            await pool.call()


def test_what_has_no_signature_is_no_application() -> None:
    assert Target(dict.fromkeys, (), {}).application is None
    assert Target(type("A", (), {"__call__": min}), (), {}).application is None


# Cancellation, logs, and output.


async def test_an_async_call_is_cancelled_when_its_caller_leaves(tmp_path: Path) -> None:
    async with ReplicaPool(Service) as pool, anyio.create_task_group() as tasks:
        tasks.start_soon(pool.call_method, "wait", str(tmp_path))
        await until((tmp_path / "here").exists)
        tasks.cancel_scope.cancel()
    assert (tmp_path / "cancelled").exists()


async def test_log_records_arrive_with_the_name_of_the_replica(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ReplicaPool(Service, name="model") as pool:
        await pool.call_method("log")
    said, failed = (each for each in caplog.records if each.name == "targets_replica")
    assert said.getMessage() == "[model#1] said this"
    assert said.__dict__["plain"] == 7
    assert "thing" not in said.__dict__
    assert failed.getMessage() == "[model#1] failed"
    assert failed.exc_text is not None
    assert "KeyError: 'a reason'" in failed.exc_text


async def test_output_arrives_with_the_name_of_the_replica(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with ReplicaPool(Service, name="model") as pool:
        await pool.call_method("say")
    seen = capsys.readouterr()
    assert "[model#1] to stdout\n" in seen.out
    assert "[model#1] to stderr\n" in seen.err


def test_a_record_that_cannot_be_formatted_is_reported_as_ever(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        record = logging.LogRecord("a", logging.INFO, __file__, 1, "%d", ("no",), None)
        Forwarder(Channel(theirs)).emit(record)
    assert "--- Logging error ---" in capsys.readouterr().err


# The socket and the end.


def test_a_channel_whose_other_end_has_gone_is_quiet() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(theirs)
        ours.send(b"unread")
        channel.send([encode(Kind.WANT, 1)])
        ours.close()  # what it had not read resets the connection
        channel.send([encode(Kind.WANT, 1)])
        assert channel.receive() == []
        assert channel.receive() is None


def test_a_frame_is_sent_on_from_where_the_socket_stopped_to_take_it() -> None:
    class Reluctant(socket.socket):
        def sendmsg(self, buffers: Any, *_: Any) -> int:
            return self.send(b"".join(buffers)[:3])

    ours, theirs = socket.socketpair()
    with ours, Reluctant(fileno=theirs.detach()) as reluctant:
        Channel(reluctant).send([b"abcd", b"", b"ef", b"g"])
        assert ours.recv(100) == b"abcdefg"


async def test_values_larger_than_the_socket_takes_at_once_come_whole() -> None:
    value = [bytearray(b"a" * 3_000_000), bytearray(), bytearray(b"b" * 2_000_000)]
    sent = [pickle.PickleBuffer(each) for each in value]
    async with ReplicaPool(Service) as pool:
        assert await pool.call_method("same", sent) == value


@pytest.mark.parametrize("error", [OSError, AttributeError, ImportError])
def test_a_system_without_signals_for_pipes_has_to_do_without(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    replica_main._die_with(0)


class Exited(SystemExit):
    """What `os._exit` raises in these tests."""


def exit_by_raising(code: int) -> None:
    raise Exited(code)


@pytest.mark.parametrize("reason", ["closed", "orphaned"])
def test_a_replica_exits_when_the_process_of_its_pool_has_gone(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = iter([1, 1, 2])
    monkeypatch.setattr(os, "_exit", exit_by_raising)
    monkeypatch.setattr(replica_main, "ORPHANED_AFTER", 0 if reason == "orphaned" else LONG)
    if reason == "orphaned":
        monkeypatch.setattr(os, "getppid", lambda: next(parents))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if reason == "closed":
            ours.shutdown(socket.SHUT_WR)
        target = Target(targets_replica.double, (), {})
        with pytest.raises(Exited):
            asyncio.run(replica_main._serve(Channel(theirs), target, (), 1))


def run_main(connection: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what a replica runs, and close its socket, which else the end of the process does."""
    channels: list[Channel] = []

    def open_channel(connection: socket.socket) -> Channel:
        channels.append(Channel(connection))
        return channels[0]

    monkeypatch.setattr(replica_main, "_die_with", lambda _: None)
    monkeypatch.setattr(replica_main, "Channel", open_channel)
    descriptor = connection.detach()
    replica_main.main(descriptor, descriptor)
    channels[0].socket.close()


def test_a_replica_whose_pool_is_gone_before_the_first_frame_just_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.send(b"a part of a head")
        ours.shutdown(socket.SHUT_WR)
        run_main(theirs, monkeypatch)


@pytest.mark.parametrize("where", ["made", "begun"])
def test_a_replica_that_cannot_start_answers_with_the_reason(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: object) -> tuple[Target, tuple[Any, ...], None]:
        if where == "made":
            raise SystemExit(4)
        return Target(targets_replica.Configured, (), {}), ("bad",), None

    monkeypatch.setattr(replica_main, "_make", make)
    ours, theirs = socket.socketpair()
    with ours:
        for part in encode_value(Kind.START, 7, None):
            ours.sendall(part)
        run_main(theirs, monkeypatch)
        (frame,) = Channel(ours).receive() or []
    assert (frame.kind, frame.call) == (Kind.ERROR, 7)
    reason = "SystemExit: 4" if where == "made" else "ValueError: a bad one"
    assert frame.value()[1] == reason


# The main module.


@pytest.fixture
def main_modules(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return monkeypatch


@pytest.mark.parametrize("by_name", [False, True])
def test_the_main_script_is_run_once_something_of_it_is_asked_for(
    by_name: bool, main_modules: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "its_main_script.py"
    script.write_text(
        "from loadshed._replica import main_module\n"
        "ran, name = main_module.is_importing(), __name__\n"
    )
    main_modules.syspath_prepend(tmp_path)
    main_module.stand_in((script.stem, None) if by_name else (None, str(script)))
    main = sys.modules["__main__"]
    assert main is sys.modules["__mp_main__"]
    assert "ran" not in vars(main)
    with pytest.raises(AttributeError, match="__nothing__"):
        main.__nothing__  # noqa: B018
    assert main.ran is True
    assert main.name == "__mp_main__"
    assert not main_module.is_importing()


@pytest.mark.usefixtures("main_modules")
def test_what_the_main_module_does_not_have_is_an_attribute_error(tmp_path: Path) -> None:
    main_module.stand_in((None, None))
    with pytest.raises(AttributeError, match="the main module has no attribute 'a'"):
        sys.modules["__main__"].a  # noqa: B018
    script = tmp_path / "script.py"
    script.touch()
    main_module.stand_in((None, str(script)))
    with pytest.raises(AttributeError, match=r"script\.py has no attribute 'a'"):
        sys.modules["__main__"].a  # noqa: B018


def test_where_the_main_module_is_depends_on_how_it_was_started(
    main_modules: pytest.MonkeyPatch,
) -> None:
    main: Any = sys.modules["__main__"]
    assert main_module.where() == (None, None)
    main.__file__ = "script.py"
    assert main_module.where() == (None, "script.py")
    main.__spec__ = type("Spec", (), {"name": "package.module"})
    assert main_module.where() == ("package.module", "script.py")
    main.__spec__.name, main.__file__ = "__main__", "some/app.zip/__main__.py"
    assert main_module.where() == (None, "some/app.zip")


SCRIPT = """
import asyncio
from loadshed import ReplicaPool

class Value:
    def __init__(self, number):
        self.number = number

class Model:
    def __call__(self, value):
        assert type(value) is Value
        return Value(2 * value.number)

async def main():
    async with ReplicaPool(Model) as pool:
        result = await pool.call(Value(21))
        assert type(result) is Value
        print("result:", result.number)

"""


def run(*args: str, cwd: Path) -> tuple[int, str, str]:
    """Run a program, and leave nothing of it."""
    with subprocess.Popen(  # noqa: S603
        [sys.executable, *args],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    ) as process:
        try:
            out, err = process.communicate(timeout=LONG)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, out, err


@pytest.mark.parametrize("args", [["script.py"], ["-m", "script"]])
def test_a_script_may_define_what_its_replicas_serve(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        SCRIPT + "if __name__ == '__main__':\n    asyncio.run(main())\n"
    )
    assert run(*args, cwd=tmp_path) == (0, "result: 42\n", "")


@pytest.mark.parametrize("is_zip", [False, True])
def test_so_may_a_directory_and_a_zip_file(is_zip: bool, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(
        SCRIPT + "if __name__ == '__main__':\n    asyncio.run(main())\n"
    )
    if is_zip:
        shutil.make_archive(str(tmp_path / "app"), "zip", tmp_path / "app")
    assert run("app.zip" if is_zip else "app", cwd=tmp_path) == (0, "result: 42\n", "")


def test_a_script_finds_its_arguments_in_a_replica(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys\nTHIRD = sys.argv[3]\n"
        + SCRIPT.replace("value.number)", "value.number + int(THIRD))")
        + "if __name__ == '__main__':\n    asyncio.run(main())\n"
    )
    assert run("script.py", "1", "2", "100", cwd=tmp_path) == (0, "result: 142\n", "")


def test_a_module_without_the_guard_starts_no_pool_in_a_replica(tmp_path: Path) -> None:
    (tmp_path / "lonely.py").write_text(SCRIPT + "asyncio.run(main())\n")
    code, out, err = run("-c", "import lonely", cwd=tmp_path)
    assert code == 1
    assert out == ""
    assert "A replica has to import its target" in err


def test_a_script_without_the_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT + "asyncio.run(main())\n")
    code, out, err = run("script.py", cwd=tmp_path)
    assert code == 1
    assert out == ""
    assert "A replica has to import its target" in err


# The parent is killed.


@pytest.mark.parametrize("name", ["hold", "hold_gil"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_replica_outlives_a_pool_that_is_killed(name: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    program = (
        "import asyncio\n"
        "from loadshed import ReplicaPool\n"
        "async def main():\n"
        f"    async with ReplicaPool('{MODULE}:{name}', num_replicas=2) as pool:\n"
        f"        calls = [pool.call({str(seen)!r}) for _ in range(2)]\n"
        "        await asyncio.gather(*calls)\n"
        "asyncio.run(main())\n"
    )
    path = os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))
    pids: list[int] = []
    parent = subprocess.Popen(  # noqa: S603, ASYNC220
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        await until(lambda: len(list(seen.iterdir())) == 2)
        pids = [int(each.name) for each in seen.iterdir()]
        parent.kill()
        parent.wait()
        await until(lambda: not any(map(is_alive, pids)))
    finally:
        parent.kill()
        parent.wait()
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)
