r"""A gateway to a language model that answers 429 to whoever asks too fast.

Start it, in the directory above this one:

    uvicorn examples.llm_gateway:app

Then ask more often than the model allows, and give everybody ten seconds:

    for i in $(seq 30); do curl -s 127.0.0.1:8000/ask -H 'x-request-timeout-seconds: 10' \
        -H 'content-type: application/json' -d '{"text": "Why?"}' & done; wait
"""

import re
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel

from loadshed import BackPressureError
from loadshed.asgi import LoadShedMiddleware
from loadshed.client import AsyncClient, Retry, deadline

PATIENCE = 30.0  # seconds, of callers who don't say how long they wait


class Question(BaseModel):
    """What a caller asks."""

    text: str


# The model, with its rate limit. In your gateway it is somebody else's, and has a URL.
model = FastAPI()
answered: deque[float] = deque(maxlen=20)  # the latest 20: no more than that in a second


@model.post("/completions")
async def complete(question: Question) -> dict[str, str]:
    """Answer, or say when to come back."""
    now = time.monotonic()
    if len(answered) == answered.maxlen and now - answered[0] < 1.0:
        raise HTTPException(429, "Too many requests.", headers={"Retry-After": "1"})
    answered.append(now)
    return {"text": f"{question.text} Because."}


# A completion that is made twice costs twice. So this POST is repeated where the model says that it
# has done nothing (429, 503), or where it was never reached; and not after a timeout.
POLICY = Retry(
    allowed_methods=None,
    status_forcelist={429, 503},
    retry_on=(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout),
    attempt_timeout=20.0,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all requests: they share its connections, and its retry budget."""
    transport = httpx.ASGITransport(model)  # leave it out, and the client goes to the network
    async with AsyncClient(transport=transport, base_url="http://model", retry=POLICY) as client:
        app.state.client = client
        yield


async def client_until_the_deadline(
    request: Request,
    x_request_timeout_seconds: Annotated[str, Header()] = "",
) -> AsyncIterator[AsyncClient]:
    """The client, within what is left of the caller's patience."""
    plain = re.fullmatch(r"\d{1,5}(\.\d{1,20})?", x_request_timeout_seconds, re.ASCII)
    with deadline(min(float(plain[0]), PATIENCE) if plain else PATIENCE):
        yield request.app.state.client


app = FastAPI(lifespan=lifespan)
app.add_middleware(LoadShedMiddleware, max_ongoing_requests=100, trust_deadline=True)


@app.post("/ask")
async def ask(
    question: Question, client: Annotated[AsyncClient, Depends(client_until_the_deadline)]
) -> dict[str, str]:
    """Ask the model, for as long as the caller waits."""
    answer = await client.post("/completions", json=question.model_dump())
    if answer.status_code in POLICY.status_forcelist:
        # The middleware makes a 503 of it, with `Retry-After`.
        raise BackPressureError(reason="model", retry_after=1)
    answer.raise_for_status()
    return {"answer": answer.json()["text"]}
