"""Control: how a server is told what to do: HTTP over its Unix socket."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from loadshed._errors import ConfigError, LoadShedError
from loadshed.serve._config.file import ConfigFileError, Mistake, from_plain
from loadshed.serve._config.write import to_plain
from loadshed.serve._service import Service


class NoServerError(LoadShedError):
    """No server runs at this address."""


class UnexpectedAnswerError(LoadShedError):
    """The server failed, or is none of ours."""


def control_application(service: Service) -> Starlette:
    """The ASGI application behind the socket."""

    async def status(_: Request) -> JSONResponse:
        return JSONResponse(service.status())

    async def show_config(_: Request) -> JSONResponse:
        return JSONResponse(to_plain(service.config))

    async def deploy(request: Request) -> JSONResponse:
        try:
            wanted = await request.json()
            config, restart, file = wanted["config"], bool(wanted["restart"]), str(wanted["file"])
        except (ValueError, KeyError, TypeError) as error:
            return JSONResponse({"error": f"no question of ours: {error!r}"}, 400)
        try:
            read = from_plain(config)
            warnings = await service.deploy(read.config, restart=restart, file=file)
        except ConfigFileError as error:
            return JSONResponse({"mistakes": [_said(each) for each in error.mistakes]}, 422)
        except ConfigError as error:
            return JSONResponse({"error": str(error)}, 500)
        answer = {"generation": service.generation, "warnings": [_said(each) for each in warnings]}
        return JSONResponse(answer, 202)

    async def shutdown(_: Request) -> JSONResponse:
        asyncio.get_running_loop().call_soon(service.end)
        return JSONResponse({}, 202)

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/config", show_config),
            Route("/config", deploy, methods=["PUT"]),
            Route("/shutdown", shutdown, methods=["POST"]),
        ]
    )


class Control:
    """Tells a server what to do.

    Args:
        address: Its socket.

    Raises:
        NoServerError: No server runs there.
        UnexpectedAnswerError: It failed.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        # Long enough for code that takes its time to be imported.
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=address), base_url="http://loadshed", timeout=600
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def status(self) -> dict[str, Any]:
        """What it does."""
        return self._ask("GET", "/status")

    def config(self) -> dict[str, Any]:
        """What it is to be."""
        return self._ask("GET", "/config")

    def deploy(self, config: dict[str, Any], *, restart: bool, file: str = "") -> dict[str, Any]:
        """Have it be something else.

        Args:
            config: What it is to be, as JSON has it.
            restart: Whether replicas are to be replaced though nothing has changed.
            file: The file that it comes from.

        Returns:
            Its `generation`, and `warnings`.

        Raises:
            ConfigFileError: Something is wrong with it; nothing has changed.
        """
        wanted = {"config": config, "restart": restart, "file": file}
        return self._ask("PUT", "/config", json=wanted)

    def shutdown(self) -> None:
        """Have it end, when what came is served."""
        self._ask("POST", "/shutdown")

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        with self._failures():
            response = self._client.request(method, path, **more)
            answer: dict[str, Any] = response.json()
        if response.status_code == 422 and answer.get("mistakes"):
            raise ConfigFileError(Mistake(**each) for each in answer["mistakes"])
        if response.is_error:
            raise UnexpectedAnswerError(f"The server answered {response}: {response.text}")
        return answer

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.UnsupportedProtocol):
            raise NoServerError(
                f"No server runs at {self._address}. `loadshed run` starts one; `--address` says "
                "which one is meant."
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            raise UnexpectedAnswerError(
                f"The server at {self._address} did not answer: {error!r}"
            ) from None


def _said(mistake: Mistake) -> dict[str, str]:
    return {"message": mistake.message, "where": mistake.where}
