"""What of an ASGI scope is sent to another process, and how."""

from collections.abc import Mapping, MutableMapping
from operator import itemgetter
from typing import Any

Portable = tuple[Any, ...] | dict[str, Any]
"""A scope on its way: of most requests, the values of `REQUEST`; of others, a dict."""

REQUEST = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "client",
    "server",
    "headers",
)
"""What the scope of an HTTP request has, in most servers. Such a scope is sent without the keys:
that takes half the time."""

PORTABLE = (*REQUEST, "subprotocols")
"""What of a scope is sent: all that the ASGI specification has, and nothing that a framework has
put there."""

EXTENSIONS = frozenset(
    {
        "http.response.debug",
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.push",
        "http.response.trailers",
        "tls",
        "websocket.http.response",
    }
)
"""The extensions that work from another process; not `zerocopysend`, which hands on an open
file."""

_values = itemgetter(*REQUEST)


def portable_scope(scope: Mapping[str, Any]) -> Portable:
    """What is sent of it."""
    if scope["type"] == "http" and "extensions" not in scope and type(scope["headers"]) is list:
        try:
            return _values(scope)  # type: ignore[no-any-return]
        except KeyError:
            pass  # it has not all of them
    portable = {key: scope[key] for key in PORTABLE if key in scope}
    portable["headers"] = list(scope["headers"])
    extensions: Mapping[str, Any] | None = scope.get("extensions")
    if extensions is not None:
        portable["extensions"] = {k: v for k, v in extensions.items() if k in EXTENSIONS}
    return portable


def scope_of(portable: Portable) -> MutableMapping[str, Any]:
    """The scope, at the other end."""
    return portable if isinstance(portable, dict) else dict(zip(REQUEST, portable, strict=True))
