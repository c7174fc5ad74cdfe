"""The middleware around an ASGI application that needs no framework: it counts to five, slowly.

Start it, in the directory above this one:

    uvicorn examples.plain_asgi:app

Then open three streams. Two count at once; the third waits until one of them has ended:

    for i in 1 2 3; do curl -sN 127.0.0.1:8000 & done; wait
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from loadshed.asgi import LoadShedMiddleware

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def count(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with a stream; the request holds its permit until the last message is sent."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # which tells the server that there is no lifespan
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    for number in range(1, 6):
        await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body"})


app = LoadShedMiddleware(count, max_ongoing_requests=2)
