"""ingress: an ASGI application whose endpoints may be methods of a class."""

from typing import Any, ClassVar

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from loadshed import (
    ConfigError,
    LoadShedError,
    QueueFullError,
    ReplicaDiedError,
    RequestTimeoutError,
)
from loadshed.serve import deployment, ingress
from loadshed.serve._deployment import APPLICATION
from loadshed.serve._ingress import application_of
from tests.serve.parts import asgi


class Item(BaseModel):
    name: str
    price: float = 1.0


def made() -> Any:
    """A FastAPI application, and a class whose methods are its endpoints."""
    app = FastAPI()

    @app.get("/plain")
    def plain(x: int = 1) -> int:
        return x

    def doubled(x: int) -> int:
        return 2 * x

    @ingress(app)
    class Service:
        def __init__(self, factor: int) -> None:
            self.factor = factor
            self.seen: list[str] = []

        @app.get("/times/{x}")
        def times(self, x: int, plus: int = 0) -> int:
            return self.factor * x + plus

        @app.post("/item")
        async def item(self, item: Item, request: Request) -> dict[str, Any]:
            self.seen.append(item.name)
            return {"name": item.name, "path": request.url.path, "factor": self.factor}

        @app.get("/depends")
        def depends(self, y: int = Depends(doubled)) -> int:
            return self.factor * y

        @app.get("/seen", response_model=list[str], status_code=202)
        def all_seen(self) -> list[str]:
            return self.seen

        @app.websocket("/socket/{x}")
        async def socket(self, websocket: WebSocket, x: int) -> None:
            await websocket.accept()
            await websocket.send_text(str(self.factor * x))
            await websocket.close()

        def helper(self) -> int:
            return self.factor

    return Service


def client_of(instance: Any) -> TestClient:
    return TestClient(application_of(instance))


def test_the_endpoints_are_methods_of_the_object() -> None:
    client = client_of(made()(3))
    assert client.get("/times/4").json() == 12
    assert client.get("/times/4?plus=1").json() == 13
    assert client.get("/times/no-number").status_code == 422
    assert client.get("/depends?x=5").json() == 30
    answer = client.post("/item", json={"name": "a"})
    assert answer.json() == {"name": "a", "path": "/item", "factor": 3}
    assert client.post("/item", json={}).status_code == 422
    assert (client.get("/seen").status_code, client.get("/seen").json()) == (202, ["a"])
    with client.websocket_connect("/socket/7") as websocket:
        assert websocket.receive_text() == "21"


def test_those_that_are_no_methods_are_as_they_were() -> None:
    assert client_of(made()(3)).get("/plain?x=7").json() == 7


def test_the_schema_knows_nothing_of_self() -> None:
    schema = client_of(made()(3)).get("/openapi.json").json()
    parameters = schema["paths"]["/times/{x}"]["get"]["parameters"]
    assert [each["name"] for each in parameters] == ["x", "plus"]
    assert "requestBody" not in schema["paths"]["/seen"]["get"]
    assert {*schema["paths"]} == {"/plain", "/times/{x}", "/item", "/depends", "/seen"}


def test_an_endpoint_may_belong_to_a_class_above() -> None:
    app = FastAPI()

    class Base:
        name = "base"

        @app.get("/name")
        def who(self) -> str:
            return self.name

    @ingress(app)
    class Service(Base):
        name = "service"

        @app.get("/more")
        def more(self) -> str:
            return f"more {self.name}"

    client = client_of(Service())
    assert client.get("/name").json() == "service"
    assert client.get("/more").json() == "more service"


def test_a_class_below_answers_with_its_own_object() -> None:
    class Below(made()):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(5)

    assert client_of(Below()).get("/times/2").json() == 10


def test_an_object_with_slots_is_an_object_too() -> None:
    app = FastAPI()

    @ingress(app)
    class Service:
        __slots__ = ("x",)

        @app.get("/")
        def root(self) -> int:
            return self.x  # type: ignore[attr-defined,no-any-return]

    instance = Service()
    instance.x = 3  # type: ignore[attr-defined]
    assert client_of(instance).get("/").json() == 3


def test_an_endpoint_that_has_no_self_works_or_is_told_of() -> None:
    app = FastAPI()

    class Service:
        @staticmethod
        @app.get("/static")
        def static() -> int:
            return 3

    try:
        cls = ingress(app)(Service)
    except ConfigError:
        return
    assert client_of(cls()).get("/static").json() == 3


@pytest.mark.parametrize("app", [None, 3, "module:app", []])
def test_what_can_not_be_called_is_no_application(app: Any) -> None:
    with pytest.raises(ConfigError, match="app must be an ASGI application, or a function that"):
        ingress(app)


@pytest.mark.parametrize("wrong", [3, deployment(Item), lambda: None])
def test_it_stands_above_a_class(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^ingress must be above a class, not "):
        ingress(FastAPI())(wrong)


def test_an_application_needs_no_class_of_its_own() -> None:
    app = FastAPI()
    cls = ingress(app)()
    assert cls.__name__ == "FastAPI"
    assert application_of(cls()) is app

    def build() -> Any:
        return app

    cls = ingress(build)()
    assert (cls.__name__, cls.__qualname__) == ("build", "<ingress of build>")
    assert application_of(cls()) is app


def test_a_function_makes_one_for_each_object_and_only_when_it_is_made() -> None:
    class Service:
        built: ClassVar[list[Any]] = []

    def build() -> Starlette:
        Service.built.append(Starlette())
        return Service.built[-1]  # type: ignore[no-any-return]

    decorated = ingress(build)(Service)
    assert decorated is Service
    assert Service.built == []
    assert getattr(Service, APPLICATION) is build
    assert application_of(Service()) is Service.built[0]


@pytest.mark.parametrize(
    "app", [lambda: 3, lambda scope: None, lambda x=1: x, lambda: None], ids=range(4)
)
def test_a_function_that_makes_no_application_is_told_of(app: Any) -> None:
    cls = ingress(app)(type("Service", (), {}))
    with pytest.raises(ConfigError, match="ingress must be an ASGI application, or a function"):
        application_of(cls())


def test_an_application_of_no_framework_is_served_as_it_is() -> None:
    assert application_of(ingress(asgi)()()) is asgi
    assert TestClient(asgi).get("/").text == "from asgi"


def test_an_object_without_ingress_has_no_application() -> None:
    assert application_of(3) is None
    assert application_of(FastAPI()) is None


@pytest.fixture
def raising() -> dict[str, Exception]:
    return {"error": QueueFullError(1, 2, "queue_full", 7)}


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
def test_what_is_raised_by_deployments_is_answered(
    framework: Any, raising: dict[str, Exception]
) -> None:
    async def endpoint(request: Any) -> Any:
        raise raising["error"]

    app = framework(routes=[Route("/", endpoint)])
    client = TestClient(application_of(ingress(app)()()), raise_server_exceptions=False)
    answer = client.get("/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert answer.json()["detail"].startswith("Request dropped due to backpressure")
    raising["error"] = ReplicaDiedError("It died.")
    assert client.get("/").status_code == 502
    raising["error"] = RequestTimeoutError(1)
    assert client.get("/").status_code == 504
    raising["error"] = LoadShedError("secret")
    assert client.get("/").status_code == 500
    raising["error"] = ValueError("secret")
    assert client.get("/").status_code == 500


def test_a_handler_of_its_own_counts() -> None:
    async def endpoint(request: Any) -> Any:
        raise QueueFullError

    async def mine(request: Any, error: Exception) -> Any:
        return PlainTextResponse("mine", 418)

    for of in (LoadShedError, QueueFullError):
        app = Starlette(routes=[Route("/", endpoint)], exception_handlers={of: mine})
        assert TestClient(application_of(ingress(app)()())).get("/").status_code == 418
