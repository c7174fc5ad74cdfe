"""Answer: what a deployment has returned, or raised, as an HTTP response."""

import dataclasses
import json
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from enum import Enum
from http import HTTPStatus
from pathlib import PurePath
from typing import Any
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from loadshed._errors import (
    BackPressureError,
    LoadShedError,
    ReplicaDiedError,
    ReplicaUnavailableError,
    RequestTimeoutError,
)

_logger = logging.getLogger("loadshed")


def response_to(value: Any) -> Response:
    """The response for what was returned. The content types are Ray Serve's.

    Raises:
        TypeError: No response can be made of it.
    """
    if isinstance(value, Response):
        return value
    if value is None or isinstance(value, bytes):
        return _Plain(value or b"", b"text/plain")
    if isinstance(value, str):
        return _Plain(value.encode(), b"text/plain; charset=utf-8")
    if isinstance(value, AsyncIterator | Iterator):
        return StreamingResponse(value, headers={"content-type": "text/plain"})
    text = json.dumps(
        value, default=_plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return _Plain(text.encode(), b"application/json")


class _Plain(Response):
    """A response whose headers are known. To find them takes Starlette longer than the rest."""

    def __init__(self, body: bytes, content_type: bytes) -> None:
        self.status_code = 200  # no `HTTPStatus`, which takes long to pickle
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(body)),
        ]


def _plain(value: Any) -> Any:
    """What JSON can be made of, for what it can't be made of as it is."""
    for is_one, made in _PLAIN:
        if is_one(value):
            return made(value)
    raise TypeError(
        f"A response is a string, bytes, what JSON can be made of, a Response or a generator, and "
        f"there was a value of type {type(value).__name__}."
    )


def _is_object(value: Any) -> bool:
    return not isinstance(value, type)


_PLAIN: list[tuple[Callable[[Any], bool], Callable[[Any], Any]]] = [
    (lambda value: hasattr(value, "model_dump"), lambda value: value.model_dump(mode="json")),
    (lambda value: dataclasses.is_dataclass(value) and _is_object(value), dataclasses.asdict),
    (lambda value: hasattr(value, "tolist"), lambda value: value.tolist()),  # numpy and its like
    (lambda value: hasattr(value, "isoformat"), lambda value: value.isoformat()),
    (lambda value: isinstance(value, set | frozenset), list),
    (lambda value: isinstance(value, bytes | bytearray), lambda value: bytes(value).decode()),
    (lambda value: isinstance(value, Decimal), float),
    (lambda value: isinstance(value, Enum), lambda value: value.value),
    (lambda value: isinstance(value, UUID | PurePath), str),
]


def response_to_error(error: Exception) -> Response:
    """The response for what was raised."""
    if isinstance(error, HTTPException):
        return _response_to_http_error(error)
    if isinstance(error, LoadShedError) and (status := status_of(error)) is not None:
        return problem(status, error)
    _logger.error("Exception in a deployment", exc_info=error)
    return PlainTextResponse("Internal Server Error", 500)


def _response_to_http_error(error: HTTPException) -> Response:
    if error.status_code in {204, 304}:  # they have no body
        return Response(status_code=error.status_code, headers=error.headers)
    detail: Any = error.detail  # FastAPI lets it be more than text
    if isinstance(detail, str):
        return PlainTextResponse(detail, error.status_code, headers=error.headers)
    return JSONResponse({"detail": detail}, error.status_code, headers=error.headers)


def problem(status: int, error: LoadShedError) -> Response:
    """Problem details (RFC 9457), as `LoadShedMiddleware` answers."""
    details = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": str(error).partition("\n")[0],
    }
    headers = {"content-type": "application/problem+json"}
    if isinstance(error, BackPressureError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    return Response(json.dumps(details), status, headers)


def status_of(error: LoadShedError) -> int | None:
    """What an error of a deployment that was called says to the client; None if nothing."""
    if isinstance(error, BackPressureError | ReplicaUnavailableError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, ReplicaDiedError):
        return HTTPStatus.BAD_GATEWAY
    if isinstance(error, RequestTimeoutError):
        return HTTPStatus.GATEWAY_TIMEOUT
    return None
