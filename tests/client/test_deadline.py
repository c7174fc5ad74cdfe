"""`with deadline(2.0):` in threads, on asyncio, uvloop and trio."""

import asyncio
import contextvars
import math
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from loadshed import ConfigError
from loadshed._clock import SharedClock
from loadshed.client import deadline
from loadshed.client._deadline import UNBOUNDED, Bound, bound, within

VIRTUAL = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
    pytest.param(("trio", {"clock": trio.testing.MockClock()}), id="virtual"),
]
SOON = 5.0
"""Seconds that no test takes."""


@pytest.fixture(params=VIRTUAL)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    assert bound.get() is UNBOUNDED
    yield
    assert bound.get() is UNBOUNDED


def left() -> float:
    """Seconds that whatever is done now has, as the transports see it."""
    return bound.get().ends_at - SharedClock().now()


def is_about(seconds: float) -> Any:
    """This, or what is left of it in a test. (uvloop's time stands still while a callback runs.)"""
    return pytest.approx(seconds, abs=SOON)


@pytest.mark.anyio
async def test_it_ends_after_so_many_seconds() -> None:
    assert left() == math.inf
    with deadline(100) as limit:
        assert limit.remaining() == is_about(100)
        assert left() == is_about(100)
        assert bound.get().explicit == bound.get().ends_at
    assert left() == math.inf


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("outer", "inner", "both"),
    [(100, 50, 50), (50, 100, 50), (math.inf, 50, 50), (50, math.inf, 50)],
)
async def test_of_two_the_one_that_ends_first_counts(
    outer: float, inner: float, both: float
) -> None:
    with deadline(outer):
        with deadline(inner) as limit:
            assert left() == is_about(both)
            assert bound.get().explicit == bound.get().ends_at
            assert limit.remaining() == (inner if inner == math.inf else is_about(inner))
        assert left() == (outer if outer == math.inf else is_about(outer))


@pytest.mark.anyio
async def test_one_that_ends_later_does_not_outlast_the_one_around_it() -> None:
    with deadline(0), deadline(100) as inner:
        assert left() <= 0
        assert inner.remaining() == is_about(100)  # its own; it can't lengthen the other


@pytest.mark.anyio
async def test_no_seconds_are_over_at_once() -> None:
    with deadline(0) as limit:
        assert limit.remaining() == 0
        assert left() <= 0


@pytest.mark.anyio
async def test_what_is_started_in_the_block_has_the_same_deadline() -> None:
    seen: list[float] = []

    async def task() -> None:
        seen.append(left())
        with deadline(10):
            seen.append(left())

    with deadline(100):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
        assert left() == is_about(100)
    assert seen == [is_about(100), is_about(10)]


@pytest.mark.anyio
async def test_a_worker_thread_has_the_deadline_of_who_waits_for_it() -> None:
    with deadline(100) as limit:
        found = await anyio.to_thread.run_sync(lambda: (left(), limit.remaining()))
    assert found == (is_about(100), is_about(100))


@pytest.mark.anyio
async def test_one_that_is_entered_in_a_worker_thread_counts_there_and_in_the_loop() -> None:
    """Each for itself: the thread has a copy of the context."""

    def work() -> tuple[float, float]:
        with deadline(100):
            return left(), anyio.from_thread.run_sync(left)

    assert await anyio.to_thread.run_sync(work) == (is_about(100), is_about(100))
    assert left() == math.inf


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run])
def test_one_that_is_entered_before_the_loop_runs_counts_in_it(run: Any) -> None:
    async def main() -> tuple[float, float]:
        with deadline(10):
            return outer.remaining(), left()

    with deadline(100) as outer:
        assert run(main) == (is_about(100), is_about(10))
        assert left() == is_about(100)


def test_in_a_thread_of_its_own_there_is_none_unless_the_context_is_copied() -> None:
    seen: list[float] = []
    with deadline(100):
        context = contextvars.copy_context()
        for target in (left, lambda: context.run(left)):
            thread = threading.Thread(target=lambda target=target: seen.append(target()))
            thread.start()
            thread.join()
    assert seen == [math.inf, is_about(100)]


# Virtual time.


def test_what_is_left_grows_less_as_trio_has_it() -> None:
    async def main() -> None:
        with deadline(100) as limit:
            assert limit.remaining() == left() == pytest.approx(100)
            await trio.sleep(40)
            assert limit.remaining() == pytest.approx(60)
            with deadline(100):
                assert left() == pytest.approx(60)
            await trio.sleep(70)
            assert limit.remaining() == 0
            assert left() == pytest.approx(-10)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_one_from_outside_the_loop_grows_less_as_trio_has_it() -> None:
    async def main() -> None:
        assert left() == is_about(100)
        await trio.sleep(90)
        assert left() == is_about(10)

    with deadline(100):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        assert left() == is_about(100)  # none of that time has passed here


# The object.


def test_before_the_block_all_of_it_is_left() -> None:
    limit = deadline(2.5)
    assert limit.remaining() == 2.5
    assert repr(limit) == "<deadline 2.500 of 2.5 s left>"
    with limit:
        assert 0 < limit.remaining() <= 2.5
    assert limit.remaining() == 2.5


def test_it_says_how_much_is_left() -> None:
    async def main() -> None:
        with deadline(2.0) as limit, deadline(math.inf) as endless:
            await trio.sleep(0.5)
            assert repr(limit) == "<deadline 1.500 of 2.0 s left>"
            assert repr(endless) == "<deadline inf of inf s left>"
            await trio.sleep(5)
            assert repr(limit) == "<deadline 0.000 of 2.0 s left>"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_one_that_is_in_use_cannot_be_entered_again() -> None:
    limit = deadline(100)
    with limit:
        with pytest.raises(RuntimeError, match="This deadline is in use: make one for each block"):
            limit.__enter__()
        assert left() == is_about(100)
    with limit:  # one after the other is all right
        assert left() == is_about(100)


def test_it_ends_with_the_block_however_that_ends() -> None:
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught, deadline(100):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("seconds", [-1, -0.001, "1", None, True, math.nan, -math.inf, [], 10**400])
def test_seconds_are_a_number_from_0_up(seconds: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        deadline(seconds)
    assert str(caught.value) == (f"seconds must be a number >= 0, or math.inf, not {seconds!r}.")


# The library's own.


@pytest.mark.parametrize(
    ("outer", "seconds", "expected"),
    [
        (UNBOUNDED, 5, Bound(105, math.inf)),
        (UNBOUNDED, math.inf, UNBOUNDED),
        (Bound(103, 103), 5, Bound(103, 103)),
        (Bound(109, 109), 5, Bound(105, 109)),
        (Bound(104, math.inf), 5, Bound(104, math.inf)),
    ],
)
def test_a_deadline_of_the_librarys_own_bounds_all_but_the_bodies_of_streams(
    outer: Bound, seconds: float, expected: Bound
) -> None:
    outer_token = bound.set(outer)
    token = within(seconds, 100)
    assert bound.get() == expected
    bound.reset(token)
    assert bound.get() == outer
    bound.reset(outer_token)
