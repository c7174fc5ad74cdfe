"""Slots: whatever callers and replicas do, in whatever order. No process is started."""

import asyncio
import math
import os
import sys
from collections import Counter
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest
import trio
import trio.testing
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loadshed import (
    NotPicklableError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaPool,
    ReplicaState,
    ReplicaUnavailableError,
)
from loadshed._pool.call import Call
from tests.helpers import settle
from tests.pool.fakes import Caller, Fake, open_pool

MOST = st.sampled_from([1, 1, 2, 3, math.inf])


class SlotsMachine(RuleBasedStateMachine):
    steps = ended = 0
    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self.runner.get_loop()
        self.pool = open_pool()
        self.slots, self.limiter = self.pool._slots, self.pool._limiter
        self.replicas: list[Fake] = []
        self.tasks: dict[Caller, asyncio.Task[None]] = {}
        self.cancelled: set[Caller] = set()
        self.watch: asyncio.Task[None] | None = None
        self.refused = self.dismissed = False
        self.at_once = 0  # how many things more happen before any task runs
        # Since all tasks waited:
        self.events = 0
        self.new: list[Caller] = []
        self.was_refused = self.was_dismissed = False
        # When all tasks waited:
        self.had_room = self.was_full = False
        self.without_slot: list[Caller] = []
        self.queue: list[Caller] = []

    # What happens.

    @rule(count=st.integers(2, 4))
    def some_things_happen_at_once(self, count: int) -> None:
        self.at_once = count

    @precondition(lambda self: self.at_once)
    @rule()
    def each_task_runs_once(self) -> None:
        self.loop.run_until_complete(checkpoint())

    @rule(count=st.integers(1, 3), streams=st.booleans(), sendable=st.integers(0, 5))
    def requests_come(self, count: int, streams: bool, sendable: int) -> None:
        for _ in range(count):
            caller = Caller(self.pool, streams=streams, sendable=sendable > 0)
            self.new.append(caller)
            self.tasks[caller] = self.loop.create_task(caller.run())

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), retires=st.sampled_from([False, False, True]))
    def a_request_is_answered(self, data: st.DataObject, retires: bool) -> None:
        replica, call = data.draw(st.sampled_from(self.calls))
        replica.answer(call)
        if retires:  # so somebody's turn may have come, and there is no slot for it
            replica.take(0)
            self.slots.changed()

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def a_caller_is_cancelled(self, data: st.DataObject) -> None:
        self.cancel(data.draw(st.sampled_from(self.there)))

    def cancel(self, caller: Caller) -> None:
        self.seen["cancelled without a slot"] += caller in self.without_slot
        self.cancelled.add(caller)
        self.tasks[caller].cancel()

    @precondition(lambda self: len(self.replicas) < 3)
    @rule(most=MOST)
    def a_replica_is_added(self, most: float) -> None:
        self.replicas.append(Fake(self.slots, most))

    @rule(mosts=st.lists(st.none() | MOST | st.just(0), min_size=3, max_size=3))
    def some_take_more_or_fewer_or_retire(self, mosts: list[float | None]) -> None:
        for replica, most in zip(self.running, mosts, strict=False):
            if most is not None:
                replica.take(most)
        self.slots.changed()

    @precondition(lambda self: self.replicas)
    @rule(data=st.data(), unsent=st.sampled_from([0, 1, 2, 99]))
    def a_replica_dies(self, data: st.DataObject, unsent: int) -> None:
        data.draw(st.sampled_from(self.replicas)).die(unsent)

    @rule()
    def those_that_have_ended_are_removed(self) -> None:
        ended = {each for each in self.replicas if not (each.max_ongoing_requests or each.ongoing)}
        self.replicas = [each for each in self.replicas if each not in ended]
        there: Any = self.slots.replicas
        for each in [each for each in there if each in ended]:
            self.slots.remove(each)

    @precondition(lambda self: self.calls)
    @rule()
    def all_replicas_die_before_they_have_seen_anything(self) -> None:
        for replica in self.replicas:
            replica.die(unsent=99)

    @precondition(lambda self: self.without_slot and not self.dismissed)
    @rule()
    def those_without_a_slot_are_turned_away(self) -> None:
        self.slots.dismiss(ReplicaUnavailableError)
        self.refused = self.dismissed = self.was_refused = self.was_dismissed = True

    @precondition(lambda self: any(caller in self.without_slot for caller in self.there))
    @rule()
    def one_without_a_slot_is_cancelled(self) -> None:
        self.cancel(next(caller for caller in self.there if caller in self.without_slot))

    @rule(what=st.sampled_from(["serve"] * 6 + ["refuse", "dismiss"]))
    def it_is_opened_or_closed(self, what: str) -> None:
        if what == "serve":
            self.slots.serve()
            self.refused = self.dismissed = False
            return
        (self.slots.dismiss if what == "dismiss" else self.slots.refuse)(ReplicaUnavailableError)
        self.refused, self.dismissed = True, self.dismissed or what == "dismiss"
        self.was_refused, self.was_dismissed = True, self.was_dismissed or self.dismissed

    @rule(bound=st.integers(0, 4))
    def the_queue_is_resized(self, bound: int) -> None:
        self.limiter._resize(self.limiter.max_ongoing_requests, bound)  # as `reconfigure` does

    @precondition(lambda self: self.watch is None)
    @rule()
    def somebody_waits_until_it_is_empty(self) -> None:
        self.watch = self.loop.create_task(self.until_empty())

    async def until_empty(self) -> None:
        await self.slots.empty()
        now = self.limiter.statistics()
        assert (now.ongoing, now.queued) == (0, 0)

    # What can be chosen from.

    @property
    def calls(self) -> list[tuple[Fake, Call]]:
        return [(replica, call) for replica in self.replicas for call in replica.calls]

    @property
    def there(self) -> list[Caller]:
        left = self.cancelled
        return [each for each, task in self.tasks.items() if not (task.done() or each in left)]

    @property
    def running(self) -> list[Fake]:
        return [each for each in self.replicas if each.state is ReplicaState.RUNNING]

    # What holds.

    @invariant()
    def it_is_as_it_should_be(self) -> None:
        type(self).steps += 1
        room = sum(max(each.max_ongoing_requests, each.ongoing) for each in self.replicas)
        assert self.limiter.max_ongoing_requests == room
        self.events += 1
        self.at_once = max(0, self.at_once - 1)
        if not self.at_once:
            self.all_run()

    def all_run(self) -> None:
        """Let all tasks run until they wait, and see what has become of everything."""
        self.loop.run_until_complete(settle())
        for caller in [caller for caller, task in self.tasks.items() if task.done()]:
            self.it_ended_as_it_should(caller, self.tasks.pop(caller))
        for caller in self.tasks:
            assert caller not in self.cancelled
            assert caller.call is None or caller.call.is_unsent or not caller.call.is_over
        for replica in self.replicas:
            assert replica.ongoing == len(replica.calls)
            gone = [call for call, caller in replica.calls.items() if caller in self.cancelled]
            assert gone == [call for call in replica.calls if call.has_left]
            assert gone == [call for call in replica.calls if replica.deserted.count(call) == 1]
        self.see_who_waits()
        now = self.limiter.statistics()
        if self.watch is not None and self.watch.done():
            self.watch.result()
            self.watch = None
        assert self.watch is None or now.ongoing or now.queued
        self.new, self.events = [], 0
        self.was_refused, self.was_dismissed = self.refused, self.dismissed

    def it_ended_as_it_should(self, caller: Caller, task: asyncio.Task[None]) -> None:
        outcome = caller.outcome
        if caller in self.cancelled:
            assert task.cancelled()
        elif caller.is_served:
            assert caller.expected in (type(outcome), outcome)
        elif isinstance(outcome, ReplicaUnavailableError):
            assert self.was_refused if caller in self.new else self.was_dismissed
        elif isinstance(outcome, QueueFullError):
            assert caller in self.new
        else:
            assert isinstance(outcome, NotPicklableError)
            assert not caller.sendable

    def see_who_waits(self) -> None:
        now = self.limiter.statistics()
        waiting = [caller for caller in self.tasks if not caller.is_served]
        entering = [caller for caller in waiting if not caller.begun]
        queue = entering[len(entering) - now.queued :]  # who has got a permit came before
        without_slot = [caller for caller in waiting if caller not in queue]
        assert len(queue) == now.queued
        assert now.ongoing == sum(each.ongoing for each in self.replicas) + len(without_slot)
        has_room = any(each.ongoing < each.max_ongoing_requests for each in self.replicas)
        assert not (waiting and (has_room or self.dismissed))
        if self.events == 1:  # else what there was room for may be gone before anybody could go
            self.nobody_was_overtaken(waiting)
            if len(self.new) == 1:
                self.it_was_let_in_if_it_could_be(*self.new)
        self.without_slot, self.queue = without_slot, queue
        self.had_room, self.was_full = has_room, now.queued >= now.max_queued_requests
        self.seen["without a slot"] += bool(without_slot)
        self.seen["several without a slot"] += len(without_slot) > 1
        self.seen["without a slot, before a queue"] += bool(without_slot and queue)

    def nobody_was_overtaken(self, waiting: list[Caller]) -> None:
        """Those without a slot come before the queue, that in its order, and last who is new."""
        ranks = dict.fromkeys(self.without_slot, 0)
        ranks |= {caller: place for place, caller in enumerate([*self.queue, *self.new], 1)}
        stayed = [rank for caller, rank in ranks.items() if caller in waiting]
        went = [rank for caller, rank in ranks.items() if caller.begun and caller not in waiting]
        assert not (went and stayed) or max(went) <= min(stayed)

    def it_was_let_in_if_it_could_be(self, caller: Caller) -> None:
        assert isinstance(caller.outcome, ReplicaUnavailableError) is self.refused
        if not self.refused:
            assert caller.begun == self.had_room
            is_shed = isinstance(caller.outcome, QueueFullError)
            assert is_shed is (self.was_full and not self.had_room)

    def teardown(self) -> None:
        with self.runner:
            if sys.exc_info()[0] is None:
                self.whoever_waits_is_served_in_the_end()

    def whoever_waits_is_served_in_the_end(self) -> None:
        self.all_run()
        self.replicas.append(Fake(self.slots, 1))
        self.all_run()
        while calls := self.calls:
            for replica, call in calls:
                replica.answer(call)
            self.all_run()
        now = self.limiter.statistics()
        assert (now.ongoing, now.queued, now.completed) == (0, 0, now.admitted)
        assert not self.tasks
        assert self.watch is None
        type(self).ended += 1


def test_nobody_waits_in_vain_and_nothing_gets_lost_however_long_it_goes_on() -> None:
    run_state_machine_as_test(SlotsMachine)
    print(f"{SlotsMachine.steps:,} steps of the state machine, {dict(SlotsMachine.seen)}")
    soaking = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
    assert SlotsMachine.steps >= (100_000 if soaking else 5_000)
    assert SlotsMachine.ended >= (2000 if soaking else 150)
    assert SlotsMachine.seen["without a slot"] > 0


# What is not in the machine: trio, time, and which of several replicas takes a request.


async def a_call(pool: ReplicaPool, tasks: TaskGroup) -> tuple[Caller, anyio.CancelScope]:
    caller, scope = Caller(pool), anyio.CancelScope()

    async def run() -> None:
        with scope:
            await caller.run()

    tasks.start_soon(run)
    await settle()
    return caller, scope


async def everything_ends(pool: ReplicaPool) -> None:
    replicas: Any = pool._slots.replicas
    for replica in replicas:
        for call in [*replica.calls]:
            replica.answer(call)
    with anyio.fail_after(100):
        await pool._slots.empty()
    now = pool._limiter.statistics()
    assert (now.ongoing, now.queued, now.completed) == (0, 0, now.admitted)


@pytest.mark.anyio
@pytest.mark.parametrize("leaves_first", [True, False])
@pytest.mark.parametrize("place", ["queued", "without a slot", "given back"])
async def test_one_who_leaves_as_its_turn_comes_keeps_nothing(
    place: str, leaves_first: bool
) -> None:
    pool = open_pool()
    replica = Fake(pool._slots, 1)
    async with anyio.create_task_group() as tasks:
        caller, scope = await a_call(pool, tasks)
        turn: Any = partial(replica.die, 1)
        if place != "given back":
            caller, scope = await a_call(pool, tasks)
            turn = partial(replica.answer, *replica.calls)
        if place == "without a slot":
            turn()
            replica.die(0)  # it was the caller's turn, and it could not go yet
            await settle()
            turn = partial(Fake, pool._slots, 1)
        for step in (scope.cancel, turn) if leaves_first else (turn, scope.cancel):
            step()
        await settle()
        Fake(pool._slots, 1)
        another, _ = await a_call(pool, tasks)
        assert another.is_served
        await everything_ends(pool)
    assert (caller.outcome, another.outcome) == (None, "the answer")


@pytest.mark.anyio
async def test_a_request_goes_where_there_is_less_to_do_and_then_where_it_is_quicker() -> None:
    pool = open_pool()
    slow, quick = Fake(pool._slots, 3), Fake(pool._slots, 3)
    slow.latency.observe(9, anyio.current_time())
    quick.latency.observe(1, anyio.current_time())
    seen = []
    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            await a_call(pool, tasks)
            seen.append((slow.ongoing, quick.ongoing))
        await everything_ends(pool)
    assert seen == [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)]


def test_it_is_empty_once_the_last_has_waited_long_enough() -> None:
    async def main() -> None:
        pool = open_pool(max_wait=60)
        async with anyio.create_task_group() as tasks:
            caller, _ = await a_call(pool, tasks)
            await everything_ends(pool)
        assert isinstance(caller.outcome, QueueTimeoutError)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
