"""What the replicas of these tests serve. It is imported by them, by its name."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def die_waiting() -> None:
    """Wait for the end."""
    threading.Event().wait()


def double(x: Any) -> Any:
    return 2 * x


def numbers(n: int) -> Iterator[int]:
    yield from range(n)


async def same(x: Any) -> Any:
    return x


def until(path: str) -> int:
    """Say that it is here, and stay until told to go."""
    Path(path, f"here-{os.getpid()}-{time.monotonic_ns()}").touch()
    while not Path(path, "go").exists():
        time.sleep(0.002)
    return os.getpid()


async def until_async(path: str) -> int:
    """The same, of an async function; and it tells of its cancellation."""
    Path(path, f"here-{os.getpid()}-{time.monotonic_ns()}").touch()
    try:
        while not Path(path, "go").exists():
            await asyncio.sleep(0.002)
    except asyncio.CancelledError:
        Path(path, "cancelled").touch()
        raise
    return os.getpid()


class Model:
    """Has state, settings, and ways to die."""

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor
        self.config: Any = None
        self.sick = False

    def __call__(self, x: Any) -> Any:
        return self.factor * x

    def pid(self) -> int:
        return os.getpid()

    def threads(self) -> int:
        return sum(each.name == "loadshed call" for each in threading.enumerate())

    def configuration(self) -> tuple[int, Any]:
        return os.getpid(), self.config

    def reconfigure(self, config: Any) -> None:
        if isinstance(config, dict):
            if config.get("refused by") in ("all", os.getpid()):
                raise ValueError("not that one")
            if self.config == "stay" and config == {}:
                raise ValueError("no way back")
        self.config = config

    def until(self, path: str) -> int:
        return until(path)

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    def blocks(self, n: int, size: int) -> Iterator[bytes]:
        yield from [b"x" * size] * n

    def exit(self, code: int) -> None:
        os._exit(code)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(os.getpid(), number)
        die_waiting()

    def nonsense(self) -> None:
        """Write into the middle of the conversation."""
        for descriptor in range(3, 500):
            try:
                os.write(descriptor, b"\xff" * 64)
            except OSError:
                continue
        die_waiting()

    def deafen(self) -> None:
        """Hold the GIL."""
        import ctypes  # noqa: PLC0415

        ctypes.PyDLL(None).sleep(1000)

    def fall_ill(self) -> None:
        self.sick = True

    def check_health(self) -> None:
        if self.sick:
            raise RuntimeError("I feel ill")

    def fork_and_exit(self) -> int:
        """Die, with a child that keeps the socket open."""
        child = os.fork()
        if not child:
            die_waiting()
        return child


class SlowModel(Model):
    """Its constructor takes until it is told."""

    def __init__(self, path: str) -> None:
        super().__init__()
        until(path)


class Stubborn(Model):
    """Doesn't mind SIGTERM."""

    def __init__(self) -> None:
        super().__init__()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


class FailsWhereItIsTold:
    """Its constructor looks into a directory."""

    def __init__(self, path: str) -> None:
        if Path(path, "broken").exists():
            raise RuntimeError("no model today")
        if Path(path, "exits").exists():
            sys.exit("out of here")

    def __call__(self) -> int:
        return os.getpid()

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        die_waiting()


class OnlyInOneProcess:
    """Its unpickling fails in a replica."""

    def __reduce__(self) -> Any:
        return made_in, (os.getpid(),)


def made_in(pid: int) -> OnlyInOneProcess:
    if pid != os.getpid():
        raise LookupError("not in this process")
    return OnlyInOneProcess()


class Learner:
    """Takes as long as it is told to become something else."""

    def __init__(self) -> None:
        self.history: list[str] = []

    def reconfigure(self, config: tuple[str, str | None]) -> None:
        name, path = config
        if path is not None:
            until(path)
        self.history.append(name)

    def became(self) -> list[str]:
        return self.history


class Sociable:
    """Takes back what it was, once it was told to be bad, only together with the others.

    Args:
        directory: Where they meet.
        count: How many they are.
    """

    def __init__(self, directory: str, count: int) -> None:
        self._directory = Path(directory)
        self._count = count

    def reconfigure(self, config: str) -> None:
        if config == "bad":
            self._directory.joinpath("bad").touch()
            raise ValueError("bad")
        if self._directory.joinpath("bad").exists():
            self._directory.joinpath(f"back-{os.getpid()}").touch()
            while len([*self._directory.glob("back-*")]) < self._count:
                time.sleep(0.002)
