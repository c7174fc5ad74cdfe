"""Applications that `test_running` serves."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.requests import Request

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
