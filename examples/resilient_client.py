"""Forty callers and a server that has room for eight: it sheds, they come back, all are served.

Run it, in the directory above this one:

    python examples/resilient_client.py
"""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from loadshed.asgi import LoadShedMiddleware
from loadshed.client import AsyncClient, Retry

CALLERS = 40

app = FastAPI()
app.add_middleware(LoadShedMiddleware, max_ongoing_requests=4, trust_deadline=True)


@app.get("/report")
async def report() -> dict[str, str]:
    """Something that takes a moment."""
    await asyncio.sleep(0.02)
    return {"report": "all is well"}


@contextmanager
def serving() -> Iterator[str]:
    """The service on a free port, in a thread; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


async def call_all(url: str) -> None:
    """Everybody at once, each with ten seconds for everything."""
    async with AsyncClient(base_url=url, retry=Retry(deadline=10.0)) as client:
        answers = await asyncio.gather(*(client.get("/report") for _ in range(CALLERS)))
    print(dict(Counter(answer.status_code for answer in answers)))
    histories = [answer.extensions["loadshed"] for answer in answers]
    print("turned away at first:", sum(len(history.attempts) > 1 for history in histories))
    slowest = max(histories, key=lambda history: len(history.attempts))
    for number, attempt in enumerate(slowest.attempts, start=1):
        print(f"attempt {number}: {attempt.status}, after a wait of {attempt.delay:.2f} s")


if __name__ == "__main__":
    with serving() as url:
        asyncio.run(call_all(url))
