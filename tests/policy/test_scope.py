"""What of a scope another process gets."""

import pickle
from typing import Any

import pytest

from loadshed._policy.scope import PORTABLE, REQUEST, portable_scope, scope_of

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/a b",
    "raw_path": b"/a%20b",
    "query_string": b"q=1",
    "root_path": "",
    "headers": [(b"host", b"localhost")],
    "client": None,
    "server": ("localhost", 80),
    "state": {"of": lambda: "this process"},
    "app": lambda: "a framework's",
}
SENT = {key: SCOPE[key] for key in REQUEST}


def sent(scope: dict[str, Any]) -> Any:
    return scope_of(pickle.loads(pickle.dumps(portable_scope(scope))))  # noqa: S301


def test_a_request_is_sent_without_what_belongs_to_this_process_alone() -> None:
    assert sent(SCOPE) == SENT


def test_that_of_most_servers_is_sent_without_its_keys() -> None:
    assert type(portable_scope(SCOPE)) is tuple


@pytest.mark.parametrize("missing", sorted(set(REQUEST) - {"type", "headers"}))
def test_what_a_server_leaves_out_is_left_out(missing: str) -> None:
    scope = {key: value for key, value in SCOPE.items() if key != missing}
    assert sent(scope) == {key: value for key, value in SENT.items() if key != missing}


@pytest.mark.parametrize("make", [tuple, iter])
def test_headers_may_be_any_iterable(make: Any) -> None:
    assert sent(SCOPE | {"headers": make(SCOPE["headers"])}) == SENT


def test_of_its_extensions_it_has_those_that_work_from_there() -> None:
    extensions = {"tls": {"server_cert": None}, "http.response.zerocopysend": {}, "mine": {}}
    assert sent(SCOPE | {"extensions": extensions}) == SENT | {
        "extensions": {"tls": {"server_cert": None}}
    }


def test_a_websocket_has_its_subprotocols() -> None:
    scope = {key: value for key, value in SCOPE.items() if key != "method"}
    scope |= {"type": "websocket", "scheme": "ws", "subprotocols": ["one"]}
    assert sent(scope) == {key: scope[key] for key in PORTABLE if key in scope}
