"""What a user would write, for mypy to check: nothing here runs."""

import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, assert_type

import httpx

import loadshed
from loadshed import (
    BackPressureError,
    BoundedQueue,
    ConcurrencyLimiter,
    Criticality,
    Entry,
    LimiterStatistics,
    Permit,
    PoolStatistics,
    QueueStatistics,
    QueueTimeoutError,
    ReplicaPool,
    ReplicaState,
    ReplicaStatistics,
)
from loadshed.asgi import LoadShedMiddleware, MiddlewareStatistics
from loadshed.client import (
    AdaptiveThrottle,
    AsyncClient,
    AsyncRetryTransport,
    Attempt,
    CircuitBreaker,
    Client,
    Event,
    Hedge,
    History,
    Retry,
    RetryBudget,
    RetryTransport,
    criticality,
    deadline,
    retry,
)
from loadshed.ray_serve import to_ray
from loadshed.serve import (
    Application,
    BackpressureConfig,
    Deployment,
    DeploymentHandle,
    DeploymentResponseGenerator,
    Server,
    deployment,
    ingress,
    run,
    running,
)

limiter = ConcurrencyLimiter(2)
ConcurrencyLimiter(max_ongoing_requests=2, max_queued_requests=0, max_wait=0.5, name="db")
ConcurrencyLimiter(math.inf, math.inf)


@limiter
async def predict(x: int, *, scale: float = 1.0) -> str:
    return str(x * scale)


@limiter
async def numbers(n: int) -> AsyncGenerator[int, str]:
    for i in range(n):
        yield i


@limiter
async def letters() -> AsyncIterator[str]:
    yield "a"


class Model:
    @limiter
    async def predict(self, x: int) -> bytes:
        return bytes(x)


async def use_the_limiter() -> None:
    async with limiter as nothing:
        assert_type(nothing, None)
    permit = await limiter.acquire()
    assert_type(permit, Permit)
    assert_type(permit.released, bool)
    permit.release()
    with limiter.acquire_nowait() as same:
        assert_type(same, Permit)
    limiter.max_ongoing_requests = 4
    limiter.max_queued_requests = None
    limiter.max_wait = None
    seen = limiter.statistics()
    assert_type(seen, LimiterStatistics)
    assert_type(seen.shed["queue_full"], int)


async def use_what_it_decorates() -> None:
    coroutine: Coroutine[Any, Any, str] = predict(1, scale=2.0)
    assert_type(await coroutine, str)
    assert_type(await Model().predict(1), bytes)
    generator = numbers(3)
    assert_type(generator, AsyncGenerator[int, str])
    assert_type(await generator.asend("x"), int)
    async for letter in letters():
        assert_type(letter, str)
    await predict("1")  # type: ignore[arg-type]


async def use_the_queue() -> None:
    queue = BoundedQueue[str](10)
    entry = queue.put_nowait("x", expires_at=12.5)
    assert_type(entry, Entry[str])
    assert_type(queue.discard(entry), bool)
    assert_type(await queue.get(), str)
    assert_type(queue.get_nowait(), str)
    assert_type(queue.statistics(), QueueStatistics)
    assert_type(len(queue), int)


async def use_the_pool() -> None:
    ReplicaPool("package.module:Name", num_replicas=2, max_wait=None, user_config={"a": 1})
    async with ReplicaPool(Model, init_args=[1], init_kwargs={"a": 2}) as pool:
        assert_type(pool, ReplicaPool)
        assert_type(await pool.call(1, b=2), Any)
        assert_type(await pool.call_method("predict", 1), Any)
        assert_type(pool.stream(1), AsyncGenerator[Any, None])
        assert_type(pool.stream_method("predict", 1), AsyncGenerator[Any, None])
        assert_type(await pool.reconfigure(num_replicas=3, max_ongoing_requests=math.inf), None)
        assert_type(await pool.restart(), None)
        seen = pool.statistics()
        assert_type(seen, PoolStatistics)
        assert_type(seen.replicas, tuple[ReplicaStatistics, ...])
        assert_type(seen.replicas[0].state, ReplicaState)
    LoadShedMiddleware(pool.asgi)


def use_the_errors(error: BackPressureError) -> None:
    assert_type(error.retry_after, int)
    assert_type(error.reason, str)
    assert_type(error.num_queued_requests, int)
    assert_type(error.max_queued_requests, float)
    if isinstance(error, QueueTimeoutError):
        assert_type(error.max_wait, float | None)
    BackPressureError(num_queued_requests=1, max_queued_requests=2, retry_after=3)
    assert_type(loadshed.__version__, str)


async def app(scope: Any, receive: Any, send: Any) -> None: ...


def refuse(scope: Any, error: BackPressureError) -> None: ...


LoadShedMiddleware(app, max_ongoing_requests=8)
LoadShedMiddleware(
    app,
    limiter=limiter,
    websockets=limiter,
    request_timeout_s=30,
    exempt=lambda scope: scope["path"] == "/",
    on_shed=refuse,
    trust_deadline=True,
)
assert_type(LoadShedMiddleware(app, limiter=limiter).statistics(), MiddlewareStatistics)
assert_type(LoadShedMiddleware(app, limiter=limiter).statistics().deadlines, int)


@retry
async def fetch(name: str) -> bytes:
    return name.encode()


@retry(total=3, retry_on=(OSError,), budget=None, on_event=print)
def read(name: str, *, size: int = 1) -> bytes:
    return name.encode()[:size]


@retry(Retry(retry_on=lambda error: isinstance(error, OSError)), raise_on_exhausted=True)
async def call() -> int:
    return 1


async def use_the_client() -> None:
    policy = Retry(total=3, status_forcelist=[503], allowed_methods={"GET"}, retry_on=OSError)
    assert_type(policy.delay(1, retry_after=2.0, previous=1.0, random=lambda: 0.5), float | None)
    assert_type(policy.delay(1, random=random.Random(0)), float | None)  # noqa: S311
    assert_type(Retry.from_urllib3(object(), total=2), Retry)
    budget = RetryBudget(ttl=10, min_retries_per_sec=1, percent_can_retry=0.1)
    breaker = CircuitBreaker(failure_ratio=0.5)
    assert_type(breaker.state("http://localhost"), str)
    assert_type(AdaptiveThrottle().refusal("http://localhost"), float)
    with Client(
        retry=policy, budget=budget, breaker=breaker, base_url="http://localhost"
    ) as client:
        assert_type(client.get("/"), httpx.Response)
    async with AsyncClient(retry=policy, hedge=Hedge(delay=0.1), timeout=3) as async_client:
        with deadline(2.0) as end:
            response = await async_client.get("/")
        assert_type(end.remaining(), float)
        history: History = response.extensions["loadshed"]
        assert_type(history.attempts, tuple[Attempt, ...])
        assert_type(history.stopped, str)
    with criticality(Criticality.SHEDDABLE) as block, criticality("critical"):
        assert_type(block, criticality)
    AsyncClient(criticality=Criticality.SHEDDABLE_PLUS)
    Client(criticality=3)  # type: ignore[arg-type]
    AsyncRetryTransport(criticality=None)
    httpx.Client(transport=RetryTransport(criticality="sheddable"))
    httpx.Client(transport=RetryTransport(httpx.HTTPTransport(), retry=policy, budget=None))
    httpx.AsyncClient(transport=AsyncRetryTransport(retry=policy, throttle=AdaptiveThrottle()))
    assert_type(await fetch("x"), bytes)
    assert_type(read("x", size=2), bytes)
    assert_type(await call(), int)
    read(1)  # type: ignore[arg-type]


def on_event(event: Event) -> None:
    assert_type(event.attempt, Attempt | None)


RetryTransport(on_event=on_event)


@deployment(num_replicas=2, max_queued_requests=4, backpressure_config={"status_code": 429})
class Decorated:
    def __init__(self, model: DeploymentHandle) -> None:
        self.model = model

    async def __call__(self) -> Any:
        mine = self.model.options(priority="sheddable", tenant="acme", cost=2)
        assert_type(mine.options(priority=Criticality.CRITICAL), DeploymentHandle)
        waiting = mine.options(method_name="predict").remote(1, scale=2.0)
        return await waiting

    def in_a_thread(self) -> Any:
        return self.model.predict.remote(1).result(timeout_s=3)

    async def stream(self) -> AsyncIterator[Any]:
        items: DeploymentResponseGenerator = self.model.options(stream=True).remote()
        async for item in items:
            yield item


# mypy leaves a class what it was, whatever its decorator returns (python/mypy#3135).
bound: Application = Decorated.bind()  # type: ignore[attr-defined]
called = deployment(max_ongoing_requests=2, ray_actor_options={"num_gpus": 1})(Model)
assert_type(called, Deployment)
assert_type(called.options(name="other", num_replicas=2), Deployment)
assert_type(called.bind(1, b=2), Application)
whole: Deployment = deployment(ingress(app)())
BackpressureConfig(status_code=429, retry_after_s=2)


@deployment
async def answer() -> str:
    return "x"


@deployment(max_wait=1.0, request_timeout_s=3)
def other() -> str:
    return "x"


deployment(max_ongoing_requests="auto", order="adaptive_lifo", shares={"SHEDDABLE": 0.1})(Model)


assert_type(answer, Deployment)
assert_type(other, Deployment)


async def serve_for_a_while() -> None:
    async with running(answer.bind(), port=0, route_prefix="/answer") as server:
        assert_type(server, Server)
        assert_type(server.url, str)
        assert_type(server.status(), dict[str, Any])


def serve_for_ever() -> None:
    run(answer.bind(), host="0.0.0.0", port=8000, name="answer")  # noqa: S104
    assert_type(to_ray(answer.bind()), Any)
