"""Address: where a server is told what to do, and where it keeps what it is to be."""

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadshed._errors import ConfigError

MOST = 100
"""Bytes that the path of a Unix socket may have: Linux takes 107, macOS 103."""


def default_address() -> str:
    """The socket of a user's server: in the user's runtime directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime):
        return os.path.join(runtime, "loadshed", "control.sock")
    return os.path.join(tempfile.gettempdir(), f"loadshed-{os.getuid()}", "control.sock")


def state_of(address: str) -> Path:
    """Where the server at an address keeps what outlives it, in the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if address == default_address():
        return Path(state, "loadshed", "default")
    digest = hashlib.sha256(os.path.abspath(address).encode()).hexdigest()[:12]
    return Path(state, "loadshed", f"{Path(address).stem}-{digest}")


@contextlib.contextmanager
def claimed(address: str) -> Iterator[socket.socket]:
    """Have an address for oneself: a socket that listens there, for this user alone.

    Raises:
        ConfigError: Another server has it, or it can't be had.
    """
    if len(os.fsencode(address)) > MOST:
        raise ConfigError("address", address, f"a path of at most {MOST} bytes")
    with contextlib.ExitStack() as stack:
        try:
            _make_directory(os.path.dirname(address) or ".")
            lock = os.open(f"{address}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, lock)
            _lock(lock, address)
            _remove(address)  # a server that was killed has left it
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            _bind(listener, address)
            stack.callback(_remove, address)
        except OSError as error:
            expected = f"a path where a socket can be made ({error.strerror or error})"
            raise ConfigError("address", address, expected) from None
        yield listener


def _bind(listener: socket.socket, address: str) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(address)
    finally:
        os.umask(before)
    listener.listen()


def _remove(address: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)


def _make_directory(directory: str) -> None:
    """Make it, for this user alone; where it was made before, by somebody else, refuse it."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if os.path.basename(directory).startswith("loadshed") and (
        os.stat(directory).st_uid != os.getuid()
    ):
        raise PermissionError(1, f"{directory} belongs to somebody else")


def _lock(lock: int, address: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 20, 0).decode().strip() or "unknown"
        expected = f"one that no other server has (pid {pid} has it)"
        raise ConfigError("address", address, expected) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def save(path: Path, value: Any) -> None:
    """Write plain data to a file: all of it, or the file stays as it was, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "w") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """Have the directory on the disk as well: what was renamed in it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(path: Path) -> Any:
    """What was saved; None if nothing was.

    Raises:
        ConfigError: It can't be read.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError("resume", str(path), f"what a server has saved ({error})") from None
