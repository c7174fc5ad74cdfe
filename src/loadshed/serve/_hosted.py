"""What runs in the replicas of a deployment."""

import asyncio
import dataclasses
import inspect
import os
import traceback
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from loadshed._errors import ConfigError
from loadshed._exchange import Receive, Scope, Send
from loadshed._replica.target import Served, is_application, is_async
from loadshed._replica.threads import Threads
from loadshed.serve._answer import response_to, response_to_error
from loadshed.serve._client import Client, Clients
from loadshed.serve._deployment import Application
from loadshed.serve._graph import nodes, with_handles
from loadshed.serve._handle import DeploymentHandle
from loadshed.serve._ingress import application_of
from loadshed.serve._settings import did_you_mean
from loadshed.serve._source import Source, load


class Hosted(Served):
    """One deployment of an application: what calls go to, and what answers HTTP requests.

    Args:
        source: Where the application comes from.
        name: Which of its deployments this is.
    """

    def __init__(self, source: Source, name: str) -> None:
        named = nodes(load(source))
        if name not in named:
            expected = f"the name of a deployment in the code{did_you_mean(name, named)}"
            raise ConfigError("deployment", name, expected)
        self.object = _made(named[name], named)
        self.application = application_of(self.object)
        if self.application is None and is_application(self.object):
            self.application = self.object
        if self.application is None and callable(self.object):
            self.application = Answering(self.object)


def _made(node: Application, named: dict[str, Application]) -> Any:
    code = node.deployment.func_or_class
    if not isinstance(code, type):
        return code
    args, kwargs = with_handles(node, named, DeploymentHandle)
    return code(*args, **kwargs)


class Answering:
    """Answers each HTTP request with what a function returns.

    Args:
        function: What is called, with a Starlette `Request` unless it has no parameters.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._is_async = is_async(function)
        self._takes_request = bool(inspect.signature(function).parameters)
        self._threads = Threads()
        self._clients: Clients | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it was accepted: 403
        elif scope["type"] == "http":
            if self._clients is None:
                self._clients = Clients(asyncio.get_running_loop())
            client = Client(receive, self._clients)
            try:
                response = await self._answer(Request(scope, client.receive))
                client.forget()  # what runs on in the background may outlast it
                await response(scope, client.receive, send)
            except ClientDisconnect:
                pass  # nobody waits for an answer
            except asyncio.CancelledError:
                if not client.has_left:
                    raise
            finally:
                client.forget()

    async def _answer(self, request: Request) -> Response:
        try:
            if self._is_async:
                value = self._call(request)
            else:
                value = await self._threads.call(lambda: self._call(request))
            if inspect.isawaitable(value):
                value = await value
            return response_to(value)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the code raises
            return response_to_error(error)

    def _call(self, request: Request) -> Any:
        return self._function(request) if self._takes_request else self._function()


def describe(source: Source) -> dict[str, Any]:
    """What the code says of itself, as plain data, or `{"error": ..., "traceback": ...}`.

    It is called in a process of its own.
    """
    try:
        named = nodes(load(source))
        return {"deployments": [described(name, node) for name, node in named.items()]}
    except BaseException as error:  # noqa: BLE001 - whatever the code raises, SystemExit too
        summary = traceback.TracebackException.from_exception(error)
        summary.__notes__ = None
        said = [*summary.format_exception_only()][-1].strip()
        found: dict[str, Any] = {"error": said, "traceback": _its_traceback(error)}
        if isinstance(error, ConfigError):
            value = error.value if _is_plain(error.value) else repr(error.value)
            found["mistake"] = error.setting, value, error.expected
        return found


def _its_traceback(error: BaseException) -> str:
    """Where its code has raised it: what has imported it is no matter."""
    summary = traceback.TracebackException.from_exception(error)
    ours = os.path.dirname(os.path.dirname(__file__))
    frames = [each for each in summary.stack if not each.filename.startswith((ours, "<frozen"))]
    if isinstance(error, ConfigError) and not frames:  # it says all there is to say
        return ""
    summary.stack = traceback.StackSummary.from_list(frames)
    return "".join(summary.format())


def described(name: str, node: Application) -> dict[str, Any]:
    """What the code says of one of its deployments: the fields of `DescribedDeployment`.

    Raises:
        ConfigError: A setting is no plain data.
    """
    deployment = node.deployment
    given = dict(deployment.given)
    if (answers := given.get("backpressure_config")) is not None:
        given["backpressure_config"] = dataclasses.asdict(answers)
    for setting, value in given.items():
        if not _is_plain(value):
            expected = "plain data: strings, numbers, lists and dicts of them"
            raise ConfigError(f"{setting} of {name}", value, expected)
    return {
        "name": name,
        "given": given,
        "reconfigurable": callable(getattr(deployment.func_or_class, "reconfigure", None)),
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in {str, int, float, bool}
