"""ReplicaPool: processes behind one bounded queue."""

import dataclasses
import math
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

import anyio

from loadshed._errors import ReplicaUnavailableError, RequestTimeoutError
from loadshed._limiter import ConcurrencyLimiter
from loadshed._limits import (
    MakeLimit,
    limit_each,
    limit_of_one_more,
    order_of_all,
    shares_of,
    standing_of,
)
from loadshed._policy.admission import Order, length_of_line
from loadshed._policy.criticality import Criticality
from loadshed._policy.settings import positive_seconds, seconds, whole_number
from loadshed._policy.standing import USUAL, Standing
from loadshed._policy.wire import Frame, Kind
from loadshed._pool.application import PoolApplication
from loadshed._pool.block import Block
from loadshed._pool.call import Call
from loadshed._pool.environment import Environment
from loadshed._pool.options import PoolOptions
from loadshed._pool.outward import Peers
from loadshed._pool.plan import Plan
from loadshed._pool.slots import Slots
from loadshed._pool.statistics import PoolStatistics
from loadshed._pool.target import arguments, checked, keywords, name_of
from loadshed._pool.time_limit import TimeLimit
from loadshed._replica import main_module
from loadshed._standing import Standings


class ReplicaPool:
    """Processes that serve calls, behind one bounded queue.

    For code that blocks, computes, or needs a model in memory. Each replica works on up to
    `max_ongoing_requests` calls; up to `max_queued_requests` wait, for whichever replica is free
    first; everybody else gets `QueueFullError` at once. Replicas that die or hang are replaced.

    ```python
    class Model:
        def __init__(self, path: str) -> None:
            self.weights = load(path)

        def __call__(self, x: float) -> float: ...


    async with ReplicaPool(Model, init_args=("model.bin",), num_replicas=4) as pool:
        y = await pool.call(3.0)
    ```

    Functions that are not async run in threads of the replica, async ones in its event loop, which
    is asyncio's, whatever the program's own is. What is sent between the processes is pickled.

    Args:
        target: A class, of which each replica makes one object; a function, async or not; or where
            to import one of these: "package.module:name". A replica imports it anew, so it has to
            be at the top level of a module.
        init_args: What the class is called with.
        init_kwargs: The same, by name.
        num_replicas: How many processes: a whole number >= 1.
        max_ongoing_requests: How many calls each of them works on at once: a whole number >= 1, or
            `math.inf`; or a callable, called for each replica, that makes the `Limit` which finds
            the number. By default, or where it is "auto", that is `KneeLimit`.
        max_queued_requests: How many calls wait, in all: a whole number >= 0, or `math.inf`. By
            default as many as all replicas work on; twice as many, and at least 10, where the
            order is "adaptive_lifo".
        max_wait: How many seconds a call waits at most before it gets `QueueTimeoutError`. By
            default as long as its caller wants to.
        order: Who goes first, "fifo" or "adaptive_lifo"; as for `ConcurrencyLimiter`, like the next
            three.
        shares: The part of all slots that each class gets at least while it has work.
        max_tenants: How many tenants are told apart at most.
        tenant_share: The part of the queue that one tenant may take in a class.
        priority: For `asgi`: is given the scope and returns how much the request matters, as for
            `LoadShedMiddleware`; like the next three. For calls there is `options`.
        trust_criticality: Whether to believe callers who say that themselves, in a header.
        tenant: Is given the scope and returns whose request it is.
        cost: How many slots a request takes, or a callable that is given the scope and returns it.
        request_timeout_s: How many seconds a call may take, waiting included. Then its caller gets
            `RequestTimeoutError`. By default there is no limit.
        user_config: Handed to the target's `reconfigure` in each replica, before the first call
            and whenever `reconfigure` of the pool changes it.
        health_check_period_s: How many seconds pass between two health checks of a replica. None is
            never. The target's `check_health` is called, where it has one.
        health_check_timeout_s: How many seconds a health check may take. After three in a row that
            fail, the replica is killed and replaced.
        graceful_shutdown_timeout_s: How many seconds a replica has to finish what it works on when
            the pool, or the replica, is stopped. Then it is terminated, then killed.
        name: What the pool is called in the log, and its replicas in theirs. By default like its
            target.

    Raises:
        ConfigError: A setting is not what it may be.
    """

    def __init__(
        self,
        target: Any,
        *,
        init_args: Sequence[Any] = (),
        init_kwargs: Mapping[str, Any] | None = None,
        num_replicas: int = 1,
        max_ongoing_requests: float | Literal["auto"] | MakeLimit | None = None,
        max_queued_requests: float | None = None,
        max_wait: float | None = None,
        order: Order | None = None,
        shares: Mapping[Criticality, float] | None = None,
        max_tenants: int = 1000,
        tenant_share: float = 0.5,
        priority: Callable[[Any], Criticality | str | None] | None = None,
        trust_criticality: bool = False,
        tenant: Callable[[Any], Hashable] | None = None,
        cost: Callable[[Any], int] | int = 1,
        request_timeout_s: float | None = None,
        user_config: Any = None,
        health_check_period_s: float | None = 10,
        health_check_timeout_s: float | None = 30,
        graceful_shutdown_timeout_s: float | None = 20,
        name: str | None = None,
    ) -> None:
        grace = seconds("graceful_shutdown_timeout_s", graceful_shutdown_timeout_s)
        self._plan = Plan(
            name=name_of(target) if name is None else name,
            target=checked(target),
            init_args=arguments(init_args),
            init_kwargs=keywords(init_kwargs),
            config=() if user_config is None else (user_config,),
            max_ongoing_requests=limit_each(max_ongoing_requests),
            request_timeout_s=seconds("request_timeout_s", request_timeout_s),
            health_check_period_s=positive_seconds("health_check_period_s", health_check_period_s),
            health_check_timeout_s=positive_seconds(
                "health_check_timeout_s", health_check_timeout_s
            ),
            grace=math.inf if grace is None else grace,
        )
        self._order = order
        self._num_replicas = _replica_count(num_replicas)
        self._max_queued = _queue_bound(max_queued_requests)
        self._limiter = ConcurrencyLimiter(
            1,
            0,
            max_wait=max_wait,
            order=self._order_now,
            shares=shares,
            max_tenants=max_tenants,
            tenant_share=tenant_share,
            name=self.name,
        )
        self._limiter._resize(0, self._queue_bound)
        self._peers: Peers = {}
        self._slots = Slots(self._limiter)
        self._slots.refuse(self._closed)
        self._application = PoolApplication(
            self._unless_running, self._slots, self._plan.request_timeout_s
        )
        self._application.standings = Standings(
            priority=priority, trust_criticality=trust_criticality, tenant=tenant, cost=cost
        )
        self._last_version = 0
        self._restarted = 0  # in former blocks
        self._block: Block | None = None

    @property
    def name(self) -> str:
        """What the pool is called."""
        return self._plan.name

    def statistics(self) -> PoolStatistics:
        """What it did so far and what is going on: a snapshot."""
        crew = None if self._block is None else self._block.crew
        limiter = self._limiter.statistics()
        fields = {each.name: getattr(limiter, each.name) for each in dataclasses.fields(limiter)}
        return PoolStatistics(
            **fields,
            restarts=self._restarted + (0 if crew is None else crew.restarted),
            replicas=() if crew is None else tuple(each.statistics() for each in crew.replicas),
        )

    def __repr__(self) -> str:
        statistics = self.statistics()
        return (
            f"<{type(self).__name__} {self.name!r} replicas={len(statistics.replicas)}/"
            f"{self._num_replicas} ongoing={statistics.ongoing}/{statistics.max_ongoing_requests} "
            f"queued={statistics.queued}/{statistics.max_queued_requests}>"
        )

    # The block.

    async def __aenter__(self) -> Self:
        """Start all replicas, side by side; returns when all of them serve.

        Raises:
            ReplicaUnavailableError: One could not be started; it carries its traceback. No process
                is left.
            ConfigError: A setting is not one that the target can have.
        """
        if main_module.is_importing():
            raise RuntimeError(
                "A replica has to import its target, and that would start a pool again. What "
                'starts the pool has to be below `if __name__ == "__main__":`.'
            )
        if self._block is not None:
            raise RuntimeError("The pool is running already.")
        self._block = block = Block(self._slots, self._plan, self._closed, self._peers)
        try:
            await block.enter(self._num_replicas)
        except BaseException:
            self._forget(block)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let calls that came be served, then end all replicas.

        In all that takes at most `graceful_shutdown_timeout_s`; then they are terminated. Where the
        block is left because it was cancelled, calls that still wait are turned away.
        """
        block = self._running
        try:
            await block.leave(serve_queue=exc is None or isinstance(exc, Exception))
        finally:
            self._forget(block)

    def _forget(self, block: Block) -> None:
        self._restarted += block.crew.restarted
        self._block = None

    def _closed(self) -> ReplicaUnavailableError:
        return ReplicaUnavailableError(
            f"The pool {self.name!r} takes no calls: `async with pool:` has not been entered, or "
            "is being left."
        )

    # Calls.

    @property
    def asgi(self) -> PoolApplication:
        """The pool as an ASGI application, where the target is one.

        A request goes to the replica that is free first, and both bodies are streamed. It holds its
        slot until the application in the replica is done with it. Requests beyond the bounds, and
        those that take too long, are answered as `LoadShedMiddleware` does; one whose replica died
        gets 502, one for which there is no replica 503. Where the response has begun, the
        connection is broken off.

        Its lifespan starts and stops the pool, unless that is running already. The lifespan of the
        application runs in each replica.
        """
        return self._application

    def _unless_running(self) -> AbstractAsyncContextManager[object]:
        return self if self._block is None else nullcontext()

    async def call(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the target, or the object that was made of it, in a replica.

        Returns:
            What it returns.

        Raises:
            QueueFullError: Too many calls wait already.
            QueueTimeoutError: `max_wait` passed.
            RequestTimeoutError: `request_timeout_s` passed.
            ReplicaDiedError: The replica died meanwhile. Whether it was done is not known.
            ReplicaUnavailableError: No replica can be started, or the pool is not running.
            NotPicklableError: An argument, or the result, can't be sent.
            ReplicaError: The target raised what is no `Exception`, or can't be sent.
            Exception: Whatever the target raised, with its traceback as a note.
        """
        return await self._call(USUAL, None, args, kwargs)

    async def call_method(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the target: `call`, for another name."""
        return await self._call(USUAL, name, args, kwargs)

    def stream(self, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Call a target that is a generator, async or not, and get its items as they come.

        The generator is at most 256 KiB, and one item, ahead of who consumes them. A consumer that
        may leave early closes it (`contextlib.aclosing`); then the generator in the replica is
        closed as well. It holds its slot from the first item's being asked for to the end.

        Raises:
            Exception: What `call` raises; when the items are asked for.
        """
        return self._stream(USUAL, None, args, kwargs)

    def stream_method(self, name: str, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Get the items of a method of the target: `stream`, for another name."""
        return self._stream(USUAL, name, args, kwargs)

    def options(
        self,
        *,
        priority: Criticality | str = Criticality.CRITICAL,
        tenant: Hashable = None,
        cost: int = 1,
    ) -> PoolOptions:
        """The pool, for calls that are not like most.

        ```python
        await pool.options(priority="sheddable", tenant="acme").call(x)
        ```

        Args:
            priority: How much they matter, as for `ConcurrencyLimiter.acquire`; like the others.
            tenant: Whose they are.
            cost: How many slots each takes of all that the replicas have together.

        Raises:
            ConfigError: One is not what it may be.
        """
        return PoolOptions(self, standing_of(priority, tenant, cost))

    async def _call(
        self, standing: Standing, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return (await self._outcome((name, args, kwargs), standing)).result()

    async def _outcome(self, value: object, standing: Standing = USUAL) -> Call:
        timeout = self._plan.request_timeout_s
        if timeout is None:
            return await self._answer(value, standing)
        with anyio.move_on_after(timeout):
            return await self._answer(value, standing)
        raise RequestTimeoutError(timeout)

    async def _answer(self, value: object, standing: Standing) -> Call:
        slots = self._slots
        waiter = await slots.enter(standing)
        while True:
            call = await slots.begin(Kind.CALL, value, waiter)
            try:
                await call.answered()
            except BaseException:
                slots.abandon(call)
                raise
            if not call.is_unsent:
                return call

    async def _stream(
        self, standing: Standing, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(self._frames((name, args, kwargs), standing)) as frames:
            async for call, frame in frames:
                if frame.kind == Kind.ITEM:
                    yield call.consumed(frame)
                else:
                    call.result()

    async def _frames(
        self, value: object, standing: Standing = USUAL
    ) -> AsyncGenerator[tuple[Call, Frame], None]:
        """The frames of a generator's items, and then the last one."""
        slots = self._slots
        time = TimeLimit(self._plan.request_timeout_s)
        with time:
            waiter = await slots.enter(standing)
        is_sent = False
        while not is_sent:
            with time:
                call = await slots.begin(Kind.STREAM, value, waiter)
            try:
                while True:
                    with time:  # and not while the consumer has the item
                        frame = await call.item()
                    if frame is None:
                        break
                    yield call, frame
            except BaseException:
                slots.abandon(call)
                raise
            is_sent = not call.is_unsent
        yield call, call.end()

    # What can be changed.

    async def reconfigure(
        self,
        *,
        num_replicas: int | None = None,
        max_ongoing_requests: float | Literal["auto"] | MakeLimit | None = None,
        max_queued_requests: float | None = None,
        user_config: Any = None,
    ) -> None:
        """Change settings while the pool serves. No call fails for it; what is None stays as it is.

        Returns when that is done: new replicas serve, and those that are too many have ended, when
        all that they worked on was done.

        Args:
            num_replicas: How many processes.
            max_ongoing_requests: How many calls each of them works on.
            max_queued_requests: How many calls wait. As long as it was never given, it is as many
                as all replicas work on.
            user_config: Handed to the target's `reconfigure` in every replica.

        Raises:
            ConfigError: A setting is not what it may be, and nothing was changed.
            ReplicaUnavailableError: A new replica can't be started, and nothing was changed; or the
                pool is not running.
            Exception: What the target's `reconfigure` raised in a replica; nothing was changed.
        """
        count = None if num_replicas is None else _replica_count(num_replicas)
        ongoing = None if max_ongoing_requests is None else limit_each(max_ongoing_requests)
        queued = _queue_bound(max_queued_requests)
        block = self._running
        if ongoing is not None:
            limit_of_one_more(ongoing, ())  # raises what it raises before anything is changed
        async with block.lock:
            before, crew = self._num_replicas, block.crew
            crew.check()
            if count is None:
                count = before
            was_ongoing = self._plan.max_ongoing_requests
            if ongoing is None:
                ongoing = was_ongoing
            if queued is None:
                queued = self._max_queued
            if count > before:
                await crew.scale(count)
            config = self._plan.config
            if user_config is not None:
                config = (user_config,)
                try:
                    await crew.configure(config)
                except BaseException:  # this one may be cancelled
                    await crew.scale(before, at_once=True)
                    raise
            self._plan = replace(self._plan, config=config)
            if ongoing != was_ongoing:  # else replicas keep the limits that they have found
                crew.resize(ongoing)
            self._plan = replace(self._plan, max_ongoing_requests=ongoing)
            self._num_replicas, self._max_queued = count, queued
            self._limiter._resize(
                self._limiter.max_ongoing_requests, self._queue_bound, self._order_now
            )
            self._slots.line_changed()
            if count < before:
                await crew.scale(count)

    async def restart(self) -> None:
        """Replace all replicas, one after the other: each ends when a new one serves in its place.

        Raises:
            ReplicaUnavailableError: A new one can't be started. The old one stays, as do those
                whose turn has not come; or the pool is not running.
        """
        block = self._running
        async with block.lock:
            await block.crew.restart()

    # For `loadshed.serve`.

    def _within(self, environment: Environment, peers: Peers) -> None:
        """Let replicas find this, and call these: before they are started."""
        self._plan = replace(self._plan, environment=environment)
        self._peers = peers

    async def _roll(self, **changes: Any) -> None:
        """Replace all replicas, one after the other, by some that are made in another way.

        Args:
            changes: Of the `Plan`.

        Raises:
            ConfigError: A setting can't be sent.
            ReplicaUnavailableError: One can't be started. Then all are as they were before; or the
                pool is not running.
        """
        block = self._running
        async with block.lock:
            self._last_version += 1
            plan = replace(self._plan, version=self._last_version, **changes)
            await block.crew.roll(plan)
            self._plan = plan

    async def _look_after(self, *, max_wait: float | None, **changes: Any) -> None:
        """Change settings that no replica has to be told of.

        Args:
            max_wait: As in the constructor.
            changes: Of the `Plan`: how long requests and health checks may take, and the grace.

        Raises:
            ReplicaUnavailableError: The pool is not running.
        """
        block = self._running
        async with block.lock:
            self._plan = replace(self._plan, **changes)
            self._limiter.max_wait = max_wait
            self._application.request_timeout_s = self._plan.request_timeout_s
            block.look_after(self._plan)

    async def _line_up(
        self,
        *,
        max_queued_requests: float | None,
        order: Order | None,
        shares: Mapping[Any, float] | None,
        max_tenants: int,
        tenant_share: float,
    ) -> None:
        """Change how many wait, and who of them goes first. None of them loses its place.

        Args:
            max_queued_requests: As in the constructor; None is its default again, like the others.
            order: As there.
            shares: As there.
            max_tenants: As there.
            tenant_share: As there.

        Raises:
            ReplicaUnavailableError: The pool is not running.
        """
        block = self._running
        async with block.lock:
            self._max_queued, self._order = max_queued_requests, order
            limiter = self._limiter
            limiter._arrange(
                order=self._order_now,
                shares=shares_of(shares),
                max_tenants=max_tenants,
                tenant_share=tenant_share,
            )
            limiter._resize(limiter.max_ongoing_requests, self._queue_bound)
            self._slots.line_changed()

    @property
    def _trouble(self) -> str:
        """Why there are fewer replicas than there should be, as far as that is known."""
        return "" if self._block is None else self._block.crew.trouble

    def _latency(self, part: float) -> float | None:
        """Seconds that this part of the requests did not take longer than lately, in a replica."""
        return self._slots.latency(part)

    @property
    def _running(self) -> Block:
        if self._block is None:
            raise self._closed()
        return self._block

    @property
    def _order_now(self) -> Order:
        return self._order or order_of_all(self._plan.max_ongoing_requests)

    @property
    def _queue_bound(self) -> float | None:
        each = self._plan.max_ongoing_requests
        if self._max_queued is None and isinstance(each, int | float):
            # Of those that there are to be: while one of them is being replaced, too.
            return length_of_line(self._num_replicas * each, self._order_now)
        return self._max_queued


def _replica_count(value: object) -> int:
    return int(whole_number("num_replicas", value, at_least=1, infinite=False))


def _queue_bound(value: object) -> float | None:
    return None if value is None else whole_number("max_queued_requests", value, at_least=0)
