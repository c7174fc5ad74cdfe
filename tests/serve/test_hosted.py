"""What runs in a replica: which object is made, how it answers HTTP, and what it says of itself."""

import asyncio
import math
import pickle
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.testclient import TestClient

from loadshed import ConfigError, QueueFullError
from loadshed.serve import Application, BackpressureConfig, DeploymentHandle, deployment
from loadshed.serve._hosted import Answering, Hosted, describe, described
from loadshed.serve._source import Source
from tests.serve import parts as typed_parts

parts: Any = typed_parts  # to mypy a class that is decorated stays the class


def source(name: str) -> Source:
    return Source(import_path=f"tests.serve.parts:{name}")


def pickled(application: Application) -> Source:
    return Source(pickled=pickle.dumps(application))


def client_of(application: Any) -> TestClient:
    return TestClient(application, raise_server_exceptions=False)


# Hosted.


def test_the_object_is_made_with_its_arguments_and_handles() -> None:
    inner = parts.Model.bind(2)
    outer = parts.renamed.bind([inner])
    hosted = Hosted(pickled(outer), "Renamed")
    (handle,) = hosted.object.factor
    assert isinstance(handle, DeploymentHandle)
    assert handle.deployment_name == "Model"
    assert Hosted(pickled(outer), "Model").object(4) == 8


def test_a_function_is_the_object_and_what_answers() -> None:
    hosted = Hosted(_of(parts.double), "other")
    assert hosted.object is parts.double.func_or_class
    assert isinstance(hosted.application, Answering)


def _of(one: Any) -> Source:
    return pickled(one.bind())


@pytest.mark.parametrize("name", ["asgi", "application"])
def test_an_asgi_application_answers_itself(name: str) -> None:
    hosted = Hosted(source(name), name)
    assert hosted.object is hosted.application is getattr(parts, name)
    assert client_of(hosted.application).get("/").text == "from asgi"


def test_an_object_that_can_not_be_called_answers_no_requests() -> None:
    assert Hosted(_of(parts.Silent), "Silent").application is None
    assert Hosted(_of(parts.Reconfigurable), "Reconfigurable").application is None


def test_a_deployment_that_the_code_has_not_is_told_of() -> None:
    with pytest.raises(ConfigError) as caught:
        Hosted(source("Bound"), "Modle")
    assert caught.value.value == "Modle"
    assert "did you mean 'Model'" in caught.value.expected


# Answering.


def ask(function: Any, method: str = "GET") -> Any:
    return client_of(Answering(function)).request(method, "/p?q=1", content=b"hello")


def test_a_function_is_called_with_the_request() -> None:
    def sync(request: Any) -> Any:
        assert threading.current_thread().name == "loadshed call"
        return {"path": request.url.path, "q": request.query_params["q"]}

    async def one(request: Any) -> Any:
        return await request.body()

    class Called:
        async def __call__(self, request: Any) -> str:
            return str(request.method)

    assert ask(sync).json() == {"path": "/p", "q": "1"}
    assert ask(one, "POST").content == b"hello"
    assert ask(Called(), "PUT").text == "PUT"
    assert ask(partial(sync)).json()["q"] == "1"


def test_one_without_parameters_is_called_without() -> None:
    async def one() -> str:
        return "async"

    class Called:
        def __call__(self) -> str:
            return "object"

    assert ask(lambda: "sync").text == "sync"
    assert ask(one).text == "async"
    assert ask(Called()).text == "object"


def test_what_is_awaitable_is_awaited_whoever_returns_it() -> None:
    async def one() -> int:
        return 3

    assert ask(lambda: one()).json() == 3  # noqa: PLW0108 - it is not async itself


def test_items_are_streamed() -> None:
    assert ask(parts.items).text == "ab"
    assert ask(parts.items_async).text == "cd"


def test_a_response_is_sent_as_it_is() -> None:
    answer = ask(lambda: Response(b"x", 201, {"x-a": "b"}))
    assert (answer.status_code, answer.headers["x-a"]) == (201, "b")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("secret"), 500),
        (StopIteration("secret"), 500),
        (HTTPException(404, "gone"), 404),
        (QueueFullError(), 503),
    ],
    ids=["ValueError", "StopIteration", "HTTPException", "QueueFullError"],
)
def test_what_is_raised_is_answered(error: Exception, status: int, is_async: bool) -> None:
    def sync() -> None:
        raise error

    async def one() -> None:
        raise error

    answer = ask(one if is_async else sync)
    assert answer.status_code == status
    assert "secret" not in answer.text


def test_what_is_no_response_is_an_error_of_the_server() -> None:
    assert ask(object).status_code == 500
    assert ask(lambda: "\ud800").status_code == 500


def test_it_knows_requests_and_refuses_websockets() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    for kind in ("websocket", "lifespan"):
        asyncio.run(Answering(lambda: "x")({"type": kind}, receive, send))
    assert sent == [{"type": "websocket.close"}]


def test_what_runs_in_a_thread_is_waited_for_though_its_caller_is_cancelled() -> None:
    """Its slot is in use until then."""
    begun, go = threading.Event(), threading.Event()
    ended: list[str] = []

    def work() -> None:
        begun.set()
        go.wait(20)
        ended.append("work")

    async def run() -> None:
        call = asyncio.create_task(Answering(work)({"type": "http"}, _never, _never))
        await asyncio.to_thread(begun.wait, 20)
        call.cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.wait([call])
        ended.append("call")
        assert call.cancelled()

    asyncio.run(run())
    assert ended == ["work", "call"]


async def _never(*_: Any) -> Any:
    raise AssertionError


# describe.


def test_code_says_of_itself_what_it_has() -> None:
    inner = parts.Reconfigurable.options(
        user_config={"a": [1, (2,)]}, max_ongoing_requests=math.inf
    )
    outer = parts.renamed.options(
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=2),
        ray_actor_options={"num_gpus": 1},
    )
    said = describe(pickled(outer.bind(inner.bind())))
    assert said == {
        "deployments": [
            {
                "name": "Reconfigurable",
                "given": {"user_config": {"a": [1, (2,)]}, "max_ongoing_requests": math.inf},
                "reconfigurable": True,
            },
            {
                "name": "Renamed",
                "given": {
                    "num_replicas": 2,
                    "backpressure_config": {"status_code": 429, "retry_after_s": 2},
                    "ray_actor_options": {"num_gpus": 1},
                },
                "reconfigurable": False,
            },
        ]
    }


def test_what_it_says_is_a_copy() -> None:
    one = parts.Model.options(num_replicas=3)
    described("x", one.bind())["given"]["num_replicas"] = 4
    assert one.given == {"num_replicas": 3}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("user_config", object()),
        ("user_config", {1: "x"}),
        ("user_config", [{"a": {1}}]),
        ("user_config", b"x"),
        ("ray_actor_options", {"a": (object(),)}),
    ],
)
def test_a_setting_that_is_no_plain_data_is_told_of(setting: str, value: Any) -> None:
    one = parts.Model.options(**{setting: value})
    with pytest.raises(ConfigError) as caught:
        described("m", one.bind())
    assert caught.value.setting == f"{setting} of m"
    assert caught.value.expected == "plain data: strings, numbers, lists and dicts of them"


class Seconds(float):
    """A number of a class that the server does not know."""


def test_every_setting_is_plain_data() -> None:
    """The server unpickles them, and imports no code of an application."""
    one = deployment(max_wait=Seconds(3), backpressure_config={"retry_after_s": Seconds(2)})
    try:
        given = described("m", one(parts.Plain).bind())["given"]
    except ConfigError:
        return
    assert type(given["max_wait"]) is float
    assert type(given["backpressure_config"]["retry_after_s"]) is float


def said_by(path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> dict[str, Any]:
    (path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(path))
    return describe(Source(import_path=f"{name}:app"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("raise LookupError('no\\nmodel')", "LookupError: no\nmodel"),
        ("raise SystemExit('out')", "SystemExit: out"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("x = ", "SyntaxError: invalid syntax"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("app = 3", "loadshed._errors.ConfigError: import_path must be"),
    ],
    ids=["an error", "SystemExit", "KeyboardInterrupt", "SyntaxError", "no module", "a number"],
)
def test_code_that_can_not_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, error: str
) -> None:
    name = f"loadshed_test_says_{abs(hash(text))}"
    said = said_by(tmp_path, monkeypatch, name, text)
    assert said["error"].startswith(error)
    if "mistake" in said:  # it says all there is to say
        assert said["traceback"] == ""
        return
    assert said["traceback"].startswith("Traceback (most recent call last):")
    assert error.partition("\n")[0] in said["traceback"]
    assert "loadshed/_" not in said["traceback"]


def test_an_error_with_a_note_says_what_it_is_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "error = ValueError('no model')\nerror.add_note('Ask the operator.')\nraise error\n"
    said = said_by(tmp_path, monkeypatch, "loadshed_test_says_note", text)
    assert said["error"].startswith("ValueError: no model")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_that_leaves_while_it_sends_gets_no_answer() -> None:
    async def read(request: Any) -> bytes:
        return bytes(await request.body())

    async def leave() -> dict[str, str]:
        return {"type": "http.disconnect"}

    sent: list[Any] = []
    scope = {"type": "http", "method": "POST", "headers": [], "path": "/", "query_string": b""}
    await Answering(read)(scope, leave, sent.append)  # type: ignore[arg-type]
    assert sent == []
