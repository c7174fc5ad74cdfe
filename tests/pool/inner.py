"""ASGI applications that live in the replicas of the tests."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

CHUNK = b"x" * 65536


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["starts"] = scope["state"].get("starts", 0) + 1
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    else:
        await _http(scope, receive, send)


async def _http(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if path == "/raise":
        raise LookupError("from inside")
    if path == "/unpicklable":
        await send({**start, "headers": lambda: None})
    if path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "/wait":
        # A directory in the query: says that it is here, and waits until it may go.
        await _hold(Path(scope["query_string"].decode()))
    await send(start)
    if path == "/die-later":
        await receive()
        os.kill(os.getpid(), signal.SIGKILL)
    if path == "/echo":
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            body = message.get("body", b"")
            await send({"type": "http.response.body", "body": body, "more_body": True})
    if path == "/large":
        for _ in range(32):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    if path == "/impatient":  # is no longer interested, then is again
        ask = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        ask.cancel()
        await asyncio.wait([ask])
        await receive()
    body = f"{scope['state'].get('starts')} {sorted(scope.get('extensions') or {})}".encode()
    await send({"type": "http.response.body", "body": body})


async def _hold(directory: Path) -> None:
    here = directory / f"here-{id(asyncio.current_task())}"
    here.touch()
    try:
        while not (directory / "go").exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        (directory / "cancelled").touch()
        raise


async def no_lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await _http(scope, receive, send)


_outliving: list[asyncio.Task[Any]] = []
_go = asyncio.Event()


async def outliving(scope: Any, receive: Any, send: Any) -> None:
    """Tasks of a request go on when it has been answered; the next one tells what they met."""
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/met":
        _go.set()
        met: list[Any] = await asyncio.gather(*_outliving, return_exceptions=True)
        _outliving.clear()
        await send(start)
        body = ", ".join(
            each["type"] if type(each) is dict else type(each).__name__ for each in met
        )
        await send({"type": "http.response.body", "body": body.encode()})
        return

    async def later(function: Any, *args: Any) -> Any:
        await _go.wait()
        return await function(*args)

    async def flood() -> None:
        for _ in range(32):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})

    last = {"type": "http.response.body", "body": b"x"}
    if scope["type"] == "http":
        await receive()
        await send(start)
    else:
        await receive()
        await send({"type": "websocket.accept"})
        last = {"type": "websocket.close"}
    works = [receive(), later(receive), later(send, last)]
    if scope["path"] == "/flood":
        works.append(flood())
    _outliving.extend(map(asyncio.ensure_future, works))
    await asyncio.sleep(0)
    if scope["path"] != "/flood":
        await send(last)


async def careless(scope: Any, receive: Any, send: Any) -> None:
    """It changes its messages when it has sent them, and sends views of memory."""
    assert scope["type"] == "http"
    headers = [(b"x-number", b"1")]
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    headers.append((b"x-number", b"2"))
    start["status"] = 500
    body: dict[str, Any] = {"type": "http.response.body", "body": b"1", "more_body": True}
    for _ in range(2):
        await send(body)
        body["body"] += b"0"
    array = bytearray(b"an array, ")
    await send({"type": "http.response.body", "body": array, "more_body": True})
    array[:2] = b"no"
    await send({"type": "http.response.body", "body": memoryview(b"a view")})


async def broken(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no model"})


def no_application(x: int) -> int:
    return x
