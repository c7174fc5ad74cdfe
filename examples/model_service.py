r"""A model in two processes, behind FastAPI: loaded once in each, asked with arrays.

Start it, in the directory above this one:

    uvicorn examples.model_service:app

Then ask:

    curl 127.0.0.1:8000/predict -H 'content-type: application/json' -d '[[1, 2, 3], [4, 5, 6]]'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, Request
from numpy.typing import NDArray

from loadshed import ReplicaPool
from loadshed.asgi import LoadShedMiddleware

Array = NDArray[np.float64]


class Model:
    """Something with a `predict`, as scikit-learn has it: here a linear regression."""

    def __init__(self, seed: int) -> None:
        """Fit it; yours would load a file. That is done once in each replica."""
        inputs = np.random.default_rng(seed).normal(size=(1000, 3))
        outputs = inputs @ np.array([1.0, 2.0, 3.0])
        self.weights: Array = np.linalg.lstsq(inputs, outputs)[0]

    def predict(self, inputs: Array) -> Array:
        """One number for each row."""
        predicted: Array = inputs @ self.weights
        return predicted


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The replicas start before the first request, and end after the last."""
    async with ReplicaPool(
        Model, init_args=(1,), num_replicas=2, max_ongoing_requests=1, max_queued_requests=8
    ) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)
# It makes a 503 of the pool's `QueueFullError`. The bound is the pool's; this one is beyond it.
app.add_middleware(LoadShedMiddleware, max_ongoing_requests=100)


@app.post("/predict")
async def predict(rows: list[tuple[float, float, float]], request: Request) -> list[float]:
    """Ask the model."""
    inputs = np.array(rows, dtype=np.float64).reshape(-1, 3)
    outputs: Array = await request.app.state.pool.call_method("predict", inputs)
    return [float(number) for number in outputs]
