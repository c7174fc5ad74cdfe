"""What a deployment returns, or raises, as a response."""

import asyncio
import dataclasses
import datetime
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import fastapi
import numpy as np
import pytest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from loadshed import (
    BackPressureError,
    CircuitOpenError,
    ConfigError,
    LoadShedError,
    NotPicklableError,
    QueueFullError,
    QueueTimeoutError,
    ReplicaDiedError,
    ReplicaError,
    ReplicaUnavailableError,
    RequestTimeoutError,
)
from loadshed.serve._answer import problem, response_to, response_to_error, status_of


def body(response: Response) -> bytes:
    return bytes(response.body)


def content_type(response: Response) -> str | None:
    return response.headers.get("content-type")


async def streamed(response: Response) -> bytes:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
    await response(scope, receive, send)
    return b"".join(message.get("body", b"") for message in sent)


def test_a_response_is_the_response() -> None:
    response = JSONResponse({"a": 1}, 201)
    assert response_to(response) is response


@pytest.mark.parametrize(
    ("value", "sent", "kind"),
    [
        (None, b"", "text/plain"),
        (b"\xff\x00", b"\xff\x00", "text/plain"),
        ("grüße", "grüße".encode(), "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        (3, b"3", "application/json"),
        (True, b"true", "application/json"),
        (1.5, b"1.5", "application/json"),
        ([1, (2, "ü")], '[1,[2,"ü"]]'.encode(), "application/json"),
        ({"a": None, "b": {}}, b'{"a":null,"b":{}}', "application/json"),
        ({}, b"{}", "application/json"),
        (range(0), None, None),
    ],
)
def test_what_is_returned_is_sent_as_ray_serve_sends_it(
    value: Any, sent: bytes | None, kind: str | None
) -> None:
    if sent is None:
        with pytest.raises(TypeError, match="there was a value of type range"):
            response_to(value)
        return
    response = response_to(value)
    assert response.status_code == 200
    assert body(response) == sent
    assert content_type(response) == kind


class Point(BaseModel):
    at: datetime.date


@dataclasses.dataclass
class Pair:
    one: int
    other: Any


def test_what_json_does_not_know_is_made_into_what_it_does() -> None:
    day = datetime.date(2026, 1, 2)
    values: dict[str, Any] = {
        "model": Point(at=day),
        "dataclass": Pair(1, Pair(2, np.arange(2))),
        "array": np.eye(2, dtype=np.uint8),
        "scalar": np.float32(0.5),
        "set": {1},
        "frozenset": frozenset({"x"}),
        "date": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
        "ordered": OrderedDict(a=1),
    }
    assert json.loads(body(response_to(values))) == {
        "model": {"at": "2026-01-02"},
        "dataclass": {"one": 1, "other": {"one": 2, "other": [0, 1]}},
        "array": [[1, 0], [0, 1]],
        "scalar": 0.5,
        "set": [1],
        "frozenset": ["x"],
        "date": "2026-01-02T03:00:00+00:00",
        "ordered": {"a": 1},
    }
    assert body(response_to(Point(at=day))) == b'{"at":"2026-01-02"}'


@pytest.mark.parametrize("value", [object(), Pair, {"a": lambda: 1}, [SimpleNamespace()]], ids=repr)
def test_of_what_is_no_data_no_response_can_be_made(value: Any) -> None:
    with pytest.raises(TypeError, match="A response is a string, bytes, what JSON can be made of"):
        response_to(value)


def sync_items() -> Iterator[str]:
    yield "a"
    yield "ü"


async def async_items() -> AsyncIterator[bytes]:
    yield b"a"
    yield "ü".encode()


@pytest.mark.parametrize("make", [sync_items, async_items, lambda: iter(["a", "ü"])])
def test_a_generator_is_streamed(make: Callable[[], Any]) -> None:
    response = response_to(make())
    assert content_type(response) == "text/plain"
    assert "content-length" not in response.headers
    assert asyncio.run(streamed(response)) == "aü".encode()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QueueFullError(1, 2, "queue_full", 7), 503),
        (QueueTimeoutError(), 503),
        (BackPressureError(), 503),
        (ReplicaUnavailableError("There is none."), 503),
        (ReplicaDiedError("It died."), 502),
        (RequestTimeoutError(3), 504),
    ],
)
def test_what_a_deployment_that_was_called_raises_says_what_to_do(
    error: LoadShedError, status: int
) -> None:
    assert status_of(error) == status
    response = response_to_error(error)
    assert response.status_code == status
    assert content_type(response) == "application/problem+json"
    details = json.loads(body(response))
    assert details["status"] == status
    assert details["type"] == "about:blank"
    assert details["title"] in {"Service Unavailable", "Bad Gateway", "Gateway Timeout"}
    assert details["detail"] == str(error)
    assert ("retry-after" in response.headers) == isinstance(error, BackPressureError)


@pytest.mark.parametrize(("after", "header"), [(7, "7"), (0, "1"), (-3, "1"), (1.2, "2")])
def test_when_to_come_back_is_a_whole_number_of_seconds(after: Any, header: str) -> None:
    response = problem(503, QueueFullError(1, 2, "queue_full", after))
    assert response.headers["retry-after"] == header


def test_a_traceback_in_a_message_is_not_sent() -> None:
    error = ReplicaUnavailableError("It could not start.\nTraceback: secret")
    assert json.loads(body(problem(503, error)))["detail"] == "It could not start."


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        LoadShedError("secret"),
        ReplicaError("secret"),
        NotPicklableError("secret"),
        CircuitOpenError("secret"),
        ConfigError("secret", 1, "x"),
        ExceptionGroup("secret", [ValueError()]),
    ],
    ids=repr,
)
def test_any_other_error_is_logged_and_not_sent(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "loadshed"):
        response = response_to_error(error)
    assert (response.status_code, body(response)) == (500, b"Internal Server Error")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_an_http_error_is_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    response = response_to_error(HTTPException(404, "no such x", {"x-why": "gone"}))
    assert (response.status_code, body(response)) == (404, b"no such x")
    assert response.headers["x-why"] == "gone"
    assert body(response_to_error(HTTPException(418))) == b"I'm a Teapot"
    assert not caplog.records


@pytest.mark.parametrize("status", [204, 304])
def test_an_http_error_without_a_body_has_none(status: int) -> None:
    """A server refuses to send one (h11: `Too much data for declared Content-Length`)."""
    response = response_to_error(HTTPException(status))
    assert body(response) == b""


def test_an_http_error_of_fastapi_may_have_data_for_its_detail() -> None:
    response = response_to_error(fastapi.HTTPException(422, {"field": "x"}))
    assert response.status_code == 422
    assert b"field" in body(response)
