"""An ASGI application whose replica dies as often as the path says: "/2", and then answers."""

import os
import signal
from pathlib import Path
from typing import Any

START = {"type": "http.response.start", "status": 200, "headers": []}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        assert scope["type"] == "websocket"
        os.kill(os.getpid(), signal.SIGKILL)
    directory = Path(scope["query_string"].decode())
    number = len([*directory.glob("try-*")])
    content, more = b"", scope["path"] != "/unread"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        content += message.get("body", b"")
        more = message.get("more_body", False)
    (directory / f"try-{number}").write_bytes(content)
    if scope["path"] == "/late":
        await send(START)
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        await receive()  # it asks for something, so what it sent has gone
        os.kill(os.getpid(), signal.SIGKILL)
    if scope["path"] == "/unread" and number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if scope["path"][1:].isdecimal() and number < int(scope["path"][1:]):
        os.kill(os.getpid(), signal.SIGKILL)
    await send(START)
    await send({"type": "http.response.body", "body": content})
