r"""A FastAPI application whose endpoints are methods of a deployment.

Start it, in the directory above this one:

    loadshed run examples.fastapi_ingress:app

Then ask:

    curl 127.0.0.1:8000/predict -H 'content-type: application/json' -d '{"values": [1, 2, 3]}'
    curl 127.0.0.1:8000/docs
"""

import os
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, Field

from loadshed import serve

api = FastAPI(title="A model")


class Question(BaseModel):
    """What is asked: FastAPI checks it before the model sees it."""

    values: Annotated[list[float], Field(min_length=3, max_length=3)]


@serve.deployment(num_replicas=2, max_ongoing_requests=1, max_queued_requests=10)
@serve.ingress(api)
class Model:
    """One object in each of two processes; `self` is that object in every endpoint."""

    def __init__(self) -> None:
        """Load the model."""
        self.weights = [1.0, 2.0, 3.0]

    @api.post("/predict")
    def predict(self, question: Question) -> float:
        """One number for three. It is not async, so FastAPI runs it in a thread."""
        return sum(x * weight for x, weight in zip(question.values, self.weights, strict=True))

    @api.get("/pid")
    async def pid(self) -> int:
        """Which of the processes this is."""
        return os.getpid()


# mypy knows no decorators of classes (python/mypy#3135): it takes the class for what it was.
app = Model.bind()  # type: ignore[attr-defined]
