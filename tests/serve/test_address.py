"""Where a server is told what to do, and where it keeps what it is to be."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from loadshed import ConfigError
from loadshed.serve import _address
from loadshed.serve._address import MOST, claimed, default_address, load, save, state_of


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "deep" / "er" / "control.sock")


# Where.


def test_the_address_is_in_the_users_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_address() == f"{tmp_path}/loadshed/control.sock"


@pytest.mark.parametrize("runtime", [None, "", "/not/there"])
def test_where_there_is_none_it_is_in_a_directory_of_the_user(
    runtime: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if runtime is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    expected = f"{tempfile.gettempdir()}/loadshed-{os.getuid()}/control.sock"
    assert default_address() == expected


def test_each_address_has_a_state_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert state_of(default_address()) == tmp_path / "loadshed" / "default"
    one, other = state_of("/a/x.sock"), state_of("/b/x.sock")
    assert one != other
    assert one.parent == tmp_path / "loadshed"
    assert re.fullmatch(r"x-[0-9a-f]{12}", one.name)
    assert state_of("x.sock") == state_of(f"{tmp_path}/x.sock") == state_of("./x.sock")


def test_the_state_is_at_home_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = Path("/home/somebody/.local/state/loadshed/default")
    assert state_of(default_address()) == expected


# claimed.


def test_whoever_has_an_address_can_be_reached_there(address: str) -> None:
    with claimed(address) as listener:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            accepted, _ = listener.accept()
            accepted.close()
        assert os.stat(address).st_mode & 0o777 == 0o600
        assert os.stat(os.path.dirname(address)).st_mode & 0o777 == 0o700
        assert Path(f"{address}.lock").read_text() == f"{os.getpid()}\n"
    assert not os.path.exists(address)
    assert listener.fileno() == -1


def test_the_mask_of_new_files_is_as_it_was(address: str) -> None:
    before = os.umask(0o022)
    try:
        with claimed(address):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_nobody_else_can_have_it_meanwhile_and_is_told_who_has_it(address: str) -> None:
    with claimed(address):
        expected = rf"no other server has \(pid {os.getpid()} has it\)"
        with pytest.raises(ConfigError, match=expected), claimed(address):
            pass
        assert os.path.exists(address)  # it is still there for whoever has it
    with claimed(address):
        pass


def test_one_that_does_not_say_who_it_is_is_unknown(address: str) -> None:
    with claimed(address):
        os.truncate(f"{address}.lock", 0)
        with pytest.raises(ConfigError, match="pid unknown has it"), claimed(address):
            pass


def test_another_process_can_not_have_it_either_and_can_when_it_was_killed(address: str) -> None:
    script = (
        "import sys, signal\nfrom loadshed.serve._address import claimed\n"
        "with claimed(sys.argv[1]):\n    print('here', flush=True)\n    signal.pause()\n"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", script, address], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        with pytest.raises(ConfigError, match=f"pid {process.pid} has it"), claimed(address):
            pass
        process.kill()
        process.wait()
        assert os.path.exists(address)
        with claimed(address):
            assert Path(f"{address}.lock").read_text() == f"{os.getpid()}\n"


def test_it_is_given_up_whatever_happens_and_though_somebody_has_removed_it(address: str) -> None:
    with pytest.raises(LookupError), claimed(address):
        raise LookupError
    assert not os.path.exists(address)
    with claimed(address):
        os.unlink(address)
    with claimed(address):
        pass


def test_no_descriptor_is_left(address: str) -> None:
    before = os.listdir("/proc/self/fd")
    for wrong in (address, f"{address}/x"):
        with claimed(address), pytest.raises(ConfigError), claimed(wrong):
            pass
    assert os.listdir("/proc/self/fd") == before


def test_an_address_may_be_a_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with claimed("x.sock"):
        assert (tmp_path / "x.sock").is_socket()


def test_an_address_that_is_too_long_is_refused(tmp_path: Path) -> None:
    room = MOST - len(f"{tmp_path}/")
    with claimed(f"{tmp_path}/{'x' * room}"):
        pass
    for longer in ("x" * (room + 1), "ü" * (room // 2 + 1)):
        with (
            pytest.raises(ConfigError, match=r"^address must be a path of at most 100 bytes"),
            claimed(f"{tmp_path}/{longer}"),
        ):
            pass


def test_one_where_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"^address must be a path where a socket can be made \("),
        claimed(f"{tmp_path}/file/x.sock"),
    ):
        pass


def test_one_where_something_else_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sock").mkdir()
    with pytest.raises(ConfigError, match=r"^address must be "), claimed(f"{tmp_path}/x.sock"):
        pass


def test_a_directory_that_somebody_else_has_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in /tmp, where everybody can make one of this name."""
    (tmp_path / "loadshed-7").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    with (
        pytest.raises(ConfigError, match=r"\(\S+/loadshed-7 belongs to somebody else\)"),
        claimed(f"{tmp_path}/loadshed-7/x.sock"),
    ):
        pass
    (tmp_path / "shared").mkdir()
    with claimed(f"{tmp_path}/shared/x.sock"):  # one that the user has named
        pass


# save and load.


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state" / "goal.json"
    values: list[object] = [{"a": [1, None, "ü"]}, {"b": {}}]
    for value in values:
        save(path, value)
        assert load(path) == value
    assert os.listdir(path.parent) == ["goal.json"]
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_where_nothing_was_saved_there_is_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "goal.json") is None
    assert load(tmp_path / "state" / "goal.json") is None


@pytest.mark.parametrize("written", [b"{", b"", b"\xff"])
def test_what_can_not_be_read_is_told_of(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "goal.json"
    path.write_bytes(written)
    with pytest.raises(ConfigError, match=r"^resume must be what a server has saved \("):
        load(path)


def test_a_directory_in_its_place_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("at", ["json.dump", "os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()], ids=type)
def test_what_was_saved_stays_where_saving_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, error: BaseException
) -> None:
    path = tmp_path / "goal.json"
    save(path, 1)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(at, fail)
        with pytest.raises(type(error)):
            save(path, 2)
    assert load(path) == 1
    assert os.listdir(tmp_path) == ["goal.json"]


def test_what_is_no_data_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "goal.json"
    with pytest.raises(TypeError):
        save(path, {"a": object()})
    assert os.listdir(tmp_path) == []


def test_it_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_file():
            assert json.loads(path.read_text()) == [1]
        events.append("directory" if path == tmp_path else "file")
        fsync(descriptor)

    def note_replace(*args: str) -> None:
        events.append("replace")
        replace(*args)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    save(tmp_path / "goal.json", [1])
    assert events == ["file", "replace", "directory"]
    assert _address.load(tmp_path / "goal.json") == [1]
