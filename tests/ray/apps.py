# mypy: disable-error-code="attr-defined, no-any-return"
"""The applications of the tests: replicas on Ray import them from here."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse

from loadshed.asgi import LoadShedMiddleware
from loadshed.serve import Application, deployment, ingress
from loadshed.serve._handle import DeploymentHandle

SMALL: dict[str, Any] = {
    "ray_actor_options": {"num_cpus": 0.01},
    "graceful_shutdown_timeout_s": 0.1,
}


@deployment(max_ongoing_requests=2, max_queued_requests=2, **SMALL)
class SlowDeployment:
    def __call__(self, request: Request) -> str:
        time.sleep(2)
        return "Hello!"


slow = SlowDeployment.bind()


@deployment(max_ongoing_requests=1, max_queued_requests=1, **SMALL)
class Inner:
    async def __call__(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    def add(self, one: int, other: int) -> int:
        return one + other

    def process(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ValueError("no", 7)

    def die(self) -> None:
        os._exit(1)

    def count(self, number: int) -> Iterator[int]:
        yield from range(number)

    async def count_async(self, number: int) -> AsyncIterator[int]:
        for each in range(number):
            yield each
        raise KeyError("end")


async def three(handle: DeploymentHandle) -> list[Any]:
    """Calls, not all in one step: Ray counts all of such as queued."""
    calls = []
    for _ in range(3):
        calls.append(asyncio.ensure_future(handle.remote(1)))
        await asyncio.sleep(0.25)
    return calls


@deployment(max_ongoing_requests=20, **SMALL)
class Outer:
    """Asks its inner deployments, as the path of the request says."""

    def __init__(self, inner: DeploymentHandle, others: dict[str, list[DeploymentHandle]]) -> None:
        self.inner = inner
        self.other = others["here"][0]

    async def __call__(self, request: Request) -> Any:
        work = getattr(self, request.url.path.rpartition("/")[2])
        return await work()

    async def call(self) -> Any:
        return await self.inner.remote(1)

    async def caught(self) -> Any:
        done = await asyncio.gather(*await three(self.inner), return_exceptions=True)
        return sorted(f"{type(each).__module__}.{type(each).__name__}: {each}" for each in done)

    async def chained(self) -> Any:
        first = self.inner.add.remote(1, 2)
        return await self.other.add.remote(first, other=10)

    async def distinct(self) -> Any:
        return await self.inner.process.remote() != await self.other.process.remote()

    async def failing(self) -> Any:
        try:
            await self.inner.fail.remote()
        except ValueError as error:
            return [type(error).__name__, list(error.args), "in fail" in "".join(error.__notes__)]

    async def dying(self) -> Any:
        return await self.other.die.remote()

    async def nothing(self) -> Any:
        return await self.inner.nothing.remote()

    async def streaming(self) -> Any:
        got: list[Any] = []
        async for each in self.inner.options(stream=True).count.remote(3):
            got.append(each)  # noqa: PERF401
        with contextlib.suppress(KeyError):
            async for each in self.inner.count_async.options(stream=True).remote(2):
                got.append(each)  # noqa: PERF401
        return got

    async def cancelled(self) -> Any:
        response = self.inner.remote(60)
        await asyncio.sleep(0.2)
        response.cancel()
        try:
            await response
        except asyncio.CancelledError:
            return await self.inner.remote(0)

    async def stopped(self) -> Any:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.inner.remote(60), 0.3)
        return await self.inner.remote(0)

    async def in_thread(self) -> Any:
        return await asyncio.to_thread(lambda: self.inner.add.remote(2, 3).result(timeout_s=10))


outer = Outer.bind(Inner.bind(), {"here": [Inner.bind()]})


@deployment(user_config={"factor": 2}, health_check_period_s=0.5, **SMALL)
class Configured:
    def __init__(self, start: int, *, plus: int = 0) -> None:
        self.start = start + plus
        self.checked = 0

    async def reconfigure(self, config: dict[str, int]) -> None:
        self.factor = config["factor"]

    def check_health(self) -> None:
        self.checked += 1

    async def __call__(self) -> dict[str, Any]:
        return {"value": self.start * self.factor, "was_checked": self.checked > 0}


configured = Configured.bind(10, plus=1)


@deployment(request_timeout_s=0.5, max_ongoing_requests=2, **SMALL)
class Impatient:
    def __init__(self) -> None:
        self.ended = 0

    def sleep(self) -> str:
        time.sleep(1)
        self.ended += 1
        return "late"

    async def asleep(self) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            self.ended += 1
        return "never"

    async def stream(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    async def slowly(self) -> AsyncIterator[str]:
        yield "begin"
        await asyncio.sleep(60)

    def __call__(self, request: Request) -> Any:
        what = request.query_params["what"]
        if what == "ended":
            return self.ended
        return getattr(self, what)()


impatient = Impatient.bind()


@deployment(max_ongoing_requests=1, max_queued_requests=5, **SMALL)
class Counting:
    """How many of its threads are at work at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def check_health(self) -> None:
        pass

    def __call__(self, request: Request) -> int:
        self.now += 1
        self.most = max(self.now, self.most)
        time.sleep(float(request.query_params["seconds"]))
        self.now -= 1
        return self.most


counting = Counting.bind()


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"begun": "yes"}


api = FastAPI(lifespan=lifespan)


@deployment(**SMALL)
@ingress(api)
class Service:
    def __init__(self, inner: DeploymentHandle) -> None:
        self.inner = inner
        self.factor = 3

    @api.get("/times/{number}")
    def times(self, number: int) -> int:
        return number * self.factor

    @api.get("/state")
    async def state(self, request: Request) -> str:
        begun: str = request.state.begun
        return begun

    @api.get("/inner")
    async def ask(self) -> str:
        return str(await asyncio.gather(*await three(self.inner)))

    @api.websocket("/echo")
    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()


service = Service.bind(Inner.bind())


async def plain(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"  # it knows no lifespan
    await JSONResponse({"path": scope["path"], "root": scope["root_path"]})(scope, receive, send)


def make() -> Any:
    made = FastAPI()

    @made.get("/made")
    def answer() -> str:
        return "made"

    return made


made = deployment(name="Made", **SMALL)(ingress(make)()).bind()


def make_patient() -> Any:
    """What Ray can't do, `max_wait`: by our own admission in the ingress."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.5)
        await JSONResponse("done")(scope, receive, send)

    return LoadShedMiddleware(answer, max_ongoing_requests=1, max_wait=0.3)


patient = deployment(name="Patient", max_ongoing_requests=10, **SMALL)(
    ingress(make_patient)()
).bind()


@deployment(**SMALL)
def function(request: Request) -> Iterator[str]:
    yield from ("a", "b", request.query_params["end"])


streaming = function.bind()


class Args(BaseModel):
    word: str = "none"
    times: int = 1


def builder(args: Args) -> Application:
    @deployment(**SMALL)
    class Built:
        def __call__(self) -> str:
            return args.word * args.times

    return Built.bind()


def plain_builder() -> Application:
    return slow
