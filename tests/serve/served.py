"""Applications that `test_running` serves."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from loadshed.serve import DeploymentHandle, deployment


class Plain:
    """No deployment."""


class Model:
    """The second stage: one request at a time, and one waits."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    async def slow(self) -> str:
        await asyncio.sleep(0.5)
        return "done"

    async def forever(self) -> None:
        await asyncio.Event().wait()

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)

    def fail(self) -> None:
        raise LookupError("no such thing")


class Front:
    """The first stage."""

    def __init__(self, models: list[DeploymentHandle]) -> None:
        (self.model,) = models

    async def __call__(self, request: Request) -> Any:
        model, asked = self.model, request.query_params
        if "count" in asked:
            items = model.options(stream=True).count.remote(int(asked["count"]))
            return [item async for item in items]
        if "leave" in asked:
            async for item in model.options(stream=True).count.remote(10**9):
                return item
        if "displace" in asked:
            running = model.slow.remote()
            least = model.options(priority="sheddable", tenant="a", cost=2)
            if "stream" in asked:
                waiting = anext(least.options(stream=True).count.remote(1))
            else:
                waiting = least.slow.remote()
            waits = asyncio.ensure_future(waiting)
            await asyncio.sleep(0.1)
            usual = model.remote(1)
            came = await asyncio.gather(running, waits, usual, return_exceptions=True)
            return [getattr(each, "reason", each) for each in came]
        for name in ("slow", "forever", "fail", "missing"):
            if name in asked:
                return await getattr(model, name).remote()
        twice = model.remote(int(asked["x"]))
        return {"y": await model.remote(twice)}


model = deployment(max_ongoing_requests=1, max_queued_requests=1)(Model)
two_stages = deployment(max_ongoing_requests=100)(Front).bind([model.bind(3)])


def pick(request: Request) -> str:
    time.sleep(float(request.query_params.get("slow", 0.3)))
    return "picked"


picky = deployment(
    max_ongoing_requests=1,
    max_queued_requests=1,
    request_timeout_s=2,
    backpressure_config={"status_code": 429, "retry_after_s": 2.5},
)(pick).bind()


async def die(request: Request) -> str:
    if "always" in request.query_params:
        os.kill(os.getpid(), signal.SIGKILL)
    await request.body()
    path = Path(request.query_params["once"])
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


mortal = deployment(num_replicas=2)(die).bind()


class Broken:
    """Can't be made."""

    def __init__(self) -> None:
        raise RuntimeError("no weights")

    def __call__(self) -> None:
        pass


broken = deployment(Broken).bind()


class InThreads:
    """Calls from a thread, which has other ways to wait."""

    def __init__(self, model: DeploymentHandle) -> None:
        self.model = model
        try:
            model.remote(1)
        except RuntimeError as error:
            self.too_early = str(error)

    def __call__(self, request: Request) -> Any:
        model = self.model
        stream = model.options(stream=True)
        twice = model.remote(model.remote(2))
        slow = model.slow.remote()
        try:
            slow.result(timeout_s=0.01)
        except TimeoutError:
            slow.cancel()
        left = iter(stream.count.remote(10**9))
        first = next(left)
        left.close()
        return {
            "twice": twice.result(),
            "by name": model.remote(x=model.remote(x=1)).result(),
            "items": list(stream.count.remote(model.remote(1))),
            "many": sum(stream.count.remote(3000)),
            "first": first,
            "too early": self.too_early,
        }

    async def not_here(self) -> list[str]:
        said = []
        response = self.model.remote(1)
        for wrong in (
            response.result,
            lambda: iter(self.model.options(stream=True).count.remote(1)),
            lambda: self.model._private,
        ):
            try:
                wrong()
            except (RuntimeError, AttributeError) as error:
                said.append(str(error))
        async with self.model.options(stream=True).count.remote(10**9) as items:
            said.append(str(await anext(items)))
        again = self.model.options(stream=True).count.remote(10**9)
        again.cancel()
        return [*said, str([item async for item in again])]


class Asking:
    """Hands a question on."""

    def __init__(self, other: DeploymentHandle) -> None:
        self.other = other

    async def __call__(self, request: Request) -> Any:
        return await self.other.not_here.remote()


wide = model.options(max_ongoing_requests=10, max_queued_requests=10, name="Wide")
in_threads = deployment(InThreads).bind(wide.bind(3))
asking = deployment(Asking).bind(in_threads)


class Hanging:
    """Is never made."""

    def __init__(self) -> None:
        time.sleep(1000)

    def __call__(self) -> None:
        pass


hanging = deployment(graceful_shutdown_timeout_s=0.1)(Hanging).bind()


class Beside:
    """Is made, beside what can't be."""

    def __init__(self, broken: DeploymentHandle, hanging: DeploymentHandle) -> None:
        pass

    def __call__(self) -> None:
        pass


beside_broken = deployment(Beside).bind(broken, hanging)


async def large(request: Request) -> Any:
    size = int(request.query_params["size"])
    if "background" not in request.query_params:
        return b"x" * size
    return PlainTextResponse(
        "x", background=BackgroundTask(note, request.query_params["background"])
    )


async def note(path: str) -> None:
    """Outlasts the client by more than it takes to notice that one has gone."""
    await asyncio.sleep(0.3)
    Path(path).touch()


sizeable = deployment(large).bind()


class Early:
    """Calls another one before it serves."""

    def __init__(self, model: DeploymentHandle) -> None:
        self.model = model

    async def reconfigure(self, x: int) -> None:
        self.y = await self.model.remote(x)

    def __call__(self) -> int:
        return int(self.y)


early = deployment(user_config=2)(Early).bind(wide.bind(3))
