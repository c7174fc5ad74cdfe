r"""Pre-processing, and then a model: each with processes and a bounded queue of its own.

Start it, in the directory above this one:

    loadshed run examples.two_stages:app

Then ask; the answer comes word by word:

    curl -N 127.0.0.1:8000 -d 'Bound what waits'
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from loadshed.serve import DeploymentHandle, DeploymentResponseGenerator, deployment


@deployment(num_replicas=2, max_ongoing_requests=1, max_queued_requests=4)
class Model:
    """The part that is slow and costs something: one request in each process at a time."""

    def __init__(self, pause: float) -> None:
        """Load the model. That is done once in each replica."""
        self.pause = pause

    def answer(self, words: list[str]) -> Iterator[str]:
        """Give the answer word by word."""
        for word in words:
            time.sleep(self.pause)
            yield word[::-1]


@deployment(max_ongoing_requests=20, max_queued_requests=20)
class Service:
    """What gets the HTTP requests: it prepares them, and hands the model's answer on."""

    def __init__(self, model: DeploymentHandle) -> None:
        """Take the handle that is here in place of what `bind` was given."""
        self.model = model

    async def __call__(self, request: Request) -> Response:
        """Stream the answer."""
        words = (await request.body()).decode().lower().split()
        if not words:
            return PlainTextResponse("There is nothing to answer.\n", 400)
        answer = self.model.answer.options(stream=True).remote(words)
        # If the model's queue is full, that is known with the first word: early enough for a 503.
        first = await anext(answer)
        return StreamingResponse(lines(first, answer), media_type="text/plain")


async def lines(first: str, others: DeploymentResponseGenerator) -> AsyncIterator[str]:
    """Each word on a line; the model stops when the client leaves."""
    async with aclosing(others):
        yield f"{first}\n"
        async for word in others:
            yield f"{word}\n"


# mypy knows no decorators of classes (python/mypy#3135): it takes the class for what it was.
app = Service.bind(Model.bind(pause=0.1))  # type: ignore[attr-defined]
