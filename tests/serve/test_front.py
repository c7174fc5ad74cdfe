"""Front: which application gets a request, and what is answered in place of one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadshed.serve._front import Front

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # it awaits nothing but what it is given


class App:
    """Says its name, and notes how it was called."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.name.encode()})


class Answer:
    """What was sent."""

    def __init__(self, sent: list[Any]) -> None:
        self.sent = sent
        self.status = sent[0].get("status")
        self.headers = dict(sent[0].get("headers", ()))
        self.body = b"".join(message.get("body", b"") for message in sent)


async def get(front: Front, path: str, kind: str = "http", **scope: Any) -> Answer:
    sent: list[Any] = []

    async def receive() -> Any:
        pytest.fail("nothing is to be received")

    async def send(message: Any) -> None:
        sent.append(message)

    await front({"type": kind, "path": path, **scope}, receive, send)
    return Answer(sent)


def front(*prefixes: str, well: bool = True) -> tuple[Front, dict[str, App]]:
    apps = {prefix: App(prefix) for prefix in prefixes}
    made = Front(lambda: well)
    made.route({prefix: (f"app of {prefix}", app) for prefix, app in apps.items()})
    return made, apps


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/", "/"),
        ("/x", "/"),
        ("/a", "/a"),
        ("/a/", "/a"),
        ("/a/x", "/a"),
        ("/ab", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/c", "/a/b"),
        ("/a/bc", "/a"),
        ("/A", "/"),
        ("//a", "/"),
    ],
)
async def test_the_longest_prefix_counts_and_ends_where_a_part_of_the_path_does(
    path: str, prefix: str
) -> None:
    made, _ = front("/a", "/", "/a/b")
    assert (await get(made, path)).body == prefix.encode()


@given(
    st.lists(st.sampled_from(["/", "/a", "/b", "/a/b", "/a/b/a"]), unique=True),
    st.lists(st.sampled_from(["a", "b", "ab", ""]), max_size=4),
)
def test_a_path_goes_to_the_longest_prefix_of_whole_parts(
    prefixes: list[str], parts: list[str]
) -> None:
    made, _ = front(*prefixes)
    path = "/" + "/".join(parts)
    fitting = [each for each in prefixes if f"{path}/".startswith(each.rstrip("/") + "/")]
    chosen = [name for name, _, _ in made._routes if name in fitting]
    assert chosen[:1] == sorted(fitting, key=len, reverse=True)[:1]


async def test_the_application_finds_where_it_is_mounted() -> None:
    made, apps = front("/", "/a")
    await get(made, "/a/x")
    await get(made, "/x")
    assert (apps["/a"].scopes[0]["root_path"], apps["/a"].scopes[0]["path"]) == ("/a", "/a/x")
    assert "root_path" not in apps["/"].scopes[0]


async def test_what_a_proxy_has_stripped_is_in_the_path_and_in_the_root_path() -> None:
    """As uvicorn has it with its own `root_path`."""
    made, apps = front("/", "/a")
    await get(made, "/api/a/x", root_path="/api")
    (scope,) = apps["/a"].scopes
    assert (scope["root_path"], scope["path"]) == ("/api/a", "/api/a/x")
    await get(made, "/api/", root_path="/api")
    assert apps["/"].scopes[0]["root_path"] == "/api"
    assert (await get(made, "/api/-/healthz", root_path="/api")).status == 200


async def test_a_websocket_goes_where_a_request_goes() -> None:
    made, apps = front("/a")
    await get(made, "/a", "websocket")
    assert apps["/a"].scopes[0]["type"] == "websocket"


async def test_what_is_nowhere_gets_404_and_a_websocket_is_closed() -> None:
    made, _ = front("/a")
    answer = await get(made, "/b'\n")
    assert answer.status == 404
    assert answer.body == rb"""Path "/b'\n" not found; /-/routes says what there is."""
    assert answer.headers[b"content-length"] == b"%d" % len(answer.body)
    assert b"retry-after" not in answer.headers
    assert (await get(made, "/b", "websocket")).sent == [{"type": "websocket.close"}]


async def test_an_application_that_is_not_ready_gets_503_and_says_when_to_come_back() -> None:
    made, _ = front("/")
    made.route({"/a": ("late", None)})
    answer = await get(made, "/a/x")
    assert answer.status == 503
    assert answer.body == b"The application 'late' is not ready yet."
    assert answer.headers[b"retry-after"] == b"1"
    assert (await get(made, "/a", "websocket")).sent == [{"type": "websocket.close"}]
    assert (await get(made, "/")).status == 404  # the other one has gone


@pytest.mark.parametrize("well", [True, False])
async def test_its_health_is_told_and_never_routed(well: bool) -> None:
    made, apps = front("/", well=well)
    answer = await get(made, "/-/healthz")
    assert (answer.status, answer.body) == ((200, b"success") if well else (503, b"not ready"))
    assert (b"retry-after" in answer.headers) is not well
    assert apps["/"].scopes == []


async def test_it_says_what_goes_where() -> None:
    made, _ = front("/", "/ü")
    answer = await get(made, "/-/routes")
    assert json.loads(answer.body) == {"/": "app of /", "/ü": "app of /ü"}
    assert answer.headers[b"content-type"] == b"application/json"
    answer = await get(made, "/-/else")
    assert (answer.status, answer.body) == (404, b"Path '/-/else' not found.")


async def test_it_lives_as_long_as_its_server() -> None:
    made, _ = front()
    told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return told.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await made({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert told == []
