"""What the replicas of test_replica.py serve. It is imported by them, by its name."""

import asyncio
import contextlib
import ctypes
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.pool.targets import until


def double(x: int) -> int:
    return 2 * x


async def triple(x: int) -> int:
    return 3 * x


def awaitable(x: int) -> Any:
    """Not async, as far as can be seen."""
    return triple(x)


def count(n: int) -> Iterator[int]:
    yield from range(n)


twice = partial(double)
thrice = partial(partial(triple))
number = 5


class Outer:
    class Inner:
        @staticmethod
        def quadruple(x: int) -> int:
            return 4 * x


class Unsendable:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


class Unreceivable:
    """It can be pickled, and not be made again."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("not here")


class NeedsTwo(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("held")
        self.lock = threading.Lock()


class BecomesAnother(Exception):
    """What it is unpickled to is no exception."""

    def __reduce__(self) -> Any:
        return int, ()


RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "NeedsTwo": lambda: NeedsTwo("one", "two"),
    "HoldsALock": HoldsALock,
    "BecomesAnother": BecomesAnother,
    "KeyError": lambda: KeyError("nothing"),
}


class Plain:
    """Iterates, and can't be closed."""

    def __init__(self) -> None:
        self.left = 2

    def __iter__(self) -> "Plain":
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


class PlainAsync:
    def __init__(self) -> None:
        self.plain = Plain()

    def __aiter__(self) -> "PlainAsync":
        return self

    async def __anext__(self) -> int:
        for item in self.plain:
            return item
        raise StopAsyncIteration


class Service:
    """One object for most of the tests."""

    attribute = 1

    def slowly(self, path: str) -> Any:
        until(path)
        return asyncio.Event().wait()

    def slowly_items(self, path: str) -> Any:
        until(path)
        return self.endless_items()

    async def endless_items(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    def __init__(self, base: int = 0) -> None:
        self.base = base
        self.produced = 0
        self.closed = 0

    def __call__(self, x: int) -> int:
        return self.base + x

    async def add(self, x: int) -> int:
        return self.base + x

    def later(self, x: int) -> Any:
        return self.add(x)

    def later_failing(self) -> Any:
        return self.fail_async("KeyError")

    def pid(self) -> int:
        return os.getpid()

    def fail(self, name: str) -> None:
        raise RAISED[name]()  # noqa: RSE102 - it makes one

    async def fail_async(self, name: str) -> None:
        raise RAISED[name]()  # noqa: RSE102 - it makes one

    def unsendable(self) -> Any:
        return Unsendable()

    async def unsendable_async(self) -> Any:
        return Unsendable()

    def unreceivable(self) -> Any:
        return Unreceivable()

    def same(self, x: Any) -> Any:
        return x

    def counters(self) -> tuple[int, int]:
        return self.produced, self.closed

    def items(self, n: int, size: int = 1) -> Iterator[bytes]:
        try:
            for _ in range(n):
                self.produced += 1
                yield b"x" * size
        finally:
            self.closed += 1

    async def items_async(self, n: int, size: int = 1) -> AsyncIterator[bytes]:
        try:
            for _ in range(n):
                self.produced += 1
                yield b"x" * size
        finally:
            self.closed += 1

    def other_kind(self, n: int) -> Any:
        return self.items_async(n)

    async def other_kind_async(self, n: int) -> Any:
        return self.items_async(n)

    def plain(self) -> Any:
        return Plain()

    async def plain_async(self) -> Any:
        return PlainAsync()

    def bad_item(self) -> Iterator[Any]:
        yield 1
        yield Unsendable()

    async def bad_item_async(self) -> AsyncIterator[Any]:
        yield 1
        yield Unsendable()

    def log(self) -> None:
        logger = logging.getLogger("targets_replica")
        logger.warning("said %s", "this", extra={"thing": threading.Lock(), "plain": 7})
        try:
            RAISED["a reason"]
        except LookupError:
            logger.exception("failed")

    def say(self) -> None:
        print("to stdout")
        print("to stderr", file=sys.stderr)

    async def wait(self, path: str) -> None:
        Path(path, "here").touch()
        try:
            await asyncio.Event().wait()
        finally:
            Path(path, "cancelled").touch()


class Moody:
    """Finds reasons."""

    def __call__(self) -> str:
        return "called"

    @property
    def check_health(self) -> Any:
        raise KeyError("bad mood")

    @property
    def __signature__(self) -> Any:
        raise KeyError("bad mood")


class Configured:
    config: Any = None

    def reconfigure(self, config: Any) -> None:
        if config == "bad":
            raise ValueError("a bad one")
        self.config = config

    def __call__(self) -> Any:
        return self.config

    def check_health(self) -> None:
        if self.config == "sick":
            raise RuntimeError("I am sick")


class ConfiguredAsync:
    config: Any = None

    async def reconfigure(self, config: Any) -> None:
        self.config = config

    async def __call__(self) -> Any:
        return self.config

    async def check_health(self) -> None:
        if self.config == "sick":
            raise RuntimeError("I am sick")


class Exits:
    def __init__(self) -> None:
        raise SystemExit(4)


def hold(path: str) -> None:
    """Busy in a thread of its own, as blocking code is."""
    Path(path, str(os.getpid())).touch()
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


def hold_gil(path: str) -> None:
    """Busy in C, and no other thread of the process runs."""
    Path(path, str(os.getpid())).touch()
    ctypes.PyDLL(None).sleep(1000)
