"""Front: the ASGI application in front of all applications."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from loadshed._exchange import Receive, Scope, Send

TEXT = b"text/plain; charset=utf-8"


class Front:
    """Finds the application whose `route_prefix` a path begins with; the longest counts.

    Args:
        is_well: Whether it serves what it is to serve: the answer of `/-/healthz`.
    """

    def __init__(self, is_well: Callable[[], bool]) -> None:
        self._is_well = is_well
        self._routes: list[tuple[str, str, Any]] = []

    def route(self, routes: Mapping[str, tuple[str, Any]]) -> None:
        """Let requests go there from now on.

        Args:
            routes: The name of an application, and its ASGI application, by prefix. None in its
                place: it has nothing yet that could serve.
        """
        self._routes = sorted(
            ((prefix, name, app) for prefix, (name, app) in routes.items()),
            key=lambda route: len(route[0]),
            reverse=True,
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection scope of the ASGI server."""
        if scope["type"] == "lifespan":
            return _live(receive, send)
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        if path.startswith("/-/") and scope["type"] == "http":
            return self._answer(path, send)
        for prefix, name, app in self._routes:
            if path.startswith(prefix) and (prefix == "/" or path[len(prefix) :][:1] in {"", "/"}):
                if app is None:
                    return _refuse(scope, send, 503, f"The application {name!r} is not ready yet.")
                if prefix != "/":
                    scope["root_path"] = root + prefix
                answer: Awaitable[None] = app(scope, receive, send)
                return answer
        return _refuse(scope, send, 404, f"Path {path!r} not found; /-/routes says what there is.")

    async def _answer(self, path: str, send: Send) -> None:
        """What is never shed."""
        if path == "/-/healthz":
            well = self._is_well()
            await _respond(send, 200 if well else 503, "success" if well else "not ready")
        elif path == "/-/routes":
            routes = {prefix: name for prefix, name, _ in self._routes}
            await _respond(send, 200, json.dumps(routes), b"application/json")
        else:
            await _respond(send, 404, f"Path {path!r} not found.")


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})  # before it was accepted: 403
    else:
        await _respond(send, status, text)


async def _respond(send: Send, status: int, text: str, content_type: bytes = TEXT) -> None:
    body = text.encode()
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
